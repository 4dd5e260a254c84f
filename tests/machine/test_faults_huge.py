"""Planted faults in the steps of large folios: each breaks a promise of some test, or a claim."""

from __future__ import annotations

from typing import Any

import pytest

from pageherd.machine import state as st
from pageherd.machine import steps
from pageherd.machine.folio import compound_head, folio_nr_pages, is_large
from pageherd.machine.huge import pmd_first, set_pmd
from pageherd.machine.pte import remember_pte
from planted import StepFunction, caught, contradicted, sound

_huge_map = sound(steps.HUGE_MAP)
_wp_count = sound(steps.HUGE_WP_COUNT)
_split = sound(steps.SPLIT)
_collapse = sound(steps.COLLAPSE)
_fork = sound(steps.FORK_PAGE)
_zap = sound(steps.ZAP)
_unmap = sound(steps.RECLAIM_UNMAP)
_swapin_map = sound(steps.SWAPIN_MAP)


def new_huge_page_is_not_counted(s: Any, t: int, k: Any) -> int:
    following = _huge_map(s, t, k)
    s.entire_mapcount[s.t_new[t]] = 0
    return following


def new_huge_page_maps_the_same_page_twice(s: Any, t: int, k: Any) -> int:
    mm, first = s.t_mm[t], pmd_first(s, s.t_page[t])
    following = _huge_map(s, t, k)
    if s.pte[mm, first] & st.PTE_HUGE:
        s.pte_to[mm, first + 1] = s.pte_to[mm, first]
    return following


def huge_write_fault_always_reuses(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    pte = s.pte[mm, page] | st.PTE_WRITE | st.PTE_DIRTY
    set_pmd(s, mm, page, pte, s.pte_to[mm, pmd_first(s, page)])
    return s.t_return[t]


def one_pmd_entry_is_counted(s: Any, t: int, k: Any) -> int:
    head = s.pte_to[s.t_mm[t], pmd_first(s, s.t_page[t])]
    entries = s.entire_mapcount[head]
    s.entire_mapcount[head] = 1
    following = _wp_count(s, t, k)
    s.entire_mapcount[head] = entries
    return following


def huge_write_fault_splits_nothing(s: Any, t: int, k: Any) -> int:
    """The page-table entry decides, but stays part of a PMD entry."""
    remember_pte(s, t, s.t_mm[t], s.t_page[t])
    return steps.WP


def fork_of_a_huge_page_counts_no_mapping(s: Any, t: int, k: Any) -> int:
    child, page = s.t_other[t], s.t_page[t]
    following = _fork(s, t, k)
    if page < s.nr_pages and s.pte[child, page] & st.PTE_HUGE and s.pte_to[child, page]:
        s.entire_mapcount[s.pte_to[child, pmd_first(s, page)]] -= 1
    return following


def fork_leaves_a_huge_page_writable(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    writable = (
        page < s.nr_pages and s.pte[mm, page] & st.PTE_HUGE and s.pte[mm, page] & st.PTE_WRITE
    )
    following = _fork(s, t, k)
    if writable and s.pte[mm, page] & st.PTE_HUGE:
        set_pmd(s, mm, page, s.pte[mm, page] | st.PTE_WRITE, s.pte_to[mm, pmd_first(s, page)])
    return following


def zap_of_a_huge_page_keeps_its_count(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    huge = page < s.t_other[t] and s.pte[mm, page] & st.PTE_HUGE
    head = s.pte_to[mm, pmd_first(s, page)] if huge else 0
    following = _zap(s, t, k)
    if head and s.pte[mm, page] == 0:
        s.entire_mapcount[head] += 1
    return following


def zap_of_a_page_frees_all_of_its_folio(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    present = page < s.t_other[t] and s.pte[mm, page] & st.PTE_PRESENT
    frame = s.pte_to[mm, page] if present and not s.pte[mm, page] & st.PTE_HUGE else 0
    following = _zap(s, t, k)
    if frame and is_large(s, frame) and s.refcount[compound_head(s, frame)] > 1:
        s.refcount[compound_head(s, frame)] = 1
    return following


def split_ignores_references(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    if frame == st.NONE or not is_large(s, frame):
        return _split(s, t, k)
    head = compound_head(s, frame)
    others = s.refcount[head] - s.large_mapcount[head] - s.entire_mapcount[head]
    for each in range(head, head + folio_nr_pages(s, head)):
        others -= s.mapcount[each]
    s.refcount[head] -= max(others, 0)
    following = _split(s, t, k)
    s.refcount[head] += max(others, 0)
    return following


def split_gives_its_pages_one_reference_too_many(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    tail = compound_head(s, frame) + 1 if frame != st.NONE and is_large(s, frame) else 0
    following = _split(s, t, k)
    if tail and s.t_result[t] == st.OK:
        s.refcount[tail] += 1
    return following


def collapse_copies_nothing(s: Any, t: int, k: Any) -> int:
    mm, first = s.t_mm[t], pmd_first(s, s.t_page[t])
    before = s.pte_to[mm, first]
    following = _collapse(s, t, k)
    if s.pte_to[mm, first] != before:
        s.content[s.pte_to[mm, first]] = 0
    return following


def collapse_ignores_references(s: Any, t: int, k: Any) -> int:
    mm, first = s.t_mm[t], pmd_first(s, s.t_page[t])
    frame = s.pte_to[mm, first]
    others = 0
    if s.pte[mm, first] & st.PTE_PRESENT and frame != st.ZERO_FRAME and not is_large(s, frame):
        others = s.refcount[frame] - s.mapcount[frame]
        s.refcount[frame] -= others
    following = _collapse(s, t, k)
    s.refcount[frame] += others
    return following


def collapse_keeps_the_old_page(s: Any, t: int, k: Any) -> int:
    mm, first = s.t_mm[t], pmd_first(s, s.t_page[t])
    frame = s.pte_to[mm, first] if s.pte[mm, first] & st.PTE_PRESENT else 0
    following = _collapse(s, t, k)
    if frame and s.pte_to[mm, first] != frame:
        s.refcount[frame] += 1
    return following


def unmap_of_a_huge_page_counts_one_swap_entry(s: Any, t: int, k: Any) -> int:
    """The entries of a folio are swap entries of slots of their own; the second is not counted."""
    frame = s.t_frame[t]
    tail = frame + 1 if is_large(s, frame) and compound_head(s, frame) == frame else 0
    before = s.swap_count[s.frame_slot[tail] - 1] if tail and s.frame_slot[tail] else 0
    following = _unmap(s, t, k)
    if tail and s.frame_slot[tail] and s.swap_count[s.frame_slot[tail] - 1] > before:
        s.swap_count[s.frame_slot[tail] - 1] = before
    return following


FAULTS: tuple[tuple[int, StepFunction], ...] = (
    (steps.HUGE_MAP, new_huge_page_is_not_counted),
    (steps.HUGE_MAP, new_huge_page_maps_the_same_page_twice),
    (steps.HUGE_WP, huge_write_fault_always_reuses),
    (steps.HUGE_WP, huge_write_fault_splits_nothing),
    (steps.FORK_PAGE, fork_of_a_huge_page_counts_no_mapping),
    (steps.FORK_PAGE, fork_leaves_a_huge_page_writable),
    (steps.ZAP, zap_of_a_huge_page_keeps_its_count),
    (steps.ZAP, zap_of_a_page_frees_all_of_its_folio),
    (steps.SPLIT, split_gives_its_pages_one_reference_too_many),
    (steps.COLLAPSE, collapse_copies_nothing),
    (steps.COLLAPSE, collapse_keeps_the_old_page),
    (steps.RECLAIM_UNMAP, unmap_of_a_huge_page_counts_one_swap_entry),
)

AGAINST_CLAIMS: tuple[tuple[int, StepFunction], ...] = (
    (steps.SPLIT, split_ignores_references),
    (steps.COLLAPSE, collapse_ignores_references),
)


@pytest.mark.parametrize(("number", "fault"), FAULTS, ids=[fault.__name__ for _, fault in FAULTS])
def test_a_planted_fault_is_caught(number: int, fault: StepFunction) -> None:
    assert caught(number, fault)


@pytest.mark.parametrize(
    ("number", "fault"), AGAINST_CLAIMS, ids=[fault.__name__ for _, fault in AGAINST_CLAIMS]
)
def test_a_fault_contradicts_a_claim(number: int, fault: StepFunction) -> None:
    assert contradicted(number, fault)


def test_a_count_that_forgets_pmd_entries_is_caught() -> None:
    """Only the oldest kernel counts in two steps."""
    assert caught(steps.HUGE_WP_COUNT, one_pmd_entry_is_counted, ("linux-4.19",))
