"""What reclaim leaves alone: MADV_PAGEOUT's shared pages, pinned pages, pages still mapped."""

from __future__ import annotations

from pageherd.machine.jit import KernelRecord
from pageherd.machine.layout import State
from pageherd.machine.questions import (
    COPY_DROPS_SWAP,
    NO,
    PAGEOUT_SKIPS,
    RECLAIM_SKIPS,
    STILL_MAPPED,
    UNMAP_REFUSES,
    YES,
    ZAP_DRAINS,
)
from pageherd.machine.state import (
    NONE,
    find_mapping,
    in_swap_cache,
    is_exclusive,
    page_maybe_dma_pinned,
)
from pageherd.rules.base import decision_point, no, yes

PAGEOUT = decision_point(
    "pageout-skips", PAGEOUT_SKIPS, kernel_function="madvise_cold_or_pageout_pte_range"
)
PAGEOUT.group("nothing", "ordinary reclaim does not mind shared pages", no)


@PAGEOUT.alternative("not-mapped-once", "page_mapcount() != 1; v5.4 (1a4e58cce84e) and later")
def not_mapped_once(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Skip a page unless the counter says it is mapped exactly once."""
    return YES if s.mapcount[frame] != 1 else NO


@PAGEOUT.alternative("mapped-twice-by-rmap", "proposal: look the mappings up with rmap")
def mapped_twice_by_rmap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Skip a page for which an rmap walk finds a second mapping."""
    pages = int(s.nr_pages)
    first = find_mapping(s, frame, 0, 0)
    if first == NONE:
        return NO
    return YES if find_mapping(s, frame, first // pages, first % pages + 1) != NONE else NO


SKIPS = decision_point("reclaim-skips", RECLAIM_SKIPS, kernel_function="shrink_page_list")
SKIPS.group("nothing", "shrink_page_list; until v5.10", no)


@SKIPS.alternative("pinned-before-swap", "shrink_page_list; v5.11 to v6.3, 5.10.y (feb889fb40fa)")
def pinned_before_swap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Skip a page that may be pinned, but look only before it enters the swap cache."""
    return YES if not in_swap_cache(s, frame) and page_maybe_dma_pinned(s, frame) else NO


@SKIPS.alternative("pinned", "shrink_folio_list; v6.4 and 6.1.y (d824ec2a1546)")
def pinned(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Skip a page that may be pinned, before it enters the swap cache and after unmapping."""
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
    return YES if s.mapcount[frame] != 0 else NO


@MAPPED.alternative("by-rmap", "proposal: look for a mapping with rmap")
def by_rmap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """An rmap walk finds a mapping."""
    return YES if find_mapping(s, frame, 0, 0) != NONE else NO


COPY_DROPS = decision_point("copy-drops-swap", COPY_DROPS_SWAP, kernel_function="wp_page_copy")
COPY_DROPS.group("no", "wp_page_copy; until 5.10.y", no)
COPY_DROPS.group("yes", "wp_page_copy, free_swap_cache; v5.15 and later", yes)

ZAP = decision_point("zap-drains", ZAP_DRAINS, kernel_function="unmap_region, exit_mmap")
ZAP.group("no", "unmap_region; v6.18 and later", no)
ZAP.group("yes", "unmap_region, lru_add_drain; until v6.12", yes)
