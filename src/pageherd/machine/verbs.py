"""The verbs of the machine: every operation a test, a script or a hunt can ask for.

This table is plain data, so that the litmus language, the command line and the documentation can
use it without loading the compiled machine.  `operations.py` says how each verb starts its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class Kind(Enum):
    """What stands at one argument position of a verb."""

    PAGE = "page"  # a page of the acting process:            a
    HUGE = "huge range"  # all pages of a `huge` line:        h
    REMOTE = "process.page"  # a page of a named process:       C.a
    FRAME = "process.page or reference"  # what a daemon works on: C.a, r
    REFERENCE = "reference"  # a reference or pin taken before: r
    PROCESS = "process"  # a process: C
    PROT = "protection"  # none, r, rw
    NUMBER = "number"  # a small decimal number
    VALUE = "value"  # `= 0xff`, the value stored
    FLAGS = "flags"  # zero or more of write, force, longterm, fast
    FEATURES = "features"  # zero or more of event-fork, event-remap, ...


class Result(Enum):
    """What `name = verb ...` binds the name to."""

    STATUS = "status"  # ok, fault, busy, full or notified; the name may be left out
    VALUE = "value"  # the value read
    STATE = "state"  # absent, zero, present or swapped
    REFERENCE = "reference"  # a reference or pin; the name may not be left out


class Actor(Enum):
    """Who may use a verb."""

    PROCESS = "process"
    KERNEL = "kernel"


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: its arguments in order, its result, who acts, and the call it stands for."""

    name: str
    arguments: tuple[Kind, ...]
    result: Result
    stands_for: str
    actor: Actor = Actor.PROCESS
    optional: int = 0  # how many of the last arguments may be left out
    ranges: bool = False  # a page may be a huge range: the call works on all of it


def _table(*verbs: Verb) -> Mapping[str, Verb]:
    return MappingProxyType({verb.name: verb for verb in verbs})


_PAGE = (Kind.PAGE,)
_HUGE = (Kind.HUGE,)
_KERNEL = Actor.KERNEL

VERBS: Mapping[str, Verb] = _table(
    # memory accesses
    Verb("read", _PAGE, Result.VALUE, "a load"),
    Verb("write", (Kind.PAGE, Kind.VALUE), Result.STATUS, "a store", ranges=True),
    Verb(
        "write_stale",
        (Kind.PAGE, Kind.VALUE),
        Result.STATUS,
        "a store by a processor that has the page's entry in its TLB",
    ),
    # address space
    Verb(
        "mmap",
        _PAGE,
        Result.STATUS,
        "mmap(MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED, read-write)",
        ranges=True,
    ),
    Verb(
        "mmap_file",
        (Kind.PAGE, Kind.PAGE),
        Result.STATUS,
        "mmap(MAP_PRIVATE|MAP_FIXED) of the file, of its page of that or another name",
        optional=1,
        ranges=True,
    ),
    Verb(
        "mmap_shared",
        (Kind.PAGE, Kind.PAGE),
        Result.STATUS,
        "mmap(MAP_SHARED|MAP_FIXED) of the file, of its page of that or another name",
        optional=1,
        ranges=True,
    ),
    Verb("mmap_hugetlb", _PAGE, Result.STATUS, "mmap(MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB)"),
    Verb("read_file", _PAGE, Result.VALUE, "pread() of a page of the file"),
    Verb("write_file", (Kind.PAGE, Kind.VALUE), Result.STATUS, "pwrite() to a page of the file"),
    Verb("sync_file", _PAGE, Result.STATUS, "sync_file_range() of a page of the file"),
    Verb(
        "mmap_droppable",
        _PAGE,
        Result.STATUS,
        "mmap(MAP_DROPPABLE|MAP_ANONYMOUS|MAP_FIXED), 6.11 and later",
        ranges=True,
    ),
    Verb("munmap", _PAGE, Result.STATUS, "munmap()", ranges=True),
    Verb("mprotect", (Kind.PAGE, Kind.PROT), Result.STATUS, "mprotect()", ranges=True),
    Verb(
        "mremap",
        (Kind.PAGE, Kind.PAGE),
        Result.STATUS,
        "mremap(MREMAP_MAYMOVE|MREMAP_FIXED)",
        ranges=True,
    ),
    Verb("dontneed", _PAGE, Result.STATUS, "madvise(MADV_DONTNEED)", ranges=True),
    Verb("dontfork", _PAGE, Result.STATUS, "madvise(MADV_DONTFORK)", ranges=True),
    Verb("dofork", _PAGE, Result.STATUS, "madvise(MADV_DOFORK)", ranges=True),
    Verb("wipeonfork", _PAGE, Result.STATUS, "madvise(MADV_WIPEONFORK)", ranges=True),
    Verb("free", _PAGE, Result.STATUS, "madvise(MADV_FREE)"),
    Verb("guard", _PAGE, Result.STATUS, "madvise(MADV_GUARD_INSTALL), since 6.13", ranges=True),
    Verb("unguard", _PAGE, Result.STATUS, "madvise(MADV_GUARD_REMOVE), since 6.13", ranges=True),
    Verb("mergeable", _PAGE, Result.STATUS, "madvise(MADV_MERGEABLE)"),
    Verb("unmergeable", _PAGE, Result.STATUS, "madvise(MADV_UNMERGEABLE)"),
    Verb("merge_any", (), Result.STATUS, "prctl(PR_SET_MEMORY_MERGE, 1), 6.4 and later"),
    Verb("unmerge_any", (), Result.STATUS, "prctl(PR_SET_MEMORY_MERGE, 0)"),
    Verb("pageout", _PAGE, Result.STATUS, "madvise(MADV_PAGEOUT), 5.4 and later", ranges=True),
    Verb(
        "populate_read",
        _PAGE,
        Result.STATUS,
        "madvise(MADV_POPULATE_READ), 5.14 and later",
        ranges=True,
    ),
    Verb(
        "populate_write",
        _PAGE,
        Result.STATUS,
        "madvise(MADV_POPULATE_WRITE), 5.14 and later",
        ranges=True,
    ),
    Verb("mlock", _PAGE, Result.STATUS, "mlock()", ranges=True),
    Verb("hwpoison", _PAGE, Result.STATUS, "madvise(MADV_HWPOISON), as for a machine check"),
    Verb("soft_offline", _PAGE, Result.STATUS, "madvise(MADV_SOFT_OFFLINE)"),
    Verb("clear_soft_dirty", (), Result.STATUS, "echo 4 > /proc/self/clear_refs"),
    Verb("move", _PAGE, Result.STATUS, "move_pages(MPOL_MF_MOVE) of one page to another node"),
    Verb("pagemap", _PAGE, Result.STATE, "/proc/self/pagemap: present, swapped or neither"),
    Verb(
        "ksm_merging_pages",
        (),
        Result.VALUE,
        "/proc/self/ksm_merging_pages: how many pages ksmd has merged, 5.19 and later",
    ),
    # userfaultfd
    Verb("userfaultfd", (Kind.FEATURES,), Result.STATUS, "userfaultfd(), UFFDIO_API"),
    Verb("uffd_register", _PAGE, Result.STATUS, "UFFDIO_REGISTER to track writes, 5.7 and later"),
    Verb("uffd_protect", _PAGE, Result.STATUS, "UFFDIO_WRITEPROTECT, 5.7 and later"),
    Verb("uffd_unprotect", _PAGE, Result.STATUS, "UFFDIO_WRITEPROTECT without its mode WP"),
    Verb("uffd_register_rwp", _PAGE, Result.STATUS, "UFFDIO_REGISTER to track all access, v7.x"),
    Verb("uffd_rwprotect", _PAGE, Result.STATUS, "UFFDIO_RWPROTECT: no access, v7.x"),
    Verb("uffd_rwunprotect", _PAGE, Result.STATUS, "UFFDIO_RWPROTECT without its mode RWP"),
    Verb(
        "uffd_register_minor", _PAGE, Result.STATUS, "UFFDIO_REGISTER of the file, 5.14 and later"
    ),
    Verb("uffd_continue", _PAGE, Result.STATUS, "UFFDIO_CONTINUE: maps what the page cache has"),
    Verb("uffd_copy", (Kind.PAGE, Kind.VALUE), Result.STATUS, "UFFDIO_COPY"),
    Verb("uffd_move", (Kind.PAGE, Kind.PAGE), Result.STATUS, "UFFDIO_MOVE, 6.8 and later"),
    Verb("pagemap_wp", _PAGE, Result.VALUE, "/proc/self/pagemap, bit 57: 1 for a protected page"),
    # processes
    Verb("fork", (Kind.PROCESS,), Result.STATUS, "fork()"),
    Verb("exit", (), Result.STATUS, "_exit()"),
    # devices that share the memory of a process
    Verb("device_exclusive", _PAGE, Result.STATUS, "make_device_exclusive(), 5.14 and later"),
    Verb("migrate_to_device", _PAGE, Result.STATUS, "migrate_vma_setup() to a device's memory"),
    Verb("device_read", _PAGE, Result.VALUE, "a device's load from a page that it has"),
    Verb("device_write", (Kind.PAGE, Kind.VALUE), Result.STATUS, "a device's store to it"),
    # huge pages
    Verb("hugepage", _HUGE, Result.STATUS, "madvise(MADV_HUGEPAGE)"),
    Verb("nohugepage", _HUGE, Result.STATUS, "madvise(MADV_NOHUGEPAGE)"),
    Verb("collapse", _HUGE, Result.STATUS, "madvise(MADV_COLLAPSE), 6.1 and later, or khugepaged"),
    Verb(
        "process_madvise_collapse",
        (Kind.REMOTE,),
        Result.STATUS,
        "process_madvise(MADV_COLLAPSE) of the huge range that has the page, 6.1 and later",
    ),
    # references and pins, named by the call that takes them
    Verb("vmsplice", _PAGE, Result.REFERENCE, "vmsplice() of the page into a pipe"),
    Verb("send_zerocopy", _PAGE, Result.REFERENCE, "send(MSG_ZEROCOPY) from the page"),
    Verb("odirect_read", _PAGE, Result.REFERENCE, "read(O_DIRECT): a device will store to it"),
    Verb("odirect_write", _PAGE, Result.REFERENCE, "write(O_DIRECT): a device will load from it"),
    Verb(
        "io_uring_register", _PAGE, Result.REFERENCE, "io_uring_register(IORING_REGISTER_BUFFERS)"
    ),
    Verb("rdma_register", _PAGE, Result.REFERENCE, "ibv_reg_mr(IBV_ACCESS_LOCAL_WRITE)"),
    Verb("rdma_register_ro", _PAGE, Result.REFERENCE, "ibv_reg_mr(), remote read only"),
    Verb("vfio_map", _PAGE, Result.REFERENCE, "VFIO_IOMMU_MAP_DMA, read and write"),
    Verb("vfio_map_ro", _PAGE, Result.REFERENCE, "VFIO_IOMMU_MAP_DMA, read only"),
    Verb("get", (Kind.PAGE, Kind.FLAGS), Result.REFERENCE, "get_user_pages() with FOLL_GET"),
    Verb("pin", (Kind.PAGE, Kind.FLAGS), Result.REFERENCE, "pin_user_pages() with FOLL_PIN"),
    Verb("read_ref", (Kind.REFERENCE,), Result.VALUE, "a load through a reference (pipe, device)"),
    Verb("write_ref", (Kind.REFERENCE, Kind.VALUE), Result.STATUS, "a device's store through it"),
    Verb("tee", (Kind.REFERENCE, Kind.NUMBER), Result.STATUS, "tee(): so many references more"),
    Verb("share", (Kind.REFERENCE, Kind.PROCESS), Result.STATUS, "handing it over knowingly"),
    Verb("release", (Kind.REFERENCE,), Result.STATUS, "put_page() or unpin_user_page()"),
    # one process at another's memory
    Verb("process_vm_readv", (Kind.REMOTE,), Result.VALUE, "process_vm_readv()"),
    Verb("process_vm_writev", (Kind.REMOTE, Kind.VALUE), Result.STATUS, "process_vm_writev()"),
    Verb("ptrace_peek", (Kind.REMOTE,), Result.VALUE, "PTRACE_PEEKDATA, /proc/PID/mem"),
    Verb("ptrace_poke", (Kind.REMOTE, Kind.VALUE), Result.STATUS, "PTRACE_POKEDATA, /proc/PID/mem"),
    # kernel daemons and choices
    Verb("reclaim", (Kind.FRAME,), Result.STATUS, "kswapd: one pass over one page", _KERNEL),
    Verb(
        "khugepaged",
        (Kind.REMOTE,),
        Result.STATUS,
        "khugepaged at the huge range that has the page",
        _KERNEL,
    ),
    Verb("migrate", (Kind.FRAME,), Result.STATUS, "compaction moves one page", _KERNEL),
    Verb(
        "numa_hint",
        (Kind.REMOTE,),
        Result.STATUS,
        "NUMA balancing wants to know of the next access",
        _KERNEL,
    ),
    Verb("ksm", (Kind.REMOTE, Kind.REMOTE), Result.STATUS, "ksmd merges two pages", _KERNEL),
    Verb("ksm_zero", (Kind.REMOTE,), Result.STATUS, "ksmd merges one, use_zero_pages", _KERNEL),
    Verb("writeback", (Kind.FRAME,), Result.STATUS, "swap write-back finishes", _KERNEL),
    Verb("drain", (Kind.NUMBER,), Result.STATUS, "lru_add_drain() on a CPU", _KERNEL, optional=1),
    Verb("split", (Kind.FRAME,), Result.STATUS, "split_huge_pages, the split shrinker", _KERNEL),
    Verb("mthp", (Kind.NUMBER,), Result.STATUS, "hugepages-*kB/enabled, 6.8 and later", _KERNEL),
    Verb("swapoff", (), Result.STATUS, "swapoff()", _KERNEL),
)

MAPPINGS_OF_FILES = ("mmap_file", "mmap_shared")
COLLAPSES = ("collapse", "process_madvise_collapse", "khugepaged")
FILE_VERBS = ("mmap_file", "mmap_shared", "read_file", "write_file", "sync_file")
DAX_VERBS = (
    *("mmap", *MAPPINGS_OF_FILES, "munmap", "mprotect", "dontneed"),
    *("read", "write", "read_file", "write_file", "pagemap", "fork", "exit"),
    *("vmsplice", "read_ref", "release"),
    *("process_vm_readv", "process_vm_writev", "ptrace_peek", "ptrace_poke"),
)
FLAG_WORDS = ("write", "force", "longterm", "fast")
FEATURE_WORDS = ("event-fork", "event-remap", "wp-unpopulated", "wp-async", "rwp", "rwp-async")
LISTS = {Kind.FLAGS: FLAG_WORDS, Kind.FEATURES: FEATURE_WORDS}  # zero or more of these words
PROT_WORDS = ("none", "r", "rw")
STATUS_WORDS = ("ok", "fault", "busy", "full", "notified")
STATE_WORDS = ("absent", "zero", "present", "swapped")
