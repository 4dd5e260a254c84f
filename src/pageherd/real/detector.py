"""Is a wrong rule noticed?  Real runs are held to models that differ from the right one in a rule.

The programs run once on the real kernel; each wrong model is held to the same runs, in their
order, until one diverges.  A rule that no run tells from its alternatives is one that agreement of
model and kernel says nothing about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from pageherd.errors import ModelError
from pageherd.real.conform import BATCH, Conform
from pageherd.real.follow import Divergence, follow
from pageherd.real.results import Run
from pageherd.real.steer import Steered
from pageherd.real.target import Batch, Report, by_swap
from pageherd.rules import kernels
from pageherd.rules.catalog import POINTS
from pageherd.rules.choose import choose, record


@dataclass(frozen=True, slots=True)
class Sample:
    """One program, the run of it on the real kernel, and the number that makes it again."""

    number: int
    steered: Steered
    run: Run


@dataclass(frozen=True, slots=True)
class Noticed:
    """What became of one wrong rule."""

    point: str
    alternative: str
    programs: int  # until the first that diverges; all of them if none does
    divergence: Divergence | None
    sample: Sample | None = None

    @property
    def rule(self) -> str:
        """The rule as it is put behind a kernel's name."""
        return f"{self.point}={self.alternative}"


def collect(conform: Conform, programs: int, seed: int) -> list[Sample]:
    """Run random programs on the real kernel, and keep those runs that the right model allows.

    Raises:
        EnvironmentFailed: the kernel stopped.
    """
    found: list[Sample] = []
    supply = conform.supply(seed)
    while len(found) < programs:
        batch = dict(islice(supply, min(BATCH, programs - len(found))))
        numbers = {steered.word: number for number, steered in batch.items()}
        report = Report()
        for run in conform.target.run(Batch(by_swap(batch.values())), report):
            number = numbers[run.id]
            found.append(Sample(number, batch[number], run))
        if report.ended:
            raise report.failure(conform.target.name)
    found.sort(key=lambda sample: sample.number)
    return [
        s
        for s in found
        if s.run.ending == "end" and conform.hold(s.steered, s.run).divergence is None
    ]


def wrong_rules(kernel: str) -> Iterator[tuple[str, str]]:
    """Every decision point with each alternative that this kernel did not choose.

    Of the FOLL_ flags of calls only those that another kernel of the table uses.
    """
    chosen = kernels.resolve(kernel)
    used = {name: {kernels.resolve(row.name).get(name) for row in kernels.ROWS} for name in POINTS}
    for point in POINTS.values():
        calls = len(point.alternatives) > _MANY
        for alternative in point.alternatives:
            known = not calls or alternative in used[point.name]
            if alternative != chosen[point.name] and known:
                yield point.name, alternative


_MANY = 16  # alternatives: the sets of FOLL_ flags


def notice(
    conform: Conform,
    samples: Sequence[Sample],
    rules: Sequence[tuple[str, str]],
    progress: Callable[[Noticed], None] = lambda noticed: None,
) -> list[Noticed]:
    """Hold each wrong model to the runs until one diverges."""
    found = []
    for point, alternative in rules:
        table = record(choose(f"{conform.kernel.base}:{point}={alternative}"))
        one = _first(conform, samples, table, point, alternative)
        progress(one)
        found.append(one)
    return found


def _first(
    conform: Conform, samples: Sequence[Sample], table: object, point: str, alternative: str
) -> Noticed:
    for count, sample in enumerate(samples, start=1):
        try:
            divergence = follow(sample.steered, sample.run, table, conform.sight).divergence
        except ModelError as error:
            divergence = Divergence(0, "", (f"the model stops: {error}",))
        if divergence is not None:
            return Noticed(point, alternative, count, divergence, sample)
    return Noticed(point, alternative, len(samples), None)


def shrunk(conform: Conform, noticed: Noticed) -> int:
    """The number of steps of the smallest program that still tells a wrong rule, on the kernel."""
    assert noticed.sample is not None
    assert noticed.divergence is not None
    kernel = choose(f"{conform.kernel.base}:{noticed.rule}")
    wrong = replace(conform, kernel=kernel, table=record(kernel))
    found = wrong.examine(noticed.sample.number, noticed.sample.steered, noticed.divergence)
    return len(list(found.test.body))
