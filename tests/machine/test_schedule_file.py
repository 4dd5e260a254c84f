"""What meets a page of a file in the middle of its migration or write-back, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pageherd import Machine
from pageherd.hand import Process
from pageherd.litmus.syntax import KERNEL, Argument, FileKind, PageOf, Step
from pageherd.machine import steps

ERAS = ("linux-4.19", "linux-5.10", "linux-5.18", "linux-6.1", "linux-6.12", "linux-7.3")


class Race:
    """P and Q share a page of a file, and something is done with it up to a step."""

    def __init__(self, kernel: str, file: FileKind) -> None:
        self.m = Machine(kernel, file=file)
        self.p, self.q = self.m.process("P"), self.m.process("Q")
        self.a = self.p.mmap_shared("a")
        self.q.mmap_shared("a")
        self.p.write(self.a, 1)
        self.q.read(self.a)

    @property
    def state(self) -> Any:
        return self.m._states[0]

    def begin(self, thread: str, verb: str, *arguments: Argument) -> int:
        return self.m.begin(Step(thread, verb, arguments))

    def up_to(self, thread: int, number: int) -> None:
        while self.state["t_pc"][thread] not in (number, steps.IDLE):
            assert self.m.step(thread) != steps.BLOCKED

    def run(self, thread: int) -> bool:
        """Until it ends or waits; whether it has ended."""
        while (following := self.m.step(thread)) not in (steps.BLOCKED, steps.IDLE):
            pass
        return bool(following == steps.IDLE)

    def frame(self, process: Process) -> int:
        return int(self.state["pte_to"][process.number, self.a.number])


@pytest.mark.parametrize("file", ["memfd", "tmpfile", "hugetlb"])
@pytest.mark.parametrize("kernel", ERAS)
def test_who_meets_the_migration_waits(kernel: str, file: FileKind) -> None:
    """By the migration entry and by the page lock, also once the page cache has the new page."""
    race = Race(kernel, file)
    old = race.frame(race.p)
    migration = race.begin(KERNEL, "migrate", PageOf("P", "a"))
    race.up_to(migration, steps.MIGRATE_COPY)
    fault = race.begin("Q", "write", "a", 2)
    read = race.begin("P", "read_file", "a")
    assert not race.run(fault)
    assert not race.run(read)
    race.up_to(migration, steps.IDLE)
    assert race.run(fault)
    assert race.run(read)
    assert race.frame(race.p) == race.frame(race.q) != old
    assert (race.p.read(race.a), race.q.read_file(race.a)) == (2, 2)
    assert race.m.broken == ()
    assert not race.m.leaks()


@pytest.mark.parametrize("kernel", ERAS)
def test_a_store_in_the_middle_of_writeback_makes_the_page_dirty_again(kernel: str) -> None:
    """page_mkwrite() waits for the page lock, so the store comes after the page is clean."""
    race = Race(kernel, "tmpfile")
    writeback = race.begin("P", "sync_file", "a")
    race.up_to(writeback, steps.SYNC_WRITE)
    store = race.begin("Q", "write", "a", 2)
    assert not race.run(store)
    race.up_to(writeback, steps.IDLE)
    assert race.run(store)
    race.q.munmap(race.a)
    race.m.do(Step("P", "pageout", ("a",)))
    assert race.p.read(race.a) == 2
    assert race.m.broken == ()
    assert not race.m.leaks()


@pytest.mark.parametrize("kernel", ERAS)
def test_a_store_before_its_mapping_is_cleaned_is_written(kernel: str) -> None:
    race = Race(kernel, "tmpfile")
    writeback = race.begin("Q", "sync_file", "a")
    race.up_to(writeback, steps.SYNC_MKCLEAN)
    race.p.write(race.a, 2)
    race.up_to(writeback, steps.IDLE)
    race.q.munmap(race.a)
    race.m.do(Step("P", "pageout", ("a",)))
    assert race.p.read(race.a) == 2
    assert race.m.broken == ()


@pytest.mark.parametrize("kernel", ERAS)
def test_two_faults_on_a_hole_of_a_hugetlb_file_get_one_page(kernel: str) -> None:
    race = Race(kernel, "hugetlb")
    b = race.p.mmap_shared("b")
    race.q.mmap_shared("b")
    first = race.begin("P", "write", "b", 1)
    race.up_to(first, steps.HUGETLB_FILE_MAP)
    second = race.begin("Q", "write", "b", 2)
    assert not race.run(second)
    assert race.run(first)
    assert race.run(second)
    assert (race.p.read(b), race.q.read(b)) == (2, 2)
    assert race.m.broken == ()
    assert not race.m.leaks()
