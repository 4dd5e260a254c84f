"""A test for the tests: deliberately wrong steps, each caught by a promise.

A fault is caught when some test of the library breaks a promise that it keeps on the sound machine,
or, where a fault breaks none, when a claim of some test no longer comes true.
"""

from __future__ import annotations

from typing import Any

import pytest

from pageherd.machine import state as st
from pageherd.machine import steps
from pageherd.machine.folio import clear_flag, has_flag, is_exclusive, put_page, set_flag, unhold
from pageherd.machine.ksm import UPGRADE
from pageherd.machine.rmap import maps_here
from pageherd.machine.swap import delete_from_swap_cache
from planted import StepFunction, caught, contradicted, sound

_install = sound(steps.FORK_INSTALL)
_page = sound(steps.FORK_PAGE)
_fork_copy = sound(steps.FORK_COPY)
_anon_map = sound(steps.ANON_MAP)
_wp = sound(steps.WP)
_wp_copy = sound(steps.WP_COPY)
_wp_map = sound(steps.WP_MAP)
_wp_put = sound(steps.WP_PUT)
_swapin_read = sound(steps.SWAPIN_READ)
_swapin_map = sound(steps.SWAPIN_MAP)
_unmap = sound(steps.RECLAIM_UNMAP)
_isolate = sound(steps.RECLAIM_ISOLATE)
_write = sound(steps.RECLAIM_WRITE)
_putback = sound(steps.RECLAIM_PUTBACK)
_reclaim_swap = sound(steps.RECLAIM_SWAP)
_zap = sound(steps.ZAP)
_zap_put = sound(steps.ZAP_PUT)
_fast_grab = sound(steps.GUP_FAST_GRAB)
_done = sound(steps.GUP_DONE)
_slow = sound(steps.GUP_SLOW)
_release = sound(steps.RELEASE)
_move = sound(steps.MREMAP_MOVE)
_mremap = sound(steps.MREMAP)
_mremap_fail = sound(steps.MREMAP_FAIL)
_swapoff = sound(steps.SWAPOFF)
_drain = sound(steps.DRAIN)
_file_fault = sound(steps.FILE_FAULT)
_file_copy = sound(steps.FILE_COPY)
_file_map = sound(steps.FILE_MAP)
_mmap_file = sound(steps.MMAP_FILE)
_write_file = sound(steps.WRITE_FILE)
_huge_fault = sound(steps.HUGETLB_FAULT)
_huge_copy = sound(steps.HUGETLB_COPY)
_huge_map = sound(steps.HUGETLB_MAP)
_tee = sound(steps.TEE)
_migrate_unmap = sound(steps.MIGRATE_UNMAP)
_migrate_copy = sound(steps.MIGRATE_COPY)
_migrate_restore = sound(steps.MIGRATE_RESTORE)
_migrate_end = sound(steps.MIGRATE_END)
_ksm_protect = sound(steps.KSM_PROTECT)
_ksm_replace = sound(steps.KSM_REPLACE)
_ksm_break = sound(steps.KSM_BREAK)


def fork_takes_no_reference(s: Any, t: int, k: Any) -> int:
    frame = s.pte_to[s.t_mm[t], s.t_page[t]]
    following = _install(s, t, k)
    s.refcount[frame] -= 1
    return following


def fork_counts_no_mapping(s: Any, t: int, k: Any) -> int:
    frame = s.pte_to[s.t_mm[t], s.t_page[t]]
    following = _install(s, t, k)
    s.mapcount[frame] -= 1
    return following


def fork_does_not_write_protect(s: Any, t: int, k: Any) -> int:
    return steps.FORK_INSTALL


def fork_keeps_the_exclusive_mark(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    present = page < s.nr_pages and s.pte[mm, page] & st.PTE_PRESENT
    frame = s.pte_to[mm, page] if present else 0
    exclusive = frame != 0 and is_exclusive(s, frame)
    following = _page(s, t, k)
    if exclusive:
        set_flag(s, frame, st.PG_EXCLUSIVE)
    return following


def fork_duplicates_no_swap_entry(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    swapped = page < s.nr_pages and s.pte[mm, page] & st.PTE_SWAP
    slot = s.pte_to[mm, page] if swapped else 0
    following = _page(s, t, k)
    if swapped:
        s.swap_count[slot] -= 1
    return following


def fork_keeps_exclusive_swap_entries(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    exclusive = page < s.nr_pages and s.pte[mm, page] & st.PTE_SWP_EXCLUSIVE
    following = _page(s, t, k)
    if exclusive:
        s.pte[mm, page] |= st.PTE_SWP_EXCLUSIVE
    return following


def early_copy_copies_nothing(s: Any, t: int, k: Any) -> int:
    child, page = s.t_other[t], s.t_page[t]
    following = _fork_copy(s, t, k)
    s.content[s.pte_to[child, page]] = 0
    return following


def new_page_is_not_counted(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _anon_map(s, t, k)
    s.mapcount[s.pte_to[mm, page]] = 0
    return following


def write_fault_always_reuses(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    if s.t_fault[t] & st.FAULT_UNSHARE or s.pte_to[mm, page] == st.ZERO_FRAME:
        return _wp(s, t, k)
    s.pte[mm, page] |= st.PTE_WRITE | st.PTE_DIRTY
    return s.t_return[t]


def cow_copies_nothing(s: Any, t: int, k: Any) -> int:
    following = _wp_copy(s, t, k)
    s.content[s.t_new[t]] = 0
    return following


def cow_keeps_the_old_reference(s: Any, t: int, k: Any) -> int:
    old = s.t_pte_to[t]
    s.refcount[old] += 1
    return _wp_map(s, t, k)


def cow_keeps_the_old_mapping_count(s: Any, t: int, k: Any) -> int:
    old = s.t_pte_to[t]
    following = _wp_map(s, t, k)
    if old != st.ZERO_FRAME:
        s.mapcount[old] += 1
    return following


def cow_marks_nothing_exclusive(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _wp_map(s, t, k)
    clear_flag(s, s.pte_to[mm, page], st.PG_EXCLUSIVE)
    return following


def cow_forgets_its_own_reference(s: Any, t: int, k: Any) -> int:
    old = s.t_pte_to[t]
    s.refcount[old] += 1
    return _wp_put(s, t, k)


def swapin_does_not_free_the_entry(s: Any, t: int, k: Any) -> int:
    s.swap_count[s.t_pte_to[t]] += 1
    return _swapin_map(s, t, k)


def swapin_reads_zeros(s: Any, t: int, k: Any) -> int:
    following = _swapin_read(s, t, k)
    s.content[s.t_frame[t]] = 0
    return following


def swapin_maps_everything_writable(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _swapin_map(s, t, k)
    s.pte[mm, page] |= st.PTE_WRITE
    return following


def unmap_counts_no_swap_entry(s: Any, t: int, k: Any) -> int:
    slot = s.frame_slot[s.t_frame[t]] - 1
    before = s.swap_count[slot]
    following = _unmap(s, t, k)
    if s.swap_count[slot] > before:
        s.swap_count[slot] = before
    return following


def unmap_keeps_the_mapping_count(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    before = s.mapcount[frame]
    following = _unmap(s, t, k)
    s.mapcount[frame] = before
    return following


def unmap_drops_two_references(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    before = s.refcount[frame]
    following = _unmap(s, t, k)
    if s.refcount[frame] < before:
        s.refcount[frame] -= 1
    return following


def reclaim_ignores_pins(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    pins = s.pincount[frame]
    s.pincount[frame] = 0
    following = _reclaim_swap(s, t, k)
    s.pincount[frame] = pins
    return following


def reclaim_writes_nothing(s: Any, t: int, k: Any) -> int:
    slot = s.frame_slot[s.t_frame[t]] - 1
    following = _write(s, t, k)
    s.slot_content[slot] = 0
    return following


def reclaim_drops_a_referenced_page(s: Any, t: int, k: Any) -> int:
    clear_flag(s, s.t_frame[t], st.PG_DIRTY)
    delete_from_swap_cache(s, s.t_frame[t])
    return steps.RECLAIM_PUTBACK


def isolation_takes_no_reference(s: Any, t: int, k: Any) -> int:
    following = _isolate(s, t, k)
    if following == steps.RECLAIM_LOCK:
        s.refcount[s.t_frame[t]] -= 1
    return following


def putback_keeps_its_reference(s: Any, t: int, k: Any) -> int:
    s.refcount[s.t_frame[t]] += 1
    return _putback(s, t, k)


def zap_keeps_the_mapping_count(s: Any, t: int, k: Any) -> int:
    following = _zap(s, t, k)
    if following == steps.ZAP_PUT:
        s.mapcount[s.t_frame[t]] += 1
    return following


def zap_keeps_swap_entries_counted(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    swapped = page < s.t_other[t] and s.pte[mm, page] & st.PTE_SWAP
    slot = s.pte_to[mm, page] if swapped else 0
    if swapped:
        s.swap_count[slot] += 1
    return _zap(s, t, k)


def zap_puts_twice(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    following = _zap_put(s, t, k)
    if s.refcount[frame] > 0:
        s.refcount[frame] -= 1
    return following


def gup_fast_takes_no_count(s: Any, t: int, k: Any) -> int:
    following = _fast_grab(s, t, k)
    if following == steps.GUP_FAST_RECHECK:
        if s.t_held[t] & st.HOLD_PIN:
            s.pincount[s.t_frame[t]] -= 1
        else:
            s.refcount[s.t_frame[t]] -= 1
    return following


def gup_never_unshares(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    frame = s.pte_to[mm, page]
    if s.pte[mm, page] & st.PTE_PRESENT and frame != 0 and not s.t_foll[t] & st.FOLL_WRITE:
        marked = is_exclusive(s, frame)
        set_flag(s, frame, st.PG_EXCLUSIVE)
        following = _slow(s, t, k)
        if not marked:
            clear_flag(s, frame, st.PG_EXCLUSIVE)
        return following
    return _slow(s, t, k)


def release_forgets_to_put(s: Any, t: int, k: Any) -> int:
    s.ref_frame[s.t_ref[t]] = 0
    return steps.IDLE


def release_puts_one_too_many(s: Any, t: int, k: Any) -> int:
    frame = s.ref_frame[s.t_ref[t]] - 1
    following = _release(s, t, k)
    if s.refcount[frame] > 0:
        s.refcount[frame] -= 1
    return following


def tee_takes_one_too_few(s: Any, t: int, k: Any) -> int:
    following = _tee(s, t, k)
    s.ref_times[s.t_ref[t]] += 1
    return following


def mremap_leaves_the_old_entry(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_pte_to[t]
    pte, to, vma = s.pte[mm, page], s.pte_to[mm, page], s.vma[mm, page]
    following = _move(s, t, k)
    s.pte[mm, page] = pte
    s.pte_to[mm, page] = to
    s.vma[mm, page] = vma
    return following


def swapoff_takes_no_reference(s: Any, t: int, k: Any) -> int:
    at = s.t_value[t]
    mm, page = at // s.nr_pages, at % s.nr_pages
    swapped = mm < s.nr_mms and s.pte[mm, page] & st.PTE_SWAP
    following = _swapoff(s, t, k)
    if swapped:
        s.refcount[s.pte_to[mm, page]] -= 1
    return following


def new_page_prepares_no_anon_vma(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _anon_map(s, t, k)
    s.vma[mm, page] &= 255 - st.VM_ANON_VMA
    return following


def swapoff_forgets_the_rest_of_the_cache(s: Any, t: int, k: Any) -> int:
    if s.t_value[t] < s.nr_mms * s.nr_pages:
        return _swapoff(s, t, k)
    s.swap_kind = st.SWAP_NONE
    s.t_result[t] = st.OK
    return steps.IDLE


def swapoff_leaves_the_device_on(s: Any, t: int, k: Any) -> int:
    kind = s.swap_kind
    following = _swapoff(s, t, k)
    s.swap_kind = kind
    return following


def fork_copies_mappings_without_anon_vma(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    if page < s.nr_pages and s.vma[mm, page] & st.VM_MAPPED:
        s.vma[mm, page] |= st.VM_ANON_VMA
    return _page(s, t, k)


def locked_memory_is_discarded(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    if page < s.nr_pages:
        s.vma[mm, page] &= 255 - st.VM_LOCKED
    return _zap(s, t, k)


def failed_mremap_says_that_it_moved(s: Any, t: int, k: Any) -> int:
    following = _mremap_fail(s, t, k)
    s.t_result[t] = st.OK
    return following


def failed_mremap_keeps_what_it_found(s: Any, t: int, k: Any) -> int:
    following = _mremap(s, t, k)
    return steps.MREMAP_FAIL if s.t_return[t] == steps.MREMAP_FAIL else following


def file_fault_takes_no_reference(s: Any, t: int, k: Any) -> int:
    following = _file_fault(s, t, k)
    s.refcount[s.t_frame[t]] -= 1
    return following


def copy_of_a_file_copies_nothing(s: Any, t: int, k: Any) -> int:
    following = _file_copy(s, t, k)
    s.content[s.t_new[t]] = 0
    return following


def private_mapping_of_a_file_is_writable(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _file_map(s, t, k)
    s.pte[mm, page] |= st.PTE_WRITE
    return following


def page_of_a_file_counts_no_mapping(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _file_map(s, t, k)
    s.mapcount[s.pte_to[mm, page]] -= 1
    return following


def write_fault_maps_the_page_cache(s: Any, t: int, k: Any) -> int:
    if s.t_held[t] & st.HOLD_NEW:
        put_page(s, s.t_new[t])
        unhold(s, t, st.HOLD_NEW)
    return _file_map(s, t, k)


def write_to_the_file_is_lost(s: Any, t: int, k: Any) -> int:
    following = _write_file(s, t, k)
    s.content[s.file_frame[s.t_page[t]] - 1] = 0
    return following


def every_mapping_of_a_file_is_shared(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_other[t] - 1
    following = _mmap_file(s, t, k)
    s.vma[mm, page] |= st.VM_SHARED
    return following


def every_mapping_is_of_the_first_page(s: Any, t: int, k: Any) -> int:
    s.t_ref[t] = 0
    return _mmap_file(s, t, k)


def file_reads_as_zeros(s: Any, t: int, k: Any) -> int:
    s.t_result[t] = 0
    return steps.IDLE


def hugetlb_copy_copies_nothing(s: Any, t: int, k: Any) -> int:
    following = _huge_copy(s, t, k)
    s.content[s.t_new[t]] = 0
    return following


def hugetlb_always_reuses(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    frame = s.pte_to[mm, page]
    present = s.pte[mm, page] & st.PTE_PRESENT
    maps = s.mapcount[frame]
    if present:
        s.mapcount[frame] = 1
    following = _huge_fault(s, t, k)
    if present:
        s.mapcount[frame] = maps
    return following


def hugetlb_copy_keeps_the_old_page(s: Any, t: int, k: Any) -> int:
    old = s.t_frame[t]
    copied = s.t_held[t] & st.HOLD_FRAME
    following = _huge_map(s, t, k)
    if copied:
        s.refcount[old] += 1
    return following


def migration_copies_nothing(s: Any, t: int, k: Any) -> int:
    following = _migrate_copy(s, t, k)
    s.content[s.t_new[t]] = 0
    return following


def migration_ignores_references(s: Any, t: int, k: Any) -> int:
    return steps.MIGRATE_COPY


def migration_keeps_the_mapping_count(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    before = s.mapcount[frame]
    following = _migrate_unmap(s, t, k)
    s.mapcount[frame] = before
    return following


def migration_drops_no_reference(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    before = s.refcount[frame]
    following = _migrate_unmap(s, t, k)
    s.refcount[frame] = before
    return following


def migration_restores_everything_writable(s: Any, t: int, k: Any) -> int:
    following = _migrate_restore(s, t, k)
    if following == steps.MIGRATE_RESTORE:
        frame = s.t_new[t] if s.t_result[t] == st.OK else s.t_frame[t]
        for mm in range(s.nr_mms):
            for page in range(s.nr_pages):
                if maps_here(s, mm, page, frame):
                    s.pte[mm, page] |= st.PTE_WRITE
    return following


def migration_forgets_who_is_exclusive(s: Any, t: int, k: Any) -> int:
    following = _migrate_restore(s, t, k)
    clear_flag(s, s.t_new[t], st.PG_EXCLUSIVE)
    return following


def migration_restores_without_a_reference(s: Any, t: int, k: Any) -> int:
    following = _migrate_restore(s, t, k)
    if following == steps.MIGRATE_RESTORE and s.t_result[t] == st.OK:
        s.refcount[s.t_new[t]] -= 1
    return following


def migration_never_frees_the_old_page(s: Any, t: int, k: Any) -> int:
    s.refcount[s.t_frame[t]] += 1
    return _migrate_end(s, t, k)


def migration_stops_after_one_mapping(s: Any, t: int, k: Any) -> int:
    _migrate_unmap(s, t, k)
    return steps.MIGRATE_CHECK


def ksm_counts_no_references(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    references, pins = s.refcount[frame], s.pincount[frame]
    s.refcount[frame] = s.mapcount[frame] + 1 + (s.frame_slot[frame] != 0)
    s.pincount[frame] = 0
    following = _ksm_protect(s, t, k)
    s.refcount[frame] = references
    s.pincount[frame] = pins
    return following


def ksm_leaves_the_page_writable(s: Any, t: int, k: Any) -> int:
    mm, page, place = s.t_mm[t], s.t_page[t], s.t_value[t]
    following = _ksm_protect(s, t, k)
    if place == UPGRADE:
        s.pte[mm, page] |= st.PTE_WRITE
    return following


def ksm_keeps_the_exclusive_mark(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    marked = is_exclusive(s, frame)
    following = _ksm_protect(s, t, k)
    if marked:
        set_flag(s, frame, st.PG_EXCLUSIVE)
    return following


def ksm_takes_no_reference(s: Any, t: int, k: Any) -> int:
    kept = s.t_new[t]
    following = _ksm_replace(s, t, k)
    if kept != st.ZERO_FRAME:
        s.refcount[kept] -= 1
    return following


def ksm_counts_no_mapping(s: Any, t: int, k: Any) -> int:
    kept = s.t_new[t]
    following = _ksm_replace(s, t, k)
    if kept != st.ZERO_FRAME:
        s.mapcount[kept] -= 1
    return following


def ksm_keeps_the_old_page(s: Any, t: int, k: Any) -> int:
    s.refcount[s.t_frame[t]] += 1
    return _ksm_replace(s, t, k)


def ksm_maps_the_zero_page_writable(s: Any, t: int, k: Any) -> int:
    mm, page, kept = s.t_mm[t], s.t_page[t], s.t_new[t]
    following = _ksm_replace(s, t, k)
    if kept == st.ZERO_FRAME:
        s.pte[mm, page] |= st.PTE_WRITE
    return following


def unmerging_finds_nothing(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    s.vma[mm, page] &= 65535 - st.VM_MERGEABLE
    return _ksm_break(s, t, k)


def a_stranger_gets_the_page_itself(s: Any, t: int, k: Any) -> int:
    return steps.SWAPIN_MAP


def lazyfree_drops_what_was_written(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    if has_flag(s, frame, st.PG_LAZYFREE):
        clear_flag(s, frame, st.PG_DIRTY)
        for mm in range(s.nr_mms):
            for page in range(s.nr_pages):
                if maps_here(s, mm, page, frame):
                    s.pte[mm, page] &= 65535 - st.PTE_DIRTY
    return _unmap(s, t, k)


def lazyfree_keeps_a_reference(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    before = s.mapcount[frame]
    following = _unmap(s, t, k)
    if has_flag(s, frame, st.PG_LAZYFREE) and s.mapcount[frame] < before:
        s.refcount[frame] += 1
    return following


def free_drops_nothing(s: Any, t: int, k: Any) -> int:
    s.t_result[t] = st.OK
    return steps.IDLE


FAULTS: tuple[tuple[int, StepFunction], ...] = (
    (steps.FORK_INSTALL, fork_takes_no_reference),
    (steps.FORK_INSTALL, fork_counts_no_mapping),
    (steps.FORK_WRPROTECT, fork_does_not_write_protect),
    (steps.FORK_PAGE, fork_keeps_the_exclusive_mark),
    (steps.FORK_PAGE, fork_duplicates_no_swap_entry),
    (steps.FORK_PAGE, fork_keeps_exclusive_swap_entries),
    (steps.FORK_COPY, early_copy_copies_nothing),
    (steps.ANON_MAP, new_page_is_not_counted),
    (steps.WP, write_fault_always_reuses),
    (steps.WP_COPY, cow_copies_nothing),
    (steps.WP_MAP, cow_keeps_the_old_reference),
    (steps.WP_MAP, cow_keeps_the_old_mapping_count),
    (steps.WP_MAP, cow_marks_nothing_exclusive),
    (steps.WP_PUT, cow_forgets_its_own_reference),
    (steps.SWAPIN_MAP, swapin_does_not_free_the_entry),
    (steps.SWAPIN_READ, swapin_reads_zeros),
    (steps.SWAPIN_MAP, swapin_maps_everything_writable),
    (steps.RECLAIM_UNMAP, unmap_counts_no_swap_entry),
    (steps.RECLAIM_UNMAP, unmap_keeps_the_mapping_count),
    (steps.RECLAIM_UNMAP, unmap_drops_two_references),
    (steps.RECLAIM_SWAP, reclaim_ignores_pins),
    (steps.RECLAIM_WRITE, reclaim_writes_nothing),
    (steps.RECLAIM_REMOVE, reclaim_drops_a_referenced_page),
    (steps.RECLAIM_ISOLATE, isolation_takes_no_reference),
    (steps.RECLAIM_PUTBACK, putback_keeps_its_reference),
    (steps.ZAP, zap_keeps_the_mapping_count),
    (steps.ZAP, zap_keeps_swap_entries_counted),
    (steps.ZAP_PUT, zap_puts_twice),
    (steps.GUP_FAST_GRAB, gup_fast_takes_no_count),
    (steps.GUP_SLOW, gup_never_unshares),
    (steps.RELEASE, release_forgets_to_put),
    (steps.RELEASE, release_puts_one_too_many),
    (steps.TEE, tee_takes_one_too_few),
    (steps.MREMAP_MOVE, mremap_leaves_the_old_entry),
    (steps.SWAPOFF, swapoff_takes_no_reference),
    (steps.ANON_MAP, new_page_prepares_no_anon_vma),
    (steps.FILE_FAULT, file_fault_takes_no_reference),
    (steps.FILE_COPY, copy_of_a_file_copies_nothing),
    (steps.FILE_MAP, private_mapping_of_a_file_is_writable),
    (steps.FILE_MAP, page_of_a_file_counts_no_mapping),
    (steps.FILE_MAP, write_fault_maps_the_page_cache),
    (steps.WRITE_FILE, write_to_the_file_is_lost),
    (steps.HUGETLB_COPY, hugetlb_copy_copies_nothing),
    (steps.HUGETLB_FAULT, hugetlb_always_reuses),
    (steps.HUGETLB_MAP, hugetlb_copy_keeps_the_old_page),
    (steps.MIGRATE_COPY, migration_copies_nothing),
    (steps.MIGRATE_CHECK, migration_ignores_references),
    (steps.MIGRATE_UNMAP, migration_keeps_the_mapping_count),
    (steps.MIGRATE_UNMAP, migration_drops_no_reference),
    (steps.MIGRATE_RESTORE, migration_restores_everything_writable),
    (steps.MIGRATE_RESTORE, migration_forgets_who_is_exclusive),
    (steps.MIGRATE_RESTORE, migration_restores_without_a_reference),
    (steps.MIGRATE_END, migration_never_frees_the_old_page),
    (steps.KSM_PROTECT, ksm_counts_no_references),
    (steps.KSM_PROTECT, ksm_leaves_the_page_writable),
    (steps.KSM_PROTECT, ksm_keeps_the_exclusive_mark),
    (steps.KSM_REPLACE, ksm_takes_no_reference),
    (steps.KSM_REPLACE, ksm_counts_no_mapping),
    (steps.KSM_REPLACE, ksm_keeps_the_old_page),
    (steps.KSM_REPLACE, ksm_maps_the_zero_page_writable),
    (steps.RECLAIM_UNMAP, lazyfree_drops_what_was_written),
    (steps.RECLAIM_UNMAP, lazyfree_keeps_a_reference),
)

AGAINST_CLAIMS: tuple[tuple[int, StepFunction], ...] = (
    (steps.FORK_PAGE, fork_copies_mappings_without_anon_vma),
    (steps.ZAP, locked_memory_is_discarded),
    (steps.SWAPOFF, swapoff_forgets_the_rest_of_the_cache),
    (steps.SWAPOFF, swapoff_leaves_the_device_on),
    (steps.MREMAP_FAIL, failed_mremap_says_that_it_moved),
    (steps.MREMAP, failed_mremap_keeps_what_it_found),
    (steps.MMAP_FILE, every_mapping_of_a_file_is_shared),
    (steps.MMAP_FILE, every_mapping_is_of_the_first_page),
    (steps.READ_FILE, file_reads_as_zeros),
    (steps.MIGRATE_UNMAP, migration_stops_after_one_mapping),
    (steps.KSM_BREAK, unmerging_finds_nothing),
    (steps.FREE, free_drops_nothing),
    (steps.SWAPIN_COPY, a_stranger_gets_the_page_itself),
)
"""Faults that break no promise: the kernel would be odd, but no program is harmed."""


@pytest.mark.parametrize(("number", "fault"), FAULTS, ids=[fault.__name__ for _, fault in FAULTS])
def test_a_planted_fault_is_caught(number: int, fault: StepFunction) -> None:
    assert caught(number, fault)


@pytest.mark.parametrize(
    ("number", "fault"), AGAINST_CLAIMS, ids=[fault.__name__ for _, fault in AGAINST_CLAIMS]
)
def test_a_fault_that_harms_nobody_contradicts_a_claim(number: int, fault: StepFunction) -> None:
    assert contradicted(number, fault)


def test_there_are_enough_faults() -> None:
    assert len(FAULTS) >= 20
