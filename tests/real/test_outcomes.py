"""What the model leaves open is counted by kind; what is allowed often and never seen is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pageherd.cli.main import main
from pageherd.litmus import parse
from pageherd.real.observe import Page
from pageherd.real.outcomes import OFTEN, Open, Outcomes, left_open
from pageherd.real.steer import Steered, steer
from pageherd.rules.choose import choose
from pretend import Pretend

HERE, THERE = (0, 0), (0, 1)
STAYS = Page("present", frame=0, mapcount=2, cached=False, dirty=True)
GOES = Page("swapped", slot=0)
OTHER = Page("zero")


def test_only_pages_that_the_predictions_differ_in_are_told() -> None:
    was = {HERE: STAYS, THERE: OTHER}
    allowed = [was, {HERE: GOES, THERE: OTHER}]
    shared = "present shared dirty"
    stays, goes = (f"reclaim: {shared} -> {after}" for after in (shared, "swapped"))
    assert left_open("reclaim", was, allowed, allowed[1]) == Open(
        frozenset({stays, goes}), frozenset({goes})
    )


def test_a_page_that_comes_or_goes_with_its_process_is_told() -> None:
    found = left_open("exit", {HERE: STAYS}, [{HERE: STAYS}, {}], {})
    assert found.seen == {"exit: present shared dirty -> none"}


def test_what_is_allowed_often_and_never_seen_is_suspicious() -> None:
    counted = Outcomes()
    for _ in range(OFTEN):
        counted.add(Open(frozenset({"never", "seen"}), frozenset({"seen"})))
    assert counted.suspicious() == [("never", OFTEN)]
    counted.add(Open(frozenset({"never"}), frozenset({"never"})))
    assert counted.suspicious() == []


def test_what_is_allowed_seldom_is_not_suspicious() -> None:
    counted = Outcomes()
    for _ in range(OFTEN - 1):
        counted.add(Open(frozenset({"never", "seen"}), frozenset({"seen"})))
    assert counted.suspicious() == []


SWAPS = """test t
processes P C
pages a

P: mmap a
P: write a = 1
P: fork C
kernel: reclaim P.a
"""


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_conform_tells_it(
    form: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kernel that always does one of the things that it may do."""

    def same(self: Any, seed: int) -> Any:
        program: Steered = steer(parse(SWAPS), "base", choose("linux-6.1"), chosen=False)[0]
        return ((n, _named(program, n)) for n in range(seed, seed + 10**6))

    monkeypatch.setattr("pageherd.real.target.find", lambda name, say=None: Pretend("linux-6.1"))
    monkeypatch.setattr("pageherd.real.conform.Conform.supply", same)
    assert main(["conform", "--programs", str(OFTEN), *form]) == 0
    assert "suspicious" in (out := capsys.readouterr().out)
    assert "reclaim: present shared -> present shared" in out


def _named(program: Steered, number: int) -> Steered:
    return replace(program, id=f"same-{number}")
