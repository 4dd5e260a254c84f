"""ksm: which pages ksmd may take, what a write fault does with its pages, how they are unmerged."""

from __future__ import annotations

from pageherd.machine.folio import is_exclusive, page_count
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.pte import pte_of
from pageherd.machine.questions import (
    ANEW,
    COPY,
    INHERITED,
    KSM_BREAKS,
    KSM_CHECKS,
    KSM_COUNTS,
    KSM_COUNTS_MERGING,
    KSM_MARKS_ZERO,
    KSM_NEW_VMAS,
    KSM_REUSE,
    MARKED_FIRST,
    MARKED_LATER,
    NO,
    REUSE_PAGE,
    UNSHARE_FAULT,
    WRITE_FAULT,
    YES,
)
from pageherd.machine.rmap import find_mapping
from pageherd.machine.state import NONE, PTE_DIRTY, PTE_WRITE
from pageherd.machine.swap import in_swap_cache
from pageherd.rules.base import decision_point, no, yes

CHECKS = decision_point("ksm-checks", KSM_CHECKS, kernel_function="write_protect_page")


@helper
def is_written(s: State, t: int) -> bool:
    """Whether the entry that ksmd is at is writable or dirty."""
    return (pte_of(s, int(s.t_mm[t]), int(s.t_page[t])) & (PTE_WRITE | PTE_DIRTY)) != 0


@CHECKS.alternative("written", "write_protect_page; until v5.18")
def written(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """When the entry is writable or dirty."""
    return YES if is_written(s, t) else NO


@CHECKS.alternative("written-or-exclusive", "write_protect_page; v5.19 (6c287605fd56)")
def written_or_exclusive(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """When the entry is writable or dirty, or the page is marked exclusive."""
    return YES if is_exclusive(s, frame) or is_written(s, t) else NO


COUNTS = decision_point("ksm-counts", KSM_COUNTS, kernel_function="write_protect_page")


@COUNTS.alternative("by-mapcount", "page_mapcount() + 1 + PageSwapCache() == page_count()")
def by_mapcount(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The counter's mappings, ksmd and the swap cache, and nobody else."""
    expected = int(s.mapcount[frame]) + 1 + int(in_swap_cache(s, frame))
    return YES if page_count(s, frame) == expected else NO


@COUNTS.alternative("by-rmap", "proposal: count the mappings with rmap")
def by_rmap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The mappings that an rmap walk finds, ksmd and the swap cache, and nobody else."""
    pages = int(s.nr_pages)
    expected = 1 + int(in_swap_cache(s, frame))
    found = find_mapping(s, frame, 0, 0)
    while found != NONE:
        expected += 1
        found = find_mapping(s, frame, (found + 1) // pages, (found + 1) % pages)
    return YES if page_count(s, frame) == expected else NO


REUSE = decision_point("ksm-reuse", KSM_REUSE, kernel_function="do_wp_page, reuse_ksm_page")


@REUSE.alternative("never", "do_wp_page; until v5.0, and v5.9 (09854ba94c6a) and later")
def never(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Copy, whoever else maps it."""
    return COPY


@REUSE.alternative("alone", "reuse_ksm_page; v5.1 (52d1e606ee73) to v5.8")
def alone(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Reuse when the refcount is 1 and the page is not in the swap cache."""
    return COPY if in_swap_cache(s, frame) or page_count(s, frame) != 1 else REUSE_PAGE


UNMERGE = decision_point("ksm-unmerge", KSM_BREAKS, kernel_function="break_ksm")
UNMERGE.group("write-fault", "break_ksm, FAULT_FLAG_WRITE; until v6.1", no)
UNMERGE.group("unshare-fault", "break_ksm, FAULT_FLAG_UNSHARE; v6.2 (d7c0e68dab98)", yes)

ZERO = decision_point("ksm-zero", KSM_MARKS_ZERO, kernel_function="replace_page, break_ksm")
ZERO.group("left", "replace_page; until v6.5, unmerging leaves zero pages alone", no)
ZERO.group("unshared", "pte_mkdirty in replace_page, is_ksm_zero_pte; v6.6 (79271476b336)", yes)

assert (WRITE_FAULT, UNSHARE_FAULT) == (NO, YES)

NEW = decision_point("ksm-new-mappings", KSM_NEW_VMAS, kernel_function="ksm_add_vma")
NEW.value("none", 0, "no PR_SET_MEMORY_MERGE; until v6.3")
NEW.value("marked-later", MARKED_LATER, "ksm_add_vma; v6.4 (d7597f59d1d3), read in 6.12")
NEW.value("marked-first", MARKED_FIRST, "ksm_vma_flags; read in 7.3")

MERGING = decision_point("ksm-merging", KSM_COUNTS_MERGING, kernel_function="ksm_fork")
MERGING.value("not-counted", 0, "no /proc/PID/ksm_merging_pages; until v5.18")
MERGING.value("inherited", INHERITED, "dup_mm; v5.19 (7609385337a4) and later, read in 6.1.192")
MERGING.value("anew", ANEW, "ksm_fork; read in 6.12.117, 6.18 and 7.3")
