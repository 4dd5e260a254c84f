"""fork: dup_mmap and copy_page_range, one page at a time.

The page-table lock is held from the decision about a page until the child's entry is in place, so
only gup-fast, which takes no lock, can look between those steps.  fork never waits for page locks.
"""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.anon_vma import anon_vma_fork, has_pte_table
from pageherd.machine.device import restore_exclusive_pte
from pageherd.machine.fault import map_new_anon
from pageherd.machine.folio import alloc_frame, clear_flag, is_anon, is_normal, page_ref_add
from pageherd.machine.huge import set_pmd, split_huge_pmd
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.lock import (
    locked_by_other,
    mmap_write_lock,
    mmap_write_unlock,
    ptl_taken,
)
from pageherd.machine.pool import alloc_huge_page
from pageherd.machine.pte import (
    is_hugetlb,
    is_shared,
    may_write,
    pte_of,
    readable_device_entry,
    restore_none,
    set_pte,
    tracks_access,
    userfaultfd_pte_rwp,
    userfaultfd_pte_wp,
)
from pageherd.machine.questions import (
    COPY_EARLY,
    FORK,
    FORK_SWAP,
    HUGETLB_FORK,
    HUGETLB_FORK_COPIES,
    INHERITED,
    KSM_COUNTS_MERGING,
    UFFD_FORK_CLEARS,
    UFFD_FORK_COPIES,
    UFFD_HUGETLB_LOST,
    UFFD_HUGETLB_STAYS,
)
from pageherd.machine.rmap import folio_add_rmap_pmd, page_add_rmap
from pageherd.machine.state import (
    COST_COPIES,
    COST_TLB_FLUSHES,
    HOLD_NEW,
    HPAGE_RESV_OWNER,
    HPAGE_RESV_UNMAPPED,
    LIVE,
    NONE,
    OK,
    PG_EXCLUSIVE,
    PTE_DEVICE_EXCLUSIVE,
    PTE_DEVICE_PRIVATE,
    PTE_DIRTY,
    PTE_HUGE,
    PTE_MIGRATION,
    PTE_PRESENT,
    PTE_PROTNONE,
    PTE_SOFT_DIRTY,
    PTE_SWAP,
    PTE_SWP_EXCLUSIVE,
    PTE_UFFD_WP,
    PTE_WRITE,
    RESV_USED,
    SEGV,
    UFFD_EVENT_FORK,
    UNUSED,
    VM_ANON_VMA,
    VM_DONTCOPY,
    VM_FILE,
    VM_LOCKED,
    VM_MAPPED,
    VM_PTE_TABLE,
    VM_UFFD,
    VM_UFFD_RWP,
    VM_UFFD_WP,
    VM_WIPEONFORK,
    ask,
    ask_value,
)
from pageherd.machine.swap import swap_count_add
from pageherd.machine.watch import note_fork
from pageherd.machine.zap import TAKE_OVER


@step(steps.FORK_START)
def fork_start(s: State, t: int, k: KernelRecord) -> int:
    """dup_mmap(): mmap_lock for writing, and write_protect_seq becomes odd (57efa1fe5957, v5.11).

    The sequence is kept in every kernel; whether gup-fast looks at it is a rule.
    """
    mm, child = int(s.t_mm[t]), int(s.t_other[t])
    if not mmap_write_lock(s, t, mm):
        return steps.BLOCKED
    s.mm_state[child] = LIVE
    s.mm_has_pinned[child] = 0
    s.mm_family[child] = s.mm_family[mm]
    s.mm_parent[child] = mm + 1
    s.mm_uffd[child] = s.mm_uffd[mm] if int(s.mm_uffd[mm]) & UFFD_EVENT_FORK else 0
    s.mm_merge_any[child] = s.mm_merge_any[mm]
    if s.mm_merging[mm] != 0 and ask_value(k, KSM_COUNTS_MERGING) == INHERITED:
        s.mm_merging[child] = s.mm_merging[mm]
        s.mm_merging_at_fork[child] = s.mm_merging[mm]
    s.mm_writer[child] = t + 1
    s.mm_seq[mm] = (int(s.mm_seq[mm]) + 1) % 256
    s.t_page[t] = 0
    return steps.FORK_PAGE


@helper
def next_page(s: State, t: int) -> int:
    """Let the page-table lock go and turn to the next page."""
    s.mm_ptl[int(s.t_mm[t])] = 0
    s.t_page[t] = int(s.t_page[t]) + 1
    return steps.FORK_PAGE


@helper
def inherited(s: State, mm: int, page: int) -> int:
    """dup_userfaultfd(): the child has a userfaultfd, too, if its parent's wants to know of forks.

    Locks are not inherited; nor reservations, nor the mark that a hugetlb page was taken away
    (hugetlb_dup_vma_private()).
    """
    dropped = VM_LOCKED | VM_PTE_TABLE
    if is_hugetlb(s, mm, page):
        dropped |= HPAGE_RESV_OWNER | HPAGE_RESV_UNMAPPED | RESV_USED
    if (int(s.mm_uffd[mm]) & UFFD_EVENT_FORK) == 0:
        dropped |= VM_UFFD
    return int(s.vma[mm, page]) & ~dropped


@helper
def needs_copy(s: State, t: int, k: KernelRecord, mm: int, child: int, page: int) -> bool:
    """vma_needs_copy(): a mapping without anon_vma holds nothing that a fault would not bring back.

    That is zero pages and pages of files; but not what a userfaultfd protects.  Of hugetlb some
    kernels copy all the same.  Nor is a PMD entry of a file ever copied (copy_huge_pmd()).
    """
    if pte_of(s, mm, page) & PTE_HUGE and int(s.vma[mm, page]) & VM_FILE:
        return False
    if int(s.vma[mm, page]) & VM_ANON_VMA:
        return True
    if is_hugetlb(s, mm, page) and ask(s, t, k, HUGETLB_FORK_COPIES, 0):
        return True
    tracked = (int(s.vma[child, page]) & (VM_UFFD_WP | VM_UFFD_RWP)) != 0
    return tracked and ask(s, t, k, UFFD_FORK_COPIES, 0) != 0


@helper
def pte_of_child(s: State, t: int, k: KernelRecord, mm: int, child: int, page: int) -> int:
    """copy_present_pte(), copy_nonpresent_pte(): the entry as it is, perhaps without uffd-wp.

    Then one that is protected from all access is accessible, too.
    """
    pte = pte_of(s, mm, page)
    if (pte & PTE_UFFD_WP) == 0:
        return pte
    present_huge = is_hugetlb(s, mm, page) and (pte & PTE_PRESENT) != 0
    if present_huge and ask(s, t, k, UFFD_HUGETLB_STAYS, 0):
        return pte
    if ask(s, t, k, UFFD_FORK_CLEARS, 0):
        pte &= ~(PTE_UFFD_WP | (PTE_PROTNONE if tracks_access(s, mm, page) else 0))
    return pte


@helper
def share_device_page(
    s: State, t: int, k: KernelRecord, mm: int, child: int, page: int, of_child: int
) -> None:
    """copy_nonpresent_pte(): a page in a device's memory is shared, since nobody can pin it."""
    frame = int(s.pte_to[mm, page])
    page_ref_add(s, frame, 1)
    clear_flag(s, frame, PG_EXCLUSIVE)
    s.pte[mm, page] = readable_device_entry(pte_of(s, mm, page))
    page_add_rmap(s, t, k, frame, child, page)
    set_pte(s, child, page, readable_device_entry(of_child), frame)
    note_fork(s, mm, child, page, True)


@step(steps.FORK_PAGE)
def fork_page(s: State, t: int, k: KernelRecord) -> int:
    """copy_pte_range(): what becomes of this page in the child?"""
    mm, child, page = int(s.t_mm[t]), int(s.t_other[t]), int(s.t_page[t])
    if page >= s.nr_pages:
        return steps.FORK_END
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    vma = int(s.vma[mm, page])
    if (vma & VM_MAPPED) == 0 or vma & VM_DONTCOPY:
        return next_page(s, t)
    s.vma[child, page] = inherited(s, mm, page)
    if vma & VM_WIPEONFORK:
        s.vma[child, page] = int(s.vma[child, page]) & ~VM_ANON_VMA
    anon_vma_fork(s, mm, child, page)
    s.vma_file[child, page] = s.vma_file[mm, page]
    if vma & VM_WIPEONFORK:
        s.want[child, page] = 0
        return next_page(s, t)
    if not needs_copy(s, t, k, mm, child, page):
        note_fork(s, mm, child, page, False)
        return next_page(s, t)
    if has_pte_table(s, mm, page):  # an empty one, too
        s.vma[child, page] = int(s.vma[child, page]) | VM_PTE_TABLE
    s.mm_ptl[mm] = t + 1
    pte, to = pte_of(s, mm, page), int(s.pte_to[mm, page])
    if pte & PTE_DEVICE_EXCLUSIVE:  # copy_nonpresent_pte(): present first, then copied as such
        if locked_by_other(s, t, to):
            return fail(s, t, mm, child)  # EBUSY, which becomes ENOMEM
        restore_exclusive_pte(s, t, k, mm, page)
        pte = pte_of(s, mm, page)
    if pte & PTE_HUGE:
        return fork_huge(s, t, k, mm, child, page)
    of_child = pte_of_child(s, t, k, mm, child, page)
    if pte & PTE_SWAP:  # copy_nonpresent_pte()
        swap_count_add(s, to, 1)
        if ask(s, t, k, FORK_SWAP, 0):
            s.pte[mm, page] = pte & ~PTE_SWP_EXCLUSIVE
            of_child &= ~PTE_SWP_EXCLUSIVE
        set_pte(s, child, page, of_child, to)
        note_fork(s, mm, child, page, True)
        return next_page(s, t)
    if pte & PTE_MIGRATION:  # copy_nonpresent_pte(): both are entries for reading from now on
        s.pte[mm, page] = pte & ~(PTE_WRITE | PTE_SWP_EXCLUSIVE)
        set_pte(s, child, page, of_child & ~(PTE_WRITE | PTE_SWP_EXCLUSIVE), to)
        note_fork(s, mm, child, page, True)
        return next_page(s, t)
    if pte & PTE_DEVICE_PRIVATE:
        share_device_page(s, t, k, mm, child, page, of_child)
        return next_page(s, t)
    if (pte & PTE_PRESENT) == 0 or not is_normal(s, to):
        set_pte(s, child, page, of_child, to)
        note_fork(s, mm, child, page, False)
        return next_page(s, t)
    if not is_anon(s, to) or is_shared(s, mm, page):
        return steps.FORK_INSTALL  # page_dup_file_rmap(); no COW
    question = HUGETLB_FORK if is_hugetlb(s, mm, page) else FORK
    if ask(s, t, k, question, to) == COPY_EARLY:
        return steps.FORK_COPY
    clear_flag(s, to, PG_EXCLUSIVE)
    return steps.FORK_WRPROTECT


@helper
def fork_huge(s: State, t: int, k: KernelRecord, mm: int, child: int, page: int) -> int:
    """copy_huge_pmd(): share the folio by one entry, or split it and go page by page.

    The entry is that of the first page, since one VMA has all of it.  Two migration entries are
    for reading from now on.
    """
    head, nr = int(s.pte_to[mm, page]), int(s.nr_huge)
    present = (pte_of(s, mm, page) & PTE_PRESENT) != 0
    if present and is_anon(s, head) and ask(s, t, k, FORK, head) == COPY_EARLY:
        split_huge_pmd(s, t, k, mm, page)
        s.mm_ptl[mm] = 0
        return steps.FORK_PAGE
    for each in range(page, page + nr):
        s.vma[child, each] = inherited(s, mm, each)
        anon_vma_fork(s, mm, child, each)
        note_fork(s, mm, child, each, is_anon(s, head))
    set_pmd(s, mm, page, pte_of(s, mm, page) & ~(PTE_WRITE | PTE_SWP_EXCLUSIVE), head)
    set_pmd(s, child, page, pte_of(s, mm, page), head)
    if present and is_anon(s, head):
        clear_flag(s, head, PG_EXCLUSIVE)
        page_ref_add(s, head, 1)
        folio_add_rmap_pmd(s, t, k, head, child, page)
    s.t_page[t] = page + nr - 1
    return next_page(s, t)


@step(steps.FORK_WRPROTECT)
def fork_wrprotect(s: State, t: int, k: KernelRecord) -> int:
    """copy_present_pte(): ptep_set_wrprotect() on the parent's entry; flushed at the end."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    s.pte[mm, page] = pte_of(s, mm, page) & ~PTE_WRITE
    return steps.FORK_INSTALL


@step(steps.FORK_INSTALL)
def fork_install(s: State, t: int, k: KernelRecord) -> int:
    """copy_present_pte(): one reference and one mapping more, and the child's entry.

    It stays dirty: only entries of shared mappings are cleaned for the child.
    """
    mm, child, page = int(s.t_mm[t]), int(s.t_other[t]), int(s.t_page[t])
    frame = int(s.pte_to[mm, page])
    page_ref_add(s, frame, 1)
    page_add_rmap(s, t, k, frame, child, page)
    set_pte(s, child, page, pte_of_child(s, t, k, mm, child, page), frame)
    note_fork(s, mm, child, page, True)
    return next_page(s, t)


@helper
def alloc_for_child(s: State, child: int, page: int) -> int:
    """folio_prealloc(), alloc_huge_page(): the child has no reservation for a hugetlb page."""
    if is_hugetlb(s, child, page):
        return alloc_huge_page(s, child, page, False)
    return alloc_frame(s)


@helper
def unlock_parent(s: State, t: int, mm: int) -> None:
    """dup_mmap(): the sequence becomes even, the parent's TLB is flushed."""
    s.mm_seq[mm] = (int(s.mm_seq[mm]) + 1) % 256
    s.cost[COST_TLB_FLUSHES] += 1
    mmap_write_unlock(s, mm)


@helper
def fail(s: State, t: int, mm: int, child: int) -> int:
    """dup_mm(): an entry could not be copied, so what the child has by now is unmapped again."""
    s.mm_ptl[mm] = 0
    unlock_parent(s, t, mm)
    s.t_mm[t] = child
    s.t_page[t] = 0
    s.t_other[t] = s.nr_pages
    s.t_value[t] = TAKE_OVER
    s.t_return[t] = steps.FORK_FAILED
    return steps.ZAP


@step(steps.FORK_FAILED)
def fork_failed(s: State, t: int, k: KernelRecord) -> int:
    """copy_process(): there is no child; ENOSPC."""
    child = int(s.t_mm[t])
    mmap_write_unlock(s, child)
    s.mm_state[child] = UNUSED
    s.mm_family[child] = child
    s.mm_parent[child] = 0
    s.mm_uffd[child] = 0
    s.t_result[t] = SEGV
    return steps.IDLE


@step(steps.FORK_COPY)
def fork_copy(s: State, t: int, k: KernelRecord) -> int:
    """copy_present_page(): the child gets a copy at once, the parent's entry is not touched.

    The page is allocated beforehand without locks and the decision repeated; since nothing but
    gup-fast runs on this mm meanwhile, the machine does both in one step.
    """
    mm, child, page = int(s.t_mm[t]), int(s.t_other[t]), int(s.t_page[t])
    new = alloc_for_child(s, child, page)
    if new == NONE:
        return fail(s, t, mm, child)
    s.t_new[t] = new
    s.t_held[t] = int(s.t_held[t]) | HOLD_NEW
    s.content[new] = s.content[int(s.pte_to[mm, page])]
    s.cost[COST_COPIES] += 1
    s.copies += 1
    pte = PTE_PRESENT | PTE_DIRTY | PTE_SOFT_DIRTY
    old = pte_of(s, mm, page)
    tracked = userfaultfd_pte_wp(s, child, page, old) or userfaultfd_pte_rwp(s, child, page, old)
    if tracked and is_hugetlb(s, mm, page) and ask(s, t, k, UFFD_HUGETLB_LOST, 0):
        tracked = False
    if tracked:
        pte = restore_none(s, child, page, pte | PTE_UFFD_WP)
    elif may_write(s, child, page):
        pte |= PTE_WRITE
    map_new_anon(s, t, k, child, page, pte)
    note_fork(s, mm, child, page, False)
    return next_page(s, t)


@step(steps.FORK_END)
def fork_end(s: State, t: int, k: KernelRecord) -> int:
    """dup_mmap() is over: the child may run."""
    mm, child = int(s.t_mm[t]), int(s.t_other[t])
    unlock_parent(s, t, mm)
    mmap_write_unlock(s, child)
    s.t_result[t] = OK
    return steps.IDLE
