"""numa: which pages NUMA balancing hints at, what becomes of the write bit, and what GUP sees."""

from __future__ import annotations

from pageherd.machine.folio import page_count, page_maybe_dma_pinned
from pageherd.machine.jit import KernelRecord
from pageherd.machine.layout import State
from pageherd.machine.questions import (
    COUNT_PAGE,
    COUNT_SHARED,
    NO,
    NUMA_GUP_FAULTS,
    NUMA_SAVES_WRITE,
    NUMA_SKIPS,
    YES,
)
from pageherd.machine.state import FOLL_FORCE, ask
from pageherd.rules.base import decision_point, no, yes

SKIPS = decision_point("numa-skips", NUMA_SKIPS, kernel_function="change_pte_range")


@SKIPS.alternative("not-mapped-once", "change_pte_range; until v5.16")
def not_mapped_once(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """A page that is not mapped exactly once."""
    return YES if ask(s, t, k, COUNT_PAGE, frame) != 1 else NO


@SKIPS.alternative("held-by-others", "change_pte_range; v5.17 to v6.1 and 5.10.y (80d47f5de5e3)")
def held_by_others(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """A page with any reference but the mapping's."""
    return YES if page_count(s, frame) != 1 else NO


@SKIPS.alternative("shared-or-pinned", "change_pte_range, folio_can_map_prot_numa; read in 6.12")
def shared_or_pinned(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """A page that may be pinned, or seems to be mapped by more than one process."""
    if page_maybe_dma_pinned(s, frame):
        return YES
    return ask(s, t, k, COUNT_SHARED, frame)


WRITE = decision_point("numa-write", NUMA_SAVES_WRITE, kernel_function="do_numa_page")
WRITE.group("saved", "do_numa_page, pte_savedwrite; v4.11 (288bc54949fc) to v6.1", yes)
WRITE.group("if-it-may", "do_numa_page, can_change_pte_writable; v6.2 (6a56ccbcf6c6)", no)

GUP = decision_point("numa-gup", NUMA_GUP_FAULTS, kernel_function="follow_page_pte")


@GUP.alternative("unless-forced", "follow_page_pte, FOLL_NUMA; v3.14 to v6.5")
def unless_forced(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """GUP takes a hinting fault first, but not with FOLL_FORCE."""
    return NO if int(s.t_foll[t]) & FOLL_FORCE else YES


GUP.group("takes-it", "gup_can_follow_protnone, FOLL_HONOR_NUMA_FAULT; v6.6 (d74943a2f3cd)", no)
