"""Reclaim of one page: MADV_PAGEOUT and kswapd (shrink_page_list), write-back, and swapoff."""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.anon_vma import pmd_first, same_vma, vma_end
from pageherd.machine.file import remove_from_page_cache
from pageherd.machine.folio import (
    alloc_frame,
    clear_flag,
    compound_head,
    folio_nr_pages,
    has_flag,
    is_anon,
    is_exclusive,
    is_ksm,
    is_large,
    page_count,
    page_ref_add,
    put_page,
    set_exclusive,
    set_flag,
    unhold,
)
from pageherd.machine.huge import split_huge_pmd
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.ksm import is_strange, join_family, private_copy
from pageherd.machine.layout import State
from pageherd.machine.lazyfree import drop_lazyfree
from pageherd.machine.lock import ptl_taken, trylock_page, unlock_page
from pageherd.machine.lru import isolate_lru_page, lru_add_drain, lru_cache_add
from pageherd.machine.pte import pte_of, range_mapped, restore_none, set_pte
from pageherd.machine.questions import (
    PAGEOUT_SKIPS,
    PAGEOUT_SPLITS,
    RECLAIM_SKIPS,
    RMAP_STOPS,
    STILL_MAPPED,
    SWAP_EXCLUSIVE,
    SWAPOFF_KEEPS_BITS,
    SWAPOFF_POISON,
    SWAPOUT_SPLITS,
    SWAPOUT_ZEROS,
    UNMAP_REFUSES,
)
from pageherd.machine.rmap import find_mapping, maps_here, page_add_rmap, page_remove_rmap
from pageherd.machine.split import can_split_folio, split_folio, split_if_large
from pageherd.machine.state import (
    BUSY,
    COST_RMAP_STEPS,
    COST_TLB_FLUSHES,
    FILE_MEMFD,
    FULL,
    HOLD_FRAME,
    NONE,
    OK,
    PG_DIRTY,
    PG_EXCLUSIVE,
    PG_FILE,
    PG_HWPOISON,
    PG_ISOLATED,
    PG_LAZYFREE,
    PG_LRU,
    PG_PRIVATE,
    PG_WRITEBACK,
    PTE_DIRTY,
    PTE_HUGE,
    PTE_HWPOISON,
    PTE_PRESENT,
    PTE_SOFT_DIRTY,
    PTE_SWAP,
    PTE_SWP_EXCLUSIVE,
    PTE_UFFD_WP,
    SEGV,
    SWAP_NONE,
    SWAP_SLOW,
    SWAP_ZRAM,
    VM_HUGETLB,
    VM_LOCKED,
    VM_MAPPED,
    ZERO_FRAME,
    ask,
)
from pageherd.machine.swap import (
    add_to_swap_cache,
    alloc_slots,
    delete_from_swap_cache,
    in_swap_cache,
    swap_count_add,
    try_to_free_swap,
)


@step(steps.PAGEOUT)
def pageout(s: State, t: int, k: KernelRecord) -> int:
    """madvise_cold_or_pageout_pte_range(): drains this CPU's batch and skips shared pages.

    One page of the range after the other; a folio that the range has whole is taken whole, if at
    all, and any other large folio is split first.
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if page >= s.t_end[t]:
        if not range_mapped(s, t, mm):
            s.t_result[t] = SEGV  # ENOMEM, once the rest is done
        return steps.IDLE
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    s.t_result[t] = OK
    vma = int(s.vma[mm, page])
    if (vma & VM_MAPPED) == 0:
        s.t_page[t] = page + 1
        return steps.PAGEOUT
    if vma & (VM_LOCKED | VM_HUGETLB):  # can_madv_lru_vma()
        s.t_result[t] = SEGV
        return steps.IDLE
    lru_add_drain(s, int(s.t_cpu[t]))
    pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
    s.t_page[t] = page + 1
    if (pte & PTE_PRESENT) == 0 or frame == ZERO_FRAME or is_shmem(s, frame):
        return steps.PAGEOUT
    splits = is_large(s, frame) and (pte & PTE_HUGE) == 0 and ask(s, t, k, PAGEOUT_SPLITS, frame)
    # "break": nothing more of this VMA in the page table, where a large folio cannot be split
    after = page + 1
    if splits or pte & PTE_HUGE:
        after = min(pmd_first(s, page) + int(s.nr_huge), vma_end(s, mm, page))
    judged = compound_head(s, frame) if pte & PTE_HUGE else frame  # pmd_page()
    if ask(s, t, k, PAGEOUT_SKIPS, judged):
        s.t_page[t] = after
        return steps.PAGEOUT
    if is_large(s, frame):
        whole = pages_of_folio(s, mm, page, int(s.t_end[t]), frame)
        if whole == 0 or splits:
            s.t_page[t] = page if split_if_large(s, t, k, frame) else after
            return steps.PAGEOUT
        s.t_page[t] = page + whole
    s.t_frame[t] = compound_head(s, frame)
    return steps.RECLAIM_ISOLATE


@helper
def pages_of_folio(s: State, mm: int, page: int, end: int, frame: int) -> int:
    """folio_pte_batch(): the folio's size if one VMA of the range maps all in order, else 0."""
    nr = folio_nr_pages(s, frame)
    if frame != compound_head(s, frame) or page + nr > end:
        return 0
    for i in range(nr):
        if not same_vma(s, mm, page, page + i) or not maps_here(s, mm, page + i, frame + i):
            return 0
    return nr


@helper
def is_shmem(s: State, frame: int) -> bool:
    """A page of a memfd, which would have to be swapped out (shmem_writepage): left out."""
    return has_flag(s, frame, PG_FILE) and s.file_kind == FILE_MEMFD


@step(steps.RECLAIM_ISOLATE)
def reclaim_isolate(s: State, t: int, k: KernelRecord) -> int:
    """isolate_lru_pages(): takes the page, with a reference, off the LRU list."""
    if s.t_frame[t] == NONE:
        s.t_result[t] = BUSY
        return steps.IDLE
    frame = compound_head(s, int(s.t_frame[t]))
    s.t_frame[t] = frame
    if is_shmem(s, frame) or not isolate_lru_page(s, t, frame):
        s.t_result[t] = BUSY
        return int(s.t_return[t])
    return steps.RECLAIM_LOCK


@helper
def page_mlocked(s: State, frame: int) -> bool:
    """PageMlocked(): locked memory maps the page.  In the kernel a flag: it costs no rmap step."""
    pages, walked = int(s.nr_pages), s.cost[COST_RMAP_STEPS]
    found = find_mapping(s, frame, 0, 0)
    while found != NONE and (int(s.vma[found // pages, found % pages]) & VM_LOCKED) == 0:
        found = find_mapping(s, frame, found // pages, found % pages + 1)
    s.cost[COST_RMAP_STEPS] = walked
    return found != NONE


@step(steps.RECLAIM_LOCK)
def reclaim_lock(s: State, t: int, k: KernelRecord) -> int:
    """shrink_page_list(): pages that are busy, locked in memory or under write-back stay."""
    frame = int(s.t_frame[t])
    s.t_result[t] = BUSY
    if not trylock_page(s, t, frame):
        return steps.RECLAIM_PUTBACK
    if page_mlocked(s, frame) or has_flag(s, frame, PG_WRITEBACK):
        return steps.RECLAIM_PUTBACK
    return steps.RECLAIM_SWAP


@helper
def split_to_list(s: State, t: int, k: KernelRecord, head: int) -> bool:
    """split_folio_to_list(): the first page goes on, MADV_PAGEOUT has the others, too."""
    nr = folio_nr_pages(s, head)
    if not split_folio(s, t, k, head, 1):
        return False
    if s.t_return[t] == steps.PAGEOUT:
        s.t_page[t] = int(s.t_page[t]) - (nr - 1)
    return True


@step(steps.RECLAIM_SWAP)
def reclaim_swap(s: State, t: int, k: KernelRecord) -> int:
    """add_to_swap(): slots and the swap cache, unless the page is pinned or swap is full.

    A large folio that has references of others could not be split, so it stays.  One that is
    mapped in part is split first, as is one for which there are not enough slots in a row.
    """
    frame = int(s.t_frame[t])
    if is_anon(s, frame) and not in_swap_cache(s, frame) and not has_flag(s, frame, PG_LAZYFREE):
        if ask(s, t, k, RECLAIM_SKIPS, frame):
            return steps.RECLAIM_PUTBACK
        if is_large(s, frame):
            if not can_split_folio(s, t, k, frame, 1):
                return steps.RECLAIM_PUTBACK
            if ask(s, t, k, SWAPOUT_SPLITS, frame) and not split_to_list(s, t, k, frame):
                return steps.RECLAIM_PUTBACK
        slot = alloc_slots(s, folio_nr_pages(s, frame))
        if slot == NONE and is_large(s, frame) and split_to_list(s, t, k, frame):
            slot = alloc_slots(s, 1)
        if slot == NONE:
            s.t_result[t] = FULL
            return steps.RECLAIM_PUTBACK
        add_to_swap_cache(s, frame, slot)
        set_flag(s, frame, PG_DIRTY)
    s.t_value[t] = 0  # where the rmap walk goes on
    return steps.RECLAIM_UNMAP


@helper
def set_swap_entry(s: State, t: int, k: KernelRecord, mm: int, page: int, frame: int) -> None:
    """try_to_unmap_one(): the entry names the slot; some kernels keep in it who is exclusive."""
    slot = int(s.frame_slot[frame]) - 1
    entry = PTE_SWAP | (pte_of(s, mm, page) & (PTE_SOFT_DIRTY | PTE_UFFD_WP))
    if is_exclusive(s, frame) and ask(s, t, k, SWAP_EXCLUSIVE, frame):
        entry |= PTE_SWP_EXCLUSIVE
    clear_flag(s, frame, PG_EXCLUSIVE)
    swap_count_add(s, slot, 1)
    s.slot_ksm[slot] = int(s.slot_ksm[slot]) | int(is_ksm(s, frame))
    set_pte(s, mm, page, entry, slot)


@helper
def try_to_unmap_one(s: State, t: int, k: KernelRecord, mm: int, page: int, frame: int) -> bool:
    """try_to_unmap_one(): no entry for a page of a file, else a swap entry; or it is put back."""
    if ask(s, t, k, UNMAP_REFUSES, frame):
        return False
    s.cost[COST_TLB_FLUSHES] += 1
    if has_flag(s, frame, PG_FILE):
        set_pte(s, mm, page, 0, 0)
    else:
        set_swap_entry(s, t, k, mm, page, frame)
    page_remove_rmap(s, t, k, frame, mm, page)
    put_page(s, frame)
    return True


@step(steps.RECLAIM_UNMAP)
def reclaim_unmap(s: State, t: int, k: KernelRecord) -> int:
    """try_to_unmap_one(): one mapping becomes a swap entry, under its page-table lock.

    The walk is the folio's: a PMD entry is split first (TTU_SPLIT_HUGE_PMD), then page by page.
    An entry of a lazyfree page, or of one of a file, just goes.
    """
    head = int(s.t_frame[t])
    pages = int(s.nr_pages)
    found = find_mapping(s, head, int(s.t_value[t]) // pages, int(s.t_value[t]) % pages)
    if found == NONE:
        return steps.RECLAIM_CHECK
    mm, page = found // pages, found % pages
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    s.t_value[t] = found + 1
    if int(s.vma[mm, page]) & VM_LOCKED:
        return steps.RECLAIM_CHECK  # the walk ends here
    split_huge_pmd(s, t, k, mm, page)
    pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
    if pte & PTE_DIRTY:
        set_flag(s, frame, PG_DIRTY)
    if has_flag(s, frame, PG_LAZYFREE):
        if not drop_lazyfree(s, t, k, mm, page, frame):
            return steps.RECLAIM_CHECK
        return steps.RECLAIM_CHECK if ask(s, t, k, RMAP_STOPS, frame) else steps.RECLAIM_UNMAP
    if not try_to_unmap_one(s, t, k, mm, page, frame):
        return steps.RECLAIM_CHECK  # the walk ends here
    return steps.RECLAIM_CHECK if ask(s, t, k, RMAP_STOPS, frame) else steps.RECLAIM_UNMAP


@step(steps.RECLAIM_CHECK)
def reclaim_check(s: State, t: int, k: KernelRecord) -> int:
    """shrink_page_list(): a page that is still mapped, or pinned by now, is activated again."""
    frame = int(s.t_frame[t])
    if ask(s, t, k, STILL_MAPPED, frame) or ask(s, t, k, RECLAIM_SKIPS, frame):
        return steps.RECLAIM_PUTBACK
    return steps.RECLAIM_WRITE


@helper
def is_zero_filled(s: State, head: int) -> bool:
    """is_folio_zero_filled()."""
    for frame in range(head, head + folio_nr_pages(s, head)):
        if s.content[frame] != 0:
            return False
    return True


@step(steps.RECLAIM_WRITE)
def reclaim_write(s: State, t: int, k: KernelRecord) -> int:
    """pageout(): a dirty page is written to its slot; a synchronous device is done at once.

    Not one that somebody else holds too (is_page_cache_freeable()): it could not be freed anyway.
    Zeros that need not be written are done at once, too; of a small page nothing would show it.
    A dirty page of a file waits for the flusher.
    """
    frame = int(s.t_frame[t])
    s.t_result[t] = OK
    if has_flag(s, frame, PG_FILE) and has_flag(s, frame, PG_DIRTY):
        s.t_result[t] = BUSY
        return steps.RECLAIM_PUTBACK
    if not has_flag(s, frame, PG_DIRTY) or not in_swap_cache(s, frame):
        return steps.RECLAIM_REMOVE
    nr = folio_nr_pages(s, frame)
    if page_count(s, frame) != 1 + nr:  # the isolation's and the cache's
        s.t_result[t] = BUSY
        return steps.RECLAIM_PUTBACK
    clear_flag(s, frame, PG_DIRTY)
    for each in range(frame, frame + nr):
        s.slot_content[int(s.frame_slot[each]) - 1] = s.content[each]
    zeros = is_large(s, frame) and is_zero_filled(s, frame)
    if s.swap_kind == SWAP_ZRAM or (zeros and ask(s, t, k, SWAPOUT_ZEROS, frame)):
        return steps.RECLAIM_REMOVE
    if s.swap_kind == SWAP_SLOW:
        set_flag(s, frame, PG_WRITEBACK)
    return steps.RECLAIM_PUTBACK


@step(steps.RECLAIM_REMOVE)
def reclaim_remove(s: State, t: int, k: KernelRecord) -> int:
    """__remove_mapping(): only the isolation's and the cache's references may be left.

    The refcount is frozen first and the dirty flag tested second, so that a GUP user who dirties
    the page and then puts it is not lost.  A page of a file has lost its buffers by then.
    """
    frame = int(s.t_frame[t])
    if has_flag(s, frame, PG_FILE):
        clear_flag(s, frame, PG_PRIVATE)  # try_to_release_page(), filemap_release_folio()
        s.t_result[t] = OK if page_count(s, frame) == 2 else BUSY
        if s.t_result[t] == OK:
            remove_from_page_cache(s, frame)
        return steps.RECLAIM_PUTBACK
    if not in_swap_cache(s, frame):  # a lazyfree page: the isolation lets the last reference go
        s.t_result[t] = OK if page_count(s, frame) == 1 else BUSY
        return steps.RECLAIM_PUTBACK
    if page_count(s, frame) != 1 + folio_nr_pages(s, frame) or has_flag(s, frame, PG_DIRTY):
        s.t_result[t] = BUSY
        return steps.RECLAIM_PUTBACK
    delete_from_swap_cache(s, frame)
    return steps.RECLAIM_PUTBACK


@step(steps.RECLAIM_PUTBACK)
def reclaim_putback(s: State, t: int, k: KernelRecord) -> int:
    """putback_lru_page(): back to the list, unlocked; the last reference frees it."""
    frame = int(s.t_frame[t])
    if s.frame_lock[frame] == t + 1:
        unlock_page(s, frame)
    clear_flag(s, frame, PG_ISOLATED)
    set_flag(s, frame, PG_LRU)
    unhold(s, t, HOLD_FRAME)
    put_page(s, frame)
    return int(s.t_return[t])


@step(steps.WRITEBACK_END)
def writeback_end(s: State, t: int, k: KernelRecord) -> int:
    """end_page_writeback(): the slot holds what the page held when the device read it."""
    frame = int(s.t_frame[t])
    s.t_result[t] = BUSY
    if frame != NONE and has_flag(s, frame, PG_WRITEBACK):
        clear_flag(s, frame, PG_WRITEBACK)
        s.t_result[t] = OK
    return steps.IDLE


@helper
def unuse_pte(s: State, t: int, k: KernelRecord, mm: int, page: int, frame: int) -> None:
    """unuse_pte(): map the page read-only; an exclusive entry makes an exclusive page.

    Some kernels forget what else the entry said.
    """
    pte = pte_of(s, mm, page)
    if pte & PTE_SWP_EXCLUSIVE:
        set_exclusive(s, k, frame)
    page_add_rmap(s, t, k, frame, mm, page)
    kept = pte & (PTE_SOFT_DIRTY | PTE_UFFD_WP)
    if kept and not ask(s, t, k, SWAPOFF_KEEPS_BITS, frame):
        kept = 0
    set_pte(s, mm, page, restore_none(s, mm, page, PTE_PRESENT | kept), frame)


@helper
def poisons(s: State, t: int, k: KernelRecord, frame: int) -> bool:
    """unuse_pte(): some kernels map no poisoned page, but leave an entry that says so."""
    return has_flag(s, frame, PG_HWPOISON) and ask(s, t, k, SWAPOFF_POISON, frame) == 0


@step(steps.SWAPOFF)
def swapoff(s: State, t: int, k: KernelRecord) -> int:
    """try_to_unuse(): each entry is mapped again, then each slot's page leaves the swap cache.

    One entry, and one slot, per step.  The page is read into the swap cache first if it is not
    there.
    """
    pages, mms = int(s.nr_pages), int(s.nr_mms)
    at = int(s.t_value[t])
    if at == mms * pages + int(s.nr_slots):
        s.swap_kind = SWAP_NONE
        s.t_result[t] = OK
        return steps.IDLE
    if at >= mms * pages:
        cached = int(s.slot_frame[at - mms * pages]) - 1
        if cached != NONE:
            clear_flag(s, cached, PG_WRITEBACK)  # folio_wait_writeback()
            try_to_free_swap(s, cached)
        s.t_value[t] = at + 1
        return steps.SWAPOFF
    mm, page = at // pages, at % pages
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    pte = pte_of(s, mm, page)
    if (pte & PTE_SWAP) == 0:
        s.t_value[t] = at + 1
        return steps.SWAPOFF
    slot = int(s.pte_to[mm, page])
    frame = int(s.slot_frame[slot]) - 1
    if frame != NONE and poisons(s, t, k, frame):
        set_pte(s, mm, page, PTE_HWPOISON, frame)
        swap_count_add(s, slot, -1)
        try_to_free_swap(s, frame)
        s.t_value[t] = at + 1
        return steps.SWAPOFF
    if frame == NONE:
        frame = alloc_frame(s)  # this reference becomes the mapping's
        s.content[frame] = s.slot_content[slot]
        lru_cache_add(s, t, frame)
        add_to_swap_cache(s, frame, slot)
    else:
        clear_flag(s, frame, PG_WRITEBACK)  # swapoff waits for write-back
        page_ref_add(s, frame, 1)
    if is_strange(s, mm, page, frame, slot):
        put_page(s, frame)
        frame = private_copy(s, t, frame)
        set_exclusive(s, k, frame)  # page_add_new_anon_rmap()
        lru_cache_add(s, t, frame)
    join_family(s, mm, frame, slot)
    unuse_pte(s, t, k, mm, page, frame)
    swap_count_add(s, slot, -1)
    try_to_free_swap(s, frame)
    s.t_value[t] = at + 1
    return steps.SWAPOFF
