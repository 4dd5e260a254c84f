"""Planted faults in the steps of userfaultfd: each breaks a promise of some test, or a claim."""

from __future__ import annotations

from typing import Any

import pytest

from pageherd.machine import state as st
from pageherd.machine import steps
from pageherd.machine.folio import set_flag
from pageherd.machine.jit import helper
from planted import StepFunction, caught, contradicted, sound

KERNELS = ("linux-5.10", "linux-6.12")

_register = sound(steps.UFFD_REGISTER)
_protect = sound(steps.UFFD_PROTECT)
_flush = sound(steps.UFFD_FLUSH)
_stale_store = sound(steps.STALE_STORE)
_copy = sound(steps.UFFD_COPY)
_continue = sound(steps.UFFD_CONTINUE)
_move = sound(steps.UFFD_MOVE)
_wp = sound(steps.WP)
_wp_map = sound(steps.WP_MAP)
_fork = sound(steps.FORK_START)
_install = sound(steps.FORK_INSTALL)
_mremap = sound(steps.MREMAP_MOVE)
_unmap = sound(steps.RECLAIM_UNMAP)
_break_end = sound(steps.KSM_BREAK_END)
_api = sound(steps.USERFAULTFD)


def unprotecting_makes_everything_writable(s: Any, t: int, k: Any) -> int:
    mm, page, on = s.t_mm[t], s.t_page[t], s.t_value[t]
    following = _protect(s, t, k)
    if not on and s.pte[mm, page] & st.PTE_PRESENT:
        s.pte[mm, page] |= st.PTE_WRITE
    return following


def protecting_keeps_the_write_bit(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    writable = s.pte[mm, page] & st.PTE_WRITE
    following = _protect(s, t, k)
    s.pte[mm, page] |= writable
    return following


def flush_keeps_mmap_lock(s: Any, t: int, k: Any) -> int:
    mm = s.t_mm[t]
    following = _flush(s, t, k)
    s.mm_readers[mm] += 1
    return following


@helper
def flushed_entries_come_back(s: Any) -> None:
    for u in range(s.t_pc.shape[0]):
        if s.t_pc[u] == steps.UFFD_FLUSH and s.t_pte[u] == 0:
            s.t_pte[u] = st.PTE_PRESENT | st.PTE_DIRTY | st.PTE_WRITE


def write_fault_flushes_nothing(s: Any, t: int, k: Any) -> int:
    following = _wp(s, t, k)
    flushed_entries_come_back(s)
    return following


def stale_entry_outlives_the_flush(s: Any, t: int, k: Any) -> int:
    flushed_entries_come_back(s)
    return _stale_store(s, t, k)


def filled_page_counts_no_mapping(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _copy(s, t, k)
    if s.t_result[t] == st.OK:
        s.mapcount[s.pte_to[mm, page]] -= 1
    return following


def cached_page_is_mapped_without_a_reference(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _continue(s, t, k)
    if s.t_result[t] == st.OK:
        s.refcount[s.pte_to[mm, page]] -= 1
    return following


def cached_page_is_writable(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _continue(s, t, k)
    if s.t_result[t] == st.OK:
        s.pte[mm, page] |= st.PTE_WRITE
    return following


def filled_page_has_two_references(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _copy(s, t, k)
    if s.t_result[t] == st.OK:
        s.refcount[s.pte_to[mm, page]] += 1
    return following


def move_leaves_the_old_entry(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    pte, to = s.pte[mm, page], s.pte_to[mm, page]
    following = _move(s, t, k)
    s.pte[mm, page] = pte
    s.pte_to[mm, page] = to
    return following


def move_takes_shared_pages(s: Any, t: int, k: Any) -> int:
    frame = s.pte_to[s.t_mm[t], s.t_page[t]]
    if s.pte[s.t_mm[t], s.t_page[t]] & st.PTE_PRESENT and frame != st.ZERO_FRAME:
        set_flag(s, frame, st.PG_EXCLUSIVE)
    return _move(s, t, k)


def write_goes_unnoticed(s: Any, t: int, k: Any) -> int:
    s.pte[s.t_mm[t], s.t_page[t]] &= 65535 - st.PTE_UFFD_WP
    s.t_pte[t] &= 65535 - st.PTE_UFFD_WP
    return _wp(s, t, k)


def unsharing_lifts_the_protection(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _wp_map(s, t, k)
    s.pte[mm, page] &= 65535 - st.PTE_UFFD_WP
    return following


def nothing_is_registered(s: Any, t: int, k: Any) -> int:
    following = _register(s, t, k)
    s.vma[s.t_mm[t], s.t_page[t]] &= 65535 - st.VM_UFFD_WP
    return following


def every_feature_is_known(s: Any, t: int, k: Any) -> int:
    s.mm_uffd[s.t_mm[t]] = s.t_value[t]
    s.t_result[t] = st.OK
    return steps.IDLE


def every_child_is_followed(s: Any, t: int, k: Any) -> int:
    s.mm_uffd[s.t_mm[t]] |= st.UFFD_EVENT_FORK
    return _fork(s, t, k)


def children_lose_the_protection(s: Any, t: int, k: Any) -> int:
    child, page = s.t_other[t], s.t_page[t]
    following = _install(s, t, k)
    s.pte[child, page] &= 65535 - st.PTE_UFFD_WP
    return following


def mremap_always_leaves_the_userfaultfd(s: Any, t: int, k: Any) -> int:
    s.mm_uffd[s.t_mm[t]] = 0
    return _mremap(s, t, k)


def swapping_lifts_the_protection(s: Any, t: int, k: Any) -> int:
    for mm in range(s.nr_mms):
        for page in range(s.nr_pages):
            if s.pte[mm, page] & st.PTE_PRESENT and s.pte_to[mm, page] == s.t_frame[t]:
                s.pte[mm, page] &= 65535 - st.PTE_UFFD_WP
    return _unmap(s, t, k)


def unmerging_never_ends(s: Any, t: int, k: Any) -> int:
    following = _break_end(s, t, k)
    s.t_result[t] = st.BUSY
    return following


FAULTS: tuple[tuple[int, StepFunction], ...] = (
    (steps.UFFD_PROTECT, unprotecting_makes_everything_writable),
    (steps.UFFD_FLUSH, flush_keeps_mmap_lock),
    (steps.WP, write_fault_flushes_nothing),
    (steps.STALE_STORE, stale_entry_outlives_the_flush),
    (steps.UFFD_COPY, filled_page_counts_no_mapping),
    (steps.UFFD_COPY, filled_page_has_two_references),
    (steps.UFFD_CONTINUE, cached_page_is_mapped_without_a_reference),
    (steps.UFFD_CONTINUE, cached_page_is_writable),
    (steps.UFFD_MOVE, move_leaves_the_old_entry),
    (steps.UFFD_MOVE, move_takes_shared_pages),
)

AGAINST_CLAIMS: tuple[tuple[int, StepFunction], ...] = (
    (steps.UFFD_PROTECT, protecting_keeps_the_write_bit),
    (steps.WP, write_goes_unnoticed),
    (steps.WP_MAP, unsharing_lifts_the_protection),
    (steps.UFFD_REGISTER, nothing_is_registered),
    (steps.USERFAULTFD, every_feature_is_known),
    (steps.FORK_START, every_child_is_followed),
    (steps.FORK_INSTALL, children_lose_the_protection),
    (steps.MREMAP_MOVE, mremap_always_leaves_the_userfaultfd),
    (steps.RECLAIM_UNMAP, swapping_lifts_the_protection),
    (steps.KSM_BREAK_END, unmerging_never_ends),
)
"""Protection is the handler's own affair: what is lost of it breaks no promise."""


@pytest.mark.parametrize(("number", "fault"), FAULTS, ids=[fault.__name__ for _, fault in FAULTS])
def test_a_planted_fault_is_caught(number: int, fault: StepFunction) -> None:
    assert caught(number, fault, KERNELS)


@pytest.mark.parametrize(
    ("number", "fault"), AGAINST_CLAIMS, ids=[fault.__name__ for _, fault in AGAINST_CLAIMS]
)
def test_a_fault_contradicts_a_claim(number: int, fault: StepFunction) -> None:
    assert contradicted(number, fault, KERNELS)
