"""userfaultfd: what it can do, and what becomes of write protection in fork, mremap and its end."""

from __future__ import annotations

from pageherd.machine.jit import KernelRecord
from pageherd.machine.layout import State
from pageherd.machine.questions import (
    NO,
    UFFD_FORK_CLEARS,
    UFFD_FORK_COPIES,
    UFFD_HUGETLB_LOST,
    UFFD_HUGETLB_STAYS,
    UFFD_KNOWS,
    UFFD_MREMAP_CLEARS,
    UFFD_UPGRADES,
    WP_FLUSHES,
    YES,
)
from pageherd.machine.state import (
    UFFD_EVENT_FORK,
    UFFD_EVENT_REMAP,
    UFFD_HUGETLB,
    UFFD_MINOR,
    UFFD_MOVE,
    UFFD_RWP,
    UFFD_RWP_ASYNC,
    UFFD_WP,
    UFFD_WP_ASYNC,
    UFFD_WP_UNPOPULATED,
    VM_UFFD_RWP,
    VM_UFFD_WP,
)
from pageherd.rules.base import decision_point, no, yes

_EVENTS = UFFD_EVENT_FORK | UFFD_EVENT_REMAP
_MINOR = _EVENTS | UFFD_WP | UFFD_MINOR
_HUGETLB = _MINOR | UFFD_HUGETLB
_UNPOPULATED = _HUGETLB | UFFD_WP_UNPOPULATED
_MOVE = _UNPOPULATED | UFFD_WP_ASYNC | UFFD_MOVE

FEATURES = decision_point("uffd-features", UFFD_KNOWS, kernel_function="userfaultfd_api")
FEATURES.value("events", _EVENTS, "events of fork and mremap; v4.11 to v5.6")
FEATURES.value("write-protect", _EVENTS | UFFD_WP, "UFFDIO_WRITEPROTECT; v5.7 (63b2d4174c4a)")
FEATURES.value("minor", _MINOR, "UFFDIO_CONTINUE, of shmem; v5.14 (c949b097ef2e)")
FEATURES.value("hugetlb", _HUGETLB, "UFFD_FEATURE_WP_HUGETLBFS_SHMEM; v5.19 (b1f9e876862d)")
FEATURES.value("unpopulated", _UNPOPULATED, "UFFD_FEATURE_WP_UNPOPULATED; v6.4 (2bad466cc9d9)")
FEATURES.value("async", _UNPOPULATED | UFFD_WP_ASYNC, "UFFD_FEATURE_WP_ASYNC; v6.7 (d61ea1cb0095)")
FEATURES.value("move", _MOVE, "UFFDIO_MOVE; v6.8 (adef440691ba)")
FEATURES.value("rwp", _MOVE | UFFD_RWP | UFFD_RWP_ASYNC, "UFFD_FEATURE_RWP; read in 7.3.4")

FORK = decision_point(
    "uffd-fork",
    UFFD_FORK_CLEARS,
    UFFD_FORK_COPIES,
    kernel_function="copy_present_pte, copy_nonpresent_pte, vma_needs_copy",
)


def unless_parent_tracks(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The child's entry keeps the bit if the parent's mapping is registered, whatever its own is.

    So the bit means nothing until the child registers the mapping: then it protects.
    """
    tracks = int(s.vma[int(s.t_mm[t]), int(s.t_page[t])]) & VM_UFFD_WP
    return NO if tracks else YES


def unless_child_tracks(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The child's entry keeps the bit if the child's mapping is registered, too."""
    tracks = int(s.vma[int(s.t_other[t]), int(s.t_page[t])]) & (VM_UFFD_WP | VM_UFFD_RWP)
    return NO if tracks else YES


FORK.group("parent-tracks", "copy_one_pte; v5.7 to v5.13", unless_parent_tracks, no)
FORK.group(
    "child-tracks",
    "copy_present_pte; v5.14 to v5.18 and 5.10.y (8f34f1eac382)",
    unless_child_tracks,
    no,
)
FORK.group(
    "child-tracks-and-copies",
    "copy_present_pte, vma_needs_copy; v5.19 (c56d1b62cce8)",
    unless_child_tracks,
    yes,
)

MREMAP = decision_point("uffd-mremap", UFFD_MREMAP_CLEARS, kernel_function="move_ptes")
MREMAP.group("kept", "move_ptes; until v6.12.0, read in 5.10.262", no)
MREMAP.group(
    "cleared",
    "move_ptes; v6.13, 6.1.y and 6.12.y (0cef0bb836e3)",
    yes,
)

UNPROTECT = decision_point("uffd-unprotect", UFFD_UPGRADES, kernel_function="uffd_wp_range")
UNPROTECT.group("read-only", "mwriteprotect_range; until v6.1: the next write fault decides", no)
UNPROTECT.group(
    "writable-if-it-may",
    "uffd_wp_range, MM_CP_TRY_CHANGE_WRITABLE; read in 6.12: as `mprotect-upgrade` says",
    yes,
)

FLUSH = decision_point("wp-flush", WP_FLUSHES, kernel_function="do_wp_page")
FLUSH.group("never", "do_wp_page; until v5.11", no)
FLUSH.group("if-pending", "do_wp_page; v5.12 and 5.10.y (6ce64428d620)", yes)

HUGETLB = decision_point(
    "uffd-hugetlb",
    UFFD_HUGETLB_STAYS,
    UFFD_HUGETLB_LOST,
    kernel_function="copy_hugetlb_page_range, hugetlb_wp",
)
HUGETLB.group("forgotten", "copy_hugetlb_page_range, hugetlb_wp; v5.19, read in 6.1.192", yes, yes)
HUGETLB.group("carried", "copy_hugetlb_page_range, hugetlb_wp; read in 6.12.117", no, no)
