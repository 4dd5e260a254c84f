"""Random programs, weighted so that fork, references, pins and reclaim meet.

A program is an ordinary test, so that every other verb takes it.  The same seed gives the same
program on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from pageherd.litmus.syntax import Argument, Keeps, PageOf, Step, Swap, SwapKind, Test
from pageherd.machine.verbs import FILE_VERBS, VERBS, Kind, Result
from pageherd.real.levers import LEVERS

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
    "unmergeable": 0.5,
    "mlock": 1,
    "clear_soft_dirty": 2,
    "populate_read": 2,
    "populate_write": 2,
    "process_vm_readv": 2,
    "process_vm_writev": 2,
    "ptrace_peek": 1,
    "ptrace_poke": 2,
    "swapoff": 0.2,
    "mmap_file": 4,
    "mmap_shared": 2,
    "mmap_hugetlb": 3,
    "read_file": 2,
    "write_file": 3,
}
"""How often each verb is tried.  Device loads and stores over VFIO take a fifth of a second each,
so its pins are drawn less often than io_uring's."""

OF_FILES: Final = frozenset((*FILE_VERBS, "mmap_hugetlb"))
WITHOUT_FILES: Final = frozenset(("pageout", "reclaim", "swapoff"))
"""Reclaim takes pages of the file, too, which the machine leaves alone."""
ONE_IN: Final = 4
"""One program in so many has files and huge pages, and no reclaim."""


def random_test(seed: int, length: int, verbs: Collection[str], swap: SwapKind) -> Test:
    """A random sequential program of about `length` steps.

    It begins with a page that is mapped and written; after that each verb of `verbs` is drawn by
    `WEIGHTS`, with processes that are alive and references that are held.
    """
    rng = random.Random(f"{seed}/{length}/{swap}")
    program = _Program(rng)
    left_out = WITHOUT_FILES if random.Random(f"{seed}").random() * ONE_IN < 1 else OF_FILES
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
        pages=PAGES,
        swap=Swap(swap),
    )


@dataclass(slots=True)
class _Program:
    """A program as it grows: who is alive, what is held, which value comes next."""

    rng: random.Random
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
        return Step(parent, "fork", (child,))

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
        for kind in kinds:
            argument = self.argument(kind, arguments)
            if argument is None:
                return None
            arguments.append(argument)
        if verb == "release":
            self.held.remove(str(arguments[0]))
        if result is not None:
            self.taken += 1
            self.held.append(result)
        thread = "kernel" if row.actor.value == "kernel" else self.rng.choice(self.alive)
        return Step(thread, verb, tuple(arguments), result)

    def argument(self, kind: Kind, before: list[Argument]) -> Argument | None:
        if kind is Kind.PAGE:
            pages = [page for page in PAGES if page not in before]
            return self.rng.choices(pages, [3, 1][: len(pages)])[0]
        if kind is Kind.REMOTE:
            return PageOf(self.rng.choice(self.alive), self.rng.choices(PAGES, [3, 1])[0])
        if kind is Kind.FRAME:
            return PageOf(self.rng.choice(self.alive), self.rng.choices(PAGES, [3, 1])[0])
        if kind is Kind.REFERENCE:
            return self.rng.choice(self.held) if self.held else None
        if kind is Kind.PROT:
            return self.rng.choice(("none", "r", "r", "rw", "rw"))
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
