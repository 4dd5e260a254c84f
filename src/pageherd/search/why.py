"""What a program shows on a kernel, and which rule makes two kernels show different things."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

from pageherd.litmus.syntax import Test
from pageherd.machine.drive import drive
from pageherd.machine.jit import records
from pageherd.machine.state import LIVE, PTE_PRESENT, PTE_SWAP, ZERO_FRAME
from pageherd.rules.catalog import POINTS
from pageherd.rules.choose import Kernel, record
from pageherd.search.explore import explore_program
from pageherd.search.program import Program, program_of
from pageherd.search.verdict import spell

REGISTER: Final = "x"  # where a test puts the value that differs
_MOST_TOGETHER: Final = 2


@dataclass(frozen=True, slots=True)
class Change:
    """One decision point, as one kernel decides it and as the other one does."""

    point: str
    before: str
    after: str
    stands_for: str  # of `after`

    def __str__(self) -> str:
        return f"{self.point}={self.after}"


@dataclass(frozen=True, slots=True)
class Reason:
    """A smallest set of rules that makes `kernel` show what the other kernel shows."""

    kernel: str
    changes: tuple[Change, ...]

    @property
    def spec(self) -> str:
        """The kernel with these changes, as the command line takes it."""
        base, known = _parts(self.kernel)
        points = {change.point for change in self.changes}
        kept = [each for each in known.split(",") if each and each.split("=")[0] not in points]
        return f"{base}:{','.join([*kept, *map(str, self.changes)])}"


def _parts(spec: str) -> tuple[str, str]:
    """A kernel as the command line takes it: its base, and the changes to it."""
    head, colon, changes = spec.partition(".py:")
    if colon:
        return f"{head}.py", changes
    base, _, changes = spec.partition(":")
    return base, changes


Observer = Callable[[Program, Any], str]


def observe_promise(promise: str) -> Observer:
    """Whether the program breaks the promise."""

    def observe(program: Program, table: Any) -> str:
        found = explore_program(program, table)
        if promise in found.broken:
            return f"{promise} broken"
        return f"{promise} kept" if found.proves else f"{promise} undetermined"

    return observe


def observe_value(program: Program, table: Any) -> str:
    """The value that the last operation gives."""
    values = sorted({end.registers[REGISTER] for end in explore_program(program, table).outcomes})
    return f"{REGISTER} = {' or '.join(map(spell, values))}"


def observe_copies(program: Program, table: Any) -> str:
    """How many pages are copied."""
    copies = sorted({end.copies for end in explore_program(program, table).outcomes})
    return f"copies = {' or '.join(map(str, copies))}"


def observe_counts(program: Program, table: Any) -> str:
    """Every page that is mapped or swapped, as /proc shows it."""
    states = program.first.copy()
    drive(records(states), 0, records(table), records(program.ops), 0, len(program.operations))
    state, names = states[0], program.names
    pages = (
        f"{process}.{page} {_look(state, mm, number)}"
        for mm, process in enumerate(names.processes)
        for number, page in enumerate(names.pages)
        if state["mm_state"][mm] == LIVE
    )
    return ", ".join(pages)


def _look(state: Any, mm: int, page: int) -> str:
    pte, to = int(state["pte"][mm, page]), int(state["pte_to"][mm, page])
    if pte & PTE_SWAP:
        return "swapped"
    if not pte & PTE_PRESENT:
        return "absent"
    return "zero" if to == ZERO_FRAME else f"present, mapcount {int(state['mapcount'][to])}"


def shows(test: Test, kernel: Kernel, observe: Observer, slots: int | None = None) -> str:
    """What the test shows on the kernel, run by the checker; `slots`: of swap, if not plenty."""
    return observe(_program(test, slots), record(kernel))


def _program(test: Test, slots: int | None) -> Program:
    program = program_of(test, test.default_variant)
    if slots is not None:
        program.first["nr_slots"] = slots
    return program


def changes_between(one: Kernel, other: Kernel) -> tuple[Change, ...]:
    """The decision points that two kernels decide differently, as changes to the first."""
    return tuple(
        Change(point, one.of(point), other.of(point), other.choices[point].stands_for)
        for point in POINTS
        if one.choices[point] != other.choices[point]
    )


def reasons(
    test: Test, one: Kernel, other: Kernel, observe: Observer, slots: int | None = None
) -> tuple[Reason, ...]:
    """The fewest rules that make each of two kernels show what the other one shows.

    All single rules that do; if there is none, all pairs; if there is none, nothing.
    """
    program = _program(test, slots)
    wanted = observe(program, record(other)), observe(program, record(one))
    return (
        *_flips(program, one, other, observe, wanted[0]),
        *_flips(program, other, one, observe, wanted[1]),
    )


def _flips(
    program: Program, kernel: Kernel, other: Kernel, observe: Observer, wanted: str
) -> Iterator[Reason]:
    changes = changes_between(kernel, other)
    for size in range(1, _MOST_TOGETHER + 1):
        found = [
            Reason(kernel.name, chosen)
            for chosen in combinations(changes, size)
            if observe(program, record(_changed(kernel, other, chosen))) == wanted
        ]
        yield from found
        if found:
            return


def _changed(kernel: Kernel, other: Kernel, changes: tuple[Change, ...]) -> Kernel:
    choices = dict(kernel.choices)
    choices.update((change.point, other.choices[change.point]) for change in changes)
    return replace(kernel, choices=choices)
