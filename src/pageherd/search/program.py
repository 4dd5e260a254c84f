"""From a test and one of its variants to a program of the machine: operations and a first state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np

from pageherd.litmus.identify import identity
from pageherd.litmus.syntax import (
    BY_STEP,
    KERNEL,
    MEMFD,
    Argument,
    FileKind,
    Group,
    Huge,
    PageOf,
    Step,
    Test,
    steps_of,
)
from pageherd.machine import layout as layouts
from pageherd.machine import state as st
from pageherd.machine.layout import TEST, Layout, States
from pageherd.machine.operations import (
    FRAME_OF_PAGE,
    FRAME_OF_REF,
    PROTECTIONS,
    Operands,
    Operation,
    build,
    encode,
    features_from_words,
    flags_from_words,
)
from pageherd.machine.verbs import FILE_VERBS, VERBS, Kind, Result

SWAP_KINDS: Final = {
    "none": st.SWAP_NONE,
    "disk": st.SWAP_DISK,
    "slow": st.SWAP_SLOW,
    "zram": st.SWAP_ZRAM,
}
FILE_KINDS: Final = {
    "memfd": st.FILE_MEMFD,
    "tmpfile": st.FILE_DISK,
    "hugetlb": st.FILE_HUGETLB,
    "dax": st.FILE_DAX,
}
ALL_CPUS: Final = -1


@dataclass(frozen=True, slots=True)
class Names:
    """Which number stands for which name."""

    processes: tuple[str, ...]
    threads: tuple[str, ...]  # the kernel's own thread is the last
    pages: tuple[str, ...]
    references: tuple[str, ...]
    registers: tuple[str, ...]
    huge: tuple[Huge, ...] = ()

    def range_of(self, name: str) -> tuple[int, int]:
        """The number of the first page that a name stands for, and of how many it is the name."""
        for huge in self.huge:
            if huge.name == name:
                return self.pages.index(huge.pages[0]), len(huge.pages)
        return self.pages.index(name), 1


@dataclass(frozen=True, slots=True)
class Program:
    """What `search` runs: the same for every kernel."""

    names: Names
    steps: tuple[Step, ...]  # one for each operation
    operations: tuple[Operation, ...]
    ops: np.ndarray[Any, np.dtype[Any]]  # `operations`, encoded
    full: np.ndarray[Any, np.dtype[np.int64]]  # the done-set of each complete group
    by_step: np.ndarray[Any, np.dtype[np.int64]]  # 1 for each group whose paths are interleaved
    main_group: int  # the first group after `prepare`
    first: States  # (1,) the first state
    layout: Layout
    hash: str  # of the test's meaning


def program_of(test: Test, variant: str, layout: Layout = TEST) -> Program:
    """The program of one variant of a test.

    Raises:
        KeyError: the test has no such variant.
    """
    parts = test.variant_steps(variant)
    names = _names(test, parts)
    steps: list[Step] = []
    operations: list[Operation] = []
    full: list[int] = []
    for group, part in enumerate(parts):
        members = part.steps if isinstance(part, Group) else (part,)
        before: dict[str, int] = {}
        for place, step in enumerate(members):
            steps.append(step)
            bit = 1 << place
            ordered = replace(
                operation_of(names, step, test.process_of(step.thread)),
                maybe=int(step.maybe),
                group=group,
                bit=bit,
                needs=before.get(step.thread, 0),
            )
            operations.append(ordered)
            before[step.thread] = bit  # a thread runs its own steps in order
        full.append((1 << len(members)) - 1)
    return Program(
        names,
        tuple(steps),
        tuple(operations),
        encode(operations),
        np.array(full, dtype=np.int64),
        np.array([isinstance(p, Group) and p.by == BY_STEP for p in parts], dtype=np.int64),
        test.main_start(variant),
        first_state(test, names, steps, layout, test.file_of(variant)),
        layout,
        identity(test, variant),
    )


def _names(test: Test, parts: tuple[Step | Group, ...]) -> Names:
    references: list[str] = []
    registers: list[str] = []
    for step in steps_of(parts):
        if step.result:
            kind = VERBS[step.verb].result
            known = references if kind is Result.REFERENCE else registers
            if step.result not in known:
                known.append(step.result)
    return Names(
        test.processes,
        (*test.thread_names(), KERNEL),
        test.pages,
        tuple(references),
        tuple(registers),
        test.huge,
    )


def operation_of(names: Names, step: Step, process: str | None = None) -> Operation:
    """The operation that a step stands for; `process` is the one that its thread belongs to."""
    thread = names.threads.index(step.thread)
    mm = 0 if step.thread == KERNEL else names.processes.index(process or step.thread)
    operands = Operands(thread=thread, mm=mm, pages=len(names.pages))
    for place, argument in enumerate(step.arguments):
        if place and isinstance(argument, PageOf):
            operands = _with_second(operands, names, argument)
        else:
            kind = VERBS[step.verb].arguments[place]
            operands = _with_argument(operands, names, kind, argument)
    if step.verb == "drain" and not step.arguments:
        operands = replace(operands, value=ALL_CPUS)
    register = 0
    if step.result and VERBS[step.verb].result is Result.REFERENCE:
        operands = replace(operands, ref=names.references.index(step.result))
    elif step.result:
        register = names.registers.index(step.result) + 1
    return build(step.verb, operands, register=register)


def _with_second(o: Operands, names: Names, page: PageOf) -> Operands:
    """A second page of a process: the one that `ksm` merges the first with."""
    process = names.processes.index(page.process)
    return replace(o, ref=process, to=names.pages.index(page.page))


def _with_argument(o: Operands, names: Names, kind: Kind, argument: Argument) -> Operands:
    if isinstance(argument, PageOf):
        frame_from = FRAME_OF_PAGE if kind is Kind.FRAME else o.frame_from
        process, page = names.processes.index(argument.process), names.pages.index(argument.page)
        return replace(o, mm=process, page=page, frame_from=frame_from)
    if kind is Kind.FEATURES:
        return replace(o, value=features_from_words(cast("tuple[str, ...]", argument)))
    if isinstance(argument, tuple):
        return replace(o, flags=flags_from_words(argument))
    if isinstance(argument, int):
        return replace(o, value=argument)
    if kind in (Kind.PAGE, Kind.HUGE):
        page, span = names.range_of(argument)
        if o.to < 0:
            return replace(o, to=page)
        # a second page, if there is one, goes to `to`
        return replace(o, page=page, span=span, to=-1)
    if kind is Kind.PROT:
        return replace(o, value=PROTECTIONS[argument])
    if kind is Kind.PROCESS:
        return replace(o, to=names.processes.index(argument))
    reference = names.references.index(argument)
    if kind is Kind.FRAME:
        return replace(o, ref=reference, frame_from=FRAME_OF_REF)
    return replace(o, ref=reference)


def first_state(
    test: Test, names: Names, steps: list[Step], layout: Layout, file: FileKind = MEMFD
) -> States:
    """The state in which the test begins: nothing is mapped, nothing is swapped."""
    cached = len(names.pages) if any(step.verb in FILE_VERBS for step in steps) else 0
    state = empty_state(layout, len(names.processes), len(names.pages), cached=cached)
    record = state[0]
    forked = {argument for step in steps if step.verb == "fork" for argument in step.arguments}
    for mm, process in enumerate(names.processes):
        record["mm_state"][mm] = st.UNUSED if process in forked else st.LIVE
    for t, thread in enumerate(names.threads):
        if thread != KERNEL:
            record["t_cpu"][t] = test.cpu_of(thread)
            record["t_home"][t] = names.processes.index(test.process_of(thread))
    record["file_kind"] = FILE_KINDS[file]
    record["swap_kind"] = SWAP_KINDS[test.swap.kind]
    record["swap_stable_writes"] = int(test.swap.stable_writes)
    record["batch_limit"] = test.lru_batches
    if test.hugetlb_pool is not None:
        record["hugetlb_pool"] = test.hugetlb_pool + 1
        record["hugetlb_free"] = test.hugetlb_pool
    if test.huge:
        record["nr_huge"] = len(test.huge[0].pages)
        record["nr_frames"] = layout.frames  # a folio lives as long as one of its pages is held
    if test.swap.kind == "none":
        record["nr_slots"] = 0
    return state


def empty_state(
    layout: Layout, mms: int, pages: int, slots: int | None = None, cached: int = 0
) -> States:
    """One state of `layout` with nothing in it; every frame that can be in use at once is there.

    `cached` are frames of the page cache.
    """
    state = np.zeros(1, layouts.dtype(layout))
    record = state[0]
    record["nr_mms"] = mms
    record["nr_pages"] = pages
    record["nr_slots"] = min(layout.slots, mms * pages + 1) if slots is None else slots
    most = 2 + mms * pages + int(record["nr_slots"]) + layout.refs + cached
    record["nr_frames"] = min(layout.frames, most)
    record["refcount"][st.ZERO_FRAME] = 1
    record["reg"][:] = st.UNBOUND
    record["mm_family"][:mms] = np.arange(mms)
    if layout.free_list:
        record["nr_frames"] = layout.frames
        record["free_next"][1:-1] = np.arange(2, layout.frames)
        record["free_head"] = 1
    return state
