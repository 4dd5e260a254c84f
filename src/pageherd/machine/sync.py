"""Write-back of one page of a file of a disk file system (sync_file_range, write_cache_pages).

The page is locked throughout; `t_frame` is held.  What is dirty is noticed by write faults, so all
shared mappings become read-only before the page is clean (clear_page_dirty_for_io).
"""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.file import busy_in_cache
from pageherd.machine.folio import clear_flag, has_flag, hold_frame, put_page, unhold
from pageherd.machine.jit import KernelRecord, step
from pageherd.machine.layout import State
from pageherd.machine.lock import ptl_taken, trylock_page, unlock_page
from pageherd.machine.pte import is_shared, pte_of
from pageherd.machine.rmap import find_mapping
from pageherd.machine.state import (
    COST_TLB_FLUSHES,
    FILE_DISK,
    HOLD_FRAME,
    NONE,
    OK,
    PG_DIRTY,
    PG_PRIVATE,
    PTE_DIRTY,
    PTE_WRITE,
)


@step(steps.SYNC_FILE)
def sync_file(s: State, t: int, k: KernelRecord) -> int:
    """write_cache_pages(): lock the page if it is dirty.  A memfd has nowhere to write to."""
    file = int(s.t_page[t])
    if busy_in_cache(s, t, file):
        return steps.BLOCKED
    frame = int(s.file_frame[file]) - 1
    s.t_result[t] = OK
    if s.file_kind != FILE_DISK or frame == NONE or not has_flag(s, frame, PG_DIRTY):
        return steps.IDLE
    trylock_page(s, t, frame)
    hold_frame(s, t, frame)
    return steps.SYNC_MKCLEAN


@step(steps.SYNC_MKCLEAN)
def sync_mkclean(s: State, t: int, k: KernelRecord) -> int:
    """page_mkclean_one(): one entry of a shared mapping becomes clean and read-only."""
    pages, frame = int(s.nr_pages), int(s.t_frame[t])
    found = find_mapping(s, frame, int(s.t_value[t]) // pages, int(s.t_value[t]) % pages)
    if found == NONE:
        return steps.SYNC_WRITE
    mm, page = found // pages, found % pages
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    s.t_value[t] = found + 1
    pte = pte_of(s, mm, page)
    if is_shared(s, mm, page) and pte & (PTE_DIRTY | PTE_WRITE):  # invalid_mkclean_vma()
        s.pte[mm, page] = pte & ~(PTE_DIRTY | PTE_WRITE)
        s.cost[COST_TLB_FLUSHES] += 1
    return steps.SYNC_MKCLEAN


@step(steps.SYNC_WRITE)
def sync_write(s: State, t: int, k: KernelRecord) -> int:
    """do_writepages(): the disk gets what the page holds; later stores may go by references.

    ext4 does not write a page without buffers, of which nobody told it: it warns and forgets that
    the page is dirty (mpage_prepare_extent_to_map(); cc5095747edf, v5.18 and stable trees).
    """
    frame = int(s.t_frame[t])
    clear_flag(s, frame, PG_DIRTY)
    if has_flag(s, frame, PG_PRIVATE):
        s.file_content[int(s.frame_index[frame])] = s.content[frame]
    unlock_page(s, frame)
    unhold(s, t, HOLD_FRAME)
    put_page(s, frame)
    return steps.IDLE
