"""Memory failure: MADV_HWPOISON (memory_failure) and MADV_SOFT_OFFLINE (soft_offline_page).

Both take the page by GUP first, for reading.  A frame with PG_HWPOISON has a reference that nobody
ever drops: memory_failure()'s own.  Pages of files and of hugetlb are left out: `busy`.
"""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.folio import (
    clear_flag,
    compound_head,
    has_flag,
    is_anon,
    is_ksm,
    is_large,
    page_count,
    page_ref_add,
    put_page,
    set_flag,
    unhold,
)
from pageherd.machine.gup import ungrab
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.lock import locked_by_other, ptl_taken, trylock_page, unlock_page
from pageherd.machine.lru import lru_add_drain
from pageherd.machine.migrate import BY_SOFT_OFFLINE, isolate
from pageherd.machine.pte import pte_of, set_pte
from pageherd.machine.questions import (
    HWPOISON_COUNTS,
    HWPOISON_KSM,
    RMAP_STOPS,
    STILL_MAPPED,
)
from pageherd.machine.reclaim import try_to_unmap_one
from pageherd.machine.rmap import find_mapping, page_remove_rmap
from pageherd.machine.split import split_folio
from pageherd.machine.state import (
    BUSY,
    COST_TLB_FLUSHES,
    HOLD_FRAME,
    NONE,
    NR_CPUS,
    OK,
    PG_DIRTY,
    PG_HUGETLB,
    PG_HWPOISON,
    PG_LRU,
    PG_WRITEBACK,
    PTE_DIRTY,
    PTE_HWPOISON,
    ask,
)
from pageherd.machine.swap import delete_from_swap_cache, in_swap_cache


@helper
def is_handled(s: State, frame: int) -> bool:
    """HWPoisonHandlable(), as far as the machine goes; and whether it is the first time."""
    other = has_flag(s, frame, PG_HUGETLB) or has_flag(s, frame, PG_HWPOISON)
    return is_anon(s, frame) and not other


@helper
def try_to_split_thp_page(s: State, t: int, k: KernelRecord, frame: int) -> bool:
    """try_to_split_thp_page(): the path's reference stays with the page itself."""
    if not is_large(s, frame):
        return True
    head = compound_head(s, frame)
    if not split_folio(s, t, k, head, 1):
        return False
    page_ref_add(s, frame, 1)
    put_page(s, head)
    return True


@helper
def can_begin(s: State, t: int, k: KernelRecord, frame: int) -> bool:
    """shake_page() drains all batches; a large folio is split; false after the page was let go."""
    for cpu in range(NR_CPUS):
        lru_add_drain(s, cpu)
    if is_handled(s, frame) and try_to_split_thp_page(s, t, k, frame):
        return True
    ungrab(s, t)
    s.t_result[t] = BUSY
    return False


@step(steps.MEMORY_FAILURE)
def memory_failure(s: State, t: int, k: KernelRecord) -> int:
    """memory_failure(): mark the page, lock it, wait for write-back.

    A KSM page was not handled until v6.3: it is marked and stays mapped.
    """
    frame = int(s.t_frame[t])
    if locked_by_other(s, t, frame):
        return steps.BLOCKED
    if not can_begin(s, t, k, frame):
        return steps.IDLE
    set_flag(s, frame, PG_HWPOISON)
    unhold(s, t, HOLD_FRAME)
    trylock_page(s, t, frame)
    clear_flag(s, frame, PG_WRITEBACK)
    s.t_value[t] = 0  # where the rmap walk goes on
    if is_ksm(s, frame) and not ask(s, t, k, HWPOISON_KSM, frame):
        return steps.MEMORY_FAILURE_END
    return steps.MEMORY_FAILURE_UNMAP


@helper
def unmap_poisoned(s: State, t: int, k: KernelRecord, mm: int, page: int, frame: int) -> bool:
    """try_to_unmap_one(), TTU_HWPOISON: a hwpoison entry, whoever holds the page.

    A page of the swap cache gets swap entries instead (without TTU_HWPOISON).
    """
    if in_swap_cache(s, frame):
        return try_to_unmap_one(s, t, k, mm, page, frame)
    set_pte(s, mm, page, PTE_HWPOISON, frame)
    s.cost[COST_TLB_FLUSHES] += 1
    page_remove_rmap(s, t, k, frame, mm, page)
    put_page(s, frame)
    return True


@step(steps.MEMORY_FAILURE_UNMAP)
def memory_failure_unmap(s: State, t: int, k: KernelRecord) -> int:
    """hwpoison_user_mappings(): every mapping goes, also of locked memory (TTU_IGNORE_MLOCK)."""
    frame, pages = int(s.t_frame[t]), int(s.nr_pages)
    found = find_mapping(s, frame, int(s.t_value[t]) // pages, int(s.t_value[t]) % pages)
    if found == NONE:
        return steps.MEMORY_FAILURE_END
    mm, page = found // pages, found % pages
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    s.t_value[t] = found + 1
    if pte_of(s, mm, page) & PTE_DIRTY:
        set_flag(s, frame, PG_DIRTY)
    if not unmap_poisoned(s, t, k, mm, page, frame):
        return steps.MEMORY_FAILURE_END
    stops = ask(s, t, k, RMAP_STOPS, frame)
    return steps.MEMORY_FAILURE_END if stops else steps.MEMORY_FAILURE_UNMAP


@step(steps.MEMORY_FAILURE_END)
def memory_failure_end(s: State, t: int, k: KernelRecord) -> int:
    """identify_page_state(): off the LRU list, and what becomes of the swap cache.

    A clean page leaves it, the slot has it all (me_swapcache_clean); a dirty one stays, so that
    nobody reads the slot (me_swapcache_dirty).
    """
    frame = int(s.t_frame[t])
    unlock_page(s, frame)
    if ask(s, t, k, STILL_MAPPED, frame):
        s.t_result[t] = BUSY  # MF_MSG_UNMAP_FAILED
        return steps.IDLE
    clear_flag(s, frame, PG_LRU)
    cached = in_swap_cache(s, frame)
    counts = cached or ask(s, t, k, HWPOISON_COUNTS, frame) != 0
    if cached and not has_flag(s, frame, PG_DIRTY):
        delete_from_swap_cache(s, frame)
    clear_flag(s, frame, PG_DIRTY)
    expected = 2 if in_swap_cache(s, frame) else 1
    held = page_count(s, frame) > expected
    s.t_result[t] = BUSY if counts and held else OK  # MF_FAILED, but done nevertheless
    return steps.IDLE


@step(steps.SOFT_OFFLINE)
def soft_offline(s: State, t: int, k: KernelRecord) -> int:
    """soft_offline_in_use_page(): the page is migrated, waiting for write-back, and kept out."""
    frame = int(s.t_frame[t])
    if locked_by_other(s, t, frame):
        return steps.BLOCKED
    if not can_begin(s, t, k, frame):
        return steps.IDLE
    ungrab(s, t)
    s.t_seq[t] = 0
    s.t_other[t] = BY_SOFT_OFFLINE
    return isolate(s, t, k, frame)
