"""The executable model: its state, and the steps that change it.

`layout` and `state` say what there is; `steps` numbers the steps of the kernel paths, one file each
(`access`, `fault`, `cow`, `swapin`, `fork`, `gup`, `reclaim`, `zap`, `vma`, `reference`, `lru`,
`observe`); `questions` lists what the steps ask of the rules; `drive` runs them.
"""
