"""The layout of tests holds whatever the language allows."""

from __future__ import annotations

from pageherd import explore, parse
from pageherd.litmus import limits
from pageherd.machine.layout import TEST


def test_the_layout_is_as_large_as_the_language() -> None:
    assert TEST.mms >= limits.MAX_PROCESSES
    assert TEST.pages >= limits.MAX_PAGES
    assert TEST.threads >= limits.MAX_THREADS + 1  # and the kernel's own
    assert TEST.refs >= limits.MAX_REFERENCES
    assert TEST.registers >= limits.MAX_REGISTERS


def test_the_largest_test_has_frames_enough() -> None:
    """Every process writes every page; one frame for each, and what swap and references keep."""
    processes = [f"P{n}" for n in range(limits.MAX_PROCESSES)]
    pages = "abcdefgh"[: limits.MAX_PAGES]
    lines = ["test t", f"processes {' '.join(processes)}", f"pages {' '.join(pages)}"]
    lines += [f"P0: mmap {page}\nP0: write {page} = 1" for page in pages]
    lines += [f"P0: r{n} = vmsplice {page}" for n, page in enumerate(pages)]
    lines += [f"P0: fork {name}" for name in processes[1:]]
    lines += [f"{name}: write {page} = 2" for name in processes for page in pages]
    verdict = explore(parse("\n".join(lines) + "\n"), "linux-5.10")
    assert verdict.verdict == "kept"
    assert verdict.exploration.outcomes[0].copies == limits.MAX_PROCESSES * limits.MAX_PAGES
