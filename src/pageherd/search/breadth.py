"""The breadth-first search of a hunt, on as many cores as wanted.

The states of a level are expanded in slices of a fixed size, side by side; what the slices found is
then stored in their order.  So states get the same numbers, and breaches are found at the same
places, whatever the number of cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from pageherd.errors import ModelError, RuleError
from pageherd.machine.jit import ALARMS, records
from pageherd.machine.layout import dtype
from pageherd.machine.state import LIVE
from pageherd.promises.table import BY_NAME
from pageherd.rules.choose import Kernel, blame
from pageherd.search import expand as ex
from pageherd.search.client import Client, empty_hunt_state
from pageherd.search.forgettable import forgettable
from pageherd.search.scope import Scope
from pageherd.search.store import NR_PROMISES
from pageherd.search.work import work_record

FIRST_CAPACITY: Final = 1 << 16
SLICE: Final = 512  # states expanded in one go
CHUNK: Final = 16  # slices expanded before what they found is stored
MAX_STATES: Final = 200_000_000
_EDGE: Final = np.int16  # operations of a client: some hundreds
_COUNTS: Final = ("next", "transitions", "pruned", "stuck", "levels", "settled", "seconds")
_TALLIES: Final = ("asked", "stepped")

Order = tuple[tuple[int, ...], ...]
"""The old name at each new place: of processes, pages and references."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far a search is."""

    scope: Scope
    states: int
    transitions: int
    depth: int
    frontier: int  # states found and not yet expanded
    levels: tuple[int, ...]  # how many states there are at each depth, the last not complete
    megabytes: float
    seconds: float


Watcher = Callable[[Progressed], None]


def _never() -> bool:
    return False


class _Slice:
    """Room for the expansion of some states: records to work in, and the successors found."""

    def __init__(self, search: Search) -> None:
        self.states = np.zeros(ex.NR_RECORDS, dtype(search.scope.layout))
        self.states[ex.EMPTY] = empty_hunt_state(search.scope)[0]
        self.words = self.states.view(np.uint64).reshape(ex.NR_RECORDS, -1)
        self.work = search.work.copy()
        self.record = search.record.copy()
        self.record["asked"] = self.record["stepped"] = 0
        room = SLICE * len(search.client.moves) + 1
        self.codes = np.empty((room, int(search.work["bytes"][0])), np.uint8)
        self.code_words = self.codes.view(np.uint64)
        self.hashes = np.empty(room, np.uint64)
        self.parents = np.empty(room, np.int32)
        self.edges = np.empty(room, _EDGE)
        self.met = np.zeros(1 << (3 * room // 2).bit_length(), np.uint64)
        self.broken = np.full((NR_PROMISES, 2), -1, np.int32)
        self.tally = np.zeros(ex.NR_TALLIES, np.int64)


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
    cores: int = 1
    forget: int | None = None  # what states may forget; None: all that is sound
    unasked: int = 0  # promises, as bits, that nobody asks for
    settle: bool = True  # whether states forget what serves only promises known to be broken
    # what a checkpoint holds, besides the stored states
    nr_states: int = 0
    next: int = 0  # the state to be expanded next
    transitions: int = 0
    pruned: int = 0  # runs ended because `alive` broke
    stuck: int = 0  # the alarm of a run that could not go on
    levels: list[int] = field(default_factory=list)  # the first state of each depth
    settled: list[int] = field(default_factory=list)  # what is known when a depth is expanded
    seconds: float = 0.0
    _arrays: dict[str, Any] = field(default_factory=dict)
    _slices: list[_Slice] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.states = np.zeros(ex.NR_RECORDS, dtype(self.scope.layout))
        self.states[ex.EMPTY] = empty_hunt_state(self.scope)[0]
        self.words = self.states.view(np.uint64).reshape(ex.NR_RECORDS, -1)
        forget = self.forget
        if forget is None:
            verbs, folios = self.client.verbs, self.scope.layout.large
            forget = forgettable(self.kernel, self.record, verbs, folios=folios)
        tokens = self.tokens or self.scope.wide
        self.work = work_record(self.scope, forget, tokens=tokens, symmetry=self.symmetry)
        self.broken = np.full((NR_PROMISES, 2), -1, np.int32)
        self._grow(FIRST_CAPACITY)
        self._start()
        self._arrays["codes"][0] = self.smallest_code()
        self._arrays["parents"][0] = self._arrays["edges"][0] = -1
        self.nr_states = 1
        self.levels = [0, 1]
        self._enter(self._arrays["table"], 0)

    # -- the arrays ------------------------------------------------------------------------------

    @property
    def codes(self) -> Any:
        """The stored states, one row of bytes each."""
        return self._arrays["codes"][: self.nr_states]

    @property
    def parents(self) -> Any:
        """The state from which each one was first reached; -1 for the first."""
        return self._arrays["parents"][: self.nr_states]

    @property
    def edges(self) -> Any:
        """The operation by which each one was first reached."""
        return self._arrays["edges"][: self.nr_states]

    @property
    def complete(self) -> bool:
        """Whether every state was expanded."""
        return self.next == self.nr_states

    @property
    def depth(self) -> int:
        """Operations from the first state to the one that is expanded next."""
        return len(self.levels) - 2

    def _grow(self, capacity: int) -> None:
        row = int(self.work["bytes"][0])
        old, nr = self._arrays, self.nr_states
        old.pop("table", None)
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
        old["table"] = np.zeros(1 << (3 * capacity // 2).bit_length(), np.uint64)
        if nr:
            self._enter(old["table"], 0)

    def _enter(self, table: Any, first: int) -> None:
        with np.errstate(over="ignore"):  # the hash wraps on purpose
            ex.enter(self._arrays["code_words"], table, first, self.nr_states)

    def counts(self) -> dict[str, Any]:
        """What a checkpoint holds besides the stored states."""
        found: dict[str, Any] = {name: getattr(self, name) for name in _COUNTS}
        found["broken"] = self.broken.tolist()
        return found | {name: self.record[name][0].tolist() for name in _TALLIES}

    def restore(self, codes: Any, parents: Any, edges: Any, counts: dict[str, Any]) -> None:
        """Take over the stored states and the counts of a checkpoint."""
        self.nr_states = 0
        self._grow(max(FIRST_CAPACITY, 2 * len(codes)))
        self.nr_states = len(codes)
        for name, values in (("codes", codes), ("parents", parents), ("edges", edges)):
            self._arrays[name][: self.nr_states] = values
        self._enter(self._arrays["table"], 0)
        for name in _COUNTS:
            setattr(self, name, counts[name])
        self.broken[:] = counts["broken"]
        for name in _TALLIES:
            self.record[name][0] = counts[name]

    def _start(self) -> int:
        """Pack the first state: one process, nothing mapped; the order of names chosen."""
        self.states[ex.BASE] = self.states[ex.EMPTY]
        self.states["mm_state"][ex.BASE, 0] = LIVE
        return ex.pack(records(self.states), ex.BASE, records(self.work), False)

    def smallest_code(self) -> Any:
        """What `pack` left."""
        return self.work["code"][0, int(self.work["best"][0]), : int(self.work["bytes"][0])].copy()

    def memory(self) -> int:
        """Bytes of all arrays in use."""
        return sum(self._arrays[name].nbytes for name in ("codes", "parents", "edges", "table"))

    # -- searching -------------------------------------------------------------------------------

    def run(self, watch: Watcher | None = None, stop: Callable[[], bool] = _never) -> bool:
        """Search on; false if `stop` said so or the bound on states was hit first.

        Raises:
            ModelError: the machine raised an alarm; RuleError: a user's rule did.
        """
        before, started = self.seconds, time.perf_counter()
        with ThreadPoolExecutor(self.cores) as pool:
            while not self.complete and self.nr_states < self.max_states:
                self._advance(pool)
                self.seconds = before + time.perf_counter() - started
                if watch:
                    watch(self.progressed())
                if stop():
                    break
        return self.complete

    def _advance(self, pool: ThreadPoolExecutor) -> None:
        """Expand some states of the current level and store what is new."""
        if self.next == self.levels[-1]:
            self.levels.append(self.nr_states)
        if len(self.settled) <= self.depth:
            self.settled.append(self._settled_now())
        last = min(self.levels[-1], self.next + SLICE * CHUNK)
        firsts = range(self.next, last, SLICE)
        while len(self._slices) < len(firsts):
            self._slices.append(_Slice(self))
        slices = self._slices[: len(firsts)]
        lasts = (min(first + SLICE, last) for first in firsts)
        if len(slices) == 1:  # so that nothing is compiled in several threads at once
            self._expand(slices[0], self.next, last)
        else:
            for _ in pool.map(self._expand, slices, firsts, lasts):
                pass
        for each in slices:
            self._store(each)
        self.next = last

    def _settled_now(self) -> int:
        """The promises, as bits, of which this search need find out nothing more."""
        if self.tokens:
            return 0
        broken = np.flatnonzero(self.broken[:, 0] >= 0) if self.settle else ()
        return self.unasked | sum(1 << int(promise) for promise in broken)

    def _expand(self, room: _Slice, first: int, last: int) -> None:
        a = self._arrays
        room.work["settled"] = self.settled[self.depth]
        with np.errstate(over="ignore"):
            ex.expand(
                records(room.states),
                room.words,
                records(room.work),
                records(room.record),
                records(self.client.ops),
                records(self.client.guards),
                a["codes"],
                a["code_words"],
                a["table"],
                first,
                last,
                room.codes,
                room.code_words,
                room.hashes,
                room.parents,
                room.edges,
                room.met,
                room.broken,
                room.tally,
            )

    def _store(self, room: _Slice) -> None:
        """Take over what the expansion of a slice came to."""
        tally = room.tally.tolist()
        if tally[ex.ALARM]:
            self._alarm(tally[ex.ALARM], tally[ex.ALARM_EDGE])
        self.transitions += tally[ex.TRANSITIONS]
        self.pruned += tally[ex.PRUNED]
        self.stuck = self.stuck or tally[ex.STUCK]
        unknown = self.broken[:, 0] < 0  # the first breach found is a shortest one
        self.broken[unknown] = room.broken[unknown]
        for name in _TALLIES:
            self.record[name] += room.record[name]
            room.record[name] = 0
        capacity = len(self._arrays["parents"])
        while self.nr_states + tally[ex.FOUND] > capacity:
            capacity *= 2
        if capacity > len(self._arrays["parents"]):
            self._grow(capacity)
        a = self._arrays
        self.nr_states = ex.store(
            a["codes"],
            a["code_words"],
            a["table"],
            a["parents"],
            a["edges"],
            self.nr_states,
            room.code_words,
            room.hashes,
            room.parents,
            room.edges,
            tally[ex.FOUND],
        )

    def progressed(self) -> Progressed:
        """How far the search is now."""
        ends = [*self.levels[1:], self.nr_states]
        return Progressed(
            self.scope,
            self.nr_states,
            self.transitions,
            self.depth,
            self.nr_states - self.next,
            tuple(b - a for a, b in zip(self.levels, ends, strict=True)),
            self.memory() / 1e6,
            self.seconds,
        )

    def _alarm(self, alarm: int, edge: int) -> None:
        last = self.client.moves[edge]
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
        for depth, edge in enumerate(path):
            self.work["settled"] = self.settled[depth]
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
        self.work["settled"] = 0
        return orders

    def order(self, number: int) -> Order:
        """The old name at each new place: of processes, pages and references."""
        mms, pages, refs, _ = self.scope.sizes
        names = (("mm_at", mms), ("page_at", pages), ("ref_at", refs))
        return tuple(tuple(self.work[name][0, number, :n].tolist()) for name, n in names)
