"""Random programs: valid sequences of operations over three processes, two pages, three references.

Run as a script (`python programs.py KERNEL SEED COUNT`) it prints a digest of the state after every
operation, so that the compiled and the uncompiled machine can be compared across processes.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from pageherd.litmus.syntax import KERNEL, PageOf, Step
from pageherd.machine import state as st
from pageherd.machine.drive import drive, drive_begin
from pageherd.machine.jit import records
from pageherd.machine.layout import TEST, Layout, words_compared
from pageherd.machine.operations import encode
from pageherd.machine.verbs import FEATURE_WORDS, VERBS, Kind, Result
from pageherd.rules.choose import choose, record
from pageherd.search.program import Names, empty_state, operation_of
from pageherd.search.store import step_checked

PROCESSES = ("P", "C", "D")
PAGES = ("a", "b")
REFERENCES = ("r", "s", "u")
NAMES = Names(PROCESSES, (KERNEL, *PROCESSES), PAGES, REFERENCES, ("x",))
HUGE = ("hugepage", "nohugepage", "collapse", "split")  # these programs have no huge pages
SEQUENTIAL = tuple(name for name in VERBS if name not in ("exit", "fork", *HUGE))


def program(seed: int, length: int = 40) -> list[Step]:
    """A random program; fork, references and reclaim are drawn more often than the rest."""
    rng = random.Random(seed)
    alive = ["P"]
    unborn = list(PROCESSES[1:])
    held: set[str] = set()
    steps = [Step("P", "mmap", ("a",)), Step("P", "write", ("a", 1))]
    favourites = ["write", "read", "vmsplice", "pin", "pageout", "reclaim", "munmap", "release"]
    while len(steps) < length:
        verb = rng.choice([*SEQUENTIAL, *favourites, "fork", "fork", "exit"])
        if verb == "fork":
            if not unborn:
                continue
            child = unborn.pop(0)
            steps.append(Step(rng.choice(alive), "fork", (child,)))
            alive.append(child)
            continue
        if verb == "exit":
            if len(alive) == 1:
                continue
            steps.append(Step(alive.pop(rng.randrange(len(alive))), "exit"))
            continue
        step = _step(rng, verb, alive, held)
        if step is not None:
            steps.append(step)
    return steps


def _step(rng: random.Random, verb: str, alive: list[str], held: set[str]) -> Step | None:
    row = VERBS[verb]
    result = None
    if row.result is Result.REFERENCE:
        free = [name for name in REFERENCES if name not in held]
        if not free:
            return None
        result = free[0]
        held.add(result)
    arguments: list[Any] = []
    for kind in row.arguments:
        if kind is Kind.PAGE:
            arguments.append(rng.choice([p for p in PAGES if p not in arguments]))
        elif kind is Kind.REMOTE:
            arguments.append(PageOf(rng.choice(alive), rng.choice(PAGES)))
        elif kind is Kind.FRAME:
            pages = [PageOf(process, page) for process in alive for page in PAGES]
            arguments.append(rng.choice([*pages, *sorted(held)]))
        elif kind is Kind.REFERENCE:
            if not held:
                return None
            arguments.append(rng.choice(sorted(held)))
            if verb == "release":
                held.discard(arguments[-1])
        elif kind is Kind.PROCESS:
            arguments.append(rng.choice(alive))
        elif kind is Kind.PROT:
            arguments.append(rng.choice(("none", "r", "rw", "rw")))
        elif kind is Kind.NUMBER:
            arguments.append(rng.randrange(2))
        elif kind is Kind.VALUE:
            arguments.append(rng.randrange(1, 60000))
        elif kind is Kind.FEATURES:
            arguments.append(tuple(word for word in FEATURE_WORDS if rng.random() < 0.5))
        elif kind is Kind.FLAGS:
            flags = ("write", "longterm", "fast")
            arguments.append(tuple(flag for flag in flags if rng.random() < 0.5))
    thread = KERNEL if row.actor.value == "kernel" else rng.choice(alive)
    return Step(thread, verb, tuple(arguments), result)


def first_state(layout: Layout, seed: int) -> Any:
    state = empty_state(layout, len(PROCESSES), len(PAGES), 4)
    state["mm_state"][0, 0] = st.LIVE
    state["swap_kind"] = 1 + seed % 3
    state["batch_limit"] = (seed // 3) % 3
    return state


def run(kernel: str, seed: int, layout: Layout = TEST) -> Iterator[tuple[Step, Any, int]]:
    """Each step, the state after it (the same array, changed in place), and its result."""
    table = record(choose(kernel), layout)
    state = first_state(layout, seed)
    for step in program(seed):
        operation = operation_of(NAMES, step)
        ops = encode([operation])
        ops["register"] = 1
        with np.errstate(over="ignore"):
            drive(records(state), 0, records(table), records(ops), 0, 1)
        yield step, state, int(state["reg"][0, 0])


def run_checked(kernel: str, seed: int) -> Iterator[tuple[Step, Any]]:
    """As `run`, with every promise looked at after every step."""
    table = record(choose(kernel), TEST)
    state = first_state(TEST, seed)
    for step in program(seed):
        operation = operation_of(NAMES, step)
        ops = encode([operation])
        drive_begin(records(state), 0, records(table), records(ops), 0)
        while step_checked(records(state), 0, records(table), operation.thread) > 0:
            pass
        yield step, state


def digest(state: Any) -> str:
    words = state.view(np.uint8).reshape(-1)[: words_compared(TEST)]
    return hashlib.blake2b(words.tobytes(), digest_size=8).hexdigest()


def main() -> None:
    kernel, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for seed in range(first, first + count):
        for step, state, result in run(kernel, seed):
            print(seed, step.verb, result, digest(state), int(state["alarm"][0]))


if __name__ == "__main__":
    main()
