"""What meets a page in the middle of its migration, by hand-picked schedules."""

from __future__ import annotations

from typing import Any

import pytest

from pageherd import Machine
from pageherd.hand import Page, Process
from pageherd.litmus.syntax import KERNEL, Argument, PageOf, Step
from pageherd.machine import state as st
from pageherd.machine import steps
from pageherd.machine.folio import is_exclusive

ERAS = ("linux-4.19", "linux-5.10", "linux-5.18", "linux-6.1", "linux-6.12", "linux-7.3")
PROPOSALS = ("unshare-2021", "three-state", "no-mapcount", "exclusive-bit")


class Race:
    """One page of P on its way to another frame; `at` runs the migration up to a step."""

    def __init__(self, kernel: str) -> None:
        self.m = Machine(kernel)
        self.p = self.m.process("P")
        self.other = self.p.new_thread("T")
        self.a = self.p.mmap("a")
        self.p.write(self.a, 1)
        self.migration = -1

    @property
    def state(self) -> Any:
        return self.m._states[0]

    def at(self, number: int) -> None:
        if self.migration < 0:
            self.migration = self.m.begin(Step(KERNEL, "migrate", (PageOf("P", "a"),)))
        while self.state["t_pc"][self.migration] not in (number, steps.IDLE):
            assert self.m.step(self.migration) != steps.BLOCKED

    def do(self, process: Process, verb: str, *arguments: Argument) -> int:
        """Begin a step of `process` and run it until it ends or waits."""
        thread = self.m.begin(Step(process.thread, verb, arguments))
        self.run(thread)
        return thread

    def run(self, thread: int) -> None:
        while self.m.step(thread) not in (steps.BLOCKED, steps.IDLE):
            pass

    def waits(self, thread: int) -> bool:
        return bool(self.state["t_pc"][thread] != steps.IDLE)

    def frame(self, process: Process, page: Page) -> int:
        return int(self.state["pte_to"][process.number, page.number])

    def pte(self, process: Process, page: Page) -> int:
        return int(self.state["pte"][process.number, page.number])


@pytest.mark.parametrize("kernel", [*ERAS, *PROPOSALS])
def test_fork_meets_a_migration_entry(kernel: str) -> None:
    """copy_nonpresent_pte(): both entries are for reading, and the page comes back shared."""
    race = Race(kernel)
    race.at(steps.MIGRATE_COPY)
    old = race.frame(race.p, race.a)
    assert race.pte(race.p, race.a) & (st.PTE_MIGRATION | st.PTE_WRITE) == (
        st.PTE_MIGRATION | st.PTE_WRITE
    )
    child = race.p.fork("C")
    assert race.pte(child, race.a) == race.pte(race.p, race.a)
    assert not race.pte(race.p, race.a) & (st.PTE_WRITE | st.PTE_SWP_EXCLUSIVE)
    race.at(steps.IDLE)
    assert race.frame(race.p, race.a) == race.frame(child, race.a) != old
    assert not is_exclusive(race.state, race.frame(child, race.a))
    race.p.write(race.a, 2)
    assert child.read(race.a) == 1
    assert race.m.broken == ()
    assert not race.m.leaks()


@pytest.mark.parametrize("kernel", ["linux-5.8", "linux-5.10", "linux-6.1", "linux-7.3"])
def test_a_fault_waits_and_the_page_moves(kernel: str) -> None:
    race = Race(kernel)
    race.at(steps.MIGRATE_CHECK)
    old = race.frame(race.p, race.a)
    writer = race.do(race.other, "write", "a", 2)
    assert race.waits(writer)
    race.at(steps.IDLE)
    assert race.m._result == "ok"
    race.run(writer)
    assert not race.waits(writer)
    assert race.frame(race.p, race.a) != old
    assert race.p.read(race.a) == 2
    assert race.m.broken == ()


def test_until_4_20_a_fault_that_waits_keeps_the_page_where_it_is() -> None:
    """wait_on_page_locked() with a reference, which migrate_page_move_mapping() counts."""
    race = Race("linux-4.19")
    race.at(steps.MIGRATE_CHECK)
    old = race.frame(race.p, race.a)
    reader = race.do(race.other, "read", "a")
    race.at(steps.IDLE)
    assert race.m._result == "busy"
    race.run(reader)
    assert race.frame(race.p, race.a) == old
    assert race.m.broken == ()
    assert not race.m.leaks()


@pytest.mark.parametrize("kernel", ERAS)
def test_gup_waits_too(kernel: str) -> None:
    race = Race(kernel)
    race.at(steps.MIGRATE_COPY)
    pin = race.m.begin(Step(race.other.thread, "pin", ("a", ("write", "longterm", "fast")), "r"))
    race.run(pin)
    assert race.waits(pin)
    race.at(steps.IDLE)
    race.run(pin)
    race.p.write(race.a, 3)
    assert not race.waits(pin)
    assert race.m.broken == ()


@pytest.mark.parametrize("kernel", ERAS)
def test_mprotect_takes_the_write_permission_of_the_entry(kernel: str) -> None:
    """change_pte_range(): to read-only, and from v5.19 to readable-exclusive."""
    race = Race(kernel)
    race.at(steps.MIGRATE_COPY)
    race.p.mprotect(race.a, "r")
    race.p.mprotect(race.a, "rw")
    marked = race.pte(race.p, race.a) & st.PTE_SWP_EXCLUSIVE
    assert bool(marked) == (ERAS.index(kernel) >= ERAS.index("linux-6.1"))
    race.at(steps.IDLE)
    assert not race.pte(race.p, race.a) & st.PTE_WRITE
    assert is_exclusive(race.state, race.frame(race.p, race.a)) == bool(marked)
    race.p.write(race.a, 2)
    assert race.m.copies == 0
    assert race.m.broken == ()


@pytest.mark.parametrize("kernel", ERAS)
def test_munmap_takes_the_entry_away(kernel: str) -> None:
    race = Race(kernel)
    race.at(steps.MIGRATE_COPY)
    race.p.munmap(race.a)
    race.at(steps.IDLE)
    assert race.m.broken == ()
    assert not race.state["refcount"][1:].any()


@pytest.mark.parametrize("kernel", ERAS)
def test_mremap_takes_the_entry_along(kernel: str) -> None:
    race = Race(kernel)
    race.at(steps.MIGRATE_COPY)
    b = race.p.mremap(race.a, "b")
    race.at(steps.IDLE)
    assert race.p.read(b) == 1
    assert race.m.broken == ()


@pytest.mark.parametrize(
    ("kernel", "moves"), [("linux-5.10", True), ("linux-6.1", True), ("linux-6.12", False)]
)
def test_a_lookup_in_the_swap_cache_while_the_page_is_copied(kernel: str, moves: bool) -> None:
    """Frozen first, the lookup finds the new page; copied first, the freeze fails."""
    race = Race(kernel)
    child = race.p.fork("C")
    race.m.reclaim((race.p, race.a))
    race.p.read(race.a)
    race.at(steps.MIGRATE_COPY)
    reader = race.do(child, "read", "a")
    assert race.waits(reader)
    race.at(steps.IDLE)
    assert (race.m._result == "ok") == moves
    race.run(reader)
    assert child.read(race.a) == 1
    assert race.m.broken == ()
    assert not race.m.leaks()


def steps_of_a_move(kernel: str) -> int:
    """How many entries are looked at while a page of one of four processes moves."""
    m = Machine(kernel)
    p = m.process("P")
    a = p.mmap("a")
    p.write(a, 1)
    children = [p.fork() for _ in range(3)]
    for child in children:
        child.write(a, 2)
    before = m.costs["rmap_steps"]
    assert m.migrate((p, a)) == "ok"
    return m.costs["rmap_steps"] - before


def test_a_count_lets_the_walk_stop_early() -> None:
    """page_not_mapped(): one step where the count says so, all four processes where it cannot.

    The walk that puts the entries back visits everybody in any case.
    """
    counted = steps_of_a_move("linux-5.10")
    assert steps_of_a_move("linux-5.10:rmap-stops=at-the-end") > counted
    assert steps_of_a_move("no-mapcount") > counted
