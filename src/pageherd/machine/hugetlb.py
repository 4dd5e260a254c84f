"""Faults on private mappings of hugetlb pages (hugetlb_fault, hugetlb_no_page, hugetlb_wp).

One page name is one hugetlb page, and one frame of the machine.  Such pages are never swapped,
never on an LRU list and never the zero page: a load of nothing allocates one too.  The pool is as
large as it must be; what a kernel does when it is empty is not modelled.
"""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.fault import abandon_new, map_new_anon
from pageherd.machine.folio import (
    alloc_frame,
    has_flag,
    hold_frame,
    put_page,
    set_exclusive,
    set_flag,
    unhold,
)
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.lock import ptl_taken
from pageherd.machine.pte import may_write, pte_of, pte_same, remember_pte
from pageherd.machine.questions import HUGETLB_FORCE, HUGETLB_REUSE, MAKE_WRITABLE, REUSE_PAGE
from pageherd.machine.rmap import page_remove_rmap
from pageherd.machine.state import (
    COST_COPIES,
    COST_TLB_FLUSHES,
    FAULT_UNSHARE,
    FAULT_WRITE,
    HOLD_FRAME,
    HOLD_NEW,
    PG_HUGETLB,
    PTE_DIRTY,
    PTE_PRESENT,
    PTE_WRITE,
    ask,
)


@helper
def alloc_like(s: State, frame: int) -> int:
    """A new page of the same kind as `frame`: from the buddy allocator or the hugetlb pool."""
    new = alloc_frame(s)
    if has_flag(s, frame, PG_HUGETLB):
        set_flag(s, new, PG_HUGETLB)
    return new


@helper
def alloc_huge_page(s: State, t: int) -> None:
    """alloc_huge_page(), without the page-table lock."""
    new = alloc_frame(s)
    set_flag(s, new, PG_HUGETLB)
    s.t_new[t] = new
    s.t_held[t] = int(s.t_held[t]) | HOLD_NEW


@helper
def writable(s: State, t: int, k: KernelRecord, mm: int, page: int) -> int:
    """set_huge_ptep_writable(), make_huge_pte(): the bits that a write fault adds."""
    if may_write(s, mm, page) or ask(s, t, k, HUGETLB_FORCE, 0) == MAKE_WRITABLE:
        return PTE_WRITE | PTE_DIRTY
    return 0


@step(steps.HUGETLB_FAULT)
def hugetlb_fault(s: State, t: int, k: KernelRecord) -> int:
    """hugetlb_fault(), hugetlb_wp(): allocate, reuse or copy, under the page-table lock.

    What a write fault maps is writable if the mapping is; of a forced write it is a rule.
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    remember_pte(s, t, mm, page)
    pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
    if (pte & PTE_PRESENT) == 0:
        alloc_huge_page(s, t)
        return steps.HUGETLB_MAP
    write = (int(s.t_fault[t]) & FAULT_WRITE) != 0
    unshare = (int(s.t_fault[t]) & FAULT_UNSHARE) != 0
    if pte & PTE_WRITE or not (write or unshare):
        return int(s.t_return[t])
    if ask(s, t, k, HUGETLB_REUSE, frame) == REUSE_PAGE:
        set_exclusive(s, k, frame)
        if not unshare:
            s.pte[mm, page] = pte | writable(s, t, k, mm, page)
        return int(s.t_return[t])
    hold_frame(s, t, frame)
    alloc_huge_page(s, t)
    return steps.HUGETLB_COPY


@step(steps.HUGETLB_COPY)
def hugetlb_copy(s: State, t: int, k: KernelRecord) -> int:
    """hugetlb_wp(), copy_user_huge_page(): whoever can write the old page may do so meanwhile."""
    s.content[int(s.t_new[t])] = s.content[int(s.t_frame[t])]
    s.cost[COST_COPIES] += 1
    s.copies += 1
    return steps.HUGETLB_MAP


@step(steps.HUGETLB_MAP)
def hugetlb_map(s: State, t: int, k: KernelRecord) -> int:
    """hugetlb_no_page(), hugetlb_wp(): map the new page if the entry is still the same.

    A page that was not there is mapped read-only; a write goes on as one to a present page.
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    copied, old = (int(s.t_held[t]) & HOLD_FRAME) != 0, int(s.t_frame[t])
    write = (int(s.t_fault[t]) & FAULT_WRITE) != 0
    same = pte_same(s, t, mm, page)
    if not same:
        abandon_new(s, t)
    elif copied:
        s.cost[COST_TLB_FLUSHES] += 1
        page_remove_rmap(s, t, k, old, mm, page)
        put_page(s, old)  # the mapping's reference; ours still holds the page
        bits = writable(s, t, k, mm, page) if write else 0
        map_new_anon(s, t, k, mm, page, PTE_PRESENT | bits)
    else:
        map_new_anon(s, t, k, mm, page, PTE_PRESENT)
    if copied:
        unhold(s, t, HOLD_FRAME)
        put_page(s, old)
    elif same and write:
        return steps.HUGETLB_FAULT
    return int(s.t_return[t])
