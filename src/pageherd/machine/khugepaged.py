"""khugepaged: as MADV_COLLAPSE, but of what was advised to be huge, and within its own limits.

The limits are those by default, in parts of a PMD: all pages but one may be missing, an eighth may
be swapped out, and half may be mapped by others, too.  That pages were accessed lately, which it
also wants to see, is taken for granted.
"""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.anon_vma import pmd_first
from pageherd.machine.folio import has_flag, is_anon
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.lru import lru_add_drain
from pageherd.machine.pte import is_droppable, pte_of
from pageherd.machine.questions import COUNT_SHARED, KHUGEPAGED_LAZYFREE, KHUGEPAGED_SHARED
from pageherd.machine.split import may_be_huge
from pageherd.machine.state import (
    BUSY,
    LIVE,
    NR_CPUS,
    PG_LAZYFREE,
    PTE_DIRTY,
    PTE_PRESENT,
    VM_HUGEPAGE,
    ZERO_FRAME,
    ask,
    ask_value,
)


@helper
def is_lazyfree(s: State, t: int, k: KernelRecord, mm: int, page: int) -> bool:
    """Whether a page is left because somebody gave it away (SCAN_PAGE_LAZYFREE)."""
    frame = int(s.pte_to[mm, page])
    if pte_of(s, mm, page) & PTE_DIRTY or not has_flag(s, frame, PG_LAZYFREE):
        return False
    return not is_droppable(s, mm, page) and ask(s, t, k, KHUGEPAGED_LAZYFREE, frame) != 0


@helper
def exceeds_limits(s: State, t: int, k: KernelRecord, mm: int, first: int) -> bool:
    """hpage_collapse_scan_pmd(): max_ptes_none, max_ptes_swap, max_ptes_shared."""
    nr, missing, unmapped, shared = int(s.nr_huge), 0, 0, 0
    for page in range(first, first + nr):
        pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
        if pte == 0 or (pte & PTE_PRESENT and frame == ZERO_FRAME):
            missing += 1
        elif (pte & PTE_PRESENT) == 0:
            unmapped += 1
        elif is_anon(s, frame):
            if is_lazyfree(s, t, k, mm, page):
                return True
            shared += ask(s, t, k, COUNT_SHARED, frame)
    if missing > nr - 1 or 8 * unmapped > nr:
        return True
    return shared > 0 and 8 * shared > nr * ask_value(k, KHUGEPAGED_SHARED)


@step(steps.KHUGEPAGED)
def khugepaged(s: State, t: int, k: KernelRecord) -> int:
    """khugepaged_scan_mm_slot(): drain all batches, look at one PMD, and collapse it."""
    mm = int(s.t_mm[t])
    s.t_result[t] = BUSY
    for cpu in range(NR_CPUS):
        lru_add_drain(s, cpu)
    if s.nr_huge <= 1 or s.mm_state[mm] != LIVE:
        return steps.IDLE
    first = pmd_first(s, int(s.t_page[t]))
    advised = (int(s.vma[mm, first]) & VM_HUGEPAGE) != 0
    if not advised or not may_be_huge(s, mm, first) or exceeds_limits(s, t, k, mm, first):
        return steps.IDLE
    return steps.COLLAPSE
