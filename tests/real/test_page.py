"""docs/real.md: the programs that it shows are real ones, and the tests that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pageherd.litmus import parse
from pageherd.litmus.shelves import names
from pageherd.real.follow import follow
from pageherd.real.results import Run
from pageherd.real.steer import steer
from pageherd.real.target import Batch, Report, sight_of
from pageherd.rules.choose import choose, record
from pretend import Pretend

PAGE = (Path(__file__).parents[2] / "docs" / "real.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"(?ms)^```litmus\n(.*?)^```$", PAGE)
LEARNED = re.findall(r"test(?: is|) `([a-z/-]+)`", re.sub(r"\s+", " ", PAGE))


def test_every_lesson_has_a_test() -> None:
    assert len(LEARNED) == len(re.findall(r"(?m)^\*\*", PAGE)) >= len(PROGRAMS)
    assert set(LEARNED) <= set(names())


@pytest.mark.parametrize("text", PROGRAMS, ids=[text.split()[1] for text in PROGRAMS])
@pytest.mark.parametrize("kernel", ["linux-5.10", "linux-7.3"])
def test_the_programs_run(text: str, kernel: str) -> None:
    (program,) = steer(parse(text), "base", choose(kernel))
    report, runs = Report(), list[Run]()
    runs += Pretend(kernel).run(Batch([program]), report)
    assert (
        follow(program, runs[0], record(choose(kernel)), sight_of(report.probes)).divergence is None
    )
