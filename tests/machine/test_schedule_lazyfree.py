"""MADV_FREE against gup-fast: reclaim between the reference and the mark (6c8e2a256915, v5.18)."""

from __future__ import annotations

import pytest

from pageherd import Machine
from pageherd.litmus.syntax import Step
from pageherd.machine import steps


def race(kernel: str) -> tuple[str, ...]:
    """The disk's page is held but not marked yet when reclaim looks at it."""
    m = Machine(kernel)
    p = m.process("P")
    thread = p.new_thread("T")
    a = p.mmap("a")
    p.write(a, 1)
    p.madvise(a, "free")
    read = m.begin(Step(thread.thread, "odirect_read", ("a",), "r"))
    while m._states["t_pc"][0, read] not in (steps.GUP_DONE, steps.IDLE):
        m.step(read)
    assert m._states["t_pc"][0, read] == steps.GUP_DONE
    m.reclaim((p, a))
    while m._states["t_pc"][0, read] != steps.IDLE:
        m.step(read)
    m.do(Step("P", "write_ref", ("r", 2)))
    p.read(a)
    return m.broken


@pytest.mark.parametrize("kernel", ["linux-4.19", "linux-5.8", "unshare-2021"])
def test_the_store_is_lost_with_the_page(kernel: str) -> None:
    assert "own-writes" in race(kernel)


@pytest.mark.parametrize("kernel", ["linux-5.10", "linux-5.18", "linux-6.1", "linux-7.3"])
def test_a_page_that_is_held_stays(kernel: str) -> None:
    assert race(kernel) == ()
