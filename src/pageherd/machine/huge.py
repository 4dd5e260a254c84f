"""Huge pages: one PMD entry maps a whole folio (do_huge_pmd_anonymous_page, do_huge_pmd_wp_page).

A PMD entry is kept as one page-table entry for each of its pages, all with the same flags and
PTE_HUGE; `nr_huge` pages make one, the first at a multiple of it.  One page table entry more, or a
change to one page alone, first splits it: the same pages, mapped one by one.
"""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.anon_vma import anon_vma_prepare, pmd_first, same_vma
from pageherd.machine.folio import (
    alloc_folio,
    hold_frame,
    is_anon,
    is_exclusive,
    page_ref_add,
    put_page,
    set_exclusive,
    set_flag,
    unhold,
)
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.lock import locked_by_other, ptl_taken, trylock_page, unlock_page
from pageherd.machine.lru import lru_cache_add
from pageherd.machine.pte import (
    finish_write_fault,
    may_write,
    pte_of,
    pte_same,
    remember_pte,
    set_pte,
    set_swapbacked,
)
from pageherd.machine.questions import (
    COPY,
    COUNT_PMDS,
    FILE_HUGE_COW,
    HUGE_REUSE,
    HUGE_UNSHARE,
    HUGE_ZERO_WRITE,
    PMD_SPLIT_DIRTY,
    REUSE_PAGE,
    WAIT_FOR_LOCK,
)
from pageherd.machine.rmap import folio_add_rmap_pmd, folio_remove_rmap_pmd, page_add_rmap
from pageherd.machine.state import (
    COST_COPIES,
    COST_TLB_FLUSHES,
    FAULT_UNSHARE,
    HOLD_FRAME,
    HOLD_NEW,
    NONE,
    PG_DIRTY,
    PTE_DIRTY,
    PTE_HUGE,
    PTE_PRESENT,
    PTE_SOFT_DIRTY,
    PTE_WRITE,
    VM_FILE,
    VM_HUGEPAGE,
    VM_PTE_TABLE,
    ZERO_FRAME,
    ask,
)


@helper
def huge_order(s: State) -> int:
    """HPAGE_PMD_ORDER."""
    order = 0
    while 1 << order < s.nr_huge:
        order += 1
    return order


@helper
def covers_pmd(s: State, page: int, first: int, end: int) -> bool:
    """Whether the pages first .. end - 1 are all that the PMD entry of `page` maps, and more."""
    start = pmd_first(s, page)
    return first <= start and start + int(s.nr_huge) <= end


@helper
def one_vma(s: State, mm: int, page: int) -> bool:
    """Whether one VMA has all pages under the PMD entry of `page`."""
    return same_vma(s, mm, pmd_first(s, page), pmd_first(s, page) + int(s.nr_huge) - 1)


@helper
def free_pte_tables(s: State, mm: int, first: int, end: int) -> None:
    """try_to_free_pte(): among first .. end - 1, a page table with no entries left goes."""
    for page in range(first, end):
        if not covers_pmd(s, page, first, end) or not one_vma(s, mm, page):
            continue
        empty = True
        for each in range(pmd_first(s, page), pmd_first(s, page) + int(s.nr_huge)):
            empty = empty and s.pte[mm, each] == 0
        if empty:
            s.vma[mm, page] = int(s.vma[mm, page]) & ~VM_PTE_TABLE


@helper
def thp_allowed(s: State, mm: int, page: int) -> bool:
    """thp_vma_suitable_order() and pmd_none(): one VMA asks for it, and nothing is there.

    Nor is another size the only one that is enabled.
    """
    if s.nr_huge <= 1 or s.anon_order != 0:
        return False
    first = pmd_first(s, page)
    for each in range(first, first + int(s.nr_huge)):
        vma = int(s.vma[mm, each])
        if s.pte[mm, each] != 0 or vma & VM_PTE_TABLE or (vma & VM_HUGEPAGE) == 0:
            return False
    return one_vma(s, mm, page)


@helper
def set_pmd(s: State, mm: int, page: int, pte: int, head: int) -> None:
    """One PMD entry for the folio at `head`, or for the huge zero page."""
    first = pmd_first(s, page)
    for i in range(s.nr_huge):
        frame = head if head == ZERO_FRAME else head + i
        set_pte(s, mm, first + i, pte | PTE_HUGE if pte else 0, frame)


@helper
def set_entry(s: State, mm: int, page: int, pte: int) -> None:
    """What maps `page` becomes `pte`, which maps the same: all of a PMD entry."""
    if pte & PTE_HUGE:
        set_pmd(s, mm, page, pte, int(s.pte_to[mm, pmd_first(s, page)]))
    else:
        s.pte[mm, page] = pte


@helper
def touch_written(s: State, mm: int, page: int) -> None:
    """FOLL_TOUCH of what is to be written: a PMD entry becomes dirty, of any other its page."""
    pte = pte_of(s, mm, page)
    if pte & PTE_HUGE:
        set_entry(s, mm, page, pte | PTE_DIRTY | PTE_SOFT_DIRTY)  # touch_pmd()
    elif (pte & PTE_DIRTY) == 0:
        set_flag(s, int(s.pte_to[mm, page]), PG_DIRTY)  # follow_page_pte()


@helper
def split_huge_pmd(s: State, t: int, k: KernelRecord, mm: int, page: int) -> None:
    """__split_huge_pmd(): the same pages mapped one by one; cannot fail.

    A dirty entry makes the folio dirty.  Entries that stay dirty are soft-dirty too: x86's
    pte_mkdirty().  That of a file's folio just goes.
    """
    pte = pte_of(s, mm, page)
    if (pte & PTE_HUGE) == 0:
        return
    if int(s.vma[mm, page]) & VM_FILE:
        unmap_file_pmd(s, t, k, mm, page)
        return
    head = int(s.pte_to[mm, pmd_first(s, page)])
    map_by_pages(s, t, k, mm, page)
    if (pte & PTE_PRESENT) == 0 or (pte & PTE_DIRTY) == 0 or not is_anon(s, head):
        return
    set_flag(s, head, PG_DIRTY)
    stays = ask(s, t, k, PMD_SPLIT_DIRTY, head) != 0
    pte = pte & ~PTE_HUGE | PTE_SOFT_DIRTY if stays else pte & ~(PTE_HUGE | PTE_DIRTY)
    for i in range(s.nr_huge):
        set_pte(s, mm, pmd_first(s, page) + i, pte, head + i)


@helper
def unmap_file_pmd(s: State, t: int, k: KernelRecord, mm: int, page: int) -> None:
    """__split_huge_pmd_locked() of a file: faults will find its pages again in the page cache.

    It leaves no page table.  A migration entry counts nothing.
    """
    pte, first = pte_of(s, mm, page), pmd_first(s, page)
    head = int(s.pte_to[mm, first])
    set_pmd(s, mm, page, 0, ZERO_FRAME)
    s.cost[COST_TLB_FLUSHES] += 1
    if pte & PTE_PRESENT:
        if pte & PTE_DIRTY:
            set_flag(s, head, PG_DIRTY)
        folio_remove_rmap_pmd(s, t, k, head, mm, first)
        put_page(s, head)


@helper
def map_by_pages(s: State, t: int, k: KernelRecord, mm: int, page: int) -> None:
    """__split_huge_pmd_locked(): an entry for each page, alike, in place of that of the PMD.

    The head's exclusive mark is now every page's (6c287605fd56, v5.19).  A migration entry counts
    nothing.
    """
    pte = pte_of(s, mm, page)
    first = pmd_first(s, page)
    head, nr = int(s.pte_to[mm, first]), int(s.nr_huge)
    s.cost[COST_TLB_FLUSHES] += 1
    if pte & PTE_PRESENT and is_anon(s, head):
        page_ref_add(s, head, nr - 1)
        for i in range(nr):
            page_add_rmap(s, t, k, head + i, mm, first + i)
            if is_exclusive(s, head):
                set_exclusive(s, k, head + i)
        folio_remove_rmap_pmd(s, t, k, head, mm, first)
    for i in range(nr):
        set_pte(s, mm, first + i, pte & ~PTE_HUGE, int(s.pte_to[mm, first + i]))


@helper
def split_unless_covered(
    s: State, t: int, k: KernelRecord, mm: int, page: int, first: int, end: int
) -> None:
    """split_huge_pmd() where a change to the pages first .. end - 1 is not to all of the PMD."""
    if pte_of(s, mm, page) & PTE_HUGE and not covers_pmd(s, page, first, end):
        split_huge_pmd(s, t, k, mm, page)


# -- a new huge page -------------------------------------------------------------------------------


@step(steps.HUGE_ALLOC)
def huge_alloc(s: State, t: int, k: KernelRecord) -> int:
    """vma_alloc_anon_folio_pmd(): a zeroed folio, allocated without the page-table lock."""
    s.t_new[t] = alloc_folio(s, huge_order(s))
    if s.t_new[t] == NONE:
        return steps.IDLE  # the alarm is raised
    s.t_held[t] = int(s.t_held[t]) | HOLD_NEW
    return steps.HUGE_COPY if int(s.t_held[t]) & HOLD_FRAME else steps.HUGE_MAP


@step(steps.HUGE_COPY)
def huge_copy(s: State, t: int, k: KernelRecord) -> int:
    """copy_user_huge_page(): until v5.7 (3917c80280c9) a huge page is copied whole."""
    old, new = int(s.t_frame[t]), int(s.t_new[t])
    for i in range(s.nr_huge):
        s.content[new + i] = s.content[old + i]
        s.cost[COST_COPIES] += 1
        s.copies += 1
    return steps.HUGE_MAP


@step(steps.HUGE_MAP)
def huge_map(s: State, t: int, k: KernelRecord) -> int:
    """map_anon_folio_pmd(): writable and dirty, exclusive at birth, if the entry is the same."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    first, new, old = pmd_first(s, page), int(s.t_new[t]), int(s.t_pte_to[t])
    same = pte_same(s, t, mm, page) and (s.t_pte[t] != 0 or thp_allowed(s, mm, page))
    unhold(s, t, HOLD_NEW)  # the allocation's reference is the mapping's, or goes
    if same:
        pte = PTE_PRESENT | PTE_DIRTY | PTE_SOFT_DIRTY
        if may_write(s, mm, page):
            pte |= PTE_WRITE
        anon_vma_prepare(s, mm, page)
        set_pmd(s, mm, page, pte, new)
        folio_add_rmap_pmd(s, t, k, new, mm, first)
        set_swapbacked(s, mm, page, new)
        set_exclusive(s, k, new)
        lru_cache_add(s, t, new)
        if s.t_pte[t] != 0:
            finish_write_fault(s, t, mm, page)
    else:
        put_page(s, new)
    if int(s.t_held[t]) & HOLD_FRAME:
        head = int(s.t_frame[t])
        if same and is_anon(s, old):
            folio_remove_rmap_pmd(s, t, k, head, mm, first)
            put_page(s, head)  # the mapping's reference
        unhold(s, t, HOLD_FRAME)
        put_page(s, head)
    return int(s.t_return[t])


# -- write and unshare faults ----------------------------------------------------------------------


@helper
def do_huge_pmd_wp_page(s: State, t: int, k: KernelRecord, mm: int, page: int) -> int:
    """do_huge_pmd_wp_page(), page-table lock held: reuse, copy, or split and decide by page."""
    unshare = (int(s.t_fault[t]) & FAULT_UNSHARE) != 0
    remember_pte(s, t, mm, page)
    head = int(s.pte_to[mm, pmd_first(s, page)])
    if not is_anon(s, head):
        if ask(s, t, k, HUGE_ZERO_WRITE, head):
            return steps.HUGE_ALLOC
        split_huge_pmd(s, t, k, mm, page)
        remember_pte(s, t, mm, page)
        return steps.WP
    answer = ask(s, t, k, HUGE_UNSHARE if unshare else HUGE_REUSE, head)
    if answer == WAIT_FOR_LOCK:
        hold_frame(s, t, head)
        return steps.HUGE_WP_WAIT
    if answer == COUNT_PMDS:
        s.mm_ptl[mm] = t + 1
        return steps.HUGE_WP_COUNT
    if answer == REUSE_PAGE:
        set_exclusive(s, k, head)
        if not unshare:
            pte = pte_of(s, mm, page) | PTE_DIRTY | PTE_SOFT_DIRTY
            set_pmd(s, mm, page, pte | (PTE_WRITE if may_write(s, mm, page) else 0), head)
            finish_write_fault(s, t, mm, page)
        return int(s.t_return[t])
    if answer == COPY:
        hold_frame(s, t, head)
        return steps.HUGE_ALLOC
    split_huge_pmd(s, t, k, mm, page)
    remember_pte(s, t, mm, page)
    return steps.WP  # VM_FAULT_FALLBACK: the page-table entry decides


@step(steps.HUGE_WP)
def huge_wp(s: State, t: int, k: KernelRecord) -> int:
    """wp_huge_pmd(): under the page-table lock, if the entry is still the one seen.

    That of a file's folio goes, and the fault goes on as one on nothing (VM_FAULT_FALLBACK): so an
    unshare fault, which is no write, maps the huge page again.  If it stays, handle_pte_fault()
    finds no page table (pmd_devmap_trans_unstable()) and has nothing to do.
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    if not pte_same(s, t, mm, page):
        return int(s.t_return[t])
    if int(s.vma[mm, page]) & VM_FILE:
        if not ask(s, t, k, FILE_HUGE_COW, int(s.pte_to[mm, page])):
            return int(s.t_return[t])
        split_huge_pmd(s, t, k, mm, page)
        remember_pte(s, t, mm, page)
        return steps.FILE_FAULT
    return do_huge_pmd_wp_page(s, t, k, mm, page)


@step(steps.HUGE_WP_COUNT)
def huge_wp_count(s: State, t: int, k: KernelRecord) -> int:
    """page_trans_huge_map_swapcount(), both locks still held: what its loop has not read yet."""
    s.mm_ptl[int(s.t_mm[t])] = 0
    return do_huge_pmd_wp_page(s, t, k, int(s.t_mm[t]), int(s.t_page[t]))


@step(steps.HUGE_WP_WAIT)
def huge_wp_wait(s: State, t: int, k: KernelRecord) -> int:
    """do_huge_pmd_wp_page(): sleep for the page lock with a reference, then decide again."""
    mm, page, head = int(s.t_mm[t]), int(s.t_page[t]), int(s.t_frame[t])
    if locked_by_other(s, t, head) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    trylock_page(s, t, head)
    same = pte_same(s, t, mm, page)
    unhold(s, t, HOLD_FRAME)
    unlock_page(s, head)
    put_page(s, head)
    return do_huge_pmd_wp_page(s, t, k, mm, page) if same else int(s.t_return[t])
