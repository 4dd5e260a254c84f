"""Planted faults in what PR_SET_MEMORY_MERGE asks for: each contradicts a claim."""

from __future__ import annotations

from typing import Any

import pytest

from pageherd.machine import state as st
from pageherd.machine import steps
from planted import StepFunction, contradicted, sound

_fork = sound(steps.FORK_START)
_mmap = sound(steps.MMAP)
_merge = sound(steps.MERGE_ANY)
_unmerge = sound(steps.UNMERGE_ANY)


def fork_forgets_it(s: Any, t: int, k: Any) -> int:
    following = _fork(s, t, k)
    s.mm_merge_any[s.t_other[t]] = 0
    return following


def new_mapping_is_not_marked(s: Any, t: int, k: Any) -> int:
    mm = s.t_mm[t]
    asked = s.mm_merge_any[mm]
    s.mm_merge_any[mm] = 0
    following = _mmap(s, t, k)
    s.mm_merge_any[mm] = asked
    return following


def old_mappings_are_not_marked(s: Any, t: int, k: Any) -> int:
    mm = s.t_mm[t]
    following = _merge(s, t, k)
    for page in range(s.nr_pages):
        s.vma[mm, page] = int(s.vma[mm, page]) & ~st.VM_MERGEABLE
    return following


def mappings_stay_mergeable(s: Any, t: int, k: Any) -> int:
    mm = s.t_mm[t]
    asked = s.mm_merge_any[mm]
    following = _unmerge(s, t, k)
    if asked and s.mm_merge_any[mm] == 0:
        for page in range(s.nr_pages):
            s.vma[mm, page] = int(s.vma[mm, page]) | (
                st.VM_MERGEABLE if int(s.vma[mm, page]) & st.VM_MAPPED else 0
            )
    return following


FAULTS: tuple[tuple[int, StepFunction], ...] = (
    (steps.FORK_START, fork_forgets_it),
    (steps.MMAP, new_mapping_is_not_marked),
    (steps.MERGE_ANY, old_mappings_are_not_marked),
    (steps.UNMERGE_ANY, mappings_stay_mergeable),
)


@pytest.mark.parametrize(("number", "fault"), FAULTS, ids=[fault.__name__ for _, fault in FAULTS])
def test_a_fault_contradicts_a_claim(number: int, fault: StepFunction) -> None:
    found = contradicted(number, fault, ("linux-7.3",))
    assert ("ksm-prctl-fork-exec", "linux-7.3") in found
