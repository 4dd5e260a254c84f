"""What user space is told about counts under each way of counting, beside what is true.

| reading | where | computed from |
|---|---|---|
| kpagecount | /proc/kpagecount | the count of the page, or the folio's average |
| once | pagemap bit 56 | the count is 1, or "not maybe shared" of the folio |
| Pss | smaps | each page divided by its count; whole if the folio has one reference |
| Uss | smaps, Private_* (the rest: Shared_*) | pages mapped once, or the last reference |
| mapmax | numa_maps | the highest count of a page |
| AnonPages | meminfo, NR_ANON_MAPPED | pages of which the count is not 0 |

Sources: fs/proc/task_mmu.c (smaps_account, gather_stats), fs/proc/page.c, fs/proc/internal.h
(folio_average_page_mapcount) and mm/rmap.c (__folio_add_rmap) of v6.18, with and without
CONFIG_NO_PAGE_MAPCOUNT.  Only anonymous memory is looked at, and no hugetlb.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal, get_args

import numpy as np

from pageherd.litmus.format import format_step
from pageherd.machine.drive import drive
from pageherd.machine.jit import records
from pageherd.machine.proc import COLUMNS, COUNT, LAST_REFERENCE, ONCE, TRUE_COUNT, read_frames
from pageherd.machine.state import LIVE, PTE_PRESENT
from pageherd.rules.catalog import POINTS
from pageherd.search.check import Checker, Chosen
from pageherd.search.program import Program

Kind = Literal["kpagecount", "once", "Pss", "Uss", "mapmax", "AnonPages"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
SCHEMES: Final = tuple(POINTS["counting"].alternatives)
"""Every way of counting, in the order of the table of rules."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One number that user space reads: of a page (`P.a`), a process (`P`) or the system ("")."""

    kind: Kind
    of: str
    said: Fraction
    true: Fraction

    @property
    def wrong(self) -> bool:
        """Whether user space is told something that is not so."""
        return self.said != self.true


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that can be read after one step of a test."""

    step: str
    readings: tuple[Reading, ...]


@dataclass(slots=True)
class Tally:
    """How far one kind of reading is from the truth, over many looks."""

    readings: int = 0
    wrong: int = 0
    off: Fraction = Fraction(0)  # the sum of the differences
    true: Fraction = Fraction(0)  # the sum of what is true

    def add(self, reading: Reading) -> None:
        """Take one more reading into account."""
        self.readings += 1
        self.wrong += reading.wrong
        self.off += abs(reading.said - reading.true)
        self.true += reading.true


def looks(chosen: Chosen, scheme: str, kernel: str, checker: Checker) -> list[Look]:
    """What is read after each step of a test, run in the order of its lines.

    A run ends early where the machine cannot go on.

    Raises:
        RuleError: there is no such kernel or way of counting, or a user's rule failed.
    """
    program = checker.program(chosen)
    _, record = checker.kernel(f"{kernel}{',' if ':' in kernel else ':'}counting={scheme}")
    states = program.first.copy()
    found = np.empty((int(states["nr_frames"][0]), COLUMNS), np.int64)
    seen = []
    for number, step in enumerate(program.steps):
        drive(records(states), 0, records(record), records(program.ops), number, number + 1)
        if states["alarm"][0]:
            break
        read_frames(records(states), 0, records(record), found)
        seen.append(Look(format_step(step), tuple(_readings(states[0], found, program))))
    return seen


def _readings(s: Any, frames: Any, program: Program) -> Iterator[Reading]:
    for mm, process in enumerate(program.names.processes):
        if s["mm_state"][mm] != LIVE:
            continue
        mapped = [
            (page, frames[frame])
            for page, name in enumerate(program.names.pages)
            for frame in [int(s["pte_to"][mm, page])]
            if s["pte"][mm, page] & PTE_PRESENT and frames[frame, COUNT] >= 0
        ]
        for page, row in mapped:
            name = f"{process}.{program.names.pages[page]}"
            yield _reading("kpagecount", name, row[COUNT], row[TRUE_COUNT])
            yield _reading("once", name, row[ONCE], row[TRUE_COUNT] == 1)
        if mapped:
            yield from _of_process(process, [row for _, row in mapped])
    used = frames[frames[:, COUNT] >= 0]
    said, true = (used[:, COUNT] > 0).sum(), (used[:, TRUE_COUNT] > 0).sum()
    yield _reading("AnonPages", "", said, true)


def _of_process(process: str, rows: list[Any]) -> Iterator[Reading]:
    alone = [bool(row[LAST_REFERENCE]) for row in rows]
    said = [1 if last else max(int(row[COUNT]), 1) for row, last in zip(rows, alone, strict=True)]
    pss = sum(Fraction(1, count) for count in said)
    yield _reading("Pss", process, pss, sum(Fraction(1, int(row[TRUE_COUNT])) for row in rows))
    private = sum(bool(row[ONCE]) or last for row, last in zip(rows, alone, strict=True))
    yield _reading("Uss", process, private, sum(int(row[TRUE_COUNT]) == 1 for row in rows))
    highest = max(int(row[COUNT]) for row in rows)
    yield _reading("mapmax", process, highest, max(int(row[TRUE_COUNT]) for row in rows))


def _reading(kind: Kind, of: str, said: Any, true: Any) -> Reading:
    as_fraction = [n if isinstance(n, Fraction) else Fraction(int(n)) for n in (said, true)]
    return Reading(kind, of, *as_fraction)


def tallies(
    tests: Iterable[Chosen], scheme: str, kernel: str, checker: Checker
) -> dict[Kind, Tally]:
    """How wrong each kind of reading is under one way of counting, over all steps of all tests.

    Raises:
        RuleError: see `looks`.
    """
    tally = {kind: Tally() for kind in KINDS}
    for chosen in tests:
        for look in looks(chosen, scheme, kernel, checker):
            for reading in look.readings:
                tally[reading.kind].add(reading)
    return tally
