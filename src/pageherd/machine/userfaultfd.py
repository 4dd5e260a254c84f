"""userfaultfd(2) and its ioctls, as far as they have a part in sharing pages.

A process has one userfaultfd at most; its features are in `mm_uffd`.  A mapping that is registered
has VM_UFFD_WP; an entry that is protected has PTE_UFFD_WP and is not writable.  Or it has
VM_UFFD_RWP; then a protected entry is not accessible either (do_uffd_rwp() in `fault.py`).  What a
write fault makes of it is in `cow.py` (handle_userfault), what fork and mremap make of it in
`fork.py` and `vma.py`.  The handler is the process itself: its next call.
"""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.anon_vma import anon_vma_prepare, vma_modify
from pageherd.machine.fault import map_new_anon
from pageherd.machine.file import busy_in_cache
from pageherd.machine.folio import (
    alloc_frame,
    clear_flag,
    compound_head,
    is_exclusive,
    page_maybe_dma_pinned,
    page_ref_add,
)
from pageherd.machine.huge import split_huge_pmd, split_unless_covered
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.lock import (
    locked_by_other,
    mmap_read_lock,
    mmap_read_unlock,
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
    remember_pte,
    restore_none,
    set_pte,
    tracks_access,
)
from pageherd.machine.questions import (
    DROPPABLE_UFFD,
    GUARD_KNOWS,
    GUARD_STAYS,
    UFFD_KNOWS,
    UFFD_UPGRADES,
)
from pageherd.machine.rmap import page_add_rmap
from pageherd.machine.split import split_if_large
from pageherd.machine.state import (
    BUSY,
    COST_TLB_FLUSHES,
    FILE_DISK,
    FILE_MEMFD,
    HOLD_NEW,
    NONE,
    OK,
    PG_RESTORE_RESERVE,
    PTE_DEVICE,
    PTE_DIRTY,
    PTE_GUARD,
    PTE_HWPOISON,
    PTE_MIGRATION,
    PTE_PRESENT,
    PTE_PROTNONE,
    PTE_SOFT_DIRTY,
    PTE_SWAP,
    PTE_SWP_EXCLUSIVE,
    PTE_UFFD_WP,
    PTE_WRITE,
    SEGV,
    UFFD_HUGETLB,
    UFFD_MINOR,
    UFFD_MOVE,
    UFFD_RWP,
    UFFD_RWP_ASYNC,
    UFFD_WP,
    UFFD_WP_ASYNC,
    UFFD_WP_UNPOPULATED,
    VM_ANON_VMA,
    VM_DROPPABLE,
    VM_FILE,
    VM_HUGETLB,
    VM_LOCKED,
    VM_MAPPED,
    VM_READ,
    VM_UFFD,
    VM_UFFD_MINOR,
    VM_UFFD_RWP,
    VM_UFFD_WP,
    VM_WRITE,
    ZERO_FRAME,
    ask,
    ask_value,
)
from pageherd.machine.tlb import flush_tlb_page
from pageherd.machine.vma import may_upgrade, readable_migration_entry
from pageherd.machine.watch import move_attached


@helper
def knows(k: KernelRecord) -> int:
    """What a userfaultfd of this kernel can do."""
    return ask_value(k, UFFD_KNOWS)


@step(steps.USERFAULTFD)
def userfaultfd(s: State, t: int, k: KernelRecord) -> int:
    """userfaultfd_api(): EINVAL for features that the kernel does not know.

    UFFD_FEATURE_WP_ASYNC brings UFFD_FEATURE_WP_UNPOPULATED with it, UFFD_FEATURE_RWP_ASYNC needs
    UFFD_FEATURE_RWP.
    """
    mm, wanted = int(s.t_mm[t]), int(s.t_value[t])
    half = wanted & UFFD_RWP_ASYNC and (wanted & UFFD_RWP) == 0
    if half or wanted & ~knows(k):
        s.t_result[t] = SEGV
        return steps.IDLE
    if wanted & UFFD_WP_ASYNC:
        wanted |= UFFD_WP_UNPOPULATED
    s.mm_uffd[mm] = wanted
    s.t_result[t] = OK
    return steps.IDLE


@step(steps.UFFD_REGISTER)
def uffd_register(s: State, t: int, k: KernelRecord) -> int:
    """userfaultfd_register() with UFFDIO_REGISTER_MODE_WP: of anonymous memory only.

    Some kernels know it of hugetlb, too, and some refuse droppable memory (vma_can_userfault()).
    UFFDIO_REGISTER_MODE_MINOR is of shmem and of hugetlb.
    With UFFDIO_REGISTER_MODE_RWP the memory must be accessible, and UFFD_FEATURE_RWP asked for.  A
    mapping changes its mode only after it was unregistered: EBUSY.
    """
    mm, page, mode = int(s.t_mm[t]), int(s.t_page[t]), int(s.t_value[t])
    if not mmap_write_lock(s, t, mm):
        return steps.BLOCKED
    vma = int(s.vma[mm, page])
    known = (knows(k) & UFFD_WP) != 0
    of_shmem = (vma & VM_FILE) != 0 and s.file_kind == FILE_MEMFD
    if mode == VM_UFFD_MINOR:
        known = (knows(k) & UFFD_MINOR) != 0
    if mode == VM_UFFD_RWP:
        known = (int(s.mm_uffd[mm]) & UFFD_RWP) != 0 and (vma & (VM_READ | VM_WRITE)) != 0
    s.t_result[t] = SEGV  # EINVAL, ENOMEM
    other = (VM_UFFD_WP | VM_UFFD_RWP) & ~mode
    if known and vma & other:
        s.t_result[t] = BUSY
        mmap_write_unlock(s, mm)
        return steps.IDLE
    if vma & VM_DROPPABLE and not ask(s, t, k, DROPPABLE_UFFD, 0):
        known = False
    hugetlb = (vma & VM_HUGETLB) != 0
    if hugetlb and (mode == VM_UFFD_RWP or (mode == VM_UFFD_WP and not knows(k) & UFFD_HUGETLB)):
        known = False
    suits = of_shmem or hugetlb if mode == VM_UFFD_MINOR else (vma & VM_FILE) == 0
    if known and vma & VM_MAPPED and suits:
        split_unless_covered(s, t, k, mm, page, page, page + 1)
        s.vma[mm, page] = int(s.vma[mm, page]) | mode
        vma_modify(s, k, mm, page, page, page + 1)
        s.t_result[t] = OK
    mmap_write_unlock(s, mm)
    return steps.IDLE


# -- UFFDIO_WRITEPROTECT, UFFDIO_COPY --------------------------------------------------------------


@helper
def is_registered(s: State, mm: int, page: int) -> bool:
    """find_dst_vma(): a mapping of this userfaultfd."""
    return (int(s.vma[mm, page]) & VM_UFFD) != 0


@helper
def protect_pte(s: State, t: int, k: KernelRecord, mm: int, page: int) -> None:
    """change_pte_range(), MM_CP_UFFD_WP: what is mapped, swapped or on the move; or a marker.

    Nothing marks what was never touched, unless the userfaultfd wants that, or it is hugetlb
    (hugetlb_change_protection()).
    """
    pte = pte_of(s, mm, page) & ~PTE_PROTNONE
    if pte & PTE_MIGRATION:
        s.pte[mm, page] = readable_migration_entry(s, t, k, mm, page, pte) | PTE_UFFD_WP
    elif pte & (PTE_PRESENT | PTE_SWAP | PTE_HWPOISON | PTE_DEVICE):
        s.pte[mm, page] = (pte & ~PTE_WRITE) | PTE_UFFD_WP
    elif (pte & PTE_GUARD) == 0 and (
        int(s.mm_uffd[mm]) & UFFD_WP_UNPOPULATED or is_hugetlb(s, mm, page)
    ):
        set_pte(s, mm, page, PTE_UFFD_WP, 0)


@helper
def unprotect_pte(s: State, t: int, k: KernelRecord, mm: int, page: int) -> None:
    """change_pte_range(), MM_CP_UFFD_WP_RESOLVE: it stays read-only, so that a write fault decides.

    vm_page_prot of a private mapping does not allow writing.  Some kernels map the page writable
    again where mprotect() would.
    """
    pte = pte_of(s, mm, page) & ~(PTE_UFFD_WP | PTE_PROTNONE)
    if pte & PTE_MIGRATION:
        s.pte[mm, page] = readable_migration_entry(s, t, k, mm, page, pte)
        return
    s.pte[mm, page] = pte & ~PTE_WRITE
    if (pte & PTE_PRESENT) == 0:
        return
    if ask(s, t, k, UFFD_UPGRADES, 0) and may_upgrade(s, t, k, mm, page):
        s.pte[mm, page] = pte | PTE_WRITE


@helper
def before_protection(s: State, t: int, k: KernelRecord, mm: int, page: int, tracked: bool) -> bool:
    """mwriteprotect_range(), mrwprotect_range(): ENOENT if nothing is tracked; else a PMD splits.

    The entry is remembered as it was: a processor may have it until the flush.
    """
    if not tracked:
        s.t_result[t] = SEGV
        mmap_read_unlock(s, t, mm)
        return False
    split_huge_pmd(s, t, k, mm, page)
    remember_pte(s, t, mm, page)
    return True


@step(steps.UFFD_PROTECT)
def uffd_protect(s: State, t: int, k: KernelRecord) -> int:
    """mwriteprotect_range(): UFFDIO_WRITEPROTECT, on or off; ENOENT where nothing is registered.

    Or where it is not for that.  The entry changes; the flush comes later.
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if not mmap_read_lock(s, t, mm) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    if not before_protection(s, t, k, mm, page, (int(s.vma[mm, page]) & VM_UFFD_WP) != 0):
        return steps.IDLE
    if s.t_value[t]:
        protect_pte(s, t, k, mm, page)
    else:
        unprotect_pte(s, t, k, mm, page)
    return steps.UFFD_FLUSH


@step(steps.UFFD_FLUSH)
def uffd_flush(s: State, t: int, k: KernelRecord) -> int:
    """change_protection_range(): flush_tlb_range() at its end; tlb_finish_mmu() since v5.19."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    flush_tlb_page(s, mm, page)
    s.cost[COST_TLB_FLUSHES] += 1
    mmap_read_unlock(s, t, mm)
    s.t_result[t] = OK
    return steps.IDLE


@helper
def rwprotect_pte(s: State, t: int, k: KernelRecord, mm: int, page: int) -> None:
    """change_pte_range(), MM_CP_UFFD_RWP: whatever is there, also the zero page; no marker."""
    pte = pte_of(s, mm, page)
    if pte & PTE_MIGRATION:
        pte = readable_migration_entry(s, t, k, mm, page, pte)
    if pte & (PTE_PRESENT | PTE_SWAP | PTE_MIGRATION | PTE_HWPOISON | PTE_DEVICE):
        pte |= PTE_UFFD_WP
    s.pte[mm, page] = restore_none(s, mm, page, pte) if pte & PTE_PRESENT else pte


@step(steps.UFFD_RWPROTECT)
def uffd_rwprotect(s: State, t: int, k: KernelRecord) -> int:
    """mrwprotect_range(): UFFDIO_RWPROTECT, on or off; ENOENT where it is not registered for it."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if not mmap_read_lock(s, t, mm) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    if not before_protection(s, t, k, mm, page, tracks_access(s, mm, page)):
        return steps.IDLE
    if s.t_value[t]:
        rwprotect_pte(s, t, k, mm, page)
    else:
        unprotect_pte(s, t, k, mm, page)
    return steps.UFFD_FLUSH


@helper
def is_taken(s: State, k: KernelRecord, mm: int, page: int) -> bool:
    """pte_none_mostly(): something is there; a marker does not count.

    In some kernels one of a guard region is a marker, too.
    """
    pte = pte_of(s, mm, page)
    if pte & (PTE_PRESENT | PTE_SWAP | PTE_MIGRATION | PTE_HWPOISON | PTE_DEVICE):
        return True
    return bool(pte & PTE_GUARD and ask_value(k, GUARD_KNOWS) & GUARD_STAYS)


@helper
def fill(s: State, t: int, k: KernelRecord, mm: int, page: int) -> int:
    """mfill_atomic_install_pte(): EEXIST where something is.

    The entry is dirty, and writable if the mapping is.  A shared one is not filled here.
    """
    if not is_registered(s, mm, page) or is_shared(s, mm, page):
        return SEGV  # ENOENT
    if is_taken(s, k, mm, page):
        return BUSY
    new = alloc_huge_page(s, mm, page, False) if is_hugetlb(s, mm, page) else alloc_frame(s)
    if new == NONE:
        return SEGV  # ENOMEM
    clear_flag(s, new, PG_RESTORE_RESERVE)
    s.t_new[t] = new
    s.t_held[t] = int(s.t_held[t]) | HOLD_NEW
    s.content[int(s.t_new[t])] = s.t_value[t]
    pte = PTE_PRESENT | PTE_DIRTY | PTE_SOFT_DIRTY
    if may_write(s, mm, page):
        pte |= PTE_WRITE
    map_new_anon(s, t, k, mm, page, pte)
    s.want[mm, page] = s.t_value[t]
    s.freed[mm, page] = 0
    return OK


@step(steps.UFFD_COPY)
def uffd_copy(s: State, t: int, k: KernelRecord) -> int:
    """mfill_atomic_pte_copy(): UFFDIO_COPY; nobody sees the new page before the lock is taken."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if not mmap_read_lock(s, t, mm) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    s.t_result[t] = fill(s, t, k, mm, page)
    mmap_read_unlock(s, t, mm)
    return steps.IDLE


@helper
def map_cached(s: State, t: int, k: KernelRecord, mm: int, page: int) -> int:
    """mfill_atomic_install_pte(), hugetlb_mfill_atomic_pte(): EFAULT if the file has no page there.

    The entry is dirty even where it must not be writable: that of a private mapping.
    """
    vma = int(s.vma[mm, page])
    if not is_registered(s, mm, page) or (vma & VM_FILE) == 0 or s.file_kind == FILE_DISK:
        return SEGV  # ENOENT, EINVAL
    shared = is_shared(s, mm, page)
    if not shared:
        anon_vma_prepare(s, mm, page)
    frame = int(s.file_frame[int(s.vma_file[mm, page]) - 1]) - 1
    if frame < 0:
        return SEGV
    if is_taken(s, k, mm, page):
        return BUSY
    pte = PTE_PRESENT | PTE_DIRTY | PTE_SOFT_DIRTY
    if shared and may_write(s, mm, page):
        pte |= PTE_WRITE
    page_ref_add(s, frame, 1)
    page_add_rmap(s, t, k, frame, mm, page)
    set_pte(s, mm, page, pte, frame)
    return OK


@step(steps.UFFD_CONTINUE)
def uffd_continue(s: State, t: int, k: KernelRecord) -> int:
    """mfill_atomic_pte_continue(): UFFDIO_CONTINUE, once the file's page can be locked."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    file = int(s.vma_file[mm, page]) - 1
    if not mmap_read_lock(s, t, mm) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    if file >= 0 and busy_in_cache(s, t, file):
        return steps.BLOCKED
    s.t_result[t] = map_cached(s, t, k, mm, page) if knows(k) & UFFD_MINOR else SEGV
    mmap_read_unlock(s, t, mm)
    return steps.IDLE


# -- UFFDIO_MOVE -----------------------------------------------------------------------------------


@helper
def may_move(s: State, k: KernelRecord, mm: int, page: int, to: int) -> bool:
    """validate_move_areas(): two anonymous mappings, writable and locked alike, the second ours."""
    alike = VM_READ | VM_WRITE | VM_LOCKED
    vma, there = int(s.vma[mm, page]), int(s.vma[mm, to])
    if (knows(k) & UFFD_MOVE) == 0 or not is_registered(s, mm, to) or there & VM_FILE:
        return False
    if (vma & (VM_MAPPED | VM_WRITE)) != VM_MAPPED | VM_WRITE or vma & (VM_FILE | VM_HUGETLB):
        return False
    return (vma ^ there) & alike == 0 and page != to


@helper
def is_movable(s: State, t: int, k: KernelRecord, pte: int, frame: int) -> bool:
    """move_present_pte(), move_swap_pte(): only what is this mapping's alone, and not pinned."""
    if pte & PTE_SWAP:
        return (pte & PTE_SWP_EXCLUSIVE) != 0
    if frame == ZERO_FRAME:
        return True
    exclusive = is_exclusive(s, frame) and split_if_large(s, t, k, frame)
    return exclusive and not page_maybe_dma_pinned(s, frame)


@helper
def move_pte(s: State, mm: int, page: int, to: int) -> None:
    """The entry moves, marked soft-dirty; a page's is made anew and writable.

    Where all access is tracked it is protected at once.
    The page has the index of its new place.
    """
    pte, target = pte_of(s, mm, page), int(s.pte_to[mm, page])
    frame = int(s.slot_frame[target]) - 1 if pte & PTE_SWAP else target
    if pte & PTE_PRESENT and frame != ZERO_FRAME:
        pte = PTE_PRESENT | PTE_WRITE | (pte & PTE_DIRTY)
    if frame > ZERO_FRAME:
        s.frame_index[frame] = to
    pte = pte | PTE_SOFT_DIRTY if frame != ZERO_FRAME else pte
    if tracks_access(s, mm, to):
        pte |= PTE_UFFD_WP
    set_pte(s, mm, to, restore_none(s, mm, to, pte) if pte & PTE_PRESENT else pte, target)
    set_pte(s, mm, page, 0, 0)
    if int(s.vma[mm, page]) & VM_ANON_VMA:
        anon_vma_prepare(s, mm, to)
    s.want[mm, to] = s.want[mm, page]
    s.want[mm, page] = 0
    s.freed[mm, to] = s.freed[mm, page]
    s.freed[mm, page] = 0
    move_attached(s, mm, page, to)


@helper
def move_page(s: State, t: int, k: KernelRecord, mm: int, page: int, to: int) -> int:
    """move_pages_pte(), page-table lock held: one page, or what stands for it."""
    if not may_move(s, k, mm, page, to):
        return SEGV  # EINVAL
    split_huge_pmd(s, t, k, mm, page)
    pte = pte_of(s, mm, page)
    if (pte & (PTE_PRESENT | PTE_SWAP)) == 0:
        return SEGV  # ENOENT: a hole
    if pte_of(s, mm, to) != 0 or not is_movable(s, t, k, pte, int(s.pte_to[mm, page])):
        return BUSY  # EEXIST, EBUSY
    move_pte(s, mm, page, to)
    s.cost[COST_TLB_FLUSHES] += 1
    return OK


@step(steps.UFFD_MOVE)
def uffd_move(s: State, t: int, k: KernelRecord) -> int:
    """move_pages(): UFFDIO_MOVE, which waits for the folio lock, and for migration to be over."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if not mmap_read_lock(s, t, mm) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
    if pte & (PTE_PRESENT | PTE_MIGRATION) and locked_by_other(s, t, compound_head(s, frame)):
        return steps.BLOCKED
    s.t_result[t] = move_page(s, t, k, mm, page, int(s.t_other[t]))
    mmap_read_unlock(s, t, mm)
    return steps.IDLE
