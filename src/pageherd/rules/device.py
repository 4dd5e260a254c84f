"""device: what a device-exclusive entry is, how it is restored; what goes to a device's memory."""

from __future__ import annotations

from pageherd.machine.jit import KernelRecord
from pageherd.machine.layout import State
from pageherd.machine.pte import pte_of
from pageherd.machine.questions import (
    DEVICE_DROPS_SWAP,
    DEVICE_EXCLUSIVE,
    DEVICE_FAULT_HOLDS,
    DEVICE_RESTORES_WRITABLE,
    MAPS_ITS_PAGE,
    MPROTECT_UPGRADE,
    NO,
    NO_SUCH_ENTRY,
    UNMAPS_ITS_PAGE,
    YES,
)
from pageherd.machine.state import PTE_UFFD_WP, PTE_WRITE, ask
from pageherd.rules.base import decision_point, no, yes

ENTRY = decision_point(
    "device-exclusive", DEVICE_EXCLUSIVE, kernel_function="make_device_exclusive"
)
ENTRY.value("none", NO_SUCH_ENTRY, "until v5.13 no such call")
ENTRY.value(
    "unmaps",
    UNMAPS_ITS_PAGE,
    "make_device_exclusive_range; v5.14 (b756a3b5e7ea) to v6.14: every mapping goes, the"
    " entries hold the page",
)
ENTRY.value(
    "maps",
    MAPS_ITS_PAGE,
    "make_device_exclusive; v6.15 (series of c25465eb7630): one entry, which counts as a mapping",
)

RESTORE = decision_point(
    "device-restore", DEVICE_RESTORES_WRITABLE, kernel_function="restore_exclusive_pte"
)


@RESTORE.alternative("by-entry", "is_writable_device_exclusive_entry; v5.14 to v6.14")
def by_entry(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """The entry remembers it, unless a userfaultfd tracks writes."""
    entry = pte_of(s, int(s.t_mm[t]), int(s.t_page[t]))
    return YES if (entry & (PTE_WRITE | PTE_UFFD_WP)) == PTE_WRITE else NO


@RESTORE.alternative("as-mprotect", "can_change_pte_writable; v6.15, read in 7.3")
def as_mprotect(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Where mprotect() would make the entry writable."""
    return ask(s, t, k, MPROTECT_UPGRADE, frame)


HOLDS = decision_point(
    "device-fault-holds", DEVICE_FAULT_HOLDS, kernel_function="remove_device_exclusive_entry"
)
HOLDS.group("no", "lock_page_or_retry alone; v5.14 to v6.2", no)
HOLDS.group("yes", "folio_try_get; v6.3 and 6.1.y (7c7b962938dd)", yes)

DROPS = decision_point("device-swap-cache", DEVICE_DROPS_SWAP, kernel_function="migrate_vma_pages")
DROPS.group("refused", "migrate_vma_pages; read in 5.10 and 6.1: a page with a mapping stays", no)
DROPS.group("dropped", "__migrate_device_pages, folio_free_swap; read in 6.12 and 7.3", yes)
