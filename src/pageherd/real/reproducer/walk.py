"""Walking through a test: what the ledgers say at its end, in every order of its groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pageherd.litmus.syntax import BASE, Group, Step, Test, steps_of
from pageherd.real.reproducer.effects import do
from pageherd.real.reproducer.ledger import Ledger

_MAX_LEDGERS: Final = 4096


class TooManyOrders(Exception):
    """A concurrent group has more orders than are worth following."""


@dataclass(slots=True)
class Walk:
    """All that was learnt from walking through a test once, in every order of its groups."""

    ledgers: list[Ledger]
    sure: dict[int, bool] = field(default_factory=dict)  # step -> it succeeds in every order
    swaps: dict[int, bool] = field(default_factory=dict)  # pageout -> the page must be gone
    zeros: bool = False  # some `pagemap` may meet the zero page

    @property
    def last(self) -> Ledger:
        """One of the ledgers at the end; what exists is the same in all but groups with exits."""
        return self.ledgers[0]

    def hidden_copy(self) -> bool:
        return any(ledger.hidden_copy for ledger in self.ledgers)

    def values(self, register: str) -> frozenset[int] | None:
        """The values that a register may hold; None if that cannot be said."""
        sights = [ledger.sights.get(register) for ledger in self.ledgers]
        values = [sight.value for sight in sights if sight is not None and sight.value is not None]
        return frozenset(values) if values and len(values) == len(sights) else None

    def foreign(self, register: str) -> frozenset[int]:
        """The values that a register must not hold: another process stored them for itself."""
        sights = [s for ledger in self.ledgers if (s := ledger.sights.get(register)) is not None]
        if len(sights) < len(self.ledgers):
            return frozenset()
        past = frozenset[int]().union(*(sight.past for sight in sights))
        return frozenset[int]().union(*(sight.foreign for sight in sights)) - past

    def kind(self, register: str) -> str | None:
        sight = self.last.sights.get(register)
        return None if sight is None else sight.kind


def walk(test: Test, *, strict: bool = False) -> Walk:
    """Walk through a test without variants or `maybe`.

    Args:
        strict: a device's store through a FOLL_GET reference is promised to show even after a fork.

    Raises:
        TooManyOrders: a group cannot be followed.
    """
    forked = {str(s.arguments[0]) for s in steps_of(parts_of(test)) if s.verb == "fork"}
    live = frozenset(process for process in test.processes if process not in forked)
    found = Walk([Ledger(live, swap=test.swap.kind != "none")])
    number = 0
    for part in parts_of(test):
        members = part.steps if isinstance(part, Group) else (part,)
        found.ledgers = _unique(_in_every_order(test, members, number, found, strict))
        number += len(members)
    return found


def parts_of(test: Test) -> tuple[Step | Group, ...]:
    """The steps and groups of a test without variants."""
    return test.variant_steps(BASE)


def _unique(ledgers: Iterable[Ledger]) -> list[Ledger]:
    return list({ledger.key(): ledger for ledger in ledgers}.values())


def _in_every_order(
    test: Test, steps: Sequence[Step], first: int, found: Walk, strict: bool
) -> Iterable[Ledger]:
    """The ledgers after the steps, which keep their order within each thread."""
    threads = [
        [number for number, step in enumerate(steps) if step.thread == thread]
        for thread in dict.fromkeys(step.thread for step in steps)
    ]
    reached: dict[tuple[int, ...], list[Ledger]] = {(0,) * len(threads): found.ledgers}
    for _ in steps:
        following: dict[tuple[int, ...], list[Ledger]] = {}
        for done, ledgers in reached.items():
            for which, mine in enumerate(threads):
                if done[which] == len(mine):
                    continue
                after = (*done[:which], done[which] + 1, *done[which + 1 :])
                number = mine[done[which]]
                for ledger in ledgers:
                    following.setdefault(after, []).extend(
                        _take(test, steps[number], first + number, ledger, found, strict)
                    )
        reached = {done: _unique(ledgers) for done, ledgers in following.items()}
        if sum(map(len, reached.values())) > _MAX_LEDGERS:
            raise TooManyOrders
    return [ledger for ledgers in reached.values() for ledger in ledgers]


def _take(
    test: Test, step: Step, number: int, before: Ledger, found: Walk, strict: bool
) -> list[Ledger]:
    """One step: the ledgers that may follow, and whether it succeeds."""
    ledger = before.copy()
    process = test.process_of(step.thread)
    if step.verb == "pageout":
        where = (process, str(step.arguments[0]))
        found.swaps[number] = found.swaps.get(number, True) and ledger.goes_out(where)
    if step.verb == "pagemap":
        cell = ledger.cells.get((process, str(step.arguments[0])))
        found.zeros |= cell is not None and not cell.written
    others = do(ledger, step, process, strict)
    ok = others is not None
    found.sure[number] = found.sure.get(number, True) and ok
    return [ledger, *(others or ())]


def beyond_pageout(test: Test, index: int) -> bool:
    """Whether MADV_PAGEOUT would pass over the page that the step, a pageout, is about.

    It does so if another process may map the page, or if it is swapped out and only the swap cache
    still has it, which reclaim would free.
    """
    before = walk(replace(test, body=_first_steps(test, index)))
    step = list(steps_of(parts_of(test)))[index]
    where = (test.process_of(step.thread), str(step.arguments[0]))
    return step.verb == "pageout" and any(
        where in ledger.cells and (ledger.cells[where].out or not ledger.alone(where))
        for ledger in before.ledgers
    )


def _first_steps(test: Test, count: int) -> tuple[Step | Group, ...]:
    """The parts of a test that end before its step number `count`; not of its group."""
    parts: list[Step | Group] = []
    for part in parts_of(test):
        length = len(part.steps) if isinstance(part, Group) else 1
        if length > count:
            break
        count -= length
        parts.append(part)
    return tuple(parts)
