"""One test on one real kernel: what was observed, what was predicted, and whether they agree.

The promises that a run broke are those that every state of the model broke which agrees with all
that was observed; a condition is judged by the values that the real kernel gave.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pageherd.litmus.syntax import Copies, Keeps, Outcome, Test, steps_of
from pageherd.machine import state as st
from pageherd.promises.table import NAMES
from pageherd.real.follow import follow, result_of
from pageherd.real.observe import Sight
from pageherd.real.results import Run
from pageherd.real.steer import NotSteerable, Steered, steer
from pageherd.real.target import Batch, Report, Target, by_swap, sight_of
from pageherd.rules.choose import Kernel, record
from pageherd.search.check import Chosen
from pageherd.search.edit import compared_in
from pageherd.search.explore import Exploration, explore_program
from pageherd.search.program import program_of
from pageherd.search.verdict import WORDS, holds, judge, plain, questions_of
from pageherd.search.verdict import Verdict as Judged

Result = Literal["pass", "fail", "skip", "error"]

REPEAT: Final = 1000  # runs of a test with concurrent steps
_OTHER_PAGES: Final = {
    "reclaim": "the kernel reclaimed other pages of the cgroup than the test says",
    "migrate": "move_pages() does not find the page",
}
_UNSEEN: Final = "promises of concurrent steps are judged by the values read only"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one test on one real kernel.

    `fail` means that the kernel broke what the test asks, which on an old kernel is as predicted;
    `agrees` whether all that was observed is what the model allows (None: nothing was observed).
    """

    test: str
    on: str
    release: str
    kernel: str
    result: Result
    agrees: bool | None
    observed: Mapping[str, Any]
    predicted: Mapping[str, Any]
    reason: str


@dataclass(slots=True)
class _Case:
    """A chosen test, the programs that stand for it, and what came of them."""

    chosen: Chosen
    programs: Sequence[Steered] = ()
    reason: str = ""
    runs: list[list[Run]] = field(default_factory=list)


def run_tests(
    target: Target,
    chosen: Sequence[Chosen],
    kernel: Kernel,
    report: Report,
    *,
    repeat: int = REPEAT,
) -> Iterator[Verdict]:
    """Run tests on a real kernel, all sequential ones in one go, then the concurrent ones.

    A test with concurrent steps is run `repeat` times, any other once.

    Raises:
        EnvironmentFailed: the kernel could not be started.
    """
    table = record(kernel)
    cases = [_case(one, kernel, table, target.in_pieces) for one in chosen]
    for concurrent in (False, True):
        part = [c for c in cases if c.programs and c.programs[0].concurrent == concurrent]
        programs = [program for case in part for program in case.programs]
        if programs:
            runs = _run(target, programs, repeat if concurrent else 0, report)
            for case in part:
                case.runs = [runs.get(program.word, []) for program in case.programs]
    for case in cases:
        yield _verdict(case, target, kernel, table, report)


def _case(chosen: Chosen, kernel: Kernel, table: Any, in_pieces: Collection[str]) -> _Case:
    try:
        programs = steer(chosen.test, chosen.variant, kernel, in_pieces=in_pieces)
        if not _faithful(chosen, programs, table):
            programs = steer(chosen.test, chosen.variant, kernel, chosen=False, in_pieces=in_pieces)
        for program in programs:
            check_returns(program, table)
        return _Case(chosen, programs)
    except NotSteerable as reason:
        return _Case(chosen, reason=f"not steerable: {reason}")


def check_returns(program: Steered, table: Any) -> None:
    """A process that does not come back from the kernel cannot be killed, and takes a CPU.

    Raises:
        NotSteerable: the model says that this is what happens.
    """
    verbs = {step.verb for step in program.program.steps}
    huge_file = "mmap_file" in verbs and bool(program.test.huge)
    if "hugetlb" not in program.needs and not huge_file:
        return  # nothing else breaks `progress`
    if "progress" in explore_program(program.program, table).broken:
        raise NotSteerable("the kernel would not come back (progress)")


def _faithful(chosen: Chosen, programs: Sequence[Steered], table: Any) -> bool:
    """Whether programs that page out give the endings of a test that reclaims."""
    test, variant = chosen.test, chosen.variant
    if all(step.verb != "reclaim" for step in steps_of(test.variant_steps(variant))):
        return True
    written = explore_program(program_of(test, variant), table)
    explored = [explore_program(program.program, table) for program in programs]
    counted = any(isinstance(question, Copies) for question in questions_of(test))
    return _endings([written], counted) == _endings(explored, counted)


def _endings(explored: Sequence[Exploration], counted: bool) -> set[tuple[Any, ...]]:
    """The values of the registers at every end; `counted`: and how many pages were copied."""
    return {
        (*end.registers.items(), end.copies if counted else 0)
        for one in explored
        for end in one.outcomes
    }


def _run(
    target: Target, programs: Sequence[Steered], repeat: int, report: Report
) -> dict[str, list[Run]]:
    """Every run of every program; a kernel that stops is started again for what is left.

    `repeat` is 0 for programs without concurrent steps: they run once and tell everything.
    """
    runs: dict[str, list[Run]] = {}
    left = by_swap(programs)
    while left:
        batch = Batch(left, repeat or 1, facts=not repeat)
        last = None
        for run in target.run(batch, report):
            runs.setdefault(run.id, []).append(run)
            last = run.id
        if not report.ended:
            break
        words = [program.word for program in left]
        reached = words.index(last) if last in words else -1
        if reached < 0:
            break
        left = left[reached + 1 :]
    return runs


def _verdict(case: _Case, target: Target, kernel: Kernel, table: Any, report: Report) -> Verdict:
    test, variant = case.chosen.test, case.chosen.variant

    def verdict(
        result: Result,
        reason: str = "",
        agrees: bool | None = None,
        observed: Mapping[str, Any] | None = None,
        predicted: Mapping[str, Any] | None = None,
    ) -> Verdict:
        return Verdict(
            case.chosen.id,
            target.name,
            report.probes.release or target.release,
            kernel.name,
            result,
            agrees,
            observed or {},
            predicted or {},
            reason,
        )

    if case.reason:
        return verdict("skip", case.reason)
    missing = _missing(case, report)
    if missing:
        return verdict("skip", f"missing: {', '.join(missing)}")
    if any(not runs or any(run.ending != "end" for run in runs) for runs in case.runs):
        return verdict("error", _how_it_ended(case, report))
    if any(run.no_huge for runs in case.runs for run in runs):
        return verdict("skip", "the kernel had no huge page to give")
    if any(run.unlike for runs in case.runs for run in runs):
        return verdict("skip", "pages of one huge page that should be treated alike were not")
    explored = [explore_program(program.program, table) for program in case.programs]
    expected = _predicted(explored)
    if case.programs[0].concurrent:
        endings = [
            registers(program, results_of(program, run))
            for program, runs in zip(case.programs, case.runs, strict=True)
            for run in runs
        ]
        seen = _observed(endings, counted=True)
        strange = [values for values in seen["registers"] if values not in expected["registers"]]
        return verdict(
            "fail" if _conditions_broken(test, endings, once=False) else "pass",
            f"the model does not allow {strange[0]}" if strange else _UNSEEN,
            not strange,
            seen,
            expected,
        )
    followed = [
        follow(program, runs[0], table, sight_of(report.probes))
        for program, runs in zip(case.programs, case.runs, strict=True)
    ]
    endings = [registers(p, one.results) for p, one in zip(case.programs, followed, strict=True)]
    seen = _observed(endings, counted=False)
    seen["promises"] = sorted({promise for one in followed for promise in one.broken})
    diverged = next((f.divergence for f in followed if f.divergence is not None), None)
    if diverged is not None:
        text = "; ".join(diverged.differences)
        return verdict("error", f"{diverged.step}: {text}", False, seen, expected)
    other = _other_pages(case)
    if other and any(one not in expected["registers"] for one in seen["registers"]):
        return verdict("skip", other, True, seen, expected)
    model = judge(test, variant, kernel.name, explored[0])
    asked = {question.promise for question in questions_of(test) if isinstance(question, Keeps)}
    unseen = {a.promise for a in model.answers if a.verdict == "broken"} & {"no-leak", "get-fork"}
    broken = asked.intersection(seen["promises"]) or asked & unseen or _copies_broken(model, test)
    return verdict(
        "fail" if broken or _conditions_broken(test, endings, once=True) else "pass",
        "",
        True,
        seen,
        expected,
    )


def _other_pages(case: _Case) -> str:
    """Why a lever may have worked on other pages than the test says; "" if it cannot have."""
    verbs = {step.verb for one in case.programs for step in one.program.steps}
    return "; ".join(reason for verb, reason in _OTHER_PAGES.items() if verb in verbs)


def _missing(case: _Case, report: Report) -> list[str]:
    """What its programs need and the kernel does not have; each had a swap device of its own."""
    needs = sorted(set().union(*(program.needs for program in case.programs)) - {"swap"})
    found = [text for probe in needs if (text := report.probes.missing(probe)) is not None]
    errors = {run.no_swap for runs in case.runs for run in runs if run.no_swap}
    if any("swap" in program.needs for program in case.programs):
        found += [f"swap: {errno.errorcode.get(error, error)}" for error in sorted(errors)]
    return found


def _how_it_ended(case: _Case, report: Report) -> str:
    for program, runs in zip(case.programs, case.runs, strict=True):
        for run in runs:
            if run.ending == "hang":
                step = program.program.steps[min(len(run.steps), len(program.program.steps) - 1)]
                return f"'{step.thread}: {step.verb}' did not return"
    return report.ended or "its processes could not be ended"


def _predicted(explored: Sequence[Exploration]) -> dict[str, Any]:
    """What the model says: the promises that can break, and the registers of every ending."""
    return {
        "promises": [name for name in NAMES if any(name in one.broken for one in explored)],
        "registers": [
            {name: plain(value) for name, value in outcome.registers.items()}
            for one in explored
            for outcome in one.outcomes
        ],
    }


Registers = Mapping[str, int | str]


def _observed(endings: Sequence[Registers], *, counted: bool) -> dict[str, Any]:
    """The registers of every different ending, and if asked for how often it was seen."""
    counts = Counter(tuple(ending.items()) for ending in endings)
    seen: dict[str, Any] = {"registers": [dict(values) for values in counts]}
    if counted:
        seen["times"] = list(counts.values())
    return seen


def results_of(program: Steered, run: Run) -> list[int | str]:
    """What the steps of a concurrent program gave; `ok` where the lever does not tell."""
    everything = Sight(frames=True, counts=True, flags=True, exclusive=True, soft_dirty=True)
    steps = program.program.steps
    gave = [result_of(program, steps[ran.step], ran, everything) for ran in run.steps]
    return ["ok" if one is None else one for one in gave]


def registers(program: Steered, results: Sequence[int | str]) -> dict[str, int | str]:
    """The values of the registers, as people read them."""
    values: dict[str, int | str] = dict.fromkeys(program.program.names.registers, "unset")
    for step, result in zip(program.program.steps, results, strict=False):
        if step.result in values:
            values[step.result] = result
    return values


def _copies_broken(model: Judged, test: Test) -> bool:
    """Whether too many pages were copied, as the model that agrees with each frame counts them."""
    return any(
        isinstance(question, Copies) and answer.verdict == "broken"
        for question, answer in zip(questions_of(test), model.answers, strict=True)
    )


def _conditions_broken(test: Test, endings: Sequence[Registers], *, once: bool) -> bool:
    """Whether the values that were read break a condition; `once`: each program has one ending."""
    for question in questions_of(test):
        if isinstance(question, Outcome):
            met = [holds(question.condition, _numbers(question, ending)) for ending in endings]
            if question.polarity == "forbid" and any(met):
                return True
            if question.polarity == "require" and not all(met):
                return True
            if question.polarity == "allow" and once and not any(met):
                return True
    return False


def _numbers(question: Outcome, ending: Registers) -> dict[str, int]:
    """Registers as conditions compare them; one that a `maybe` step left out is unset."""
    numbers: dict[str, int] = {}
    for comparison in compared_in(question):
        for name in (comparison.register, comparison.right):
            if isinstance(name, str) and name not in WORDS:
                numbers[name] = st.UNBOUND
    for name, value in ending.items():
        numbers[name] = value if isinstance(value, int) else WORDS.get(value, st.UNBOUND)
    return numbers
