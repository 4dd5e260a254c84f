"""Splitting a folio into pages, and collapsing pages into one (split_huge_page, khugepaged)."""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.huge import pmd_first, set_pmd, split_huge_pmd
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.questions import COLLAPSE_REFUSES, COUNT_FOLIO, UNMAP_REFUSES
from pageherd.machine.state import (
    BUSY,
    COST_COPIES,
    COST_TLB_FLUSHES,
    NONE,
    OK,
    PG_DIRTY,
    PG_ISOLATED,
    PG_LRU,
    PG_PARTIALLY_MAPPED,
    PG_WRITEBACK,
    PTE_DIRTY,
    PTE_HUGE,
    PTE_PRESENT,
    PTE_SOFT_DIRTY,
    PTE_SWAP,
    PTE_WRITE,
    SEGV,
    VM_ANON_VMA,
    VM_FILE,
    VM_MAPPED,
    VM_PTE_TABLE,
    alloc_folio,
    ask,
    clear_flag,
    compound_head,
    find_mapping,
    folio_add_rmap_pmd,
    folio_nr_pages,
    free_if_unused,
    has_flag,
    in_swap_cache,
    is_anon,
    is_large,
    locked_by_other,
    lru_add_drain,
    lru_cache_add,
    may_write,
    mmap_write_lock,
    mmap_write_unlock,
    page_add_rmap,
    page_count,
    page_ref_add,
    page_remove_rmap,
    pte_of,
    ptl_taken,
    put_page,
    set_exclusive,
    set_flag,
    set_pte,
)


@helper
def can_split_folio(s: State, t: int, k: KernelRecord, head: int, held: int) -> bool:
    """can_split_folio(): all references are mappings, the swap cache's, and `held` of the caller.

    The kernel looks once before it unmaps the folio, and again when it freezes the refcount.
    """
    cached = folio_nr_pages(s, head) if in_swap_cache(s, head) else 0
    return page_count(s, head) == ask(s, t, k, COUNT_FOLIO, head) + cached + held


@helper
def may_unmap_all(s: State, t: int, k: KernelRecord, head: int) -> bool:
    """unmap_folio(): whether no page refuses its migration entry (exclusive, and maybe pinned)."""
    for frame in range(head, head + folio_nr_pages(s, head)):
        if ask(s, t, k, UNMAP_REFUSES, frame):
            return False
    return True


@helper
def split_folio(s: State, t: int, k: KernelRecord, head: int, held: int) -> bool:
    """split_huge_page(), folio lock and anon_vma lock held; `held` references are the caller's.

    They stay with the first page.  Entries become migration entries and come back, which nobody can
    see meanwhile: faults wait for the folio lock.  A page that nothing maps is free afterwards.
    """
    if not can_split_folio(s, t, k, head, held) or has_flag(s, head, PG_WRITEBACK):
        return False
    if not may_unmap_all(s, t, k, head):
        return False
    nr, pages = folio_nr_pages(s, head), int(s.nr_pages)
    at = find_mapping(s, head, 0, 0)
    while at != NONE:
        split_huge_pmd(s, t, k, at // pages, at % pages)
        at = find_mapping(s, head, (at + 1) // pages, (at + 1) % pages)
    if s.alarm != 0:
        return False
    dissolve(s, t, k, head, nr)
    s.refcount[head] = int(s.refcount[head]) + held
    for frame in range(head, head + nr):
        free_if_unused(s, frame)
    return True


@helper
def dissolve(s: State, t: int, k: KernelRecord, head: int, nr: int) -> None:
    """__split_huge_page(): each page has its own counts, flags and place on the LRU list now."""
    dirty = has_flag(s, head, PG_DIRTY)
    clear_flag(s, head, PG_PARTIALLY_MAPPED)
    pages = int(s.nr_pages)
    for frame in range(head, head + nr):
        s.frame_tail[frame] = 0
        s.frame_order[frame] = 0
        s.entire_mapcount[frame] = 0
        s.large_mapcount[frame] = 0
        s.mm_id[frame, 0] = 0
        s.mm_id[frame, 1] = 0
        s.mm_id_mapcount[frame, 0] = 0
        s.mm_id_mapcount[frame, 1] = 0
        s.mapcount[frame] = 0
        s.refcount[frame] = 1 if in_swap_cache(s, frame) else 0
        if dirty:
            set_flag(s, frame, PG_DIRTY)
        if frame != head:
            set_flag(s, frame, PG_LRU)
            clear_flag(s, frame, PG_ISOLATED)
    for frame in range(head, head + nr):
        at = find_mapping(s, frame, 0, 0)
        while at != NONE:
            page_ref_add(s, frame, 1)
            page_add_rmap(s, t, k, frame, at // pages, at % pages)
            at = find_mapping(s, frame, (at + 1) // pages, (at + 1) % pages)


@helper
def split_if_large(s: State, t: int, k: KernelRecord, frame: int) -> bool:
    """split_folio() under the folio lock, with one reference; whether the page is a small one now.

    A folio that somebody has locked stays.
    """
    if not is_large(s, frame):
        return True
    head = compound_head(s, frame)
    if locked_by_other(s, t, head) or s.refcount[head] == 0:
        return False
    page_ref_add(s, head, 1)
    done = split_folio(s, t, k, head, 1)
    put_page(s, head)
    return done


@step(steps.SPLIT)
def split(s: State, t: int, k: KernelRecord) -> int:
    """split_huge_pages, the deferred split shrinker."""
    frame = int(s.t_frame[t])
    s.t_result[t] = BUSY
    if frame != NONE and is_large(s, frame) and split_if_large(s, t, k, frame):
        s.t_result[t] = OK
    return steps.IDLE


# -- collapse --------------------------------------------------------------------------------------


@helper
def scan_refuses(s: State, t: int, k: KernelRecord, mm: int, first: int) -> int:
    """hpage_collapse_scan_pmd(): why these pages cannot be collapsed (BUSY, SEGV), or OK."""
    vma = int(s.vma[mm, first]) & ~(VM_ANON_VMA | VM_PTE_TABLE)
    if (vma & VM_MAPPED) == 0 or vma & VM_FILE:
        return SEGV
    any_page, any_write = False, False
    for page in range(first, first + int(s.nr_huge)):
        pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
        if int(s.vma[mm, page]) & ~(VM_ANON_VMA | VM_PTE_TABLE) != vma:
            return SEGV
        any_write = any_write or (pte & PTE_WRITE) != 0
        if pte & PTE_SWAP:
            return BUSY
        if pte & PTE_PRESENT and is_anon(s, frame):
            any_page = True
            if not has_flag(s, frame, PG_LRU) or locked_by_other(s, t, frame):
                return BUSY
            cached = folio_nr_pages(s, frame) if in_swap_cache(s, frame) else 0
            if page_count(s, frame) != ask(s, t, k, COUNT_FOLIO, frame) + cached:
                return BUSY  # SCAN_PAGE_COUNT: somebody else has a reference
    if not any_page or (not any_write and ask(s, t, k, COLLAPSE_REFUSES, 0)):
        return BUSY
    return OK


@step(steps.COLLAPSE)
def collapse(s: State, t: int, k: KernelRecord) -> int:
    """collapse_huge_page(): mmap_lock and anon_vma for writing, so it is one step for everyone.

    Each page is copied into one new folio, mapped by one entry; pages shared with other processes
    are theirs alone afterwards.  Swapped pages are left to the caller.
    """
    if s.nr_huge <= 1:
        s.t_result[t] = SEGV  # EINVAL: no huge page fits
        return steps.IDLE
    mm, first = int(s.t_mm[t]), pmd_first(s, int(s.t_page[t]))
    if not mmap_write_lock(s, t, mm) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    lru_add_drain(s, int(s.t_cpu[t]))
    mmap_write_unlock(s, mm)
    if pte_of(s, mm, first) & PTE_HUGE and is_anon(s, int(s.pte_to[mm, first])):
        s.t_result[t] = OK
        return steps.IDLE
    s.t_result[t] = scan_refuses(s, t, k, mm, first)
    if s.t_result[t] == OK:
        collapse_pages(s, t, k, mm, first)
    return steps.IDLE


@helper
def collapse_pages(s: State, t: int, k: KernelRecord, mm: int, first: int) -> None:
    """__collapse_huge_page_copy(), and the new entry: writable and dirty, exclusive at birth."""
    order = 0
    while 1 << order < s.nr_huge:
        order += 1
    new = alloc_folio(s, order)
    if new == NONE:
        return
    for i in range(s.nr_huge):
        pte, old = pte_of(s, mm, first + i), int(s.pte_to[mm, first + i])
        set_pte(s, mm, first + i, 0, 0)
        if pte & PTE_PRESENT and is_anon(s, old):
            s.content[new + i] = s.content[old]
            s.cost[COST_COPIES] += 1
            page_remove_rmap(s, t, k, old, mm, first + i)
            put_page(s, old)
    s.cost[COST_TLB_FLUSHES] += 1
    pte = PTE_PRESENT | PTE_DIRTY | PTE_SOFT_DIRTY
    if may_write(s, mm, first):
        pte |= PTE_WRITE
    for i in range(s.nr_huge):
        s.vma[mm, first + i] = (int(s.vma[mm, first + i]) | VM_ANON_VMA) & ~VM_PTE_TABLE
    set_pmd(s, mm, first, pte, new)
    folio_add_rmap_pmd(s, t, k, new, mm, first)
    set_exclusive(s, k, new)
    lru_cache_add(s, t, new)
