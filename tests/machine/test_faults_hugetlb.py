"""Planted faults in the pool of hugetlb pages: each breaks a promise of some test, or a claim."""

from __future__ import annotations

from typing import Any

from pageherd.machine import state as st
from pageherd.machine import steps
from planted import caught, contradicted, sound

KERNELS = ("linux-6.1", "linux-7.3")

_fault = sound(steps.HUGETLB_FAULT)
_take = sound(steps.HUGETLB_TAKE)
_mmap = sound(steps.MMAP_FILE)
_zap = sound(steps.ZAP)
_copy = sound(steps.FORK_COPY)
_lock = sound(steps.MIGRATE_LOCK)


def reservations_do_not_count(s: Any, t: int, k: Any) -> int:
    reserved = s.hugetlb_resv
    s.hugetlb_resv = 0
    following = _fault(s, t, k)
    s.hugetlb_resv += reserved
    return following


def a_protected_page_is_written(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    s.pte[mm, page] &= 65535 - st.PTE_UFFD_WP
    return _fault(s, t, k)


def the_child_is_not_marked(s: Any, t: int, k: Any) -> int:
    following = _take(s, t, k)
    for mm in range(s.nr_mms):
        for page in range(s.nr_pages):
            if s.vma[mm, page] & st.VM_HUGETLB:
                s.vma[mm, page] &= 65535 - st.HPAGE_RESV_UNMAPPED
    return following


def what_is_taken_stays_counted(s: Any, t: int, k: Any) -> int:
    frame = s.t_pte_to[t]
    following = _take(s, t, k)
    s.refcount[frame] += 1
    return following


def mmap_reserves_nothing(s: Any, t: int, k: Any) -> int:
    reserved = s.hugetlb_resv
    mm, page = s.t_mm[t], s.t_other[t] - 1
    following = _mmap(s, t, k)
    if s.hugetlb_resv != reserved:
        s.hugetlb_resv = reserved
        s.vma[mm, page] &= 65535 - st.HPAGE_RESV_OWNER
    return following


def unmapping_keeps_the_reservation(s: Any, t: int, k: Any) -> int:
    reserved = s.hugetlb_resv
    following = _zap(s, t, k)
    s.hugetlb_resv = reserved
    return following


def a_failed_fork_leaves_what_it_did(s: Any, t: int, k: Any) -> int:
    following = _copy(s, t, k)
    return steps.FORK_FAILED if following == steps.ZAP else following


def a_temporary_page_joins_the_pool(s: Any, t: int, k: Any) -> int:
    following = _lock(s, t, k)
    s.page_flags[s.t_new[t]] &= 65535 - st.PG_TEMPORARY
    return following


def test_a_page_too_many_after_migration_is_caught() -> None:
    assert caught(steps.MIGRATE_LOCK, a_temporary_page_joins_the_pool, KERNELS)


def test_an_allocation_that_ignores_reservations_contradicts_a_claim() -> None:
    assert contradicted(steps.HUGETLB_FAULT, reservations_do_not_count, KERNELS)


def test_a_hugetlb_fault_that_tells_no_userfaultfd_contradicts_a_claim() -> None:
    assert contradicted(steps.HUGETLB_FAULT, a_protected_page_is_written, KERNELS)


def test_a_child_that_is_not_marked_reads_zeros() -> None:
    assert caught(steps.HUGETLB_TAKE, the_child_is_not_marked, KERNELS) or contradicted(
        steps.HUGETLB_TAKE, the_child_is_not_marked, KERNELS
    )


def test_a_taken_page_that_stays_counted_is_caught() -> None:
    assert caught(steps.HUGETLB_TAKE, what_is_taken_stays_counted, KERNELS)


def test_mmap_without_a_reservation_contradicts_a_claim() -> None:
    assert contradicted(steps.MMAP_FILE, mmap_reserves_nothing, KERNELS)


def test_a_reservation_that_outlives_its_mapping_is_caught() -> None:
    assert caught(steps.ZAP, unmapping_keeps_the_reservation, KERNELS)


def test_what_a_failed_fork_leaves_is_caught() -> None:
    assert caught(steps.FORK_COPY, a_failed_fork_leaves_what_it_did, KERNELS)
