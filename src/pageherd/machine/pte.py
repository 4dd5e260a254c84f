"""Page-table entries, and what the VMA around them allows."""

from __future__ import annotations

from pageherd.machine.folio import compound_head, set_flag
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.questions import FOLLOW_INACCESSIBLE, HUGETLB_SOFT_DIRTY
from pageherd.machine.state import (
    FILE_DAX,
    FILE_DISK,
    FOLL_COW,
    PG_LAZYFREE,
    PTE_DEVICE_PRIVATE,
    PTE_HUGE,
    PTE_PROTNONE,
    PTE_SOFT_DIRTY,
    PTE_UFFD_WP,
    PTE_WRITE,
    VM_DROPPABLE,
    VM_HUGETLB,
    VM_MAPPED,
    VM_PTE_TABLE,
    VM_READ,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_UFFD_MINOR,
    VM_UFFD_RWP,
    VM_UFFD_WP,
    VM_WRITE,
    ask,
)


@helper
def pte_of(s: State, mm: int, page: int) -> int:
    return int(s.pte[mm, page])


@helper
def set_pte(s: State, mm: int, page: int, pte: int, to: int) -> None:
    s.pte[mm, page] = pte
    s.pte_to[mm, page] = to
    if s.nr_huge > 1 and pte != 0 and (pte & PTE_HUGE) == 0:
        s.vma[mm, page] = int(s.vma[mm, page]) | VM_PTE_TABLE


@helper
def marked_page(s: State, pte: int, frame: int) -> int:
    """The page whose exclusive mark counts: of a PMD mapping it is the head's."""
    return compound_head(s, frame) if pte & PTE_HUGE else frame


@helper
def pte_same(s: State, t: int, mm: int, page: int) -> bool:
    """pte_same() against what the path saw before it dropped the page-table lock."""
    return bool(s.pte[mm, page] == s.t_pte[t] and s.pte_to[mm, page] == s.t_pte_to[t])


@helper
def remember_pte(s: State, t: int, mm: int, page: int) -> None:
    s.t_pte[t] = s.pte[mm, page]
    s.t_pte_to[t] = s.pte_to[mm, page]


@helper
def may_write(s: State, mm: int, page: int) -> bool:
    """maybe_mkwrite(): whether the VMA allows writing."""
    return (int(s.vma[mm, page]) & VM_WRITE) != 0


@helper
def is_followed(s: State, t: int, k: KernelRecord, mm: int, page: int) -> bool:
    """Whether follow_page() finds what an entry maps; of PROT_NONE memory not in every kernel.

    For hugetlb it does not ask (follow_huge_pmd_pte() in 6.1).
    """
    if int(s.vma[mm, page]) & (VM_READ | VM_WRITE | VM_HUGETLB):
        return True
    return ask(s, t, k, FOLLOW_INACCESSIBLE, int(s.pte_to[mm, page])) != 0


@helper
def is_shared(s: State, mm: int, page: int) -> bool:
    """Whether the mapping is MAP_SHARED; any other is a COW mapping (is_cow_mapping())."""
    return (int(s.vma[mm, page]) & VM_SHARED) != 0


@helper
def is_hugetlb(s: State, mm: int, page: int) -> bool:
    """is_vm_hugetlb_page()."""
    return (int(s.vma[mm, page]) & VM_HUGETLB) != 0


@helper
def is_droppable(s: State, mm: int, page: int) -> bool:
    """VM_DROPPABLE."""
    return (int(s.vma[mm, page]) & VM_DROPPABLE) != 0


@helper
def set_swapbacked(s: State, mm: int, page: int, frame: int) -> None:
    """folio_add_new_anon_rmap(): every new page of anonymous memory, but not of a droppable one."""
    if is_droppable(s, mm, page):
        set_flag(s, frame, PG_LAZYFREE)


@helper
def userfaultfd_pte_wp(s: State, mm: int, page: int, pte: int) -> bool:
    """userfaultfd_pte_wp(): whether a write through `pte` must be told to a userfaultfd first.

    A bit that was left in an entry of a mapping that is not registered means nothing.
    """
    return (pte & PTE_UFFD_WP) != 0 and (int(s.vma[mm, page]) & VM_UFFD_WP) != 0


@helper
def tracks_access(s: State, mm: int, page: int) -> bool:
    """userfaultfd_rwp(): a protected entry has the uffd bit, and is pte_protnone()."""
    return (int(s.vma[mm, page]) & VM_UFFD_RWP) != 0


@helper
def userfaultfd_pte_rwp(s: State, mm: int, page: int, pte: int) -> bool:
    """userfaultfd_pte_rwp(): whether any access through `pte` must be told to a userfaultfd."""
    return (pte & PTE_UFFD_WP) != 0 and tracks_access(s, mm, page)


@helper
def restore_none(s: State, mm: int, page: int, pte: int) -> int:
    """pte_modify(pte, PAGE_NONE): what comes back with the bit is not accessible."""
    if userfaultfd_pte_rwp(s, mm, page, pte):
        return (pte & ~PTE_WRITE) | PTE_PROTNONE
    return pte


@helper
def range_mapped(s: State, t: int, mm: int) -> bool:
    """Whether all pages that the call names are mapped."""
    for page in range(s.t_first[t], s.t_end[t]):
        if (int(s.vma[mm, page]) & VM_MAPPED) == 0:
            return False
    return True


@helper
def userfaultfd_minor(s: State, mm: int, page: int, file: int) -> bool:
    """userfaultfd_minor(): it is to be told of a fault on a page that the file has."""
    return bool(s.file_frame[file] != 0 and int(s.vma[mm, page]) & VM_UFFD_MINOR)


@helper
def notes_first_write(s: State) -> bool:
    """Whether the file system has ->page_mkwrite() or, of DAX, ->pfn_mkwrite()."""
    return bool(s.file_kind == FILE_DISK or s.file_kind == FILE_DAX)


@helper
def wants_no_notice(s: State, t: int, k: KernelRecord, mm: int, page: int) -> bool:
    """Whether vm_page_prot is writable: a shared mapping of which no write must be noticed.

    vma_wants_writenotify(); a memfd needs no notice for itself, tracking by soft-dirty does, and a
    disk file system does.  Of hugetlb pages some kernels do not track it, as they should not.
    """
    vma, wanted = int(s.vma[mm, page]), VM_SHARED | VM_WRITE
    if notes_first_write(s) or (vma & wanted) != wanted:
        return False
    if vma & VM_SOFTDIRTY:
        return True
    return is_hugetlb(s, mm, page) and not ask(s, t, k, HUGETLB_SOFT_DIRTY, 0)


@helper
def needs_dirty_tracking(s: State, mm: int, page: int) -> bool:
    """vma_needs_dirty_tracking(): a shared, writable mapping of a file of a disk file system."""
    wanted = VM_SHARED | VM_WRITE
    return s.file_kind == FILE_DISK and (int(s.vma[mm, page]) & wanted) == wanted


@helper
def file_value(s: State, file: int) -> int:
    """What page `file` of the file holds: zeros where nothing was ever written."""
    cached = int(s.file_frame[file])
    return int(s.content[cached - 1]) if cached != 0 else int(s.file_content[file])


@helper
def untouched_value(s: State, mm: int, page: int) -> int:
    """What a mapping shows before the process has stored into it: the file's value, or zeros."""
    file = int(s.vma_file[mm, page])
    return file_value(s, file - 1) if file != 0 else 0


@helper
def readable_device_entry(pte: int) -> int:
    """make_readable_device_private_entry(), make_readable_device_exclusive_entry().

    Of a page in a device's memory the soft-dirty bit is lost with that.
    """
    if pte & PTE_DEVICE_PRIVATE and pte & PTE_WRITE:
        pte &= ~PTE_SOFT_DIRTY
    return pte & ~PTE_WRITE


@helper
def finish_write_fault(s: State, t: int, mm: int, page: int) -> None:
    """VM_FAULT_WRITE: a forced write through GUP learns that COW was broken (FOLL_COW)."""
    if not may_write(s, mm, page):
        s.t_foll[t] = int(s.t_foll[t]) | FOLL_COW
