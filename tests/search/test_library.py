"""Every claim of the library is checked against the machine."""

from __future__ import annotations

import pytest

from library import checker, library, said_to_break
from pageherd.litmus.identify import identity
from pageherd.rules import kernels
from pageherd.search.check import Chosen


@pytest.mark.parametrize("chosen", library(), ids=lambda chosen: chosen.id)
def test_claims_come_true(chosen: Chosen) -> None:
    wrong: list[tuple[object, ...]] = []
    for kernel in kernels.names():
        verdict = checker().check(chosen, kernel)
        cut = {"progress", "alive"} & set(verdict.exploration.broken)  # what follows has no meaning
        assert verdict.exploration.proves or cut, (kernel, "the space was not explored whole")
        wrong += [
            (kernel, a.ask, a.expected, a.verdict)
            for a in verdict.answers
            if a.expected in ("kept", "broken") and a.expected != a.verdict
        ]
        wrong += [
            (kernel, a.ask, "broken, and no claim says whether it should be")
            for a in verdict.answers
            if a.verdict == "broken" and a.expected is None
        ]
    assert not wrong


def test_there_are_enough_of_them() -> None:
    assert len(library()) >= 45


def test_no_two_mean_the_same() -> None:
    marks: dict[str, str] = {}
    for chosen in library():
        mark = identity(chosen.test, chosen.variant)
        assert marks.setdefault(mark, chosen.id) == chosen.id


def test_every_test_names_its_sources() -> None:
    assert not [chosen.id for chosen in library() if not chosen.test.sources]


def test_shipped_kernels_never_break_the_books() -> None:
    """`alive`, `no-leak`, `counts`, `exclusive` hold in every test, if no claim says otherwise."""
    books = {"alive", "no-leak", "counts", "exclusive"}
    for chosen in library():
        for kernel in kernels.names():
            broken = books & set(checker().check(chosen, kernel).exploration.broken)
            assert broken <= said_to_break(chosen, kernel), (chosen.id, kernel)
