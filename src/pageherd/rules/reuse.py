"""reuse: may a write fault keep writing to the page it hit, or must it copy?  (do_wp_page)

The oldest argument of all: a map count ignores holders that matter (a pipe), a reference count
honours holders that do not (an LRU batch), and an exclusive mark has to be kept right by everyone.
"""

from __future__ import annotations

from pageherd.machine.folio import (
    compound_head,
    folio_nr_pages,
    has_flag,
    is_exclusive,
    is_large,
    page_count,
    set_flag,
    stands_for_many,
)
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.lock import locked_by_other, trylock_page, unlock_page
from pageherd.machine.lru import lru_add_drain
from pageherd.machine.questions import (
    COPY,
    COUNT_FOLIO,
    COUNT_SHARED,
    REUSE,
    REUSE_PAGE,
    WAIT_FOR_LOCK,
)
from pageherd.machine.state import PG_DIRTY, PG_LRU, PG_WRITEBACK, ask
from pageherd.machine.swap import (
    delete_from_swap_cache,
    in_swap_cache,
    swap_count_of,
    try_to_free_swap,
)
from pageherd.rules.base import decision_point
from pageherd.rules.counting import folio_entire_mapcount

POINT = decision_point("reuse", REUSE, kernel_function="do_wp_page")


@helper
def busiest_page(s: State, frame: int, entries: int) -> int:
    """page_trans_huge_map_swapcount(), the loop; folio_entire_mapcount() is the rest.

    Of a folio the page with the most entries and swap entries counts.
    `entries` are swap entries of this very page that still count, though the machine dropped them.
    """
    head, most = compound_head(s, frame), 0
    for each in range(head, head + folio_nr_pages(s, head)):
        count = int(s.mapcount[each]) + swap_count_of(s, each)
        most = max(most, count + (entries if each == frame else 0))
    return most


@helper
def others_swapped(s: State, frame: int) -> bool:
    """Whether a swap entry names another page of the folio."""
    head = compound_head(s, frame)
    for each in range(head, head + folio_nr_pages(s, head)):
        if each != frame and swap_count_of(s, each) != 0:
            return True
    return False


@helper
def reuse_swap_page(s: State, frame: int, entries: int) -> bool:
    """reuse_swap_page(): one user by maps + swap entries; leaves the swap cache if it can."""
    return reuse_if_one(s, frame, busiest_page(s, frame, entries) + folio_entire_mapcount(s, frame))


@helper
def reuse_if_one(s: State, frame: int, count: int) -> bool:
    """reuse_swap_page(), once it has counted.

    Under write-back to a device that needs stable pages the answer is no.
    """
    if count > 1:
        return False
    if in_swap_cache(s, frame) and count == 1 and not others_swapped(s, frame):
        if has_flag(s, frame, PG_WRITEBACK):
            return bool(s.swap_stable_writes == 0)
        set_flag(s, frame, PG_DIRTY)
        delete_from_swap_cache(s, frame)
    return True


@helper
def reuse_by_count(s: State, t: int, frame: int) -> int:
    """do_wp_page() until v5.8: under the page lock, which it may sleep for."""
    if not trylock_page(s, t, frame):
        return WAIT_FOR_LOCK if locked_by_other(s, t, frame) else COPY
    reuse = reuse_swap_page(s, frame, 0)
    unlock_page(s, frame)
    return REUSE_PAGE if reuse else COPY


@POINT.alternative("by-mapcount", "do_wp_page, reuse_swap_page; until v5.8 (09854ba94c6a)")
def by_mapcount(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Reuse when the page is mapped once and no swap entry names it; references do not count."""
    return reuse_by_count(s, t, frame)


@POINT.alternative("by-refcount", "do_wp_page; v5.9 to v5.17 (09854ba94c6a)")
def by_refcount(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Reuse when the refcount is exactly 1; never sleep, so a busy page lock means copy."""
    if page_count(s, frame) != 1 or stands_for_many(s, frame):
        return COPY
    if not trylock_page(s, t, frame):
        return COPY
    reuse = s.mapcount[frame] <= 1 and page_count(s, frame) == 1
    unlock_page(s, frame)
    return REUSE_PAGE if reuse else COPY


@helper
def alone_after_drop(s: State, t: int, frame: int) -> int:
    """do_wp_page() since v5.18: get rid of the LRU batch and the swap cache, then count.

    More than three references cannot all be the mapping, this CPU's batch and the swap cache.
    """
    if page_count(s, frame) > 3 or stands_for_many(s, frame):
        return COPY
    if not has_flag(s, frame, PG_LRU):
        lru_add_drain(s, int(s.t_cpu[t]))
    if page_count(s, frame) > 1 + int(in_swap_cache(s, frame)):
        return COPY
    if not trylock_page(s, t, frame):
        return COPY
    try_to_free_swap(s, frame)
    alone = page_count(s, frame) == 1
    unlock_page(s, frame)
    return REUSE_PAGE if alone else COPY


@POINT.alternative("by-refcount-after-drop", "do_wp_page; v5.18 (53a05ad9f21d, d4c470970d45)")
def by_refcount_after_drop(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Drain this CPU's LRU batch, free an idle swap slot, then reuse when the refcount is 1."""
    return alone_after_drop(s, t, frame)


@POINT.alternative("by-exclusive", "do_wp_page, wp_can_reuse_anon_folio; v5.19 (6c287605fd56)")
def by_exclusive(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Reuse a page marked exclusive whatever its counts; else decide as v5.18, and mark it."""
    if is_exclusive(s, frame):
        return REUSE_PAGE
    return alone_after_drop(s, t, frame)


@POINT.alternative(
    "by-exclusive-small", "wp_can_reuse_anon_folio; until v6.14, a large folio is never alone"
)
def by_exclusive_small(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As by-exclusive, but a page of a large folio that is not marked is copied."""
    if is_exclusive(s, frame):
        return REUSE_PAGE
    return COPY if is_large(s, frame) else alone_after_drop(s, t, frame)


@POINT.alternative("by-exclusive-or-mm", "__wp_can_reuse_large_anon_folio; v6.15 (1da190f4d0a6)")
def by_exclusive_or_mm(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As by-exclusive; a page of a large folio also when only this process has references to it.

    A folio of which a single entry is left is copied, to give its memory back.
    """
    if is_exclusive(s, frame):
        return REUSE_PAGE
    if not is_large(s, frame):
        return alone_after_drop(s, t, frame)
    single = ask(s, t, k, COUNT_FOLIO, frame) <= 1 and not stands_for_many(s, frame)
    if single or ask(s, t, k, COUNT_SHARED, frame):
        return COPY
    if in_swap_cache(s, frame):
        if not trylock_page(s, t, frame):
            return COPY
        try_to_free_swap(s, frame)
        unlock_page(s, frame)
    alone = page_count(s, frame) == ask(s, t, k, COUNT_FOLIO, frame)
    return REUSE_PAGE if alone else COPY


@POINT.alternative("by-state", "proposal: Willy's three states, used for write faults")
def by_state(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Reuse when the counter says "mapped exactly once"; "possibly more" copies."""
    return reuse_by_count(s, t, frame)


@POINT.alternative("by-exclusive-bit", "proposal: one bit, set by every COW copy, cleared by fork")
def by_exclusive_bit(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Reuse a page marked exclusive; else decide by the refcount as v5.9."""
    if is_exclusive(s, frame):
        return REUSE_PAGE
    return COPY if page_count(s, frame) != 1 else REUSE_PAGE
