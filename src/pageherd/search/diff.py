"""The difference of two kernels: a shortest program that tells them apart.

The same operation of the most general client of a scope is done to a state under one kernel and to
a state under the other, breadth-first, so the first difference in what shows is a shortest one.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from pageherd.errors import ModelError, RuleError
from pageherd.litmus.format import format_step
from pageherd.litmus.syntax import Comparison, Copies, Keeps, Outcome, Question, Step, Test
from pageherd.machine.jit import ALARMS, records
from pageherd.machine.layout import HUNT, dtype
from pageherd.machine.operations import Operands, build, encode
from pageherd.machine.state import LIVE
from pageherd.machine.verbs import VERBS, Result
from pageherd.promises.table import BY_NAME, DEFAULT, PROMISES
from pageherd.rules.choose import Kernel, Progress, blame, choose, record
from pageherd.search import counterexample
from pageherd.search import expand as ex
from pageherd.search import lockstep as ls
from pageherd.search.breadth import Order
from pageherd.search.forgettable import forgettable
from pageherd.search.packing import work_record
from pageherd.search.scope import (
    Client,
    Move,
    Scope,
    chosen_verbs,
    client_of,
    empty_hunt_state,
    scopes_of,
)
from pageherd.search.why import (
    REGISTER,
    Observer,
    Reason,
    observe_copies,
    observe_counts,
    observe_promise,
    observe_value,
    reasons,
    shows,
)

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


@dataclass(frozen=True, slots=True)
class Distinction:
    """A shortest program on which two kernels show different things."""

    test: Test
    promise: str  # that one kernel keeps and the other one breaks; else empty
    shows: tuple[str, str]  # what the checker shows on each kernel
    slots: int | None = None  # of swap, if there must be so few; a test cannot say so
    why: tuple[Reason, ...] = ()

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations as lines of a test."""
        return tuple(format_step(step) for step in self.test.body)  # type: ignore[arg-type]

    @property
    def confirmed(self) -> bool:
        """Whether the checker, which knows nothing of symmetry, tells them apart too."""
        return self.shows[0] != self.shows[1]


@dataclass(frozen=True, slots=True)
class Difference:
    """What the comparison of two kernels came to."""

    kernels: tuple[str, str]
    scope: Scope
    observe: tuple[Observe, ...]  # what was compared, one after the other
    programs: tuple[Distinction, ...]  # of the last thing compared
    client: Client
    absent: tuple[str, ...]  # operations left out: one of the kernels has no such call
    states: int
    transitions: int
    seconds: float
    complete: bool  # the scope was exhausted, or a difference was found
    notes: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        """Whether anything differs."""
        return bool(self.programs)


class _Side:
    """What one kernel's half of the search works in."""

    def __init__(self, scope: Scope, kernel: Kernel, table: Any, observe: Observe) -> None:
        self.kernel = kernel
        self.table = table
        self.states = np.zeros(ex.NR_RECORDS, dtype(HUNT))
        self.states[ex.EMPTY] = empty_hunt_state(scope, HUNT)[0]
        self.states[ex.BASE] = self.states[ex.EMPTY]
        self.words = self.states.view(np.uint64).reshape(ex.NR_RECORDS, -1)
        forget = forgettable(kernel) if observe in ("promises", "values") else 0
        self.work = work_record(HUNT, scope.sizes, forget, tokens=observe == "values")

    @property
    def arrays(self) -> tuple[Any, Any, Any]:
        return records(self.states), self.words, records(self.work)


@dataclass
class Product:
    """One breadth-first search over pairs of states."""

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
            _Side(self.scope, kernel, table, self.observe)
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

    def run(self, watch: Watcher | None = None) -> None:
        """Search to the end of the first level with a difference, or until a bound is hit.

        Raises:
            ModelError: the machine raised an alarm; RuleError: a user's rule did.
        """
        started = time.perf_counter()
        while not self.complete and self.nr_states < self.max_states:
            if self.next == self.levels[-1]:
                if self.tally[ls.FOUND]:
                    break
                self.levels.append(self.nr_states)
            self._advance(min(self.levels[-1], self.next + _SLICE))
            self.seconds = time.perf_counter() - started
            if watch:
                watch(self)
            if self.tally[ls.FOUND] and not self.every:
                break

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


def _client_of_both(
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


# -- from a path to a test -------------------------------------------------------------------------


def _distinctions(product: Product) -> tuple[Distinction, ...]:
    found: list[Distinction] = []
    known: set[tuple[str, tuple[str, ...]]] = set()
    for path, bits in product.differences():
        promises = [p.name for p in PROMISES if bits >> p.number & 1] or [""]
        for promise in promises:
            each = _distinction(product, path, promise)
            if (promise, each.operations) not in known:
                known.add((promise, each.operations))
                found.append(each)
    return tuple(found)


def _observer(observe: Observe, promise: str) -> Observer:
    others: dict[Observe, Observer] = {
        "values": observe_value,
        "copies": observe_copies,
        "counts": observe_counts,
    }
    return observe_promise(promise) if observe == "promises" else others[observe]


def _distinction(product: Product, path: tuple[int, ...], promise: str) -> Distinction:
    """The path as a test, in the first order of processes in which it tells the kernels apart.

    With plenty of swap if that does, else with as many slots as the scope has.
    """
    observer = _observer(product.observe, promise)
    search: Any = product  # all that `test_of` asks of a search
    plain = counterexample.test_of(search, promise or product.observe, path)
    test = _named(product, plain, promise)
    first: Distinction | None = None
    for slots, processes in itertools.product(
        (None, product.scope.slots), permutations(test.processes)
    ):
        candidate = replace(test, processes=processes)
        one, other = (shows(candidate, kernel, observer, slots) for kernel in product.kernels)
        asking = replace(candidate, questions=_questions(product.observe, promise, one, other))
        found = Distinction(asking, promise, (one, other), slots)
        if found.confirmed:
            return found
        first = first or found
    assert first is not None
    return first


def _named(product: Product, test: Test, promise: str) -> Test:
    """With a name and a title; the value read last is put into a register."""
    bases = "-".join(kernel.base for kernel in product.kernels)
    one, other = (kernel.name for kernel in product.kernels)
    body = test.body
    if product.observe == "values":
        last = body[-1]
        assert isinstance(last, Step)
        body = (*body[:-1], replace(last, result=REGISTER))
    what = promise or product.observe
    return replace(
        test,
        name=f"diff-{bases}-{what}".replace(".py", ""),
        title=f"A shortest program that tells {one} from {other} by {what}",
        body=body,
        questions=(),
    )


def _questions(observe: Observe, promise: str, one: str, other: str) -> tuple[Question, ...]:
    """What the test asks: that it be as on the second kernel, where a test can say so."""
    if promise:
        return (Keeps(promise),)
    wanted = other.partition(" = ")[2]
    if not wanted.isdecimal():
        return ()
    if observe == "values":
        return (Outcome("require", Comparison(REGISTER, "=", int(wanted))),)
    return (Copies("=", int(wanted)),) if observe == "copies" else ()


# -- the call --------------------------------------------------------------------------------------


def diff(
    k1: str,
    k2: str,
    scope: str | Scope = "small",
    observe: Observe | Collection[Observe] | None = None,
    *,
    why: bool = False,
    every: bool = False,
    promises: Collection[str] = (),
    ops: Collection[str] = (),
    without: Collection[str] = (),
    max_states: int = MAX_STATES,
    progress: Progress | None = None,
    watch: Watcher | None = None,
) -> Difference:
    """A shortest program in a scope that tells two kernels apart, or none.

    Args:
        k1, k2: kernels, as `rules.choose.choose` takes them.
        scope: a name that stands for one scope, or four numbers.
        observe: what to compare; several are tried in turn until one differs. Promises, then
            values, if left out.
        why: also look for the rules that make the difference.
        every: all shortest programs, not only the first.
        promises: only these; those that hold without being asked for if left out.
        ops, without: the only operations, or those to leave out.
        max_states: give up beyond so many pairs of states.
        progress: told while the machine is compiled; watch: told now and then how far it is.

    Raises:
        ScopeError: no such scope or operation.
        RuleError: there is no such kernel, or a user's rule failed.
        ModelError: the machine cannot answer.

    >>> found = diff("linux-4.19", "linux-4.19.y", "2,1,1,0", "promises", why=True,
    ...              ops=("mmap", "write", "fork", "vmsplice", "munmap"))
    >>> found.programs[0].shows
    ('private kept', 'private broken')
    >>> [reason.spec for reason in found.programs[0].why]
    ['linux-4.19:unshare=break-cow', 'linux-4.19.y:unshare=never']
    """
    chosen = (scope,) if isinstance(scope, Scope) else scopes_of(scope)
    wanted = _wanted(observe)
    asked = tuple(promises) or DEFAULT
    kernels = choose(k1), choose(k2)
    tables = record(kernels[0], HUNT, progress), record(kernels[1], HUNT, progress)
    verbs = chosen_verbs(ops, without)
    done: list[Product] = []
    for each in chosen:
        for what in wanted:
            client = _client_of_both(each, kernels, tables, verbs, what)
            product = Product(each, kernels, tables, client, what, asked, every, max_states)
            product.run(watch)
            done.append(product)
            if product.tally[ls.FOUND]:
                return _difference(done, why)
    return _difference(done, why)


def _wanted(observe: Observe | Collection[Observe] | None) -> tuple[Observe, ...]:
    if observe is None:
        return "promises", "values"
    return (observe,) if isinstance(observe, str) else tuple(observe)


def _difference(done: list[Product], why: bool) -> Difference:
    """What the last search found, and how large all of them were."""
    last = done[-1]
    programs = _distinctions(last)
    if why:
        programs = tuple(_explained(last, each) if each.confirmed else each for each in programs)
    absent = {verb for kernel in last.kernels for verb in kernel.absent()}
    asked = dict.fromkeys(product.observe for product in done)
    return Difference(
        kernels=(last.kernels[0].name, last.kernels[1].name),
        scope=last.scope,
        observe=tuple(asked),
        programs=programs,
        client=last.client,
        absent=tuple(sorted(absent)),
        states=sum(product.nr_states for product in done),
        transitions=sum(int(product.tally[ls.TRANSITIONS]) for product in done),
        seconds=sum(product.seconds for product in done),
        complete=bool(programs) or all(_exhausted(product) for product in done),
        notes=tuple(ALARMS[int(p.tally[ls.STUCK])] for p in done if p.tally[ls.STUCK]),
    )


def _exhausted(product: Product) -> bool:
    return product.complete and not product.tally[ls.STUCK] and not product.tally[ls.PRUNED]


def _explained(product: Product, each: Distinction) -> Distinction:
    observer = _observer(product.observe, each.promise)
    return replace(each, why=reasons(each.test, *product.kernels, observer, each.slots))
