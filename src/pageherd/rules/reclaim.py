"""What reclaim leaves alone: MADV_PAGEOUT's shared pages, pinned pages, pages still mapped."""

from __future__ import annotations

from pageherd.machine.folio import (
    compound_head,
    has_flag,
    is_anon,
    is_exclusive,
    is_large,
    page_maybe_dma_pinned,
)
from pageherd.machine.jit import KernelRecord
from pageherd.machine.layout import State
from pageherd.machine.questions import (
    COPY_DROPS_SWAP,
    COUNT_FOLIO,
    COUNT_PAGE,
    COUNT_SHARED,
    NO,
    PAGEOUT_SKIPS,
    PAGEOUT_SPLITS,
    RECLAIM_SKIPS,
    STILL_MAPPED,
    SWAPOUT_SPLITS,
    SWAPOUT_ZEROS,
    UNMAP_REFUSES,
    YES,
    ZAP_DRAINS,
    ZAP_FREES_TABLE,
)
from pageherd.machine.rmap import find_mapping
from pageherd.machine.state import NONE, PG_PARTIALLY_MAPPED, ask
from pageherd.machine.swap import in_swap_cache
from pageherd.rules.base import decision_point, no, yes

PAGEOUT = decision_point(
    "pageout-skips", PAGEOUT_SKIPS, kernel_function="madvise_cold_or_pageout_pte_range"
)
PAGEOUT.group("nothing", "ordinary reclaim does not mind shared pages", no)


@PAGEOUT.alternative("not-mapped-once", "page_mapcount() != 1; v5.4 (1a4e58cce84e) and later")
def not_mapped_once(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Skip a page unless the counter says it is mapped exactly once."""
    return YES if ask(s, t, k, COUNT_PAGE, frame) != 1 else NO


@PAGEOUT.alternative("maybe-shared", "folio_maybe_mapped_shared; v6.8 and later")
def maybe_shared(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Skip a small page unless it is mapped exactly once, a folio that more processes may map."""
    if is_large(s, frame):
        return ask(s, t, k, COUNT_SHARED, frame)
    return YES if ask(s, t, k, COUNT_PAGE, frame) != 1 else NO


@PAGEOUT.alternative("mapped-twice-by-rmap", "proposal: look the mappings up with rmap")
def mapped_twice_by_rmap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """A page for which an rmap walk finds a second mapping, a folio with a second process."""
    pages = int(s.nr_pages)
    first = find_mapping(s, frame, 0, 0)
    if first == NONE:
        return NO
    at, page = first // pages, first % pages + 1
    if is_large(s, frame):
        at, page = at + 1, 0
    return YES if find_mapping(s, frame, at, page) != NONE else NO


SPLITS = decision_point(
    "pageout-splits", PAGEOUT_SPLITS, kernel_function="madvise_cold_or_pageout_pte_range"
)
SPLITS.group("pte-mapped", "madvise_cold_or_pageout_pte_range; until v6.8", yes)
SPLITS.group("partly-mapped", "madvise_folio_pte_batch; v6.10 and later (3931b871c490)", no)

BEFORE_SWAP = decision_point("swapout-splits", SWAPOUT_SPLITS, kernel_function="shrink_folio_list")


@BEFORE_SWAP.alternative("without-pmd-entry", "shrink_page_list, compound_mapcount; until v6.8")
def without_pmd_entry(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Split a folio that no PMD entry maps: some of its pages can probably be freed without I/O."""
    return YES if s.entire_mapcount[compound_head(s, frame)] == 0 else NO


@BEFORE_SWAP.alternative("partly-mapped", "folio_test_partially_mapped; v6.10 and later")
def partly_mapped(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Split a folio on the deferred split queue, because a page of it was unmapped."""
    return YES if has_flag(s, frame, PG_PARTIALLY_MAPPED) else NO


SKIPS = decision_point("reclaim-skips", RECLAIM_SKIPS, kernel_function="shrink_page_list")
SKIPS.group("nothing", "shrink_page_list; until v5.10", no)


@SKIPS.alternative("pinned-before-swap", "shrink_page_list; v5.11 to v6.3, 5.10.y (feb889fb40fa)")
def pinned_before_swap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Skip an anonymous page that may be pinned, but look only before it enters the swap cache."""
    if in_swap_cache(s, frame) or not is_anon(s, frame):
        return NO
    return YES if page_maybe_dma_pinned(s, frame) else NO


@SKIPS.alternative("pinned", "shrink_folio_list; v6.4 and 6.1.y (d824ec2a1546)")
def pinned(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Skip a page that may be pinned, before it enters the swap cache and after unmapping.

    Also one of a file, whose buffers would be taken away.
    """
    return YES if page_maybe_dma_pinned(s, frame) else NO


REFUSES = decision_point(
    "unmap-refuses", UNMAP_REFUSES, kernel_function="try_to_unmap_one, try_to_migrate_one"
)
REFUSES.group("nothing", "try_to_unmap_one; until v5.18", no)


@REFUSES.alternative("exclusive-pinned", "page_try_share_anon_rmap; v5.19 (6c287605fd56)")
def exclusive_pinned(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Under the page-table lock: an exclusive page that may be pinned keeps its entry."""
    return YES if is_exclusive(s, frame) and page_maybe_dma_pinned(s, frame) else NO


MAPPED = decision_point("still-mapped", STILL_MAPPED, kernel_function="page_mapped")


@MAPPED.alternative("by-count", "page_mapped(), folio_mapped(): the map count is not zero")
def by_count(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The counter is not zero."""
    if is_large(s, frame):
        return YES if ask(s, t, k, COUNT_FOLIO, frame) != 0 else NO
    return YES if s.mapcount[frame] != 0 else NO


@MAPPED.alternative("by-rmap", "proposal: look for a mapping with rmap")
def by_rmap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """An rmap walk finds a mapping."""
    return YES if find_mapping(s, frame, 0, 0) != NONE else NO


COPY_DROPS = decision_point("copy-drops-swap", COPY_DROPS_SWAP, kernel_function="wp_page_copy")
COPY_DROPS.group("no", "wp_page_copy; until 5.10.y", no)
COPY_DROPS.group("yes", "wp_page_copy, free_swap_cache; v5.15 and later", yes)

ZEROS = decision_point("swapout-zeros", SWAPOUT_ZEROS, kernel_function="swap_writepage")
ZEROS.group("written", "swap_writepage; until v6.11", no)
ZEROS.group("noted", "swap_zeromap_folio_set(); v6.12 (0ca0c24e3211)", yes)

ZAP_TABLE = decision_point(
    "zap-table", ZAP_FREES_TABLE, kernel_function="zap_pte_range, try_to_free_pte"
)
ZAP_TABLE.group("kept", "zap_pte_range; until v6.13", no)
ZAP_TABLE.group("freed", "try_to_free_pte: CONFIG_PT_RECLAIM; read in 6.18 and 7.3", yes)

ZAP = decision_point("zap-drains", ZAP_DRAINS, kernel_function="unmap_region, exit_mmap")
ZAP.group("no", "unmap_region; v6.18 and later", no)
ZAP.group("yes", "unmap_region, lru_add_drain; until v6.12", yes)
