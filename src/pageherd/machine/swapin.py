"""Swap-in: a fault on a swap entry (do_swap_page)."""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.anon_vma import same_vma
from pageherd.machine.cow import do_wp_page
from pageherd.machine.fault import refuse
from pageherd.machine.folio import (
    alloc_frame,
    compound_head,
    folio_nr_pages,
    has_flag,
    hold_frame,
    is_ksm,
    is_large,
    page_ref_add,
    put_page,
    set_exclusive,
    unhold,
)
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.ksm import is_strange, join_family, private_copy
from pageherd.machine.layout import State
from pageherd.machine.lock import locked_by_other, ptl_taken, trylock_page, unlock_page
from pageherd.machine.lru import lru_add_drain, lru_cache_add
from pageherd.machine.pte import may_write, pte_of, pte_same, restore_none, set_pte
from pageherd.machine.questions import (
    DROP_AFTER,
    DROP_BEFORE,
    MAP_EXCLUSIVE,
    MAP_READ_ONLY,
    MAP_WRITABLE,
    MLOCK_HOLDS,
    PAST_CACHE,
    READAHEAD_DRAINS,
    SWAP_BYPASS,
    SWAPIN,
    SWAPIN_DROP,
    SWAPIN_READ_MAPS_WRITABLE,
    SWAPIN_TAIL_COPIES,
    SWAPIN_WHOLE,
    THROUGH_CACHE,
    WAIT_FOR_OTHER,
)
from pageherd.machine.rmap import page_add_rmap
from pageherd.machine.state import (
    BYPASSED,
    FAULT_WRITE,
    FOUND,
    HOLD_FRAME,
    PG_HWPOISON,
    PTE_DIRTY,
    PTE_PRESENT,
    PTE_PROTNONE,
    PTE_SOFT_DIRTY,
    PTE_UFFD_WP,
    PTE_WRITE,
    SWAP_ZRAM,
    VM_LOCKED,
    ask,
)
from pageherd.machine.swap import (
    add_to_swap_cache,
    in_swap_cache,
    swap_count_add,
    try_to_free_swap,
    was_bypassed,
)


@step(steps.SWAPIN_LOOKUP)
def swapin_lookup(s: State, t: int, k: KernelRecord) -> int:
    """do_swap_page(): a hit in the swap cache is taken with a reference."""
    cached = int(s.slot_frame[int(s.t_pte_to[t])])
    if cached == 0:
        return steps.SWAPIN_READ
    if has_flag(s, cached - 1, PG_HWPOISON):
        return refuse(s, t, int(s.t_mm[t]))
    hold_frame(s, t, cached - 1)
    s.t_held[t] = int(s.t_held[t]) | FOUND
    return steps.SWAPIN_LOCK


@step(steps.SWAPIN_READ)
def swapin_read(s: State, t: int, k: KernelRecord) -> int:
    """A miss: read the slot into a new page of the swap cache.

    From a synchronous device, and when one entry names the slot, kernels from 4.15 (0bcac06f27d7)
    until the swap cache became mandatory read it into a page that is not in the cache at all; such
    a page is known to nobody else.
    """
    slot = int(s.t_pte_to[t])
    if s.slot_frame[slot] != 0:
        return steps.SWAPIN_LOOKUP  # another thread was faster
    alone = s.swap_kind == SWAP_ZRAM and s.swap_count[slot] == 1
    way = ask(s, t, k, SWAP_BYPASS, slot) if alone else THROUGH_CACHE
    if way == WAIT_FOR_OTHER:
        return int(s.t_return[t])
    frame = alloc_frame(s)
    s.t_frame[t] = frame
    s.t_held[t] = int(s.t_held[t]) | HOLD_FRAME
    s.content[frame] = s.slot_content[slot]
    trylock_page(s, t, frame)
    lru_cache_add(s, t, frame)
    if way == PAST_CACHE:
        s.t_held[t] = int(s.t_held[t]) | BYPASSED
        return steps.SWAPIN_MAP
    add_to_swap_cache(s, frame, slot)
    unlock_page(s, frame)
    if s.batch_limit != 0 and ask(s, t, k, READAHEAD_DRAINS, frame):
        lru_add_drain(s, int(s.t_cpu[t]))
    return steps.SWAPIN_LOCK


@helper
def give_up(s: State, t: int) -> int:
    """The entry or the page changed meanwhile: unlock, put, let the access fault again."""
    frame = int(s.t_frame[t])
    unlock_page(s, frame)
    unhold(s, t, HOLD_FRAME | BYPASSED | FOUND)
    put_page(s, frame)
    return int(s.t_return[t])


@step(steps.SWAPIN_LOCK)
def swapin_lock(s: State, t: int, k: KernelRecord) -> int:
    """lock_page(), then look whether the page still stands for the entry."""
    frame = int(s.t_frame[t])
    if locked_by_other(s, t, frame):
        return steps.BLOCKED
    trylock_page(s, t, frame)
    if s.frame_slot[frame] != s.t_pte_to[t] + 1:
        return give_up(s, t)
    tail = is_large(s, frame) and compound_head(s, frame) != frame
    strange = is_strange(s, int(s.t_mm[t]), int(s.t_page[t]), frame, int(s.t_pte_to[t]))
    if strange or (tail and ask(s, t, k, SWAPIN_TAIL_COPIES, frame)):
        return steps.SWAPIN_COPY
    return steps.SWAPIN_MAP


@step(steps.SWAPIN_COPY)
def swapin_copy(s: State, t: int, k: KernelRecord) -> int:
    """do_swap_page(), ksm_might_need_to_copy(): the page belongs to others by now, or seems to.

    A page of a folio that is not its first has no index, which some kernels take for another one.
    """
    frame = int(s.t_frame[t])
    new = private_copy(s, t, frame)
    trylock_page(s, t, new)
    lru_cache_add(s, t, new)
    unlock_page(s, frame)
    s.t_frame[t] = new  # held in place of the old one
    put_page(s, frame)
    s.t_held[t] = (int(s.t_held[t]) & ~FOUND) | BYPASSED
    return steps.SWAPIN_MAP


@helper
def swap_pte_batch(s: State, t: int, mm: int, page: int, frame: int) -> bool:
    """swap_pte_batch(): the folio's entries are in order under one PMD, all alike."""
    nr, tail = folio_nr_pages(s, frame), int(s.frame_tail[frame])
    first = page - tail
    if first < 0 or not same_vma(s, mm, first, first + nr - 1):
        return False
    for i in range(nr):
        if s.pte[mm, first + i] != s.t_pte[t]:
            return False
        if s.pte_to[mm, first + i] != s.t_pte_to[t] - tail + i:
            return False
    return True


@step(steps.SWAPIN_MAP)
def swapin_map(s: State, t: int, k: KernelRecord) -> int:
    """do_swap_page() under page lock and page-table lock: decide, map, and go on with the write.

    The machine drops the swap count first, as kernels from 5.18 on do; rules of older kernels,
    which decide before it is dropped, say so.
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    if not pte_same(s, t, mm, page):
        return give_up(s, t)
    frame, slot = int(s.t_frame[t]), int(s.t_pte_to[t])
    write = (int(s.t_fault[t]) & FAULT_WRITE) != 0
    before, nr = 0, 1  # pages of the folio mapped along, before this one and in all
    if is_large(s, frame) and in_swap_cache(s, frame) and ask(s, t, k, SWAPIN_WHOLE, frame):
        if swap_pte_batch(s, t, mm, page, frame):
            before, nr = int(s.frame_tail[frame]), folio_nr_pages(s, frame)
    for i in range(nr):
        swap_count_add(s, slot - before + i, -1)
    drop = 0 if was_bypassed(s, t) else ask(s, t, k, SWAPIN_DROP, frame)
    if drop & DROP_BEFORE:
        try_to_free_swap(s, frame)
    answer = MAP_READ_ONLY if is_ksm(s, frame) else ask(s, t, k, SWAPIN, frame)
    pte = PTE_PRESENT | (pte_of(s, mm, page) & (PTE_SOFT_DIRTY | PTE_UFFD_WP))
    pte = restore_none(s, mm, page, pte)
    writable = may_write(s, mm, page) and (pte & PTE_UFFD_WP) == 0
    if write and answer & MAP_WRITABLE and writable:
        pte |= PTE_WRITE | PTE_DIRTY | PTE_SOFT_DIRTY
    if answer & MAP_EXCLUSIVE:
        for i in range(nr):
            set_exclusive(s, k, frame - before + i)
        if not write and writable and ask(s, t, k, SWAPIN_READ_MAPS_WRITABLE, frame):
            pte |= PTE_WRITE
    join_family(s, mm, frame, slot)
    page_ref_add(s, frame, nr - 1)
    for i in range(nr):
        page_add_rmap(s, t, k, frame - before + i, mm, page - before + i)
        set_pte(s, mm, page - before + i, pte, frame - before + i)
    found = (int(s.t_held[t]) & FOUND) != 0
    unhold(s, t, HOLD_FRAME | BYPASSED | FOUND)  # the reference is the mapping's now
    if drop & DROP_AFTER:
        try_to_free_swap(s, frame)
    unlock_page(s, frame)
    if not write or pte & (PTE_WRITE | PTE_PROTNONE):
        return int(s.t_return[t])
    batched = found and int(s.vma[mm, page]) & VM_LOCKED and ask(s, t, k, MLOCK_HOLDS, frame)
    if batched:
        page_ref_add(s, frame, 1)  # mlock_folio(): until the batch drains; it decides about reuse
    following = do_wp_page(s, t, k, mm, page)
    if batched:
        page_ref_add(s, frame, -1)
    return following
