"""MADV_FREE: pages that may be dropped, and read as zeros then, until they are written again.

Those of MAP_DROPPABLE may always be.
"""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.folio import (
    clear_flag,
    has_flag,
    is_anon,
    is_large,
    page_count,
    put_page,
    set_flag,
)
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.lock import (
    mmap_read_lock,
    mmap_read_unlock,
    ptl_taken,
    trylock_page,
    unlock_page,
)
from pageherd.machine.pte import is_droppable, pte_of, set_pte
from pageherd.machine.questions import (
    COUNT_FOLIO,
    DROP_IT,
    FREE_SKIPS,
    FREE_SKIPS_PMD,
    HWPOISON_FREE,
    KEEP_IT,
    KEEP_LAZY,
    LAZYFREE,
)
from pageherd.machine.rmap import page_remove_rmap
from pageherd.machine.split import split_if_large
from pageherd.machine.state import (
    COST_TLB_FLUSHES,
    OK,
    PG_DIRTY,
    PG_LAZYFREE,
    PG_LRU,
    PTE_DIRTY,
    PTE_HUGE,
    PTE_HWPOISON,
    PTE_PRESENT,
    PTE_SWAP,
    SEGV,
    VM_FILE,
    VM_HUGETLB,
    VM_LOCKED,
    VM_MAPPED,
    ask,
)
from pageherd.machine.swap import free_swap_and_cache, in_swap_cache, try_to_free_swap
from pageherd.machine.watch import detach


@helper
def becomes_clean(s: State, t: int, k: KernelRecord, frame: int) -> bool:
    """madvise_free_pte_range(): out of the swap cache and clean, which a shared page cannot be."""
    if not in_swap_cache(s, frame) and not has_flag(s, frame, PG_DIRTY):
        return True
    if not trylock_page(s, t, frame):
        return False
    clean = ask(s, t, k, FREE_SKIPS, frame) == 0
    if clean and in_swap_cache(s, frame):
        clean = try_to_free_swap(s, frame)
    if clean:
        clear_flag(s, frame, PG_DIRTY)
    unlock_page(s, frame)
    return clean


@step(steps.FREE)
def free(s: State, t: int, k: KernelRecord) -> int:
    """madvise_free_pte_range(): a swap entry goes at once, a page becomes clean and lazyfree.

    A large folio is split first (of one that a PMD maps: madvise_free_huge_pmd()).
    mark_page_lazyfree() collects pages in a batch of its own; here the page is marked at once.
    What the kernel leaves alone (shared and dirty, or still in an LRU batch) may become zero all
    the same until it is stored to: another sharer may free it, too.
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if not mmap_read_lock(s, t, mm) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    mmap_read_unlock(s, t, mm)
    vma = int(s.vma[mm, page])
    allowed = (vma & (VM_MAPPED | VM_LOCKED | VM_FILE | VM_HUGETLB)) == VM_MAPPED
    s.t_result[t] = OK if allowed else SEGV  # ENOMEM, EINVAL
    if not allowed:
        return steps.IDLE
    pte, to = pte_of(s, mm, page), int(s.pte_to[mm, page])
    if pte & PTE_PRESENT and is_large(s, to):
        skips = FREE_SKIPS_PMD if pte & PTE_HUGE else FREE_SKIPS
        if ask(s, t, k, skips, to) or not split_if_large(s, t, k, to):
            return steps.IDLE
        pte = pte_of(s, mm, page)
    if pte & PTE_SWAP:
        set_pte(s, mm, page, 0, 0)
        detach(s, mm, page)
        s.want[mm, page] = 0
        free_swap_and_cache(s, t, k, to)
    elif pte & PTE_HWPOISON and ask(s, t, k, HWPOISON_FREE, to):
        set_pte(s, mm, page, 0, 0)
        detach(s, mm, page)
        s.want[mm, page] = 0
    elif pte & PTE_PRESENT and is_anon(s, to):
        s.freed[mm, page] = 1
        if becomes_clean(s, t, k, to):
            s.pte[mm, page] = pte & ~PTE_DIRTY
            s.cost[COST_TLB_FLUSHES] += 1
            if has_flag(s, to, PG_LRU):
                set_flag(s, to, PG_LAZYFREE)
    return steps.IDLE


@helper
def may_drop(s: State, t: int, k: KernelRecord, mm: int, page: int, frame: int) -> int:
    """try_to_unmap_one(): a droppable page goes dirty or not, unless somebody else holds it."""
    if not is_droppable(s, mm, page):
        return ask(s, t, k, LAZYFREE, frame)
    alone = page_count(s, frame) == 1 + ask(s, t, k, COUNT_FOLIO, frame)
    return DROP_IT if alone else KEEP_LAZY


@helper
def drop_lazyfree(s: State, t: int, k: KernelRecord, mm: int, page: int, frame: int) -> bool:
    """try_to_unmap_one() of a lazyfree page: nothing is left of it, or the entry is put back."""
    answer = may_drop(s, t, k, mm, page, frame)
    if answer == KEEP_IT:
        clear_flag(s, frame, PG_LAZYFREE)  # SetPageSwapBacked()
    if answer != DROP_IT:
        return False
    set_pte(s, mm, page, 0, 0)
    if s.freed[mm, page] != 0 or is_droppable(s, mm, page):  # nobody has stored since, or may rely
        s.want[mm, page] = 0
        s.freed[mm, page] = 0
        detach(s, mm, page)
    s.cost[COST_TLB_FLUSHES] += 1
    page_remove_rmap(s, t, k, frame, mm, page)
    put_page(s, frame)
    return True
