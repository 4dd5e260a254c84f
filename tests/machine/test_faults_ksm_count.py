"""Planted faults in ksm_merging_pages: each contradicts a claim."""

from __future__ import annotations

from typing import Any

import pytest

from pageherd.machine import steps
from planted import StepFunction, contradicted, sound

_fork = sound(steps.FORK_START)
_scan = sound(steps.KSM)
_replace = sound(steps.KSM_REPLACE)


def child_begins_anew(s: Any, t: int, k: Any) -> int:
    following = _fork(s, t, k)
    s.mm_merging[s.t_other[t]] = 0
    return following


def what_the_child_had_is_forgotten(s: Any, t: int, k: Any) -> int:
    following = _fork(s, t, k)
    s.mm_merging_at_fork[s.t_other[t]] = 0
    return following


def ksmd_notices_nothing(s: Any, t: int, k: Any) -> int:
    counted = s.mm_merging[0]
    following = _scan(s, t, k)
    s.mm_merging[0] = counted
    return following


def merged_pages_are_not_counted(s: Any, t: int, k: Any) -> int:
    following = _replace(s, t, k)
    s.mm_merging[s.t_mm[t]] = 0
    return following


FAULTS: tuple[tuple[int, StepFunction, str], ...] = (
    (steps.FORK_START, child_begins_anew, "ksm-fork-merging-count"),
    (steps.FORK_START, what_the_child_had_is_forgotten, "ksm-count-lags"),
    (steps.KSM, ksmd_notices_nothing, "ksm-count-lags"),
    (steps.KSM_REPLACE, merged_pages_are_not_counted, "ksm-fork-merging-count"),
)


@pytest.mark.parametrize(
    ("number", "fault", "test"), FAULTS, ids=[fault.__name__ for _, fault, _ in FAULTS]
)
def test_a_fault_contradicts_a_claim(number: int, fault: StepFunction, test: str) -> None:
    assert (test, "linux-6.1") in contradicted(number, fault, ("linux-6.1",))
