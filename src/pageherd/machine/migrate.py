"""Migration of one folio to other frames: move_pages() and compaction (migrate_pages).

A hugetlb page goes the same way (unmap_and_move_huge_page), and a page to a device's memory
(migrate_vma_pages).

`t_frame` is the old folio, which the isolation holds, `t_new` the new one; both stay locked from
MIGRATE_LOCK to MIGRATE_END.  Meanwhile each mapping is a migration entry that names the old page:
of the write kind (PTE_WRITE), readable-exclusive (PTE_SWP_EXCLUSIVE), or read.  That of a PMD is
one for all its pages (PTE_HUGE).
"""

from __future__ import annotations

from typing import Any, Final

from pageherd.machine import steps
from pageherd.machine.folio import (
    alloc_folio,
    alloc_frame,
    clear_flag,
    compound_head,
    folio_nr_pages,
    has_flag,
    is_anon,
    is_device_page,
    is_exclusive,
    is_large,
    page_count,
    page_ref_add,
    put_page,
    set_exclusive,
    set_flag,
    unhold,
)
from pageherd.machine.huge import set_pmd
from pageherd.machine.jit import KernelRecord, driver, helper, step
from pageherd.machine.layout import State, States
from pageherd.machine.lock import (
    locked_by_other,
    mmap_read_unlock,
    ptl_taken,
    trylock_page,
    unlock_page,
)
from pageherd.machine.lru import isolate_lru_page, lru_add_drain, lru_cache_add
from pageherd.machine.pool import alloc_for_migration, isolate_hugetlb, move_hugetlb_state
from pageherd.machine.pte import (
    is_followed,
    may_write,
    pte_of,
    restore_none,
    set_pte,
    wants_no_notice,
)
from pageherd.machine.questions import (
    DEVICE_DROPS_SWAP,
    MIGRATION_COPIES_FIRST,
    MIGRATION_DIRTY,
    MIGRATION_DRAINS,
    MIGRATION_EXCLUSIVE,
    MIGRATION_SPLITS,
    MOVE_SKIPS,
    RMAP_STOPS,
    STILL_MAPPED,
    UNMAP_REFUSES,
)
from pageherd.machine.rmap import (
    file_index,
    find_mapping,
    folio_add_rmap_pmd,
    folio_remove_rmap_pmd,
    is_of_folio,
    keeps_index,
    page_add_rmap,
    page_remove_rmap,
)
from pageherd.machine.split import dirty_again, split_if_large
from pageherd.machine.state import (
    BUSY,
    COST_COPIES,
    COST_RMAP_STEPS,
    COST_TLB_FLUSHES,
    HOLD_FRAME,
    HOLD_NEW,
    LIVE,
    NONE,
    NR_CPUS,
    OK,
    PG_DEVICE,
    PG_DIRTY,
    PG_EXCLUSIVE,
    PG_FILE,
    PG_HUGETLB,
    PG_HWPOISON,
    PG_ISOLATED,
    PG_KSM,
    PG_LAZYFREE,
    PG_PARTIALLY_MAPPED,
    PG_PRIVATE,
    PG_STABLE_NODE,
    PG_WRITEBACK,
    PTE_DEVICE_PRIVATE,
    PTE_DIRTY,
    PTE_HUGE,
    PTE_MAPPED,
    PTE_MIGRATION,
    PTE_PRESENT,
    PTE_SOFT_DIRTY,
    PTE_SWP_EXCLUSIVE,
    PTE_UFFD_WP,
    PTE_WRITE,
    SEGV,
    VM_LOCKED,
    VM_MAPPED,
    ZERO_FRAME,
    ask,
)
from pageherd.machine.swap import has_mapping, in_swap_cache, try_to_free_swap

# t_other: who asks
BY_MOVE_PAGES: Final = 1  # MIGRATE_SYNC: waits for write-back
BY_SOFT_OFFLINE: Final = 2  # likewise; the old page is never used again
TO_DEVICE: Final = 3  # migrate_vma_setup(): the new page is in a device's memory

# t_seq: what the unmapping found
WAS_MAPPED: Final = 1
WAS_MLOCKED: Final = 2


# -- which page ------------------------------------------------------------------------------------


@helper
def isolate_folio(s: State, t: int, head: int) -> bool:
    """isolate_lru_page(), isolate_hugetlb(): a hugetlb page is on no LRU list."""
    if has_flag(s, head, PG_HUGETLB):
        return isolate_hugetlb(s, t, head)
    return isolate_lru_page(s, t, head)


@helper
def isolate(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """isolate_lru_page(): not a folio that waits in an LRU batch or is isolated already.

    Some kernels first split a folio of which not all is mapped; then the page goes alone here (the
    kernel moves each of them).
    """
    if frame == NONE:
        s.t_result[t] = BUSY
        return steps.IDLE
    head = compound_head(s, frame)
    if has_flag(s, head, PG_PARTIALLY_MAPPED) and ask(s, t, k, MIGRATION_SPLITS, head):
        head = frame if split_if_large(s, t, k, frame) else NONE
    if head == NONE or not isolate_folio(s, t, head):
        s.t_result[t] = BUSY
        return steps.IDLE
    return steps.MIGRATE_LOCK


@step(steps.MIGRATE)
def migrate(s: State, t: int, k: KernelRecord) -> int:
    """compact_zone() and others: drain this CPU's batch, isolate one folio.

    Compaction leaves alone what is as large as a PMD's pages, and hugetlb; memory hot-unplug does
    not, nor does MPOL_MF_MOVE_ALL.
    """
    lru_add_drain(s, int(s.t_cpu[t]))
    return isolate(s, t, k, int(s.t_frame[t]))


@step(steps.MOVE)
def move(s: State, t: int, k: KernelRecord) -> int:
    """add_page_for_migration(): drain all batches; a page that others map too needs MOVE_ALL."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    for cpu in range(NR_CPUS):
        lru_add_drain(s, cpu)  # migrate_prep(), lru_cache_disable()
    pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
    if (int(s.vma[mm, page]) & VM_MAPPED) == 0:
        s.t_result[t] = SEGV
        return steps.IDLE
    present = (pte & PTE_PRESENT) != 0 and is_followed(s, t, k, mm, page)
    if not present or frame == ZERO_FRAME or ask(s, t, k, MOVE_SKIPS, frame):
        s.t_result[t] = BUSY  # ENOENT, EFAULT, EACCES in the page's status
        return steps.IDLE
    s.t_other[t] = BY_MOVE_PAGES
    return isolate(s, t, k, frame)


@driver
def is_found(states: States, i: int, kernels: Any, mm: int, page: int) -> bool:
    """Whether follow_page() finds a page there: it does not look into the swap cache."""
    s = states[i]
    return bool(pte_of(s, mm, page) & PTE_PRESENT and is_followed(s, 0, kernels[0], mm, page))


@helper
def alloc_target(s: State, frame: int) -> int:
    """alloc_migration_target(): a folio like the old one."""
    if has_flag(s, frame, PG_HUGETLB):
        return alloc_for_migration(s)
    return alloc_folio(s, int(s.frame_order[frame])) if is_large(s, frame) else alloc_frame(s)


@helper
def putback(s: State, t: int, frame: int) -> None:
    """putback_lru_page(); not a hugetlb page (folio_putback_hugetlb) or one of a device."""
    if not has_flag(s, frame, PG_HUGETLB) and not is_device_page(s, frame):
        lru_cache_add(s, t, frame)


@step(steps.MIGRATE_LOCK)
def migrate_lock(s: State, t: int, k: KernelRecord) -> int:
    """__unmap_and_move(): lock the old page and a new one.

    Only move_pages() and soft_offline_page() wait until write-back is over.
    """
    frame = int(s.t_frame[t])
    if locked_by_other(s, t, frame):
        return steps.BLOCKED
    trylock_page(s, t, frame)
    s.t_new[t] = alloc_target(s, frame)
    if s.t_new[t] == NONE:
        return steps.IDLE  # the alarm is raised
    s.t_held[t] = int(s.t_held[t]) | HOLD_NEW
    trylock_page(s, t, int(s.t_new[t]))
    if s.t_other[t] == TO_DEVICE:
        set_flag(s, int(s.t_new[t]), PG_DEVICE)
    if has_flag(s, frame, PG_WRITEBACK):
        if s.t_other[t] != BY_MOVE_PAGES and s.t_other[t] != BY_SOFT_OFFLINE:
            s.t_result[t] = BUSY
            return steps.MIGRATE_END
        clear_flag(s, frame, PG_WRITEBACK)  # folio_wait_writeback()
    return steps.MIGRATE_UNMAP


# -- the entries -----------------------------------------------------------------------------------


@helper
def migration_entry(s: State, t: int, k: KernelRecord, pte: int, frame: int) -> int:
    """make_writable_migration_entry() and its relatives: what the entry remembers."""
    entry = PTE_MIGRATION | (pte & (PTE_SOFT_DIRTY | PTE_UFFD_WP | PTE_WRITE))
    if (pte & PTE_WRITE) == 0 and is_exclusive(s, frame):
        if ask(s, t, k, MIGRATION_EXCLUSIVE, frame):
            entry |= PTE_SWP_EXCLUSIVE
    if pte & PTE_DIRTY and ask(s, t, k, MIGRATION_DIRTY, frame):
        entry |= PTE_DIRTY
    return entry


@step(steps.MIGRATE_UNMAP)
def migrate_unmap(s: State, t: int, k: KernelRecord) -> int:
    """try_to_migrate_one(): one mapping becomes a migration entry, under its page-table lock.

    Until v5.13 it is try_to_unmap_one() with TTU_MIGRATION.  Locked memory migrates like any other.
    """
    folio, pages = int(s.t_frame[t]), int(s.nr_pages)
    found = find_mapping(s, folio, int(s.t_value[t]) // pages, int(s.t_value[t]) % pages)
    if found == NONE:
        return steps.MIGRATE_CHECK
    mm, page = found // pages, found % pages
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
    s.t_value[t] = found + (folio_nr_pages(s, folio) if pte & PTE_HUGE else 1)
    if pte & PTE_DIRTY:
        set_flag(s, frame, PG_DIRTY)
    if ask(s, t, k, UNMAP_REFUSES, frame):
        return steps.MIGRATE_CHECK  # the entry is put back, the walk ends here
    locked = WAS_MLOCKED if int(s.vma[mm, page]) & VM_LOCKED else 0
    s.t_seq[t] = int(s.t_seq[t]) | WAS_MAPPED | locked
    entry = migration_entry(s, t, k, pte, frame)
    clear_flag(s, frame, PG_EXCLUSIVE)
    s.cost[COST_TLB_FLUSHES] += 1
    if pte & PTE_HUGE:  # set_pmd_migration_entry()
        set_pmd(s, mm, page, entry, frame)
        folio_remove_rmap_pmd(s, t, k, frame, mm, page)
    else:
        set_pte(s, mm, page, entry, frame)
        page_remove_rmap(s, t, k, frame, mm, page)
    put_page(s, folio)
    return steps.MIGRATE_CHECK if ask(s, t, k, RMAP_STOPS, folio) else steps.MIGRATE_UNMAP


@helper
def find_migration_entry(s: State, frame: int, now: int, seen: int) -> int:
    """The first migration entry of the folio at `frame`, as mm * nr_pages + page; NONE without one.

    remove_migration_ptes() walks over the mappings of `now`, the folio that is to be mapped.  What
    was looked at before (`seen`) is looked at again, since fork may have left an entry there; the
    kernel's walk meets children last and pays for each process once.
    """
    nr, file = folio_nr_pages(s, frame), file_index(s, now)
    for mm in range(s.nr_mms):
        if s.mm_state[mm] != LIVE:
            continue
        first, last = 0, int(s.nr_pages)
        if keeps_index(s, now):
            first = int(s.frame_index[now])
            last = min(last, first + nr)
        for page in range(first, last):
            if file != 0 and not is_of_folio(s, mm, page, file, nr):
                continue
            s.cost[COST_RMAP_STEPS] += int(mm * int(s.nr_pages) + page >= seen)
            named = frame <= s.pte_to[mm, page] < frame + nr
            if int(s.pte[mm, page]) & PTE_MIGRATION and named:
                return mm * int(s.nr_pages) + page
    return NONE


@step(steps.MIGRATE_RESTORE)
def migrate_restore(s: State, t: int, k: KernelRecord) -> int:
    """remove_migration_pte(): one entry maps a page again: the new one, or the old after a failure.

    The protection is that of now: the entry may have been downgraded by fork or mprotect.
    """
    old = int(s.t_frame[t])
    now = int(s.t_new[t]) if s.t_result[t] == OK else old
    found = find_migration_entry(s, old, now, int(s.t_value[t]))
    if found == NONE:
        return steps.MIGRATE_END
    mm, page = found // int(s.nr_pages), found % int(s.nr_pages)
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    s.t_value[t] = max(int(s.t_value[t]), found + 1)
    frame = int(s.pte_to[mm, page]) + now - old
    entry = pte_of(s, mm, page)
    kept = dirty_again(s, t, k, entry, frame) & (PTE_SOFT_DIRTY | PTE_UFFD_WP | PTE_DIRTY)
    pte = PTE_PRESENT | kept
    if (entry & PTE_WRITE and may_write(s, mm, page)) or wants_no_notice(s, t, k, mm, page):
        pte |= PTE_WRITE  # maybe_mkwrite(), or vm_page_prot
    pte = restore_none(s, mm, page, pte)
    if is_device_page(s, frame):  # make_writable_device_private_entry(), or readable
        pte = PTE_DEVICE_PRIVATE | PTE_MAPPED | (pte & (PTE_WRITE | PTE_SOFT_DIRTY | PTE_UFFD_WP))
    if is_anon(s, frame) and entry & (PTE_WRITE | PTE_SWP_EXCLUSIVE):
        if ask(s, t, k, MIGRATION_EXCLUSIVE, frame):
            set_exclusive(s, k, frame)
    page_ref_add(s, frame, 1)
    if entry & PTE_HUGE:  # remove_migration_pmd()
        folio_add_rmap_pmd(s, t, k, frame, mm, page)
        set_pmd(s, mm, page, pte, frame)
    else:
        page_add_rmap(s, t, k, frame, mm, page)
        set_pte(s, mm, page, pte, frame)
    return steps.MIGRATE_RESTORE


# -- the page --------------------------------------------------------------------------------------


@helper
def take_over(s: State, old: int, new: int) -> None:
    """migrate_page_move_mapping(), migrate_page_states(): index, place in a cache, dirty flag."""
    nr = folio_nr_pages(s, old)
    for i in range(nr):
        s.frame_index[new + i] = s.frame_index[old + i]
        s.frame_family[new + i] = s.frame_family[old + i]
    ksm = int(s.page_flags[old]) & (PG_KSM | PG_STABLE_NODE)
    set_flag(s, new, ksm)  # ksm_migrate_page(): the stable node names the new page
    move_hugetlb_state(s, old, new)
    if has_flag(s, old, PG_LAZYFREE):
        set_flag(s, new, PG_LAZYFREE)
    if has_flag(s, old, PG_DIRTY):
        clear_flag(s, old, PG_DIRTY)
        set_flag(s, new, PG_DIRTY)
    if in_swap_cache(s, old):
        for i in range(nr):
            s.slot_frame[int(s.frame_slot[old + i]) - 1] = new + i + 1
            s.frame_slot[new + i] = s.frame_slot[old + i]
            s.frame_slot[old + i] = 0
        page_ref_add(s, new, nr)
        page_ref_add(s, old, -nr)
    if has_flag(s, old, PG_FILE):
        for i in range(nr):
            s.file_frame[int(s.frame_index[old + i])] = new + i + 1
        kept = int(s.page_flags[old]) & (PG_FILE | PG_PRIVATE)
        clear_flag(s, old, kept)
        set_flag(s, new, kept)
        page_ref_add(s, new, nr)
        page_ref_add(s, old, -nr)


@helper
def held_by_others(s: State, frame: int) -> bool:
    """expected_page_refs(): anybody but the isolation and the swap cache or page cache?"""
    cached = folio_nr_pages(s, frame) if has_mapping(s, frame) else 0
    return page_count(s, frame) != 1 + cached


@helper
def fail(s: State, t: int) -> int:
    """EAGAIN; the callers try some times more, which changes nothing as long as nobody moves."""
    s.t_result[t] = BUSY
    return steps.MIGRATE_RESTORE


@helper
def leaves_swap_cache(s: State, t: int, k: KernelRecord, frame: int) -> bool:
    """migrate_vma_pages(): a page of the swap cache stays, if the kernel does not drop the slot."""
    if not in_swap_cache(s, frame):
        return True
    return ask(s, t, k, DEVICE_DROPS_SWAP, frame) != 0 and try_to_free_swap(s, frame)


@step(steps.MIGRATE_CHECK)
def migrate_check(s: State, t: int, k: KernelRecord) -> int:
    """migrate_page_move_mapping(): no mapping and no reference may be left.

    Some kernels move the page's place in its cache now, some after they have copied it.
    """
    frame = int(s.t_frame[t])
    s.t_value[t] = 0  # where the walk of the restoring is
    if ask(s, t, k, STILL_MAPPED, frame) or held_by_others(s, frame):
        return fail(s, t)
    if s.t_other[t] == TO_DEVICE and not leaves_swap_cache(s, t, k, frame):
        return fail(s, t)
    if not ask(s, t, k, MIGRATION_COPIES_FIRST, frame):
        take_over(s, frame, int(s.t_new[t]))
    return steps.MIGRATE_COPY


@step(steps.MIGRATE_COPY)
def migrate_copy(s: State, t: int, k: KernelRecord) -> int:
    """copy_highpage(): nobody can write the page; a page of a cache can be looked up.

    The new page enters the LRU list; a batch holds it unless it is drained.
    """
    old, new = int(s.t_frame[t]), int(s.t_new[t])
    for i in range(folio_nr_pages(s, old)):
        s.content[new + i] = s.content[old + i]
        s.cost[COST_COPIES] += 1
    if has_flag(s, old, PG_PARTIALLY_MAPPED) and ask(s, t, k, MIGRATION_SPLITS, old):
        set_flag(s, new, PG_PARTIALLY_MAPPED)  # deferred_split_folio()
    if ask(s, t, k, MIGRATION_COPIES_FIRST, old):
        if has_mapping(s, old) and held_by_others(s, old):
            return fail(s, t)
        take_over(s, old, new)
    s.t_result[t] = OK
    putback(s, t, new)
    drains = s.batch_limit != 0 and s.t_other[t] != TO_DEVICE
    if drains and ask(s, t, k, MIGRATION_DRAINS, new):
        lru_add_drain(s, int(s.t_cpu[t]))
    return steps.MIGRATE_RESTORE


@step(steps.MIGRATE_END)
def migrate_end(s: State, t: int, k: KernelRecord) -> int:
    """Unlock; the page that nobody needs is freed; one that stays goes back to the LRU list.

    One that is offline is kept by page_handle_poison().
    """
    old, new = int(s.t_frame[t]), int(s.t_new[t])
    unlock_page(s, old)
    unlock_page(s, new)
    clear_flag(s, old, PG_ISOLATED)
    unhold(s, t, HOLD_FRAME | HOLD_NEW)
    put_page(s, new)
    if s.t_result[t] != OK:
        putback(s, t, old)
    elif s.t_other[t] == BY_SOFT_OFFLINE:
        set_flag(s, old, PG_HWPOISON)
        page_ref_add(s, old, 1)
    put_page(s, old)
    mmap_read_unlock(s, t, int(s.t_mm[t]))  # of who migrates to a device
    return steps.IDLE


@step(steps.MIGRATION_WAIT)
def migration_wait(s: State, t: int, k: KernelRecord) -> int:
    """__migration_entry_wait() until v4.20: sleeps for the page lock with a reference."""
    frame = int(s.t_frame[t])
    if locked_by_other(s, t, frame):
        return steps.BLOCKED
    unhold(s, t, HOLD_FRAME)
    put_page(s, frame)
    return int(s.t_return[t])
