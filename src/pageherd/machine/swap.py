"""Swap slots and the swap cache."""

from __future__ import annotations

from pageherd.machine.folio import (
    compound_head,
    folio_nr_pages,
    free_if_unused,
    has_flag,
    page_ref_add,
    set_flag,
)
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.lock import trylock_page, unlock_page
from pageherd.machine.questions import STILL_MAPPED
from pageherd.machine.state import (
    BYPASSED,
    NONE,
    PG_DIRTY,
    PG_FILE,
    PG_WRITEBACK,
    SWAP_NONE,
    ask,
    out_of_range,
)


@helper
def in_swap_cache(s: State, frame: int) -> bool:
    """PageSwapCache()."""
    return int(s.frame_slot[frame]) != 0


@helper
def has_mapping(s: State, frame: int) -> bool:
    """page_mapping(): whether the folio can be looked up, in the swap cache or the page cache."""
    return in_swap_cache(s, frame) or has_flag(s, frame, PG_FILE)


@helper
def alloc_slot(s: State) -> int:
    """get_swap_page(): the lowest free slot, or NONE when swap is full or there is none."""
    return alloc_slots(s, 1)


@helper
def alloc_slots(s: State, nr: int) -> int:
    """get_swap_pages(): the first of `nr` free slots in a row, NONE if there are none."""
    if s.swap_kind == SWAP_NONE or (nr > 1 and s.swap_in_pieces != 0):
        return NONE
    for first in range(int(s.nr_slots) - nr + 1):
        free = True
        for slot in range(first, first + nr):
            used = s.swap_count[slot] != 0 or s.slot_frame[slot] != 0 or s.slot_claim[slot] != 0
            free = free and not used
        if free:
            return first
    return NONE


@helper
def add_to_swap_cache(s: State, frame: int, slot: int) -> None:
    """add_to_swap_cache(): the cache holds one reference for each page of the folio."""
    head = compound_head(s, frame)
    for i in range(folio_nr_pages(s, head)):
        s.frame_slot[head + i] = slot + i + 1
        s.slot_frame[slot + i] = head + i + 1
    page_ref_add(s, head, folio_nr_pages(s, head))


@helper
def delete_from_swap_cache(s: State, frame: int) -> None:
    """delete_from_swap_cache(): drops the cache's references; slots nobody names become free."""
    head = compound_head(s, frame)
    nr = folio_nr_pages(s, head)
    for each in range(head, head + nr):
        slot = int(s.frame_slot[each]) - 1
        s.frame_slot[each] = 0
        s.slot_frame[slot] = 0
        forget_slot_if_free(s, slot)
    page_ref_add(s, head, -nr)
    free_if_unused(s, head)


@helper
def forget_slot_if_free(s: State, slot: int) -> None:
    if s.swap_count[slot] == 0 and s.slot_frame[slot] == 0 and s.slot_claim[slot] == 0:
        s.slot_content[slot] = 0
        s.slot_ksm[slot] = 0


@helper
def swap_count_add(s: State, slot: int, n: int) -> None:
    """swap_duplicate() and swap_free(), without the cache's own flag."""
    count = int(s.swap_count[slot]) + n
    if out_of_range(s, count):
        return
    s.swap_count[slot] = count
    forget_slot_if_free(s, slot)


@helper
def was_bypassed(s: State, t: int) -> bool:
    """`page != swapcache` in do_swap_page(): not whether the page is in the cache by now."""
    return (int(s.t_held[t]) & BYPASSED) != 0


@helper
def bypassed_elsewhere(s: State, t: int, slot: int) -> bool:
    """swapcache_prepare() says EEXIST: another thread is on its way from this slot to its entry."""
    for other in range(s.t_pc.shape[0]):
        if other != t and int(s.t_held[other]) & BYPASSED and s.t_pte_to[other] == slot:
            return True
    return False


@helper
def swap_count_of(s: State, frame: int) -> int:
    """How many swap entries name the slot that this swap-cache page stands for."""
    if not in_swap_cache(s, frame):
        return 0
    return int(s.swap_count[int(s.frame_slot[frame]) - 1])


@helper
def folio_swapped(s: State, frame: int) -> bool:
    """folio_swapped(): whether a swap entry names any page of this swap-cache folio."""
    head = compound_head(s, frame)
    for each in range(head, head + folio_nr_pages(s, head)):
        if swap_count_of(s, each) != 0:
            return True
    return False


@helper
def try_to_free_swap(s: State, frame: int) -> bool:
    """try_to_free_swap(), page lock held: refused under write-back or while entries name it."""
    if not in_swap_cache(s, frame):
        return False
    if has_flag(s, frame, PG_WRITEBACK) or folio_swapped(s, frame):
        return False
    set_flag(s, frame, PG_DIRTY)
    delete_from_swap_cache(s, frame)
    return True


@helper
def free_swap_cache(s: State, t: int, k: KernelRecord, frame: int) -> None:
    """free_swap_cache(): for a page that lost its last mapping, if its lock can be had."""
    if not in_swap_cache(s, frame) or ask(s, t, k, STILL_MAPPED, frame) != 0:
        return
    if trylock_page(s, t, frame):
        try_to_free_swap(s, frame)
        unlock_page(s, frame)


@helper
def free_swap_and_cache(s: State, t: int, k: KernelRecord, slot: int) -> None:
    """free_swap_and_cache(): an entry goes; the last one takes an unmapped cache page along."""
    swap_count_add(s, slot, -1)
    cached = int(s.slot_frame[slot])
    if s.swap_count[slot] == 0 and cached != 0:
        free_swap_cache(s, t, k, cached - 1)
