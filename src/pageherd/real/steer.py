"""From a test to programs whose every step has a lever, and from those to the runner's words.

A test is rewritten before it is predicted and run, so that model and kernel do the same: a raw
`get` or `pin` becomes the call that takes one with the same FOLL_ flags on that kernel, reclaim of
a page becomes MADV_PAGEOUT by the process that maps it, and each `maybe` becomes two programs.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Final, cast

from pageherd.litmus.syntax import (
    BASE,
    KERNEL,
    MEMFD,
    TMPFILE,
    Argument,
    Group,
    Huge,
    PageOf,
    Prepare,
    Step,
    Test,
    steps_of,
)
from pageherd.machine.verbs import FILE_VERBS, FLAG_WORDS, MAPPINGS_OF_FILES, VERBS, Kind, Result
from pageherd.real import ksmd
from pageherd.real.levers import LEVERS, NOT_STEERABLE, Lever
from pageherd.rules.choose import Kernel
from pageherd.search.program import Program, program_of

MAX_MAYBE: Final = 6  # so many `maybe` steps make 64 programs
RANGE_WIDTH: Final = 512  # pages of memory in a huge range; its last page stands for all the rest
MOVES: Final = frozenset(("move", "migrate"))
SMALL_FOLIO: Final = 4  # pages of the smallest anonymous folio that the kernel can be told of
NOT_BESIDE_RANGES: Final = frozenset(("sync_file", "mmap_hugetlb", *MOVES, *ksmd.VERBS))
CALLS: Final = {
    "vmsplice": "vmsplice",
    "io_uring_register": "io-uring",
    "vfio_map_ro": "vfio-ro",
    "vfio_map": "vfio",
    "odirect_read": "odirect-read",
}
"""Verbs that take a lasting reference, with the decision point that holds their FOLL_ flags."""

_FEATURES: Final = {
    "wp-unpopulated": 1 << 13,
    "wp-async": 1 << 15,
    "rwp": 1 << 17,
    "rwp-async": 1 << 18,
}  # linux/userfaultfd.h
_PROTECTIONS: Final = {
    "none": 0,
    "r": mmap.PROT_READ,
    "rw": mmap.PROT_READ | mmap.PROT_WRITE,
}


class NotSteerable(Exception):
    """A step for which user space has no lever; the text says why."""


@dataclass(frozen=True, slots=True)
class Steered:
    """A test without variants or `maybe`, whose steps all have levers; and its program."""

    id: str
    test: Test
    program: Program
    needs: frozenset[str]  # probes of the runner that must have succeeded

    @property
    def swap(self) -> str:
        """`none`, `zram` or `disk`."""
        return self.test.swap.kind if "swap" in self.needs else "none"

    @property
    def word(self) -> str:
        """The id as the runner repeats it."""
        return self.id.replace("/", ":")

    @property
    def cpus(self) -> int:
        """How many CPUs its threads are placed on."""
        return 1 + max((placement.cpu for placement in self.test.cpus), default=0)

    @property
    def concurrent(self) -> bool:
        """Whether steps run at the same time."""
        return any(isinstance(part, Group) for part in self.test.body)


def steer(
    test: Test,
    variant: str,
    kernel: Kernel,
    *,
    chosen: bool = True,
    in_pieces: Collection[str] = (),
) -> list[Steered]:
    """The programs that stand for one variant of a test on a kernel: one, or 2^n with n `maybe`s.

    Reclaim of a page is MADV_PAGEOUT by its process, which can choose the page but skips one that
    two processes map; if not `chosen` it is reclaim of all that the processes have.

    `in_pieces`: the kinds of swap device that no huge page lies on in one piece.

    Raises:
        NotSteerable: a step has no lever.
    """
    if test.swap.kind == "slow":
        raise NotSteerable(NOT_STEERABLE["writeback"])
    if test.swap.stable_writes:
        raise NotSteerable("no swap device at hand needs stable pages under write-back")
    parts = tuple(_rewritten(part, kernel, chosen) for part in test.variant_steps(variant))
    _check_direct_reads(tuple(steps_of(parts)))
    _check_tees(tuple(steps_of(parts)))
    _check_unmaps(tuple(steps_of(parts)))
    _check_file(tuple(steps_of(parts)))
    _check_swapoff(tuple(steps_of(parts)))
    _check_ranges(_ranges_of(test, tuple(steps_of(parts))), tuple(steps_of(parts)))
    maybes = sum(step.maybe for step in steps_of(parts))
    if maybes > MAX_MAYBE:
        raise NotSteerable(f"{maybes} steps under `maybe`")
    name = test.id_of(variant)
    prepared = parts[: test.main_start(variant)]
    return [
        _steered(
            name if not number else f"{name}#{number}",
            test,
            variant,
            _decided(parts, done),
            len(_decided(prepared, done)),
            test.swap.kind in in_pieces,
        )
        for number, done in enumerate(product((True, False), repeat=maybes))
    ]


def _ranges_of(test: Test, steps: tuple[Step, ...]) -> tuple[Huge, ...]:
    """The huge ranges that a step names; the pages of others are ordinary ones."""
    named = {argument for step in steps for argument in step.arguments}
    return tuple(huge for huge in test.huge if huge.name in named)


def _check_ranges(ranges: tuple[Huge, ...], steps: tuple[Step, ...]) -> None:
    """Beside huge ranges: what works on one page of memory, or on the memory of a page.

    Raises:
        NotSteerable: a step can work on one page only, and its page may be many.
    """
    if not ranges:
        return
    wide = {huge.pages[-1] for huge in ranges}
    of_devices = {step.result for step in steps if step.verb in ("vfio_map", "vfio_map_ro")}
    of_wide: set[Argument | None] = set()
    for step in steps:
        page = step.arguments[0] if step.arguments else None
        if step.verb in NOT_BESIDE_RANGES:
            raise NotSteerable(f"{step.verb}: beside a huge range")
        if step.verb in CALLS and page in wide:
            of_wide.add(step.result)
            if step.verb == "odirect_read":
                raise NotSteerable("odirect_read: the page stands for the rest of a huge page")
        if step.verb == "tee" and page in of_wide:
            raise NotSteerable("tee: the page stands for the rest of a huge page")
        if step.verb == "write_ref" and page in of_wide & of_devices:
            raise NotSteerable("write_ref: a device takes too long for the rest of a huge page")
        if step.verb == "mthp" and page not in (SMALL_FOLIO, len(ranges[0].pages)):
            raise NotSteerable(f"mthp: anonymous folios of {page} pages")
        if step.verb == "split" and not isinstance(page, PageOf):
            raise NotSteerable("split: of what a reference holds")
        if step.verb == "mremap":
            _check_move(ranges, *map(str, step.arguments))
        if step.verb in MAPPINGS_OF_FILES:
            _check_mapped(ranges, *map(str, step.arguments))


def _place_of(ranges: tuple[Huge, ...], page: str) -> int:
    """Where a page is in its range, counted from its end; 0: in none."""
    return next(
        (huge.pages.index(page) - len(huge.pages) for huge in ranges if page in huge.pages), 0
    )


def _check_move(ranges: tuple[Huge, ...], page: str, to: str) -> None:
    """A page can become one of a range only if it has its width.

    Raises:
        NotSteerable: it may have another one.
    """
    before, after = _place_of(ranges, page), _place_of(ranges, to)
    if after and (before == -1) != (after == -1):
        raise NotSteerable("mremap: the page of a huge range has another width")


def _check_mapped(ranges: tuple[Huge, ...], page: str, of_file: str) -> None:
    """A page of a range can map one of its width, of a range, too: else a huge one has no room.

    Raises:
        NotSteerable: the page of the file is another one.
    """
    if page in {huge.name for huge in ranges}:
        return  # all of a range maps all of a range
    place, wanted = _place_of(ranges, page), _place_of(ranges, of_file)
    if (place == -1) != (wanted == -1) or (place and not wanted):
        raise NotSteerable("mmap: the page of the file has another width")


def _check_direct_reads(steps: tuple[Step, ...]) -> None:
    """An O_DIRECT read in flight: the disk answers once, and its process cannot leave before.

    Raises:
        NotSteerable: the test does otherwise.
    """
    flying: dict[str, str] = {}  # reference -> the thread that takes it
    stored: set[str] = set()
    for step in steps:
        name = str(step.arguments[0]) if step.arguments else ""
        if step.verb == "odirect_read":
            if flying:
                raise NotSteerable("two O_DIRECT reads in flight")
            flying[str(step.result)] = step.thread
        elif step.verb == "read_ref" and name in flying:
            raise NotSteerable("read_ref: a disk that stores does not load")
        elif step.verb == "write_ref" and name in flying:
            if name in stored:
                raise NotSteerable("write_ref: a disk answers once")
            stored.add(name)
        elif step.verb == "exit" and step.thread in flying.values():
            raise NotSteerable("exit: waits for the O_DIRECT read in flight")
        elif step.verb == "release":
            flying.pop(name, None)


def _check_unmaps(steps: tuple[Step, ...]) -> None:
    """Until 6.1 only the process that mapped a page for VFIO can unmap it (vfio_dma_do_unmap).

    Raises:
        NotSteerable: that process is gone by then.
    """
    owners: dict[Argument | None, str] = {}
    gone: set[str] = set()
    for step in steps:
        if step.verb in ("vfio_map", "vfio_map_ro"):
            owners[step.result] = step.thread
        elif step.verb == "exit":
            gone.add(step.thread)
        elif step.verb == "release" and owners.get(step.arguments[0]) in gone:
            raise NotSteerable("release: the process that mapped the page for VFIO is gone")


def _check_swapoff(steps: tuple[Step, ...]) -> None:
    """A page that was swapped as a KSM page goes to the family that asks first, to others a copy.

    Raises:
        NotSteerable: swapoff goes over a list of processes that no test can order.
    """
    verbs = {step.verb for step in steps}
    if {"ksm", "swapoff"} <= verbs:
        raise NotSteerable("swapoff: which process gets a page back that was a KSM page")


def _check_file(steps: tuple[Step, ...]) -> None:
    """Reclaim takes pages of the file, too, and UFFDIO_COPY fills whole hugetlb pages.

    Raises:
        NotSteerable: the test has a file and reclaims, or hugetlb pages and fills one, or a shared
            mapping that is filled.
    """
    verbs = {step.verb for step in steps}
    if "uffd_copy" in verbs and "mmap_hugetlb" in verbs:
        raise NotSteerable("uffd_copy: of less than a hugetlb page")
    if "uffd_copy" in verbs and {"mmap_shared", "uffd_register_minor"} <= verbs:
        raise NotSteerable("uffd_copy: into a shared mapping")
    if "reclaim" in verbs and verbs & {*FILE_VERBS}:
        raise NotSteerable("reclaim: of a cgroup swaps out pages of the file, too")


def _check_tees(steps: tuple[Step, ...]) -> None:
    """Only what stands in a pipe can be duplicated by tee().

    Raises:
        NotSteerable: the test does otherwise.
    """
    piped = {step.result for step in steps if step.verb == "vmsplice"}
    if any(step.verb == "tee" and step.arguments[0] not in piped for step in steps):
        raise NotSteerable("tee: the reference is not a pipe's")


def _steered(
    name: str, test: Test, variant: str, parts: tuple[Step | Group, ...], main: int, in_pieces: bool
) -> Steered:
    """One program, in which copies count from part `main` on."""
    steps = tuple(steps_of(parts))
    huge = _ranges_of(test, steps)
    bare = replace(test, body=parts, variants=(), questions=(), huge=huge)
    plain = _with_used_names(replace(bare, files=test.files_of(variant)))
    needs = {LEVERS[step.verb].needs for step in steps} - {""}
    if huge:
        needs.add("thp")
    if test.hugetlb_pool is not None:
        needs.add("hugetlb")
    if "cgroup-reclaim" in needs:
        needs.add("swap")
    verbs = {step.verb for step in steps}
    if huge and verbs & {*FILE_VERBS}:
        needs.add("thp-shmem")
    file = plain.file_of(BASE)
    if file != MEMFD and verbs & {*FILE_VERBS}:
        if huge:
            raise NotSteerable(f"a file of another kind ({file}) beside a huge range")
        needs.add(file)  # its probe
        if file == TMPFILE and "odirect_read" in verbs:  # bio_check_pages_dirty(), bio_dirty_fn()
            raise NotSteerable("odirect_read: a work queue lets go of a page of a file on disk")
    needs |= {f"cpu-{placement.cpu}" for placement in test.cpus if placement.cpu}
    program = replace(program_of(plain, BASE), main_group=main)
    if huge:
        program.first["swap_in_pieces"] = in_pieces
        program.first["rest_pages"] = RANGE_WIDTH + 1 - len(huge[0].pages)
    return Steered(name, plain, program, frozenset(needs))


def _with_used_names(test: Test) -> Test:
    """The test without processes and pages that only other variants use."""
    parts = tuple(part for part in test.body if not isinstance(part, Prepare))
    steps = tuple(steps_of(parts))
    named: set[Argument] = {step.thread for step in steps}
    for argument in (argument for step in steps for argument in step.arguments):
        named |= {argument.process, argument.page} if isinstance(argument, PageOf) else {argument}
    named |= {thread.process for thread in test.threads}
    processes = tuple(name for name in test.processes if name in named)
    kept = {*processes, *(thread.name for thread in test.threads)}
    return replace(
        test,
        processes=processes,
        pages=tuple(name for name in test.pages if name in named or test.huge),
        cpus=tuple(placement for placement in test.cpus if placement.thread in kept),
    )


def _decided(parts: tuple[Step | Group, ...], done: tuple[bool, ...]) -> tuple[Step | Group, ...]:
    """The steps with each `maybe` step done or left out."""
    choices = iter(done)

    def decide(steps: tuple[Step, ...]) -> Iterator[Step]:
        for step in steps:
            if not step.maybe or next(choices):
                yield replace(step, maybe=False)

    decided: list[Step | Group] = []
    for part in parts:
        if isinstance(part, Group):
            decided.append(replace(part, steps=tuple(decide(part.steps))))
        else:
            decided += decide((part,))
    return tuple(part for part in decided if not isinstance(part, Group) or part.steps)


def _rewritten(part: Step | Group, kernel: Kernel, chosen: bool) -> Step | Group:
    if isinstance(part, Group):
        return replace(part, steps=tuple(_with_lever(step, kernel, chosen) for step in part.steps))
    return _with_lever(part, kernel, chosen)


def _with_lever(step: Step, kernel: Kernel, chosen: bool) -> Step:
    """The step itself, or the call that does the same on this kernel."""
    if step.verb in ("get", "pin"):
        return _by_call(step, kernel)
    chosen = chosen and "pageout" not in kernel.absent()
    if step.verb == "reclaim" and chosen and isinstance(step.arguments[0], PageOf):
        target = step.arguments[0]
        return replace(step, thread=target.process, verb="pageout", arguments=(target.page,))
    if step.verb == "reclaim" and step.result is not None:
        raise NotSteerable("reclaim: of a cgroup tells nothing about one page")
    if step.verb == "migrate" and not isinstance(step.arguments[0], PageOf):
        raise NotSteerable("migrate: of what a reference holds")
    if step.verb in kernel.absent():
        raise NotSteerable(f"{step.verb}: {kernel.name} does not have it")
    if step.verb == "userfaultfd" and not set(cast("tuple[str, ...]", step.arguments[0])) <= set(
        _FEATURES
    ):
        raise NotSteerable("userfaultfd: fork and mremap wait until somebody reads its events")
    if step.verb not in LEVERS:
        raise NotSteerable(f"{step.verb}: {NOT_STEERABLE[step.verb]}")
    if step.verb in MAPPINGS_OF_FILES:
        return replace(step, arguments=(step.arguments * 2)[:2])  # of its own page, if not named
    return step


def _by_call(step: Step, kernel: Kernel) -> Step:
    page, *rest = step.arguments
    words = {step.verb}.union(*(flags for flags in rest if isinstance(flags, tuple)))
    for verb, point in CALLS.items():
        if verb not in kernel.absent() and {*kernel.of(point).split("-")} - {"fast"} == words - {
            "fast"
        }:
            return replace(step, verb=verb, arguments=(page,))
    flags = " ".join(word for word in FLAG_WORDS if word in words)
    raise NotSteerable(f"{step.verb} {flags}".strip() + f": {NOT_STEERABLE[step.verb]}")


# -- the runner's words --------------------------------------------------------------------------


def encode(steered: Steered, device: str, *, repeat: int = 1, facts: bool = True) -> str:
    """The program as the runner reads it (`c/runner.c`): numbers and the names of levers only.

    `device` is the swap device, or `none`; it is turned on first unless it is on already.
    """
    names = steered.program.names
    threads = [name for name in names.threads if name != KERNEL]
    drained = int(steered.test.lru_batches == 0)
    numbers = f"{len(names.processes)} {len(names.pages)} {repeat} {int(facts)} {drained}"
    lines = [
        f"swap {device}",
        f"program {steered.word} {numbers}",
    ]
    if steered.test.hugetlb_pool is not None:
        lines.append(f"pool {steered.test.hugetlb_pool}")
    file = steered.test.file_of(BASE)
    if file != MEMFD and file in steered.needs:
        lines.append(f"file {file}")
    for first, pages in map(names.range_of, (huge.name for huge in names.huge)):
        lines.append(f"range {first} {pages}")
    for thread in threads:
        process = names.processes.index(steered.test.process_of(thread))
        lines.append(f"thread {process} {steered.test.cpu_of(thread)}")
    for group, part in enumerate(steered.test.body, start=1):
        if isinstance(part, Group):
            lines += [_words(steered, step, group) for step in part.steps]
        elif isinstance(part, Step):
            lines.append(_words(steered, part, 0))
    return "\n".join([*lines, "run\n"])


def _words(steered: Steered, step: Step, group: int) -> str:
    names = steered.program.names
    lever: Lever = LEVERS[step.verb]
    kinds = VERBS[step.verb].arguments
    first = second = 0
    span = 1
    value = -1 if step.verb == "drain" else 0  # every CPU, unless one is named
    thread = -1 if step.thread == KERNEL else names.threads.index(step.thread)
    if step.result and VERBS[step.verb].result is Result.REFERENCE:
        second = names.references.index(step.result)
    for place, (kind, argument) in enumerate(zip(kinds, step.arguments, strict=False)):
        if isinstance(argument, PageOf):
            first = names.processes.index(argument.process)
            second = names.pages.index(argument.page)
        elif kind is Kind.PROT:
            value = _PROTECTIONS[str(argument)]
        elif kind is Kind.FEATURES:
            value = sum(_FEATURES[word] for word in cast("tuple[str, ...]", argument))
        elif isinstance(argument, int):
            value = argument
        elif kind in (Kind.PAGE, Kind.HUGE) and place:
            second, _ = names.range_of(str(argument))
        elif kind in (Kind.PAGE, Kind.HUGE):
            first, span = names.range_of(str(argument))
        elif kind is Kind.PROCESS and step.verb == "fork":
            first = names.processes.index(str(argument))
        elif kind is Kind.REFERENCE:
            first = names.references.index(str(argument))
    words = f"step {thread} {group} {lever.step} {first} {second} {value}"
    return words if span == 1 else f"{words} {span}"
