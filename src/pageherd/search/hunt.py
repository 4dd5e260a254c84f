"""Hunting: every program inside a scope, of any length, on one kernel.

The search is breadth-first over canonical states, so the first breach of a promise is a shortest
one.  Promises are checked after every operation: in a sequential hunt nobody looks in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from pageherd.errors import ModelError, RuleError
from pageherd.litmus.format import format_step
from pageherd.litmus.syntax import Test
from pageherd.machine.jit import ALARMS, STEPS, records
from pageherd.machine.layout import HUNT, dtype
from pageherd.machine.state import LIVE
from pageherd.promises.table import BY_NAME, DEFAULT, PROMISES
from pageherd.rules.catalog import POINTS
from pageherd.rules.choose import Kernel, Progress, blame, choose, record
from pageherd.search import expand as ex
from pageherd.search.canonical import work_record
from pageherd.search.counterexample import Order, counterexample
from pageherd.search.scope import (
    Client,
    Scope,
    bits_looked_at,
    chosen_verbs,
    client_of,
    empty_hunt_state,
    scopes_of,
)
from pageherd.search.store import NR_PROMISES
from pageherd.search.verdict import BROKEN, KEPT, UNDETERMINED, Word

FIRST_CAPACITY: Final = 1 << 16
BATCH: Final = 5_000  # states expanded before progress is told and Ctrl-C is heard
MAX_STATES: Final = 200_000_000
_EDGE: Final = np.int16  # operations of a client: some hundreds


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far a search is."""

    states: int
    transitions: int
    depth: int
    frontier: int  # states found and not yet expanded
    megabytes: float
    seconds: float


Watcher = Callable[[Progressed], None]


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
class Found:
    """What the search of one scope found out."""

    scope: Scope
    kernel: str
    asked: tuple[str, ...]
    client: Client
    breaches: dict[str, Breach]
    states: int
    transitions: int
    depth: int
    seconds: float
    bytes_per_state: float
    complete: bool  # nothing is left to expand
    interrupted: bool
    pruned: int  # runs ended because `alive` broke
    stuck: int  # the alarm of a run that could not go on
    never_asked: tuple[str, ...]
    never_taken: tuple[str, ...]

    def verdict(self, promise: str) -> Word:
        """Broken stands even if the search was cut short; kept needs the whole scope."""
        if promise in self.breaches:
            return BROKEN
        return KEPT if self.complete and not self.pruned and not self.stuck else UNDETERMINED


@dataclass
class Search:
    """One breadth-first search; `run` may be called again until it is complete."""

    scope: Scope
    kernel: Kernel
    client: Client
    record: Any
    tokens: bool = False
    symmetry: bool = True
    max_states: int = MAX_STATES
    _arrays: dict[str, Any] = field(default_factory=dict)
    _count: Any = None

    def __post_init__(self) -> None:
        self.states = np.zeros(ex.NR_RECORDS, dtype(HUNT))
        self.states[ex.EMPTY] = empty_hunt_state(self.scope, HUNT)[0]
        self.words = self.states.view(np.uint64).reshape(ex.NR_RECORDS, -1)
        self.work = work_record(
            HUNT,
            self.scope.sizes,
            bits_looked_at(self.kernel),
            tokens=self.tokens,
            symmetry=self.symmetry,
        )
        self.broken = np.full((NR_PROMISES, 2), -1, np.int32)
        self._count = np.zeros(ex.NR_COUNTS, np.int64)
        self._grow(min(FIRST_CAPACITY, self._most()))
        self._begin()

    # -- the arrays ------------------------------------------------------------------------------

    @property
    def codes(self) -> Any:
        """The stored states, one row of bytes each."""
        return self._arrays["codes"][: self.nr_states]

    @property
    def nr_states(self) -> int:
        return int(self._count[ex.STATES])

    @property
    def transitions(self) -> int:
        return int(self._count[ex.TRANSITIONS])

    @property
    def complete(self) -> bool:
        """Whether every state was expanded."""
        return bool(self._count[ex.NEXT] == self._count[ex.STATES])

    def _most(self) -> int:
        """Room for the states that may be stored, and for the successors of one more."""
        return self.max_states + len(self.client.moves) + 1

    def _grow(self, capacity: int) -> None:
        row = int(self.work["bytes"][0])
        old, nr = self._arrays, self.nr_states
        sizes: tuple[tuple[str, Any, Any], ...] = (
            ("codes", (capacity, row), np.uint8),
            ("parents", (capacity,), np.int32),
            ("edges", (capacity,), _EDGE),
        )
        for name, shape, kind in sizes:
            grown = np.empty(shape, kind)
            if nr:
                grown[:nr] = old[name][:nr]
            old[name] = grown  # one after the other, so that never more than one is there twice
        old["code_words"] = old["codes"].view(np.uint64)
        old["table"] = np.full(1 << (3 * capacity // 2).bit_length(), -1, np.int32)
        with np.errstate(over="ignore"):  # the hash wraps on purpose
            ex.enter(old["codes"], old["code_words"], old["table"], 0, nr)

    def _start(self) -> int:
        """Pack the first state: one process, nothing mapped; the order of names chosen."""
        self.states[ex.BASE] = self.states[ex.EMPTY]
        self.states["mm_state"][ex.BASE, 0] = LIVE
        return ex.pack(records(self.states), ex.BASE, records(self.work), False)

    def _begin(self) -> None:
        self._start()
        self._arrays["codes"][0] = self.smallest_code()
        self._arrays["parents"][0] = -1
        self._count[ex.STATES] = self._count[ex.LEVEL_END] = 1
        with np.errstate(over="ignore"):
            ex.enter(self._arrays["codes"], self._arrays["code_words"], self._arrays["table"], 0, 1)

    def smallest_code(self) -> Any:
        """What `pack` left."""
        return self.work["code"][0, int(self.work["best"][0]), : int(self.work["bytes"][0])].copy()

    def memory(self) -> int:
        """Bytes of all arrays in use."""
        return sum(self._arrays[name].nbytes for name in ("codes", "parents", "edges", "table"))

    # -- searching -------------------------------------------------------------------------------

    def run(self, watch: Watcher | None = None) -> bool:
        """Search on; false if the bound on states was hit first.

        Raises:
            ModelError: the machine raised an alarm; RuleError: a user's rule did.
            KeyboardInterrupt: as asked for; what was found until then is there.
        """
        started = time.perf_counter()
        while not self.complete:
            if self.nr_states >= self.max_states:
                return False
            capacity = len(self._arrays["parents"])
            if self.nr_states + len(self.client.moves) >= capacity:
                self._grow(min(2 * capacity, self._most()))
            self._expand()
            if self._count[ex.ALARM]:
                self._alarm()
            if watch:
                watch(self._progressed(time.perf_counter() - started))
        return True

    def _expand(self) -> None:
        a = self._arrays
        with np.errstate(over="ignore"):
            ex.expand(
                records(self.states),
                self.words,
                records(self.work),
                records(self.record),
                records(self.client.ops),
                records(self.client.guards),
                a["codes"],
                a["code_words"],
                a["table"],
                a["parents"],
                a["edges"],
                self.broken,
                self._count,
                BATCH,
            )

    def _progressed(self, seconds: float) -> Progressed:
        frontier = self.nr_states - int(self._count[ex.NEXT])
        depth = int(self._count[ex.DEPTH])
        return Progressed(
            self.nr_states, self.transitions, depth, frontier, self.memory() / 1e6, seconds
        )

    def _alarm(self) -> None:
        alarm = int(self._count[ex.ALARM])
        last = self.client.moves[int(self._count[ex.ALARM_EDGE])]
        culprit = blame(self.kernel, alarm)
        if culprit is not None:
            raise RuleError(f"{culprit}, in '{last.verb}' of a hunt in {self.scope}")
        raise ModelError(f"{ALARMS.get(alarm, 'a rule failed')}, in '{last.verb}'", alarm)

    # -- what was found --------------------------------------------------------------------------

    def path_to(self, promise: str) -> tuple[int, ...] | None:
        """The operations of a shortest program that breaks the promise, by their numbers."""
        node, last = (int(n) for n in self.broken[BY_NAME[promise].number])
        if node < 0:
            return None
        path = [last]
        while self._arrays["parents"][node] >= 0:
            path.append(int(self._arrays["edges"][node]))
            node = int(self._arrays["parents"][node])
        return tuple(reversed(path))

    def retrace(self, path: Collection[int]) -> list[Order]:
        """The order of names that `canonical` chose at the start, and after each operation."""
        orders = [self.order(self._start())]
        ex.unpack(records(self.states), self.words, records(self.work), self._arrays["codes"], 0)
        for edge in path:
            chosen = ex.retrace(
                records(self.states),
                self.words,
                records(self.work),
                records(self.record),
                records(self.client.ops),
                records(self.client.guards),
                edge,
            )
            orders.append(self.order(chosen))
        return orders

    def order(self, number: int) -> Order:
        """The old name at each new place: of processes, pages and references."""
        mms, pages, refs, _ = self.scope.sizes
        names = (("mm_at", mms), ("page_at", pages), ("ref_at", refs))
        return tuple(tuple(self.work[name][0, number, :n].tolist()) for name, n in names)

    def result(self, asked: tuple[str, ...], spec: str, seconds: float, interrupted: bool) -> Found:
        taken = np.flatnonzero(self.record["stepped"][0]).tolist()
        questions = set(np.flatnonzero(self.record["asked"][0]).tolist())
        breaches = {}
        for promise in (p.name for p in PROMISES):
            path = self.path_to(promise) if promise in asked else None
            if path is not None:
                test, confirmed = counterexample(self, promise, path, spec)
                breaches[promise] = Breach(promise, test, confirmed)
        return Found(
            scope=self.scope,
            kernel=self.kernel.name,
            asked=asked,
            client=self.client,
            breaches=breaches,
            states=self.nr_states,
            transitions=self.transitions,
            depth=int(self._count[ex.DEPTH]),
            seconds=seconds,
            bytes_per_state=self.memory() / self.nr_states,
            complete=self.complete,
            interrupted=interrupted,
            pruned=int(self._count[ex.PRUNED]),
            stuck=int(self._count[ex.STUCK]),
            never_asked=tuple(p.name for p in POINTS.values() if not questions & set(p.questions)),
            never_taken=tuple(f.__name__ for n, f in STEPS.items() if n not in taken),
        )


def hunt(
    kernel: str,
    scope: str | Scope = "small",
    *,
    ops: Collection[str] = (),
    without: Collection[str] = (),
    ask: Collection[str] = (),
    max_states: int = MAX_STATES,
    tokens: bool = False,
    symmetry: bool = True,
    progress: Progress | None = None,
    watch: Watcher | None = None,
) -> list[Found]:
    """Search a scope (a name may stand for several) for a program that breaks a promise.

    Args:
        kernel: a kernel's name, with changes if wanted, or a file of rules.
        scope: a name or four numbers: processes, pages, references, swap slots.
        ops, without: the only operations, or those to leave out.
        ask: promises to ask for besides the default ones (`get-fork`).
        max_states: give up beyond so many states.
        tokens, symmetry: keep real values; do without symmetry: both only make the search slower.
        progress: told while the machine is compiled; watch: told now and then how far it is.

    Raises:
        ScopeError: no such scope or operation.
        RuleError: there is no such kernel, or a user's rule failed.
        ModelError: the machine cannot answer.

    >>> found, = hunt("linux-4.19", "2,1,1,0", ops=("mmap", "write", "fork", "vmsplice", "munmap"))
    >>> found.verdict("private"), found.complete
    ('broken', True)
    >>> print(*found.breaches["private"].operations, sep="; ")
    P: mmap a; P: write a = 1; P: fork C; C: r = vmsplice a; C: write a = 2; P: write a = 3
    """
    scopes = (scope,) if isinstance(scope, Scope) else scopes_of(scope)
    verbs = chosen_verbs(ops, without)
    chosen = choose(kernel)
    table = record(chosen, HUNT, progress)
    asked = tuple(p.name for p in PROMISES if p.name in DEFAULT or p.name in ask)
    found = []
    for each in scopes:
        client = client_of(each, chosen, table, verbs, symmetry=symmetry)
        table["asked"] = 0
        table["stepped"] = 0
        started = time.perf_counter()
        search = Search(each, chosen, client, table, tokens, symmetry, max_states)
        interrupted = False
        try:
            search.run(watch)
        except KeyboardInterrupt:
            interrupted = True
        found.append(search.result(asked, kernel, time.perf_counter() - started, interrupted))
        if interrupted:
            break
    return found
