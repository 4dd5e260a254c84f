"""Random programs, weighted so that fork, references, pins and reclaim meet.

A program is an ordinary test, so that every other verb takes it.  The same seed gives the same
program on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from pageherd.litmus.syntax import (
    Argument,
    FileLine,
    Huge,
    Keeps,
    PageOf,
    Step,
    Swap,
    SwapKind,
    Test,
)
from pageherd.machine.verbs import FILE_VERBS, MAPPINGS_OF_FILES, VERBS, Kind, Result
from pageherd.real import ksmd
from pageherd.real.levers import LEVERS
from pageherd.real.steer import MOVES

PROCESSES: Final = ("P", "C", "D")
PAGES: Final = ("a", "b")
REFERENCES: Final = ("r", "s", "t")

WEIGHTS: Final = {
    "write": 14,
    "read": 8,
    "fork": 8,
    "exit": 3,
    "pageout": 12,
    "reclaim": 1.5,
    "vmsplice": 7,
    "io_uring_register": 7,
    "odirect_read": 2,
    "vfio_map_ro": 4,
    "vfio_map": 2,
    "read_ref": 6,
    "write_ref": 5,
    "release": 5,
    "tee": 1,
    "munmap": 3,
    "mmap": 2,
    "mprotect": 5,
    "mremap": 2,
    "dontneed": 3,
    "dontfork": 1,
    "dofork": 1,
    "wipeonfork": 1,
    "free": 2,
    "mergeable": 0.5,
    "unmergeable": 0.7,
    "mlock": 1,
    "clear_soft_dirty": 2,
    "populate_read": 2,
    "populate_write": 2,
    "process_vm_readv": 2,
    "process_vm_writev": 2,
    "ptrace_peek": 1,
    "ptrace_poke": 2,
    "swapoff": 0.2,
    "move": 2,
    "soft_offline": 1,
    "migrate": 3,
    "ksm": 20,
    "ksm_zero": 4,
    "ksm_merging_pages": 4,
    "mmap_file": 4,
    "mmap_shared": 2,
    "mmap_hugetlb": 3,
    "read_file": 2,
    "write_file": 3,
    "sync_file": 8,
    "hugepage": 3,
    "nohugepage": 1,
    "collapse": 4,
    "split": 3,
    "process_madvise_collapse": 1,
    "guard": 1.5,
    "unguard": 1.5,
    "mmap_droppable": 0.7,
}
"""How often each verb is tried.  Device loads and stores over VFIO take a fifth of a second each,
so its pins are drawn less often than io_uring's."""

OF_FILES: Final = frozenset((*FILE_VERBS, "mmap_hugetlb"))
WITHOUT_MEMFD: Final = frozenset(("pageout", "reclaim", "swapoff", "sync_file", "soft_offline"))
"""Reclaim takes pages of the memfd, too, which the machine leaves alone; so does soft offline."""
WITHOUT_DISK: Final = frozenset(("reclaim", "swapoff", "mmap_hugetlb", "soft_offline"))
"""Reclaim of a cgroup takes pages of the file that no mapping shows."""
WITHOUT_KSM: Final = frozenset(("swapoff",))
"""It goes from process to process and copies merged pages; the machine goes from slot to slot."""
OF_KSM: Final = ksmd.VERBS | {"ksm_merging_pages"}
WITHOUT_RANGES: Final = frozenset(("reclaim", "swapoff", "mlock", "soft_offline"))
"""After fork a range with a locked part is two VMAs alike; the machine takes them for one."""
WITHOUT_SHMEM: Final = WITHOUT_RANGES | {
    *("pageout", "sync_file", "mmap_hugetlb", "collapse", "process_madvise_collapse", "free"),
    "wipeonfork",
}
"""Of huge ranges of the file: what would swap it out or collapse it, and advice that is not for
files, since the machine takes a range of both kinds for what its first page is."""
OF_RANGES: Final = frozenset(
    ("hugepage", "nohugepage", "collapse", "process_madvise_collapse", "split")
)
ON_RANGES: Final = frozenset(verb for verb, row in VERBS.items() if row.ranges)
ONE_IN: Final = 5
"""One program in so many has a file or hugetlb pages; another one a huge range; a third one
mergeable pages with few different contents."""
OF_SHMEM: Final = 0.4
"""Of the programs with a huge range so many have it of a memfd."""
ON_DISK: Final = 0.3
"""Of those with a file so many have it on disk."""
HUGETLB_FILE: Final = 0.5
"""Up to here the file is one of hugetlb pages; there may be others."""
HUGETLB_ONLY: Final = 0.65
"""Up to here they have hugetlb pages only, which can be moved, too."""
WITHOUT_HUGETLB: Final = 0.8
"""Up to here a memfd, whose pages can be moved, too; beyond it a memfd and hugetlb pages."""
POOLS: Final = (None, 1, 2, 3)
"""How many hugetlb pages a program with files may have; None: enough."""
CONTENTS: Final = (0, 1, 1, 2)
RANGE: Final = Huge("h", ("a", "b"))
RANGE_PAGES: Final = ("a", "b", "c")


def random_test(seed: int, length: int, verbs: Collection[str], swap: SwapKind) -> Test:
    """A random sequential program of about `length` steps.

    It begins with a page that is mapped and written; after that each verb of `verbs` is drawn by
    `WEIGHTS`, with processes that are alive and references that are held.
    """
    rng = random.Random(f"{seed}/{length}/{swap}")
    drawn = random.Random(f"{seed}").random() * ONE_IN
    huge = 1 <= drawn < 2 and "hugepage" in verbs
    ksm = 2 <= drawn < 3 and "ksm" in verbs
    disk = drawn < ON_DISK and "sync_file" in verbs
    huge_file = ON_DISK < drawn < HUGETLB_FILE and "mmap_hugetlb" in verbs
    pool = POOLS[seed % len(POOLS)] if ON_DISK < drawn < 1 and "mmap_hugetlb" in verbs else None
    file = drawn < 1 and "mmap_file" in verbs
    shmem = huge and drawn < 1 + OF_SHMEM and "mmap_file" in verbs
    program = _Program(rng, huge, ksm, file or shmem, limited=pool is not None)
    left_out = OF_FILES | OF_RANGES
    if disk:
        left_out = WITHOUT_DISK | OF_RANGES
    elif huge_file:
        left_out = WITHOUT_MEMFD | OF_RANGES
    elif drawn < HUGETLB_ONLY:
        left_out = WITHOUT_MEMFD | OF_RANGES | {*FILE_VERBS}
    elif drawn < 1:
        hugetlb = drawn > WITHOUT_HUGETLB
        left_out = WITHOUT_MEMFD | OF_RANGES | (MOVES if hugetlb else {"mmap_hugetlb"})
    elif shmem:
        left_out = MOVES | WITHOUT_SHMEM
    elif huge:
        left_out = OF_FILES | MOVES | WITHOUT_RANGES
    left_out |= WITHOUT_KSM if ksm else OF_KSM
    known = [verb for verb in WEIGHTS if verb in verbs]
    known = [verb for verb in known if verb not in left_out] or known
    weights = [WEIGHTS[verb] for verb in known]
    for _ in range(4 * length):
        if len(program.steps) >= length:
            break
        program.add(rng.choices(known, weights)[0])
    return Test(
        f"random-{seed}",
        PROCESSES[: program.born],
        tuple(program.steps),
        questions=(Keeps("private"),),
        pages=RANGE_PAGES if huge else PAGES,
        files=(FileLine("tmpfile"),) if disk else (FileLine("hugetlb"),) if huge_file else (),
        swap=Swap(swap),
        hugetlb_pool=pool,
        huge=(RANGE,) if huge else (),
    )


@dataclass(slots=True)
class _Program:
    """A program as it grows: who is alive, what is held, which value comes next."""

    rng: random.Random
    huge: bool = False
    ksm: bool = False
    file: bool = False
    limited: bool = False  # hugetlb pages may run out
    alive: list[str] = field(default_factory=lambda: ["P"])
    born: int = 1
    held: list[str] = field(default_factory=list)
    taken: int = 0
    value: int = 1
    steps: list[Step] = field(
        default_factory=lambda: [
            Step("P", "mmap", ("a",)),
            Step("P", "mmap", ("b",)),
            Step("P", "write", ("a", 1)),
        ]
    )

    def __post_init__(self) -> None:
        if self.huge:
            self.steps = [
                Step("P", "mmap", ("h",)),
                Step("P", "mmap", ("c",)),
                Step("P", "hugepage", ("h",)),
                Step("P", "write", ("h", 1)),
            ]
        if self.file:
            how = self.rng.choices(("mmap_file", "mmap_shared"), k=2)
            first, second = ("h", "c") if self.huge else ("a", "b")
            self.steps[:2] = [Step("P", how[0], (first,) * 2), Step("P", how[1], (second, "a"))]
        if self.ksm:
            self.steps += [
                Step("P", "mergeable", ("a",)),
                Step("P", "mergeable", ("b",)),
                Step("P", "write", ("b", 1)),
            ]

    def add(self, verb: str) -> None:
        """Add one step, if it can be done now."""
        special: dict[str, Callable[[], Step | None]] = {"fork": self.fork, "exit": self.exit}
        step = special.get(verb, lambda: self.step(verb))()
        if step is not None:
            self.steps.append(step)

    def fork(self) -> Step | None:
        if self.born == len(PROCESSES):
            return None
        parent, child = self.rng.choice(self.alive), PROCESSES[self.born]
        self.born += 1
        self.alive.append(child)
        # a fork that may fail tells
        return Step(parent, "fork", (child,), f"forked_{child.lower()}" if self.limited else None)

    def exit(self) -> Step | None:
        if len(self.alive) == 1:
            return None
        return Step(self.alive.pop(self.rng.randrange(len(self.alive))), "exit")

    def step(self, verb: str) -> Step | None:
        row = VERBS[verb]
        result = None
        if row.result is Result.REFERENCE:
            if self.taken == len(REFERENCES):
                return None
            result = REFERENCES[self.taken]
        arguments: list[Argument] = []
        kinds = row.arguments
        if row.optional and self.rng.random() < 0.6:
            kinds = kinds[: -row.optional]
        ranged = self.huge and verb in ON_RANGES and verb != "mremap"
        for kind in kinds:
            if (
                ranged
                and kind is Kind.PAGE
                and (arguments == [RANGE.name] if arguments else self.rng.random() < 0.4)
            ):
                kind = Kind.HUGE  # then a second one, too: all of a range maps all of it
            argument = self.argument(kind, arguments)
            if argument is None:
                return None
            arguments.append(argument)
        other = str(getattr(arguments[0], "page", "")) if arguments else ""
        if verb == "process_madvise_collapse" and other not in RANGE.pages:
            return None  # another range
        if self.huge and not self.maps_alike(verb, arguments):
            return None
        if verb == "release":
            self.held.remove(str(arguments[0]))
        if result is not None:
            self.taken += 1
            self.held.append(result)
        thread = "kernel" if row.actor.value == "kernel" else self.rng.choice(self.alive)
        return Step(thread, verb, tuple(arguments), result)

    @staticmethod
    def maps_alike(verb: str, arguments: list[Argument]) -> bool:
        """Whether what maps the file, and what it maps of it, have the same width and room."""
        if verb not in MAPPINGS_OF_FILES or len(arguments) == 1:
            return True
        return arguments in ([RANGE.name] * 2, ["c", "a"])

    @property
    def pages(self) -> tuple[str, ...]:
        return RANGE_PAGES if self.huge else PAGES

    @property
    def weights(self) -> list[float]:
        return [3, 3, 0.5] if self.huge else [3, 1]

    def argument(self, kind: Kind, before: list[Argument]) -> Argument | None:
        if kind is Kind.HUGE:
            return RANGE.name if self.huge else None
        if kind is Kind.PAGE:
            pages = [page for page in self.pages if page not in before]
            return self.rng.choices(pages, self.weights[: len(pages)])[0]
        if kind in (Kind.REMOTE, Kind.FRAME):
            process = self.rng.choice(self.alive)
            pages = [page for page in self.pages if PageOf(process, page) not in before]
            return PageOf(process, self.rng.choices(pages, self.weights[: len(pages)])[0])
        if kind is Kind.REFERENCE:
            return self.rng.choice(self.held) if self.held else None
        if kind is Kind.PROT:
            return self.rng.choice(("none", "r", "r", "rw", "rw"))
        if kind is Kind.VALUE and self.ksm:
            return self.rng.choice(CONTENTS)
        if kind is Kind.VALUE:
            self.value += 1
            return self.value
        assert kind is Kind.NUMBER, kind
        return self.rng.randrange(1, 4)


def steerable_verbs(missing: Callable[[str], str | None]) -> list[str]:
    """The verbs of `WEIGHTS` that this kernel has levers for."""
    return [
        verb for verb in WEIGHTS if not LEVERS[verb].needs or missing(LEVERS[verb].needs) is None
    ]
