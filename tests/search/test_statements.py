"""What the library must say about the best-known bugs, sentence by sentence."""

from __future__ import annotations

import pytest

from library import checker
from pageherd.search.check import find_one

OLD = ("linux-4.19", "linux-4.19.y", "linux-5.8")
SINCE_510 = ("linux-5.10", "linux-5.18", "linux-6.1", "linux-6.12", "linux-6.18", "linux-7.3")
SHIPPED = OLD + SINCE_510


def broken_on(test: str, kernels: tuple[str, ...]) -> list[str]:
    chosen = find_one(test)
    return [name for name in kernels if checker().check(chosen, name).verdict == "broken"]


@pytest.mark.parametrize(
    ("test", "broken", "among"),
    [
        # CVE-2020-29374: the child keeps a reference, unmaps, sees what the parent writes later
        ("cow-vmsplice-child-unmap", ("linux-4.19",), SHIPPED),
        ("cow-vmsplice-child-unmap/base-swap", ("linux-4.19", "linux-5.10"), SHIPPED),
        ("cow-vmsplice-before-fork", OLD, SHIPPED),
        # Linus Torvalds, 17 Dec 2021
        (
            "torvalds-2021-counterexample",
            (*OLD, "unshare-2021:reuse=by-mapcount"),
            (
                *SHIPPED,
                "unshare-2021",
                "unshare-2021:reuse=by-mapcount",
                "three-state:reuse=by-state",
                "no-mapcount",
            ),
        ),
        # a long-term read pin on a page shared after fork, then a write
        (
            "cow-ro-pin-shared",
            ("linux-4.19", "linux-5.10", "linux-5.18", "no-mapcount"),
            ("linux-4.19", "linux-5.8", *SINCE_510, "no-mapcount", "no-mapcount:unshare=break-cow"),
        ),
        # a pinned buffer and fork
        ("cow-iouring-fork", OLD, SHIPPED),
        # MADV_DONTNEED or mremap under a pin, a stranger's reads: no breach anywhere
        ("dontneed-under-pin", (), SHIPPED),
        ("mremap-under-pin", (), SHIPPED),
        ("readv-by-stranger", (), SHIPPED),
        ("peek-by-stranger", (), SHIPPED),
    ],
)
def test_statement(test: str, broken: tuple[str, ...], among: tuple[str, ...]) -> None:
    assert broken_on(test, among) == list(broken)


def test_too_many_references_are_undetermined_not_broken() -> None:
    """A count beyond what the machine can hold is its own limit, not the kernel's fault."""
    from pageherd import explore, parse

    text = "test t\nprocesses P\npages a\nP: mmap a\nP: write a = 1\nP: r = vmsplice a\n"
    verdict = explore(parse(text + "P: tee r 60000\n"), "linux-6.1")
    assert verdict.verdict == "undetermined"
    assert "a count exceeds" in verdict.notes[0]
