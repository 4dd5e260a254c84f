"""Hunting: every program inside a scope, of any length, on one kernel.

The search is breadth-first over canonical states, so the first breach of a promise is a shortest
one.  Promises are checked after every operation: in a sequential hunt nobody looks in between.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pageherd.litmus.format import format_step
from pageherd.litmus.syntax import Test
from pageherd.machine.jit import STEPS
from pageherd.promises.table import DEFAULT, PROMISES
from pageherd.rules.catalog import POINTS
from pageherd.rules.choose import Progress, choose, record
from pageherd.search import checkpoint
from pageherd.search.breadth import MAX_STATES, Progressed, Search, Watcher
from pageherd.search.client import Client, client_of
from pageherd.search.counterexample import counterexample, test_of
from pageherd.search.forgettable import trusts_marks
from pageherd.search.keeper import Keeper, keeper, noticing
from pageherd.search.scope import Scope, chosen_verbs, scopes_of
from pageherd.search.verdict import BROKEN, KEPT, UNDETERMINED, Word


@dataclass(frozen=True, slots=True)
class Breach:
    """A promise that some program breaks: a shortest one, as operations and as a test."""

    promise: str
    test: Test
    confirmed: bool  # whether the checker, which knows nothing of symmetry, breaks it too

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations as lines of a test."""
        return tuple(format_step(step) for step in self.test.body)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Finding:
    """A promise that a hunt has just found broken, while it goes on for the others."""

    scope: Scope
    promise: str
    operations: tuple[str, ...]  # of a shortest program, which the checker has not seen yet
    seconds: float


Teller = Callable[[Finding], None]


@dataclass(frozen=True, slots=True)
class Size:
    """How large one search was, and how it ended."""

    states: int
    transitions: int
    depth: int
    seconds: float
    bytes_per_state: float
    complete: bool  # nothing is left to expand
    interrupted: bool
    pruned: int  # runs ended because `alive` broke
    stuck: int  # the alarm of a run that could not go on


@dataclass(frozen=True, slots=True)
class Found:
    """What the search of one scope found out."""

    scope: Scope
    kernel: str
    asked: tuple[str, ...]
    client: Client
    breaches: dict[str, Breach]
    size: Size
    cores: int
    never_asked: tuple[str, ...]
    never_taken: tuple[str, ...]
    checkpoint: Path | None  # from which a search that was cut short can go on
    unsaved: str  # why the last checkpoint could not be written
    trusting: bool = False  # a user's rule made states forget what only matters if marks are wrong

    @property
    def complete(self) -> bool:
        """Whether the scope was exhausted."""
        return self.size.complete

    def verdict(self, promise: str) -> Word:
        """Broken stands even if the search was cut short; kept needs the whole scope."""
        if promise in self.breaches:
            return BROKEN
        unproven = not self.size.complete or self.size.pruned or self.size.stuck
        unproven = unproven or (self.trusting and "exclusive" in self.breaches)
        return UNDETERMINED if unproven else KEPT


def hunt(
    kernel: str,
    scope: str | Scope = "small",
    *,
    ops: Collection[str] = (),
    without: Collection[str] = (),
    ask: Collection[str] = (),
    max_states: int = MAX_STATES,
    cores: int | None = None,
    resume: Path | None = None,
    tokens: bool = False,
    symmetry: bool = True,
    progress: Progress | None = None,
    watch: Watcher | None = None,
    tell: Teller | None = None,
) -> list[Found]:
    """Search a scope (a name may stand for several) for a program that breaks a promise.

    Ctrl-C and SIGTERM end the search early, with a checkpoint.

    Args:
        kernel: a kernel's name, with changes if wanted, or a file of rules.
        scope: a name or four numbers: processes, pages, references, swap slots.
        ops, without: the only operations, or those to leave out.
        ask: promises to ask for besides the default ones (`get-fork`).
        max_states: give up beyond so many states.
        cores: how many to use; all that this process may use if left out.
        resume: the checkpoint to go on from, if it exists, and to write; else a file of the cache.
        tokens, symmetry: keep real values; do without symmetry: both only make the search slower.
        progress: told while the machine is compiled; watch: told now and then how far it is.
        tell: told of each promise found broken, at once.

    Raises:
        ScopeError: no such scope or operation.
        RuleError: there is no such kernel, or a user's rule failed.
        ModelError: the machine cannot answer.
        CheckpointError: `resume` is a checkpoint of another hunt, or none.

    >>> found, = hunt("linux-4.19", "2,1,1,0", ops=("mmap", "write", "fork", "vmsplice", "munmap"))
    >>> found.verdict("private"), found.complete
    ('broken', True)
    >>> print(*found.breaches["private"].operations, sep="; ")
    P: mmap a; P: write a = 1; P: fork C; C: r = vmsplice a; C: write a = 2; P: write a = 3
    """
    scopes = (scope,) if isinstance(scope, Scope) else scopes_of(scope)
    chosen = choose(kernel)
    table = record(chosen, scopes[0].layout, progress)
    asked = tuple(p.name for p in PROMISES if p.name in DEFAULT or p.name in ask)
    unasked = sum(1 << p.number for p in PROMISES if p.name not in asked)
    used = cores or len(os.sched_getaffinity(0))
    clients = [
        client_of(each, chosen, table, chosen_verbs(ops, without, each), symmetry=symmetry)
        for each in scopes
    ]
    modes = {"tokens": tokens, "symmetry": symmetry}
    identity = checkpoint.identity_of("hunt", (chosen,), scopes, clients, asked, modes)
    keeping = keeper(resume, identity)
    done, found = keeping.done, []
    with noticing() as interrupts:
        for number, (each, client) in enumerate(zip(scopes, clients, strict=True)):
            table["asked"] = table["stepped"] = 0
            search = Search(each, chosen, client, table, tokens, symmetry, max_states, used)
            search.unasked = unasked
            if number == len(done):
                told = _telling(search, asked, tell, watch) if tell else watch
                keeping.run(search, told, interrupts)
                done.append(_outcome(search, asked, bool(interrupts)))
            found.append(_found(search, done[number], asked, kernel, keeping))
            if found[-1].size.interrupted or (keeping.named and not found[-1].complete):
                break  # the checkpoint that is there holds this scope
    if all(each.complete for each in found):
        keeping.forget()
    return found


def _telling(
    search: Search, asked: tuple[str, ...], tell: Teller, watch: Watcher | None
) -> Watcher:
    """Tells what is newly found, then what `watch` is told anyway."""
    known: set[str] = set()

    def look(now: Progressed) -> None:
        for promise in asked:
            path = search.path_to(promise) if promise not in known else None
            if path is not None:
                known.add(promise)
                steps = test_of(search, promise, path).body
                operations = tuple(format_step(step) for step in steps)  # type: ignore[arg-type]
                tell(Finding(search.scope, promise, operations, now.seconds))
        if watch:
            watch(now)

    return look


def _outcome(search: Search, asked: tuple[str, ...], interrupted: bool) -> dict[str, Any]:
    """What is left to be known of a search that is over, as plain data for a checkpoint."""
    paths = {promise: search.path_to(promise) for promise in asked}
    size = Size(
        states=search.nr_states,
        transitions=search.transitions,
        depth=search.depth,
        seconds=search.seconds,
        bytes_per_state=search.memory() / search.nr_states,
        complete=search.complete,
        interrupted=interrupted and not search.complete,
        pruned=search.pruned,
        stuck=search.stuck,
    )
    return {
        "size": asdict(size),
        "paths": {promise: path for promise, path in paths.items() if path is not None},
        "asked": np.flatnonzero(search.record["asked"][0]).tolist(),
        "taken": np.flatnonzero(search.record["stepped"][0]).tolist(),
    }


def _found(
    search: Search, outcome: dict[str, Any], asked: tuple[str, ...], spec: str, keeping: Keeper
) -> Found:
    breaches = {}
    for promise, path in outcome["paths"].items():
        test, confirmed = counterexample(search, promise, tuple(path), spec)
        breaches[promise] = Breach(promise, test, confirmed)
    size = Size(**outcome["size"])
    questions = set(outcome["asked"])
    return Found(
        scope=search.scope,
        kernel=search.kernel.name,
        asked=asked,
        client=search.client,
        breaches=breaches,
        size=size,
        cores=search.cores,
        never_asked=tuple(p.name for p in POINTS.values() if not questions & set(p.questions)),
        never_taken=tuple(f.__name__ for n, f in STEPS.items() if n not in outcome["taken"]),
        checkpoint=None if size.complete else keeping.saved(),
        unsaved=keeping.unsaved,
        trusting=trusts_marks(search.kernel, int(search.work["forget"][0])),
    )
