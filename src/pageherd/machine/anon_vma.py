"""Which pages one VMA has, and its anon_vma: split_vma(), vma_merge(), anon_vma_prepare(), fork.

Only pages under one PMD entry can share a VMA here; every other page has one of its own, and
VM_ANON_VMA says all of it.  In a range of huge pages `vma_anon` says of each page whether a VMA
starts there and which anon_vma it has: VMAs alike stay apart if their anon_vmas are not the same.
"""

from __future__ import annotations

from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.questions import MERGES_STICKY, MERGES_UNFAULTED, VMA_MERGE
from pageherd.machine.state import (
    AV_ALONE,
    AV_ID,
    AV_START,
    VM_ANON_VMA,
    VM_FILE,
    VM_HUGETLB,
    VM_MAPPED,
    VM_PTE_TABLE,
    VM_READ,
    VM_SOFTDIRTY,
    VM_WRITE,
    ask_value,
)


@helper
def pmd_first(s: State, page: int) -> int:
    """The first page under the PMD entry of `page`."""
    return page - page % int(s.nr_huge)


@helper
def has_pte_table(s: State, mm: int, page: int) -> bool:
    """Whether a page table hangs below the PMD: some page under it says so."""
    if s.nr_huge <= 1:
        return False
    first = pmd_first(s, page)
    for each in range(first, first + int(s.nr_huge)):
        if int(s.vma[mm, each]) & VM_PTE_TABLE:
            return True
    return False


@helper
def vma_goes(s: State, mm: int, page: int) -> None:
    """The page is mapped no more; free_pgtables() leaves a table below which another page is."""
    table = int(s.vma[mm, page]) & VM_PTE_TABLE
    s.vma[mm, page] = 0
    s.vma_file[mm, page] = 0
    if table == 0:
        return
    first = pmd_first(s, page)
    for each in range(first, first + int(s.nr_huge)):
        if int(s.vma[mm, each]) & VM_MAPPED:
            s.vma[mm, each] = int(s.vma[mm, each]) | VM_PTE_TABLE
            return


@helper
def neighbours(s: State, page: int, other: int) -> bool:
    """Whether both pages are there, under one PMD entry."""
    if s.nr_huge <= 1 or page < 0 or other >= s.nr_pages:
        return False
    return pmd_first(s, page) == pmd_first(s, other)


@helper
def same_vma(s: State, mm: int, page: int, other: int) -> bool:
    """Whether one VMA has the pages page .. other of a range."""
    if not neighbours(s, page, other) or (int(s.vma[mm, page]) & VM_MAPPED) == 0:
        return False
    for each in range(page + 1, other + 1):
        if (int(s.vma[mm, each]) & VM_MAPPED) == 0 or int(s.vma_anon[mm, each]) & AV_START:
            return False
    return True


@helper
def vma_start(s: State, mm: int, page: int) -> int:
    """The first page of a range that the VMA of `page` has."""
    while same_vma(s, mm, page - 1, page):
        page -= 1
    return page


@helper
def vma_end(s: State, mm: int, page: int) -> int:
    """What comes after the last page of a range that the VMA of `page` has."""
    while same_vma(s, mm, page, page + 1):
        page += 1
    return page + 1


# -- vma->anon_vma ---------------------------------------------------------------------------------


@helper
def anon_vma(s: State, mm: int, page: int) -> int:
    """Names the anon_vma of a page's VMA in its PMD range; 0: none."""
    return int(s.vma_anon[mm, page]) & ~AV_START


@helper
def new_anon_vma(s: State, mm: int, page: int) -> int:
    """anon_vma_alloc(): a name that no VMA of the range has."""
    first, name = pmd_first(s, page), 1
    for _ in range(s.nr_huge):
        for each in range(first, min(first + int(s.nr_huge), int(s.nr_pages))):
            if int(s.vma_anon[mm, each]) & AV_ID == name:
                name += 1
    return name


@helper
def may_share(s: State, mm: int, page: int, beside: int) -> bool:
    """anon_vma_compatible(), reusable_anon_vma(): but for their protection two VMAs are alike."""
    other = VM_READ | VM_WRITE | VM_SOFTDIRTY | VM_ANON_VMA | VM_PTE_TABLE
    if (int(s.vma[mm, page]) ^ int(s.vma[mm, beside])) & ~other:
        return False
    its = anon_vma(s, mm, beside)
    return its != 0 and (its & AV_ALONE) == 0


@helper
def find_mergeable_anon_vma(s: State, mm: int, first: int, end: int) -> int:
    """That of the next VMA or of the one before, or a new one."""
    if neighbours(s, first, end) and may_share(s, mm, first, end):
        return anon_vma(s, mm, end)
    if neighbours(s, first - 1, first) and may_share(s, mm, first, first - 1):
        return anon_vma(s, mm, first - 1)
    return new_anon_vma(s, mm, first)


@helper
def anon_vma_prepare(s: State, mm: int, page: int) -> None:
    """From now on fork copies the entries of this mapping."""
    if int(s.vma[mm, page]) & VM_ANON_VMA:
        return
    if s.nr_huge <= 1:
        s.vma[mm, page] = int(s.vma[mm, page]) | VM_ANON_VMA
        return
    first, end = vma_start(s, mm, page), vma_end(s, mm, page)
    name_anon_vma(s, mm, first, end, find_mergeable_anon_vma(s, mm, first, end))


@helper
def name_anon_vma(s: State, mm: int, first: int, end: int, name: int) -> None:
    """The VMA of first .. end - 1 has this anon_vma."""
    for each in range(first, end):
        s.vma[mm, each] = int(s.vma[mm, each]) | (VM_ANON_VMA if name else 0)
        s.vma_anon[mm, each] = (int(s.vma_anon[mm, each]) & AV_START) | name


@helper
def anon_vma_fork(s: State, mm: int, child: int, page: int) -> None:
    """Each VMA of a child gets an anon_vma of its own beside those of its parent."""
    if s.nr_huge <= 1:
        return
    if same_vma(s, mm, page - 1, page):
        s.vma_anon[child, page] = anon_vma(s, child, page - 1)
        return
    own = 0
    if int(s.vma[child, page]) & VM_ANON_VMA:
        own = new_anon_vma(s, child, page) | AV_ALONE
    s.vma_anon[child, page] = AV_START | own


@helper
def anon_vma_moves(s: State, mm: int, first: int, end: int, to: int) -> None:
    """copy_vma(): indexes that are not those of the new address merge with nobody's there."""
    if s.nr_huge <= 1:
        return
    own = 0
    if anon_vma(s, mm, first):
        own = new_anon_vma(s, mm, to) | AV_ALONE
    for i in range(end - first):
        s.vma_anon[mm, first + i] = 0
        s.vma_anon[mm, to + i] = own
    split_vma(s, mm, to)
    split_vma(s, mm, to + end - first)


# -- where a VMA begins and ends -------------------------------------------------------------------


@helper
def split_vma(s: State, mm: int, page: int) -> None:
    """A VMA begins at this page; there may be no such page any more."""
    if s.nr_huge > 1 and page < s.nr_pages:
        s.vma_anon[mm, page] = int(s.vma_anon[mm, page]) | AV_START


@helper
def can_vma_merge(s: State, k: KernelRecord, mm: int, page: int, beside: int) -> bool:
    """can_vma_merge_before(), can_vma_merge_after(): of a changed VMA with the one beside it.

    An anon_vma may be handed to a VMA that has none, but not one that fork has made.  Mappings of
    a file must go on in the file, too.
    """
    other = VM_SOFTDIRTY | VM_ANON_VMA | VM_PTE_TABLE
    vma = int(s.vma[mm, page])
    if vma & VM_HUGETLB or (vma ^ int(s.vma[mm, beside])) & ~other:
        return False
    if vma & VM_FILE and int(s.vma_file[mm, page]) - int(s.vma_file[mm, beside]) != page - beside:
        return False
    its, mine = anon_vma(s, mm, beside), anon_vma(s, mm, page)
    if its == mine:
        return True
    if its == 0:
        return (mine & AV_ALONE) == 0 and (ask_value(k, VMA_MERGE) & MERGES_UNFAULTED) != 0
    return mine == 0 and (its & AV_ALONE) == 0


@helper
def vma_merge(s: State, k: KernelRecord, mm: int, first: int, end: int) -> None:
    """The VMA of first .. end - 1 is new or has changed: join it with its neighbours, if alike.

    The flags of all are then those of what has changed; to be soft-dirty may stick.
    """
    if s.nr_huge <= 1:
        return
    left = neighbours(s, first - 1, first) and can_vma_merge(s, k, mm, first, first - 1)
    right = neighbours(s, end - 1, end) and can_vma_merge(s, k, mm, first, end)
    if left and right:
        before, after = anon_vma(s, mm, first - 1), anon_vma(s, mm, end)
        right = before == after or before == 0 or after == 0
    if not (left or right):
        return
    start, stop = first, end
    if left:
        start = vma_start(s, mm, first - 1)
        s.vma_anon[mm, first] = anon_vma(s, mm, first)
    if right:
        stop = vma_end(s, mm, end)
        s.vma_anon[mm, end] = anon_vma(s, mm, end)
    dirty, name = int(s.vma[mm, first]) & VM_SOFTDIRTY, 0
    sticky = (ask_value(k, VMA_MERGE) & MERGES_STICKY) != 0
    for each in range(start, stop):
        name |= anon_vma(s, mm, each)
        dirty |= int(s.vma[mm, each]) & VM_SOFTDIRTY if sticky else 0
    name_anon_vma(s, mm, start, stop, name)
    for each in range(start, stop):
        s.vma[mm, each] = (int(s.vma[mm, each]) & ~VM_SOFTDIRTY) | dirty


@helper
def vma_modify(s: State, k: KernelRecord, mm: int, page: int, first: int, end: int) -> None:
    """The flags of `page`, one of first .. end - 1, have changed, those of its VMA in turn.

    It is split from what is outside the range; when its VMA has changed as a whole, it may merge.
    """
    if s.nr_huge <= 1:
        return
    if page == first:
        split_vma(s, mm, page)
    if page + 1 == end:
        split_vma(s, mm, end)
    if page + 1 == end or not same_vma(s, mm, page, page + 1):
        vma_merge(s, k, mm, vma_start(s, mm, page), page + 1)
