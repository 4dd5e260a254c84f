"""The library of tests, loaded once for the suite."""

from __future__ import annotations

from functools import cache

from pageherd.litmus.shelves import load_file, paths
from pageherd.rules import kernels
from pageherd.search.check import Checker, Chosen


@cache
def library() -> tuple[Chosen, ...]:
    """Every test with every variant."""
    tests = [load_file(path, kernels.names()) for path in paths()]
    return tuple(Chosen(test, variant) for test in tests for variant in test.variant_names)


@cache
def checker() -> Checker:
    return Checker()


def said_to_break(chosen: Chosen, kernel: str) -> frozenset[str]:
    """The promises that a kernel breaks by a claim of the test: a bug of its own."""
    answers = checker().check(chosen, kernel).answers
    return frozenset(a.ask.removeprefix("keeps ") for a in answers if a.expected == "broken")
