"""Taking mappings away: munmap, MADV_DONTNEED, exit, and whatever a new mapping replaces.

Guard regions empty their range in the same way, and leave a marker in each entry.

The path works on pages t_page .. t_other - 1 of its process; `t_return` is what follows.
"""

from __future__ import annotations

from typing import Final

from pageherd.machine import steps
from pageherd.machine.anon_vma import anon_vma_prepare, vma_goes
from pageherd.machine.folio import is_normal, put_page, unhold
from pageherd.machine.huge import free_pte_tables, split_unless_covered
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.lock import (
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_lock,
    mmap_write_unlock,
    ptl_taken,
)
from pageherd.machine.lru import lru_add_drain
from pageherd.machine.pool import close_reservation, is_limited, restore_on_unmap
from pageherd.machine.pte import (
    is_hugetlb,
    pte_of,
    set_pte,
    untouched_value,
    userfaultfd_pte_wp,
)
from pageherd.machine.questions import (
    GUARD_KNOWN,
    GUARD_KNOWS,
    HUGETLB_DONTNEED,
    ZAP_DRAINS,
    ZAP_FREES_TABLE,
)
from pageherd.machine.rmap import folio_remove_rmap_pmd, page_remove_rmap
from pageherd.machine.state import (
    COST_TLB_FLUSHES,
    DEAD,
    HOLD_FRAME,
    OK,
    PTE_DEVICE,
    PTE_GUARD,
    PTE_HUGE,
    PTE_MAPPED,
    PTE_PRESENT,
    PTE_SWAP,
    PTE_UFFD_WP,
    SEGV,
    VM_LOCKED,
    VM_MAPPED,
    ZERO_FRAME,
    ask,
    ask_value,
)
from pageherd.machine.swap import free_swap_and_cache, free_swap_cache
from pageherd.machine.watch import detach

# t_value: what comes after the range is empty
UNMAP: Final = 0  # nothing: munmap
KEEP: Final = 1  # nothing, and the VMA stays: MADV_DONTNEED
TAKE_OVER: Final = 2  # the caller goes on with mmap_lock held
GUARD: Final = 3  # a guard region, and the VMA stays: MADV_GUARD_INSTALL


@helper
def keeps_vma(s: State, t: int) -> bool:
    """Whether the call is madvise(), which runs beside faults."""
    return bool(s.t_value[t] == KEEP or s.t_value[t] == GUARD)


@helper
def may_guard(s: State, k: KernelRecord, mm: int, page: int) -> bool:
    """is_valid_guard_vma(): not hugetlb; a file only since v6.15, as in every kernel of the table.

    Nor is locked memory emptied, but a marker may go from it.
    """
    return (ask_value(k, GUARD_KNOWS) & GUARD_KNOWN) != 0 and not is_hugetlb(s, mm, page)


@helper
def may_discard(s: State, t: int, k: KernelRecord, mm: int, page: int) -> bool:
    """can_madv_lru_vma(), madvise_dontneed_free_valid_vma(): not locked memory, or hugetlb."""
    if int(s.vma[mm, page]) & VM_LOCKED:
        return False
    if s.t_value[t] == GUARD:
        return may_guard(s, k, mm, page)
    return not is_hugetlb(s, mm, page) or ask(s, t, k, HUGETLB_DONTNEED, 0) != 0


@helper
def empty(s: State, t: int, mm: int, page: int) -> None:
    """Clear the entry, or leave a marker; the mapping itself goes too, but for madvise().

    The kernel leaves the markers once all the range is empty (guard_install_set_pte()).  A mapping
    with a marker has an anon_vma, so that fork copies it; one of a file has VM_MAYBE_GUARD for that
    since v7.0.
    """
    if s.t_value[t] == GUARD:
        anon_vma_prepare(s, mm, page)
        set_pte(s, mm, page, PTE_GUARD, 0)
    else:
        set_pte(s, mm, page, 0, 0)
    detach(s, mm, page)
    if not keeps_vma(s, t):
        if is_limited(s):
            close_reservation(s, mm, page)
        vma_goes(s, mm, page)
        if s.nr_huge > 1:
            s.vma_anon[mm, page] = 0
    s.want[mm, page] = untouched_value(s, mm, page)
    s.freed[mm, page] = 0


@helper
def zap_huge_pmd(s: State, t: int, k: KernelRecord, mm: int, page: int) -> int:
    """zap_huge_pmd(): the whole entry goes; zero page and migration entry leave nothing to put."""
    head, nr = int(s.pte_to[mm, page]), int(s.nr_huge)
    present = (pte_of(s, mm, page) & PTE_PRESENT) != 0
    for each in range(page, page + nr):
        empty(s, t, mm, each)
    s.t_page[t] = page + nr - 1
    if head == ZERO_FRAME or not present:
        s.t_page[t] = page + nr
        return steps.ZAP
    folio_remove_rmap_pmd(s, t, k, head, mm, page)
    s.t_frame[t] = head
    s.t_held[t] = int(s.t_held[t]) | HOLD_FRAME
    return steps.ZAP_PUT


@helper
def drains(s: State, t: int, k: KernelRecord, mm: int, page: int) -> bool:
    """zap_page_range_single(), unmap_region(); MADV_GUARD_INSTALL comes here if it must zap."""
    if s.t_value[t] == GUARD and s.pte[mm, page] == 0:
        return False
    return ask(s, t, k, ZAP_DRAINS, 0) != 0


@helper
def zap_nonpresent_pte(
    s: State, t: int, k: KernelRecord, mm: int, page: int, pte: int, frame: int
) -> None:
    """zap_nonpresent_ptes(): the entry's reference is put at once; the swap cache stays."""
    if pte & PTE_MAPPED:
        page_remove_rmap(s, t, k, frame, mm, page)
    put_page(s, frame)


@step(steps.ZAP)
def zap(s: State, t: int, k: KernelRecord) -> int:
    """zap_pte_range(): clear one entry and drop its mapping count; the page itself is put later.

    A dirty entry does not make an anonymous page dirty: other mappings have their own bit.
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if page >= s.t_other[t]:
        return steps.ZAP_END
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    if keeps_vma(s, t):
        if not mmap_read_lock(s, t, mm):
            return steps.BLOCKED
        if (int(s.vma[mm, page]) & VM_MAPPED) == 0:
            s.t_result[t] = SEGV  # ENOMEM, once the others are done
            s.t_page[t] = page + 1
            return steps.ZAP
        if not may_discard(s, t, k, mm, page):
            s.t_result[t] = SEGV  # EINVAL
            return steps.ZAP_END
    elif not mmap_write_lock(s, t, mm):
        return steps.BLOCKED
    guarded = (pte_of(s, mm, page) & PTE_GUARD) != 0
    if guarded and keeps_vma(s, t):  # zap_drop_markers()
        s.t_page[t] = page + 1
        return steps.ZAP
    if s.batch_limit != 0 and drains(s, t, k, mm, page):
        lru_add_drain(s, int(s.t_cpu[t]))
    split_unless_covered(s, t, k, mm, page, page, int(s.t_other[t]))
    pte, to = pte_of(s, mm, page), int(s.pte_to[mm, page])
    if pte & PTE_HUGE:
        return zap_huge_pmd(s, t, k, mm, page)
    if pte & PTE_PRESENT and is_hugetlb(s, mm, page):
        restore_on_unmap(s, t, k, mm, page, to)
    marked = is_hugetlb(s, mm, page) and userfaultfd_pte_wp(s, mm, page, pte)
    empty(s, t, mm, page)
    if marked and s.t_value[t] == KEEP:  # without ZAP_FLAG_DROP_MARKER
        set_pte(s, mm, page, PTE_UFFD_WP, 0)
    if pte & PTE_SWAP:
        free_swap_and_cache(s, t, k, to)
    elif pte & PTE_PRESENT and is_normal(s, to):
        page_remove_rmap(s, t, k, to, mm, page)
        s.t_frame[t] = to
        s.t_held[t] = int(s.t_held[t]) | HOLD_FRAME  # the mapping's, until the TLB is flushed
        return steps.ZAP_PUT
    elif pte & PTE_DEVICE:
        zap_nonpresent_pte(s, t, k, mm, page, pte, to)
    s.t_page[t] = page + 1
    return steps.ZAP


@step(steps.ZAP_PUT)
def zap_put(s: State, t: int, k: KernelRecord) -> int:
    """tlb_finish_mmu(): flush, then free_page_and_swap_cache()."""
    frame = int(s.t_frame[t])
    s.cost[COST_TLB_FLUSHES] += 1
    free_swap_cache(s, t, k, frame)
    unhold(s, t, HOLD_FRAME)
    put_page(s, frame)
    s.t_page[t] = int(s.t_page[t]) + 1
    return steps.ZAP


@step(steps.ZAP_END)
def zap_end(s: State, t: int, k: KernelRecord) -> int:
    """The range is empty: finished, or on with what the caller wanted the room for."""
    mm = int(s.t_mm[t])
    if s.t_value[t] == TAKE_OVER:
        return int(s.t_return[t])
    if keeps_vma(s, t):
        if s.t_value[t] == KEEP and s.nr_huge > 1 and ask(s, t, k, ZAP_FREES_TABLE, 0):
            free_pte_tables(s, mm, int(s.t_first[t]), int(s.t_other[t]))
        mmap_read_unlock(s, t, mm)
    else:
        mmap_write_unlock(s, mm)
    if s.t_result[t] != SEGV:
        s.t_result[t] = OK
    return steps.IDLE


@step(steps.UNGUARD)
def unguard(s: State, t: int, k: KernelRecord) -> int:
    """madvise_guard_remove(): markers go, whatever else is there stays; so in locked memory."""
    mm = int(s.t_mm[t])
    if not mmap_read_lock(s, t, mm) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    s.t_result[t] = OK
    for page in range(s.t_first[t], s.t_end[t]):
        if (int(s.vma[mm, page]) & VM_MAPPED) == 0:
            s.t_result[t] = SEGV  # ENOMEM, once the others are done
            continue
        if not may_guard(s, k, mm, page):
            s.t_result[t] = SEGV  # EINVAL
            break
        if pte_of(s, mm, page) & PTE_GUARD:
            set_pte(s, mm, page, 0, 0)
            s.want[mm, page] = untouched_value(s, mm, page)
    mmap_read_unlock(s, t, mm)
    return steps.IDLE


@step(steps.EXIT)
def exit_mm(s: State, t: int, k: KernelRecord) -> int:
    """exit_mmap() is over: the process is gone, its references and pins may outlive it."""
    mm = int(s.t_mm[t])
    mmap_write_unlock(s, mm)
    s.mm_has_pinned[mm] = 0
    s.mm_seq[mm] = 0
    s.mm_uffd[mm] = 0
    s.mm_merge_any[mm] = 0
    s.mm_merging[mm] = 0
    s.mm_merging_at_fork[mm] = 0
    s.mm_state[mm] = DEAD
    s.t_result[t] = OK
    return steps.IDLE
