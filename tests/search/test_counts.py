"""What user space is told of counts: states by hand, and never wrong with exact counters."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest

from pageherd.cli.main import main
from pageherd.litmus.parsing import parse
from pageherd.search.check import Checker, Chosen, find, find_all
from pageherd.search.counts import KINDS, SCHEMES, looks, tallies

KERNEL = "linux-6.18"
EXACT = ("exact", "exact-and-total", "mm-ids", "none")

HALF_SHARED = """test half-shared
processes P C
pages a b
huge h = a b

P: mmap h
P: hugepage h
P: write h = 1
P: fork C
C: munmap b

keeps private
"""


@pytest.fixture(scope="module")
def checker() -> Checker:
    return Checker()


def read(text: str, scheme: str, checker: Checker) -> dict[str, tuple[float, float]]:
    """The readings after the last step: what is said, and what is true."""
    last = looks(Chosen(parse(text), "base"), scheme, KERNEL, checker)[-1]
    return {f"{r.of} {r.kind}".strip(): (float(r.said), float(r.true)) for r in last.readings}


def test_a_folio_that_is_half_shared(checker: Checker) -> None:
    """P maps both pages with a PMD, C the first with a page-table entry."""
    exact = read(HALF_SHARED, "exact", checker)
    assert exact == {
        "P.a kpagecount": (2, 2),
        "P.a once": (0, 0),
        "P.b kpagecount": (1, 1),
        "P.b once": (1, 1),
        "P Pss": (1.5, 1.5),
        "P Uss": (1, 1),
        "P mapmax": (2, 2),
        "C.a kpagecount": (2, 2),
        "C.a once": (0, 0),
        "C Pss": (0.5, 0.5),
        "C Uss": (0, 0),
        "C mapmax": (2, 2),
        "AnonPages": (2, 2),
    }
    average = read(HALF_SHARED, "mm-ids-only", checker)  # 1 + (1 + 1) // 2 for every page
    assert average["P.b kpagecount"] == (2, 1)
    assert average["P.b once"] == (0, 1)
    assert average["P Pss"] == (1, 1.5)
    assert average["P Uss"] == (0, 1)


def test_a_folio_of_which_one_page_is_left_is_counted_whole(checker: Checker) -> None:
    text = HALF_SHARED.replace("P: fork C\nC: munmap b", "P: munmap b")
    assert read(text, "exact", checker)["AnonPages"] == (1, 1)
    assert read(text, "mm-ids-only", checker)["AnonPages"] == (2, 1)
    assert read(text, "page-tables", checker)["AnonPages"] == (2, 1)


def test_the_last_reference_is_private_whatever_is_counted(checker: Checker) -> None:
    """smaps_account(): page_count() == 1 is asked before any counter."""
    text = "test t\nprocesses P C\npages a\n\nP: mmap a\nP: write a = 1\nP: fork C\nC: exit\n"
    found = read(text + "\nkeeps private\n", "three-state", checker)
    assert found["P.a kpagecount"] == (2, 1)
    assert found["P Pss"] == (1, 1)
    assert found["P Uss"] == (1, 1)


@pytest.mark.parametrize("scheme", EXACT)
def test_exact_counters_are_never_wrong(scheme: str, checker: Checker) -> None:
    found = tallies(find_all(), scheme, KERNEL, checker)
    assert all(tally.wrong == 0 for tally in found.values())
    assert all(found[kind].readings > 1000 for kind in KINDS)


def test_the_others_are_wrong_somewhere(checker: Checker) -> None:
    """Under each, every reading is wrong after some step: none is exact by accident."""
    hard = [one for one in find_all() if one.test.huge]
    for scheme in set(SCHEMES) - set(EXACT):
        found = tallies(hard, scheme, KERNEL, checker)
        assert all(tally.wrong > 0 and tally.off > Fraction(0) for tally in found.values()), scheme


def test_json_has_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    (chosen,) = find("thp-partly-unmapped-alone/thp-single-pte")
    assert main(["counts", chosen.id, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["counting"] for line in lines} == set(SCHEMES)
    assert list(lines[0]) == ["test", "kernel", "counting", "number", "step", "readings"]
    assert all(set(r) == {"kind", "of", "said", "true"} for r in lines[-1]["readings"])


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["counts", "no-such-test"]) == 2
    assert main(["counts", "cow-basic-fork", "-k", "linux-0.1"]) == 2
    capsys.readouterr()
