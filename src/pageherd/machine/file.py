"""A file that is mapped: do_fault, mmap of a file, and the calls that read and write it.

There is one file, a memfd, one of hugetlb pages, one of a disk file system or a DAX file, with as
many pages as there are page names.  `file_frame` is its page cache: a frame for each page of the
file that was touched, with a reference of the cache; `file_folio` has what is different with large
folios.  A private mapping shows the page cache until its process stores; then it gets an anonymous
copy.  A DAX file has no page cache: its frames are its memory, and a page lock is its entry's lock.
"""

from __future__ import annotations

from typing import Final

from pageherd.machine import steps
from pageherd.machine.anon_vma import split_vma, vma_merge
from pageherd.machine.cow import handle_userfault, reuse_entry
from pageherd.machine.fault import abandon_new, map_new_anon
from pageherd.machine.file_folio import map_file_page, wants_large_folio
from pageherd.machine.folio import (
    alloc_folio,
    alloc_frame,
    clear_flag,
    compound_head,
    folio_nr_pages,
    hold_mapped,
    page_ref_add,
    put_mapped,
    put_page,
    set_flag,
    unhold,
)
from pageherd.machine.huge import huge_order
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.lock import (
    locked_by_other,
    mmap_write_unlock,
    ptl_taken,
    trylock_page,
    unlock_page,
)
from pageherd.machine.lru import lru_cache_add
from pageherd.machine.merge_any import ksm_add_vma
from pageherd.machine.pool import reserve, unreserve
from pageherd.machine.pte import (
    file_value,
    is_shared,
    may_write,
    pte_same,
    untouched_value,
    userfaultfd_minor,
    wants_no_notice,
)
from pageherd.machine.questions import DAX_COUNTS
from pageherd.machine.state import (
    COST_COPIES,
    FAULT_WRITE,
    FILE_DAX,
    FILE_DISK,
    FILE_HUGETLB,
    HOLD_FRAME,
    HOLD_NEW,
    NONE,
    OK,
    PG_DEVMAP,
    PG_DIRTY,
    PG_FILE,
    PG_PRIVATE,
    PTE_DIRTY,
    PTE_PRESENT,
    PTE_SOFT_DIRTY,
    PTE_WRITE,
    SEGV,
    VM_FILE,
    VM_HUGETLB,
    VM_MAPPED,
    VM_READ,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_WRITE,
    ask,
)
from pageherd.machine.watch import note_file_store

# t_fault of MMAP_FILE
MAP_PRIVATE: Final = 0
MAP_SHARED: Final = 1
MAP_HUGETLB: Final = 2  # of no file of ours: anonymous hugetlb


@helper
def add_to_page_cache(s: State, file: int, head: int) -> None:
    """filemap_add_folio(): the caller's reference is the page cache's now, of every page of it."""
    nr = folio_nr_pages(s, head)
    page_ref_add(s, head, nr - 1)
    set_flag(s, head, PG_FILE)
    for i in range(nr):
        s.frame_index[head + i] = file + i
        s.file_frame[file + i] = head + i + 1


@helper
def cached_page(s: State, t: int, k: KernelRecord, file: int, large: bool) -> int:
    """shmem_get_folio(), filemap_fault(): the frame of a page of the file, a new one if need be.

    It holds what the disk has, or zeros.  If `large`, all pages below a PMD come at once.  Pages of
    a DAX file are on no LRU list.
    """
    if s.file_frame[file] == 0:
        head = alloc_folio(s, huge_order(s)) if large else alloc_frame(s)
        if head == NONE:
            return NONE  # the alarm is raised
        nr = folio_nr_pages(s, head)
        first = file - file % nr
        for i in range(nr):
            s.content[head + i] = s.file_content[first + i]
        add_to_page_cache(s, first, head)
        if s.file_kind != FILE_DAX:
            lru_cache_add(s, t, head)
        elif not ask(s, t, k, DAX_COUNTS, head):
            set_flag(s, head, PG_DEVMAP)
    return int(s.file_frame[file]) - 1


@helper
def remove_from_page_cache(s: State, frame: int) -> None:
    """filemap_remove_folio(): its pages are in no file any more, and the cache lets it go."""
    head, nr = compound_head(s, frame), folio_nr_pages(s, frame)
    for each in range(head, head + nr):
        s.file_frame[int(s.frame_index[each])] = 0
    clear_flag(s, head, PG_FILE | PG_DIRTY | PG_PRIVATE | PG_DEVMAP)
    page_ref_add(s, head, 1 - nr)
    put_page(s, head)


@helper
def tell_of_store(s: State, frame: int) -> None:
    """page_mkwrite(), write_begin(): the page becomes dirty; on disk it also gets buffers."""
    set_flag(s, frame, PG_DIRTY)
    if s.file_kind == FILE_DISK:
        set_flag(s, frame, PG_PRIVATE)


@helper
def drop_page_cache(s: State) -> None:
    """truncate_inode_pages(): the file is gone, and with it the page cache's references."""
    for file in range(s.nr_pages):
        unreserve(s, file)
        if s.file_frame[file] != 0:
            remove_from_page_cache(s, int(s.file_frame[file]) - 1)


@helper
def busy_in_cache(s: State, t: int, file: int) -> bool:
    """Whether somebody else has locked this page of the file."""
    cached = int(s.file_frame[file])
    return cached != 0 and locked_by_other(s, t, cached - 1)


@helper
def flags_of_mapping(s: State, kind: int) -> int:
    """What mmap() of the file, or MAP_HUGETLB, adds to the VMA's flags."""
    if kind == MAP_HUGETLB:
        return VM_HUGETLB
    of_file = VM_FILE | (VM_HUGETLB if s.file_kind == FILE_HUGETLB else 0)
    return of_file | (VM_SHARED if kind == MAP_SHARED else 0)


@step(steps.MMAP_FILE)
def mmap_file(s: State, t: int, k: KernelRecord) -> int:
    """mmap(MAP_FIXED) of the file: from its page t_ref on, private or shared; or MAP_HUGETLB.

    hugetlbfs_file_mmap(): ENOMEM if its page cannot be reserved; the address is empty by now.
    """
    mm, first, end = int(s.t_mm[t]), int(s.t_first[t]), int(s.t_end[t])
    split_vma(s, mm, first)
    split_vma(s, mm, end)
    flags = flags_of_mapping(s, int(s.t_fault[t]))
    for i in range(end - first):
        page = first + i
        s.vma[mm, page] = VM_MAPPED | VM_READ | VM_WRITE | VM_SOFTDIRTY | flags
        if flags & VM_FILE:
            s.vma_file[mm, page] = int(s.t_ref[t]) + i + 1
        if flags & VM_HUGETLB and not reserve(s, mm, page):
            s.vma[mm, page] = 0
            s.vma_file[mm, page] = 0
            mmap_write_unlock(s, mm)
            s.t_result[t] = SEGV
            return steps.IDLE
        if s.mm_merge_any[mm] != 0:
            ksm_add_vma(s, mm, page)
        s.want[mm, page] = untouched_value(s, mm, page)
    if not flags & VM_HUGETLB:
        vma_merge(s, k, mm, first, end)
    mmap_write_unlock(s, mm)
    s.t_result[t] = OK
    return steps.IDLE


# -- faults on nothing (do_fault) ------------------------------------------------------------------


@step(steps.FILE_FAULT)
def file_fault(s: State, t: int, k: KernelRecord) -> int:
    """__do_fault(): the file's page, locked and with a reference.

    A write to a private mapping has allocated the page for its copy before (do_cow_fault).  A
    userfaultfd may want to be told of a page that is there (shmem_get_folio_gfp).
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    file = int(s.vma_file[mm, page]) - 1
    if userfaultfd_minor(s, mm, page, file):
        return handle_userfault(s, t, mm)
    if busy_in_cache(s, t, file):
        return steps.BLOCKED
    frame = cached_page(s, t, k, file, wants_large_folio(s, t, k, mm, page))
    if frame == NONE:
        return steps.IDLE
    trylock_page(s, t, frame)
    hold_mapped(s, t, frame)
    if (int(s.t_fault[t]) & FAULT_WRITE) == 0 or is_shared(s, mm, page):
        return steps.FILE_MAP
    s.t_new[t] = alloc_frame(s)
    s.t_held[t] = int(s.t_held[t]) | HOLD_NEW
    return steps.FILE_COPY


@step(steps.FILE_COPY)
def file_copy(s: State, t: int, k: KernelRecord) -> int:
    """do_cow_fault(): copy the file's page; whoever writes the file may do so meanwhile."""
    s.content[int(s.t_new[t])] = s.content[int(s.t_frame[t])]
    s.cost[COST_COPIES] += 1
    s.copies += 1
    return steps.FILE_MAP


@helper
def put_cached(s: State, t: int) -> None:
    """Unlock the file's page and let it go."""
    frame = int(s.t_frame[t])
    unlock_page(s, frame)
    put_mapped(s, t, frame)


@step(steps.FILE_MAP)
def file_map(s: State, t: int, k: KernelRecord) -> int:
    """finish_fault(): map the copy, or the file's page itself, if the entry is still empty.

    Of a large folio more may be mapped.  An entry of a private mapping is never writable while it
    maps the page cache.
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    copied = (int(s.t_held[t]) & HOLD_NEW) != 0
    write = (int(s.t_fault[t]) & FAULT_WRITE) != 0
    pte = PTE_PRESENT | (PTE_DIRTY | PTE_SOFT_DIRTY if write else 0)
    if may_write(s, mm, page) and (write or wants_no_notice(s, t, k, mm, page)):
        pte |= PTE_WRITE
    if not pte_same(s, t, mm, page):
        if copied:
            abandon_new(s, t)
        put_cached(s, t)
    elif copied:
        map_new_anon(s, t, k, mm, page, pte)
        put_cached(s, t)
    else:
        frame = int(s.t_frame[t])
        if write:
            tell_of_store(s, frame)  # do_page_mkwrite(), fault_dirty_shared_page()
        map_file_page(s, t, k, mm, page, frame, pte)
        unlock_page(s, frame)
        unhold(s, t, HOLD_FRAME)  # the reference is the mapping's now
    return int(s.t_return[t])


@step(steps.WP_MKWRITE)
def wp_mkwrite(s: State, t: int, k: KernelRecord) -> int:
    """wp_page_shared(): do_page_mkwrite() tells the file system, which makes the page dirty.

    So does wp_pfn_shared() by ->pfn_mkwrite().  Meanwhile the page-table lock is not held, so the
    entry is compared again.
    """
    mm, page, frame = int(s.t_mm[t]), int(s.t_page[t]), int(s.t_frame[t])
    if locked_by_other(s, t, frame) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    tell_of_store(s, frame)
    if pte_same(s, t, mm, page):
        reuse_entry(s, t, mm, page)
    put_mapped(s, t, frame)
    return int(s.t_return[t])


# -- read() and write() ----------------------------------------------------------------------------


@step(steps.READ_FILE)
def read_file(s: State, t: int, k: KernelRecord) -> int:
    """pread(): shmem and hugetlbfs fill no hole; filemap_read() reads into the page cache."""
    file = int(s.t_page[t])
    if busy_in_cache(s, t, file):
        return steps.BLOCKED
    if s.file_kind == FILE_DISK:
        cached_page(s, t, k, file, False)
    s.t_result[t] = file_value(s, file)
    return steps.IDLE


@step(steps.WRITE_FILE)
def write_file(s: State, t: int, k: KernelRecord) -> int:
    """pwrite(), under the page lock: every mapping that shows the file shows it.

    hugetlbfs has no write(): EINVAL.
    """
    file = int(s.t_page[t])
    if s.file_kind == FILE_HUGETLB:
        s.t_result[t] = SEGV
        return steps.IDLE
    if busy_in_cache(s, t, file):
        return steps.BLOCKED
    frame = cached_page(s, t, k, file, False)
    s.content[frame] = s.t_value[t]
    tell_of_store(s, frame)
    note_file_store(s, frame, int(s.t_value[t]))
    s.t_result[t] = OK
    return steps.IDLE
