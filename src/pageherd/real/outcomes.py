"""What became of pages where the model left it open: kinds of outcome that a run can be counted by.

An outcome is a verb and what one page was before and after it.  One that the model allows often and
that a real kernel never shows is suspicious: the model may be looser than the kernel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from pageherd.real.observe import Page, Pages

OFTEN: Final = 20  # an outcome that was allowed so often and never seen is suspicious


@dataclass(frozen=True, slots=True)
class Open:
    """A step with more than one allowed outcome: the kinds that were allowed, and those seen."""

    allowed: frozenset[str]
    seen: frozenset[str]


def left_open(verb: str, before: Pages, allowed: Collection[Pages], seen: Pages) -> Open:
    """What could become of the pages that the model's predictions differ in, and what did."""
    places = {where for pages in allowed for where in pages}
    differing = {where for where in places if len({pages.get(where) for pages in allowed}) > 1}

    def kinds(after: Pages) -> frozenset[str]:
        return frozenset(
            f"{verb}: {_words(before.get(where))} -> {_words(after.get(where))}"
            for where in differing
        )

    return Open(frozenset().union(*map(kinds, allowed)), kinds(seen))


def _words(page: Page | None) -> str:
    if page is None:
        return "none"
    shared = page.mapcount is not None and page.mapcount > 1
    traits = {"shared": shared, "cached": page.cached, "dirty": page.dirty}
    return " ".join([page.entry, *(name for name, true in traits.items() if true)])


@dataclass(slots=True)
class Outcomes:
    """In how many steps each kind of outcome was allowed, and in how many it was seen."""

    allowed: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)

    def add(self, step: Open) -> None:
        """Count one step."""
        self.allowed.update(step.allowed)
        self.seen.update(step.seen)

    def suspicious(self) -> list[tuple[str, int]]:
        """The kinds that were allowed often and never seen, and how often they were allowed."""
        return [
            (kind, count)
            for kind, count in self.allowed.most_common()
            if count >= OFTEN and not self.seen[kind]
        ]
