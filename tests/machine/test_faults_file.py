"""Planted faults in the page cache: write-back, reclaim and migration of pages of a file."""

from __future__ import annotations

from typing import Any

import pytest

from pageherd.machine import state as st
from pageherd.machine import steps
from pageherd.machine.file import remove_from_page_cache
from pageherd.machine.folio import clear_flag, has_flag, page_count
from pageherd.machine.pte import set_pte
from planted import StepFunction, caught, contradicted, sound

_file_map = sound(steps.FILE_MAP)
_mkwrite = sound(steps.WP_MKWRITE)
_mkclean = sound(steps.SYNC_MKCLEAN)
_sync_write = sound(steps.SYNC_WRITE)
_unmap = sound(steps.RECLAIM_UNMAP)
_write = sound(steps.RECLAIM_WRITE)
_remove = sound(steps.RECLAIM_REMOVE)
_migrate_unmap = sound(steps.MIGRATE_UNMAP)
_migrate_end = sound(steps.MIGRATE_END)
_migrate_restore = sound(steps.MIGRATE_RESTORE)


def first_store_tells_nobody(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    following = _file_map(s, t, k)
    clear_flag(s, frame, st.PG_DIRTY)
    return following


def later_store_tells_nobody(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    following = _mkwrite(s, t, k)
    clear_flag(s, frame, st.PG_DIRTY)
    return following


def mkwrite_keeps_its_reference(s: Any, t: int, k: Any) -> int:
    s.refcount[s.t_frame[t]] += 1
    return _mkwrite(s, t, k)


def writeback_unmaps_without_counting(s: Any, t: int, k: Any) -> int:
    before = s.t_value[t]
    following = _mkclean(s, t, k)
    if s.t_value[t] > before:
        mm, page = (s.t_value[t] - 1) // s.nr_pages, (s.t_value[t] - 1) % s.nr_pages
        set_pte(s, mm, page, 0, 0)
    return following


def writeback_writes_nothing(s: Any, t: int, k: Any) -> int:
    file = s.frame_index[s.t_frame[t]]
    before = s.file_content[file]
    following = _sync_write(s, t, k)
    s.file_content[file] = before
    return following


def writeback_keeps_its_reference(s: Any, t: int, k: Any) -> int:
    s.refcount[s.t_frame[t]] += 1
    return _sync_write(s, t, k)


def reclaim_drops_a_dirty_page(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    if has_flag(s, frame, st.PG_FILE):
        clear_flag(s, frame, st.PG_DIRTY)
    return _write(s, t, k)


def reclaim_drops_a_held_page(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    if has_flag(s, frame, st.PG_FILE) and page_count(s, frame) > 2:
        remove_from_page_cache(s, frame)
        return steps.RECLAIM_PUTBACK
    return _remove(s, t, k)


def reclaim_keeps_the_cache_reference(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    if has_flag(s, frame, st.PG_FILE):
        s.refcount[frame] += 1
        remove_from_page_cache(s, frame)
        return steps.RECLAIM_PUTBACK
    return _remove(s, t, k)


def moved_page_is_not_in_the_cache(s: Any, t: int, k: Any) -> int:
    new = s.t_new[t]
    following = _migrate_end(s, t, k)
    clear_flag(s, new, st.PG_FILE)
    return following


def moved_private_page_comes_back_writable(s: Any, t: int, k: Any) -> int:
    mapped = s.t_new[t] if s.t_result[t] == st.OK else s.t_frame[t]
    following = _migrate_restore(s, t, k)
    if has_flag(s, mapped, st.PG_FILE):
        for mm in range(s.nr_mms):
            for page in range(s.nr_pages):
                if s.pte[mm, page] & st.PTE_PRESENT and s.pte_to[mm, page] == mapped:
                    s.pte[mm, page] |= st.PTE_WRITE
    return following


FAULTS: tuple[tuple[int, StepFunction], ...] = (
    (steps.FILE_MAP, first_store_tells_nobody),
    (steps.WP_MKWRITE, later_store_tells_nobody),
    (steps.WP_MKWRITE, mkwrite_keeps_its_reference),
    (steps.SYNC_MKCLEAN, writeback_unmaps_without_counting),
    (steps.SYNC_WRITE, writeback_writes_nothing),
    (steps.SYNC_WRITE, writeback_keeps_its_reference),
    (steps.RECLAIM_WRITE, reclaim_drops_a_dirty_page),
    (steps.RECLAIM_REMOVE, reclaim_drops_a_held_page),
    (steps.RECLAIM_REMOVE, reclaim_keeps_the_cache_reference),
    (steps.MIGRATE_END, moved_page_is_not_in_the_cache),
    (steps.MIGRATE_RESTORE, moved_private_page_comes_back_writable),
)


@pytest.mark.parametrize(("number", "fault"), FAULTS, ids=[fault.__name__ for _, fault in FAULTS])
def test_a_planted_fault_is_caught(number: int, fault: StepFunction) -> None:
    assert caught(number, fault)


def reclaim_leaves_the_entries(s: Any, t: int, k: Any) -> int:
    if has_flag(s, s.t_frame[t], st.PG_FILE):
        return steps.RECLAIM_CHECK
    return _unmap(s, t, k)


def migration_does_not_find_mappings_of_files(s: Any, t: int, k: Any) -> int:
    if has_flag(s, s.t_frame[t], st.PG_FILE):
        return steps.MIGRATE_CHECK
    return _migrate_unmap(s, t, k)


def sync_writes_no_page(s: Any, t: int, k: Any) -> int:
    s.t_result[t] = st.OK
    return steps.IDLE


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (steps.SYNC_FILE, sync_writes_no_page),
        (steps.RECLAIM_UNMAP, reclaim_leaves_the_entries),
        (steps.MIGRATE_UNMAP, migration_does_not_find_mappings_of_files),
    ],
)
def test_a_fault_that_harms_nobody_contradicts_a_claim(number: int, fault: StepFunction) -> None:
    assert contradicted(number, fault, ("linux-6.1",))
