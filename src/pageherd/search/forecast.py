"""How large a hunt will be: a guess before it starts, from hunts of smaller scopes."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pageherd.rules.choose import Progress
from pageherd.search.hunt import Found, hunt
from pageherd.search.scope import Scope

_BASE: Final = (2, 1, 1, 1)
_ONE_MORE: Final = {"entry": (3, 1, 1, 1), "reference": (2, 1, 2, 1), "slot": (2, 1, 1, 2)}
_LARGE: Final = 6  # page-table entries and references together
_GROWING: Final = 2.5  # arrays are copied to ones twice as large
_ROOM: Final = 0.8  # of the memory that is free


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a hunt would come to, and how much of it there is memory for."""

    states: float
    seconds: float
    bytes: float
    room: int  # states that there is memory for

    @property
    def hours(self) -> float:
        """The time it would take, on as many cores."""
        return self.seconds / 3600

    @property
    def gigabytes(self) -> float:
        """The memory it would take."""
        return self.bytes / 1e9


def is_large(scope: Scope) -> bool:
    """Whether a scope may be too large to be exhausted.

    >>> from pageherd.search.scope import LARGE, THREE, TWO_PAGES
    >>> [is_large(scope) for scope in (THREE, TWO_PAGES, LARGE)]
    [False, False, True]
    """
    return scope.processes * scope.pages + scope.references >= _LARGE


def forecast(
    kernel: str,
    scope: Scope,
    *,
    ops: Collection[str] = (),
    without: Collection[str] = (),
    progress: Progress | None = None,
) -> Forecast:
    """A guess from four small hunts of the same kernel and operations, some seconds in all.

    States grow by about the same factor with every page-table entry more (so does a second page in
    two processes, by its square), with every reference, and with every slot.  A factor is taken
    where the other numbers are small, and grows with them: the guess is rather too low.

    Raises:
        ScopeError, RuleError, ModelError: as `hunt`.
    """

    def one(*sizes: int) -> Found:
        (found,) = hunt(kernel, Scope("pilot", *sizes), ops=ops, without=without, progress=progress)
        return found

    base = one(*_BASE)
    more = {name: one(*sizes) for name, sizes in _ONE_MORE.items()}
    steps = {
        "entry": scope.processes * scope.pages - 2,
        "reference": scope.references - 1,
        "slot": scope.slots - 1,
    }
    states = float(base.size.states)
    for name, found in more.items():
        states *= (found.size.states / base.size.states) ** steps[name]
    largest = max(more.values(), key=lambda found: found.size.states).size
    each = largest.bytes_per_state
    return Forecast(
        states,
        states * largest.seconds / largest.states,
        states * each,
        int(_ROOM * _memory() / (_GROWING * each)),
    )


def _memory() -> int:
    """Bytes of memory that can be had."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return sys.maxsize
