"""Who maps a folio: the mapping counters, and the reverse map that finds the entries."""

from __future__ import annotations

from pageherd.machine.folio import (
    compound_head,
    folio_nr_pages,
    has_flag,
    has_stable_node,
    is_anon,
    is_ksm,
    is_large,
    set_flag,
)
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.questions import (
    COUNT_ON_MAP,
    COUNT_ON_MAP_PMD,
    COUNT_ON_UNMAP,
    COUNT_ON_UNMAP_PMD,
    STILL_MAPPED,
)
from pageherd.machine.state import (
    COST_ATOMICS,
    COST_RMAP_STEPS,
    LIVE,
    NONE,
    PG_FILE,
    PG_PARTIALLY_MAPPED,
    PTE_MAPPED,
    PTE_PRESENT,
    VM_MERGEABLE,
    ask,
    out_of_range,
)


@helper
def ask_count(
    s: State, t: int, k: KernelRecord, question: int, frame: int, mm: int, page: int
) -> int:
    """Ask how a counter changes, telling whose page it is that is mapped or unmapped."""
    s.t_rmap_mm[t] = mm
    s.t_rmap_page[t] = page
    count = ask(s, t, k, question, frame)
    s.t_rmap_mm[t] = 0
    s.t_rmap_page[t] = 0
    s.cost[COST_ATOMICS] += 1
    return count


@helper
def page_add_rmap(s: State, t: int, k: KernelRecord, frame: int, mm: int, page: int) -> None:
    """page_add_anon_rmap(): the mapping counter goes up as the kernel's way of counting says.

    The index of an anonymous page is set here; a page of a file has had its own from the start.
    """
    if s.mapcount[frame] == 0 and not has_flag(s, frame, PG_FILE):
        s.frame_index[frame] = page
    count = ask_count(s, t, k, COUNT_ON_MAP, frame, mm, page)
    if not out_of_range(s, count):
        s.mapcount[frame] = count


@helper
def page_remove_rmap(s: State, t: int, k: KernelRecord, frame: int, mm: int, page: int) -> None:
    """page_remove_rmap(), the entry is cleared.

    A large folio that is mapped in part queues for splitting (deferred_split_folio()): until then
    its other pages keep the memory of the unmapped one.  Not from the swap cache, where reclaim is
    at work on it; nor a folio of a file, which has all of its pages.
    """
    count = ask_count(s, t, k, COUNT_ON_UNMAP, frame, mm, page)
    if not out_of_range(s, count):
        s.mapcount[frame] = count
    queues = is_large(s, frame) and s.frame_slot[frame] == 0 and is_anon(s, frame)
    if queues and ask(s, t, k, STILL_MAPPED, frame):
        set_flag(s, frame, PG_PARTIALLY_MAPPED)


@helper
def folio_add_rmap_pmd(s: State, t: int, k: KernelRecord, head: int, mm: int, page: int) -> None:
    """folio_add_anon_rmap_pmd(): one entry maps the whole folio at `page` and after.

    The index of a page of a file stays (folio_add_file_rmap_pmd()).
    """
    for i in range(folio_nr_pages(s, head)):
        if is_anon(s, head):
            s.frame_index[head + i] = page + i
    count = ask_count(s, t, k, COUNT_ON_MAP_PMD, head, mm, page)
    if not out_of_range(s, count):
        s.entire_mapcount[head] = count


@helper
def folio_remove_rmap_pmd(s: State, t: int, k: KernelRecord, head: int, mm: int, page: int) -> None:
    """folio_remove_rmap_pmd(), the entry is cleared or split."""
    count = ask_count(s, t, k, COUNT_ON_UNMAP_PMD, head, mm, page)
    if not out_of_range(s, count):
        s.entire_mapcount[head] = count


@helper
def maps_here(s: State, mm: int, page: int, frame: int) -> bool:
    """Whether `page` of `mm` maps `frame`."""
    return bool((int(s.pte[mm, page]) & PTE_PRESENT) != 0 and s.pte_to[mm, page] == frame)


@helper
def counts_here(s: State, mm: int, page: int, frame: int) -> bool:
    """Whether `page` of `mm` maps `frame`, by a present entry or by one that counts like it."""
    mapping = (int(s.pte[mm, page]) & (PTE_PRESENT | PTE_MAPPED)) != 0
    return bool(mapping and s.pte_to[mm, page] == frame)


@helper
def keeps_index(s: State, frame: int) -> bool:
    """Whether every process that maps `frame` maps it at the page that is its index."""
    return bool(s.moved == 0 and not is_ksm(s, frame) and not has_flag(s, frame, PG_FILE))


@helper
def file_index(s: State, head: int) -> int:
    """page->index of a page of the page cache, plus 1; 0: of no file."""
    return int(s.frame_index[head]) + 1 if has_flag(s, head, PG_FILE) else 0


@helper
def is_of_folio(s: State, mm: int, page: int, file: int, nr: int) -> bool:
    """Whether `page` of `mm` is a mapping of one of the `nr` pages of the file from `file` on."""
    return bool(file <= s.vma_file[mm, page] < file + nr)


@helper
def maps_folio_here(s: State, mm: int, page: int, head: int) -> bool:
    """Whether `page` of `mm` maps a page of the folio at `head`: check_pte().

    So do some entries that are not present.
    """
    if (int(s.pte[mm, page]) & (PTE_PRESENT | PTE_MAPPED)) == 0:
        return False
    to = int(s.pte_to[mm, page])
    return head <= to < head + folio_nr_pages(s, head)


@helper
def is_on_ksm_list(s: State, mm: int, page: int) -> bool:
    """rmap_walk_ksm(): ksmd has come to the mapping, or to the one of which fork made it.

    It looks in the anon_vma of what it has come to, which has the mappings of children, too, but
    not those of parents.
    """
    at = mm + 1
    while at != 0:
        if s.mm_state[at - 1] == LIVE and int(s.vma[at - 1, page]) & VM_MERGEABLE:
            return True
        at = int(s.mm_parent[at - 1])
    return False


@helper
def find_mapping(s: State, frame: int, from_mm: int, from_page: int) -> int:
    """The first mapping of `frame`'s folio at or after (from_mm, from_page): mm * nr_pages + page.

    rmap_walk_anon(): a folio keeps its index, so an entry for each of its pages is looked at in
    every process, unless pages were moved by mremap.  NONE when there is no further mapping.  Of a
    KSM page without a node in the stable tree rmap_walk_ksm() finds none, nor a mapping that ksmd
    has not come to.  rmap_walk_file() looks at every mapping of those pages of the file, also at
    private ones that have copies of their own.
    """
    head = compound_head(s, frame)
    if is_ksm(s, head) and not has_stable_node(s, head):
        return NONE
    nr, file = folio_nr_pages(s, head), file_index(s, head)
    for mm in range(from_mm, s.nr_mms):
        first = from_page if mm == from_mm else 0
        if s.mm_state[mm] != LIVE:
            continue
        last = int(s.nr_pages)
        if keeps_index(s, head):
            index = int(s.frame_index[head])
            first, last = max(first, index), min(last, index + nr)
        for page in range(first, last):
            if file != 0 and not is_of_folio(s, mm, page, file, nr):
                continue
            if is_ksm(s, head) and not is_on_ksm_list(s, mm, page):
                continue
            s.cost[COST_RMAP_STEPS] += 1
            if maps_folio_here(s, mm, page, head):
                return mm * int(s.nr_pages) + page
    return NONE
