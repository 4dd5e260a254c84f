"""From the path of a hunt to a litmus test, and back to the checker to confirm it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import TYPE_CHECKING, Final

from pageherd.litmus.syntax import KERNEL, Argument, Huge, Keeps, PageOf, Step, Test
from pageherd.machine.verbs import VERBS, Actor, Kind, Result
from pageherd.search.check import Checker, Chosen
from pageherd.search.client import NOBODY, Move

if TYPE_CHECKING:
    from pageherd.search.breadth import Order, Search

_PROCESSES: Final = "PCDEFG"
_PAGES: Final = "abcd"
_RANGE: Final = "h"
_REFERENCES: Final = "rstuvwxy"


@dataclass(slots=True)
class _Names:
    """Who bears which number now; a new process or reference gets a name of its own."""

    processes: list[str]
    pages: list[str]
    references: list[str]
    takers: dict[str, str] = field(default_factory=dict)  # who took each reference
    live: list[str] = field(default_factory=lambda: [_PROCESSES[0]])
    forked: int = 1
    stored: int = 0

    def reorder(self, order: Order) -> None:
        """The state was renamed."""
        mms, pages, refs = order
        self.processes = [self.processes[i] for i in mms]
        self.pages = [self.pages[i] for i in pages]
        self.references = [self.references[i] for i in refs]

    def step(self, move: Move) -> Step:
        """The move as a step of a test, by the names that its numbers have now."""
        verb = VERBS[move.verb]
        thread = KERNEL if verb.actor is Actor.KERNEL else self._actor(move)
        result = None
        if move.verb == "fork":
            self.processes[move.to] = _PROCESSES[self.forked]
            self.live.append(self.processes[move.to])
            self.forked += 1
        if verb.result is Result.REFERENCE:
            result = self.references[move.ref] = _REFERENCES[len(self.takers)]
            self.takers[result] = thread
        if move.verb == "exit":
            self.live.remove(thread)
        kinds = verb.arguments[: len(verb.arguments) - verb.optional]
        return Step(thread, move.verb, tuple(self._arguments(move, kinds)), result)

    def _actor(self, move: Move) -> str:
        """At another's memory somebody else acts, at a reference its taker while it lives."""
        if move.mm == NOBODY:
            taker = self.takers[self.references[move.ref]]
            return taker if taker in self.live or not self.live else self.live[0]
        acting = self.processes[move.mm]
        if VERBS[move.verb].arguments[:1] == (Kind.REMOTE,):
            return next(name for name in self.live if name != acting)
        return acting

    def _arguments(self, move: Move, kinds: tuple[Kind, ...]) -> Iterator[Argument]:
        pages = iter((move.page, move.to))
        for kind in kinds:
            if kind is Kind.HUGE or (kind is Kind.PAGE and move.span > 1):
                yield _RANGE
            elif kind is Kind.PAGE:
                yield self.pages[next(pages)]
            elif kind is Kind.REFERENCE or (kind is Kind.FRAME and move.mm == NOBODY):
                yield self.references[move.ref]
            elif kind in (Kind.REMOTE, Kind.FRAME):
                yield PageOf(self.processes[move.mm], self.pages[move.page])
            elif kind is Kind.PROCESS:
                yield self.processes[move.to]
            elif kind is Kind.PROT:
                yield move.prot
            elif kind is Kind.VALUE:
                self.stored += 1
                yield self.stored


def test_of(search: Search, promise: str, path: tuple[int, ...]) -> Test:
    """The path as a test that asks for the promise; the names follow the renamings of the search.

    The test's swap is the default disk; what it does not say (so many slots, one CPU) is the
    machine's default, but for the LRU batch of one page.
    """
    mms, pages, refs, _ = search.scope.sizes
    names = _Names([""] * mms, list(_PAGES[:pages]), [""] * refs)
    start, *orders = search.retrace(path)
    # before the first renaming process 0 lives
    names.processes[0] = _PROCESSES[0]
    names.reorder(start)
    steps = []
    for edge, order in zip(path, orders, strict=True):
        move = search.client.moves[edge]
        steps.append(names.step(move))
        if move.verb == "mmap" and move.span > 1:
            steps.append(replace(steps[-1], verb="hugepage"))
        if move.order:
            names.reorder(search.order(move.order))
        names.reorder(order)
    used = "".join(dict.fromkeys(name for step in steps for name in _pages_of(step)))
    huge: tuple[Huge, ...] = ()
    if search.scope.folio > 1:
        used = _PAGES[:pages]
        huge = (Huge(_RANGE, tuple(used)),)
    return Test(
        f"hunted-{search.kernel.base}-{promise}",
        tuple(_PROCESSES[: names.forked]),
        tuple(steps),
        (Keeps(promise),),
        title=f"A shortest program that breaks {promise} on {search.kernel.name}, found by a hunt",
        pages=tuple(sorted(used)),
        lru_batches=1,
        huge=huge,
    )


def _pages_of(step: Step) -> Iterator[str]:
    for kind, argument in zip(VERBS[step.verb].arguments, step.arguments, strict=False):
        if isinstance(argument, PageOf):
            yield argument.page
        elif kind is Kind.PAGE:
            yield str(argument)


def counterexample(
    search: Search, promise: str, path: tuple[int, ...], spec: str
) -> tuple[Test, bool]:
    """The path as a test, and whether the checker, which knows no symmetry, breaks it too.

    A test fixes the order in which the kernel comes to the processes, a hunt tries all; so of all
    orders in which the test can declare them, the first in which the promise breaks is taken.
    """
    test = test_of(search, promise, path)
    checker = Checker()
    for processes in permutations(test.processes):
        candidate = replace(test, processes=processes)
        verdict = checker.check(Chosen(candidate, candidate.default_variant), spec)
        if verdict.verdict == "broken":
            return candidate, True
    return test, False
