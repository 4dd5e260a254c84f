"""counting, as it was proposed: what would be left if pages of large folios had no counter.

Each answers what the ways that shipped answer; those that count less walk the page tables instead.
"""

from __future__ import annotations

from typing import Final

from pageherd.machine.folio import compound_head, folio_nr_pages, is_large
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.questions import NO, YES
from pageherd.machine.rmap import counts_here, maps_folio_here
from pageherd.machine.state import LIVE, PTE_HUGE
from pageherd.rules.base import no
from pageherd.rules.counting import (
    HIGHEST,
    POINT,
    UNBOUNDED,
    add_mm,
    add_total,
    anything,
    exact_one,
    exact_shared,
    folio_entire_mapcount,
    folio_mapcount,
    ids_mms_bounds,
    ids_one,
    ids_shared,
    remove_mm,
    small_page_bounds,
    total_folio,
    total_folio_bounds,
)

ONCE: Final = 1
MANY_OF_THREE: Final = 2
MANY_OF_FOUR: Final = 3

# -- walks, for those who do not count -------------------------------------------------------------


@helper
def walk(s: State, frame: int) -> tuple[int, int]:
    """How many entries map the folio of `frame`, and in how many processes.

    A PMD entry is one entry; every page-table entry looked at is an rmap step.
    """
    head = compound_head(s, frame)
    entries, mms = 0, 0
    for mm in range(s.nr_mms):
        found = 0
        if s.mm_state[mm] == LIVE:
            for page in range(s.nr_pages):
                if maps_folio_here(s, mm, page, head):
                    huge = (int(s.pte[mm, page]) & PTE_HUGE) != 0
                    found += int(not huge or s.pte_to[mm, page] == head)
        entries += found
        mms += int(found != 0)
    return entries, mms


def folio_by_walk(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As many entries as an rmap walk finds."""
    return walk(s, frame)[0]


def shared_by_walk(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Whether an rmap walk meets two processes."""
    return YES if walk(s, frame)[1] > 1 else NO


@helper
def entries_of_page(s: State, frame: int) -> int:
    """How many entries map this page."""
    count = 0
    for mm in range(s.nr_mms):
        if s.mm_state[mm] == LIVE:
            for page in range(s.nr_pages):
                count += int(counts_here(s, mm, page, frame))
    return count


def page_by_walk(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As many entries for this page as an rmap walk finds."""
    return entries_of_page(s, frame)


def one_by_walk(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Whether an rmap walk finds one entry for this page."""
    return YES if entries_of_page(s, frame) == 1 else NO


# -- total mapped pages ----------------------------------------------------------------------------


@helper
def add_mapped_pages(s: State, frame: int, n: int) -> None:
    """The entire mapcount is gone: its place holds how many pages are mapped in all."""
    if is_large(s, frame):
        head = compound_head(s, frame)
        s.entire_mapcount[head] = int(s.entire_mapcount[head]) + n


def mapped_pages_map(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """One page more."""
    add_total(s, frame, 1)
    add_mapped_pages(s, frame, 1)
    add_mm(s, t, frame)
    return int(s.mapcount[frame]) + int(not is_large(s, frame))


def mapped_pages_unmap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """One page less."""
    add_total(s, frame, -1)
    add_mapped_pages(s, frame, -1)
    remove_mm(s, t, frame)
    return int(s.mapcount[frame]) - int(not is_large(s, frame))


def mapped_pages_map_pmd(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As many pages more as the folio has."""
    add_total(s, frame, 1)
    add_mm(s, t, frame)
    return int(s.entire_mapcount[frame]) + folio_nr_pages(s, frame)


def mapped_pages_unmap_pmd(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As many pages less as the folio has."""
    add_total(s, frame, -1)
    remove_mm(s, t, frame)
    return int(s.entire_mapcount[frame]) - folio_nr_pages(s, frame)


def average_of_mapped_pages(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Mapped pages by pages, rounded, and at least 1 while anything is mapped."""
    if not is_large(s, frame):
        return int(s.mapcount[frame])
    head, nr = compound_head(s, frame), folio_nr_pages(s, frame)
    pages = int(s.entire_mapcount[head])
    return max((pages + nr // 2) // nr, 1) if pages != 0 else 0


POINT.group(
    "total-mapped-pages",
    "proposal: David Hildenbrand, [PATCH RFC 00/13] mm/rmap: support arbitrary folio mappings,"
    " 12 Apr 2026",
    mapped_pages_map,
    mapped_pages_unmap,
    mapped_pages_map_pmd,
    mapped_pages_unmap_pmd,
    average_of_mapped_pages,
    total_folio,
    ids_shared,
    ids_one,
    small_page_bounds,
    total_folio_bounds,
    ids_mms_bounds,
)

# -- one for each process's page table -------------------------------------------------------------


@helper
def mapped_beside(s: State, t: int, frame: int) -> bool:
    """Whether another page of the folio is mapped in the same page table of this process."""
    if not is_large(s, frame):
        return False
    mm, page = int(s.t_rmap_mm[t]), int(s.t_rmap_page[t])
    first = page - page % int(s.nr_huge)
    for other in range(first, min(first + int(s.nr_huge), int(s.nr_pages))):
        if other != page and maps_folio_here(s, mm, other, compound_head(s, frame)):
            return True
    return False


def table_map(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The first page of a folio that a page table maps counts."""
    if not is_large(s, frame):
        return int(s.mapcount[frame]) + 1
    add_total(s, frame, int(not mapped_beside(s, t, frame)))
    return 0


def table_unmap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The last page of a folio that a page table maps counts."""
    if not is_large(s, frame):
        return int(s.mapcount[frame]) - 1
    add_total(s, frame, -int(not mapped_beside(s, t, frame)))
    return 0


def table_map_pmd(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """A PMD entry counts as a page table does."""
    add_total(s, frame, 1)
    return 0


def table_unmap_pmd(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """A PMD entry counts as a page table does; split, its pages go on counting."""
    mm, page = int(s.t_rmap_mm[t]), int(s.t_rmap_page[t])
    if not maps_folio_here(s, mm, page, frame):
        add_total(s, frame, -1)
    return 0


def table_page(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As many page tables as map anything of the folio."""
    return folio_mapcount(s, frame)


def table_shared(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Two page tables; they may be one process's."""
    return YES if folio_mapcount(s, frame) > 1 else NO


def table_one(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """One page table maps anything of the folio."""
    return YES if folio_mapcount(s, frame) == 1 else NO


def table_mms_bounds(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """No more processes than page tables."""
    return HIGHEST * folio_mapcount(s, frame)


POINT.group(
    "page-tables",
    "proposal: Matthew Wilcox, 17 Dec 2021: several entries of one VMA and page table count once",
    table_map,
    table_unmap,
    table_map_pmd,
    table_unmap_pmd,
    table_page,
    folio_by_walk,
    table_shared,
    table_one,
    small_page_bounds,
    anything,
    table_mms_bounds,
)

# -- three states ----------------------------------------------------------------------------------


def three_state_map(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Not mapped, mapped once, possibly mapped more than once."""
    return min(int(s.mapcount[frame]) + 1, MANY_OF_THREE)


def three_state_unmap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """From "possibly more" there is no way back: nobody knows how many are left."""
    return 0 if s.mapcount[frame] == ONCE else MANY_OF_THREE


def three_state_map_pmd(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Three states for the entries that map the whole folio."""
    return min(int(s.entire_mapcount[frame]) + 1, MANY_OF_THREE)


def three_state_unmap_pmd(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """From "possibly more" there is no way back."""
    return 0 if s.entire_mapcount[frame] == ONCE else MANY_OF_THREE


def three_state_page(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The state read as if it were a count."""
    return int(s.mapcount[frame]) + folio_entire_mapcount(s, frame)


def three_state_bounds(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Exact for none and one; "possibly more" vouches for nothing."""
    most = max(int(s.mapcount[frame]), folio_entire_mapcount(s, frame))
    state = int(s.mapcount[frame]) + folio_entire_mapcount(s, frame)
    return HIGHEST * UNBOUNDED if most >= MANY_OF_THREE else state * (1 + HIGHEST)


POINT.group(
    "three-state",
    "proposal: Matthew Wilcox, 17 Dec 2021: not mapped, mapped once, possibly more",
    three_state_map,
    three_state_unmap,
    three_state_map_pmd,
    three_state_unmap_pmd,
    three_state_page,
    folio_by_walk,
    exact_shared,
    exact_one,
    three_state_bounds,
    anything,
    anything,
)


def zero_one_two_many_map(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Exact up to two, then many."""
    return min(int(s.mapcount[frame]) + 1, MANY_OF_FOUR)


def zero_one_two_many_unmap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """From two it is known that one is left; from many nothing is known."""
    count = int(s.mapcount[frame])
    return MANY_OF_FOUR if count >= MANY_OF_FOUR else count - 1


def zero_one_two_many_map_pmd(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Exact up to two entries that map the whole folio, then many."""
    return min(int(s.entire_mapcount[frame]) + 1, MANY_OF_FOUR)


def zero_one_two_many_unmap_pmd(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """From many nothing is known."""
    count = int(s.entire_mapcount[frame])
    return MANY_OF_FOUR if count >= MANY_OF_FOUR else count - 1


def zero_one_two_many_bounds(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Exact for none, one and two; many vouches for nothing."""
    most = max(int(s.mapcount[frame]), folio_entire_mapcount(s, frame))
    count = int(s.mapcount[frame]) + folio_entire_mapcount(s, frame)
    return HIGHEST * UNBOUNDED if most >= MANY_OF_FOUR else count * (1 + HIGHEST)


POINT.group(
    "zero-one-two-many",
    "proposal: three states with an exact two",
    zero_one_two_many_map,
    zero_one_two_many_unmap,
    zero_one_two_many_map_pmd,
    zero_one_two_many_unmap_pmd,
    three_state_page,
    folio_by_walk,
    exact_shared,
    exact_one,
    zero_one_two_many_bounds,
    anything,
    anything,
)

# -- none ------------------------------------------------------------------------------------------

POINT.group(
    "none",
    "proposal: Linus Torvalds, 19 Dec 2021: get rid of mapcount, use rmap where it matters",
    no,
    no,
    no,
    no,
    page_by_walk,
    folio_by_walk,
    shared_by_walk,
    one_by_walk,
    anything,
    anything,
    anything,
)
