"""free-skips, lazyfree: which pages MADV_FREE takes, and when reclaim may drop them.

(madvise_free_pte_range, madvise_free_huge_pmd, try_to_unmap_one)
"""

from __future__ import annotations

from pageherd.machine.folio import compound_head, has_flag, page_count
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.questions import (
    COUNT_FOLIO,
    COUNT_PAGE,
    DROP_IT,
    FREE_SKIPS,
    FREE_SKIPS_PMD,
    KEEP_IT,
    KEEP_LAZY,
    LAZYFREE,
    NO,
    YES,
)
from pageherd.machine.state import PG_DIRTY, ask
from pageherd.rules.base import decision_point
from pageherd.rules.reclaim import mapped_twice_by_rmap, maybe_shared, not_mapped_once

SKIPS = decision_point(
    "free-skips",
    FREE_SKIPS,
    FREE_SKIPS_PMD,
    kernel_function="madvise_free_pte_range, madvise_free_huge_pmd",
)


def folio_not_mapped_once(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """total_mapcount() != 1, every page of the folio counted."""
    return YES if ask(s, t, k, COUNT_FOLIO, frame) != 1 else NO


def first_page_not_mapped_once(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """folio_estimated_sharers() != 1: the map count of the folio's first page."""
    return YES if ask(s, t, k, COUNT_PAGE, compound_head(s, frame)) != 1 else NO


SKIPS.group(
    "not-mapped-once",
    "page_mapcount() != 1, of a PMD's folio total_mapcount(); until v6.2",
    not_mapped_once,
    folio_not_mapped_once,
)
SKIPS.group(
    "first-page-not-mapped-once",
    "folio_estimated_sharers() != 1, of a PMD's folio total_mapcount(); read in 6.1.192",
    first_page_not_mapped_once,
    folio_not_mapped_once,
)
SKIPS.group(
    "maybe-shared", "folio_maybe_mapped_shared(); v6.8 and later", maybe_shared, maybe_shared
)
SKIPS.group(
    "mapped-twice-by-rmap",
    "proposal: look the mappings up with rmap",
    mapped_twice_by_rmap,
    mapped_twice_by_rmap,
)

POINT = decision_point("lazyfree", LAZYFREE, kernel_function="try_to_unmap_one")


@POINT.alternative("unless-dirty", "try_to_unmap_one; until v5.17")
def unless_dirty(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Drop it unless it has become dirty, whoever else holds it."""
    return KEEP_IT if has_flag(s, frame, PG_DIRTY) else DROP_IT


@helper
def held_by_others(s: State, frame: int) -> bool:
    """Whether anybody but the isolation and the mappings has a reference."""
    return page_count(s, frame) != 1 + int(s.mapcount[frame])


@POINT.alternative(
    "unless-dirty-or-held", "try_to_unmap_one; v5.18 and 5.10.y (6c8e2a256915), read in 6.12"
)
def unless_dirty_or_held(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Drop it unless it has become dirty or is held; then it is an ordinary page again."""
    return KEEP_IT if has_flag(s, frame, PG_DIRTY) or held_by_others(s, frame) else DROP_IT


@POINT.alternative("held-stays-lazy", "try_to_unmap_one; read in 6.18 and 7.3")
def held_stays_lazy(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """A dirty page is an ordinary page again; one that is only held may be dropped later."""
    if has_flag(s, frame, PG_DIRTY):
        return KEEP_IT
    return KEEP_LAZY if held_by_others(s, frame) else DROP_IT
