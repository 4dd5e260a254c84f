"""get_user_pages and pin_user_pages, fast and slow, and the calls that copy and let go at once.

`t_mm` is the process whose memory is taken, `t_home` the one that asks, `t_foll` the FOLL_ flags
(which the kernel's rules chose for the user-space call), `t_ref` the reference to be filled,
`t_other` who takes it, where that matters to the dirty flag; a `t_ref` of NO_REF stands for a
transient reference (process_vm_readv and its relatives).
"""

from __future__ import annotations

from typing import Final

from pageherd.machine import steps
from pageherd.machine.folio import (
    free_if_unused,
    is_anon,
    page_count,
    page_pin_add,
    page_ref_add,
    put_page,
    set_flag,
    unhold,
)
from pageherd.machine.huge import set_entry, touch_written
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.lock import mmap_read_lock, mmap_read_unlock, ptl_taken
from pageherd.machine.pte import (
    is_hugetlb,
    is_shared,
    marked_page,
    needs_dirty_tracking,
    pte_of,
    pte_same,
    remember_pte,
    tracks_access,
)
from pageherd.machine.questions import (
    BREAK_COW,
    FILE_PINS,
    FORCE,
    FORCE_FORGETS,
    FORK_SEQ,
    HUGETLB_FORCE,
    IO_URING_FILE,
    KEEP_READ_ONLY,
    NO,
    NUMA_GUP_FAULTS,
    REFUSE,
    TAKE,
    TOUCH_DIRTIES,
    UNSHARE,
    ZERO_PIN,
)
from pageherd.machine.state import (
    FAULT_UNSHARE,
    FAULT_WRITE,
    FOLL_BREAK_COW,
    FOLL_COW,
    FOLL_FAST,
    FOLL_FORCE,
    FOLL_GET,
    FOLL_LONGTERM,
    FOLL_PIN,
    FOLL_WRITE,
    HOLD_FRAME,
    HOLD_PIN,
    LIVE,
    OK,
    PG_DIRTY,
    PTE_DIRTY,
    PTE_HUGE,
    PTE_PRESENT,
    PTE_PROTNONE,
    PTE_WRITE,
    REF_IO_URING,
    REF_MAP_SHARED,
    SEGV,
    VM_FILE,
    VM_HUGETLB,
    VM_MAPPED,
    VM_READ,
    VM_WRITE,
    ZERO_FRAME,
    ask,
)
from pageherd.machine.watch import note_store

NO_REF: Final = 255

# t_other: who takes the reference
BY_IO_URING: Final = 1
BY_DIRECT_IO: Final = 2  # an O_DIRECT read
BY_HWPOISON: Final = 3
BY_OFFLINE: Final = 4
BY_DEVICE: Final = 5  # make_device_exclusive()


@helper
def may_gup(s: State, t: int, k: KernelRecord, mm: int, page: int) -> bool:
    """check_vma_flags(): FOLL_FORCE overrides the protection, not the absence, of a mapping.

    Nor the protection of a shared mapping against a write; that of hugetlb in some kernels only.
    Whether a page that a file system tracks can be pinned is a rule.
    """
    vma, foll = int(s.vma[mm, page]), int(s.t_foll[t])
    if s.mm_state[mm] != LIVE or (vma & VM_MAPPED) == 0:
        return False
    if foll & FOLL_WRITE and needs_dirty_tracking(s, mm, page):
        if ask(s, t, k, FILE_PINS, 0) == NO:
            return False
    wanted = VM_WRITE if foll & FOLL_WRITE else VM_READ
    if vma & wanted:
        return True
    if (foll & FOLL_FORCE) == 0 or (foll & FOLL_WRITE and is_shared(s, mm, page)):
        return False
    if foll & FOLL_WRITE and is_hugetlb(s, mm, page):
        return ask(s, t, k, HUGETLB_FORCE, 0) != REFUSE
    return True


@helper
def grab(s: State, t: int, k: KernelRecord, frame: int) -> None:
    """try_grab_page(): a reference, or a pin; the path holds it until the call is over.

    Whether a FOLL_PIN of the zero page counts at all is a rule (c8070b787519, v6.5).
    """
    s.t_frame[t] = frame
    if int(s.t_foll[t]) & FOLL_PIN:
        if frame != ZERO_FRAME or ask(s, t, k, ZERO_PIN, frame):
            page_pin_add(s, frame, 1)
            s.t_held[t] = int(s.t_held[t]) | HOLD_PIN
    else:
        page_ref_add(s, frame, 1)
        s.t_held[t] = int(s.t_held[t]) | HOLD_FRAME


@helper
def ungrab(s: State, t: int) -> None:
    """gup_put_folio(): undo `grab`."""
    frame = int(s.t_frame[t])
    if int(s.t_held[t]) & HOLD_PIN:
        unhold(s, t, HOLD_PIN)
        page_pin_add(s, frame, -1)
        free_if_unused(s, frame)
    elif int(s.t_held[t]) & HOLD_FRAME:
        unhold(s, t, HOLD_FRAME)
        put_page(s, frame)


@step(steps.GUP)
def gup(s: State, t: int, k: KernelRecord) -> int:
    """pin_user_pages(): has_pinned is set before the walk, never cleared (008cfe4418b3, v5.9).

    So it is by a call that finds nothing to pin.
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if int(s.t_foll[t]) & FOLL_PIN and s.mm_state[mm] == LIVE:
        s.mm_has_pinned[mm] = 1
    if not may_gup(s, t, k, mm, page):
        s.t_result[t] = SEGV
        return steps.IDLE
    return steps.GUP_FAST_SEQ if int(s.t_foll[t]) & FOLL_FAST else steps.GUP_SLOW


# -- gup-fast: no locks, every step may be overtaken -----------------------------------------------


@step(steps.GUP_FAST_SEQ)
def gup_fast_seq(s: State, t: int, k: KernelRecord) -> int:
    """internal_get_user_pages_fast(): a pin reads write_protect_seq; odd means fork is at work."""
    seq = int(s.mm_seq[int(s.t_mm[t])])
    s.t_seq[t] = seq
    if int(s.t_foll[t]) & FOLL_PIN and ask(s, t, k, FORK_SEQ, 0) and seq % 2 == 1:
        return steps.GUP_SLOW
    return steps.GUP_FAST_PTE


@step(steps.GUP_FAST_PTE)
def gup_fast_pte(s: State, t: int, k: KernelRecord) -> int:
    """gup_pte_range(): read the entry; not present, special or not writable enough goes slow.

    So does one that waits for a NUMA hinting fault (pte_protnone()).
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    remember_pte(s, t, mm, page)
    pte, frame = int(s.t_pte[t]), int(s.t_pte_to[t])
    if (pte & (PTE_PRESENT | PTE_PROTNONE)) != PTE_PRESENT or frame == ZERO_FRAME:
        return steps.GUP_SLOW
    if (pte & PTE_WRITE) == 0:
        marked = marked_page(s, pte, frame)
        if int(s.t_foll[t]) & FOLL_WRITE or ask(s, t, k, UNSHARE, marked) == BREAK_COW:
            return steps.GUP_SLOW
    return steps.GUP_FAST_GRAB


@step(steps.GUP_FAST_GRAB)
def gup_fast_grab(s: State, t: int, k: KernelRecord) -> int:
    """try_grab_folio(): the page may be free by now, or be another one already."""
    frame = int(s.t_pte_to[t])
    if page_count(s, frame) == 0:
        return steps.GUP_SLOW
    grab(s, t, k, frame)
    return steps.GUP_FAST_RECHECK


@step(steps.GUP_FAST_RECHECK)
def gup_fast_recheck(s: State, t: int, k: KernelRecord) -> int:
    """Read the entry again: changed means undo and go slow."""
    if pte_same(s, t, int(s.t_mm[t]), int(s.t_page[t])):
        return steps.GUP_FAST_UNSHARE
    ungrab(s, t)
    return steps.GUP_SLOW


@step(steps.GUP_FAST_UNSHARE)
def gup_fast_unshare(s: State, t: int, k: KernelRecord) -> int:
    """gup_must_unshare(): a read-only entry whose page must be unshared first goes slow."""
    pte = int(s.t_pte[t])
    marked = marked_page(s, pte, int(s.t_frame[t]))
    if (pte & PTE_WRITE) == 0 and ask(s, t, k, UNSHARE, marked) != TAKE:
        ungrab(s, t)
        return steps.GUP_SLOW
    return steps.GUP_FAST_END


@step(steps.GUP_FAST_END)
def gup_fast_end(s: State, t: int, k: KernelRecord) -> int:
    """lockless_pages_from_mm(): a pin that raced with fork is given back (57efa1fe5957, v5.11)."""
    if int(s.t_foll[t]) & FOLL_PIN and ask(s, t, k, FORK_SEQ, 0):
        if s.mm_seq[int(s.t_mm[t])] != s.t_seq[t]:
            ungrab(s, t)
            return steps.GUP_SLOW
    return steps.GUP_DONE


# -- the slow path ---------------------------------------------------------------------------------


@helper
def fault_in(s: State, t: int, flags: int) -> int:
    """faultin_page(): handle the fault, then look again."""
    s.t_fault[t] = flags
    s.t_return[t] = steps.GUP_SLOW
    return steps.FAULT


@helper
def must_break_cow(s: State, t: int, k: KernelRecord) -> bool:
    """Whether this is a lookup for writing, of which COW must have been broken.

    A forced write forgets that it is one once it has broken COW, if the kernel's rule says so: that
    was Dirty COW, CVE-2016-5195 (19be0eaffa3a, v4.9).
    """
    foll = int(s.t_foll[t])
    if foll & FOLL_BREAK_COW:
        return True
    if (foll & FOLL_WRITE) == 0:
        return False
    return (foll & FOLL_COW) == 0 or ask(s, t, k, FORCE_FORGETS, 0) == NO


@helper
def may_force(s: State, t: int, k: KernelRecord, mm: int, page: int) -> bool:
    """can_follow_write_pte(), can_follow_write_pmd(): a read-only entry that is proven to be ours.

    While hugetlb made forced entries writable it asked for nothing else (follow_hugetlb_page).
    """
    if is_hugetlb(s, mm, page) and ask(s, t, k, HUGETLB_FORCE, 0) != KEEP_READ_ONLY:
        return False
    marked = marked_page(s, pte_of(s, mm, page), int(s.pte_to[mm, page]))
    return ask(s, t, k, FORCE, marked) != NO


@helper
def honours_protnone(s: State, t: int, k: KernelRecord, mm: int, page: int, frame: int) -> bool:
    """gup_can_follow_protnone(): accessible memory of which a userfaultfd tracks all access."""
    accessible = (int(s.vma[mm, page]) & (VM_READ | VM_WRITE)) != 0
    if tracks_access(s, mm, page) and accessible:
        return True
    return ask(s, t, k, NUMA_GUP_FAULTS, frame) != 0


@helper
def touch(s: State, t: int, k: KernelRecord, mm: int, page: int) -> None:
    """FOLL_TOUCH, which gup-fast does not know: a page that is to be written is dirty.

    touch_pmd() of some kernels makes an entry dirty that is only read.
    """
    pte = pte_of(s, mm, page)
    if int(s.t_foll[t]) & FOLL_WRITE:
        touch_written(s, mm, page)
    elif pte & PTE_HUGE and ask(s, t, k, TOUCH_DIRTIES, int(s.pte_to[mm, page])):
        set_entry(s, mm, page, pte | PTE_DIRTY)


@step(steps.GUP_SLOW)
def gup_slow(s: State, t: int, k: KernelRecord) -> int:
    """follow_page_pte(): under the page-table lock, take the page or say what fault is needed."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if not mmap_read_lock(s, t, mm) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    s.t_fault[t] = 0
    foll = int(s.t_foll[t])
    pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
    marked = marked_page(s, pte, frame)
    if not may_gup(s, t, k, mm, page):
        mmap_read_unlock(s, t, mm)
        s.t_result[t] = SEGV
        return steps.IDLE
    if pte & PTE_PROTNONE and honours_protnone(s, t, k, mm, page, frame):
        return fault_in(s, t, FAULT_WRITE if foll & FOLL_WRITE else 0)
    if not must_break_cow(s, t, k):
        need = TAKE if pte & PTE_WRITE or is_shared(s, mm, page) else ask(s, t, k, UNSHARE, marked)
        if need == BREAK_COW:
            s.t_foll[t] = foll | FOLL_BREAK_COW
            return steps.GUP_SLOW
        if (pte & PTE_PRESENT) == 0:
            return fault_in(s, t, 0)
        if need != TAKE:
            return fault_in(s, t, FAULT_UNSHARE)
    else:
        if (pte & PTE_PRESENT) == 0:
            return fault_in(s, t, FAULT_WRITE)
        if (pte & PTE_WRITE) == 0 and not may_force(s, t, k, mm, page):
            return fault_in(s, t, FAULT_WRITE)
    if s.t_other[t] != BY_IO_URING or foll & FOLL_FAST:  # pin_user_pages() alone does not
        touch(s, t, k, mm, page)
    remember_pte(s, t, mm, page)
    grab(s, t, k, frame)
    return steps.GUP_DONE


@step(steps.GUP_DONE)
def gup_done(s: State, t: int, k: KernelRecord) -> int:
    """get_user_pages(): the reference is the caller's, attached to the page it was taken through.

    The zero page and pages of files are followed by long-term pins only (design of 84209e87c696,
    v6.2).
    """
    mm, page, frame = int(s.t_mm[t]), int(s.t_page[t]), int(s.t_frame[t])
    foll = int(s.t_foll[t]) & ~(FOLL_COW | FOLL_BREAK_COW)
    if s.t_other[t] == BY_DEVICE:
        return steps.EXCLUSIVE_LOCK  # with mmap_lock
    mmap_read_unlock(s, t, mm)
    if s.t_ref[t] == NO_REF:
        if s.t_other[t] == BY_HWPOISON:
            return steps.MEMORY_FAILURE
        return steps.SOFT_OFFLINE if s.t_other[t] == BY_OFFLINE else steps.GUP_REMOTE_COPY
    if s.t_other[t] == BY_IO_URING and int(s.vma[mm, page]) & (VM_FILE | VM_HUGETLB) == VM_FILE:
        if ask(s, t, k, IO_URING_FILE, frame) == NO:
            ungrab(s, t)
            s.t_result[t] = SEGV  # EOPNOTSUPP
            return steps.IDLE
    ref = int(s.t_ref[t])
    unhold(s, t, HOLD_FRAME | HOLD_PIN)
    s.ref_frame[ref] = frame + 1
    s.ref_times[ref] = 1
    s.ref_flags[ref] = foll | (REF_IO_URING if s.t_other[t] == BY_IO_URING else 0)
    if s.t_other[t] == BY_DIRECT_IO:
        set_flag(s, frame, PG_DIRTY)  # bio_set_pages_dirty(), before the disk stores
    s.ref_mm[ref] = mm
    s.ref_state[ref] = REF_MAP_SHARED if is_shared(s, mm, page) else 0
    s.ref_page[ref] = page + 1 if is_anon(s, frame) or foll & FOLL_LONGTERM else 0
    s.t_result[t] = OK
    return steps.IDLE


@step(steps.GUP_REMOTE_COPY)
def gup_remote_copy(s: State, t: int, k: KernelRecord) -> int:
    """copy_to/from_user_page() on behalf of the process whose memory it is, then let go."""
    mm, page, frame = int(s.t_mm[t]), int(s.t_page[t]), int(s.t_frame[t])
    if int(s.t_foll[t]) & FOLL_WRITE:
        s.content[frame] = s.t_value[t]
        s.want[mm, page] = s.t_value[t]
        note_store(s, mm, frame, int(s.t_value[t]), False, is_shared(s, mm, page))
        set_flag(s, frame, PG_DIRTY)
        s.t_result[t] = OK
    else:
        s.t_result[t] = s.content[frame]
    ungrab(s, t)
    return steps.IDLE


FLAG_WORDS: Final = {
    "write": FOLL_WRITE,
    "force": FOLL_FORCE,
    "longterm": FOLL_LONGTERM,
    "fast": FOLL_FAST,
    "get": FOLL_GET,
    "pin": FOLL_PIN,
}
