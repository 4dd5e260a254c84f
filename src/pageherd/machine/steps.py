"""The program counters: one number for every step of every kernel path.

A step is what happens atomically under the locks it names; between steps any other thread may run.
Each number is given its function by `@step(NUMBER)` in the file of its path.
"""

from __future__ import annotations

from typing import Final

IDLE: Final = 0
BLOCKED: Final = -1  # a step returns this when a lock it needs is taken: nothing has changed

# access.py: loads and stores of user space
ACCESS: Final = 1
STALE_STORE: Final = 123
# fault.py: handle_pte_fault, do_anonymous_page
FAULT: Final = 2
ANON_ALLOC: Final = 3
ANON_MAP: Final = 4
# cow.py: do_wp_page, wp_page_copy
WP: Final = 5
WP_WAIT: Final = 6
WP_ALLOC: Final = 7
WP_COPY: Final = 8
WP_MAP: Final = 9
WP_PUT: Final = 10
# swapin.py: do_swap_page
SWAPIN_LOOKUP: Final = 11
SWAPIN_READ: Final = 12
SWAPIN_LOCK: Final = 13
SWAPIN_MAP: Final = 14
# fork.py: dup_mmap, copy_page_range
FORK_START: Final = 15
FORK_PAGE: Final = 16
FORK_WRPROTECT: Final = 17
FORK_INSTALL: Final = 18
FORK_COPY: Final = 19
FORK_END: Final = 20
FORK_FAILED: Final = 110
# gup.py: get_user_pages and pin_user_pages
GUP: Final = 21
GUP_FAST_SEQ: Final = 22
GUP_FAST_PTE: Final = 23
GUP_FAST_GRAB: Final = 24
GUP_FAST_RECHECK: Final = 25
GUP_FAST_UNSHARE: Final = 26
GUP_FAST_END: Final = 27
GUP_SLOW: Final = 28
GUP_DONE: Final = 29
GUP_REMOTE_COPY: Final = 30
# reclaim.py: shrink_page_list
PAGEOUT: Final = 31
RECLAIM_ISOLATE: Final = 32
RECLAIM_LOCK: Final = 33
RECLAIM_SWAP: Final = 34
RECLAIM_UNMAP: Final = 35
RECLAIM_CHECK: Final = 36
RECLAIM_WRITE: Final = 37
RECLAIM_REMOVE: Final = 38
RECLAIM_PUTBACK: Final = 39
WRITEBACK_END: Final = 40
SWAPOFF: Final = 41
# zap.py: munmap, MADV_DONTNEED, exit
ZAP: Final = 42
ZAP_PUT: Final = 43
ZAP_END: Final = 44
EXIT: Final = 45
# vma.py: mmap, mprotect, mremap, madvise, clear_refs
MMAP: Final = 46
MPROTECT: Final = 47
MREMAP: Final = 48
MREMAP_MOVE: Final = 49
MADVISE: Final = 50
CLEAR_SOFT_DIRTY: Final = 51
MREMAP_FAIL: Final = 59
# reference.py: what is done through a reference or pin
READ_REF: Final = 52
WRITE_REF: Final = 53
TEE: Final = 54
SHARE: Final = 55
RELEASE: Final = 56
# lru.py
DRAIN: Final = 57
# observe.py
PAGEMAP: Final = 58
PAGEMAP_WP: Final = 79
# file.py: do_fault, and the calls that read and write a file
FILE_FAULT: Final = 80
FILE_COPY: Final = 81
FILE_MAP: Final = 82
MMAP_FILE: Final = 83
READ_FILE: Final = 84
WRITE_FILE: Final = 85
# hugetlb.py: hugetlb_fault, hugetlb_wp
HUGETLB_FAULT: Final = 86
HUGETLB_COPY: Final = 87
HUGETLB_MAP: Final = 88
HUGETLB_TAKE: Final = 89
HUGETLB_FILE_MAP: Final = 111

# migrate.py: migrate_pages, move_pages
MIGRATE: Final = 60
MOVE: Final = 61
MIGRATE_LOCK: Final = 62
MIGRATE_UNMAP: Final = 63
MIGRATE_CHECK: Final = 64
MIGRATE_COPY: Final = 65
MIGRATE_RESTORE: Final = 66
MIGRATE_END: Final = 67
MIGRATION_WAIT: Final = 68
# ksm.py: ksmd, MADV_UNMERGEABLE
KSM: Final = 69
KSM_ZERO: Final = 70
KSM_PROTECT: Final = 71
KSM_REPLACE: Final = 72
KSM_END: Final = 73
UNMERGE: Final = 74
KSM_BREAK: Final = 75
KSM_BREAK_END: Final = 78
SWAPIN_COPY: Final = 76
# lazyfree.py: MADV_FREE
FREE: Final = 77

# huge.py: do_huge_pmd_anonymous_page, do_huge_pmd_wp_page
HUGE_ALLOC: Final = 90
HUGE_COPY: Final = 91
HUGE_MAP: Final = 92
HUGE_WP: Final = 93
HUGE_WP_WAIT: Final = 94
HUGE_WP_COUNT: Final = 120
# split.py: split_huge_page, collapse_huge_page
SPLIT: Final = 95
COLLAPSE: Final = 96
# userfaultfd.py: userfaultfd(2) and its ioctls
USERFAULTFD: Final = 97
UFFD_REGISTER: Final = 98
UFFD_PROTECT: Final = 99
UFFD_COPY: Final = 100
UFFD_MOVE: Final = 101
UFFD_RWPROTECT: Final = 118
UFFD_CONTINUE: Final = 121
UFFD_FLUSH: Final = 122
# numa.py: change_prot_numa
NUMA_HINT: Final = 102
# zap.py: MADV_GUARD_REMOVE
UNGUARD: Final = 112
# memory_failure.py: MADV_HWPOISON, MADV_SOFT_OFFLINE
MEMORY_FAILURE: Final = 114
MEMORY_FAILURE_UNMAP: Final = 115
MEMORY_FAILURE_END: Final = 116
SOFT_OFFLINE: Final = 117
# khugepaged.py: khugepaged_scan_mm_slot
KHUGEPAGED: Final = 119
# vma.py: mmap(MAP_DROPPABLE)
MMAP_DROPPABLE: Final = 113

# file.py: wp_page_shared
WP_MKWRITE: Final = 103
# sync.py: sync_file_range, write-back of a page of a file
SYNC_FILE: Final = 104
SYNC_MKCLEAN: Final = 105
SYNC_WRITE: Final = 106
# anon_folio.py: hugepages-*kB/enabled
MTHP: Final = 107
# merge_any.py: PR_SET_MEMORY_MERGE
MERGE_ANY: Final = 108
UNMERGE_ANY: Final = 109
# ksm.py: /proc/PID/ksm_merging_pages
KSM_MERGING: Final = 124
# device.py: device-exclusive entries, memory of devices, what a device loads and stores
DEVICE_EXCLUSIVE: Final = 125
EXCLUSIVE_LOCK: Final = 126
EXCLUSIVE_UNMAP: Final = 127
EXCLUSIVE_REPLACE: Final = 128
EXCLUSIVE_END: Final = 129
EXCLUSIVE_FAULT: Final = 130
EXCLUSIVE_RESTORE: Final = 131
DEVICE_READ: Final = 132
DEVICE_WRITE: Final = 133
MIGRATE_TO_DEVICE: Final = 134
MIGRATE_TO_RAM: Final = 135

NR_STEPS: Final = 136
