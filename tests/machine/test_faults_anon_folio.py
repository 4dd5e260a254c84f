"""Planted faults in the steps of folios that are smaller than a PMD's pages."""

from __future__ import annotations

from typing import Any

import pytest

from pageherd.machine import questions, steps
from pageherd.machine import state as st
from pageherd.machine.folio import clear_flag, folio_nr_pages, is_large
from planted import StepFunction, caught, contradicted, sound

KERNELS = ("linux-6.12", "linux-7.3")

_map = sound(steps.ANON_MAP)
_mthp = sound(steps.MTHP)


def folio_has_one_reference(s: Any, t: int, k: Any) -> int:
    new = s.t_new[t]
    following = _map(s, t, k)
    if is_large(s, new) and s.refcount[new] > 1:
        s.refcount[new] = 1
    return following


def folio_maps_one_page_twice(s: Any, t: int, k: Any) -> int:
    mm, new = s.t_mm[t], s.t_new[t]
    following = _map(s, t, k)
    if is_large(s, new) and s.refcount[new] > 1:
        first = s.frame_index[new]
        s.pte_to[mm, first + 1] = new
    return following


def folio_is_mapped_in_part(s: Any, t: int, k: Any) -> int:
    mm, new = s.t_mm[t], s.t_new[t]
    following = _map(s, t, k)
    if is_large(s, new) and s.refcount[new] > 1:
        s.pte[mm, s.frame_index[new] + 1] = 0
    return following


def only_the_first_page_is_exclusive(s: Any, t: int, k: Any) -> int:
    new = s.t_new[t]
    following = _map(s, t, k)
    if is_large(s, new):
        for frame in range(new + 1, new + folio_nr_pages(s, new)):
            clear_flag(s, frame, st.PG_EXCLUSIVE)
    return following


def every_kernel_has_small_folios(s: Any, t: int, k: Any) -> int:
    before = k.rule[questions.ANON_FOLIOS]
    following = _mthp(s, t, k)
    if before == 0 and s.nr_huge == 8:
        s.anon_order = 2
        s.t_result[t] = st.OK
    return following


FAULTS: tuple[tuple[int, StepFunction], ...] = (
    (steps.ANON_MAP, folio_has_one_reference),
    (steps.ANON_MAP, folio_maps_one_page_twice),
    (steps.ANON_MAP, folio_is_mapped_in_part),
)


@pytest.mark.parametrize(("number", "fault"), FAULTS, ids=[fault.__name__ for _, fault in FAULTS])
def test_a_planted_fault_is_caught(number: int, fault: StepFunction) -> None:
    assert caught(number, fault, KERNELS)


def test_tails_that_are_not_exclusive_contradict_a_claim() -> None:
    assert ("mthp-pin-tail", "linux-6.12") in contradicted(
        steps.ANON_MAP, only_the_first_page_is_exclusive, KERNELS
    )


def test_a_size_that_no_kernel_has_contradicts_a_claim() -> None:
    assert ("mthp-first-touch", "linux-6.1") in contradicted(
        steps.MTHP, every_kernel_has_small_folios
    )
