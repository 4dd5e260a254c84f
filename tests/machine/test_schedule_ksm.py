"""What meets a page while ksmd is at it, by hand-picked schedules."""

from __future__ import annotations

from typing import Any

import pytest

from pageherd import Machine
from pageherd.litmus.syntax import KERNEL, PageOf, Step
from pageherd.machine import steps
from pageherd.machine.folio import is_ksm

ERAS = ("linux-4.19", "linux-5.8", "linux-5.10", "linux-5.18", "linux-6.1", "linux-7.3")


class Merge:
    """ksmd on its way to merge P.b into P.a."""

    def __init__(self, kernel: str) -> None:
        self.m = Machine(kernel)
        self.p = self.m.process("P")
        self.a, self.b = self.p.mmap("a"), self.p.mmap("b")
        for page in (self.a, self.b):
            self.p.madvise(page, "mergeable")
            self.p.write(page, 1)
        pages = (PageOf("P", "a"), PageOf("P", "b"))
        self.ksmd = self.m.begin(Step(KERNEL, "ksm", pages))

    @property
    def state(self) -> Any:
        return self.m._states[0]

    def at(self, number: int) -> None:
        while self.state["t_pc"][self.ksmd] not in (number, steps.IDLE):
            assert self.m.step(self.ksmd) != steps.BLOCKED

    def is_ksm(self, page: int) -> bool:
        return is_ksm(self.state, int(self.state["pte_to"][0, page]))


@pytest.mark.parametrize("kernel", ERAS)
def test_a_write_before_the_entry_is_replaced(kernel: str) -> None:
    """pte_same() in replace_page() fails, and break_cow() undoes the first half.

    Until v5.8 the write fault sleeps for the page lock, which ksmd has, and comes too late.
    """
    merge = Merge(kernel)
    merge.at(steps.KSM_REPLACE)
    assert merge.is_ksm(0)
    write = merge.m.begin(Step("P", "write", ("b", 2)))
    while merge.m.step(write) not in (steps.BLOCKED, steps.IDLE):
        pass
    asleep = merge.state["t_pc"][write] != steps.IDLE
    assert asleep == (ERAS.index(kernel) < ERAS.index("linux-5.10"))
    merge.at(steps.IDLE)
    assert merge.m._result == ("ok" if asleep else "busy")
    assert merge.is_ksm(0) == asleep
    while merge.state["t_pc"][write] != steps.IDLE:
        assert merge.m.step(write) != steps.BLOCKED
    assert (merge.p.read(merge.a), merge.p.read(merge.b)) == (1, 2)
    assert merge.m.broken == ()
    assert not merge.m.leaks()


@pytest.mark.parametrize("kernel", ERAS)
def test_a_pin_before_the_references_are_counted(kernel: str) -> None:
    """ksmd holds the second page already, its entry is still writable."""
    merge = Merge(kernel)
    merge.at(steps.KSM_PROTECT)
    pin = merge.p.pin(merge.b, "write", "longterm", "fast")
    merge.at(steps.IDLE)
    assert merge.m._result == "busy"
    assert not merge.is_ksm(0)
    assert not merge.is_ksm(1)
    pin.write(3)
    assert merge.p.read(merge.b) == 3
    assert merge.m.broken == ()


@pytest.mark.parametrize("kernel", ERAS)
def test_a_munmap_in_the_middle(kernel: str) -> None:
    """ksmd holds mmap_lock while it is at an entry, not between the two pages."""
    merge = Merge(kernel)
    merge.at(steps.KSM_PROTECT)
    merge.m.step(merge.ksmd)
    merge.p.munmap(merge.b)
    merge.at(steps.IDLE)
    assert merge.m._result == "busy"
    assert not merge.is_ksm(0)
    assert merge.p.read(merge.a) == 1
    assert merge.m.broken == ()
    assert not merge.m.leaks()
