"""The questions that the machine asks of the rules: its decision points.

The machine knows only the question, who is asking and which answers make sense; the alternatives
are in `pageherd.rules`, one file per question.  A question is asked with `ask(s, t, k, QUESTION,
frame)`, and its answer is a small number.  Questions about the GUP flags of a user-space call have
constant answers and are read with `k.rule[QUESTION]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# what a write fault does with the page it hit (REUSE)
COPY: Final = 0
DIRTY_PMDS: Final = 1  # of MIGRATION_SOFT_DIRTY
DIRTY_ALL: Final = 2
REUSE_PAGE: Final = 1
WAIT_FOR_LOCK: Final = 2
# what a write fault does with a huge page: as with a page, or (HUGE_REUSE)
SPLIT_PMD: Final = 3
COUNT_PMDS: Final = 4  # asked again in the next step
# what GUP does with a page that user space may read (UNSHARE)
TAKE: Final = 0
UNSHARE_FIRST: Final = 1
BREAK_COW: Final = 2
# how swap-in maps the page (SWAPIN): bits
MAP_READ_ONLY: Final = 0
MAP_WRITABLE: Final = 1
MAP_EXCLUSIVE: Final = 2
# whether swap-in skips the swap cache (SWAP_BYPASS)
THROUGH_CACHE: Final = 0
PAST_CACHE: Final = 1
WAIT_FOR_OTHER: Final = 2
# when swap-in frees the swap cache (SWAPIN_DROP): bits
KEEP_CACHE: Final = 0
DROP_BEFORE: Final = 1
DROP_AFTER: Final = 2
# which VMAs become one, and what becomes of VM_SOFTDIRTY (VMA_MERGE): bits
MERGES_UNFAULTED: Final = 1
MERGES_STICKY: Final = 2
# what a kernel knows of guard regions (GUARD_KNOWS): bits
GUARD_KNOWN: Final = 1
GUARD_STAYS: Final = 2  # UFFDIO_COPY does not take its marker for one of userfaultfd
# what fork does with a present page (FORK)
SHARE_PAGE: Final = 0
COPY_EARLY: Final = 1
# what a forced write does to a read-only hugetlb page (HUGETLB_FORCE)
REFUSE: Final = 0
KEEP_READ_ONLY: Final = 1
MAKE_WRITABLE: Final = 2
# how a KSM page is made private (KSM_BREAKS)
WRITE_FAULT: Final = 0
UNSHARE_FAULT: Final = 1
# what reclaim does with a lazyfree page (LAZYFREE)
DROP_IT: Final = 0
KEEP_IT: Final = 1
KEEP_LAZY: Final = 2
# when a new mapping becomes mergeable (KSM_NEW_VMAS)
MARKED_LATER: Final = 1
MARKED_FIRST: Final = 2
# what a child's ksm_merging_pages begins with (KSM_COUNTS_MERGING)
INHERITED: Final = 1
ANEW: Final = 2
# what a device-exclusive entry is (DEVICE_EXCLUSIVE)
NO_SUCH_ENTRY: Final = 0
UNMAPS_ITS_PAGE: Final = 1
MAPS_ITS_PAGE: Final = 2
# yes and no
NO: Final = 0
YES: Final = 1

ANY_NUMBER: Final = -1

REUSE: Final = 0
UNSHARE_IN_PLACE: Final = 1
SWAPIN: Final = 2
SWAPIN_DROP: Final = 3
SWAPIN_READ_MAPS_WRITABLE: Final = 4
SWAP_BYPASS: Final = 5
SWAP_EXCLUSIVE: Final = 6
MARKS: Final = 7
FORK: Final = 8
FORK_SWAP: Final = 9
FORK_SEQ: Final = 10
UNSHARE: Final = 11
FORCE: Final = 12
ZERO_PIN: Final = 13
PAGEOUT_SKIPS: Final = 14
RECLAIM_SKIPS: Final = 15
UNMAP_REFUSES: Final = 16
STILL_MAPPED: Final = 17
MPROTECT_UPGRADE: Final = 18
SOFT_DIRTY_SKIPS: Final = 19
COPY_DROPS_SWAP: Final = 20
COUNT_ON_MAP: Final = 21
COUNT_ON_UNMAP: Final = 22
COUNT_BOUNDS: Final = 23
ZAP_DRAINS: Final = 24
READAHEAD_DRAINS: Final = 25
FLAGS_VMSPLICE: Final = 26
FLAGS_SEND_ZEROCOPY: Final = 27
FLAGS_ODIRECT_READ: Final = 28
FLAGS_ODIRECT_WRITE: Final = 29
FLAGS_IO_URING: Final = 30
FLAGS_RDMA: Final = 31
FLAGS_RDMA_RO: Final = 32
FLAGS_VFIO: Final = 33
FLAGS_VFIO_RO: Final = 34
FLAGS_PROCESS_VM_READV: Final = 35
FLAGS_PROCESS_VM_WRITEV: Final = 36
FLAGS_PTRACE_PEEK: Final = 37
FLAGS_PTRACE_POKE: Final = 38
FLAGS_RAW_PIN: Final = 39
MREMAP_UNMAPS_FIRST: Final = 40
IO_URING_DIRTIES: Final = 41
MLOCK_HOLDS: Final = 42
FORCE_FORGETS: Final = 43
IO_URING_FILE: Final = 44
HUGETLB_REUSE: Final = 45
HUGETLB_FORK: Final = 46
HUGETLB_DONTNEED: Final = 47
HUGETLB_FORCE: Final = 48
MIGRATION_EXCLUSIVE: Final = 49
MIGRATION_DIRTY: Final = 50
MIGRATION_DRAINS: Final = 51
MIGRATION_COPIES_FIRST: Final = 52
MIGRATION_WAIT_HOLDS: Final = 53
MOVE_SKIPS: Final = 54
RMAP_STOPS: Final = 55
KSM_CHECKS: Final = 56
KSM_COUNTS: Final = 57
KSM_REUSE: Final = 58
KSM_BREAKS: Final = 59
KSM_MARKS_ZERO: Final = 60
LAZYFREE: Final = 61
COUNT_ON_MAP_PMD: Final = 62
COUNT_ON_UNMAP_PMD: Final = 63
COUNT_PAGE: Final = 64
COUNT_FOLIO: Final = 65
COUNT_SHARED: Final = 66
COUNT_FOLIO_BOUNDS: Final = 67
COUNT_MMS_BOUNDS: Final = 68
HUGE_REUSE: Final = 69
HUGE_UNSHARE: Final = 70
HUGE_ZERO_WRITE: Final = 71
PAGEOUT_SPLITS: Final = 72
SWAPOUT_SPLITS: Final = 73
SWAPIN_WHOLE: Final = 74
COLLAPSE_REFUSES: Final = 75
HUGETLB_DOFORK: Final = 76
COUNT_ONE: Final = 77
PMD_SPLIT_DIRTY: Final = 78
SPLIT_ZEROS: Final = 79
SWAPIN_TAIL_COPIES: Final = 80
MPROTECT_SOFT_DIRTY: Final = 81
MIGRATION_SPLITS: Final = 82
MIGRATION_SOFT_DIRTY: Final = 83
ZAP_FREES_TABLE: Final = 84
UFFD_KNOWS: Final = 85
UFFD_FORK_CLEARS: Final = 86
UFFD_FORK_COPIES: Final = 87
UFFD_MREMAP_CLEARS: Final = 88
UFFD_UPGRADES: Final = 89
SWAPOFF_KEEPS_BITS: Final = 90
NUMA_SKIPS: Final = 91
NUMA_SAVES_WRITE: Final = 92
NUMA_GUP_FAULTS: Final = 93
SWAPOUT_ZEROS: Final = 94
FOLLOW_INACCESSIBLE: Final = 95
VMA_MERGE: Final = 96
GUARD_KNOWS: Final = 97
DROPPABLE: Final = 98
HWPOISON_KSM: Final = 99
HWPOISON_COUNTS: Final = 100
HWPOISON_FREE: Final = 101
SWAPOFF_POISON: Final = 102
KHUGEPAGED_SHARED: Final = 103
KHUGEPAGED_LAZYFREE: Final = 104
FILE_PINS: Final = 105
TOUCH_DIRTIES: Final = 106
ANON_FOLIOS: Final = 107
KSM_NEW_VMAS: Final = 108
DROPPABLE_UFFD: Final = 109
HUGETLB_TAKES: Final = 110
HUGETLB_RESTORES: Final = 111
UFFD_HUGETLB_STAYS: Final = 112
UFFD_HUGETLB_LOST: Final = 113
FREE_SKIPS: Final = 114
FREE_SKIPS_PMD: Final = 115
HUGETLB_FORK_COPIES: Final = 116
HUGETLB_SOFT_DIRTY: Final = 117
FILE_MAPS_WHOLE: Final = 118
FILE_PMD_ADVICE: Final = 119
FILE_HUGE_FITS: Final = 120
KSM_COUNTS_MERGING: Final = 121
FILE_HUGE_COW: Final = 122
DAX_COUNTS: Final = 123
WP_FLUSHES: Final = 124
DEVICE_EXCLUSIVE: Final = 125
DEVICE_RESTORES_WRITABLE: Final = 126
DEVICE_FAULT_HOLDS: Final = 127
DEVICE_DROPS_SWAP: Final = 128
POPULATE_SKIPS: Final = 129
NR_QUESTIONS: Final = 130


@dataclass(frozen=True, slots=True)
class Question:
    """One slot that rules fill: its number, what is asked, and the numbers that are answers."""

    number: int
    asks: str
    answers: tuple[str, ...]  # index is the answer; empty: any number that is not negative


_YES_NO = ("no", "yes")

QUESTIONS: Final = (
    Question(
        REUSE,
        "may a write fault reuse the anonymous page it hit?",
        ("copy", "reuse", "wait for the page lock"),
    ),
    Question(
        UNSHARE_IN_PLACE,
        "may an unshare fault leave the page where it is?",
        ("copy", "leave it", "wait for the page lock"),
    ),
    Question(
        SWAPIN,
        "how does swap-in map the page?",
        ("read-only", "writable", "read-only, exclusive", "writable, exclusive"),
    ),
    Question(
        SWAPIN_DROP,
        "when does swap-in try to free the swap cache?",
        ("not", "before mapping", "after mapping", "before and after"),
    ),
    Question(
        SWAPIN_READ_MAPS_WRITABLE,
        "does a read fault on an exclusive swap entry map it writable?",
        _YES_NO,
    ),
    Question(
        SWAP_BYPASS,
        "does swap-in from a synchronous device skip the swap cache?",
        ("no", "yes", "wait for another thread"),
    ),
    Question(SWAP_EXCLUSIVE, "does a swap entry remember that the page was exclusive?", _YES_NO),
    Question(MARKS, "are pages marked anon-exclusive?", _YES_NO),
    Question(
        FORK,
        "what does fork do with a present anonymous page?",
        ("share", "copy for the child"),
    ),
    Question(FORK_SWAP, "does fork clear the exclusive bit of swap entries?", _YES_NO),
    Question(FORK_SEQ, "does gup-fast notice a fork (write_protect_seq)?", _YES_NO),
    Question(
        UNSHARE,
        "what does GUP do before it takes a page for reading?",
        ("take it", "unshare first", "break COW by a write fault"),
    ),
    Question(FORCE, "may a FOLL_FORCE write use this read-only entry?", _YES_NO),
    Question(ZERO_PIN, "does a FOLL_PIN of the zero page count?", _YES_NO),
    Question(PAGEOUT_SKIPS, "does MADV_PAGEOUT skip this page as shared?", _YES_NO),
    Question(RECLAIM_SKIPS, "does reclaim skip this page as pinned?", _YES_NO),
    Question(UNMAP_REFUSES, "does unmapping for reclaim or migration refuse this page?", _YES_NO),
    Question(STILL_MAPPED, "is the page still mapped after unmapping?", _YES_NO),
    Question(MPROTECT_UPGRADE, "may mprotect map this page writable again?", _YES_NO),
    Question(SOFT_DIRTY_SKIPS, "does clear_refs leave this page writable?", _YES_NO),
    Question(COPY_DROPS_SWAP, "does a COW copy free the old page's idle swap slot?", _YES_NO),
    Question(COUNT_ON_MAP, "the mapping counter after one more mapping", ()),
    Question(COUNT_ON_UNMAP, "the mapping counter after one mapping less", ()),
    Question(COUNT_BOUNDS, "the mappings the counter vouches for: lowest + 4096 * highest", ()),
    Question(ZAP_DRAINS, "does unmapping drain this CPU's LRU batch?", _YES_NO),
    Question(READAHEAD_DRAINS, "does swap readahead drain this CPU's LRU batch?", _YES_NO),
    *(
        Question(number, f"the GUP flags of {call}", ())
        for number, call in (
            (FLAGS_VMSPLICE, "vmsplice"),
            (FLAGS_SEND_ZEROCOPY, "send(MSG_ZEROCOPY)"),
            (FLAGS_ODIRECT_READ, "an O_DIRECT read"),
            (FLAGS_ODIRECT_WRITE, "an O_DIRECT write"),
            (FLAGS_IO_URING, "io_uring buffer registration"),
            (FLAGS_RDMA, "RDMA registration for writing"),
            (FLAGS_RDMA_RO, "RDMA registration for reading"),
            (FLAGS_VFIO, "a VFIO mapping for writing"),
            (FLAGS_VFIO_RO, "a VFIO mapping for reading"),
            (FLAGS_PROCESS_VM_READV, "process_vm_readv"),
            (FLAGS_PROCESS_VM_WRITEV, "process_vm_writev"),
            (FLAGS_PTRACE_PEEK, "ptrace reading memory"),
            (FLAGS_PTRACE_POKE, "ptrace writing memory"),
            (FLAGS_RAW_PIN, "pin_user_pages itself"),
        )
    ),
    Question(
        MREMAP_UNMAPS_FIRST,
        "does mremap empty the new address before it looks at the old one?",
        _YES_NO,
    ),
    Question(
        IO_URING_DIRTIES,
        "does unregistering an io_uring buffer mark its page dirty?",
        _YES_NO,
    ),
    Question(
        MLOCK_HOLDS,
        "does mapping into locked memory hold a reference until a batch drains?",
        _YES_NO,
    ),
    Question(
        FORCE_FORGETS,
        "does a forced write that has broken COW go on as a read?",
        _YES_NO,
    ),
    Question(IO_URING_FILE, "does io_uring take buffers in a mapping of a file?", _YES_NO),
    Question(
        HUGETLB_REUSE,
        "may a write or unshare fault reuse the hugetlb page it hit?",
        ("copy", "reuse"),
    ),
    Question(
        HUGETLB_FORK,
        "what does fork do with a hugetlb page?",
        ("share", "copy for the child"),
    ),
    Question(HUGETLB_DONTNEED, "does MADV_DONTNEED discard hugetlb pages?", _YES_NO),
    Question(
        HUGETLB_FORCE,
        "what does a FOLL_FORCE write do to a read-only hugetlb mapping?",
        ("refused", "the entry stays read-only", "the entry becomes writable"),
    ),
    Question(
        MIGRATION_EXCLUSIVE,
        "does a migration entry remember that the page was exclusive?",
        _YES_NO,
    ),
    Question(MIGRATION_DIRTY, "does a migration entry remember the dirty bit?", _YES_NO),
    Question(MIGRATION_DRAINS, "does migration drain the batch that the new page is in?", _YES_NO),
    Question(
        MIGRATION_COPIES_FIRST,
        "is a page copied before its place in the swap cache moves?",
        _YES_NO,
    ),
    Question(
        MIGRATION_WAIT_HOLDS,
        "does a fault that waits for migration hold the page?",
        _YES_NO,
    ),
    Question(MOVE_SKIPS, "does move_pages skip this page as shared?", _YES_NO),
    Question(RMAP_STOPS, "does the walk over a page's mappings stop here?", _YES_NO),
    Question(
        KSM_CHECKS,
        "must the references of this page be counted before KSM takes it?",
        _YES_NO,
    ),
    Question(KSM_COUNTS, "has this page only the references that KSM expects?", _YES_NO),
    Question(KSM_REUSE, "may a write fault reuse the KSM page it hit?", ("copy", "reuse")),
    Question(KSM_BREAKS, "how is a KSM page made private again?", ("write fault", "unshare fault")),
    Question(KSM_MARKS_ZERO, "are zero pages that KSM has mapped unmerged too?", _YES_NO),
    Question(
        LAZYFREE,
        "what does reclaim do with a lazyfree page?",
        ("drop it", "keep it, no longer lazyfree", "keep it for now"),
    ),
    Question(COUNT_ON_MAP_PMD, "the counter of whole mappings after one more", ()),
    Question(COUNT_ON_UNMAP_PMD, "the counter of whole mappings after one less", ()),
    Question(COUNT_PAGE, "how often is this page mapped?", ()),
    Question(COUNT_FOLIO, "how many entries map the folio?", ()),
    Question(COUNT_SHARED, "does more than one process map the folio?", _YES_NO),
    Question(COUNT_FOLIO_BOUNDS, "the entries the counters vouch for: lowest + 4096 * highest", ()),
    Question(COUNT_MMS_BOUNDS, "the processes the counters vouch for: lowest + 4096 * highest", ()),
    Question(
        HUGE_REUSE,
        "may a write fault reuse the huge page it hit?",
        (
            "copy the huge page",
            "reuse",
            "wait for the page lock",
            "split the PMD",
            "count the PMD entries, too",
        ),
    ),
    Question(
        HUGE_UNSHARE,
        "may an unshare fault leave the huge page where it is?",
        ("copy the huge page", "leave it", "wait for the page lock", "split the PMD"),
    ),
    Question(
        HUGE_ZERO_WRITE,
        "what does a write to the huge zero page get?",
        ("small pages", "a huge page"),
    ),
    Question(PAGEOUT_SPLITS, "does MADV_PAGEOUT split a folio that it could take whole?", _YES_NO),
    Question(SWAPOUT_SPLITS, "does reclaim split this folio before it is swapped out?", _YES_NO),
    Question(SWAPIN_WHOLE, "does swap-in map all pages of a cached folio at once?", _YES_NO),
    Question(COLLAPSE_REFUSES, "does collapse refuse pages of which none is writable?", _YES_NO),
    Question(HUGETLB_DOFORK, "may MADV_DOFORK undo MADV_DONTFORK of hugetlb pages?", _YES_NO),
    Question(COUNT_ONE, "is user space told that this page is mapped once?", _YES_NO),
    Question(PMD_SPLIT_DIRTY, "are the entries of a split PMD dirty, as it was?", _YES_NO),
    Question(SPLIT_ZEROS, "does splitting a folio put the zero page for pages of zeros?", _YES_NO),
    Question(
        SWAPIN_TAIL_COPIES,
        "does swap-in copy a page of a cached folio that is not its first?",
        _YES_NO,
    ),
    Question(
        MPROTECT_SOFT_DIRTY,
        "does mprotect() make dirty pages of a folio soft-dirty, if it changes several at once?",
        _YES_NO,
    ),
    Question(
        MIGRATION_SPLITS,
        "does migration split a partly mapped folio, and queue one that it unmapped in pieces?",
        _YES_NO,
    ),
    Question(
        MIGRATION_SOFT_DIRTY,
        "does a dirty migration entry come back soft-dirty?",
        ("no", "that of a PMD", "yes"),
    ),
    Question(
        ZAP_FREES_TABLE,
        "does MADV_DONTNEED of all that a page table maps free the table?",
        _YES_NO,
    ),
    Question(UFFD_KNOWS, "what a userfaultfd can do: the UFFD_ bits of the machine", ()),
    Question(UFFD_FORK_CLEARS, "does fork clear the uffd-wp bit in the child's entry?", _YES_NO),
    Question(
        UFFD_FORK_COPIES,
        "does fork copy the entries of a mapping whose writes the child tracks, whatever they are?",
        _YES_NO,
    ),
    Question(
        UFFD_MREMAP_CLEARS,
        "does mremap clear the uffd-wp bits when the mapping leaves its userfaultfd?",
        _YES_NO,
    ),
    Question(
        UFFD_UPGRADES,
        "does lifting a write protection map the page writable, if it may be?",
        _YES_NO,
    ),
    Question(
        SWAPOFF_KEEPS_BITS,
        "does swapoff keep the soft-dirty and uffd-wp bits of an entry?",
        _YES_NO,
    ),
    Question(NUMA_SKIPS, "does NUMA balancing skip this page as shared or held?", _YES_NO),
    Question(
        NUMA_SAVES_WRITE,
        "does an entry that waits for a NUMA hinting fault remember that it was writable?",
        _YES_NO,
    ),
    Question(NUMA_GUP_FAULTS, "does GUP take a NUMA hinting fault first?", _YES_NO),
    Question(SWAPOUT_ZEROS, "is a folio of zeros noted instead of written to swap?", _YES_NO),
    Question(
        FOLLOW_INACCESSIBLE,
        "do KSM and move_pages() find a page of memory that may not be accessed?",
        _YES_NO,
    ),
    Question(VMA_MERGE, "which VMAs alike become one, and how: the MERGES_ bits", ()),
    Question(GUARD_KNOWS, "what is known of guard regions: the GUARD_ bits of the machine", ()),
    Question(DROPPABLE, "can memory be mapped with MAP_DROPPABLE?", _YES_NO),
    Question(HWPOISON_KSM, "does a memory failure take a KSM page away?", _YES_NO),
    Question(
        HWPOISON_COUNTS,
        "does MADV_HWPOISON say `busy` if somebody holds the page that it took away?",
        _YES_NO,
    ),
    Question(HWPOISON_FREE, "does MADV_FREE clear a hwpoison entry?", _YES_NO),
    Question(SWAPOFF_POISON, "does swapoff map a poisoned page of the swap cache?", _YES_NO),
    Question(
        KHUGEPAGED_SHARED,
        "of eight pages that khugepaged collapses, how many may others map, too?",
        (),
    ),
    Question(KHUGEPAGED_LAZYFREE, "does khugepaged leave pages that are lazyfree?", _YES_NO),
    Question(
        FILE_PINS,
        "does GUP take a page to write of a shared mapping whose writes a file system must notice?",
        _YES_NO,
    ),
    Question(TOUCH_DIRTIES, "does GUP mark a PMD entry dirty that it only reads?", _YES_NO),
    Question(
        ANON_FOLIOS,
        "can a first touch allocate a folio that is smaller than a PMD's pages?",
        _YES_NO,
    ),
    Question(
        KSM_NEW_VMAS,
        "when is a new mapping marked of a process whose memory KSM may merge?",
        ("there are no such processes", "after VMAs are joined", "before"),
    ),
    Question(DROPPABLE_UFFD, "may droppable memory be registered with a userfaultfd?", _YES_NO),
    Question(
        HUGETLB_TAKES,
        "is a page that its owner takes from its children looked for where each of them maps it?",
        _YES_NO,
    ),
    Question(
        HUGETLB_RESTORES,
        "does unmapping this hugetlb page give its owner the reservation back?",
        _YES_NO,
    ),
    Question(
        UFFD_HUGETLB_STAYS,
        "does fork leave the uffd-wp bit in the child's hugetlb entry, whatever its mapping?",
        _YES_NO,
    ),
    Question(
        UFFD_HUGETLB_LOST,
        "does the copy of a hugetlb page (unshare, fork) lose the uffd-wp bit?",
        _YES_NO,
    ),
    Question(FREE_SKIPS, "does MADV_FREE leave this page alone as shared?", _YES_NO),
    Question(FREE_SKIPS_PMD, "the same of a folio that a PMD maps", _YES_NO),
    Question(
        HUGETLB_FORK_COPIES,
        "does fork copy the entries of a hugetlb mapping that has no page of its own?",
        _YES_NO,
    ),
    Question(
        HUGETLB_SOFT_DIRTY,
        "once soft-dirty bits are cleared, is a shared hugetlb page that mprotect() makes writable"
        " read-only until it is written?",
        _YES_NO,
    ),
    Question(
        FILE_MAPS_WHOLE,
        "does a fault map all pages of a large folio of a file by entries of their own?",
        _YES_NO,
    ),
    Question(
        FILE_PMD_ADVICE,
        "does MADV_NOHUGEPAGE keep a fault from mapping a file's huge page by a PMD entry?",
        _YES_NO,
    ),
    Question(
        FILE_HUGE_FITS,
        "must a PMD entry fit the mapping through which a fault gives a file a huge page?",
        _YES_NO,
    ),
    Question(
        KSM_COUNTS_MERGING,
        "what does a child's ksm_merging_pages begin with?",
        ("there is no such file", "the parent's count", "zero"),
    ),
    Question(
        FILE_HUGE_COW,
        "does a write fault take a file's PMD entry away, if its file system does not?",
        _YES_NO,
    ),
    Question(
        DAX_COUNTS,
        "do mappings of a page of a DAX file count, and hold it, as those of other files do?",
        _YES_NO,
    ),
    Question(
        WP_FLUSHES,
        "does a write fault flush the TLB entry that a userfaultfd call has yet to flush?",
        _YES_NO,
    ),
    Question(DEVICE_EXCLUSIVE, "what is an entry by which a device has a page for itself?", ()),
    Question(
        DEVICE_RESTORES_WRITABLE,
        "is a page that a device gives back mapped for writing?",
        _YES_NO,
    ),
    Question(
        DEVICE_FAULT_HOLDS,
        "does the fault that takes a page back from a device hold the page?",
        _YES_NO,
    ),
    Question(
        DEVICE_DROPS_SWAP,
        "does migration to a device drop a page's place in the swap cache?",
        _YES_NO,
    ),
    Question(
        POPULATE_SKIPS,
        "does MADV_POPULATE_READ or _WRITE go on behind a part of the range that is not mapped?",
        _YES_NO,
    ),
)
