"""The lockstep product of two kernels: a breadth-first search over pairs of states.

The same operation of the most general client of a scope is done to a state under one kernel and to
a state under the other, so the first difference in what shows is a shortest one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from pageherd.errors import ModelError, RuleError
from pageherd.machine.jit import ALARMS, records
from pageherd.machine.layout import dtype
from pageherd.machine.operations import Operands, build, encode
from pageherd.machine.state import LIVE
from pageherd.machine.verbs import VERBS, Result
from pageherd.promises.table import BY_NAME, DEFAULT
from pageherd.rules.choose import Kernel, blame
from pageherd.search import expand as ex
from pageherd.search import lockstep as ls
from pageherd.search.breadth import Order
from pageherd.search.client import Client, Move, client_of, empty_hunt_state
from pageherd.search.forgettable import forgettable
from pageherd.search.scope import Scope
from pageherd.search.work import work_record

Observe: TypeAlias = Literal["promises", "values", "copies", "counts"]

OBSERVE: Final[dict[Observe, int]] = {
    "promises": ls.PROMISES,
    "values": ls.VALUES,
    "copies": ls.COPIES,
    "counts": ls.COUNTS,
}
MAX_STATES: Final = 2_000_000
_FIRST_CAPACITY: Final = 1 << 14
_SLICE: Final = 1024  # pairs expanded before anybody may interrupt
_MOST: Final = 4096  # differences listed
_FLAGS: Final = 1 << 16  # more than any FOLL_ flags of a call
_COUNTS: Final = ("next", "levels", "seconds")


def _never() -> bool:
    return False


class _Side:
    """What one kernel's half of the search works in."""

    def __init__(
        self, scope: Scope, kernel: Kernel, table: Any, verbs: Collection[str], observe: Observe
    ) -> None:
        self.kernel = kernel
        self.table = table
        self.states = np.zeros(ex.NR_RECORDS, dtype(scope.layout))
        self.states[ex.EMPTY] = empty_hunt_state(scope)[0]
        self.states[ex.BASE] = self.states[ex.EMPTY]
        self.words = self.states.view(np.uint64).reshape(ex.NR_RECORDS, -1)
        erased = observe in ("promises", "values")
        forget = forgettable(kernel, verbs=verbs, folios=scope.layout.large) if erased else 0
        self.work = work_record(scope, forget, tokens=observe == "values" or scope.wide)

    @property
    def arrays(self) -> tuple[Any, Any, Any]:
        return records(self.states), self.words, records(self.work)


@dataclass
class Product:
    """One breadth-first search over pairs of states; `run` may be called until it is over."""

    scope: Scope
    kernels: tuple[Kernel, Kernel]
    tables: tuple[Any, Any]
    client: Client
    observe: Observe
    asked: tuple[str, ...] = DEFAULT
    every: bool = False
    max_states: int = MAX_STATES
    levels: list[int] = field(default_factory=lambda: [0, 1])  # the first pair of each depth
    next: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.sides = tuple(
            _Side(self.scope, kernel, table, self.client.verbs, self.observe)
            for kernel, table in zip(self.kernels, self.tables, strict=True)
        )
        self.row = 2 * int(self.sides[0].work["bytes"][0]) + 8
        self.found = np.zeros((_MOST, 4), np.int64)
        self.tally = np.zeros(ls.NR_TALLIES, np.int64)
        self._arrays: dict[str, Any] = {}
        self._grow(_FIRST_CAPACITY)
        self._start()
        self._arrays["parents"][0] = self._arrays["edges"][0] = -1
        self.tally[ls.COUNT] = 1
        self._enter()

    @property
    def kernel(self) -> Kernel:
        """The first kernel (a path is named after it)."""
        return self.kernels[0]

    @property
    def nr_states(self) -> int:
        """Pairs stored."""
        return int(self.tally[ls.COUNT])

    @property
    def complete(self) -> bool:
        """Whether every pair was expanded."""
        return self.next == self.nr_states

    @property
    def over(self) -> bool:
        """Whether nothing is left to be done: a difference was found, or there is none."""
        if self.tally[ls.FOUND]:
            return not self.every or self.complete or self.next == self.levels[-1]
        return self.complete

    @property
    def codes(self) -> Any:
        """The stored pairs, one row of bytes each."""
        return self._arrays["codes"][: self.nr_states]

    @property
    def parents(self) -> Any:
        """The pair from which each one was first reached; -1 for the first."""
        return self._arrays["parents"][: self.nr_states]

    @property
    def edges(self) -> Any:
        """The operation by which each one was first reached."""
        return self._arrays["edges"][: self.nr_states]

    def counts(self) -> dict[str, Any]:
        """What a checkpoint holds besides the stored pairs."""
        found: dict[str, Any] = {name: getattr(self, name) for name in _COUNTS}
        listed = self.found[: int(self.tally[ls.FOUND])]
        return found | {"tally": self.tally.tolist(), "found": listed.tolist()}

    def restore(self, codes: Any, parents: Any, edges: Any, counts: dict[str, Any]) -> None:
        """Take over the stored pairs and the counts of a checkpoint."""
        self.tally[ls.COUNT] = 0
        self._grow(max(_FIRST_CAPACITY, 2 * len(codes)))
        for name, values in (("codes", codes), ("parents", parents), ("edges", edges)):
            self._arrays[name][: len(codes)] = values
        self.tally[:] = counts["tally"]
        listed = counts["found"]
        self.found[: len(listed)] = np.array(listed, np.int64).reshape(-1, 4)
        for name in _COUNTS:
            setattr(self, name, counts[name])
        self._enter()

    def _grow(self, capacity: int) -> None:
        old, nr = self._arrays, int(self.tally[ls.COUNT])
        codes = np.zeros((capacity, self.row), np.uint8)
        parents, edges = np.empty(capacity, np.int32), np.empty(capacity, np.int16)
        if nr:
            codes[:nr] = old["codes"][:nr]
            parents[:nr], edges[:nr] = old["parents"][:nr], old["edges"][:nr]
        table = np.zeros(1 << (3 * capacity // 2).bit_length(), np.uint64)
        self._arrays = {"codes": codes, "parents": parents, "edges": edges, "table": table}
        self._arrays["code_words"] = codes.view(np.uint64)
        if nr:
            self._enter()

    def _enter(self) -> None:
        a = self._arrays
        with np.errstate(over="ignore"):  # the hash wraps on purpose
            ex.enter(a["code_words"], a["table"], 0, self.nr_states)

    def _start(self) -> int:
        """Pack the first pair: on both sides one process, nothing mapped."""
        for side in self.sides:
            side.states[ex.BASE] = side.states[ex.EMPTY]
            side.states["mm_state"][ex.BASE, 0] = LIVE
        a, b = self.sides
        return ls.pack_pair(
            records(a.states),
            records(a.work),
            records(b.states),
            records(b.work),
            self._arrays["codes"],
            0,
        )

    # -- searching -------------------------------------------------------------------------------

    def run(self, watch: Watcher | None = None, stop: Callable[[], bool] = _never) -> bool:
        """Search to the end of the first level with a difference, without `every` to the first.

        False if `stop` said so or the bound on pairs was hit first.

        Raises:
            ModelError: the machine raised an alarm; RuleError: a user's rule did.
        """
        before, started = self.seconds, time.perf_counter()
        while not self.over and self.nr_states < self.max_states:
            if self.next == self.levels[-1]:
                self.levels.append(self.nr_states)
            self._advance(min(self.levels[-1], self.next + _SLICE))
            self.seconds = before + time.perf_counter() - started
            if watch:
                watch(self)
            if stop():
                break
        return self.over

    def _advance(self, last: int) -> None:
        a = self._arrays
        one, other = self.sides
        with np.errstate(over="ignore"):
            reached = ls.advance(
                *one.arrays,
                records(one.table),
                *other.arrays,
                records(other.table),
                records(self.client.ops),
                records(self.client.guards),
                a["codes"],
                a["code_words"],
                a["table"],
                a["parents"],
                a["edges"],
                self.next,
                last,
                OBSERVE[self.observe],
                sum(1 << BY_NAME[name].number for name in self.asked),
                int(self.every),
                self.found,
                self.tally,
            )
        if self.tally[ls.ALARM]:
            self._alarm()
        if reached < last and not self.tally[ls.FOUND]:
            self._grow(2 * len(a["parents"]))
        self.next = reached

    def _alarm(self) -> None:
        kernel = self.kernels[int(self.tally[ls.ALARM_SIDE])]
        alarm, verb = int(self.tally[ls.ALARM]), self.client.moves[self.tally[ls.ALARM_EDGE]].verb
        culprit = blame(kernel, alarm)
        if culprit is not None:
            raise RuleError(f"{culprit}, in '{verb}' of a comparison in {self.scope}")
        raise ModelError(f"{ALARMS.get(alarm, 'a rule failed')}, in '{verb}'", alarm)

    # -- what was found --------------------------------------------------------------------------

    def differences(self) -> Iterable[tuple[tuple[int, ...], int]]:
        """The path to each difference and the promises that differ there, as bits.

        Those that only differ in which of two equal names is taken are one.
        """
        seen = set()
        for node, edge, promises, hashed in self.found[: int(self.tally[ls.FOUND])].tolist():
            key = node, self.client.moves[edge].verb, promises, hashed
            if key not in seen:
                seen.add(key)
                yield (*self._path_to(node), edge), promises

    def _path_to(self, node: int) -> tuple[int, ...]:
        path: list[int] = []
        while self._arrays["parents"][node] >= 0:
            path.append(int(self._arrays["edges"][node]))
            node = int(self._arrays["parents"][node])
        return tuple(reversed(path))

    def retrace(self, path: Collection[int]) -> list[Order]:
        """The order of names that was chosen at the start, and after each operation."""
        one, other = self.sides
        scratch = np.zeros((1, self.row), np.uint8)
        orders = [self.order(self._start())]
        ls.unpack_pair(*one.arrays, *other.arrays, self._arrays["codes"], 0)
        for edge in path:
            chosen = ls.retrace_pair(
                *one.arrays,
                records(one.table),
                *other.arrays,
                records(other.table),
                records(self.client.ops),
                records(self.client.guards),
                edge,
                OBSERVE[self.observe],
                scratch,
                0,
            )
            orders.append(self.order(chosen))
        return orders

    def order(self, number: int) -> Order:
        """The old name at each new place: of processes, pages and references."""
        mms, pages, refs, _ = self.scope.sizes
        names = (("mm_at", mms), ("page_at", pages), ("ref_at", refs))
        work = self.sides[0].work
        return tuple(tuple(work[name][0, number, :n].tolist()) for name, n in names)


Watcher = Callable[[Product], None]


# -- the client of both ----------------------------------------------------------------------------


def client_of_both(
    scope: Scope,
    kernels: tuple[Kernel, Kernel],
    tables: tuple[Any, Any],
    verbs: Collection[str],
    observe: Observe,
) -> Client:
    """What can be done on both kernels; calls are merged if their flags are equal on both."""
    flags = tables[0].copy()
    flags["rule"] = tables[0]["rule"] * _FLAGS + tables[1]["rule"]  # only told apart, never called
    verbs = [verb for verb in verbs if verb not in kernels[1].absent()]
    client = client_of(scope, kernels[0], flags, verbs)
    return _reading(client) if observe == "values" else client


def _reading(client: Client) -> Client:
    """The client that also looks at the values that its operations give."""
    held = [i for i, move in enumerate(client.moves) if move.verb == "release"]
    moves = (*client.moves, *(Move("read_ref", ref=client.moves[i].ref) for i in held))
    loads = encode([build("read_ref", Operands(0, 0, ref=client.moves[i].ref)) for i in held])
    ops = np.concatenate([client.ops, loads]) if held else client.ops.copy()
    for i, move in enumerate(moves):
        ops["register"][i] = int(VERBS[move.verb].result is Result.VALUE)
    guards = np.concatenate([client.guards, client.guards[held]])
    return replace(client, moves=moves, ops=ops, guards=guards)
