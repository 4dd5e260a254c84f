"""The table of kernels and proposals: for each decision point, the alternative it chose.

A row states everything, or extends another row and lists its changes; `resolve` gives the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

Choices = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """A kernel that shipped, or a proposal that did not."""

    name: str
    version: str  # what exactly was read
    about: str
    extends: str | None
    changes: Choices
    proposal: bool = False
    sources: tuple[str, ...] = ()
    open_questions: tuple[str, ...] = ()  # what the proposal leaves to the kernel it changes
    absent: Choices = field(default_factory=lambda: MappingProxyType({}))
    """Verbs whose call this kernel does not have: `verb -> the role the test plays instead`."""


_GET_ERA: Final = {
    "vmsplice": "get-fast",
    "send-zerocopy": "get-fast",
    "odirect-read": "get-write-fast",
    "odirect-write": "get-fast",
    "io-uring": "get-write-longterm",
    "rdma": "get-write-longterm",
    "rdma-ro": "get-write-force-longterm",
    "vfio": "get-write-longterm",
    "vfio-ro": "get-longterm",
    "process-vm-readv": "get",
    "process-vm-writev": "get-write",
    "ptrace-peek": "get-force",
    "ptrace-poke": "get-write-force",
    "raw-pin": "get-longterm",
}
_PIN_ERA: Final = {
    "io-uring": "pin-write-longterm",
    "rdma": "pin-write-longterm-fast",
    "rdma-ro": "pin-write-force-longterm-fast",
    "vfio": "pin-write-longterm",
    "vfio-ro": "pin-longterm",
    "process-vm-readv": "pin",
    "process-vm-writev": "pin-write",
    "raw-pin": "pin",
}
_BEFORE_5_14: Final = {
    "populate_read": "a load (MADV_POPULATE_READ came with v5.14)",
    "populate_write": "a forced write fault (MADV_POPULATE_WRITE came with v5.14)",
    "uffd_register_minor": "nothing: EINVAL (UFFD_FEATURE_MINOR_SHMEM came with v5.14)",
    "uffd_continue": "nothing: EINVAL (of shmem UFFDIO_CONTINUE came with v5.14)",
    "device_exclusive": "nothing: no such call (make_device_exclusive_range() came with v5.14)",
}
_NOT_IN_6_1: Final = {
    "uffd_move": "nothing: EINVAL (UFFDIO_MOVE came with v6.8)",
    "merge_any": "nothing: EINVAL (PR_SET_MEMORY_MERGE came with v6.4)",
    "unmerge_any": "nothing: EINVAL (PR_SET_MEMORY_MERGE came with v6.4)",
    "mthp": "nothing: ENOENT (hugepages-*kB/enabled came with v6.8)",
}
_BEFORE_6_11: Final = {
    "mmap_droppable": "nothing: EINVAL (MAP_DROPPABLE came with v6.11)",
}
_NO_RWP: Final = {
    "uffd_register_rwp": "nothing: EINVAL (UFFD_FEATURE_RWP is of v7.x)",
    "uffd_rwprotect": "nothing: EINVAL (UFFD_FEATURE_RWP is of v7.x)",
    "uffd_rwunprotect": "nothing: EINVAL (UFFD_FEATURE_RWP is of v7.x)",
}
_BEFORE_6_13: Final = _NO_RWP | {
    "guard": "nothing: EINVAL (MADV_GUARD_INSTALL came with v6.13)",
    "unguard": "nothing: EINVAL (MADV_GUARD_REMOVE came with v6.13)",
}
_BEFORE_6_8: Final = _NOT_IN_6_1 | _BEFORE_6_11 | _BEFORE_6_13
_BEFORE_6_1: Final = _BEFORE_6_8 | {
    "ksm_merging_pages": "nothing: ENOENT (/proc/PID/ksm_merging_pages came with v5.19)",
    "process_madvise_collapse": "khugepaged without its limits (MADV_COLLAPSE came with v6.1)",
}
_BEFORE_5_4: Final = (
    _BEFORE_5_14
    | _BEFORE_6_1
    | {
        "uffd_register": "nothing: EINVAL (UFFDIO_REGISTER_MODE_WP came with v5.7)",
        "uffd_protect": "nothing: EINVAL (UFFDIO_WRITEPROTECT came with v5.7)",
        "uffd_unprotect": "nothing: EINVAL (UFFDIO_WRITEPROTECT came with v5.7)",
        "io_uring_register": "RDMA registration (io_uring came with v5.1)",
        "pin": "get_user_pages_longterm() (FOLL_PIN came with v5.6)",
        "pageout": "reclaim of a page mapped once (MADV_PAGEOUT came with v5.4)",
    }
)

ROWS: Final[tuple[Row, ...]] = (
    Row(
        "linux-4.19",
        "mainline v4.19 (2018)",
        "write faults and swap-in reuse by map count",
        None,
        {
            "reuse": "by-mapcount",
            "unshare": "never",
            "unshare-in-place": "never",
            "swapin": "by-mapcount",
            "swapin-drop": "keep",
            "swapin-read-maps": "read-only",
            "swap-bypass": "when-alone",
            "swap-exclusive": "forgotten",
            "readahead-drains": "no",
            "fork": "share",
            "fork-swap": "duplicate",
            "fork-seq": "ignored",
            "pageout-skips": "not-mapped-once",
            "free-skips": "not-mapped-once",
            "reclaim-skips": "nothing",
            "unmap-refuses": "nothing",
            "still-mapped": "by-count",
            "copy-drops-swap": "no",
            "zap-drains": "yes",
            "zap-table": "kept",
            "marks": "none",
            "force": "cow-broken-and-dirty",
            "mprotect-upgrade": "never",
            "soft-dirty-skips": "nothing",
            "zero-pin": "counted",
            "mremap-checks": "late",
            "io-uring-release": "dirty",
            "io-uring-file": "accepted",
            "file-pins": "allowed",
            "huge-file-maps": "one-page",
            "huge-file-fits": "no",
            "huge-file-advice": "ignored",
            "huge-file-cow": "split",
            "dax-pages": "devmap",
            "force-retry": "as-write",
            "touch-dirties": "written",
            "hugetlb-reuse": "by-mapcount",
            "hugetlb-fork": "share",
            "hugetlb-dontneed": "refused",
            "hugetlb-force": "writable",
            "hugetlb-dofork": "allowed",
            "hugetlb-takes": "same-address",
            "hugetlb-restores": "never",
            "hugetlb-fork-file": "copied",
            "hugetlb-soft-dirty": "noticed",
            "mlock-batch": "none",
            "migration-exclusive": "forgotten",
            "migration-dirty": "forgotten",
            "migration-drains": "never",
            "migration-order": "freeze-then-copy",
            "migration-splits": "never",
            "migration-soft-dirty": "kept",
            "migration-wait": "with-reference",
            "move-skips": "mapped-more-than-once",
            "rmap-stops": "when-unmapped",
            "ksm-checks": "written",
            "ksm-counts": "by-mapcount",
            "ksm-reuse": "never",
            "ksm-unmerge": "write-fault",
            "ksm-zero": "left",
            "ksm-new-mappings": "none",
            "ksm-merging": "not-counted",
            "populate-holes": "end",
            "lazyfree": "unless-dirty",
            "counting": "exact",
            "huge-reuse": "by-torn-mapcount-or-copy",
            "huge-unshare": "by-page",
            "huge-zero-write": "huge-page",
            "pageout-splits": "pte-mapped",
            "swapout-splits": "without-pmd-entry",
            "swapin-maps": "one-page",
            "collapse-read-only": "refused",
            "anon-folios": "pages-only",
            "pmd-split-dirty": "page",
            "split-zeros": "kept",
            "vma-merge": "one-anon-vma",
            "swapout-zeros": "written",
            "swapin-tail": "copied",
            "mprotect-soft-dirty": "kept",
            "swapoff-bits": "forgotten",
            "uffd-features": "events",
            "uffd-fork": "parent-tracks",
            "uffd-mremap": "kept",
            "uffd-hugetlb": "forgotten",
            "uffd-unprotect": "read-only",
            "wp-flush": "never",
            "numa-skips": "not-mapped-once",
            "numa-write": "saved",
            "numa-gup": "unless-forced",
            "follow-inaccessible": "found",
            "guard": "none",
            "droppable": "unknown",
            "droppable-uffd": "registered",
            "khugepaged-shared": "none",
            "khugepaged-lazyfree": "collapsed",
            "hwpoison-ksm": "left",
            "hwpoison-held": "busy",
            "hwpoison-free": "kept",
            "swapoff-poison": "mapped",
            "device-exclusive": "none",
            "device-restore": "by-entry",
            "device-fault-holds": "no",
            "device-swap-cache": "refused",
            **_GET_ERA,
        },
        absent=_BEFORE_5_4,
    ),
    Row(
        "linux-4.19.y",
        "stable 4.19.y with the backport of 17839856fd58 (read in 4.19.232)",
        "as v4.19, and every GUP of a private mapping breaks COW first",
        "linux-4.19",
        {"unshare": "break-cow", "huge-reuse": "by-mapcount-or-copy"},
        absent=_BEFORE_5_4,
    ),
    Row(
        "linux-5.8",
        "mainline v5.8 (2020)",
        "as 4.19.y, with FOLL_PIN for long-term users, and io_uring",
        "linux-4.19.y",
        {
            **_PIN_ERA,
            "io-uring-release": "clean",
            "io-uring-file": "refused",
            "migration-wait": "without-reference",
            "ksm-reuse": "alone",
            "khugepaged-shared": "half",
            "huge-reuse": "by-mapcount",
            "huge-zero-write": "small-pages",
            "uffd-features": "write-protect",
        },
        absent=_BEFORE_5_14 | _BEFORE_6_1,
    ),
    Row(
        "linux-5.10",
        "Debian's 5.10.y (read in 5.10.223 and 5.10.262)",
        "write faults reuse by refcount, swap-in still by map count; fork copies pinned pages",
        "linux-5.8",
        {
            "reuse": "by-refcount",
            "unshare": "never",
            "io-uring-file": "of-shmem",
            "ksm-reuse": "never",
            "lazyfree": "unless-dirty-or-held",
            "fork": "copy-if-pinned",
            "fork-seq": "checked",
            "reclaim-skips": "pinned-before-swap",
            "soft-dirty-skips": "pinned",
            "uffd-fork": "child-tracks",
            "wp-flush": "if-pending",
            "numa-skips": "held-by-others",
            "hugetlb-soft-dirty": "ignored",
        },
        absent=_BEFORE_5_14 | _BEFORE_6_1,
    ),
    Row(
        "linux-5.18",
        "mainline v5.18 (2022)",
        "the refcount decides everywhere, after the swap cache and the LRU batch are dropped",
        "linux-5.10",
        {
            "populate-holes": "skipped",
            "reuse": "by-refcount-after-drop",
            "swapin": "by-refcount",
            "swapin-drop": "before-write",
            "copy-drops-swap": "yes",
            "mremap-checks": "first",
            "mlock-batch": "holds",
            "hugetlb-fork": "copy-if-pinned",
            "hugetlb-soft-dirty": "noticed",
            "hugetlb-dontneed": "allowed",
            "migration-drains": "if-mapped",
            "hwpoison-held": "done",
            "huge-reuse": "by-refcount",
            "uffd-features": "minor",
            "device-exclusive": "unmaps",
        },
        absent=_BEFORE_6_1,
    ),
    Row(
        "linux-6.1",
        "Debian's 6.1.y (read in 6.1.176 and 6.1.192)",
        "anon-exclusive marks, also in swap entries; pins unshare first",
        "linux-5.18",
        {
            "reuse": "by-exclusive",
            "unshare": "pins-not-exclusive",
            "unshare-in-place": "by-exclusive",
            "ksm-merging": "inherited",
            "swapin": "by-exclusive",
            "swap-exclusive": "in-the-entry",
            "fork": "copy-if-exclusive-pinned",
            "fork-swap": "clear-exclusive",
            "reclaim-skips": "pinned",
            "unmap-refuses": "exclusive-pinned",
            "huge-reuse": "by-exclusive",
            "huge-unshare": "by-exclusive",
            "marks": "anon-exclusive",
            "force": "exclusive",
            "mprotect-upgrade": "exclusive-dirty",
            "zero-pin": "not-counted",
            "hugetlb-fork": "copy-if-exclusive-pinned",
            "hugetlb-fork-file": "left-to-faults",
            "hugetlb-soft-dirty": "ignored",
            "hugetlb-force": "refused",
            "migration-exclusive": "in-the-entry",
            "migration-dirty": "in-the-entry",
            "migration-soft-dirty": "of-dirty",
            "ksm-checks": "written-or-exclusive",
            "swapoff-bits": "kept",
            "uffd-fork": "child-tracks-and-copies",
            "uffd-mremap": "cleared",
            "uffd-features": "hugetlb",
            "follow-inaccessible": "skipped",
            "swap-bypass": "one-at-a-time",
            "free-skips": "first-page-not-mapped-once",
            "hwpoison-free": "cleared",
            "swapoff-poison": "refused",
            "device-fault-holds": "yes",
        },
        absent=_BEFORE_6_8,
    ),
    Row(
        "linux-6.12",
        "Debian's 6.12.y (read in 6.12.117)",
        "long-term pins replace the zero page; O_DIRECT pins",
        "linux-6.1",
        {
            "reuse": "by-exclusive-small",
            "unshare-in-place": "as-write",
            "pmd-split-dirty": "entries",
            "split-zeros": "zero-page",
            "swapout-zeros": "noted",
            "swapin-tail": "mapped",
            "unshare": "pins-not-exclusive-or-longterm",
            "swapin-drop": "before-write-whole",
            "swapin-maps": "whole-folio",
            "pageout-skips": "maybe-shared",
            "free-skips": "maybe-shared",
            "pageout-splits": "partly-mapped",
            "swapout-splits": "partly-mapped",
            "counting": "exact-and-total",
            "swapin-read-maps": "writable-if-exclusive",
            "mprotect-upgrade": "exclusive",
            "odirect-read": "pin-write-fast",
            "odirect-write": "pin-fast",
            "io-uring": "pin-write-longterm-fast",
            "rdma-ro": "pin-longterm-fast",
            "io-uring-file": "accepted",
            "file-pins": "unless-longterm",
            "huge-file-advice": "heeded",
            "huge-file-maps": "whole-folio",
            "huge-file-fits": "yes",
            "migration-drains": "if-mlocked",
            "migration-order": "copy-then-freeze",
            "migration-splits": "if-partly-mapped",
            "migration-soft-dirty": "of-dirty-pmds",
            "ksm-unmerge": "unshare-fault",
            "ksm-zero": "unshared",
            "uffd-features": "move",
            "uffd-hugetlb": "carried",
            "uffd-unprotect": "writable-if-it-may",
            "numa-skips": "shared-or-pinned",
            "numa-write": "if-it-may",
            "numa-gup": "takes-it",
            "follow-inaccessible": "found",
            "droppable": "known",
            "hwpoison-ksm": "taken",
            "anon-folios": "enabled-size",
            "ksm-new-mappings": "marked-later",
            "ksm-merging": "anew",
            "populate-holes": "end",
            "hugetlb-restores": "last-mapping",
            "device-swap-cache": "dropped",
        },
        absent=_BEFORE_6_13,
    ),
    Row(
        "linux-6.18",
        "mainline 6.18.y (read in 6.18.35)",
        "as 6.12 for small pages; unmapping no longer drains LRU batches",
        "linux-6.12",
        {
            "zap-drains": "no",
            "zap-table": "freed",
            "dax-pages": "counted",
            "hugetlb-force": "read-only",
            "hugetlb-restores": "any-mapping",
            "lazyfree": "held-stays-lazy",
            "reuse": "by-exclusive-or-mm",
            "mprotect-soft-dirty": "marked",
            "vma-merge": "unfaulted-too",
            "counting": "mm-ids",
            "huge-zero-write": "huge-page",
            "collapse-read-only": "allowed",
            "guard": "marker",
            "ksm-new-mappings": "marked-first",
            "droppable-uffd": "refused",
            "device-exclusive": "maps",
            "device-restore": "as-mprotect",
        },
        absent=_NO_RWP,
    ),
    Row(
        "linux-7.3",
        "Debian's 7.3 (read in 7.3.4)",
        "swap-in always uses the swap cache and believes only the swap entry's exclusive bit",
        "linux-6.18",
        {
            "swapin": "by-exclusive-bit-only",
            "swapin-drop": "after-exclusive-write",
            "hugetlb-dofork": "refused",
            "hugetlb-takes": "where-it-is",
            "hugetlb-restores": "last-mapping",
            "vma-merge": "sticky-soft-dirty",
            "swap-bypass": "never",
            "guard": "marker-of-its-own",
            "uffd-features": "rwp",
            "khugepaged-lazyfree": "left",
        },
    ),
    Row(
        "unshare-2021",
        "v1 00/11 of 17 Dec 2021 on 5.16-rc5",
        "GUP unshares an anonymous page that is mapped more than once",
        "linux-5.10",
        {
            "populate-holes": "skipped",
            "unshare": "mapped-more-than-once",
            "unshare-in-place": "mapped-once",
            "copy-drops-swap": "yes",
            "numa-skips": "not-mapped-once",
            "lazyfree": "unless-dirty",
            "mremap-checks": "first",
            "hwpoison-held": "done",
            "hugetlb-fork": "copy-if-pinned",
            "hugetlb-soft-dirty": "noticed",
            "uffd-features": "minor",
            "device-exclusive": "unmaps",
        },
        proposal=True,
        sources=(
            "David Hildenbrand, [PATCH v1 06/11], 17 Dec 2021: the unshare fault",
            "David Hildenbrand, [PATCH v1 07/11], 17 Dec 2021: GUP triggers it",
            "<20211217113049.23850-1-david@redhat.com>",
        ),
        open_questions=("write faults and swap-in stay as in 5.16; part 2 was to change them",),
    ),
    Row(
        "three-state",
        "on top of unshare-2021",
        "three states in place of a map count: not mapped, mapped once, possibly more",
        "unshare-2021",
        {
            "counting": "three-state",
            "ksm-counts": "by-rmap",
            "still-mapped": "by-rmap",
        },
        proposal=True,
        sources=("Matthew Wilcox, 19 Dec 2021, <Yb+gId/gXocrlJYD@casper.infradead.org>",),
        open_questions=(
            'GUP unshares, and swap-in copies, where the state is "possibly more"',
            'whether reclaim is done is decided by an rmap walk, since "possibly more" never ends',
            "KSM, which needs the exact number of mappings, counts them with rmap",
            "MADV_PAGEOUT and move_pages() read the state as if it were the count",
        ),
    ),
    Row(
        "zero-one-two-many",
        "on top of unshare-2021",
        "a map count that is exact up to two",
        "three-state",
        {"counting": "zero-one-two-many"},
        proposal=True,
        sources=(
            "a finer reading of Matthew Wilcox, 19 Dec 2021",
            "<Yb+gId/gXocrlJYD@casper.infradead.org>",
        ),
        open_questions=("as three-state",),
    ),
    Row(
        "no-mapcount",
        "on top of the 5.16 rules",
        "no map count: the refcount decides everywhere, nothing is unshared, rmap where it matters",
        "linux-5.10",
        {
            "populate-holes": "skipped",
            "counting": "none",
            "swapin": "by-refcount",
            "huge-reuse": "by-refcount",
            "pageout-skips": "mapped-twice-by-rmap",
            "free-skips": "mapped-twice-by-rmap",
            "move-skips": "mapped-twice-by-rmap",
            "ksm-counts": "by-rmap",
            "rmap-stops": "at-the-end",
            "still-mapped": "by-rmap",
            "copy-drops-swap": "yes",
            "lazyfree": "unless-dirty",
            "mremap-checks": "first",
            "hwpoison-held": "done",
            "hugetlb-fork": "copy-if-pinned",
            "hugetlb-soft-dirty": "noticed",
            "hugetlb-reuse": "by-refcount",
            "uffd-features": "minor",
            "device-exclusive": "unmaps",
        },
        proposal=True,
        sources=(
            "Linus Torvalds, 19 Dec 2021",
            "<CAHk-=wiAzmB-jiHvF+EZ1-b0X3ts4LAYHaVhzpzXEjmC0X95eg@mail.gmail.com>",
        ),
        open_questions=(
            "hugetlb is not mentioned; without a map count its reuse goes by the refcount",
            "fork, reclaim, migration and soft-dirty as in 5.16",
            "KSM counts mappings with rmap",
            "move_pages() looks for a second mapping with rmap, and no walk can stop early",
        ),
    ),
    Row(
        "exclusive-bit",
        "on top of the 5.16 rules",
        'one bit "exclusive to this process": set by every COW copy, cleared when fork shares',
        "linux-5.10",
        {
            "populate-holes": "skipped",
            "marks": "anon-exclusive",
            "reuse": "by-exclusive-bit",
            "huge-reuse": "by-exclusive",
            "copy-drops-swap": "yes",
            "numa-skips": "not-mapped-once",
            "lazyfree": "unless-dirty",
            "mremap-checks": "first",
            "hwpoison-held": "done",
            "hugetlb-fork": "copy-if-pinned",
            "hugetlb-soft-dirty": "noticed",
            "uffd-features": "minor",
            "device-exclusive": "unmaps",
        },
        proposal=True,
        sources=(
            "Linus Torvalds, 19 Dec 2021",
            "<CAHk-=whYT0Q1F=bxG0yi=LN5gXY64zBwefsbkLoRiP5p598d5A@mail.gmail.com>",
        ),
        open_questions=(
            "swapping, migration and GUP are not mentioned: as in 5.16",
            "fork copies what looks pinned and clears the bit of what it shares",
        ),
    ),
)

_BY_NAME: Final = {row.name: row for row in ROWS}


def names() -> tuple[str, ...]:
    """All kernels in order of age, then all proposals."""
    return tuple(_BY_NAME)


def row(name: str) -> Row:
    """The row called `name`.

    Raises:
        KeyError: there is none.
    """
    return _BY_NAME[name]


def resolve(name: str) -> dict[str, str]:
    """Every decision point's choice of the kernel `name`, changes of its ancestors applied."""
    chosen = _BY_NAME[name]
    choices = resolve(chosen.extends) if chosen.extends else {}
    choices.update(chosen.changes)
    return choices


def absent_verbs(name: str) -> Choices:
    """Verbs whose call the kernel lacks; a proposal lacks what was not there in v5.16: nothing."""
    return _BY_NAME[name].absent
