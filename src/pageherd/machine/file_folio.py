"""Large folios of a memfd: shmem_get_folio(), do_set_pmd(), set_pte_range().

`huge` of transparent huge pages in shmem is `advise`: the first touch through a mapping that is
advised by MADV_HUGEPAGE fills all of a PMD's pages of the file, if it has none of them yet.
"""

from __future__ import annotations

from pageherd.machine.anon_folio import pte_range_none
from pageherd.machine.anon_vma import has_pte_table, pmd_first, same_vma
from pageherd.machine.folio import (
    compound_head,
    folio_nr_pages,
    is_large,
    is_normal,
    page_ref_add,
)
from pageherd.machine.huge import one_vma, set_pmd
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.pte import set_pte
from pageherd.machine.questions import FILE_HUGE_FITS, FILE_MAPS_WHOLE, FILE_PMD_ADVICE
from pageherd.machine.rmap import folio_add_rmap_pmd, page_add_rmap
from pageherd.machine.state import (
    FILE_MEMFD,
    VM_HUGEPAGE,
    VM_NOHUGEPAGE,
    ask,
)


@helper
def fits_pmd(s: State, mm: int, page: int) -> bool:
    """thp_vma_suitable_order(): one VMA has all under the PMD entry, and its file lies alike."""
    nr = int(s.nr_huge)
    return one_vma(s, mm, page) and (int(s.vma_file[mm, page]) - 1) % nr == page % nr


@helper
def wants_large_folio(s: State, t: int, k: KernelRecord, mm: int, page: int) -> bool:
    """shmem_is_huge(), and the xa_find() of shmem_alloc_hugepage(): all of the range is a hole.

    Some kernels want a mapping, too, that a PMD entry fits (shmem_suitable_orders()).
    """
    if s.nr_huge <= 1 or s.file_kind != FILE_MEMFD or (int(s.vma[mm, page]) & VM_HUGEPAGE) == 0:
        return False
    first = pmd_first(s, int(s.vma_file[mm, page]) - 1)
    if first + int(s.nr_huge) > s.nr_pages:
        return False
    for each in range(first, first + int(s.nr_huge)):
        if s.file_frame[each] != 0:
            return False
    return fits_pmd(s, mm, page) or ask(s, t, k, FILE_HUGE_FITS, 0) == 0


@helper
def pmd_suits(s: State, t: int, k: KernelRecord, mm: int, page: int, frame: int) -> bool:
    """do_set_pmd(): nothing is there, and the folio lies as its VMA does.

    The VMA need not ask for huge pages; some kernels heed it if it does not want any.
    """
    first, nr = pmd_first(s, page), int(s.nr_huge)
    if folio_nr_pages(s, frame) != nr or not fits_pmd(s, mm, page):
        return False
    if has_pte_table(s, mm, page) or not pte_range_none(s, mm, first, nr):
        return False
    unwanted = (int(s.vma[mm, page]) & VM_NOHUGEPAGE) != 0
    return not (unwanted and ask(s, t, k, FILE_PMD_ADVICE, frame))


@helper
def maps_whole(s: State, t: int, k: KernelRecord, mm: int, first: int, frame: int) -> bool:
    """finish_fault(): whether the fault maps all pages of the folio, from page `first` on.

    A memfd has no name (i_nlink), so its mappings are what vma_is_anon_shmem() looks for.
    """
    nr = folio_nr_pages(s, frame)
    suits = same_vma(s, mm, first, first + nr - 1) and pte_range_none(s, mm, first, nr)
    return suits and ask(s, t, k, FILE_MAPS_WHOLE, frame) != 0


@helper
def map_large_folio(
    s: State, t: int, k: KernelRecord, mm: int, page: int, frame: int, pte: int
) -> None:
    """finish_fault() with a page of a large folio: a PMD entry, its own entry, or one for each."""
    head = compound_head(s, frame)
    if pmd_suits(s, t, k, mm, page, frame):
        folio_add_rmap_pmd(s, t, k, head, mm, pmd_first(s, page))
        set_pmd(s, mm, page, pte, head)
        return
    first = page - (frame - head)
    nr = folio_nr_pages(s, frame) if maps_whole(s, t, k, mm, first, frame) else 1
    if nr == 1:
        first, head = page, frame
    page_ref_add(s, head, nr - 1)
    for i in range(nr):
        page_add_rmap(s, t, k, head + i, mm, first + i)
        set_pte(s, mm, first + i, pte, head + i)


@helper
def map_file_page(
    s: State, t: int, k: KernelRecord, mm: int, page: int, frame: int, pte: int
) -> None:
    """finish_fault(), set_pte_range(): the entry of the file's page; the reference is held.

    vmf_insert_mixed() of a DAX file's page takes none.
    """
    if is_large(s, frame):
        map_large_folio(s, t, k, mm, page, frame, pte)
    else:
        if is_normal(s, frame):
            page_add_rmap(s, t, k, frame, mm, page)
        set_pte(s, mm, page, pte, frame)
