"""The levers: for each verb, what a user-space program does to make a real kernel take that step.

A verb without a lever is not steerable: a test that uses it is skipped with that reason, never
faked.  Where a lever is a call of its own (reclaim by MADV_PAGEOUT, a raw pin by the system call
that takes one with the same FOLL_ flags), the test is rewritten to that call first, so that the
prediction uses what the lever really does (`steer.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Lever:
    """How one verb is done on a real kernel.

    `step` is the verb's name in `c/steps.h`; `needs` names a probe of the runner (`have NAME 0`);
    `since` is the first mainline release whose kernel has the call.
    """

    verb: str
    step: str
    call: str
    needs: str = ""
    config: str = ""
    since: str = ""
    privilege: str = ""
    returns: bool = True  # whether the call's own status says what the verb's status says


def _table(*levers: Lever) -> Mapping[str, Lever]:
    return MappingProxyType({lever.verb: lever for lever in levers})


def _vfio(verb: str, step: str, call: str) -> Lever:
    config = "VFIO_PCI, VFIO_IOMMU_TYPE1, an IOMMU"
    return Lever(verb, step, call, needs="vfio", config=config, since="3.6", privilege="root")


def _uffd(verb: str, call: str, needs: str = "userfaultfd", since: str = "5.7") -> Lever:
    privilege = "root, or vm.unprivileged_userfaultfd"
    return Lever(
        verb, verb, call, needs=needs, config="USERFAULTFD", since=since, privilege=privilege
    )


def _ksm(verb: str, call: str) -> Lever:
    return Lever(
        verb,
        verb,
        call,
        needs="ksm",
        config="KSM",
        since="2.6.32",
        privilege="root; no other mergeable memory",
        returns=False,
    )


def _failure(verb: str, call: str) -> Lever:
    return Lever(
        verb,
        verb,
        call,
        needs="memory-failure",
        config="MEMORY_FAILURE",
        since="2.6.33",
        privilege="root of a guest: the page is lost until the next boot",
    )


LEVERS: Final[Mapping[str, Lever]] = _table(
    Lever("read", "read", "a load"),
    Lever("write", "write", "a store"),
    Lever("mmap", "mmap", "mmap(MAP_FIXED), madvise(MADV_NOHUGEPAGE)"),
    Lever("mmap_file", "mmap_file", "mmap(MAP_PRIVATE) of the file", since="3.17"),
    Lever("mmap_shared", "mmap_shared", "mmap(MAP_SHARED) of the file", since="3.17"),
    Lever(
        "mmap_hugetlb",
        "mmap_hugetlb",
        "mmap(MAP_HUGETLB) of 2 MiB; 16 pages are added to the pool meanwhile",
        needs="hugetlb",
        config="HUGETLBFS",
        privilege="root, for the pool",
    ),
    Lever(
        "mmap_droppable",
        "mmap_droppable",
        "mmap(MAP_DROPPABLE)",
        needs="droppable",
        since="6.11",
    ),
    Lever("read_file", "read_file", "pread() of the file"),
    Lever("write_file", "write_file", "pwrite() to the file"),
    Lever(
        "sync_file",
        "sync_file",
        "sync_file_range() of a page of the file",
        needs="tmpfile",
        since="2.6.17",
    ),
    Lever("munmap", "munmap", "munmap()"),
    Lever("mprotect", "mprotect", "mprotect()"),
    Lever("mremap", "mremap", "mremap(MREMAP_FIXED)"),
    Lever("dontneed", "dontneed", "madvise(MADV_DONTNEED)"),
    Lever("dontfork", "dontfork", "madvise(MADV_DONTFORK)"),
    Lever("dofork", "dofork", "madvise(MADV_DOFORK)"),
    Lever("wipeonfork", "wipeonfork", "madvise(MADV_WIPEONFORK)", since="4.14"),
    Lever("free", "free", "madvise(MADV_FREE)", since="4.5"),
    Lever("guard", "guard", "madvise(MADV_GUARD_INSTALL)", needs="guard", since="6.13"),
    Lever("unguard", "unguard", "madvise(MADV_GUARD_REMOVE)", needs="guard", since="6.13"),
    _failure("hwpoison", "madvise(MADV_HWPOISON)"),
    _failure("soft_offline", "madvise(MADV_SOFT_OFFLINE)"),
    Lever("mergeable", "mergeable", "madvise(MADV_MERGEABLE); ksmd must not run", config="KSM"),
    Lever("unmergeable", "unmergeable", "madvise(MADV_UNMERGEABLE)", config="KSM"),
    Lever("merge_any", "merge_any", "prctl(PR_SET_MEMORY_MERGE, 1)", config="KSM", since="6.4"),
    Lever("unmerge_any", "unmerge_any", "prctl(PR_SET_MEMORY_MERGE, 0)", config="KSM", since="6.4"),
    _ksm("ksm", "two scans of ksmd, of everything mergeable"),
    _ksm("ksm_zero", "likewise, with `use_zero_pages`"),
    Lever(
        "pageout",
        "pageout",
        "madvise(MADV_PAGEOUT); a page mapped once",
        needs="swap",
        config="SWAP",
        since="5.4",
        privilege="root, for the swap device",
        returns=False,
    ),
    Lever(
        "hugepage",
        "hugepage",
        "madvise(MADV_HUGEPAGE); the settings of THP are `madvise` meanwhile",
        needs="thp",
        config="TRANSPARENT_HUGEPAGE",
        since="2.6.38",
        privilege="root, for the settings",
    ),
    Lever(
        "nohugepage",
        "nohugepage",
        "madvise(MADV_NOHUGEPAGE)",
        needs="thp",
        config="TRANSPARENT_HUGEPAGE",
        since="2.6.38",
        privilege="root, for the settings",
    ),
    Lever(
        "collapse",
        "collapse",
        "madvise(MADV_COLLAPSE)",
        needs="collapse",
        config="TRANSPARENT_HUGEPAGE",
        since="6.1",
        privilege="root, for the settings",
    ),
    Lever(
        "process_madvise_collapse",
        "process_madvise_collapse",
        "process_madvise(MADV_COLLAPSE)",
        needs="collapse",
        config="TRANSPARENT_HUGEPAGE",
        since="6.1",
        privilege="root",
    ),
    Lever(
        "split",
        "split",
        "a write to split_huge_pages of debugfs; kpageflags tells what came of it",
        needs="thp-split",
        config="TRANSPARENT_HUGEPAGE, DEBUG_FS",
        since="5.12",
        privilege="root",
    ),
    Lever(
        "mthp",
        "mthp",
        "hugepages-16kB/enabled in place of hugepages-2048kB/enabled",
        needs="thp",
        config="TRANSPARENT_HUGEPAGE",
        since="6.8",
        privilege="root, for the settings",
    ),
    Lever(
        "populate_read",
        "populate_read",
        "madvise(MADV_POPULATE_READ)",
        needs="populate",
        since="5.14",
    ),
    Lever(
        "populate_write",
        "populate_write",
        "madvise(MADV_POPULATE_WRITE)",
        needs="populate",
        since="5.14",
    ),
    Lever("mlock", "mlock", "mlock()"),
    Lever(
        "clear_soft_dirty",
        "clear_soft_dirty",
        "a write of 4 to /proc/self/clear_refs",
        needs="soft-dirty",
        config="MEM_SOFT_DIRTY",
    ),
    Lever(
        "reclaim",
        "reclaim",
        "memory.reclaim, memory.high or memory.force_empty of a cgroup: of everything in it",
        needs="cgroup-reclaim",
        config="MEMCG, SWAP",
        since="2.6.25",
        privilege="root",
        returns=False,
    ),
    Lever(
        "move",
        "move",
        "move_pages(MPOL_MF_MOVE) to the other one of two nodes",
        needs="nodes",
        config="MIGRATION, two memory nodes",
        since="2.6.18",
    ),
    Lever(
        "migrate",
        "migrate",
        "move_pages(MPOL_MF_MOVE_ALL) likewise: of what a process maps",
        needs="nodes-of-all",
        config="MIGRATION, two memory nodes",
        since="2.6.18",
        privilege="root",
    ),
    Lever("pagemap", "pagemap", "/proc/PID/pagemap"),
    _uffd("userfaultfd", "userfaultfd() and UFFDIO_API, with UFFD_FEATURE_SIGBUS"),
    _uffd("uffd_register", "UFFDIO_REGISTER"),
    _uffd("uffd_protect", "UFFDIO_WRITEPROTECT"),
    _uffd("uffd_unprotect", "UFFDIO_WRITEPROTECT"),
    _uffd("uffd_register_rwp", "UFFDIO_REGISTER", since="7.3", needs="uffd-rwp"),
    _uffd("uffd_rwprotect", "UFFDIO_RWPROTECT", since="7.3", needs="uffd-rwp"),
    _uffd("uffd_rwunprotect", "UFFDIO_RWPROTECT", since="7.3", needs="uffd-rwp"),
    _uffd("uffd_register_minor", "UFFDIO_REGISTER", since="5.14", needs="uffd-minor"),
    _uffd("uffd_continue", "UFFDIO_CONTINUE", since="5.14", needs="uffd-minor"),
    _uffd("uffd_copy", "UFFDIO_COPY"),
    _uffd("uffd_move", "UFFDIO_MOVE", since="6.8"),
    _uffd("pagemap_wp", "/proc/PID/pagemap, bit 57", needs="uffd-wp-bit", since="5.14"),
    Lever(
        "ksm_merging_pages",
        "ksm_merging_pages",
        "/proc/PID/ksm_merging_pages",
        needs="ksm",
        config="KSM",
        since="5.19",
    ),
    Lever("fork", "fork", "fork()"),
    Lever("exit", "exit", "_exit()", returns=False),
    Lever("vmsplice", "pipe", "vmsplice()"),
    Lever(
        "odirect_read",
        "nbd",
        "io_submit() of an O_DIRECT read from an nbd device that answers when told to",
        needs="nbd",
        config="BLK_DEV_NBD, AIO",
        privilege="root",
    ),
    Lever(
        "io_uring_register",
        "ring",
        "io_uring_register(IORING_REGISTER_BUFFERS)",
        needs="io_uring",
        config="IO_URING",
        since="5.1",
    ),
    _vfio("vfio_map", "vfio", "VFIO_IOMMU_MAP_DMA, read and write"),
    _vfio("vfio_map_ro", "vfio_ro", "VFIO_IOMMU_MAP_DMA, read only"),
    Lever("read_ref", "read_ref", "tee() and read(); IORING_OP_WRITE_FIXED; device DMA"),
    Lever("write_ref", "write_ref", "IORING_OP_READ_FIXED; device DMA; the nbd answer"),
    Lever("tee", "tee", "tee()"),
    Lever("share", "share", "every process has the file descriptor"),
    Lever("release", "release", "splice() to /dev/null; IORING_UNREGISTER_BUFFERS; unmap; answer"),
    Lever(
        "process_vm_readv", "process_vm_readv", "process_vm_readv()", config="CROSS_MEMORY_ATTACH"
    ),
    Lever(
        "process_vm_writev",
        "process_vm_writev",
        "process_vm_writev()",
        config="CROSS_MEMORY_ATTACH",
    ),
    Lever("ptrace_peek", "peek", "a read of /proc/PID/mem"),
    Lever("ptrace_poke", "poke", "a write to /proc/PID/mem", needs="forced-writes"),
    Lever("drain", "drain", "madvise(MADV_COLD) on another page", since="5.4", returns=False),
    Lever("swapoff", "swapoff", "swapoff()", needs="swap", privilege="root, for the swap device"),
)

NOT_STEERABLE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "send_zerocopy": "the network stack decides when it lets go of a MSG_ZEROCOPY page",
        "odirect_write": "a disk reads the page at once; nothing looks through the reference later",
        "rdma_register": "needs an RDMA device",
        "rdma_register_ro": "needs an RDMA device",
        "device_exclusive": "needs a device that works on the memory of a process, as of test_hmm",
        "migrate_to_device": "needs a device with memory of its own, as of test_hmm",
        "device_read": "needs a device that works on the memory of a process, as of test_hmm",
        "device_write": "needs a device that works on the memory of a process, as of test_hmm",
        "writeback": "the end of write-back to a real device cannot be held back",
        "khugepaged": "nothing tells khugepaged which range to look at",
        "numa_hint": "nothing tells NUMA balancing which page to mark",
        "write_stale": "nothing keeps an entry in the TLB of a processor until it is used",
        "get": "no call of this kernel takes a lasting reference with these FOLL_ flags",
        "pin": "no call of this kernel takes a lasting pin with these FOLL_ flags",
    }
)
"""Why the verbs without a lever have none."""
