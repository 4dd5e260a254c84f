"""What protects a page: FOLL_FORCE, mprotect, mremap, soft-dirty, marks."""

from __future__ import annotations

from pageherd.machine.folio import is_anon, is_exclusive, page_maybe_dma_pinned
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.pte import is_shared, pte_of, userfaultfd_pte_wp
from pageherd.machine.questions import (
    FORCE,
    FORCE_FORGETS,
    MARKS,
    MPROTECT_SOFT_DIRTY,
    MPROTECT_UPGRADE,
    MREMAP_UNMAPS_FIRST,
    NO,
    POPULATE_SKIPS,
    SOFT_DIRTY_SKIPS,
    TOUCH_DIRTIES,
    YES,
    ZERO_PIN,
)
from pageherd.machine.state import (
    FOLL_BREAK_COW,
    FOLL_COW,
    FOLL_FORCE,
    PTE_DIRTY,
    PTE_SOFT_DIRTY,
    VM_SOFTDIRTY,
    VM_WRITE,
)
from pageherd.rules.base import decision_point, no, yes

MARK = decision_point("marks", MARKS, kernel_function="SetPageAnonExclusive")
MARK.value("none", 0, "no mark; until v5.18")
MARK.value("anon-exclusive", 1, "PG_anon_exclusive; v5.19 (78fbe906cc90, 6c287605fd56)")

FORCED = decision_point("force", FORCE, kernel_function="can_follow_write_pte")


@FORCED.alternative(
    "cow-broken-and-dirty", "can_follow_write_pte, FOLL_COW; v4.9 to v5.19 (19be0eaffa3a)"
)
def cow_broken_and_dirty(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """A write fault has been through (FOLL_COW) and the entry is dirty."""
    foll = int(s.t_foll[t])
    forced = (foll & (FOLL_FORCE | FOLL_BREAK_COW)) != 0 and (foll & FOLL_COW) != 0
    dirty = (pte_of(s, int(s.t_mm[t]), int(s.t_page[t])) & PTE_DIRTY) != 0
    return YES if forced and dirty else NO


@FORCED.alternative("exclusive", "can_follow_write_pte; v6.0 and 5.19.y (5535be309971)")
def exclusive(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The page is anonymous and exclusive, in a mapping that is not writable or tracked."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if (int(s.t_foll[t]) & FOLL_FORCE) == 0 or int(s.vma[mm, page]) & VM_WRITE:
        return NO
    if not is_anon(s, frame) or needs_tracking(s, mm, page):
        return NO
    return YES if is_exclusive(s, frame) else NO


@helper
def needs_tracking(s: State, mm: int, page: int) -> bool:
    """A write must be noticed: pte_needs_soft_dirty_wp(), userfaultfd_pte_wp()."""
    pte = pte_of(s, mm, page)
    if userfaultfd_pte_wp(s, mm, page, pte):
        return True
    return (int(s.vma[mm, page]) & VM_SOFTDIRTY) == 0 and (pte & PTE_SOFT_DIRTY) == 0


FORGETS = decision_point("force-retry", FORCE_FORGETS, kernel_function="faultin_page")
FORGETS.group("as-write", "faultin_page; v4.9 and 4.8.3 (19be0eaffa3a)", no)
FORGETS.group(
    "as-read", "faultin_page, which clears FOLL_WRITE; until v4.8: Dirty COW, CVE-2016-5195", yes
)

TOUCHES = decision_point("touch-dirties", TOUCH_DIRTIES, kernel_function="touch_pmd")
TOUCHES.group("written", "touch_pmd; v4.15 (a8f97366452e), a PMD that is written", no)
TOUCHES.group("always", "touch_pmd; until v4.14: Huge Dirty COW, CVE-2017-1000405", yes)

UPGRADE = decision_point("mprotect-upgrade", MPROTECT_UPGRADE, kernel_function="change_pte_range")
UPGRADE.group("never", "change_pte_range; until v5.19, a write fault decides", no)


@UPGRADE.alternative("exclusive-dirty", "can_change_pte_writable; v6.0 (64fe24a3e05e) and v6.1")
def exclusive_dirty(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """A dirty entry of an exclusive page or of a shared mapping, unless writes are tracked."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    dirty = (pte_of(s, mm, page) & PTE_DIRTY) != 0
    proven = is_shared(s, mm, page) or is_exclusive(s, frame)
    return YES if dirty and proven and not needs_tracking(s, mm, page) else NO


@UPGRADE.alternative("exclusive", "can_change_private_pte_writable; v6.12 and later")
def upgrade_exclusive(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """An exclusive page, or a dirty entry of a shared mapping, unless writes are tracked."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    proven = is_exclusive(s, frame)
    if is_shared(s, mm, page):  # can_change_shared_pte_writable()
        proven = (pte_of(s, mm, page) & PTE_DIRTY) != 0
    return YES if proven and not needs_tracking(s, mm, page) else NO


SOFT_DIRTY = decision_point(
    "soft-dirty-skips", SOFT_DIRTY_SKIPS, kernel_function="clear_soft_dirty, pte_is_pinned"
)
SOFT_DIRTY.group("nothing", "clear_soft_dirty; until v5.10.0", no)


@SOFT_DIRTY.alternative("pinned", "pte_is_pinned; v5.11 and 5.10.y (9348b73c2e1b)")
def pinned(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """A writable entry of a page that may be pinned by a process that ever pinned."""
    if s.mm_has_pinned[int(s.t_mm[t])] == 0 or not is_anon(s, frame):
        return NO
    return YES if page_maybe_dma_pinned(s, frame) else NO


ZERO = decision_point("zero-pin", ZERO_PIN, kernel_function="try_grab_page")
ZERO.group("not-counted", "try_grab_page; v6.5 and 6.1.y (c8070b787519)", no)
ZERO.group("counted", "try_grab_page; until v6.4", yes)

MOVE = decision_point("mremap-checks", MREMAP_UNMAPS_FIRST, kernel_function="mremap, mremap_to")
MOVE.group("late", "mremap_to; until v5.15, what is at the new address is unmapped first", yes)
MOVE.group("first", "mremap; v5.16 (550a7d60bd5e), a bad old address changes nothing", no)

POPULATE = decision_point("populate-holes", POPULATE_SKIPS, kernel_function="madvise_populate")
POPULATE.group("end", "madvise_populate; v6.10 and later, read in 6.12; and without the call", no)
POPULATE.group("skipped", "madvise_walk_vmas; v5.14 (4ca9b3859dac) and later, read in 6.1", yes)

BATCH = decision_point(
    "mprotect-soft-dirty", MPROTECT_SOFT_DIRTY, kernel_function="modify_prot_start_ptes"
)
BATCH.group("kept", "change_pte_range; read in 6.12, one entry after the other", no)
BATCH.group("marked", "modify_prot_start_ptes; read in 6.18: pte_mkdirty() of x86 marks both", yes)
