"""Planted faults in what devices do with pages: each breaks a promise of some test, or a claim."""

from __future__ import annotations

from typing import Any

import pytest

from pageherd.machine import state as st
from pageherd.machine import steps
from planted import StepFunction, caught, contradicted, sound

KERNELS = ("linux-6.1", "linux-7.3")

_exclusive = sound(steps.DEVICE_EXCLUSIVE)
_lock = sound(steps.EXCLUSIVE_LOCK)
_unmap = sound(steps.EXCLUSIVE_UNMAP)
_replace = sound(steps.EXCLUSIVE_REPLACE)
_end = sound(steps.EXCLUSIVE_END)
_fault = sound(steps.EXCLUSIVE_FAULT)
_restore = sound(steps.EXCLUSIVE_RESTORE)
_to_ram = sound(steps.MIGRATE_TO_RAM)
_migrated = sound(steps.MIGRATE_RESTORE)
_fork = sound(steps.FORK_PAGE)
_zap = sound(steps.ZAP)


def pages_are_taken_for_reading(s: Any, t: int, k: Any) -> int:
    """COW is not broken."""
    s.t_foll[t] = int(s.t_foll[t]) & ~st.FOLL_WRITE
    return _exclusive(s, t, k)


def pages_of_files_are_taken_for_what_they_are_not(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    flags = s.page_flags[frame]
    s.page_flags[frame] = int(flags) & ~(st.PG_FILE | st.PG_HUGETLB)
    following = _lock(s, t, k)
    s.page_flags[frame] = flags
    return following


def unmapped_page_is_counted_as_mapped(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    count = s.mapcount[frame]
    following = _unmap(s, t, k)
    s.mapcount[frame] = count
    return following


def entry_does_not_count(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _replace(s, t, k)
    if s.pte[mm, page] & st.PTE_DEVICE_EXCLUSIVE:
        s.pte[mm, page] = int(s.pte[mm, page]) & ~st.PTE_MAPPED
    return following


def reference_of_gup_stays(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    following = _end(s, t, k)
    s.refcount[frame] += 1
    return following


def reference_of_the_fault_is_not_counted(s: Any, t: int, k: Any) -> int:
    following = _fault(s, t, k)
    if s.t_held[t] & st.HOLD_FRAME:
        s.refcount[s.t_frame[t]] -= 1
    return following


def entry_is_restored_whatever_it_is_by_now(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    s.t_pte[t], s.t_pte_to[t] = s.pte[mm, page], s.pte_to[mm, page]
    return _restore(s, t, k)


def restored_page_is_another_one(s: Any, t: int, k: Any) -> int:
    """As if the fault found nothing to restore and mapped a page of zeros."""
    frame = s.t_frame[t]
    following = _restore(s, t, k)
    s.content[frame] = 0
    return following


def fork_copies_the_entry(s: Any, t: int, k: Any) -> int:
    """The device keeps the page, which the child has, too."""
    mm, child, page = s.t_mm[t], s.t_other[t], s.t_page[t]
    if page < s.nr_pages and s.pte[mm, page] & st.PTE_DEVICE_EXCLUSIVE:
        pte, frame = s.pte[mm, page], s.pte_to[mm, page]
        s.pte[mm, page], s.pte_to[mm, page] = 0, 0
        following = _fork(s, t, k)
        s.pte[mm, page], s.pte_to[mm, page] = pte, frame
        if following == steps.BLOCKED:
            return following
        s.pte[child, page], s.pte_to[child, page] = pte, frame
        s.refcount[frame] += 1
        return following
    return _fork(s, t, k)


def zap_forgets_the_reference(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    held = page < s.t_other[t] and s.pte[mm, page] & st.PTE_DEVICE_EXCLUSIVE
    frame = s.pte_to[mm, page] if held else 0
    if held:
        s.refcount[frame] += 1
    following = _zap(s, t, k)
    if held and following == steps.BLOCKED:
        s.refcount[frame] -= 1
    return following


def only_the_own_mapping_comes_back(s: Any, t: int, k: Any) -> int:
    """The others' entries go, as if nothing had been there."""
    mm, frame = s.t_mm[t], s.t_pte_to[t]
    following = _to_ram(s, t, k)
    if following == s.t_return[t] and s.refcount[frame] == 0:
        new = s.pte_to[mm, s.t_page[t]]
        for other in range(s.nr_mms):
            for page in range(s.nr_pages):
                if other != mm and s.pte[other, page] and s.pte_to[other, page] == new:
                    s.pte[other, page], s.pte_to[other, page] = 0, 0
                    s.refcount[new] -= 1
                    s.mapcount[new] -= 1
    return following


def content_stays_with_the_device(s: Any, t: int, k: Any) -> int:
    s.content[s.t_pte_to[t]] = 0
    return _to_ram(s, t, k)


def shared_page_comes_back_writable(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _to_ram(s, t, k)
    if s.pte[mm, page] & st.PTE_PRESENT:
        s.pte[mm, page] |= st.PTE_WRITE
    return following


def old_page_is_not_put(s: Any, t: int, k: Any) -> int:
    frame = s.t_pte_to[t]
    s.refcount[frame] += 1
    following = _to_ram(s, t, k)
    if following == steps.BLOCKED:
        s.refcount[frame] -= 1
    return following


def device_page_is_mapped_as_any_other(s: Any, t: int, k: Any) -> int:
    """The processor can access it: only the device's loads and stores tell."""
    following = _migrated(s, t, k)
    mm, page = s.t_mm[t], s.t_page[t]
    if s.pte[mm, page] & st.PTE_DEVICE_PRIVATE:
        kept = int(s.pte[mm, page]) & (st.PTE_WRITE | st.PTE_SOFT_DIRTY)
        s.pte[mm, page] = st.PTE_PRESENT | kept
    return following


def fork_leaves_the_device_writing(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    private = page < s.nr_pages and s.pte[mm, page] & st.PTE_DEVICE_PRIVATE
    writable = s.pte[mm, page] & st.PTE_WRITE if private else 0
    following = _fork(s, t, k)
    if writable:
        s.pte[mm, page] |= st.PTE_WRITE
    return following


FAULTS: tuple[tuple[int, StepFunction], ...] = (
    (steps.DEVICE_EXCLUSIVE, pages_are_taken_for_reading),
    (steps.EXCLUSIVE_UNMAP, unmapped_page_is_counted_as_mapped),
    (steps.EXCLUSIVE_REPLACE, entry_does_not_count),
    (steps.EXCLUSIVE_END, reference_of_gup_stays),
    (steps.EXCLUSIVE_FAULT, reference_of_the_fault_is_not_counted),
    (steps.EXCLUSIVE_RESTORE, entry_is_restored_whatever_it_is_by_now),
    (steps.EXCLUSIVE_RESTORE, restored_page_is_another_one),
    (steps.FORK_PAGE, fork_copies_the_entry),
    (steps.ZAP, zap_forgets_the_reference),
    (steps.MIGRATE_TO_RAM, only_the_own_mapping_comes_back),
    (steps.MIGRATE_TO_RAM, content_stays_with_the_device),
    (steps.MIGRATE_TO_RAM, shared_page_comes_back_writable),
    (steps.MIGRATE_TO_RAM, old_page_is_not_put),
    (steps.FORK_PAGE, fork_leaves_the_device_writing),
)


@pytest.mark.parametrize(
    ("number", "fault"), FAULTS, ids=[fault.__name__.replace("_", "-") for _, fault in FAULTS]
)
def test_a_planted_fault_is_caught(number: int, fault: StepFunction) -> None:
    assert caught(number, fault, KERNELS)


def test_what_is_not_anonymous_memory_contradicts_a_claim() -> None:
    fault = pages_of_files_are_taken_for_what_they_are_not
    assert contradicted(steps.EXCLUSIVE_LOCK, fault, KERNELS)


def test_a_page_of_a_device_that_is_mapped_contradicts_a_claim() -> None:
    assert contradicted(steps.MIGRATE_RESTORE, device_page_is_mapped_as_any_other, KERNELS)
