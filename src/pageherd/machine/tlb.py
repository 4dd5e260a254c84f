"""Stale translations: what a processor still has of an entry that a userfaultfd call has changed.

change_protection() changes the entry under the page-table lock and flushes at its end, after it has
let go of that lock; mmap_lock is held for reading only.  The entry as it was is in the registers of
the thread that stands between the two (`t_pte`, `t_pte_to`), at the step UFFD_FLUSH.  There is
no other stale translation in the machine.
"""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.jit import helper
from pageherd.machine.layout import State
from pageherd.machine.pte import pte_of
from pageherd.machine.state import NONE, PTE_DIRTY, PTE_PRESENT, PTE_WRITE


@helper
def owes_flush(s: State, u: int, mm: int) -> bool:
    """Whether thread `u` has changed an entry of `mm` and not flushed it yet."""
    return bool(s.t_pc[u] == steps.UFFD_FLUSH and s.t_mm[u] == mm)


@helper
def mm_tlb_flush_pending(s: State, mm: int) -> bool:
    """mm_tlb_flush_pending(): inc_tlb_flush_pending() or tlb_gather_mmu() has counted a flush."""
    for u in range(s.t_pc.shape[0]):
        if owes_flush(s, u, mm):
            return True
    return False


@helper
def flush_tlb_page(s: State, mm: int, page: int) -> None:
    """flush_tlb_page(): no processor has a stale translation of the page any more."""
    for u in range(s.t_pc.shape[0]):
        if owes_flush(s, u, mm) and s.t_page[u] == page:
            s.t_pte[u] = 0


@helper
def stale_frame(s: State, mm: int, page: int) -> int:
    """The frame that a store reaches by a stale translation; NONE if there is none.

    It was writable and dirty: to set the dirty bit a processor walks the page table again.  Whoever
    clears the entry, or its dirty bit, flushes it: ptep_clear_flush().
    """
    mapped = PTE_PRESENT | PTE_DIRTY
    writable = mapped | PTE_WRITE
    frame = int(s.pte_to[mm, page])
    if pte_of(s, mm, page) & mapped != mapped:
        return NONE
    for u in range(s.t_pc.shape[0]):
        if owes_flush(s, u, mm) and s.t_page[u] == page and s.t_pte_to[u] == frame:
            if int(s.t_pte[u]) & writable == writable:
                return frame
    return NONE
