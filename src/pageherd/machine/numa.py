"""NUMA hinting: an entry that is present but not accessible, so that the next access is noticed.

The access then finds the page where it should be: what NUMA balancing migrates is left out.
"""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.folio import is_anon, is_ksm
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.lock import mmap_read_lock, mmap_read_unlock, ptl_taken
from pageherd.machine.pte import is_hugetlb, pte_of
from pageherd.machine.questions import NUMA_SAVES_WRITE, NUMA_SKIPS
from pageherd.machine.state import (
    BUSY,
    COST_TLB_FLUSHES,
    OK,
    PTE_HUGE,
    PTE_PRESENT,
    PTE_PROTNONE,
    PTE_WRITE,
    VM_READ,
    VM_WRITE,
    ask,
)
from pageherd.machine.vma import may_upgrade


@helper
def is_hintable(s: State, t: int, k: KernelRecord, mm: int, page: int) -> bool:
    """change_pte_range(), MM_CP_PROT_NUMA: not zero pages, KSM pages, or shared ones.

    task_numa_work() leaves out hugetlb and what is not accessible; the machine also huge pages
    mapped by one entry, and pages of files.
    """
    pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
    accessible = (int(s.vma[mm, page]) & (VM_READ | VM_WRITE)) != 0
    if not accessible or pte & (PTE_PRESENT | PTE_PROTNONE | PTE_HUGE) != PTE_PRESENT:
        return False
    if not is_anon(s, frame) or is_ksm(s, frame) or is_hugetlb(s, mm, page):
        return False
    return not ask(s, t, k, NUMA_SKIPS, frame)


@step(steps.NUMA_HINT)
def numa_hint(s: State, t: int, k: KernelRecord) -> int:
    """change_prot_numa(): one entry; some kernels keep its write bit (pte_savedwrite)."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if not mmap_read_lock(s, t, mm) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    s.t_result[t] = BUSY
    if is_hintable(s, t, k, mm, page):
        pte = pte_of(s, mm, page) | PTE_PROTNONE
        saved = ask(s, t, k, NUMA_SAVES_WRITE, 0)
        s.pte[mm, page] = pte if saved else pte & ~PTE_WRITE
        s.cost[COST_TLB_FLUSHES] += 1
        s.t_result[t] = OK
    mmap_read_unlock(s, t, mm)
    return steps.IDLE


@helper
def do_numa_page(s: State, t: int, k: KernelRecord, mm: int, page: int) -> int:
    """do_numa_page(): accessible again; writable if it was, or if mprotect() would make it so."""
    if ask(s, t, k, NUMA_SAVES_WRITE, 0):
        s.pte[mm, page] = pte_of(s, mm, page) & ~PTE_PROTNONE
    else:
        make_accessible(s, t, k, mm, page)
    return int(s.t_return[t])


@helper
def make_accessible(s: State, t: int, k: KernelRecord, mm: int, page: int) -> None:
    """can_change_pte_writable(): the entry of an access that was noticed."""
    pte = pte_of(s, mm, page) & ~PTE_PROTNONE
    s.pte[mm, page] = pte
    if may_upgrade(s, t, k, mm, page):
        s.pte[mm, page] = pte | PTE_WRITE
