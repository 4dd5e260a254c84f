"""Words for the state: flags, results and bounds; and how a path asks the kernel's rules.

The helpers of `folio`, `rmap`, `lru`, `swap`, `pte` and `lock` read like the kernel functions they
are named after.  Unless a line says otherwise the kernel facts are the same in every kernel of the
table (v4.19 to 7.3).
"""

from __future__ import annotations

from typing import Final

from pageherd.machine.jit import (
    ALARM_OVERFLOW,
    ALARM_UNDERFLOW,
    KernelRecord,
    helper,
    invoke_rule,
)
from pageherd.machine.layout import State

NONE: Final = -1
ZERO_FRAME: Final = 0  # the shared zero page; never counted as mapped, never freed
COUNT_MAX: Final = 32767
NR_CPUS: Final = 4
PIN_BIAS: Final = 1024  # GUP_PIN_COUNTING_BIAS, include/linux/mm.h

# mm_state
UNUSED: Final = 0
LIVE: Final = 1
DEAD: Final = 2

# vma: one byte per page, since every page may have its own VMA
VM_MAPPED: Final = 1
VM_READ: Final = 2
VM_WRITE: Final = 4
VM_DONTCOPY: Final = 8
VM_WIPEONFORK: Final = 16
VM_SOFTDIRTY: Final = 32  # set: writes are not tracked
VM_LOCKED: Final = 64
VM_ANON_VMA: Final = 128  # vma->anon_vma: the mapping has held a page of its own
VM_FILE: Final = 1024  # of the file: vma_file says of which of its pages
VM_SHARED: Final = 2048  # MAP_SHARED
VM_HUGETLB: Final = 4096  # of one hugetlb page; with VM_FILE of a file of hugetlbfs
VM_MERGEABLE: Final = 256
VM_NOHUGEPAGE: Final = 512  # MADV_NOHUGEPAGE: not even MADV_COLLAPSE makes a huge page here
VM_HUGEPAGE: Final = 8192  # MADV_HUGEPAGE: a fault may fill the whole PMD at once
VM_PTE_TABLE: Final = 16384  # a page table hangs below the PMD: no huge page fits there any more
VM_UFFD_WP: Final = 32768  # registered with the userfaultfd of its process, to track writes
# only where a layout has room for them
VM_DROPPABLE: Final = 1 << 24  # MAP_DROPPABLE
VM_UFFD_MINOR: Final = 1 << 25  # likewise, to map what the page cache has when it is told to
VM_UFFD_RWP: Final = 1 << 26  # likewise, to track all access
VM_UFFD: Final = VM_UFFD_WP | VM_UFFD_MINOR | VM_UFFD_RWP  # __VM_UFFD_FLAGS
# of a private hugetlb mapping, in bits that mean other things elsewhere: vm_private_data
HPAGE_RESV_OWNER: Final = VM_MERGEABLE  # its process made it, and reserved its page then
HPAGE_RESV_UNMAPPED: Final = VM_NOHUGEPAGE  # the owner's write took its page away
RESV_USED: Final = VM_HUGEPAGE  # the owner's reservation is used: it is in the region map

# vma_anon, of a page in a range of huge pages: the name of its VMA's anon_vma (0: none), and
AV_ID: Final = 63
AV_ALONE: Final = 64  # fork made it, or mremap() moved it: it is not handed to other VMAs
AV_START: Final = 128  # a VMA begins at this page

# pte
PTE_PRESENT: Final = 1
PTE_SWAP: Final = 2
PTE_WRITE: Final = 4
PTE_DIRTY: Final = 8
PTE_SOFT_DIRTY: Final = 16
PTE_SWP_EXCLUSIVE: Final = 32  # of a swap entry, or of a migration entry for reading
PTE_MIGRATION: Final = 64  # the page is being moved; with PTE_WRITE the entry was writable
PTE_HUGE: Final = 512  # one of the pages that a single PMD entry maps
PTE_PROTNONE: Final = 256  # pte_protnone(): present, but an access takes a NUMA hinting fault
PTE_UFFD_WP: Final = 128  # pte_uffd_wp(), pte_swp_uffd_wp(); alone: a marker, nothing is mapped
PTE_HWPOISON: Final = 16384  # a hwpoison entry: nothing is mapped, and an access is a fault
PTE_GUARD: Final = 8192  # PTE_MARKER_GUARD: nothing is mapped, and an access is a fault
PTE_DEVICE_EXCLUSIVE: Final = 2048  # a device has the page; with PTE_WRITE the entry was writable
PTE_DEVICE_PRIVATE: Final = 4096  # the page is in a device's memory; with PTE_WRITE it is writable
PTE_DEVICE: Final = PTE_DEVICE_EXCLUSIVE | PTE_DEVICE_PRIVATE
PTE_MAPPED: Final = 1024  # of an entry that is not present: it maps its page all the same

# flags of a frame
PG_EXCLUSIVE: Final = 1  # PageAnonExclusive
PG_DIRTY: Final = 2
PG_WRITEBACK: Final = 4
PG_LRU: Final = 8
PG_ISOLATED: Final = 16
PG_LAZYFREE: Final = 64  # anonymous and not PageSwapBacked: MADV_FREE
PG_DEVMAP: Final = PG_LAZYFREE  # of a page of a DAX file: its entries are pte_devmap()
PG_FILE: Final = 128  # a page of the page cache, which holds a reference
PG_PRIVATE: Final = 4096  # of a page of a file on disk: the buffers by which it is written
PG_DEVICE: Final = PG_PRIVATE  # of an anonymous page: is_device_private_page()
PG_HUGETLB: Final = 256  # a hugetlb page: one frame of the machine
PG_KSM: Final = 32  # PageKsm
PG_PARTIALLY_MAPPED: Final = 512  # on the deferred split queue
PG_HWPOISON: Final = 16384  # PageHWPoison: memory_failure() keeps a reference for ever
PG_STABLE_NODE: Final = 2048  # a KSM page in the stable tree; any other has no rmap
PG_MAYBE_SHARED: Final = 1024  # FOLIO_MM_IDS_SHARED: perhaps more than one mm maps the folio
PG_RESTORE_RESERVE: Final = 32768  # of hugetlb: when it is freed a reservation comes back with it
PG_TEMPORARY: Final = 8192  # of hugetlb: it leaves the pool when it is freed

# t_fault
FAULT_WRITE: Final = 1
FAULT_UNSHARE: Final = 2
FAULT_TOUCH: Final = 4  # populate: fault, but store nothing
FAULT_BREAK_KSM: Final = 8  # break_ksm(), which holds the page meanwhile

# t_foll and ref_flags
FOLL_GET: Final = 1
FOLL_PIN: Final = 2
FOLL_WRITE: Final = 4
FOLL_FORCE: Final = 8
FOLL_LONGTERM: Final = 16
FOLL_FAST: Final = 32  # get_user_pages_fast and its relatives are tried first
FOLL_COW: Final = 64  # a write fault has broken COW (until 6.0)
FOLL_BREAK_COW: Final = 128  # 17839856fd58: the read was turned into a write

# ref_flags only
REF_IO_URING: Final = 64  # an io_uring buffer: whether letting go marks the page dirty is a rule

# ref_state
REF_FORKED: Final = 1  # a fork shared the page under a FOLL_GET write reference
REF_SHARED: Final = 2  # handed over knowingly
REF_MAP_SHARED: Final = 4  # taken through a shared mapping: its stores are the file's

# t_held: what t_frame and t_new stand for in the counts
HOLD_FRAME: Final = 1
HOLD_NEW: Final = 2
HOLD_PIN: Final = 4
HOLD_MMAP: Final = 8  # mmap_lock for reading
BYPASSED: Final = 16  # t_frame was read from swap past the swap cache: nobody else knows it
FOUND: Final = 32  # t_frame was in the swap cache already, and so on an LRU list

# mm_uffd: the features of the process's userfaultfd; and what else a kernel may know (UFFD_KNOWS)
UFFD_EVENT_FORK: Final = 1
UFFD_EVENT_REMAP: Final = 2
UFFD_WP_UNPOPULATED: Final = 4
UFFD_WP_ASYNC: Final = 8
UFFD_WP: Final = 16  # UFFDIO_REGISTER_MODE_WP and UFFDIO_WRITEPROTECT
UFFD_MOVE: Final = 32  # UFFDIO_MOVE
UFFD_RWP: Final = 64  # UFFDIO_REGISTER_MODE_RWP and UFFDIO_RWPROTECT
UFFD_RWP_ASYNC: Final = 128
UFFD_HUGETLB: Final = 256  # UFFD_FEATURE_WP_HUGETLBFS_SHMEM, of hugetlb
UFFD_MINOR: Final = 512  # UFFD_FEATURE_MINOR_SHMEM, UFFDIO_CONTINUE

# file_kind
FILE_MEMFD: Final = 0
FILE_DISK: Final = 1  # of a disk file system, which wants to know what becomes dirty
FILE_HUGETLB: Final = 2  # a memfd of hugetlb pages (MFD_HUGETLB)
FILE_DAX: Final = 3  # of a file system on persistent memory: no page cache, the memory is mapped

# swap_kind
SWAP_NONE: Final = 0
SWAP_DISK: Final = 1  # write-back finishes before the next operation
SWAP_SLOW: Final = 2  # write-back finishes when the test says so
SWAP_ZRAM: Final = 3  # synchronous: SWP_SYNCHRONOUS_IO

# results of operations, and states of a page; values are 0..65535
OK: Final = -1
SEGV: Final = -2
BUSY: Final = -3
FULL: Final = -4
ABSENT: Final = -5
ZEROED: Final = -6
PRESENT: Final = -7
SWAPPED: Final = -8
UNBOUND: Final = -9
NOTIFIED: Final = -10

# running totals: places in `cost`
COST_FAULTS: Final = 0
COST_COPIES: Final = 1
COST_ATOMICS: Final = 2
COST_RMAP_STEPS: Final = 3
COST_TLB_FLUSHES: Final = 4
COST_READS: Final = 5
COST_WRITES: Final = 6


@helper
def ask(s: State, t: int, k: KernelRecord, question: int, frame: int) -> int:
    """Put a question to the kernel's rules, and remember that it was asked."""
    k.asked[question] += 1
    answer = invoke_rule(k.rule[question], s, t, k, frame)
    k.answer[question] = answer
    return answer


@helper
def ask_value(k: KernelRecord, question: int) -> int:
    """What a kernel answers to a question whose alternatives are numbers."""
    k.asked[question] += 1
    return int(k.rule[question])


@helper
def out_of_range(s: State, count: int) -> bool:
    """Whether a count would wrap; it never does, the alarm is raised instead."""
    if count < 0:
        s.alarm = ALARM_UNDERFLOW
    elif count > COUNT_MAX:
        s.alarm = ALARM_OVERFLOW
    return count < 0 or count > COUNT_MAX
