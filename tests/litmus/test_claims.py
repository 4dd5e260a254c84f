"""Which claim holds for a question, a variant and a kernel."""

from __future__ import annotations

import pytest

from pageherd.litmus import expected, expected_claim, parse

KERNELS = ("linux-4.19", "linux-5.8", "linux-5.10", "linux-6.1", "three-state")
TEXT = """\
test t
processes P
variant base {
}
variant swapped {
}
prepare
P: exit
keeps private
  kept everywhere from "reading"
  broken on linux-5.8..linux-6.1 from "trying"
  unknown on linux-5.10 in swapped
keeps alive
  kept on linux-6.1
"""


@pytest.mark.parametrize(
    ("variant", "kernel", "verdict"),
    [
        ("base", "linux-4.19", "kept"),
        ("base", "linux-5.8", "broken"),
        ("base", "linux-5.10", "broken"),
        ("swapped", "linux-5.10", "unknown"),
        ("swapped", "linux-6.1", "broken"),
        ("base", "three-state", "kept"),
        ("base", "mine.py", "kept"),
    ],
)
def test_the_most_particular_claim_holds(variant: str, kernel: str, verdict: str) -> None:
    test = parse(TEXT, kernels=KERNELS)
    assert expected(test, test.questions[0], variant, kernel) == verdict


def test_the_claim_can_be_cited() -> None:
    test = parse(TEXT, kernels=KERNELS)
    claim = expected_claim(test, test.questions[0], "base", "linux-6.1")
    assert claim is not None
    assert (claim.source, claim.place.line) == ("trying", 11)


def test_no_claim_is_no_expectation() -> None:
    test = parse(TEXT, kernels=KERNELS)
    assert expected(test, test.questions[1], "base", "linux-5.8") is None
    assert expected_claim(test, test.questions[1], "base", "linux-5.8") is None


def test_without_a_table_a_range_covers_its_ends() -> None:
    test = parse(TEXT)
    assert expected(test, test.questions[0], "base", "linux-5.8") == "broken"
    assert expected(test, test.questions[0], "base", "linux-5.10") == "kept"


def test_equal_claims_do_not_contradict_each_other() -> None:
    text = TEXT + '  kept on linux-5.8..linux-6.1 from "another"\n'
    test = parse(text, kernels=KERNELS)
    assert expected(test, test.questions[1], "base", "linux-6.1") == "kept"
