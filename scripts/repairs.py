"""The smallest repair of each proposal: which decision points must be changed to keep all promises.

    python scripts/repairs.py [PROPOSAL ...]

A hunt of `small` gives a shortest program for each promise that breaks. Sets of changes, small
ones first, are tried on the programs known so far; the first set with which all of them are
harmless is hunted in turn, and what breaks there joins the programs. A set whose hunt is
exhausted and finds nothing is a repair, and none that was tried before it is smaller. Sets of one
or two changes are all tried; larger ones are made of changes that make some program harmless,
alone or by twos.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from pageherd.errors import PageherdError
from pageherd.litmus.syntax import Test
from pageherd.rules import kernels
from pageherd.rules.catalog import POINTS
from pageherd.rules.choose import Kernel, choose, record
from pageherd.search.explore import explore_program
from pageherd.search.hunt import hunt
from pageherd.search.program import Program, program_of

PROPOSALS = tuple(row.name for row in kernels.ROWS if row.proposal)
ELSEWHERE = (
    *("ksm", "huge", "hugetlb", "migration", "move", "collapse", "lazyfree", "swapout"),
    *("guard", "droppable", "hwpoison", "swapoff-poison", "khugepaged"),
)
FIRST = 20_000  # states of a first look, which finds most that breaks
MOST = 5  # changes together

Change = tuple[str, str]
Changes = tuple[Change, ...]


@dataclass
class Repair:
    """The search for a repair of one kernel."""

    name: str
    programs: list[tuple[str, Program]] = field(default_factory=list)
    answers: dict[tuple[Changes, int], bool] = field(default_factory=dict)
    hunts: int = 0

    def __post_init__(self) -> None:
        self.kernel = choose(self.name)
        chosen = {point: set() for point in POINTS}  # type: dict[str, set[str]]
        for row in kernels.ROWS:
            for point, alternative in kernels.resolve(row.name).items():
                chosen[point].add(alternative)
        self.changes = tuple(
            (name, alternative)
            for name, point in POINTS.items()
            if not name.startswith(ELSEWHERE)
            for alternative in point.alternatives
            if alternative != self.kernel.of(name)
            if alternative in chosen[name] or len(point.alternatives) < 10  # not all FOLL_ flags
        )

    def changed(self, changes: Changes) -> Kernel:
        choices: dict[str, Any] = dict(self.kernel.choices)
        choices.update((point, POINTS[point].alternatives[name]) for point, name in changes)
        return replace(self.kernel, choices=choices)

    def harmless(self, changes: Changes, number: int) -> bool:
        """Whether the program keeps its promise with these changes."""
        if (changes, number) not in self.answers:
            promise, program = self.programs[number]
            try:
                found = explore_program(program, record(self.changed(changes)))
                kept = found.proves and promise not in found.broken
            except PageherdError:
                kept = False
            self.answers[changes, number] = kept
        return self.answers[changes, number]

    def cures(self, changes: Changes) -> bool:
        return all(self.harmless(changes, number) for number in range(len(self.programs)))

    def sets(self, size: int) -> Iterator[Changes]:
        """Sets of changes worth trying, at most one change for each decision point."""
        if size == 0:
            yield ()
            return
        among = self.changes if size <= 2 else self.useful()
        for each in combinations(among, size):
            if len({point for point, _ in each}) == size:
                yield each

    def useful(self) -> tuple[Change, ...]:
        numbers = range(len(self.programs))
        alone = {c for c in self.changes if any(self.harmless((c,), n) for n in numbers)}
        for number in numbers:
            for pair in self.sets(2):
                single = any(self.harmless((change,), number) for change in pair)
                if not single and self.harmless(pair, number):
                    alone.update(pair)
        return tuple(change for change in self.changes if change in alone)

    def breaks(self, changes: Changes) -> bool:
        """Hunt; whether anything breaks. The programs that do join the others."""
        head = ",".join(f"{point}={name}" for point, name in changes)
        spec = f"{self.name}:{head}" if head else self.name
        for bound in (FIRST, None):
            self.hunts += 1
            (found,) = hunt(spec, "small", **({"max_states": bound} if bound else {}))
            if found.breaches:
                self.programs += ((p, self.program(b.test)) for p, b in found.breaches.items())
                told = ", ".join(f"{p} {len(b.operations)}" for p, b in found.breaches.items())
                print(f"  {spec}: {told}", file=sys.stderr, flush=True)
                return True
            if found.complete:
                return False
        raise SystemExit(f"{spec}: not exhausted")

    def program(self, test: Test) -> Program:
        return program_of(test, test.default_variant)

    def search(self) -> Changes | None:
        """A smallest repair, or nothing up to the most changes together."""
        for size in range(MOST + 1):
            again = True
            while again:  # what a hunt has found may make other changes useful
                again = False
                for changes in self.sets(size):
                    if self.cures(changes):
                        if not self.breaks(changes):
                            return changes
                        again = True
                        break
        return None


def main() -> int:
    for name in sys.argv[1:] or PROPOSALS:
        repair = Repair(name)
        changes = repair.search()
        print(f"{name}: {len(repair.changes)} changes, {repair.hunts} hunts", file=sys.stderr)
        if changes is None:
            print(f"{name}: no repair of up to {MOST} changes")
            continue
        print(f"{name}: {len(changes)} changes repair it")
        for point, alternative in changes:
            stands_for = POINTS[point].alternatives[alternative].stands_for
            print(f"  {point}={alternative}, was {repair.kernel.of(point)}: {stands_for}")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
