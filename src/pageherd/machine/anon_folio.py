"""Folios smaller than a PMD's pages, mapped page by page from the first touch (alloc_anon_folio).

One size at a time is enabled: /sys/kernel/mm/transparent_hugepage/hugepages-*kB/enabled is
`madvise` for it, and `never` for the others.  `anon_order` is its order, 0 that of a PMD.
"""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.anon_vma import same_vma
from pageherd.machine.folio import alloc_folio, alloc_frame
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.questions import ANON_FOLIOS
from pageherd.machine.state import OK, SEGV, VM_HUGEPAGE, VM_UFFD_WP, ask_value


@step(steps.MTHP)
def mthp(s: State, t: int, k: KernelRecord) -> int:
    """thpsize_create(), anon_enabled_store(): folios of t_value pages; ENOENT where none can be."""
    order = 0
    while 1 << order < s.t_value[t]:
        order += 1
    fits = s.nr_huge > 1 and 1 << order == s.t_value[t] and 1 < s.t_value[t] <= s.nr_huge
    if not fits or ask_value(k, ANON_FOLIOS) == 0:
        s.t_result[t] = SEGV
        return steps.IDLE
    s.anon_order = 0 if s.t_value[t] == s.nr_huge else order
    s.t_result[t] = OK
    return steps.IDLE


@helper
def pte_range_none(s: State, mm: int, first: int, nr: int) -> bool:
    """pte_range_none(): nothing is there."""
    for page in range(first, first + nr):
        if s.pte[mm, page] != 0:
            return False
    return True


@helper
def alloc_anon_folio(s: State, mm: int, page: int) -> int:
    """alloc_anon_folio(): of the enabled size, if it fits between what is there; else one page.

    A userfaultfd wants to hear of every page.
    """
    if s.nr_huge > 1 and s.anon_order != 0:
        nr = 1 << int(s.anon_order)
        first = page - page % nr
        vma = int(s.vma[mm, page])
        suits = same_vma(s, mm, first, first + nr - 1) and pte_range_none(s, mm, first, nr)
        if vma & VM_HUGEPAGE and (vma & VM_UFFD_WP) == 0 and suits:
            return alloc_folio(s, int(s.anon_order))
    return alloc_frame(s)
