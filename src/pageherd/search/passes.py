"""The passes of shrinking: named ways to propose tests that may be smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, combinations, permutations
from typing import Final

from pageherd.litmus.syntax import (
    BASE,
    Argument,
    Comparison,
    Group,
    Prepare,
    Step,
    Swap,
    Test,
)
from pageherd.machine.verbs import Kind
from pageherd.search.edit import (
    Renaming,
    actors_of,
    all_steps,
    changed_question,
    compared_in,
    kinds_of,
    takes_reference,
    with_changes,
    with_steps,
)
from pageherd.search.explore import Path


@dataclass(frozen=True, slots=True)
class Found:
    """A test that shows the verdict, and a run of it that does."""

    test: Test
    run: Path | None  # None: what is broken is that something never happens


# the passes


def _follow_the_run(found: Found) -> Iterator[Test]:
    """The run that shows the verdict, as a program without choices: nothing after its end."""
    if found.run is None:
        return
    steps = all_steps(found.test)
    before = chain.from_iterable(
        part.steps if isinstance(part, Group) else (part,)
        for part in found.test.body[: found.test.main_start(BASE)]
        if not isinstance(part, Prepare)
    )
    main = len(tuple(before))
    done = [edge.operation for edge in found.run if not edge.left_out]
    parts = [
        [replace(steps[n], maybe=False) for n in done if (n >= main) is late]
        for late in (False, True)
    ]
    mark = tuple(part for part in found.test.body if isinstance(part, Prepare))
    yield replace(found.test, body=(*parts[0], *mark, *parts[1]))


def _drop_a_process(found: Found) -> Iterator[Test]:
    """Without a process, its threads, and every step that names it."""
    test = found.test
    for gone in reversed(test.processes):
        with_it = (n for n, step in enumerate(all_steps(test)) if gone in actors_of(test, step))
        yield with_steps(test, dict.fromkeys(with_it))


def _merge_processes(found: Found) -> Iterator[Test]:
    """One process does what two did; it is not forked from itself, and does not exit early."""
    test = found.test
    for gone, into in permutations(reversed(test.processes), 2):
        names = Renaming({gone: into})

        def merged(step: Step, gone: str = gone, names: Renaming = names) -> Step | None:
            if step.verb == "exit" and test.process_of(step.thread) == gone:
                return None
            new = names.of_step(step)
            return None if new.verb == "fork" and new.arguments[0] == new.thread else new

        threads = (replace(t, process=names.actors.get(t.process, t.process)) for t in test.threads)
        yield replace(with_changes(test, merged), threads=tuple(threads))


def _merge_threads(found: Found) -> Iterator[Test]:
    """A process does itself what a thread of it did."""
    for thread in reversed(found.test.threads):
        yield with_changes(found.test, Renaming({thread.name: thread.process}).of_step)


def _drop_steps(found: Found) -> Iterator[Test]:
    """Without some steps in a row: half of them, a quarter, ..., one; the last ones first."""
    number = len(all_steps(found.test))
    length = number // 2
    while length:
        for first in range(number - length, -1, -1):
            yield with_steps(found.test, dict.fromkeys(range(first, first + length)))
        length //= 2


def _drop_two_steps(found: Found) -> Iterator[Test]:
    """Without two steps that only make sense together, as taking rights away and back."""
    for pair in combinations(reversed(range(len(all_steps(found.test)))), 2):
        yield with_steps(found.test, dict.fromkeys(pair))


def _merge_pages(found: Found) -> Iterator[Test]:
    """One page for two; it need not be mapped twice."""
    for gone, into in permutations(reversed(found.test.pages), 2):
        names = Renaming(pages={gone: into})

        def merged(step: Step, gone: str = gone, names: Renaming = names) -> Step | None:
            twice = step.verb == "mmap" and step.arguments[0] == gone
            return None if twice else names.of_step(step)

        yield with_changes(found.test, merged)


def _merge_references(found: Found) -> Iterator[Test]:
    """One reference for two."""
    held = [str(step.result) for step in all_steps(found.test) if takes_reference(step)]
    for gone, into in permutations(reversed(held), 2):
        names = Renaming(bound={gone: into})

        def merged(step: Step, gone: str = gone, names: Renaming = names) -> Step | None:
            useless = step.verb == "release" and step.arguments[0] == gone
            return None if useless or step.result == gone else names.of_step(step)

        yield with_changes(found.test, merged)


def _shorten_the_question(found: Found) -> Iterator[Test]:
    """A condition without one of its comparisons; copies counted from the start."""
    (question,) = found.test.questions
    for gone in reversed(tuple(compared_in(question))):
        shorter = changed_question(question, partial(_unless, gone))
        if shorter is not None:
            yield replace(found.test, questions=(shorter,))
    body = tuple(part for part in found.test.body if not isinstance(part, Prepare))
    yield replace(found.test, body=body, variants=(), files=found.test.files_of(BASE))


def _unless(gone: Comparison, comparison: Comparison) -> Comparison | None:
    return None if comparison is gone else comparison


def _dissolve_groups(found: Found) -> Iterator[Test]:
    """A concurrent group done in the order in which it is written."""
    for number, part in enumerate(found.test.body):
        if isinstance(part, Group):
            body = found.test.body
            yield replace(found.test, body=(*body[:number], *part.steps, *body[number + 1 :]))


def _simplify_a_step(found: Found) -> Iterator[Test]:
    """One step in a simpler form."""
    for number, step in enumerate(all_steps(found.test)):
        for simpler in _simpler(found.test, step):
            yield with_steps(found.test, {number: simpler})


def _simpler(test: Test, step: Step) -> Iterator[Step]:
    if step.maybe:
        yield replace(step, maybe=False)
    if step.verb == "reclaim":
        for process in test.processes:
            for page in test.pages:
                yield replace(step, thread=process, verb="pageout", arguments=(page,))
    if step.verb == "drain" and step.arguments:
        yield replace(step, arguments=())
    for place, (kind, argument) in enumerate(kinds_of(step)):
        for simpler in _simpler_argument(kind, argument):
            before, after = step.arguments[:place], step.arguments[place + 1 :]
            yield replace(step, arguments=(*before, simpler, *after))


def _simpler_argument(kind: Kind, argument: Argument) -> Iterator[Argument]:
    if isinstance(argument, tuple):
        yield from (tuple(flag for flag in argument if flag != gone) for gone in argument)
    elif kind is Kind.NUMBER and isinstance(argument, int):
        yield from _less(argument, 1)


def _less(number: int, least: int) -> list[int]:
    """Smaller numbers worth a try: the least, half and one less."""
    return [n for n in dict.fromkeys((least, number // 2, number - 1)) if least <= n < number]


def _lower_the_values(found: Found) -> Iterator[Test]:
    """The values 1, 2, 3, ...: different ones stay different, so that a trace can be followed."""
    test = found.test
    low: dict[Argument, int] = {
        value: number for number, value in enumerate(sorted(_values(test) - {0}), 1)
    }

    def asked(comparison: Comparison) -> Comparison:
        right = comparison.right
        return replace(comparison, right=low.get(right, right))

    question = changed_question(test.questions[0], asked)
    if question is not None:
        stored = with_changes(test, partial(_with_values, low))
        yield replace(stored, questions=(question,))


def _with_values(low: Mapping[Argument, int], step: Step) -> Step:
    arguments = (low.get(a, a) if kind is Kind.VALUE else a for kind, a in kinds_of(step))
    return replace(step, arguments=tuple(arguments))


def _values(test: Test) -> set[int]:
    stored = [a for step in all_steps(test) for kind, a in kinds_of(step) if kind is Kind.VALUE]
    asked = [comparison.right for comparison in compared_in(test.questions[0])]
    return {value for value in chain(stored, asked) if isinstance(value, int)}


def _plain_settings(found: Found) -> Iterator[Test]:
    """Ordinary swap, no batches, one CPU, hugetlb pages enough."""
    test = found.test
    yield replace(test, files=())
    yield replace(test, swap=Swap())
    yield replace(test, swap=replace(test.swap, stable_writes=False))
    for number in _less(test.lru_batches, 0):
        yield replace(test, lru_batches=number)
    yield replace(test, hugetlb_pool=None)
    for gone in test.cpus:
        yield replace(test, cpus=tuple(placement for placement in test.cpus if placement != gone))


PASSES: Final[Mapping[str, Callable[[Found], Iterator[Test]]]] = {
    "follow the run": _follow_the_run,
    "drop a process": _drop_a_process,
    "merge two processes": _merge_processes,
    "merge a thread": _merge_threads,
    "drop steps": _drop_steps,
    "merge two pages": _merge_pages,
    "merge two references": _merge_references,
    "shorten the question": _shorten_the_question,
    "dissolve a group": _dissolve_groups,
    "simplify a step": _simplify_a_step,
    "lower the values": _lower_the_values,
    "plain settings": _plain_settings,
    "drop two steps": _drop_two_steps,
}
