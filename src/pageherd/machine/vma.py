"""The address space: mmap, mprotect, mremap, madvise and clear_refs."""

from __future__ import annotations

from typing import Final

from pageherd.machine import steps
from pageherd.machine.anon_vma import (
    anon_vma_moves,
    has_pte_table,
    same_vma,
    split_vma,
    vma_goes,
    vma_merge,
    vma_modify,
)
from pageherd.machine.folio import compound_head, is_large, stands_for_many
from pageherd.machine.huge import covers_pmd, split_huge_pmd, split_unless_covered
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.ksm import breaks
from pageherd.machine.layout import State
from pageherd.machine.lock import mmap_write_lock, mmap_write_unlock, ptl_taken
from pageherd.machine.merge_any import mark_new_vma
from pageherd.machine.pte import (
    is_hugetlb,
    is_shared,
    marked_page,
    may_write,
    pte_of,
    range_mapped,
    readable_device_entry,
    restore_none,
    set_pte,
    tracks_access,
    wants_no_notice,
)
from pageherd.machine.questions import (
    DROPPABLE,
    HUGETLB_DOFORK,
    MIGRATION_EXCLUSIVE,
    MPROTECT_SOFT_DIRTY,
    MPROTECT_UPGRADE,
    MREMAP_UNMAPS_FIRST,
    SOFT_DIRTY_SKIPS,
    UFFD_MREMAP_CLEARS,
)
from pageherd.machine.state import (
    COST_TLB_FLUSHES,
    FAULT_TOUCH,
    FAULT_WRITE,
    OK,
    PTE_DEVICE,
    PTE_DIRTY,
    PTE_GUARD,
    PTE_HUGE,
    PTE_HWPOISON,
    PTE_MIGRATION,
    PTE_PRESENT,
    PTE_PROTNONE,
    PTE_SOFT_DIRTY,
    PTE_SWP_EXCLUSIVE,
    PTE_UFFD_WP,
    PTE_WRITE,
    SEGV,
    UFFD_EVENT_REMAP,
    VM_DONTCOPY,
    VM_DROPPABLE,
    VM_FILE,
    VM_HUGETLB,
    VM_LOCKED,
    VM_MAPPED,
    VM_MERGEABLE,
    VM_PTE_TABLE,
    VM_READ,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_UFFD,
    VM_WIPEONFORK,
    VM_WRITE,
    ask,
)
from pageherd.machine.watch import move_attached
from pageherd.machine.zap import TAKE_OVER

MAP_DROPPABLE: Final = 1  # t_fault of MMAP


@step(steps.MMAP_DROPPABLE)
def mmap_droppable(s: State, t: int, k: KernelRecord) -> int:
    """do_mmap(): MAP_DROPPABLE (9651fcedf7b9, v6.11) is a type of mapping; none that is unknown.

    EINVAL comes before anything is unmapped.
    """
    if not ask(s, t, k, DROPPABLE, 0):
        s.t_result[t] = SEGV
        return steps.IDLE
    return steps.ZAP


@step(steps.MMAP)
def mmap(s: State, t: int, k: KernelRecord) -> int:
    """mmap(MAP_FIXED): the room is empty now; a fresh private anonymous mapping takes it.

    It is soft-dirty, and so is all of a VMA beside it that is joined with it.  A droppable one is
    wiped in a child.
    """
    mm = int(s.t_mm[t])
    kind = VM_DROPPABLE | VM_WIPEONFORK if s.t_fault[t] == MAP_DROPPABLE else 0
    for page in range(s.t_first[t], s.t_end[t]):
        s.vma[mm, page] = VM_MAPPED | VM_READ | VM_WRITE | VM_SOFTDIRTY | kind
    split_vma(s, mm, int(s.t_first[t]))
    split_vma(s, mm, int(s.t_end[t]))
    mark_new_vma(s, k, mm, int(s.t_first[t]), int(s.t_end[t]), False)
    vma_merge(s, k, mm, int(s.t_first[t]), int(s.t_end[t]))
    mark_new_vma(s, k, mm, int(s.t_first[t]), int(s.t_end[t]), True)
    mmap_write_unlock(s, mm)
    s.t_result[t] = OK
    return steps.IDLE


@helper
def may_upgrade(s: State, t: int, k: KernelRecord, mm: int, page: int) -> bool:
    """Whether an entry becomes writable with its mapping: vm_page_prot, or the kernel's rule.

    Of private hugetlb pages hugetlb_change_protection() leaves it to the next write fault.
    """
    if not may_write(s, mm, page):
        return False
    if wants_no_notice(s, t, k, mm, page):
        return True
    if is_hugetlb(s, mm, page):
        return False
    marked = marked_page(s, pte_of(s, mm, page), int(s.pte_to[mm, page]))
    return ask(s, t, k, MPROTECT_UPGRADE, marked) != 0


@helper
def mark_batch_soft_dirty(s: State, t: int, k: KernelRecord, mm: int, page: int) -> None:
    """modify_prot_start_ptes(): pte_mkdirty() makes a row of entries of one folio soft-dirty.

    Of the dirty bits that of the first entry does not count.
    """
    pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
    if (pte & PTE_PRESENT) == 0 or (pte & PTE_HUGE) != 0 or not is_large(s, frame):
        return
    alike = PTE_WRITE | PTE_SOFT_DIRTY
    dirty = (pte & PTE_DIRTY) != 0 and stands_for_many(s, frame)
    last = page
    while last + 1 < s.t_end[t] and compound_head(s, frame) == compound_head(
        s, int(s.pte_to[mm, last + 1])
    ):
        other = pte_of(s, mm, last + 1)
        same = int(s.pte_to[mm, last + 1]) == frame + last + 1 - page
        same = same and same_vma(s, mm, page, last + 1)
        if not same or (other & PTE_PRESENT) == 0 or ((other ^ pte) & alike) != 0:
            break
        dirty = dirty or (other & PTE_DIRTY) != 0
        last += 1
    if dirty and ask(s, t, k, MPROTECT_SOFT_DIRTY, frame):
        for each in range(page, last + 1):
            s.pte[mm, each] = pte_of(s, mm, each) | PTE_SOFT_DIRTY


@helper
def readable_migration_entry(
    s: State, t: int, k: KernelRecord, mm: int, page: int, pte: int
) -> int:
    """make_readable_migration_entry(): some kernels keep in mind that the page was exclusive.

    Not that of a shared mapping, which may be written through several entries.
    """
    if (pte & PTE_WRITE) == 0:
        return pte
    exclusive = not is_shared(s, mm, page) and ask(s, t, k, MIGRATION_EXCLUSIVE, 0) != 0
    return (pte & ~PTE_WRITE) | (PTE_SWP_EXCLUSIVE if exclusive else 0)


@helper
def change_protection(s: State, t: int, k: KernelRecord, mm: int, page: int, wanted: int) -> None:
    """change_pte_range(), change_huge_pmd(): one entry of the range."""
    vma = int(s.vma[mm, page])
    if (vma & (VM_READ | VM_WRITE)) == wanted:
        return
    split_unless_covered(s, t, k, mm, page, int(s.t_first[t]), int(s.t_end[t]))
    mark_batch_soft_dirty(s, t, k, mm, page)
    s.t_page[t] = page  # whose entry the rule looks at
    s.vma[mm, page] = (int(s.vma[mm, page]) & ~(VM_READ | VM_WRITE)) | wanted
    pte = pte_of(s, mm, page)
    if pte & PTE_PRESENT:
        pte = restore_none(s, mm, page, pte & ~(PTE_WRITE | PTE_PROTNONE))
        s.pte[mm, page] = pte
        s.cost[COST_TLB_FLUSHES] += 1
        if (pte & PTE_PROTNONE) == 0 and may_upgrade(s, t, k, mm, page):
            s.pte[mm, page] = pte | PTE_WRITE
    elif pte & PTE_MIGRATION:
        s.pte[mm, page] = readable_migration_entry(s, t, k, mm, page, pte)
    elif pte & PTE_DEVICE:
        s.pte[mm, page] = readable_device_entry(pte)
    vma_modify(s, k, mm, page, int(s.t_first[t]), int(s.t_end[t]))


@helper
def populated_end(s: State, mm: int, first: int, end: int) -> int:
    """__mm_populate() ends at the first page that cannot be had; mprotect() does not mind."""
    page = first
    while page < end and (pte_of(s, mm, page) & (PTE_GUARD | PTE_HWPOISON)) == 0:
        page += 1
    return page


@step(steps.MPROTECT)
def mprotect(s: State, t: int, k: KernelRecord) -> int:
    """change_pte_range(): a private mapping's entries lose write access, some kernels restore it.

    Asking for the protection that is already there changes nothing, as in mprotect_fixup().  Locked
    memory that becomes writable is populated for writing.
    """
    mm, first = int(s.t_mm[t]), int(s.t_first[t])
    if not mmap_write_lock(s, t, mm) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    vma, wanted = int(s.vma[mm, first]), int(s.t_value[t])
    mapped = range_mapped(s, t, mm)
    s.t_result[t] = OK if mapped else SEGV  # ENOMEM
    for page in range(first, s.t_end[t]):
        if (int(s.vma[mm, page]) & VM_MAPPED) == 0:
            break  # ENOMEM, but what is before is changed
        change_protection(s, t, k, mm, page, wanted)
    mmap_write_unlock(s, mm)
    locked = vma & (VM_LOCKED | VM_WRITE | VM_SHARED) == VM_LOCKED
    if locked and mapped and wanted & VM_WRITE:
        s.t_page[t] = first
        s.t_end[t] = populated_end(s, mm, first, int(s.t_end[t]))
        s.t_fault[t] = FAULT_WRITE | FAULT_TOUCH
        return steps.ACCESS if s.t_end[t] > first else steps.IDLE  # populate_vma_page_range()
    return steps.IDLE


@step(steps.MREMAP)
def mremap(s: State, t: int, k: KernelRecord) -> int:
    """mremap(MREMAP_FIXED): what is mapped at the new address goes first.

    Of some kernels even if there is nothing to move, which is noticed only then.  The same kernels
    do not move hugetlb mappings, and notice it there too (vma_to_resize(); 550a7d60bd5e, v5.16).
    """
    mm, page, to = int(s.t_mm[t]), int(s.t_page[t]), int(s.t_other[t])
    if not mmap_write_lock(s, t, mm):
        return steps.BLOCKED
    mapped = range_mapped(s, t, mm)
    movable = mapped and not (is_hugetlb(s, mm, page) and ask(s, t, k, MREMAP_UNMAPS_FIRST, 0))
    if page == to or not (movable or ask(s, t, k, MREMAP_UNMAPS_FIRST, 0)):
        mmap_write_unlock(s, mm)
        s.t_result[t] = SEGV
        return steps.IDLE
    s.t_page[t] = to
    s.t_other[t] = to + int(s.t_end[t]) - page
    s.t_value[t] = TAKE_OVER
    s.t_return[t] = steps.MREMAP_MOVE if movable else steps.MREMAP_FAIL
    return steps.ZAP


@step(steps.MREMAP_FAIL)
def mremap_fail(s: State, t: int, k: KernelRecord) -> int:
    """vma_to_resize(): EFAULT, and the new address is empty by now."""
    mmap_write_unlock(s, int(s.t_mm[t]))
    s.t_result[t] = SEGV
    return steps.IDLE


@helper
def leave_userfaultfd(s: State, t: int, k: KernelRecord, mm: int, page: int) -> None:
    """mremap_userfaultfd_prep(): it is not asked to follow.  Some kernels clear the entry's bit."""
    tracked = (int(s.vma[mm, page]) & VM_UFFD) != 0
    if not tracked or int(s.mm_uffd[mm]) & UFFD_EVENT_REMAP:
        return
    bits = PTE_UFFD_WP | (PTE_PROTNONE if tracks_access(s, mm, page) else 0)
    s.vma[mm, page] = int(s.vma[mm, page]) & ~VM_UFFD
    if pte_of(s, mm, page) & PTE_UFFD_WP and ask(s, t, k, UFFD_MREMAP_CLEARS, 0):
        s.pte[mm, page] = pte_of(s, mm, page) & ~bits


@helper
def move_entry(s: State, t: int, k: KernelRecord, mm: int, page: int, to: int) -> None:
    """move_ptes(): the entry moves, marked soft-dirty; to a page table, if it was in one."""
    leave_userfaultfd(s, t, k, mm, page)
    table = VM_PTE_TABLE if has_pte_table(s, mm, page) else 0
    s.vma[mm, to] = (int(s.vma[mm, page]) & ~VM_PTE_TABLE) | table
    s.vma_file[mm, to] = s.vma_file[mm, page]
    vma_goes(s, mm, page)
    pte = pte_of(s, mm, page)
    if pte & ~PTE_UFFD_WP:
        pte |= PTE_SOFT_DIRTY
    set_pte(s, mm, to, pte, int(s.pte_to[mm, page]))
    set_pte(s, mm, page, 0, 0)
    s.want[mm, to] = s.want[mm, page]
    s.want[mm, page] = 0
    s.freed[mm, to] = s.freed[mm, page]
    s.freed[mm, page] = 0
    move_attached(s, mm, page, to)


@step(steps.MREMAP_MOVE)
def mremap_move(s: State, t: int, k: KernelRecord) -> int:
    """move_page_tables(): pages keep their index for rmap; a PMD entry moves to a PMD's place.

    KSM pages are made private before (move_vma(), ksm_madvise()).
    """
    mm, first, end = int(s.t_mm[t]), int(s.t_first[t]), int(s.t_end[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    for page in range(first, end):
        if breaks(s, t, k, mm, page):
            s.t_return[t] = steps.MREMAP_MOVE
            return steps.FAULT
    to = int(s.t_other[t]) - (end - first)
    anon_vma_moves(s, mm, first, end, to)
    for i in range(end - first):
        if pte_of(s, mm, first + i) & PTE_HUGE:
            same_place = (to - first) % int(s.nr_huge) == 0
            if not (same_place and covers_pmd(s, first + i, first, end)):
                split_huge_pmd(s, t, k, mm, first + i)
        move_entry(s, t, k, mm, first + i, to + i)
    vma_merge(s, k, mm, to, to + end - first)
    s.moved = 1
    s.cost[COST_TLB_FLUSHES] += 1
    mmap_write_unlock(s, mm)
    s.t_result[t] = OK
    return steps.IDLE


@helper
def takes_advice(s: State, t: int, k: KernelRecord, vma: int, advice: int) -> bool:
    """madvise_vma_behavior(): MADV_WIPEONFORK is for anonymous mappings only, hugetlb is none.

    A hugetlb mapping cannot grow, and some kernels take that for a reason to refuse MADV_DOFORK.
    """
    if vma & (VM_FILE | VM_HUGETLB) and advice & VM_WIPEONFORK:
        return False
    dofork = (advice >> 16) & VM_DONTCOPY
    return not (vma & VM_HUGETLB and dofork) or ask(s, t, k, HUGETLB_DOFORK, 0) != 0


# ksm_madvise() ignores hugetlb, mlock() does not mark it: so these bits can mean something else
ADVICE_OF_HUGETLB: Final = VM_DONTCOPY | VM_WIPEONFORK


@step(steps.MADVISE)
def madvise(s: State, t: int, k: KernelRecord) -> int:
    """madvise() of advice that only changes VMA flags: set t_value's low half, clear its high.

    mlock() goes on to populate the page (`t_return`), by a write where a private mapping allows it.
    It locks neither hugetlb pages, which nothing can take away, nor droppable ones.  A VMA that is
    to end inside a PMD's pages splits the entry (vma_adjust_trans_huge()); advice that is taken
    already does not.
    """
    mm, first, end = int(s.t_mm[t]), int(s.t_first[t]), int(s.t_end[t])
    if not mmap_write_lock(s, t, mm):
        return steps.BLOCKED
    advice = int(s.t_value[t])
    vma = int(s.vma[mm, first])
    if vma & VM_DROPPABLE:  # vma_supports_mlock()
        advice &= ~VM_LOCKED
    if vma & VM_SHARED:  # ksm_madvise() ignores it
        advice &= ~VM_MERGEABLE
    if vma & VM_HUGETLB:
        advice &= ADVICE_OF_HUGETLB | ADVICE_OF_HUGETLB << 16
    takes = takes_advice(s, t, k, vma, advice)
    mapped = range_mapped(s, t, mm) and takes
    if not may_write(s, mm, first) or is_shared(s, mm, first):
        s.t_fault[t] = FAULT_TOUCH
    if takes:
        for page in range(first, end):
            before = int(s.vma[mm, page])
            if (before & VM_MAPPED) == 0:  # ENOMEM, of madvise() once all the others are done
                if advice & VM_LOCKED:
                    break
                continue
            after = (before | (advice & 0xFFFF)) & ~(advice >> 16)
            if after != before:
                split_unless_covered(s, t, k, mm, page, first, end)
                s.vma[mm, page] = after | (int(s.vma[mm, page]) & VM_PTE_TABLE)
                vma_modify(s, k, mm, page, first, end)
    s.t_result[t] = OK if mapped else SEGV
    mmap_write_unlock(s, mm)
    return int(s.t_return[t]) if mapped else steps.IDLE


@step(steps.CLEAR_SOFT_DIRTY)
def clear_soft_dirty(s: State, t: int, k: KernelRecord) -> int:
    """clear_refs_write(), one page per step: from here on a write is noticed by a fault.

    Some kernels leave writable entries of pinned pages alone (9348b73c2e1b, v5.11).
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if not mmap_write_lock(s, t, mm) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    if page >= s.nr_pages:
        mmap_write_unlock(s, mm)
        s.cost[COST_TLB_FLUSHES] += 1
        s.t_result[t] = OK
        return steps.IDLE
    s.t_page[t] = page + 1
    pte = pte_of(s, mm, page)
    s.vma[mm, page] = int(s.vma[mm, page]) & ~VM_SOFTDIRTY
    if is_hugetlb(s, mm, page):
        return steps.CLEAR_SOFT_DIRTY  # clear_refs_walk_ops does not look at hugetlb pages
    if pte & PTE_PRESENT:
        frame = int(s.pte_to[mm, page])
        small = (pte & PTE_HUGE) == 0  # clear_soft_dirty_pmd() does not ask
        pinned = small and (pte & PTE_WRITE) != 0 and ask(s, t, k, SOFT_DIRTY_SKIPS, frame)
        if not pinned:
            s.pte[mm, page] = pte & ~(PTE_WRITE | PTE_SOFT_DIRTY)
    elif pte & ~PTE_UFFD_WP:
        s.pte[mm, page] = pte & ~PTE_SOFT_DIRTY
    return steps.CLEAR_SOFT_DIRTY
