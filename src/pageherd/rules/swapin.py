"""swapin and its relatives: how a page comes back from swap.  (do_swap_page)

The machine has already dropped the swap entry's count when it asks.
"""

from __future__ import annotations

from pageherd.machine.folio import folio_nr_pages, has_flag, is_ksm, page_count, stands_for_many
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.lru import lru_add_drain
from pageherd.machine.pte import pte_of
from pageherd.machine.questions import (
    DROP_AFTER,
    DROP_BEFORE,
    KEEP_CACHE,
    MAP_EXCLUSIVE,
    MAP_READ_ONLY,
    MAP_WRITABLE,
    MLOCK_HOLDS,
    NO,
    PAST_CACHE,
    READAHEAD_DRAINS,
    SWAP_BYPASS,
    SWAP_EXCLUSIVE,
    SWAPIN,
    SWAPIN_DROP,
    SWAPIN_READ_MAPS_WRITABLE,
    SWAPIN_TAIL_COPIES,
    SWAPIN_WHOLE,
    SWAPOFF_KEEPS_BITS,
    WAIT_FOR_OTHER,
    YES,
)
from pageherd.machine.state import (
    FAULT_WRITE,
    PG_LRU,
    PG_WRITEBACK,
    PTE_SWP_EXCLUSIVE,
    SWAP_ZRAM,
    VM_LOCKED,
)
from pageherd.machine.swap import bypassed_elsewhere, was_bypassed
from pageherd.machine.swapin import swap_pte_batch
from pageherd.rules.base import decision_point, no, yes
from pageherd.rules.protection import needs_tracking
from pageherd.rules.reuse import reuse_swap_page

POINT = decision_point("swapin", SWAPIN, kernel_function="do_swap_page")


@helper
def is_write(s: State, t: int) -> bool:
    return (int(s.t_fault[t]) & FAULT_WRITE) != 0


@helper
def entry_is_exclusive(s: State, t: int, frame: int) -> bool:
    """pte_swp_exclusive(), not under write-back to a device that needs stable pages."""
    pte = pte_of(s, int(s.t_mm[t]), int(s.t_page[t]))
    if (pte & PTE_SWP_EXCLUSIVE) == 0:
        return False
    return not (has_flag(s, frame, PG_WRITEBACK) and s.swap_stable_writes != 0)


@POINT.alternative("by-mapcount", "do_swap_page, reuse_swap_page; until v5.17")
def by_mapcount(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """A write maps it writable when no other mapping and no other swap entry exists.

    The kernel asks before it drops the entry, so that a lone owner counts 0 maps + 1 entry.
    """
    if is_write(s, t) and reuse_swap_page(s, frame, 1):
        return MAP_WRITABLE
    return MAP_READ_ONLY


@POINT.alternative("by-refcount", "do_swap_page; v5.18 (c145e0b47c77)")
def by_refcount(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """A write maps it writable when it bypassed the swap cache or has one reference."""
    if not is_write(s, t):
        return MAP_READ_ONLY
    alone = was_bypassed(s, t) or page_count(s, frame) == 1
    return MAP_WRITABLE if alone else MAP_READ_ONLY


@POINT.alternative("by-exclusive", "do_swap_page; v5.19 to v6.19 (1493a1913e34)")
def by_exclusive(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Exclusive by the swap entry's bit, or read past the swap cache, or with one reference."""
    exclusive = was_bypassed(s, t) or entry_is_exclusive(s, t, frame)
    if exclusive or page_count(s, frame) == 1:
        return MAP_EXCLUSIVE | MAP_WRITABLE
    return MAP_READ_ONLY


@POINT.alternative("by-exclusive-bit-only", "do_swap_page; in effect from v7.0, in words from v7.3")
def by_exclusive_bit_only(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Exclusive by the swap entry's bit alone; a copy of what was a KSM page is too."""
    exclusive = was_bypassed(s, t) or entry_is_exclusive(s, t, frame)
    return MAP_EXCLUSIVE | MAP_WRITABLE if exclusive else MAP_READ_ONLY


@helper
def drain_for_write(s: State, t: int, frame: int) -> None:
    """A write fault drains this CPU's batch if the page may be in it (d4c470970d45, v5.18)."""
    if is_write(s, t) and not has_flag(s, frame, PG_LRU):
        lru_add_drain(s, int(s.t_cpu[t]))


DROP = decision_point("swapin-drop", SWAPIN_DROP, kernel_function="should_try_to_free_swap")


@helper
def is_mlocked(s: State, t: int) -> bool:
    return (int(s.vma[int(s.t_mm[t]), int(s.t_page[t])]) & VM_LOCKED) != 0


@DROP.alternative("keep", "do_swap_page; until v5.17, with swap less than half full")
def keep(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Leave the page in the swap cache; for mlocked memory free it after mapping."""
    return DROP_AFTER if is_mlocked(s, t) else KEEP_CACHE


@DROP.alternative("before-write", "should_try_to_free_swap; v5.18 to v6.19 (c145e0b47c77)")
def before_write(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """For a write, if only the cache and this fault have references: free it before deciding.

    Always for mlocked memory.
    """
    drain_for_write(s, t, frame)
    if is_mlocked(s, t):
        return DROP_BEFORE
    alone = page_count(s, frame) == 2 and not is_ksm(s, frame)
    return DROP_BEFORE if is_write(s, t) and alone else KEEP_CACHE


@DROP.alternative("before-write-whole", "should_try_to_free_swap; v6.12, of a folio every page")
def before_write_whole(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As before-write, where the cache has a reference for each page of a folio.

    When one of many pages comes alone, the cache is still in use; when the last one does, the
    others have references, too.
    """
    drain_for_write(s, t, frame)
    if is_mlocked(s, t):
        return DROP_BEFORE
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    one_by_one = stands_for_many(s, frame) and not swap_pte_batch(s, t, mm, page, frame)
    alone = page_count(s, frame) == 1 + folio_nr_pages(s, frame) and not one_by_one
    return DROP_BEFORE if is_write(s, t) and alone else KEEP_CACHE


@DROP.alternative(
    "after-exclusive-write", "should_try_to_free_swap; v7.3 (after mapping since 4b34f1d82c65)"
)
def after_exclusive_write(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """After mapping: always for a synchronous device or mlocked memory, else an exclusive write."""
    if (
        is_mlocked(s, t)
        or s.swap_kind == SWAP_ZRAM
        or (is_write(s, t) and entry_is_exclusive(s, t, frame))
    ):
        return DROP_AFTER
    return KEEP_CACHE


READ = decision_point("swapin-read-maps", SWAPIN_READ_MAPS_WRITABLE, kernel_function="do_swap_page")
READ.group("read-only", "do_swap_page; until v6.1", no)


@READ.alternative("writable-if-exclusive", "do_swap_page, pte_needs_soft_dirty_wp; v6.12 and later")
def writable_if_exclusive(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Unless writes are tracked."""
    return NO if needs_tracking(s, int(s.t_mm[t]), int(s.t_page[t])) else YES


BYPASS = decision_point("swap-bypass", SWAP_BYPASS, kernel_function="do_swap_page")
BYPASS.group("never", "do_swap_page; v7.0 and later, the swap cache is always used", no)
BYPASS.group("when-alone", "do_swap_page, SWP_SYNCHRONOUS_IO; v4.15 (0bcac06f27d7) to v6.7", yes)


@BYPASS.alternative(
    "one-at-a-time", "do_swap_page, swapcache_prepare; v6.8 (13ddaf26be32) to v6.19, 6.1.192"
)
def one_at_a_time(s: State, t: int, k: KernelRecord, slot: int) -> int:
    """For an entry that no other thread is swapping in; that one's page may be swapped out again.

    The slot would be the same then, and pte_same() true.
    """
    return WAIT_FOR_OTHER if bypassed_elsewhere(s, t, slot) else PAST_CACHE


WHOLE = decision_point("swapin-maps", SWAPIN_WHOLE, kernel_function="do_swap_page, swap_pte_batch")
WHOLE.group("one-page", "do_swap_page; until v6.1, the page that was touched", no)
WHOLE.group("whole-folio", "do_swap_page, swap_pte_batch; v6.12 and later", yes)

EXCLUSIVE = decision_point("swap-exclusive", SWAP_EXCLUSIVE, kernel_function="try_to_unmap_one")
EXCLUSIVE.group("forgotten", "try_to_unmap_one; until v5.18", no)
EXCLUSIVE.group("in-the-entry", "try_to_unmap_one, pte_swp_mkexclusive; v5.19 (1493a1913e34)", yes)

BITS = decision_point("swapoff-bits", SWAPOFF_KEEPS_BITS, kernel_function="unuse_pte")
BITS.group("forgotten", "unuse_pte; until v5.18, read in 5.10.262: only the page is mapped", no)
BITS.group("kept", "unuse_pte; v5.19 (14a762dd1977)", yes)

READAHEAD = decision_point(
    "readahead-drains", READAHEAD_DRAINS, kernel_function="swap_cluster_readahead"
)
READAHEAD.group("no", "swap_cluster_readahead, swap_vma_readahead; one page, or v7.3", no)
READAHEAD.group("yes", "swap_vma_readahead, lru_add_drain; more than one page, until v7.2", yes)

MLOCK = decision_point("mlock-batch", MLOCK_HOLDS, kernel_function="mlock_folio, mlock_vma_folio")
MLOCK.group("none", "mlock_vma_page; until v5.17", no)
MLOCK.group("holds", "mlock_folio, mlock_page; v5.18 (2fbb0c10d1e8)", yes)

TAIL = decision_point("swapin-tail", SWAPIN_TAIL_COPIES, kernel_function="ksm_might_need_to_copy")
TAIL.group("copied", "ksm_might_need_to_copy; read in 6.1: a tail page has no index", yes)
TAIL.group("mapped", "ksm_might_need_to_copy; read in 6.12: a large folio is left alone", no)
