"""Planted faults in what steps do with huge pages of a memfd: each breaks a promise, or a claim."""

from __future__ import annotations

from typing import Any

from pageherd.machine import state as st
from pageherd.machine import steps
from pageherd.machine.folio import compound_head, is_large
from pageherd.machine.huge import pmd_first, set_pmd
from planted import caught, contradicted, sound

KERNELS = ("linux-6.1", "linux-7.3")

_fault = sound(steps.FILE_FAULT)
_map = sound(steps.FILE_MAP)
_wp = sound(steps.HUGE_WP)
_split = sound(steps.SPLIT)
_copy = sound(steps.MIGRATE_COPY)
_mmap = sound(steps.MMAP_FILE)


def the_cache_has_one_reference_too_few(s: Any, t: int, k: Any) -> int:
    file = s.vma_file[s.t_mm[t], s.t_page[t]] - 1
    new = s.file_frame[file] == 0
    following = _fault(s, t, k)
    if new and is_large(s, s.t_frame[t]):
        s.refcount[compound_head(s, s.t_frame[t])] -= 1
    return following


def the_cache_finds_the_first_page_twice(s: Any, t: int, k: Any) -> int:
    file = s.vma_file[s.t_mm[t], s.t_page[t]] - 1
    new = s.file_frame[file] == 0
    following = _fault(s, t, k)
    if new and is_large(s, s.t_frame[t]):
        first = pmd_first(s, file)
        s.file_frame[first + 1] = s.file_frame[first]
    return following


def a_pmd_entry_is_not_counted(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _map(s, t, k)
    if s.pte[mm, page] & st.PTE_HUGE:
        s.entire_mapcount[compound_head(s, s.pte_to[mm, page])] -= 1
    return following


def a_private_pmd_entry_becomes_writable(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    if (s.vma[mm, page] & st.VM_FILE) == 0:
        return _wp(s, t, k)
    pte = s.pte[mm, page] | st.PTE_WRITE | st.PTE_DIRTY
    set_pmd(s, mm, page, pte, s.pte_to[mm, pmd_first(s, page)])
    return s.t_return[t]


def split_leaves_the_cache_no_reference(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    tail = compound_head(s, frame) + 1 if frame != st.NONE and is_large(s, frame) else 0
    of_file = tail != 0 and s.page_flags[tail - 1] & st.PG_FILE
    following = _split(s, t, k)
    if of_file and s.t_result[t] == st.OK:
        s.refcount[tail] -= 1
    return following


def migration_leaves_the_second_page_behind(s: Any, t: int, k: Any) -> int:
    old = s.t_frame[t]
    file = s.frame_index[old + 1]
    of_file = is_large(s, old) and s.page_flags[old] & st.PG_FILE
    following = _copy(s, t, k)
    if of_file and s.t_result[t] == st.OK:
        s.file_frame[file] = old + 2
    return following


def a_range_maps_one_page_of_the_file(s: Any, t: int, k: Any) -> int:
    mm, first, end = s.t_mm[t], s.t_first[t], s.t_end[t]
    following = _mmap(s, t, k)
    if end - first > 1:
        s.vma_file[mm, first + 1] = s.vma_file[mm, first]
    return following


def test_a_page_cache_with_too_few_references_is_caught() -> None:
    assert caught(steps.FILE_FAULT, the_cache_has_one_reference_too_few, KERNELS)


def test_a_page_cache_that_mixes_pages_up_contradicts_a_claim() -> None:
    assert contradicted(steps.FILE_FAULT, the_cache_finds_the_first_page_twice, KERNELS)


def test_a_pmd_entry_that_is_not_counted_is_caught() -> None:
    assert caught(steps.FILE_MAP, a_pmd_entry_is_not_counted, KERNELS)


def test_a_store_that_goes_to_the_file_is_caught() -> None:
    assert {
        promise
        for promise, _, _ in caught(steps.HUGE_WP, a_private_pmd_entry_becomes_writable, KERNELS)
    } >= {"private"}


def test_split_that_takes_a_reference_of_the_cache_is_caught() -> None:
    assert caught(steps.SPLIT, split_leaves_the_cache_no_reference, KERNELS)


def test_migration_that_forgets_a_page_is_caught() -> None:
    assert caught(steps.MIGRATE_COPY, migration_leaves_the_second_page_behind, KERNELS)


def test_a_range_of_the_wrong_pages_contradicts_a_claim() -> None:
    assert contradicted(steps.MMAP_FILE, a_range_maps_one_page_of_the_file, KERNELS)
