"""Splitting a folio into pages, and collapsing pages into one (split_huge_page, khugepaged)."""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.anon_vma import anon_vma_prepare, has_pte_table, pmd_first
from pageherd.machine.folio import (
    alloc_folio,
    clear_flag,
    compound_head,
    folio_nr_pages,
    free_if_unused,
    has_flag,
    is_anon,
    is_large,
    page_count,
    page_ref_add,
    put_page,
    set_exclusive,
    set_flag,
)
from pageherd.machine.huge import huge_order, map_by_pages, one_vma, set_pmd, split_huge_pmd
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.lock import (
    locked_by_other,
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_lock,
    mmap_write_unlock,
    ptl_taken,
)
from pageherd.machine.lru import lru_add_drain, lru_cache_add
from pageherd.machine.pte import (
    is_followed,
    may_write,
    pte_of,
    restore_none,
    set_pte,
    set_swapbacked,
)
from pageherd.machine.questions import (
    COLLAPSE_REFUSES,
    COUNT_FOLIO,
    DIRTY_ALL,
    DIRTY_PMDS,
    MIGRATION_DIRTY,
    MIGRATION_SOFT_DIRTY,
    SPLIT_ZEROS,
    UNMAP_REFUSES,
)
from pageherd.machine.rmap import find_mapping, folio_add_rmap_pmd, page_add_rmap, page_remove_rmap
from pageherd.machine.state import (
    BUSY,
    COST_COPIES,
    COST_TLB_FLUSHES,
    LIVE,
    NONE,
    OK,
    PG_DIRTY,
    PG_FILE,
    PG_ISOLATED,
    PG_LRU,
    PG_PARTIALLY_MAPPED,
    PG_WRITEBACK,
    PTE_DEVICE,
    PTE_DEVICE_EXCLUSIVE,
    PTE_DIRTY,
    PTE_GUARD,
    PTE_HUGE,
    PTE_HWPOISON,
    PTE_PRESENT,
    PTE_SOFT_DIRTY,
    PTE_SWAP,
    PTE_UFFD_WP,
    PTE_WRITE,
    SEGV,
    VM_ANON_VMA,
    VM_FILE,
    VM_LOCKED,
    VM_MAPPED,
    VM_NOHUGEPAGE,
    VM_PTE_TABLE,
    VM_UFFD_RWP,
    VM_UFFD_WP,
    ZERO_FRAME,
    ask,
)
from pageherd.machine.swap import has_mapping, in_swap_cache


@helper
def can_split_folio(s: State, t: int, k: KernelRecord, head: int, held: int) -> bool:
    """can_split_folio(): all references are mappings, a cache's, and `held` of the caller.

    The kernel looks once before it unmaps the folio, and again when it freezes the refcount.
    """
    cached = folio_nr_pages(s, head) if has_mapping(s, head) else 0
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
    see meanwhile: faults wait for the folio lock (`through_migration` says what they keep).
    A page that nothing maps is free afterwards.  Those of a file do not come back.
    """
    if not can_split_folio(s, t, k, head, held) or has_flag(s, head, PG_WRITEBACK):
        return False
    if not may_unmap_all(s, t, k, head):
        return False
    nr, pages = folio_nr_pages(s, head), int(s.nr_pages)
    if not is_anon(s, head):
        unmap_file_folio(s, t, k, head)
    at = find_mapping(s, head, 0, 0)
    while at != NONE:
        mm, page = at // pages, at % pages
        if pte_of(s, mm, page) & PTE_HUGE:
            map_by_pages(s, t, k, mm, page)
        if pte_of(s, mm, page) & PTE_DIRTY:
            set_flag(s, head, PG_DIRTY)
        at = find_mapping(s, head, (at + 1) // pages, (at + 1) % pages)
    if s.alarm != 0:
        return False
    dissolve(s, t, k, head, nr)
    for frame in range(head, head + nr):
        if ask(s, t, k, SPLIT_ZEROS, frame):
            map_zero_page(s, t, k, frame)
        through_migration(s, t, k, frame)
    s.refcount[head] = int(s.refcount[head]) + held
    for frame in range(head, head + nr):
        free_if_unused(s, frame)
    return True


@helper
def unmap_file_folio(s: State, t: int, k: KernelRecord, head: int) -> None:
    """unmap_folio(), try_to_unmap_one() with TTU_SPLIT_HUGE_PMD: a file's entries go for good."""
    pages = int(s.nr_pages)
    at = find_mapping(s, head, 0, 0)
    while at != NONE:
        mm, page = at // pages, at % pages
        pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
        if pte & PTE_HUGE:
            split_huge_pmd(s, t, k, mm, page)
        else:
            set_pte(s, mm, page, 0, 0)
            page_remove_rmap(s, t, k, frame, mm, page)
            page_ref_add(s, head, -1)
            if pte & PTE_DIRTY:
                set_flag(s, head, PG_DIRTY)
        at = find_mapping(s, head, (at + 1) // pages, (at + 1) % pages)


@helper
def through_migration(s: State, t: int, k: KernelRecord, frame: int) -> None:
    """remap_page(): the dirty bits of entries that were migration entries meanwhile.

    A device has lost its page then, which is mapped read-only.
    """
    pages = int(s.nr_pages)
    at = find_mapping(s, frame, 0, 0)
    while at != NONE:
        mm, page = at // pages, at % pages
        pte = pte_of(s, mm, page)
        if pte & PTE_DIRTY:
            kept = dirty_again(s, t, k, pte, frame)
            s.pte[mm, page] = kept if ask(s, t, k, MIGRATION_DIRTY, frame) else pte & ~PTE_DIRTY
        if pte & PTE_DEVICE_EXCLUSIVE:
            present = PTE_PRESENT | (pte & (PTE_SOFT_DIRTY | PTE_UFFD_WP))
            s.pte[mm, page] = restore_none(s, mm, page, present)
        at = find_mapping(s, frame, (at + 1) // pages, (at + 1) % pages)


@helper
def dirty_again(s: State, t: int, k: KernelRecord, pte: int, frame: int) -> int:
    """remove_migration_pte(), remove_migration_pmd(): x86's pte_mkdirty() sets two bits."""
    soft = ask(s, t, k, MIGRATION_SOFT_DIRTY, frame) if pte & PTE_DIRTY else 0
    if soft == DIRTY_ALL or (soft == DIRTY_PMDS and (pte & PTE_HUGE) != 0):
        return pte | PTE_SOFT_DIRTY
    return pte


@helper
def map_zero_page(s: State, t: int, k: KernelRecord, frame: int) -> None:
    """try_to_map_unused_to_zeropage(): the zero page for a page of zeros, but in locked memory."""
    if s.content[frame] != 0:
        return
    pages = int(s.nr_pages)
    at = find_mapping(s, frame, 0, 0)
    while at != NONE:
        mm, page = at // pages, at % pages
        if (int(s.vma[mm, page]) & VM_LOCKED) == 0:
            kept = pte_of(s, mm, page) & (PTE_SOFT_DIRTY | PTE_UFFD_WP)
            page_remove_rmap(s, t, k, frame, mm, page)
            page_ref_add(s, frame, -1)
            set_pte(s, mm, page, PTE_PRESENT | kept, ZERO_FRAME)
        at = find_mapping(s, frame, (at + 1) // pages, (at + 1) % pages)


@helper
def dissolve(s: State, t: int, k: KernelRecord, head: int, nr: int) -> None:
    """__split_huge_page(): each page has its own counts, flags and place on the LRU list now."""
    dirty, of_file = has_flag(s, head, PG_DIRTY), has_flag(s, head, PG_FILE)
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
        s.refcount[frame] = 1 if in_swap_cache(s, frame) or of_file else 0
        if dirty:
            set_flag(s, frame, PG_DIRTY)
        if of_file:
            set_flag(s, frame, PG_FILE)
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
    """split_huge_pages_pid(): the folio that a page is mapped to, not what it is swapped out to."""
    mm, page, frame = int(s.t_mm[t]), int(s.t_page[t]), int(s.t_frame[t])
    s.t_result[t] = BUSY
    mapped = (pte_of(s, mm, page) & PTE_PRESENT) != 0 and is_followed(s, t, k, mm, page)
    if mapped and frame != NONE and is_large(s, frame) and split_if_large(s, t, k, frame):
        s.t_result[t] = OK
    return steps.IDLE


# -- collapse --------------------------------------------------------------------------------------


@helper
def may_be_huge(s: State, mm: int, page: int) -> bool:
    """thp_vma_allowable_order(): one VMA of anonymous memory that does not refuse huge pages."""
    vma = int(s.vma[mm, page])
    if (vma & VM_MAPPED) == 0 or vma & (VM_FILE | VM_NOHUGEPAGE):
        return False
    return one_vma(s, mm, page)


@helper
def scan_refuses(s: State, t: int, k: KernelRecord, mm: int, first: int) -> int:
    """hpage_collapse_scan_pmd(): BUSY if these pages cannot be collapsed, or OK.

    MADV_COLLAPSE asks for a page table (SCAN_PMD_NULL) and an anon_vma (SCAN_PAGE_ANON), not for
    pages.
    """
    any_write = False
    armed = (int(s.vma[mm, first]) & (VM_UFFD_WP | VM_UFFD_RWP)) != 0
    for page in range(first, first + int(s.nr_huge)):
        pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
        if pte & PTE_UFFD_WP:
            return BUSY  # SCAN_PTE_UFFD_WP
        if armed and (pte == 0 or frame == ZERO_FRAME):
            return BUSY  # SCAN_EXCEED_NONE_PTE: its userfaultfd may want to fill it
        any_write = any_write or (pte & (PTE_PRESENT | PTE_WRITE)) == PTE_PRESENT | PTE_WRITE
        if pte & PTE_PRESENT and is_anon(s, frame):
            if not has_flag(s, frame, PG_LRU) or locked_by_other(s, t, frame):
                return BUSY
            cached = folio_nr_pages(s, frame) if in_swap_cache(s, frame) else 0
            if page_count(s, frame) != ask(s, t, k, COUNT_FOLIO, frame) + cached:
                return BUSY  # SCAN_PAGE_COUNT: somebody else has a reference
    if not has_pte_table(s, mm, first) or (int(s.vma[mm, first]) & VM_ANON_VMA) == 0:
        return BUSY
    if not any_write and ask(s, t, k, COLLAPSE_REFUSES, 0):
        return BUSY
    return OK


@step(steps.COLLAPSE)
def collapse(s: State, t: int, k: KernelRecord) -> int:
    """collapse_huge_page(): mmap_lock and anon_vma for writing, so it is one step for everyone.

    Each page is copied into one new folio, mapped by one entry; pages shared with other processes
    are theirs alone afterwards.  Swapped pages are swapped in first, if the others can be collapsed
    (__collapse_huge_page_swapin()), what a device has comes back, and then all are looked at again.
    The fault on a guard region or poison fails.
    """
    if s.nr_huge <= 1:
        s.t_result[t] = SEGV  # EINVAL: no huge page fits
        return steps.IDLE
    mm, first = int(s.t_mm[t]), pmd_first(s, int(s.t_page[t]))
    if s.mm_state[mm] != LIVE:  # process_madvise(): ESRCH
        s.t_result[t] = SEGV
        return steps.IDLE
    mmap_read_unlock(s, t, mm)
    if not mmap_write_lock(s, t, mm) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    lru_add_drain(s, int(s.t_cpu[t]))
    mmap_write_unlock(s, mm)
    if not may_be_huge(s, mm, first):
        s.t_result[t] = SEGV  # EINVAL
        return steps.IDLE
    huge = PTE_HUGE | PTE_PRESENT
    if pte_of(s, mm, first) & huge == huge:  # SCAN_PMD_MAPPED; the huge zero page will do
        s.t_result[t] = OK
        return steps.IDLE
    s.t_result[t] = scan_refuses(s, t, k, mm, first)
    swapped = first
    absent = PTE_SWAP | PTE_DEVICE | PTE_GUARD | PTE_HWPOISON
    while swapped < first + int(s.nr_huge) and (pte_of(s, mm, swapped) & absent) == 0:
        swapped += 1
    if s.t_result[t] == OK and swapped < first + int(s.nr_huge):
        if (pte_of(s, mm, swapped) & (PTE_SWAP | PTE_DEVICE)) == 0:
            s.t_result[t] = BUSY  # SCAN_FAIL
    if s.t_result[t] == OK and swapped < first + int(s.nr_huge):
        if not mmap_read_lock(s, t, mm):
            return steps.BLOCKED
        s.t_page[t] = swapped
        s.t_return[t] = steps.COLLAPSE
        return steps.FAULT
    if s.t_result[t] == OK:
        collapse_pages(s, t, k, mm, first)
    return steps.IDLE


@helper
def collapse_pages(s: State, t: int, k: KernelRecord, mm: int, first: int) -> None:
    """__collapse_huge_page_copy(), and the new entry: writable and dirty, exclusive at birth."""
    new = alloc_folio(s, huge_order(s))
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
        s.vma[mm, first + i] = int(s.vma[mm, first + i]) & ~VM_PTE_TABLE
    anon_vma_prepare(s, mm, first)
    set_pmd(s, mm, first, pte, new)
    folio_add_rmap_pmd(s, t, k, new, mm, first)
    set_swapbacked(s, mm, first, new)
    set_exclusive(s, k, new)
    lru_cache_add(s, t, new)
