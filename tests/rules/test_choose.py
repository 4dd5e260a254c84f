"""Choosing kernels: the table, changes, and a user's own rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from pageherd import RuleError, choose, explore
from pageherd.litmus import parse
from pageherd.machine.questions import NR_QUESTIONS, QUESTIONS
from pageherd.rules import kernels
from pageherd.rules.catalog import POINTS
from pageherd.rules.choose import record

RULES = """
from pageherd import alternative, proposal
from pageherd.machine.folio import page_count

@alternative("reuse")
def alone(s, t, k, frame):
    {body}

KERNEL = proposal("mine", extends="linux-5.10", reuse=alone)
"""


def write_rules(path: Path, body: str) -> str:
    file = path / "mine.py"
    file.write_text(RULES.format(body=body))
    return str(file)


def test_every_question_is_answered_by_every_row() -> None:
    answered = sorted(q for point in POINTS.values() for q in point.questions)
    assert answered == list(range(NR_QUESTIONS)) == [q.number for q in QUESTIONS]
    for name in kernels.names():
        assert set(choose(name).choices) == set(POINTS)


def test_every_alternative_says_what_it_stands_for() -> None:
    for point in POINTS.values():
        for alternative in point.alternatives.values():
            assert alternative.stands_for, (point.name, alternative.name)
            for function in alternative.functions:
                assert function.__doc__, (point.name, alternative.name)


def test_every_row_can_be_changed_at_every_point() -> None:
    kernel = choose("linux-6.1:reuse=by-mapcount,unshare=never")
    assert (kernel.of("reuse"), kernel.of("unshare")) == ("by-mapcount", "never")
    assert kernel.of("fork") == choose("linux-6.1").of("fork")


def test_a_users_rule(tmp_path: Path) -> None:
    spec = write_rules(tmp_path, "return 1 if page_count(s, frame) == 1 else 0")
    assert explore("cow-vmsplice-child-unmap", spec).verdict == "kept"
    assert explore("cow-vmsplice-child-unmap", spec).kernel == "mine"
    loose = write_rules(tmp_path, "return 1")
    assert explore("cow-basic-fork", loose).verdict == "broken"


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        ("return 7", 5, "gave an answer that its question does not have"),
        ("return -1", 5, "gave an answer that its question does not have"),
        ("if frame >= 0: raise ValueError('no')\n    return 1", 5, "raised an exception"),
        ("return s.no_such_field[frame]", 5, "no_such_field"),
        ("return nonsense(frame)", 5, "nonsense"),
        ("return frame +", 7, "SyntaxError"),
    ],
)
def test_a_users_rule_that_is_wrong(tmp_path: Path, body: str, line: int, message: str) -> None:
    spec = write_rules(tmp_path, body)
    with pytest.raises(RuleError) as error:
        explore("cow-basic-fork", spec)
    assert f"{spec}:{line}" in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "no KERNEL"),
        ("1 / 0\n", "ZeroDivisionError"),
        (
            "from pageherd import alternative\n@alternative('resue')\ndef f(s, t, k, frame): ...\n",
            "reuse",
        ),
        (
            "from pageherd import alternative\n@alternative('reuse')\ndef f(s): ...\n",
            "takes (s, t, k, frame)",
        ),
        ("from pageherd import proposal\nKERNEL = proposal('x', extends='linux-9')\n", "linux"),
        (
            "import pageherd as h\nKERNEL = h.proposal('x', extends='linux-6.1', reuse='by')\n",
            "by",
        ),
    ],
)
def test_a_users_file_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "rules.py"
    file.write_text(text)
    with pytest.raises(RuleError, match=r"rules\.py|decision|kernel") as error:
        choose(str(file))
    assert message in str(error.value)


def test_a_path_without_end_breaks_progress() -> None:
    """Pins that want an exclusive mark in a kernel that has none: GUP goes round for ever."""
    verdict = explore("cow-ro-pin-shared", "linux-6.1:marks=none,swap-exclusive=forgotten")
    assert "progress" in verdict.exploration.broken
    assert verdict.verdict == "undetermined"


def test_rules_that_are_never_asked_are_known() -> None:
    test = parse("test t\nprocesses P\npages a\nP: mmap a\nP: write a = 1\n")
    asked = explore(test, "linux-6.1").exploration.questions_asked
    assert asked < set(range(NR_QUESTIONS))
    assert record(choose("linux-6.1"))["rule"].shape == (1, NR_QUESTIONS)
