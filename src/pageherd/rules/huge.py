"""huge-reuse and its relatives: write and unshare faults on huge pages, and collapse."""

from __future__ import annotations

from pageherd.machine.folio import folio_nr_pages, is_exclusive, page_count
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.lock import trylock_page, unlock_page
from pageherd.machine.questions import (
    ANON_FOLIOS,
    COLLAPSE_REFUSES,
    COPY,
    COUNT_PMDS,
    HUGE_REUSE,
    HUGE_UNSHARE,
    HUGE_ZERO_WRITE,
    MERGES_STICKY,
    MERGES_UNFAULTED,
    PMD_SPLIT_DIRTY,
    REUSE_PAGE,
    SPLIT_PMD,
    SPLIT_ZEROS,
    VMA_MERGE,
    WAIT_FOR_LOCK,
)
from pageherd.machine.swap import in_swap_cache, try_to_free_swap
from pageherd.rules.base import decision_point, no, yes
from pageherd.rules.counting import folio_entire_mapcount
from pageherd.rules.reuse import busiest_page, reuse_if_one, reuse_swap_page

POINT = decision_point("huge-reuse", HUGE_REUSE, kernel_function="do_huge_pmd_wp_page")


@helper
def reuse_by_map_count(s: State, t: int, frame: int, otherwise: int) -> int:
    """do_huge_pmd_wp_page() until v5.17: reuse_swap_page() under the page lock."""
    if not trylock_page(s, t, frame):
        return WAIT_FOR_LOCK
    reuse = reuse_swap_page(s, frame, 0)
    unlock_page(s, frame)
    return REUSE_PAGE if reuse else otherwise


@POINT.alternative(
    "by-torn-mapcount-or-copy", "do_huge_pmd_wp_page, page_trans_huge_map_swapcount; until v5.7"
)
def by_torn_mapcount_or_copy(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As by-mapcount-or-copy, but the pages' own counts are read first, and PMD entries later.

    A split of another process's PMD may come between: it takes no page lock.
    """
    if s.t_seq[t] == 0:
        if not trylock_page(s, t, frame):
            return WAIT_FOR_LOCK
        s.t_seq[t] = busiest_page(s, frame, 0) + 1
        return COUNT_PMDS
    reuse = reuse_if_one(s, frame, int(s.t_seq[t]) - 1 + folio_entire_mapcount(s, frame))
    s.t_seq[t] = 0
    unlock_page(s, frame)
    return REUSE_PAGE if reuse else COPY


@POINT.alternative(
    "by-mapcount-or-copy", "do_huge_pmd_wp_page; stable trees until v5.7 (c444eb564fb1)"
)
def by_mapcount_or_copy(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Reuse when mapped once; otherwise the whole huge page is copied."""
    return reuse_by_map_count(s, t, frame, COPY)


@POINT.alternative("by-mapcount", "do_huge_pmd_wp_page; v5.8 to v5.17 (3917c80280c9)")
def by_mapcount(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Reuse when mapped once; otherwise split, and decide by page."""
    return reuse_by_map_count(s, t, frame, SPLIT_PMD)


@helper
def reuse_by_references(s: State, t: int, frame: int) -> int:
    """do_huge_pmd_wp_page() since v5.18: free the swap cache, then count references."""
    if not trylock_page(s, t, frame):
        return WAIT_FOR_LOCK
    cached = folio_nr_pages(s, frame) if in_swap_cache(s, frame) else 0
    alone = page_count(s, frame) <= 1 + cached
    if alone:
        try_to_free_swap(s, frame)
        alone = page_count(s, frame) == 1
    unlock_page(s, frame)
    return REUSE_PAGE if alone else SPLIT_PMD


@POINT.alternative("by-refcount", "do_huge_pmd_wp_page; v5.18 (3bff7e3f1f16)")
def by_refcount(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Reuse when the refcount is 1, once the swap cache is gone."""
    return reuse_by_references(s, t, frame)


@POINT.alternative("by-exclusive", "do_huge_pmd_wp_page; v5.19 (6c287605fd56)")
def by_exclusive(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Reuse when the first page is marked exclusive; else decide by references, and mark it."""
    return REUSE_PAGE if is_exclusive(s, frame) else reuse_by_references(s, t, frame)


UNSHARED = decision_point("huge-unshare", HUGE_UNSHARE, kernel_function="do_huge_pmd_wp_page")


@UNSHARED.alternative("by-page", "no unshare faults, or v1 06/11 of 17 Dec 2021: always split")
def by_page(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Split, and let the page decide."""
    return SPLIT_PMD


@UNSHARED.alternative("by-exclusive", "do_huge_pmd_wp_page with FAULT_FLAG_UNSHARE; v5.19")
def unshare_by_exclusive(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As a write fault decides, but the entry stays read-only."""
    return REUSE_PAGE if is_exclusive(s, frame) else reuse_by_references(s, t, frame)


ZERO = decision_point("huge-zero-write", HUGE_ZERO_WRITE, kernel_function="do_huge_pmd_wp_page")
ZERO.group("huge-page", "do_huge_pmd_wp_page; until v5.7, do_huge_zero_wp_pmd; v6.18", yes)
ZERO.group("small-pages", "do_huge_pmd_wp_page; v5.8 to v6.12 (3917c80280c9)", no)

SIZES = decision_point("anon-folios", ANON_FOLIOS, kernel_function="alloc_anon_folio")
SIZES.value("pages-only", 0, "do_anonymous_page; until v6.7")
SIZES.value("enabled-size", 1, "alloc_anon_folio; v6.8 (19eaf44954df)")

COLLAPSES = decision_point(
    "collapse-read-only", COLLAPSE_REFUSES, kernel_function="hpage_collapse_scan_pmd"
)
COLLAPSES.group("refused", "SCAN_PAGE_RO; until v6.12", yes)
COLLAPSES.group("allowed", "collapse_scan_pmd; v6.18 and later", no)

DIRTY = decision_point(
    "pmd-split-dirty", PMD_SPLIT_DIRTY, kernel_function="__split_huge_pmd_locked"
)
DIRTY.group("page", "__split_huge_pmd_locked; until v6.3, the folio is dirty and no entry is", no)
DIRTY.group("entries", "__split_huge_pmd_locked; read in 6.12, every entry is as the PMD was", yes)

ZEROS = decision_point("split-zeros", SPLIT_ZEROS, kernel_function="remap_page")
ZEROS.group("kept", "remap_page; read in 6.1", no)
ZEROS.group("zero-page", "try_to_map_unused_to_zeropage; read in 6.12 (b1f202060afe)", yes)

MERGE = decision_point("vma-merge", VMA_MERGE, kernel_function="is_mergeable_anon_vma")
MERGE.value("one-anon-vma", 0, "is_mergeable_anon_vma; until v6.15, or what changes has none")
MERGE.value("unfaulted-too", MERGES_UNFAULTED, "is_mergeable_anon_vma; v6.16 (879bca0a2c4f)")
MERGE.value(
    "sticky-soft-dirty",
    MERGES_UNFAULTED | MERGES_STICKY,
    "VM_STICKY; v7.0, a VMA joined with a soft-dirty one is soft-dirty",
)
