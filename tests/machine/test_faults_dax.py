"""Planted faults in what steps do with pages of a DAX file, whose mappings do not count."""

from __future__ import annotations

from typing import Any

import pytest

from pageherd.machine import state as st
from pageherd.machine import steps
from pageherd.machine.folio import is_normal
from pageherd.machine.jit import helper
from planted import StepFunction, caught, contradicted, sound

KERNELS = ("linux-6.12",)

_map = sound(steps.FILE_MAP)
_mkwrite = sound(steps.WP_MKWRITE)
_copy = sound(steps.WP_COPY)
_wp_map = sound(steps.WP_MAP)
_fork = sound(steps.FORK_PAGE)
_zap = sound(steps.ZAP)


@helper
def is_devmap(s: Any, mm: int, page: int) -> bool:
    present = s.pte[mm, page] & st.PTE_PRESENT
    return (
        present != 0
        and s.pte_to[mm, page] != st.ZERO_FRAME
        and not is_normal(s, s.pte_to[mm, page])
    )


def a_first_touch_takes_a_reference(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _map(s, t, k)
    if is_devmap(s, mm, page):
        s.refcount[s.pte_to[mm, page]] += 1
    return following


def a_first_touch_counts(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _map(s, t, k)
    if is_devmap(s, mm, page):
        s.mapcount[s.pte_to[mm, page]] += 1
    return following


def a_write_is_let_through_with_a_reference(s: Any, t: int, k: Any) -> int:
    devmap = is_devmap(s, s.t_mm[t], s.t_page[t])
    frame = s.t_frame[t]
    following = _mkwrite(s, t, k)
    if devmap:
        s.refcount[frame] += 1
    return following


def a_copy_lets_go_of_what_it_did_not_hold(s: Any, t: int, k: Any) -> int:
    devmap = is_devmap(s, s.t_mm[t], s.t_page[t])
    frame = s.t_pte_to[t]
    following = _wp_map(s, t, k)
    if devmap:
        s.refcount[frame] -= 1
    return following


def fork_takes_a_reference(s: Any, t: int, k: Any) -> int:
    child, page = s.t_other[t], s.t_page[t]
    following = _fork(s, t, k)
    if page < s.nr_pages and is_devmap(s, child, page):
        s.refcount[s.pte_to[child, page]] += 1
    return following


def zap_puts_a_reference(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    devmap = page < s.nr_pages and is_devmap(s, mm, page)
    frame = s.pte_to[mm, page] if devmap else 0
    following = _zap(s, t, k)
    if devmap and s.pte[mm, page] == 0:
        s.refcount[frame] -= 1
    return following


def a_copy_reads_the_memory_of_its_owner(s: Any, t: int, k: Any) -> int:
    """As if cow_user_page() read by the address space of the fault, not by that which runs."""
    following = _copy(s, t, k)
    if is_devmap(s, s.t_mm[t], s.t_page[t]):
        s.content[s.t_new[t]] = s.content[s.t_pte_to[t]]
    return following


FAULTS: tuple[tuple[int, StepFunction], ...] = (
    (steps.FILE_MAP, a_first_touch_takes_a_reference),
    (steps.FILE_MAP, a_first_touch_counts),
    (steps.WP_MKWRITE, a_write_is_let_through_with_a_reference),
    (steps.WP_MAP, a_copy_lets_go_of_what_it_did_not_hold),
    (steps.FORK_PAGE, fork_takes_a_reference),
    (steps.ZAP, zap_puts_a_reference),
)


@pytest.mark.parametrize(("number", "fault"), FAULTS)
def test_a_planted_fault_is_caught(number: int, fault: StepFunction) -> None:
    assert caught(number, fault, KERNELS)


def test_a_copy_that_is_right_by_mistake_contradicts_a_claim() -> None:
    fault = a_copy_reads_the_memory_of_its_owner
    tests = {name for name, _ in contradicted(steps.WP_COPY, fault, ("linux-5.8",))}
    variants = ("nothing-there", "other-memory")
    assert tests == {f"{test}/{v}" for test in ("dax-strace-58", "dax-poke") for v in variants}
