"""Planted faults in files of hugetlb pages: each breaks a promise of some test, or a claim."""

from __future__ import annotations

from typing import Any

import pytest

from pageherd.machine import state as st
from pageherd.machine import steps
from planted import StepFunction, caught, contradicted, sound

_fault = sound(steps.HUGETLB_FAULT)
_file_map = sound(steps.HUGETLB_FILE_MAP)
_mmap = sound(steps.MMAP_FILE)


def a_private_mapping_can_write_the_file(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _file_map(s, t, k)
    s.pte[mm, page] |= st.PTE_WRITE
    return following


def the_mapping_is_not_counted(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    before = s.mapcount[frame]
    following = _file_map(s, t, k)
    s.mapcount[frame] = before
    return following


def the_file_keeps_a_reference_more(s: Any, t: int, k: Any) -> int:
    s.refcount[s.t_frame[t]] += 1
    return _file_map(s, t, k)


def a_shared_mapping_gets_a_page_of_its_own(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    vma = s.vma[mm, page]
    s.vma[mm, page] = vma & ~st.VM_SHARED
    following = _fault(s, t, k)
    s.vma[mm, page] |= vma & st.VM_SHARED
    return following


def the_file_reserves_nothing(s: Any, t: int, k: Any) -> int:
    reserved = s.hugetlb_resv
    file = s.t_ref[t]
    following = _mmap(s, t, k)
    if s.file_reserved[file] != 0:
        s.file_reserved[file] = 0
        s.hugetlb_resv = reserved
    return following


FAULTS: tuple[tuple[int, StepFunction], ...] = (
    (steps.HUGETLB_FILE_MAP, a_private_mapping_can_write_the_file),
    (steps.HUGETLB_FILE_MAP, the_mapping_is_not_counted),
    (steps.HUGETLB_FILE_MAP, the_file_keeps_a_reference_more),
)


@pytest.mark.parametrize(("number", "fault"), FAULTS, ids=[fault.__name__ for _, fault in FAULTS])
def test_a_planted_fault_is_caught(number: int, fault: StepFunction) -> None:
    assert caught(number, fault)


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (steps.HUGETLB_FAULT, a_shared_mapping_gets_a_page_of_its_own),
        (steps.MMAP_FILE, the_file_reserves_nothing),
    ],
)
def test_a_fault_that_harms_nobody_contradicts_a_claim(number: int, fault: StepFunction) -> None:
    assert contradicted(number, fault, ("linux-6.1",))
