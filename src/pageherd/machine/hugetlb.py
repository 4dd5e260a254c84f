"""Faults on mappings of hugetlb pages (hugetlb_fault, hugetlb_no_page, hugetlb_wp).

One page name is one hugetlb page, and one frame of the machine.  Such pages are never swapped,
never on an LRU list and never the zero page: a load of nothing allocates one too.  If the pool has
none (pool.py), the fault is answered by SIGBUS; but the process that made the mapping takes the
page from its children rather than fail to copy it.

A shared mapping of a file adds what it lacks to the file.  A private one shows the file's page, for
reading, if the file has it; in a hole it has a page of its own, which the file never sees.
"""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.cow import handle_userfault, is_told
from pageherd.machine.fault import map_new_anon, marker_wp
from pageherd.machine.file import add_to_page_cache, busy_in_cache
from pageherd.machine.folio import (
    clear_flag,
    hold_frame,
    is_anon,
    put_page,
    set_exclusive,
    unhold,
)
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.lock import (
    locked_by_other,
    mmap_read_unlock,
    ptl_taken,
    trylock_page,
    unlock_page,
)
from pageherd.machine.pool import alloc_huge_page, is_owner, restore_reserve_on_error
from pageherd.machine.pte import (
    is_shared,
    may_write,
    pte_of,
    pte_same,
    remember_pte,
    set_pte,
    userfaultfd_minor,
)
from pageherd.machine.questions import (
    HUGETLB_FORCE,
    HUGETLB_REUSE,
    HUGETLB_TAKES,
    MAKE_WRITABLE,
    REUSE_PAGE,
    UFFD_HUGETLB_LOST,
)
from pageherd.machine.rmap import maps_here, page_add_rmap, page_remove_rmap
from pageherd.machine.state import (
    COST_COPIES,
    COST_TLB_FLUSHES,
    FAULT_UNSHARE,
    FAULT_WRITE,
    HOLD_FRAME,
    HOLD_NEW,
    HPAGE_RESV_UNMAPPED,
    LIVE,
    NONE,
    PG_RESTORE_RESERVE,
    PTE_DIRTY,
    PTE_PRESENT,
    PTE_UFFD_WP,
    PTE_WRITE,
    SEGV,
    ask,
)
from pageherd.machine.watch import PROGRESS, breach


@helper
def sigbus(s: State, t: int, mm: int) -> int:
    """VM_FAULT_SIGBUS: the process is told by a signal, a call by EFAULT."""
    mmap_read_unlock(s, t, mm)
    s.t_result[t] = SEGV
    return steps.IDLE


@helper
def get_huge_page(s: State, t: int, mm: int, page: int, cow_from_owner: bool) -> bool:
    """alloc_huge_page(), without the page-table lock; false: the pool has none for this process."""
    new = alloc_huge_page(s, mm, page, cow_from_owner)
    if new == NONE:
        return False
    s.t_new[t] = new
    s.t_held[t] = int(s.t_held[t]) | HOLD_NEW
    return True


@helper
def abandon_huge_page(s: State, t: int, mm: int, page: int) -> None:
    """The entry changed meanwhile: give the path's new page back, and the reservation with it."""
    unhold(s, t, HOLD_NEW)
    restore_reserve_on_error(s, mm, page, int(s.t_new[t]))


@helper
def map_huge_page(s: State, t: int, k: KernelRecord, mm: int, page: int, pte: int) -> None:
    """hugepage_add_new_anon_rmap(): the page is mapped, and with it a reservation used for good."""
    clear_flag(s, int(s.t_new[t]), PG_RESTORE_RESERVE)
    map_new_anon(s, t, k, mm, page, pte)


@helper
def writable(s: State, t: int, k: KernelRecord, mm: int, page: int) -> int:
    """set_huge_ptep_writable(), make_huge_pte(): the bits that a write fault adds."""
    if may_write(s, mm, page) or ask(s, t, k, HUGETLB_FORCE, 0) == MAKE_WRITABLE:
        return PTE_WRITE | PTE_DIRTY
    return 0


@helper
def find_file_page(s: State, t: int, mm: int, page: int) -> bool:
    """find_lock_page(), hugetlb_add_to_page_cache(): hold the file's page; false: there is none."""
    file = int(s.vma_file[mm, page]) - 1
    if s.file_frame[file] == 0:
        new = alloc_huge_page(s, mm, page, False)
        if new == NONE:
            return False
        clear_flag(s, new, PG_RESTORE_RESERVE)
        add_to_page_cache(s, file, new)
    frame = int(s.file_frame[file]) - 1
    trylock_page(s, t, frame)
    hold_frame(s, t, frame)
    return True


@helper
def hugetlb_no_page(s: State, t: int, mm: int, page: int) -> int:
    """hugetlb_no_page(): nothing is mapped: the file's page, or one of the process's own.

    What was taken from a child cannot be replaced by zeros: it gets SIGBUS.  A userfaultfd may want
    to be told of a page of the file (userfaultfd_minor()).
    """
    file = int(s.vma_file[mm, page]) - 1
    if int(s.vma[mm, page]) & HPAGE_RESV_UNMAPPED:
        return sigbus(s, t, mm)
    if file >= 0 and (is_shared(s, mm, page) or s.file_frame[file] != 0):
        if busy_in_cache(s, t, file):
            return steps.BLOCKED
        if userfaultfd_minor(s, mm, page, file):
            return handle_userfault(s, t, mm)
        return steps.HUGETLB_FILE_MAP if find_file_page(s, t, mm, page) else sigbus(s, t, mm)
    return steps.HUGETLB_MAP if get_huge_page(s, t, mm, page, False) else sigbus(s, t, mm)


@helper
def reuses(s: State, t: int, k: KernelRecord, frame: int) -> bool:
    """hugetlb_wp(): what is of a file is always copied."""
    return is_anon(s, frame) and ask(s, t, k, HUGETLB_REUSE, frame) == REUSE_PAGE


@step(steps.HUGETLB_FAULT)
def hugetlb_fault(s: State, t: int, k: KernelRecord) -> int:
    """hugetlb_fault(), hugetlb_wp(): allocate, reuse or copy, under the page-table lock.

    What a write fault maps is writable if the mapping is; of a forced write it is a rule.  The
    first copy of a page of the file is what its owner has reserved.  Entries of a shared mapping
    are writable from the start; kernels in which they are not always copy them, too
    (HUGETLB_SOFT_DIRTY).
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    remember_pte(s, t, mm, page)
    pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
    if (pte & PTE_PRESENT) == 0:
        return hugetlb_no_page(s, t, mm, page)
    write = (int(s.t_fault[t]) & FAULT_WRITE) != 0
    unshare = (int(s.t_fault[t]) & FAULT_UNSHARE) != 0
    if pte & PTE_WRITE or not (write or unshare):
        return int(s.t_return[t])
    if not is_anon(s, frame) and locked_by_other(s, t, frame):
        return steps.BLOCKED
    if write and is_told(s, mm, page):
        return handle_userfault(s, t, mm)
    remember_pte(s, t, mm, page)
    pte = pte_of(s, mm, page)
    if write and pte & PTE_UFFD_WP:  # of no userfaultfd: the fault has done nothing, and comes back
        breach(s, PROGRESS)
        return sigbus(s, t, mm)
    if reuses(s, t, k, frame):
        set_exclusive(s, k, frame)
        if not unshare:
            s.pte[mm, page] = pte | writable(s, t, k, mm, page)
        return int(s.t_return[t])
    owner = is_owner(s, mm, page) and is_anon(s, frame)
    if get_huge_page(s, t, mm, page, owner):
        hold_frame(s, t, frame)
        return steps.HUGETLB_COPY
    return steps.HUGETLB_TAKE if owner else sigbus(s, t, mm)


@step(steps.HUGETLB_FILE_MAP)
def hugetlb_file_map(s: State, t: int, k: KernelRecord) -> int:
    """hugetlb_no_page(): map the file's page if there is still nothing.

    In a shared mapping it is writable at once; in a private one a write goes on to copy it.
    """
    mm, page, frame = int(s.t_mm[t]), int(s.t_page[t]), int(s.t_frame[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    shared = is_shared(s, mm, page)
    bits = PTE_WRITE | PTE_DIRTY if shared and may_write(s, mm, page) else 0
    unlock_page(s, frame)
    unhold(s, t, HOLD_FRAME)
    if not pte_same(s, t, mm, page):
        put_page(s, frame)
        return int(s.t_return[t])
    page_add_rmap(s, t, k, frame, mm, page)
    set_pte(s, mm, page, PTE_PRESENT | bits, frame)  # the reference is the mapping's now
    if int(s.t_fault[t]) & FAULT_WRITE and not shared:
        return steps.HUGETLB_FAULT
    return int(s.t_return[t])


@step(steps.HUGETLB_TAKE)
def hugetlb_take(s: State, t: int, k: KernelRecord) -> int:
    """unmap_ref_private(): the page is unmapped from all others; then hugetlb_wp() looks again.

    They are marked, so that later faults fail: no zeros must come in place of what the page held.
    Some kernels look in each process at the address at which the owner has the page.  If it was
    moved there or here by mremap(), they find nothing and look again for ever.
    """
    mm, page, frame = int(s.t_mm[t]), int(s.t_page[t]), int(s.t_pte_to[t])
    taken = 0
    for other in range(s.nr_mms):
        if other == mm or s.mm_state[other] != LIVE:
            continue
        if ptl_taken(s, t, other):
            return steps.BLOCKED
        for place in range(s.nr_pages):
            if not maps_here(s, other, place, frame):
                continue
            if place != page and not ask(s, t, k, HUGETLB_TAKES, frame):
                continue
            s.vma[other, place] = int(s.vma[other, place]) | HPAGE_RESV_UNMAPPED
            set_pte(s, other, place, 0, 0)
            page_remove_rmap(s, t, k, frame, other, place)
            put_page(s, frame)
            s.cost[COST_TLB_FLUSHES] += 1
            taken += 1
    if taken == 0:
        breach(s, PROGRESS)
        return sigbus(s, t, mm)
    return steps.HUGETLB_FAULT


@step(steps.HUGETLB_COPY)
def hugetlb_copy(s: State, t: int, k: KernelRecord) -> int:
    """hugetlb_wp(), copy_user_huge_page(): whoever can write the old page may do so meanwhile."""
    s.content[int(s.t_new[t])] = s.content[int(s.t_frame[t])]
    s.cost[COST_COPIES] += 1
    s.copies += 1
    return steps.HUGETLB_MAP


@step(steps.HUGETLB_MAP)
def hugetlb_map(s: State, t: int, k: KernelRecord) -> int:
    """hugetlb_no_page(), hugetlb_wp(): map the new page if the entry is still the same.

    A page that was not there is mapped read-only; a write goes on as one to a present page.
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    copied, old = (int(s.t_held[t]) & HOLD_FRAME) != 0, int(s.t_frame[t])
    write = (int(s.t_fault[t]) & FAULT_WRITE) != 0
    same = pte_same(s, t, mm, page)
    if not same:
        abandon_huge_page(s, t, mm, page)
    elif copied:
        s.cost[COST_TLB_FLUSHES] += 1
        page_remove_rmap(s, t, k, old, mm, page)
        put_page(s, old)  # the mapping's reference; ours still holds the page
        bits = writable(s, t, k, mm, page) if write else 0
        tracked = pte_of(s, mm, page) & PTE_UFFD_WP
        if tracked and ask(s, t, k, UFFD_HUGETLB_LOST, old):
            tracked = 0
        map_huge_page(s, t, k, mm, page, PTE_PRESENT | bits | tracked)
    else:
        map_huge_page(s, t, k, mm, page, PTE_PRESENT | marker_wp(s, t, mm, page))
    if copied:
        unhold(s, t, HOLD_FRAME)
        put_page(s, old)
    elif same and write:
        return steps.HUGETLB_FAULT
    return int(s.t_return[t])
