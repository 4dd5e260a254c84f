"""What user space can read about its own pages."""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.jit import KernelRecord, step
from pageherd.machine.layout import State
from pageherd.machine.pte import is_hugetlb, pte_of
from pageherd.machine.state import (
    ABSENT,
    PRESENT,
    PTE_DEVICE,
    PTE_GUARD,
    PTE_HWPOISON,
    PTE_MIGRATION,
    PTE_PRESENT,
    PTE_SWAP,
    PTE_UFFD_WP,
    SWAPPED,
    ZERO_FRAME,
    ZEROED,
)


@step(steps.PAGEMAP)
def pagemap(s: State, t: int, k: KernelRecord) -> int:
    """/proc/PID/pagemap bits 62 and 63; PAGEMAP_SCAN tells the zero page apart (6.7+).

    A migration entry reads as swapped, and so do markers, of userfaultfd (but not of hugetlb) and
    guard regions, hwpoison entries, and those of a page that a device has.
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    pte = pte_of(s, mm, page)
    marked = PTE_GUARD | PTE_HWPOISON | PTE_DEVICE
    marker = pte == PTE_UFFD_WP and not is_hugetlb(s, mm, page)
    if pte & (PTE_SWAP | PTE_MIGRATION | marked) or marker:
        s.t_result[t] = SWAPPED
    elif (pte & PTE_PRESENT) == 0:
        s.t_result[t] = ABSENT
    elif s.pte_to[mm, page] == ZERO_FRAME:
        s.t_result[t] = ZEROED
    else:
        s.t_result[t] = PRESENT
    return steps.IDLE


@step(steps.PAGEMAP_WP)
def pagemap_wp(s: State, t: int, k: KernelRecord) -> int:
    """/proc/PID/pagemap, bit 57 (fb8e37f35a2f, v5.14); before that the same bit of the entry."""
    pte = pte_of(s, int(s.t_mm[t]), int(s.t_page[t]))
    s.t_result[t] = int((pte & PTE_UFFD_WP) != 0)
    return steps.IDLE
