"""Whether a test makes sense: names are declared, steps are possible, limits are kept.

The checks stand in the order in which a reader would make them: the head, the shape of the test,
the names in each step, then each variant from its first step to its last (`flow.py`), and last
the questions (`asked.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from pageherd.litmus import limits
from pageherd.litmus.asked import check_questions
from pageherd.litmus.flow import walk
from pageherd.litmus.source import Source
from pageherd.litmus.syntax import (
    DAX,
    KERNEL,
    NOWHERE,
    Group,
    PageOf,
    Place,
    Prepare,
    Step,
    Test,
    steps_of,
)
from pageherd.litmus.words import did_you_mean
from pageherd.machine.verbs import COLLAPSES, DAX_VERBS, MAPPINGS_OF_FILES, VERBS, Actor, Kind

_NO_SOURCE = Source()


def check(test: Test, source: Source = _NO_SOURCE, kernels: Sequence[str] | None = None) -> None:
    """Raise LitmusError at the first thing in the test that cannot be."""
    _check_head(test, source)
    _check_shape(test, source)
    for step in _written_steps(test):
        _check_names(test, step, source)
    bound = {variant: walk(test, variant, source) for variant in test.variant_names}
    check_questions(test, bound, source, kernels)


def _written_steps(test: Test) -> Iterator[Step]:
    prepared = chain.from_iterable(variant.steps for variant in test.variants)
    main = tuple(part for part in test.body if not isinstance(part, Prepare))
    return chain(prepared, steps_of(main))


# the head


def _check_head(test: Test, source: Source) -> None:
    if not test.processes:
        raise source.error(
            test.places.get(("test", 0), NOWHERE),
            "no process is declared",
            "add a line as in: processes P C",
        )
    _check_different(test, source)
    _check_huge(test, source)
    _check_files(test, source)
    _limit(test, source, "process", len(test.processes), limits.MAX_PROCESSES)
    most_threads = limits.MAX_THREADS - len(test.processes)
    _limit(test, source, "thread", len(test.threads), most_threads)
    _limit(test, source, "page", len(test.pages), limits.MAX_PAGES)
    for index, thread in enumerate(test.threads):
        if thread.process not in test.processes:
            place = test.places.get(("thread's process", index), NOWHERE)
            raise _unknown(source, place, "process", thread.process, test.processes)
    _check_cpus(test, source)


def _check_different(test: Test, source: Source) -> None:
    actors = [("process", index, name) for index, name in enumerate(test.processes)]
    actors += [("thread", index, thread.name) for index, thread in enumerate(test.threads)]
    pages = [("page", index, name) for index, name in enumerate(test.pages)]
    pages += [("huge", index, huge.name) for index, huge in enumerate(test.huge)]
    for declared in (actors, pages):
        seen: dict[str, str] = {}
        for what, index, name in declared:
            if name in seen:
                place = test.places.get((what, index), NOWHERE)
                raise source.error(place, f"'{name}' is declared twice", f"it is a {seen[name]}")
            seen[name] = what


def _check_huge(test: Test, source: Source) -> None:
    """Ranges are alike in size, and each begins at a multiple of it."""
    for index, huge in enumerate(test.huge):
        place = test.places.get(("huge", index), NOWHERE)
        size = len(huge.pages)
        for page in huge.pages:
            if page not in test.pages:
                raise _unknown(source, place, "page", page, test.pages)
        if size not in limits.HUGE_SIZES or size != len(test.huge[0].pages):
            sizes = ", ".join(map(str, limits.HUGE_SIZES))
            hint = f"{sizes} pages, the same number in every range"
            raise source.error(place, f"a huge range cannot have {size} pages here", hint)
        first = test.pages.index(huge.pages[0])
        if first % size or test.pages[first : first + size] != huge.pages:
            hint = "as in: pages a b c d, and: huge h = c d"
            message = "a huge range is consecutive pages from a multiple of its size on"
            raise source.error(place, message, hint)


def _check_files(test: Test, source: Source) -> None:
    """Every variant has one kind of file."""
    said: set[str] = set()
    for line in test.files:
        for name, place in zip(line.variants, line.variant_places, strict=False):
            if not test.variants:
                raise source.error(place, "this test has no variants", "leave 'in' out")
            if name not in test.variant_names:
                raise _unknown(source, place, "variant", name, test.variant_names)
            if name in said:
                raise source.error(place, f"the file of '{name}' is said twice")
            said.add(name)


def _limit(test: Test, source: Source, what: str, number: int, most: int) -> None:
    if number > most:
        place = test.places.get((what, most), NOWHERE)
        plural = "processes" if what == "process" else f"{what}s"
        extra = ", the processes' own included" if what == "thread" else ""
        shown = limits.MAX_THREADS if what == "thread" else most
        raise source.error(place, f"a test has at most {shown} {plural}{extra}")


def _check_cpus(test: Test, source: Source) -> None:
    placed: set[str] = set()
    for index, placement in enumerate(test.cpus):
        place = test.places.get(("cpu", index), NOWHERE)
        thread = placement.thread
        if thread == KERNEL:
            raise source.error(place, "the kernel is on every CPU", "leave 'kernel' out")
        if thread not in test.thread_names():
            raise _unknown(source, place, "thread", thread, test.thread_names())
        if thread in placed:
            raise source.error(place, f"thread '{thread}' is put on a CPU twice")
        placed.add(thread)


# the shape


def _check_shape(test: Test, source: Source) -> None:
    _check_variants(test, source)
    _check_prepare(test, source)
    for part in test.body:
        if isinstance(part, Group):
            _check_group(part, source)
    for variant in test.variant_names:
        steps = list(steps_of(test.variant_steps(variant)))
        where = f" in variant '{variant}'" if test.variants else ""
        if not steps:
            raise source.error(
                test.places.get(("test", 0), NOWHERE),
                f"no steps{where}",
                "add a line as in: P: write a = 1",
            )
        if len(steps) > limits.MAX_STEPS:
            place = steps[limits.MAX_STEPS].place
            raise source.error(place, f"a test has at most {limits.MAX_STEPS} steps{where}")
        _check_huge_files(test, steps, source)
        if test.file_of(variant) == DAX:
            _check_dax(steps, source)


def _check_huge_files(test: Test, steps: Sequence[Step], source: Source) -> None:
    """A range maps a range of the file, and what is huge in the file came so from a first touch."""
    ranges = {name for huge in test.huge for name in (huge.name, *huge.pages)}
    names = {huge.name for huge in test.huge}
    of_file = False
    for step in steps:
        if step.verb in MAPPINGS_OF_FILES:
            of_file = of_file or step.arguments[0] in ranges
            if names & {*step.arguments} and not names >= {*step.arguments}:
                message = f"'{step.verb}' maps a range of the file at a range of pages"
                raise source.error(step.verb_place, message, "name two ranges, or two pages")
    for step in steps:
        if of_file and step.verb in COLLAPSES:
            message = f"'{step.verb}' where a huge range is mapped of the file is not supported"
            raise source.error(step.verb_place, message, "only anonymous pages are collapsed")


def _check_dax(steps: Sequence[Step], source: Source) -> None:
    """Of persistent memory the machine knows mappings, faults and short-term GUP."""
    for step in steps:
        if step.verb not in DAX_VERBS:
            message = f"'{step.verb}' in a test with 'file dax' is not supported"
            raise source.error(step.verb_place, message, f"what is: {', '.join(DAX_VERBS)}")


def _check_variants(test: Test, source: Source) -> None:
    seen: set[str] = set()
    ranges = {huge.name: huge for huge in test.huge}
    for variant in test.variants:
        if variant.name in seen:
            raise source.error(variant.place, f"variant '{variant.name}' is declared twice")
        seen.add(variant.name)
        standing = variant.standing
        if standing is None:
            continue
        if standing.huge not in ranges:
            raise _unknown(source, variant.place, "huge range", standing.huge, list(ranges))
        if ranges[standing.huge].pages[0] != standing.page:
            message = f"'{standing.page}' is not the first page of '{standing.huge}'"
            raise source.error(variant.place, message)
    if len(test.variants) > limits.MAX_VARIANTS:
        place = test.variants[limits.MAX_VARIANTS].place
        raise source.error(place, f"a test has at most {limits.MAX_VARIANTS} variants")


def _check_prepare(test: Test, source: Source) -> None:
    marks = [part for part in test.body if isinstance(part, Prepare)]
    if marks and not test.variants:
        raise source.error(
            marks[0].place,
            "'prepare' without variants",
            "there is nothing to prepare: leave this line out",
        )
    if len(marks) > 1:
        raise source.error(
            marks[1].place,
            "'prepare' stands in a test once",
            f"it stands in line {marks[0].place.line} already",
        )
    if test.variants and not marks:
        raise source.error(
            test.variants[0].place,
            "the steps of the variants are never done",
            "add a line 'prepare' where they go, before the steps that use them",
        )


def _check_group(group: Group, source: Source) -> None:
    if len(group.steps) > limits.MAX_GROUP:
        place = group.steps[limits.MAX_GROUP].place
        raise source.error(place, f"a concurrent group has at most {limits.MAX_GROUP} steps")
    if not group.steps:
        raise source.error(group.place, "a concurrent group without steps")


# the names in a step


def _check_names(test: Test, step: Step, source: Source) -> None:
    verb = VERBS[step.verb]
    if step.thread == KERNEL:
        if verb.actor is not Actor.KERNEL:
            raise source.error(
                step.verb_place,
                f"'{verb.name}' is done by a process",
                f"write a thread's name instead of 'kernel', as in: "
                f"{test.processes[0]}: {verb.name} ...",
            )
    elif step.thread not in test.thread_names():
        raise _unknown(source, step.place, "thread", step.thread, test.thread_names())
    elif verb.actor is Actor.KERNEL:
        raise source.error(
            step.verb_place,
            f"'{verb.name}' is done by the kernel",
            f"write: kernel: {verb.name} ...",
        )
    ranges = [huge.name for huge in test.huge]
    if step.result in (*test.pages, *ranges):
        raise source.error(
            step.result_place, f"'{step.result}' is a page already", "give the result another name"
        )
    for kind, argument, place in zip(
        verb.arguments, step.arguments, step.argument_places, strict=False
    ):
        if isinstance(argument, PageOf):
            _check_page_of(test, argument, place, source)
        elif kind is Kind.PAGE and argument in ranges:
            _check_range(step, source)
        elif kind is Kind.PAGE and argument not in test.pages:
            raise _unknown(source, place, "page", str(argument), test.pages)
        elif kind is Kind.HUGE and argument not in ranges:
            raise _unknown(source, place, "huge range", str(argument), ranges)
        elif kind is Kind.PROCESS and argument not in test.processes:
            raise _unknown(source, place, "process", str(argument), test.processes)


def _check_range(step: Step, source: Source) -> None:
    if not VERBS[step.verb].ranges:
        message = f"'{step.verb}' works on one page"
        raise source.error(step.verb_place, message, "name one page of the range")


def _check_page_of(test: Test, argument: PageOf, place: Place, source: Source) -> None:
    line, column, _ = place
    if argument.process not in test.processes:
        process = Place(line, column, len(argument.process))
        raise _unknown(source, process, "process", argument.process, test.processes)
    if argument.page not in test.pages:
        page = Place(line, column + len(argument.process) + 1, len(argument.page))
        raise _unknown(source, page, "page", argument.page, test.pages)


def _unknown(source: Source, place: Place, what: str, name: str, known: Sequence[str]) -> Exception:
    return source.error(place, f"no {what} named '{name}'", did_you_mean(name, known))
