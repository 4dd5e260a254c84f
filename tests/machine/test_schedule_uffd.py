"""Stores through a stale TLB entry before UFFDIO_WRITEPROTECT flushes, by hand-picked schedules."""

from __future__ import annotations

from typing import Any

import pytest

from pageherd import Machine
from pageherd.hand import OperationFailed
from pageherd.litmus.syntax import Step
from pageherd.machine import state as st
from pageherd.machine import steps

ERAS = ("linux-5.8", "linux-5.10", "linux-5.18", "linux-6.1", "linux-7.3")
UNFIXED = ("linux-5.10:wp-flush=never", "linux-5.18:wp-flush=never")


class Call:
    """H lifts a write protection that is not there, of a page that a pipe holds, too."""

    def __init__(self, kernel: str, verb: str = "uffd_unprotect", dirty: bool = True) -> None:
        self.m = Machine(kernel)
        self.p = self.m.process("P")
        self.a = self.p.mmap("a")
        self.p.write(self.a, 1)
        self.p.uffd_register(self.a)
        self.p.take("vmsplice", self.a)
        if not dirty:
            self.state["pte"][0, 0] ^= st.PTE_DIRTY
        self.stale = self.p.new_thread("S")
        self.call = self.m.begin(Step(self.p.new_thread("H").thread, verb, ("a",)))
        self.at(self.call, steps.UFFD_FLUSH)

    @property
    def state(self) -> Any:
        return self.m._states[0]

    def at(self, thread: int, number: int) -> None:
        while self.state["t_pc"][thread] not in (number, steps.IDLE):
            assert self.m.step(thread) != steps.BLOCKED

    def faults_of_a_store(self) -> int:
        before = int(self.state["cost"][st.COST_FAULTS])
        self.stale.write_stale(self.a, 2)
        assert self.p.read(self.a) == 2
        return int(self.state["cost"][st.COST_FAULTS]) - before


@pytest.mark.parametrize("kernel", ERAS)
def test_until_the_flush_a_store_takes_no_fault(kernel: str) -> None:
    assert Call(kernel, "uffd_protect").faults_of_a_store() == 0


@pytest.mark.parametrize("kernel", ERAS[:4])
def test_a_store_through_a_clean_entry_walks_the_page_table(kernel: str) -> None:
    assert Call(kernel, dirty=False).faults_of_a_store() == 1


@pytest.mark.parametrize("kernel", ERAS[:4])
def test_after_the_flush_a_store_is_as_any_other(kernel: str) -> None:
    call = Call(kernel)
    call.at(call.call, steps.IDLE)
    assert call.faults_of_a_store() == 1


@pytest.mark.parametrize("kernel", [*ERAS, *UNFIXED])
def test_a_store_while_the_page_is_copied(kernel: str) -> None:
    """do_wp_page() of v5.9 to v5.11 copies what may still be written (6ce64428d620)."""
    call = Call(kernel)
    write = call.m.begin(Step(call.p.new_thread("T").thread, "populate_write", ("a",)))
    call.at(write, steps.WP_MAP)
    call.stale.write_stale(call.a, 2)
    for thread in (write, call.call):
        call.at(thread, steps.IDLE)
    assert call.p.read(call.a) == (1 if kernel in UNFIXED else 2)
    assert call.m.broken == (("own-writes",) if kernel in UNFIXED else ())


def test_another_call_flushes_for_both() -> None:
    call = Call("linux-5.10")
    call.p.uffd_protect(call.a)
    assert call.state["t_pc"][call.call] == steps.UFFD_FLUSH
    with pytest.raises(OperationFailed, match="notified"):
        call.stale.write_stale(call.a, 2)


def test_fork_waits_for_the_flush() -> None:
    """It takes mmap_lock for writing."""
    call = Call("linux-5.10")
    call.m._add_process("C")
    fork = call.m.begin(Step("P", "fork", ("C",)))
    assert call.m.step(fork) == steps.BLOCKED
    call.at(call.call, steps.IDLE)
    call.at(fork, steps.IDLE)
