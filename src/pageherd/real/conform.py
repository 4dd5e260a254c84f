"""Holding the model to a real kernel on random programs: every observation, until one differs.

A divergence is run again, shrunk on the real kernel to the smallest program that still diverges,
and given back as a litmus test.
"""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

from pageherd.errors import PageherdError
from pageherd.litmus.check import check
from pageherd.litmus.format import format_step, format_test
from pageherd.litmus.syntax import Keeps, Step, SwapKind, Test
from pageherd.machine import state as st
from pageherd.real.follow import Divergence, Followed, follow
from pageherd.real.generate import random_test, steerable_verbs
from pageherd.real.judge import check_returns
from pageherd.real.observe import Sight
from pageherd.real.outcomes import Outcomes
from pageherd.real.results import Probes, Run
from pageherd.real.steer import NotSteerable, Steered, steer
from pageherd.real.target import Batch, Report, Target, by_swap, sight_of
from pageherd.rules.choose import Kernel, choose, record
from pageherd.search.edit import Renaming, all_steps, tidy, with_changes, with_steps
from pageherd.search.explore import explore_program

BATCH: Final = 600  # programs of one boot
SHORTEST: Final = 5
LONGEST: Final = 16
AGAIN: Final = 5  # how often a divergence is run again before it is shrunk
SWAPS: Final[tuple[SwapKind, ...]] = ("disk", "zram")

Progress = Callable[["Tally"], None]


@dataclass(frozen=True, slots=True)
class Found:
    """A program on which the real kernel did what the model does not allow."""

    seed: int
    test: Test  # the smallest one found
    steps_before: int
    divergence: Divergence
    seen: int  # in so many of `runs` further runs of the original
    runs: int
    seeds: list[int]  # of programs that shrank to the same

    @property
    def text(self) -> str:
        """The program as a litmus test."""
        return format_test(self.test)


@dataclass(slots=True)
class Tally:
    """What a conformance run has counted so far."""

    on: str
    release: str
    kernel: str
    programs: int = 0
    observations: int = 0
    unlike: int = 0  # programs compared up to a step after which pages were no longer alike
    no_huge: int = 0  # programs left out, as there was no huge page
    undetermined: int = 0  # programs with more than one allowed outcome
    choices: int = 0  # observations with more than one allowed outcome
    hung: list[str] = field(default_factory=list)  # which program did not end, and where
    seconds: float = 0.0
    boots: int = 0
    accel: str = ""
    steps: Counter[str] = field(default_factory=Counter)  # verbs that ran
    outcomes: Outcomes = field(default_factory=Outcomes)  # where the model left them open
    found: list[Found] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The share of programs whose outcome the model leaves open."""
        return self.undetermined / self.programs if self.programs else 0.0


@dataclass(slots=True)
class Conform:
    """A model kernel held to a real one."""

    target: Target
    kernel: Kernel
    table: Any
    sight: Sight
    verbs: list[str]
    swaps: tuple[SwapKind, ...]
    probes: Probes

    def run(self, programs: int, seed: int, *, most: int = 3, progress: Progress) -> Tally:
        """Run so many random programs; stop early after `most` divergences.

        Raises:
            EnvironmentFailed: the kernel could not be started.
        """
        tally = Tally(self.target.name, self.target.release, self.kernel.name)
        began = time.monotonic()
        supply = self.supply(seed)
        while tally.programs < programs and len(tally.found) < most:
            batch = dict(islice(supply, min(BATCH, programs - tally.programs)))
            diverged = self.batch(batch, tally, lambda: progress(tally))
            for number, followed in diverged[: most - len(tally.found)]:
                assert followed.divergence is not None
                self.note(tally, self.examine(number, batch[number], followed.divergence))
            tally.seconds = time.monotonic() - began
            progress(tally)
        return tally

    def supply(self, seed: int) -> Iterator[tuple[int, Steered]]:
        """Steerable programs without end, by number."""
        number = seed
        while True:
            length = SHORTEST + number % (LONGEST - SHORTEST + 1)
            swap = self.swaps[number // 7 % len(self.swaps)]
            test = random_test(number, length, self.verbs, swap)
            try:
                check(test)
                yield number, self.steer(test)
            except (NotSteerable, PageherdError):
                pass
            number += 1

    def steer(self, test: Test) -> Steered:
        pieces = self.target.in_pieces
        steered = steer(test, "base", self.kernel, chosen=False, in_pieces=pieces)[0]
        check_returns(steered, self.table)
        for probe in steered.needs - {"swap"}:
            if (text := self.probes.missing(probe)) is not None:
                raise NotSteerable(text)
        if test.hugetlb_pool is not None:
            self.check_pool(steered)
        return steered

    def check_pool(self, steered: Steered) -> None:
        """Without a hugetlb page for the child fork fails; and then nobody can do its steps.

        Raises:
            NotSteerable: so it is here.
        """
        forks = [step.result for step in all_steps(steered.test) if step.verb == "fork"]
        for outcome in explore_program(steered.program, self.table).outcomes:
            if any(name and outcome.registers[name] != st.OK for name in forks):
                raise NotSteerable("fork: there is no child")

    def batch(
        self, programs: dict[int, Steered], tally: Tally, progress: Callable[[], None]
    ) -> list[tuple[int, Followed]]:
        """Run a batch; the programs that diverged."""
        report = Report()
        diverged = []
        numbers = {steered.word: number for number, steered in programs.items()}
        for run in self.target.run(Batch(by_swap(programs.values())), report):
            number = numbers[run.id]
            if run.no_huge:
                tally.no_huge += 1
                continue
            followed = self.hold(programs[number], run)
            tally.programs += 1
            tally.unlike += run.unlike
            tally.observations += len(run.steps)
            if run.ending != "end":
                step = programs[number].program.steps[len(run.steps) :][:1]
                where = format_step(step[0]) if step else "the end"
                tally.hung.append(f"seed {number}: {run.ending} at '{where}'")
            tally.undetermined += not followed.determined
            tally.choices += sum(count > 1 for count in followed.predictions)
            for opened in followed.left_open:
                tally.outcomes.add(opened)
            tally.steps.update(step.verb for step in programs[number].program.steps)
            if followed.divergence is not None:
                diverged.append((number, followed))
            progress()
        tally.boots += 1
        tally.accel = report.accel
        tally.complaints += report.complaints
        if report.ended:
            raise report.failure(self.target.name)
        return sorted(diverged, key=lambda found: found[0])

    def hold(self, steered: Steered, run: Run) -> Followed:
        """One run against the model."""
        return follow(steered, run, self.table, self.sight)

    def note(self, tally: Tally, new: Found) -> None:
        """Add a divergence, unless it is one that was found before."""
        for old in tally.found:
            if replace(old.test, name="", swap=new.test.swap) == replace(new.test, name=""):
                old.seeds.append(new.seed)
                return
        tally.found.append(new)

    # -- shrinking ---

    def examine(self, seed: int, steered: Steered, first: Divergence) -> Found:
        """Run a diverging program again, and look for the smallest one that still diverges."""
        runs = self.diverging([steered] * AGAIN)
        seen = sum(divergence is not None for divergence in runs)
        test, divergence = replace(steered.test, questions=(Keeps("private"),)), first
        while True:
            smaller = [
                (proposal, program)
                for proposal in _smaller(test)
                if (program := self.program(proposal)) is not None
            ]
            results = self.diverging([program for _, program in smaller])
            better = next(
                ((p, d) for (p, _), d in zip(smaller, results, strict=True) if d is not None), None
            )
            if better is None:
                break
            test, divergence = better
        named = replace(test, name=f"diverges-{seed}", title=f"found on {self.target.release}")
        return Found(seed, named, len(steered.program.steps), divergence, seen, AGAIN, [])

    def program(self, test: Test) -> Steered | None:
        try:
            check(test)
            return self.steer(test)
        except (NotSteerable, PageherdError):
            return None

    def diverging(self, programs: Sequence[Steered]) -> list[Divergence | None]:
        """Of each program where it diverges now, or None."""
        if not programs:
            return []
        report = Report()
        named = [replace(program, id=f"again-{n}") for n, program in enumerate(programs)]
        runs = {run.id: run for run in self.target.run(Batch(named), report)}
        return [
            self.hold(program, runs[program.word]).divergence if program.word in runs else None
            for program in named
        ]


def _smaller(test: Test) -> Iterator[Test]:
    """Tests with fewer steps, the much smaller ones first; then with one process fewer."""
    count = len(all_steps(test))
    for width in (count // 2, count // 4, 3, 2, 1):
        for first in range(count - width, -1, -1) if width else ():
            gone = dict.fromkeys(range(first, first + width))
            proposal = tidy(with_steps(test, gone))
            if proposal is not None and len(all_steps(proposal)) < count:
                yield proposal
    for fork in all_steps(test):
        if fork.verb == "fork":
            proposal = tidy(_without_child(test, fork))
            if proposal is not None:
                yield proposal


def _without_child(test: Test, fork: Step) -> Test:
    """The test without a fork, what the child does done by its parent."""
    alone = Renaming({str(fork.arguments[0]): fork.thread})
    return with_changes(test, lambda step: None if step is fork else alone.of_step(step))


def prepare(target: Target, spec: str | None = None) -> Conform:
    """Look at what a real kernel can do, and choose the model's rules for it.

    Raises:
        EnvironmentFailed: the kernel cannot be started.
        RuleError: there is no such kernel, or none of the table fits.
    """
    kernel = choose(spec or target.kernel())
    report = Report()
    swaps: list[SwapKind] = []
    for swap in SWAPS:
        bare = steer(random_test(0, 1, ("pageout",), swap), "base", kernel)[0]
        for _ in target.run(Batch([replace(bare, needs=frozenset({"swap"}))]), report):
            pass
        if report.ended:
            raise report.failure(target.name)
        if report.probes.missing("swap") is None:
            swaps.append(swap)
    report.probes.have["swap"] = 0 if swaps else report.probes.have.get("swap", errno.ENODEV)
    verbs = [verb for verb in steerable_verbs(report.probes.missing) if verb not in kernel.absent()]
    return Conform(
        target,
        kernel,
        record(kernel),
        sight_of(report.probes),
        verbs,
        tuple(swaps) or ("none",),
        report.probes,
    )
