"""What the states of a hunt may forget on a kernel: which maps of `forget.py` are sound there.

A map may rest on what the kernel's rules look at, or on what they do.  A user's own rule may look
at anything, so with one nothing is forgotten but what no rule can see.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any, Final

from pageherd.rules.choose import Kernel
from pageherd.search import forget

_REUSES_EXCLUSIVE: Final = ("by-exclusive", "by-exclusive-bit")
_GUP_LEAVES_EXCLUSIVE: Final = ("never", "pins-not-exclusive", "pins-not-exclusive-or-longterm")
_EXCLUSIVE_STAYS: Final = {"reuse": _REUSES_EXCLUSIVE, "unshare": _GUP_LEAVES_EXCLUSIVE}
"""An exclusive page is neither copied nor unshared by faults and GUP."""
_NEVER_UPGRADES: Final = {"mprotect-upgrade": ("never",), "swapin-read-maps": ("read-only",)}
_KEEPS_BATCH: Final = ("by-mapcount", "by-refcount", "by-state")
"""Reuse of a page that a forced write has just faulted in does not drain the LRU batch; so that it
does not matter whether the zero page was mapped before."""
_MARKED_AT_BIRTH: Final = {"reuse": _REUSES_EXCLUSIVE, "marks": ("anon-exclusive",)}
"""The same, since such a page is exclusive."""
_PINS_ARE_OWN: Final = {
    "unshare": _GUP_LEAVES_EXCLUSIVE[1:],
    "fork": ("copy-if-exclusive-pinned",),
    "reclaim-skips": ("pinned",),
    "unmap-refuses": ("exclusive-pinned",),
    "marks": ("anon-exclusive",),
    "soft-dirty-skips": ("nothing", "pinned"),
}
"""A pinned page that is mapped was pinned by the process that maps it, which so has pinned."""
_TRACKS: Final[Mapping[str, tuple[str, ...]]] = {
    "force": ("cow-broken-and-dirty", "exclusive"),
    "mprotect-upgrade": ("never", "exclusive-dirty", "exclusive"),
    "swapin-read-maps": ("read-only", "writable-if-exclusive"),
}


def forgettable(kernel: Kernel) -> int:
    """The bits of `forget.py` that are sound for `kernel`."""
    if not all(chosen.trusted for chosen in kernel.choices.values()):
        return 0
    bits = forget.FOLL_FLAGS | forget.OUT_OF_REACH
    if not _look_at(kernel, "mm_has_pinned") or _agree(kernel, _PINS_ARE_OWN):
        bits |= forget.HAS_PINNED
    if kernel.of("reuse") in _KEEPS_BATCH or _agree(kernel, _MARKED_AT_BIRTH):
        bits |= forget.ZERO_ENTRY
    knows_mapped = kernel.of("counting") == "exact" or kernel.of("still-mapped") == "by-rmap"
    if knows_mapped:
        bits |= forget.MAP_COUNT
    exclusive = _agree(kernel, _EXCLUSIVE_STAYS)
    # what the rules that track writes decide by an entry's bits: whether one more fault on an
    # exclusive page, which is then reused, sets the write bit; or nothing, since the fault before
    # them set the bits
    known = _agree(kernel, _TRACKS) and (exclusive or _agree(kernel, _NEVER_UPGRADES))
    skipped = tuple(_TRACKS) if known and not _look_at(kernel, "PTE_SOFT_DIRTY", *_TRACKS) else ()
    if exclusive and skipped:
        bits |= forget.WRITE_BIT
    if not _look_at(kernel, "PTE_SOFT_DIRTY", *skipped):
        bits |= forget.SOFT_DIRTY
    # a kernel that takes a mapped page for an unmapped one writes it to swap with entries left
    if knows_mapped and not _look_at(kernel, "PTE_DIRTY", *skipped):
        bits |= forget.PTE_DIRTIES
    return bits


def _agree(kernel: Kernel, wanted: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether the kernel chose one of the alternatives wanted at each decision point named."""
    return all(kernel.of(point) in names for point, names in wanted.items())


def _look_at(kernel: Kernel, name: str, *skipped: str) -> bool:
    """Whether a rule mentions a field or constant, but for those at the decision points skipped."""
    return any(
        _mentions(rule, name)
        for point, chosen in kernel.choices.items()
        if point not in skipped
        for rule in chosen.functions
    )


def _mentions(function: Any, name: str) -> bool:
    """Whether a rule, or a helper that it calls, uses the name."""
    function = getattr(function, "py_func", function)
    if not isinstance(function, FunctionType):
        return False
    names = function.__code__.co_names
    return name in names or any(
        _mentions(function.__globals__[used], name)
        for used in names
        if used in function.__globals__
    )
