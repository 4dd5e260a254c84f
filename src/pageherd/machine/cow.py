"""Copy on write: a write or unshare fault on a read-only entry (do_wp_page, wp_page_copy).

The steps of a copy are those in which other threads can interfere: the source may still be written
while it is copied, and the entry is only compared with what was seen when the lock is taken again.
"""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.fault import abandon_new, map_new_anon
from pageherd.machine.folio import (
    alloc_frame,
    clear_flag,
    hold_frame,
    hold_mapped,
    is_anon,
    is_ksm,
    is_normal,
    page_ref_add,
    put_mapped,
    put_page,
    set_exclusive,
    set_flag,
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
from pageherd.machine.pte import (
    finish_write_fault,
    is_shared,
    may_write,
    notes_first_write,
    pte_of,
    pte_same,
    remember_pte,
    userfaultfd_pte_wp,
)
from pageherd.machine.questions import (
    COPY,
    COPY_DROPS_SWAP,
    KSM_REUSE,
    REUSE,
    REUSE_PAGE,
    UNSHARE_IN_PLACE,
    WAIT_FOR_LOCK,
    WP_FLUSHES,
)
from pageherd.machine.rmap import page_remove_rmap
from pageherd.machine.state import (
    COST_COPIES,
    COST_TLB_FLUSHES,
    FAULT_BREAK_KSM,
    FAULT_UNSHARE,
    HOLD_FRAME,
    HOLD_NEW,
    NOTIFIED,
    PG_DIRTY,
    PG_KSM,
    PG_STABLE_NODE,
    PTE_DIRTY,
    PTE_PRESENT,
    PTE_PROTNONE,
    PTE_SOFT_DIRTY,
    PTE_UFFD_WP,
    PTE_WRITE,
    UFFD_WP_ASYNC,
    VM_READ,
    VM_UFFD_WP,
    VM_WRITE,
    ZERO_FRAME,
    ask,
)
from pageherd.machine.swap import free_swap_cache
from pageherd.machine.tlb import flush_tlb_page, mm_tlb_flush_pending


@helper
def reuse_entry(s: State, t: int, mm: int, page: int) -> None:
    """wp_page_reuse(): the entry becomes dirty, and writable if the mapping is."""
    pte = pte_of(s, mm, page) | PTE_DIRTY | PTE_SOFT_DIRTY
    s.pte[mm, page] = pte | (PTE_WRITE if may_write(s, mm, page) else 0)
    finish_write_fault(s, t, mm, page)


@helper
def reuse_ksm_page(s: State, t: int, k: KernelRecord, frame: int, page: int) -> int:
    """reuse_ksm_page(): a KSM page is copied, or becomes an ordinary page of its last owner again.

    break_ksm() holds it meanwhile, and an unshare fault always copies it.
    """
    if int(s.t_fault[t]) & FAULT_UNSHARE:
        return COPY
    held = int((int(s.t_fault[t]) & FAULT_BREAK_KSM) != 0)
    page_ref_add(s, frame, held)
    reuse = ask(s, t, k, KSM_REUSE, frame)
    page_ref_add(s, frame, -held)
    if reuse == REUSE_PAGE:
        clear_flag(s, frame, PG_KSM | PG_STABLE_NODE)
        s.frame_index[frame] = page
    return reuse


@helper
def handle_userfault(s: State, t: int, mm: int) -> int:
    """handle_userfault(): the userfaultfd has a message, the thread waits, nothing has changed.

    The machine ends the operation there: what was to be stored is not stored.  break_ksm() is not
    told to wait and gets VM_FAULT_SIGBUS, which it takes for the end.
    """
    if int(s.t_fault[t]) & FAULT_BREAK_KSM:
        return steps.KSM_BREAK_END
    mmap_read_unlock(s, t, mm)
    s.t_result[t] = NOTIFIED
    return steps.IDLE


@helper
def is_told(s: State, mm: int, page: int) -> bool:
    """Whether a write waits for a userfaultfd; with WP_ASYNC it lifts the protection instead."""
    if not userfaultfd_pte_wp(s, mm, page, pte_of(s, mm, page)):
        return False
    if (int(s.mm_uffd[mm]) & UFFD_WP_ASYNC) == 0:
        return True
    s.pte[mm, page] = pte_of(s, mm, page) & ~PTE_UFFD_WP
    return False


@helper
def flush_deferred(s: State, t: int, k: KernelRecord, mm: int, page: int) -> None:
    """do_wp_page(): UFFDIO_WRITEPROTECT may not have flushed yet; some kernels do it for them."""
    if int(s.vma[mm, page]) & VM_UFFD_WP and mm_tlb_flush_pending(s, mm):
        if ask(s, t, k, WP_FLUSHES, int(s.pte_to[mm, page])):
            flush_tlb_page(s, mm, page)
            s.cost[COST_TLB_FLUSHES] += 1


@helper
def do_wp_page(s: State, t: int, k: KernelRecord, mm: int, page: int) -> int:
    """do_wp_page(), page-table lock held: reuse the page, copy it, or (until 5.8) wait for it.

    A write to a page that a userfaultfd protects is told to that first; an unshare fault is not.
    """
    unshare = (int(s.t_fault[t]) & FAULT_UNSHARE) != 0
    if not unshare:
        if is_told(s, mm, page):
            return handle_userfault(s, t, mm)
        flush_deferred(s, t, k, mm, page)
    remember_pte(s, t, mm, page)
    frame = int(s.pte_to[mm, page])
    if is_shared(s, mm, page):  # wp_page_shared(), wp_pfn_shared()
        if notes_first_write(s):
            hold_mapped(s, t, frame)
            return steps.WP_MKWRITE
        reuse_entry(s, t, mm, page)
        set_flag(s, frame, PG_DIRTY)
        return int(s.t_return[t])
    if not is_anon(s, frame):  # the zero page and pages of files are always replaced
        hold_mapped(s, t, frame)
        return steps.WP_ALLOC
    if is_ksm(s, frame):
        answer = reuse_ksm_page(s, t, k, frame, page)
    else:
        answer = ask(s, t, k, UNSHARE_IN_PLACE if unshare else REUSE, frame)
    if answer == WAIT_FOR_LOCK:
        hold_frame(s, t, frame)
        return steps.WP_WAIT
    if answer == REUSE_PAGE:
        set_exclusive(s, k, frame)
        if not unshare:
            reuse_entry(s, t, mm, page)
        return int(s.t_return[t])
    hold_frame(s, t, frame)
    return steps.WP_ALLOC


@step(steps.WP)
def wp(s: State, t: int, k: KernelRecord) -> int:
    """do_wp_page(): under the page-table lock, if the entry is still the one that faulted."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    if not pte_same(s, t, mm, page):
        return int(s.t_return[t])
    return do_wp_page(s, t, k, mm, page)


@step(steps.WP_WAIT)
def wp_wait(s: State, t: int, k: KernelRecord) -> int:
    """do_wp_page(): until v5.8, sleep for the page lock with a reference, then decide again."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    frame = int(s.t_frame[t])
    if locked_by_other(s, t, frame) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    trylock_page(s, t, frame)
    same = pte_same(s, t, mm, page)
    unhold(s, t, HOLD_FRAME)
    unlock_page(s, frame)
    put_page(s, frame)
    return do_wp_page(s, t, k, mm, page) if same else int(s.t_return[t])


@step(steps.WP_ALLOC)
def wp_alloc(s: State, t: int, k: KernelRecord) -> int:
    """wp_page_copy(): the new page is allocated without locks, with a reference on the old one."""
    s.t_new[t] = alloc_frame(s)
    s.t_held[t] = int(s.t_held[t]) | HOLD_NEW
    return steps.WP_COPY


@helper
def user_value(s: State, t: int) -> int:
    """__copy_from_user_inatomic() at the address of the fault, in the process that runs.

    It faults for itself or, by GUP, for another one.  Zeros if it has nothing there: the copy takes
    no fault.
    """
    mm, page = int(s.t_home[t]), int(s.t_page[t])
    pte = pte_of(s, mm, page)
    accessible = (int(s.vma[mm, page]) & (VM_READ | VM_WRITE)) != 0
    if not accessible or (pte & (PTE_PRESENT | PTE_PROTNONE)) != PTE_PRESENT:
        return 0
    return int(s.content[int(s.pte_to[mm, page])])


@step(steps.WP_COPY)
def wp_copy(s: State, t: int, k: KernelRecord) -> int:
    """cow_user_page(): whoever can write the old page may do so meanwhile.

    Of a mapping without a page behind it (vm_normal_page()) the kernel knows the address only; the
    zero page is not copied, the new page is a zeroed one.
    """
    old = int(s.t_pte_to[t])
    known = old == ZERO_FRAME or is_normal(s, old)
    s.content[int(s.t_new[t])] = int(s.content[old]) if known else user_value(s, t)
    s.cost[COST_COPIES] += 1
    s.copies += 1
    return steps.WP_MAP


@step(steps.WP_MAP)
def wp_map(s: State, t: int, k: KernelRecord) -> int:
    """wp_page_copy(): replace the entry (clear and flush first), drop the old mapping's count."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    if not pte_same(s, t, mm, page):
        abandon_new(s, t)
        return steps.WP_PUT
    old = int(s.t_pte_to[t])
    s.cost[COST_TLB_FLUSHES] += 1
    pte = PTE_PRESENT
    if int(s.t_fault[t]) & FAULT_UNSHARE:
        pte |= pte_of(s, mm, page) & (PTE_SOFT_DIRTY | PTE_UFFD_WP)
    else:
        pte |= PTE_DIRTY | PTE_SOFT_DIRTY
        if may_write(s, mm, page):
            pte |= PTE_WRITE
    map_new_anon(s, t, k, mm, page, pte)
    if is_normal(s, old):
        page_remove_rmap(s, t, k, old, mm, page)
        put_page(s, old)  # the mapping's reference; ours still holds the page
    if not int(s.t_fault[t]) & FAULT_UNSHARE:
        finish_write_fault(s, t, mm, page)
    return steps.WP_PUT


@step(steps.WP_PUT)
def wp_put(s: State, t: int, k: KernelRecord) -> int:
    """wp_page_copy(): some kernels free an idle swap slot of the old page, then let it go."""
    old = int(s.t_pte_to[t])
    if is_anon(s, old) and ask(s, t, k, COPY_DROPS_SWAP, old):
        free_swap_cache(s, t, k, old)
    put_mapped(s, t, old)
    return int(s.t_return[t])
