"""hugetlb: reuse, fork, MADV_DONTNEED and forced writes of hugetlb mappings.

Pins of such a page are counted apart from references (hpage_pincount, _pincount): so many ordinary
references never look like a pin.
"""

from __future__ import annotations

from pageherd.machine.folio import is_exclusive, page_count
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.questions import (
    COPY,
    COPY_EARLY,
    HUGETLB_DOFORK,
    HUGETLB_DONTNEED,
    HUGETLB_FORCE,
    HUGETLB_FORK,
    HUGETLB_FORK_COPIES,
    HUGETLB_RESTORES,
    HUGETLB_REUSE,
    HUGETLB_SOFT_DIRTY,
    HUGETLB_TAKES,
    KEEP_READ_ONLY,
    MAKE_WRITABLE,
    REUSE_PAGE,
    SHARE_PAGE,
)
from pageherd.rules.base import decision_point, no, yes

REUSE = decision_point("hugetlb-reuse", HUGETLB_REUSE, kernel_function="hugetlb_wp, hugetlb_cow")


@REUSE.alternative("by-mapcount", "hugetlb_cow, hugetlb_wp; every kernel up to v7.3")
def by_mapcount(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Reuse when the page is mapped once: references and pins never count.

    A copy might exhaust the pool, and then kill; so the leak through a reference is accepted.
    """
    return REUSE_PAGE if s.mapcount[frame] == 1 else COPY


@REUSE.alternative("by-refcount", "proposal: as small pages, where there is no map count")
def by_refcount(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Reuse when nobody else has a reference."""
    return REUSE_PAGE if page_count(s, frame) == 1 else COPY


FORK = decision_point("hugetlb-fork", HUGETLB_FORK, kernel_function="copy_hugetlb_page_range")


@helper
def pinned_here(s: State, t: int, frame: int) -> bool:
    """This process has ever pinned, and the page is pinned."""
    return bool(s.mm_has_pinned[int(s.t_mm[t])] != 0 and s.pincount[frame] != 0)


@FORK.alternative("share", "copy_hugetlb_page_range; until v5.11")
def share(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Share every page, pinned or not."""
    return SHARE_PAGE


@FORK.alternative("copy-if-pinned", "page_needs_cow_for_dma; v5.12 (4eae4efa2c29) to v5.18")
def copy_if_pinned(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Copy for the child when the page is pinned."""
    return COPY_EARLY if pinned_here(s, t, frame) else SHARE_PAGE


@FORK.alternative(
    "copy-if-exclusive-pinned", "page_try_dup_anon_rmap, hugetlb_try_dup_anon_rmap; v5.19"
)
def copy_if_exclusive_pinned(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As copy-if-pinned, but only exclusive pages can have pins; sharing clears the mark."""
    return COPY_EARLY if is_exclusive(s, frame) and pinned_here(s, t, frame) else SHARE_PAGE


FORK_COPIES = decision_point(
    "hugetlb-fork-file", HUGETLB_FORK_COPIES, kernel_function="copy_page_range, vma_needs_copy"
)
FORK_COPIES.group("copied", "copy_page_range, VM_HUGETLB; until v5.19", yes)
FORK_COPIES.group("left-to-faults", "vma_needs_copy; v6.0 (bcd51a3c679d)", no)

SOFT_DIRTY = decision_point(
    "hugetlb-soft-dirty", HUGETLB_SOFT_DIRTY, kernel_function="vma_wants_writenotify, hugetlb_wp"
)
SOFT_DIRTY.group(
    "noticed", "vma_wants_writenotify; until v5.19 (f96f7a40874d), and hugetlb_wp copies", yes
)
SOFT_DIRTY.group("ignored", "vma_wants_writenotify; v6.0 and stable trees (f96f7a40874d)", no)

DONTNEED = decision_point(
    "hugetlb-dontneed", HUGETLB_DONTNEED, kernel_function="madvise_dontneed_free_valid_vma"
)
DONTNEED.group("refused", "can_madv_lru_vma, EINVAL; until v5.17", no)
DONTNEED.group("allowed", "madvise_dontneed_free_valid_vma; v5.18 (90e7e7f5ef3f)", yes)

DOFORK = decision_point("hugetlb-dofork", HUGETLB_DOFORK, kernel_function="madvise_vma_behavior")
DOFORK.group("refused", "madvise_vma_behavior, VM_SPECIAL; read in 7.3.4", no)
DOFORK.group("allowed", "madvise_behavior, VM_IO; until v6.18", yes)

TAKES = decision_point("hugetlb-takes", HUGETLB_TAKES, kernel_function="unmap_ref_private")
TAKES.group("same-address", "unmap_ref_private; read in 5.10.262 to 6.12.117", no)
TAKES.group("where-it-is", "unmap_ref_private, vma_filebacked_address; read in 7.3.4", yes)

RESTORES = decision_point(
    "hugetlb-restores", HUGETLB_RESTORES, kernel_function="__unmap_hugepage_range"
)
RESTORES.group("never", "__unmap_hugepage_range; until v6.8, and 6.1.192", no)
RESTORES.group("any-mapping", "__unmap_hugepage_range; v6.9 (df7a6d1f6405), seen on 6.18.44", yes)


@RESTORES.alternative("last-mapping", "__unmap_hugepage_range; read in 6.12.117 and 7.3.4")
def restore_with_the_last_mapping(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As long as a child maps the page the owner could take it from there."""
    return int(s.mapcount[frame] == 1)


FORCED = decision_point("hugetlb-force", HUGETLB_FORCE, kernel_function="check_vma_flags")


@FORCED.alternative("writable", "set_huge_ptep_writable; until v6.1")
def force_writable(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The write fault is made, and the entry becomes writable although the mapping is not."""
    return MAKE_WRITABLE


FORCED.group("refused", "check_vma_flags, EFAULT; v6.2 to v6.12, and 6.1.y (f347454d0341)", no)


@FORCED.alternative("read-only", "set_huge_ptep_maybe_writable; read in 6.18.35 and 7.3.4")
def force_read_only(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As for small pages: the entry stays read-only, and the exclusive mark is the evidence."""
    return KEEP_READ_ONLY
