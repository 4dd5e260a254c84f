"""Looking at tests and changing them: what shrinking a test is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, NamedTuple, TypeAlias

from pageherd.litmus.asked import comparisons
from pageherd.litmus.syntax import (
    KERNEL,
    Argument,
    Comparison,
    Condition,
    Group,
    Not,
    Outcome,
    PageOf,
    Placement,
    Prepare,
    Question,
    Step,
    Test,
    Thread,
    steps_of,
)
from pageherd.litmus.words import taken
from pageherd.machine.verbs import VERBS, Kind, Result

Change: TypeAlias = Callable[[Step], Step | None]  # None: the step goes


# looking at tests


def all_steps(test: Test) -> tuple[Step, ...]:
    return tuple(steps_of(tuple(part for part in test.body if not isinstance(part, Prepare))))


def takes_reference(step: Step) -> bool:
    return VERBS[step.verb].result is Result.REFERENCE


def compared_in(question: Question) -> Iterator[Comparison]:
    return comparisons(question.condition) if isinstance(question, Outcome) else iter(())


def kinds_of(step: Step) -> Iterator[tuple[Kind, Argument]]:
    """The arguments; of a frame it is said whether it is a page or behind a reference."""
    for kind, argument in zip(VERBS[step.verb].arguments, step.arguments, strict=False):
        if kind is Kind.FRAME:
            kind = Kind.REMOTE if isinstance(argument, PageOf) else Kind.REFERENCE
        yield kind, argument


def references_of(step: Step) -> set[Argument]:
    return {argument for kind, argument in kinds_of(step) if kind is Kind.REFERENCE}


def actors_of(test: Test, step: Step) -> Iterator[str]:
    """The processes that a step names, who acts first."""
    if step.thread != KERNEL:
        yield test.process_of(step.thread)
    for kind, argument in kinds_of(step):
        if isinstance(argument, PageOf):
            yield argument.process
        elif kind is Kind.PROCESS:
            yield str(argument)


def pages_of(step: Step) -> Iterator[str]:
    for kind, argument in kinds_of(step):
        if isinstance(argument, PageOf):
            yield argument.page
        elif kind is Kind.PAGE:
            yield str(argument)


# changing tests


def with_changes(test: Test, change: Change) -> Test:
    """The test with each step changed or gone."""
    body: list[Step | Group | Prepare] = []
    for part in test.body:
        if isinstance(part, Prepare):
            body.append(part)
        elif isinstance(part, Group):
            members = tuple(new for step in part.steps if (new := change(step)) is not None)
            body.append(replace(part, steps=members))
        elif (new := change(part)) is not None:
            body.append(new)
    return replace(test, body=tuple(body))


def with_steps(test: Test, new: Mapping[int, Step | None]) -> Test:
    """The test with some steps, by their numbers in the order written, changed or gone."""
    numbers = iter(range(len(all_steps(test))))
    return with_changes(test, lambda step: new.get(next(numbers), step))


class Renaming(NamedTuple):
    """New names for old ones; a name that is not there stays."""

    actors: Mapping[str, str] = {}
    pages: Mapping[str, str] = {}
    bound: Mapping[str, str] = {}

    def of_step(self, step: Step) -> Step:
        return replace(
            step,
            thread=self.actors.get(step.thread, step.thread),
            arguments=tuple(self.of_argument(kind, a) for kind, a in kinds_of(step)),
            result=None if step.result is None else self.bound.get(step.result, step.result),
        )

    def of_argument(self, kind: Kind, argument: Argument) -> Argument:
        if isinstance(argument, PageOf):
            process, page = argument.process, argument.page
            return PageOf(self.actors.get(process, process), self.pages.get(page, page))
        if not isinstance(argument, str):
            return argument
        of_kind = {Kind.PAGE: self.pages, Kind.PROCESS: self.actors, Kind.REFERENCE: self.bound}
        return of_kind.get(kind, {}).get(argument, argument)


def changed_condition(
    condition: Condition, change: Callable[[Comparison], Comparison | None]
) -> Condition | None:
    """A condition with its comparisons changed or gone; None if nothing is left of it."""
    if isinstance(condition, Comparison):
        return change(condition)
    if isinstance(condition, Not):
        part = changed_condition(condition.part, change)
        return None if part is None else Not(part)
    parts = [
        new for part in condition.parts if (new := changed_condition(part, change)) is not None
    ]
    if len(parts) < 2:
        return parts[0] if parts else None
    return replace(condition, parts=tuple(parts))


def changed_question(
    question: Question, change: Callable[[Comparison], Comparison | None]
) -> Question | None:
    if not isinstance(question, Outcome):
        return question
    condition = changed_condition(question.condition, change)
    return None if condition is None else replace(question, condition=condition)


# tidying


def tidy(test: Test) -> Test | None:
    """What is left of a test when all goes that hangs on nothing, with the usual names.

    None if nothing is left to ask or to do.
    """
    test = _with_plain_groups(_without_loose_ends(test))
    bound = {step.result for step in all_steps(test)}
    question = changed_question(test.questions[0], lambda c: c if _registers(c) <= bound else None)
    if question is None or not all_steps(test):
        return None
    needed = {name for comparison in compared_in(question) for name in _registers(comparison)}
    return _named(
        with_changes(
            replace(test, questions=(question,)),
            lambda step: step if takes_reference(step) or step.result in needed else _silent(step),
        )
    )


def _registers(comparison: Comparison) -> set[str | None]:
    right = comparison.right
    free = isinstance(right, str) and taken(right) is None
    return {comparison.register, str(right)} if free else {comparison.register}


def _silent(step: Step) -> Step:
    return replace(step, result=None)


def _without_loose_ends(test: Test) -> Test:
    """Without steps that use a reference that is never taken, or move a page onto itself."""
    held: set[Argument | None] = set()

    def possible(step: Step) -> Step | None:
        if not references_of(step) <= held:
            return None
        if step.verb == "mremap" and step.arguments[0] == step.arguments[1]:
            return None
        held.add(step.result if takes_reference(step) else None)
        return step

    return with_changes(test, possible)


def _with_plain_groups(test: Test) -> Test:
    """A group of one thread is a sequence."""
    body: list[Step | Group | Prepare] = []
    for part in test.body:
        if isinstance(part, Group) and len({step.thread for step in part.steps}) < 2:
            body += part.steps
        else:
            body.append(part)
    return replace(test, body=tuple(body))


_PROCESSES: Final = "PCDEFG"
_PAGES: Final = "abcdefgh"
_REFERENCES: Final = "rstuvwpq"
_REGISTERS: Final = ("x", "y", "z", *(f"x{n}" for n in range(4, 17)))


def _named(test: Test) -> Test:
    """With what is used alone declared, and named in the order of its first use."""
    steps = all_steps(test)
    processes = _in_order((p for step in steps for p in actors_of(test, step)), _PROCESSES)
    declared = {thread.name for thread in test.threads}
    threads = _in_order(
        (step.thread for step in steps if step.thread in declared), [f"T{n}" for n in range(1, 9)]
    )
    ranges = {huge.name for huge in test.huge}
    huge = any(argument in ranges for step in steps for argument in step.arguments)
    if huge:  # where a page stands decides which huge page it is in
        pages = {page: page for page in test.pages}
    else:
        pages = _in_order((page for step in steps for page in pages_of(step)), _PAGES)
    held = _in_order((str(s.result) for s in steps if s.result and takes_reference(s)), _REFERENCES)
    read = _in_order(
        (str(s.result) for s in steps if s.result and not takes_reference(s)), _REGISTERS
    )
    names = Renaming(processes | threads, pages, held | read)
    question = changed_question(
        test.questions[0],
        lambda c: replace(
            c,
            register=read.get(c.register, c.register),
            right=read.get(c.right, c.right) if isinstance(c.right, str) else c.right,
        ),
    )
    order = list((processes | threads).values())
    members = (Thread(new, processes[test.process_of(old)]) for old, new in threads.items())
    placed = (Placement(names.actors.get(p.thread, ""), p.cpu) for p in test.cpus if p.cpu)
    return replace(
        with_changes(test, names.of_step),
        processes=tuple(processes.values()),
        threads=tuple(sorted(members, key=lambda t: order.index(t.process))),
        pages=tuple(pages.values()),
        huge=test.huge if huge else (),
        cpus=tuple(
            sorted(
                (p for p in placed if p.thread in order),
                key=lambda p: (p.cpu, order.index(p.thread)),
            )
        ),
        questions=() if question is None else (question,),
    )


def _in_order(used: Iterable[str], new: Iterable[str]) -> dict[str, str]:
    return dict(zip(dict.fromkeys(used), new, strict=False))
