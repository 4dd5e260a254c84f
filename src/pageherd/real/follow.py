"""Following a real run in the model: does every observation belong to what the model allows?

The model keeps the set of its states that agree with everything seen so far.  At each step every
state is moved on in every way that the kernel may choose, what each predicts is compared with what
was seen, and the states that predicted otherwise are dropped.  None left: a divergence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pageherd.litmus.format import format_step
from pageherd.litmus.syntax import Step
from pageherd.machine import state as st
from pageherd.machine.layout import States
from pageherd.machine.operations import Operation
from pageherd.machine.verbs import VERBS, Result
from pageherd.promises.table import PROMISES
from pageherd.real import ksmd
from pageherd.real.choices import ways
from pageherd.real.levers import LEVERS
from pageherd.real.observe import FIELDS, Page, Sight, Where, look, model_pages
from pageherd.real.outcomes import Open, left_open
from pageherd.real.results import Ran, Run
from pageherd.real.steer import Steered
from pageherd.search.verdict import plain

_MAX_STATES: Final = 256
COLLAPSES: Final = ("collapse", "process_madvise_collapse")
NAMES_RETURN: Final = ksmd.VERBS | {"mremap"}
"""Within such a step a page may be copied to a frame that was its own before, or another's."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one step shows: its result (None if the lever has none) and the pages after it."""

    result: int | str | None
    pages: Mapping[Where, Page]


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first step at which the real kernel showed what the model does not allow."""

    index: int
    step: str
    differences: tuple[str, ...]  # against the closest prediction


@dataclass(frozen=True, slots=True)
class Followed:
    """One run held against the model.

    `predictions`: how many different observations the model allowed at each step.
    `broken`: the promises that the model's states, those that agree with the run, broke.
    """

    divergence: Divergence | None
    predictions: tuple[int, ...]
    broken: tuple[str, ...]
    results: tuple[int | str, ...]  # what the steps gave; the model's where the lever does not tell
    left_open: tuple[Open, ...] = ()  # the steps with more than one allowed outcome

    @property
    def determined(self) -> bool:
        """Whether the model allowed exactly one outcome at every step."""
        return all(count == 1 for count in self.predictions)


@dataclass(frozen=True, slots=True)
class _Branch:
    state: States
    seen: Seen
    gave: int | str  # the model's own result of the step
    before: Mapping[Where, Page]  # the model's own pages after the step, not yet numbered
    broken: frozenset[str]


def follow(steered: Steered, run: Run, kernel: Any, sight: Sight) -> Followed:
    """Hold one run of a sequential program against the model.

    Args:
        kernel: the record made by `rules.choose.record`.

    Raises:
        ModelError: the machine cannot answer.
    """
    branches = [_Branch(steered.program.first, Seen(None, {}), "ok", {}, frozenset())]
    before: Mapping[Where, Page] = {}
    predictions: list[int] = []
    results: list[int | str] = []
    opened: list[Open] = []
    for ran, step, operation in zip(
        run.steps, steered.program.steps, steered.program.operations, strict=False
    ):
        before = {} if step.verb in NAMES_RETURN else before
        actual = Seen(result_of(steered, step, ran, sight), look(ran.pages, before, sight))
        before = ran.pages
        after = [
            new
            for branch in branches
            for new in _moved_on(steered, branch, step, operation, kernel, sight)
        ]
        allowed = {_key(branch.seen): branch.seen.pages for branch in after}
        predictions.append(len(allowed))
        agreeing = [branch for branch in after if branch.seen == actual]
        gave = (agreeing or after)[0].gave
        results.append(gave if actual.result is None else actual.result)
        if not agreeing:
            nearest = min((differences(b.seen, actual, steered) for b in after), key=len)
            where = Divergence(ran.step, format_step(step), nearest)
            return Followed(where, tuple(predictions), (), tuple(results))
        if len(allowed) > 1:
            was = branches[0].seen.pages
            opened.append(left_open(step.verb, was, list(allowed.values()), actual.pages))
        branches = agreeing[:_MAX_STATES]
    certain = frozenset.intersection(*(branch.broken for branch in branches))
    names = tuple(promise.name for promise in PROMISES if promise.name in certain)
    return Followed(None, tuple(predictions), names, tuple(results), tuple(opened))


def result_of(steered: Steered, step: Step, ran: Ran, sight: Sight) -> int | str | None:
    """What a step gave on the real kernel, in the model's words; None if its lever is silent."""
    if VERBS[step.verb].result is Result.STATE:
        names = steered.program.names
        process = names.processes.index(steered.test.process_of(step.thread))
        page = ran.pages.get((process, names.pages.index(str(step.arguments[0]))))
        return None if page is None else sight.of(page).entry
    if not LEVERS[step.verb].returns:
        return None
    if VERBS[step.verb].result is Result.VALUE and ran.error == 0:
        return ran.seen
    if step.verb in COLLAPSES and ran.error:
        return "busy"
    return ran.status


def _moved_on(
    steered: Steered, branch: _Branch, step: Step, operation: Operation, kernel: Any, sight: Sight
) -> Iterator[_Branch]:
    """Every way in which the kernel may take this step from one state of the model."""
    names = steered.program.names
    tells = LEVERS[step.verb].returns
    before = {} if step.verb in NAMES_RETURN else branch.before
    for states, broke in ways(steered, branch.state, step, operation, kernel):
        gave = plain(int(states["reg"][0, 0]))
        states["reg"][0, 0] = st.UNBOUND
        pages = model_pages(
            states[0], len(names.processes), len(names.pages), of_head=sight.of_head
        )
        result = "present" if gave == "zero" and not sight.flags else gave
        if result == "notified" and step.verb not in ("read", "write"):
            result = "fault"  # EFAULT: with UFFD_FEATURE_SIGBUS nothing waits
        if step.verb in COLLAPSES and result != "ok":
            result = "busy"  # EINVAL, too, says that it is for other reasons than a lack of memory
        seen = Seen(result if tells else None, look(pages, before, sight))
        yield _Branch(states, seen, gave, pages, branch.broken | broke)


def _key(seen: Seen) -> tuple[Any, ...]:
    return seen.result, tuple(sorted(seen.pages.items(), key=lambda item: item[0]))


def differences(model: Seen, real: Seen, steered: Steered) -> tuple[str, ...]:
    """What the real kernel showed otherwise than the model, in words."""
    names = steered.program.names
    found = []
    if model.result != real.result:
        found.append(f"result: the model gives {model.result}, the kernel {real.result}")
    for where in sorted({*model.pages, *real.pages}):
        process, page = names.processes[where[0]], names.pages[where[1]]
        mine, other = model.pages.get(where), real.pages.get(where)
        for name in FIELDS:
            left, right = getattr(mine, name, None), getattr(other, name, None)
            if left != right:
                found.append(f"{process}.{page} {name}: the model says {left}, the kernel {right}")
    return tuple(found)
