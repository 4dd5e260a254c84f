"""Page faults: what is there, and which path handles it (handle_pte_fault, do_anonymous_page)."""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.anon_folio import alloc_anon_folio, pte_range_none
from pageherd.machine.anon_vma import anon_vma_prepare
from pageherd.machine.folio import (
    folio_nr_pages,
    has_flag,
    hold_frame,
    page_ref_add,
    put_page,
    set_exclusive,
    unhold,
)
from pageherd.machine.huge import set_pmd, thp_allowed
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.lock import locked_by_other, mmap_read_unlock, ptl_taken
from pageherd.machine.lru import lru_cache_add
from pageherd.machine.numa import do_numa_page, make_accessible
from pageherd.machine.pte import (
    is_hugetlb,
    may_write,
    pte_of,
    pte_same,
    remember_pte,
    set_pte,
    set_swapbacked,
    userfaultfd_pte_rwp,
    userfaultfd_pte_wp,
)
from pageherd.machine.questions import MIGRATION_WAIT_HOLDS
from pageherd.machine.rmap import page_add_rmap
from pageherd.machine.state import (
    COST_FAULTS,
    FAULT_UNSHARE,
    FAULT_WRITE,
    HOLD_NEW,
    NONE,
    NOTIFIED,
    PG_HUGETLB,
    PTE_DEVICE,
    PTE_DEVICE_EXCLUSIVE,
    PTE_DIRTY,
    PTE_GUARD,
    PTE_HUGE,
    PTE_HWPOISON,
    PTE_MIGRATION,
    PTE_PRESENT,
    PTE_PROTNONE,
    PTE_SOFT_DIRTY,
    PTE_SWAP,
    PTE_UFFD_WP,
    PTE_WRITE,
    SEGV,
    UFFD_RWP_ASYNC,
    VM_FILE,
    ZERO_FRAME,
    ask,
)


@helper
def migration_entry_wait(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """migration_entry_wait(): sleep until the page is unlocked, then fault again."""
    if ask(s, t, k, MIGRATION_WAIT_HOLDS, frame):
        hold_frame(s, t, frame)
        return steps.MIGRATION_WAIT
    return steps.BLOCKED if locked_by_other(s, t, frame) else int(s.t_return[t])


@helper
def marker_wp(s: State, t: int, mm: int, page: int) -> int:
    """vmf_orig_pte_uffd_wp(): the bit that a marker hands on to what is mapped in its place."""
    pte = int(s.t_pte[t])
    return PTE_UFFD_WP if userfaultfd_pte_wp(s, mm, page, pte) else 0


@helper
def refuse(s: State, t: int, mm: int) -> int:
    """A signal, or EFAULT for GUP: SIGSEGV of a guard region, SIGBUS of what is poisoned.

    handle_pte_marker() finds the one; do_swap_page() the other, an entry or a page of the swap
    cache (VM_FAULT_HWPOISON).
    """
    mmap_read_unlock(s, t, mm)
    s.t_result[t] = SEGV
    return steps.IDLE


@helper
def do_uffd_rwp(s: State, t: int, k: KernelRecord, mm: int, page: int) -> int:
    """do_uffd_rwp(): the userfaultfd has a message and the thread waits, as in handle_userfault().

    With UFFD_FEATURE_RWP_ASYNC the access just lifts the protection.
    """
    if int(s.mm_uffd[mm]) & UFFD_RWP_ASYNC:
        s.pte[mm, page] = pte_of(s, mm, page) & ~PTE_UFFD_WP
        make_accessible(s, t, k, mm, page)
        return int(s.t_return[t])
    mmap_read_unlock(s, t, mm)
    s.t_result[t] = NOTIFIED
    return steps.IDLE


@step(steps.FAULT)
def fault(s: State, t: int, k: KernelRecord) -> int:
    """handle_pte_fault(): look at the entry and choose the path.

    A read fault on nothing maps the shared zero page at once (do_anonymous_page).
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    pte = pte_of(s, mm, page)
    if pte & PTE_MIGRATION:
        return migration_entry_wait(s, t, k, int(s.pte_to[mm, page]))
    s.cost[COST_FAULTS] += 1
    remember_pte(s, t, mm, page)
    if pte & PTE_DEVICE:
        return steps.EXCLUSIVE_FAULT if pte & PTE_DEVICE_EXCLUSIVE else steps.MIGRATE_TO_RAM
    if pte & (PTE_GUARD | PTE_HWPOISON):
        return refuse(s, t, mm)
    if is_hugetlb(s, mm, page):
        return steps.HUGETLB_FAULT
    if pte & PTE_SWAP:
        return steps.SWAPIN_LOOKUP
    if pte & PTE_PROTNONE:
        if userfaultfd_pte_rwp(s, mm, page, pte):
            return do_uffd_rwp(s, t, k, mm, page)
        return do_numa_page(s, t, k, mm, page)
    if pte & PTE_PRESENT:
        write = (int(s.t_fault[t]) & FAULT_WRITE) != 0 and (pte & PTE_WRITE) == 0
        unshare = (int(s.t_fault[t]) & FAULT_UNSHARE) != 0 and (pte & PTE_WRITE) == 0
        if not (write or unshare):
            return int(s.t_return[t])
        return steps.HUGE_WP if pte & PTE_HUGE else steps.WP
    if int(s.vma[mm, page]) & VM_FILE:
        return steps.FILE_FAULT
    huge = thp_allowed(s, mm, page)
    if int(s.t_fault[t]) & FAULT_WRITE:
        return steps.HUGE_ALLOC if huge else steps.ANON_ALLOC
    pte = PTE_PRESENT | marker_wp(s, t, mm, page)
    if huge:  # do_huge_pmd_anonymous_page(): the huge zero page
        anon_vma_prepare(s, mm, page)
        set_pmd(s, mm, page, pte, ZERO_FRAME)
    else:
        set_pte(s, mm, page, pte, ZERO_FRAME)
    return int(s.t_return[t])


@step(steps.ANON_ALLOC)
def anon_alloc(s: State, t: int, k: KernelRecord) -> int:
    """do_anonymous_page(): a zeroed folio, allocated without the page-table lock."""
    s.t_new[t] = alloc_anon_folio(s, int(s.t_mm[t]), int(s.t_page[t]))
    if s.t_new[t] == NONE:
        return steps.IDLE  # the alarm is raised
    s.t_held[t] = int(s.t_held[t]) | HOLD_NEW
    return steps.ANON_MAP


@helper
def map_new_anon(s: State, t: int, k: KernelRecord, mm: int, page: int, pte: int) -> None:
    """Map the path's new folio at `page`: folio_add_new_anon_rmap(), LRU, the entries.

    Each of its pages is exclusive at birth.
    """
    new = int(s.t_new[t])
    anon_vma_prepare(s, mm, page)
    for i in range(folio_nr_pages(s, new)):
        page_add_rmap(s, t, k, new + i, mm, page + i)
        set_exclusive(s, k, new + i)
        set_pte(s, mm, page + i, pte, new + i)
        if i != 0:
            page_ref_add(s, new, 1)
    set_swapbacked(s, mm, page, new)
    if not has_flag(s, new, PG_HUGETLB):
        lru_cache_add(s, t, new)
    unhold(s, t, HOLD_NEW)  # the allocation's reference is the mapping's


@helper
def abandon_new(s: State, t: int) -> None:
    """The entry changed meanwhile: give the path's new page back."""
    unhold(s, t, HOLD_NEW)
    put_page(s, int(s.t_new[t]))


@step(steps.ANON_MAP)
def anon_map(s: State, t: int, k: KernelRecord) -> int:
    """do_anonymous_page(): map the folio, writable and dirty, if the entries are still empty."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    nr = folio_nr_pages(s, int(s.t_new[t]))
    first = page - page % nr
    if not (pte_same(s, t, mm, page) if nr == 1 else pte_range_none(s, mm, first, nr)):
        abandon_new(s, t)
        return int(s.t_return[t])
    pte = PTE_PRESENT | PTE_DIRTY | PTE_SOFT_DIRTY
    protected = marker_wp(s, t, mm, page)
    if may_write(s, mm, page) and not protected:
        pte |= PTE_WRITE
    map_new_anon(s, t, k, mm, first, pte | protected)
    return int(s.t_return[t])
