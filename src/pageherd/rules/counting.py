"""counting: how mappings are counted, what the counters say, and what they vouch for.

Every way of counting answers the same questions: the counters after one mapping more and one less,
by a page-table entry or by a PMD entry for a whole folio; how often a page is mapped, how often a
folio is, whether more than one process maps it, and whether user space is told that a page is
mapped once; and between which numbers the truth must lie (lowest + 4096 * highest), which is what
the promise `counts` holds it to.  Here are those that shipped.

A small page has one counter, `mapcount`.  A large folio has one for each page, one at its head for
entries that map it whole (`entire_mapcount`), and in some kernels the total (`large_mapcount`) and
the two processes that map it most (`mm_id`).
"""

from __future__ import annotations

from typing import Final

from pageherd.machine.folio import (
    clear_flag,
    compound_head,
    folio_nr_pages,
    has_flag,
    is_large,
    set_flag,
    stands_for_many,
)
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.questions import (
    COUNT_BOUNDS,
    COUNT_FOLIO,
    COUNT_FOLIO_BOUNDS,
    COUNT_MMS_BOUNDS,
    COUNT_ON_MAP,
    COUNT_ON_MAP_PMD,
    COUNT_ON_UNMAP,
    COUNT_ON_UNMAP_PMD,
    COUNT_ONE,
    COUNT_PAGE,
    COUNT_SHARED,
    NO,
    YES,
)
from pageherd.machine.state import PG_MAYBE_SHARED
from pageherd.rules.base import decision_point

POINT = decision_point(
    "counting",
    COUNT_ON_MAP,
    COUNT_ON_UNMAP,
    COUNT_ON_MAP_PMD,
    COUNT_ON_UNMAP_PMD,
    COUNT_PAGE,
    COUNT_FOLIO,
    COUNT_SHARED,
    COUNT_ONE,
    COUNT_BOUNDS,
    COUNT_FOLIO_BOUNDS,
    COUNT_MMS_BOUNDS,
    kernel_function="page_add_anon_rmap, page_remove_rmap",
    about="how are the mappings of a page counted?",
)

HIGHEST: Final = 4096
UNBOUNDED: Final = 4095


def anything(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Vouches for nothing."""
    return HIGHEST * UNBOUNDED


# -- exact -----------------------------------------------------------------------------------------


def exact_map(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Every mapping counts (_mapcount)."""
    return int(s.mapcount[frame]) + 1


def exact_unmap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Every mapping counts (_mapcount)."""
    return int(s.mapcount[frame]) - 1


def exact_map_pmd(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Every PMD mapping counts (compound_mapcount)."""
    return int(s.entire_mapcount[frame]) + 1


def exact_unmap_pmd(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Every PMD mapping counts (compound_mapcount)."""
    return int(s.entire_mapcount[frame]) - 1


@helper
def folio_entire_mapcount(s: State, frame: int) -> int:
    """How many PMD entries map the folio; none can map a small page."""
    return int(s.entire_mapcount[compound_head(s, frame)]) if is_large(s, frame) else 0


def exact_page(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """page_mapcount(): its own entries and those that map the whole folio."""
    return int(s.mapcount[frame]) + folio_entire_mapcount(s, frame)


def exact_folio(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """total_mapcount(): a loop over the pages of the folio."""
    head = compound_head(s, frame)
    count = folio_entire_mapcount(s, head)
    for each in range(head, head + folio_nr_pages(s, head)):
        count += int(s.mapcount[each])
    return count


def exact_shared(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """page_mapcount() > 1 of this page stands for the folio."""
    return YES if int(s.mapcount[frame]) + folio_entire_mapcount(s, frame) > 1 else NO


def exact_one(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """page_mapcount() == 1."""
    return YES if int(s.mapcount[frame]) + folio_entire_mapcount(s, frame) == 1 else NO


def exact_bounds(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Exactly as many mappings as the counters say."""
    return (int(s.mapcount[frame]) + folio_entire_mapcount(s, frame)) * (1 + HIGHEST)


def exact_folio_bounds(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Exactly as many entries as the counters of the folio add up to."""
    head = compound_head(s, frame)
    count = folio_entire_mapcount(s, head)
    for each in range(head, head + folio_nr_pages(s, head)):
        count += int(s.mapcount[each])
    return count * (1 + HIGHEST)


POINT.group(
    "exact",
    "_mapcount of each page, compound_mapcount; until v6.9",
    exact_map,
    exact_unmap,
    exact_map_pmd,
    exact_unmap_pmd,
    exact_page,
    exact_folio,
    exact_shared,
    exact_one,
    exact_bounds,
    exact_folio_bounds,
    anything,
)

# -- exact, and the total --------------------------------------------------------------------------


@helper
def add_total(s: State, frame: int, n: int) -> None:
    """_large_mapcount, of large folios only."""
    if is_large(s, frame):
        head = compound_head(s, frame)
        s.large_mapcount[head] = int(s.large_mapcount[head]) + n


def total_map(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The page's counter and the folio's total."""
    add_total(s, frame, 1)
    return int(s.mapcount[frame]) + 1


def total_unmap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The page's counter and the folio's total."""
    add_total(s, frame, -1)
    return int(s.mapcount[frame]) - 1


def total_map_pmd(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The entire counter and the folio's total."""
    add_total(s, frame, 1)
    return int(s.entire_mapcount[frame]) + 1


def total_unmap_pmd(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The entire counter and the folio's total."""
    add_total(s, frame, -1)
    return int(s.entire_mapcount[frame]) - 1


@helper
def folio_mapcount(s: State, frame: int) -> int:
    """folio_mapcount(): one number, no loop."""
    if is_large(s, frame):
        return int(s.large_mapcount[compound_head(s, frame)])
    return int(s.mapcount[frame])


def total_folio(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """folio_mapcount()."""
    return folio_mapcount(s, frame)


def total_shared(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """folio_likely_mapped_shared(): sure if there are more maps than pages, else page 0's guess."""
    count = folio_mapcount(s, frame)
    if not is_large(s, frame) or count <= 1:
        return YES if count > 1 else NO
    head = compound_head(s, frame)
    if s.entire_mapcount[head] != 0 or count > folio_nr_pages(s, head):
        return YES
    last = head + folio_nr_pages(s, head) - 1
    if stands_for_many(s, last) and s.mapcount[last] > 1:
        return YES
    return YES if s.mapcount[head] > 1 else NO


def total_folio_bounds(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Exactly as many entries as the total says."""
    return folio_mapcount(s, frame) * (1 + HIGHEST)


POINT.group(
    "exact-and-total",
    "_large_mapcount beside the counters of the pages; v6.10 to v6.14 (05c5323b2a34)",
    total_map,
    total_unmap,
    total_map_pmd,
    total_unmap_pmd,
    exact_page,
    total_folio,
    total_shared,
    exact_one,
    exact_bounds,
    total_folio_bounds,
    anything,
)

# -- who maps it: two slots for processes ----------------------------------------------------------


@helper
def mm_slot(s: State, head: int, mm: int) -> int:
    """The slot of `mm` (its number + 1; 0 finds a free one), or 2."""
    for slot in range(2):
        if s.mm_id[head, slot] == mm:
            return slot
    return 2


@helper
def add_mm(s: State, t: int, frame: int) -> None:
    """__folio_add_large_mapcount()s part for one process: 6af8cb80d3a9, v6.15."""
    if not is_large(s, frame):
        return
    head, mm = compound_head(s, frame), int(s.t_rmap_mm[t]) + 1
    slot = mm_slot(s, head, mm)
    if slot < 2:
        s.mm_id_mapcount[head, slot] = int(s.mm_id_mapcount[head, slot]) + 1
        return
    slot = mm_slot(s, head, 0)
    if slot < 2:
        s.mm_id[head, slot] = mm
        s.mm_id_mapcount[head, slot] = 1
        if s.large_mapcount[head] != 1:
            set_flag(s, head, PG_MAYBE_SHARED)


@helper
def remove_mm(s: State, t: int, frame: int) -> None:
    """folio_sub_large_mapcount()s part: sharing ends when one slot has all mappings that are left.

    Only looked at when this process has no slot, or gives its slot up: else it may stay "maybe".
    """
    if not is_large(s, frame):
        return
    head, mm = compound_head(s, frame), int(s.t_rmap_mm[t]) + 1
    slot = mm_slot(s, head, mm)
    if slot < 2:
        s.mm_id_mapcount[head, slot] = int(s.mm_id_mapcount[head, slot]) - 1
        if s.mm_id_mapcount[head, slot] != 0:
            return
        s.mm_id[head, slot] = 0
    for each in range(2):
        if s.mm_id[head, each] != 0 and s.mm_id_mapcount[head, each] == s.large_mapcount[head]:
            clear_flag(s, head, PG_MAYBE_SHARED)
    if s.large_mapcount[head] == 0:
        clear_flag(s, head, PG_MAYBE_SHARED)


def ids_map(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The page's counter, the total, and the process's slot."""
    add_total(s, frame, 1)
    add_mm(s, t, frame)
    return int(s.mapcount[frame]) + 1


def ids_unmap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The page's counter, the total, and the process's slot."""
    add_total(s, frame, -1)
    remove_mm(s, t, frame)
    return int(s.mapcount[frame]) - 1


def ids_map_pmd(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The entire counter, the total, and the process's slot."""
    add_total(s, frame, 1)
    add_mm(s, t, frame)
    return int(s.entire_mapcount[frame]) + 1


def ids_unmap_pmd(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The entire counter, the total, and the process's slot."""
    add_total(s, frame, -1)
    remove_mm(s, t, frame)
    return int(s.entire_mapcount[frame]) - 1


@helper
def maybe_mapped_shared(s: State, frame: int) -> bool:
    """folio_maybe_mapped_shared(): "no" is certain, "yes" is not."""
    count = folio_mapcount(s, frame)
    if not is_large(s, frame) or count == 0:
        return count > 1
    last = compound_head(s, frame) + folio_nr_pages(s, frame) - 1
    single = count == 1 and not (stands_for_many(s, last) and s.mapcount[last] != 0)
    return not single and has_flag(s, frame, PG_MAYBE_SHARED)


def ids_shared(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """folio_maybe_mapped_shared()."""
    return YES if maybe_mapped_shared(s, frame) else NO


def ids_one(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Not folio_maybe_mapped_shared() stands for it: __folio_page_mapped_exclusively(), v6.15."""
    return NO if maybe_mapped_shared(s, frame) else YES


def ids_mms_bounds(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """ "Not shared" vouches for one process at most."""
    if is_large(s, frame) and not maybe_mapped_shared(s, frame):
        return HIGHEST
    return HIGHEST * UNBOUNDED


POINT.group(
    "mm-ids",
    "folio_maybe_mapped_shared, beside the counters of the pages; v6.15 (6af8cb80d3a9)",
    ids_map,
    ids_unmap,
    ids_map_pmd,
    ids_unmap_pmd,
    exact_page,
    total_folio,
    ids_shared,
    exact_one,
    exact_bounds,
    total_folio_bounds,
    ids_mms_bounds,
)

# -- no counters of the pages of large folios ------------------------------------------------------


def ids_only_map(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The total and the process's slot; a small page's own counter."""
    add_total(s, frame, 1)
    add_mm(s, t, frame)
    return int(s.mapcount[frame]) + int(not is_large(s, frame))


def ids_only_unmap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The total and the process's slot; a small page's own counter."""
    add_total(s, frame, -1)
    remove_mm(s, t, frame)
    return int(s.mapcount[frame]) - int(not is_large(s, frame))


def average_page(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """folio_average_page_mapcount(): rounded, and at least 1 while anything is mapped."""
    if not is_large(s, frame):
        return int(s.mapcount[frame])
    head, nr = compound_head(s, frame), folio_nr_pages(s, frame)
    entire = int(s.entire_mapcount[head])
    singles = int(s.large_mapcount[head]) - entire
    average = entire + (singles + nr // 2) // nr
    return max(average, 1) if s.large_mapcount[head] != 0 else 0


def small_page_bounds(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Exact for a small page; nothing is said about one page of a large folio."""
    if is_large(s, frame):
        return HIGHEST * UNBOUNDED
    return int(s.mapcount[frame]) * (1 + HIGHEST)


POINT.group(
    "mm-ids-only",
    "CONFIG_NO_PAGE_MAPCOUNT; v6.15 (2f633d377d1f), off by default",
    ids_only_map,
    ids_only_unmap,
    ids_map_pmd,
    ids_unmap_pmd,
    average_page,
    total_folio,
    ids_shared,
    ids_one,
    small_page_bounds,
    total_folio_bounds,
    ids_mms_bounds,
)
