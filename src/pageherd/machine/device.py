"""Devices that share the memory of a process: device-exclusive and device-private entries.

A device-exclusive entry keeps the processor out while a device works on the page.  It holds the
page.  Until v6.14 the page is not mapped meanwhile, and the entry remembers whether it was
writable; later it maps the page (PTE_MAPPED), and the reverse map finds it.

`t_frame` is the page that GUP took, which the path holds; mmap_lock is held to the end.

A device-private entry names a page in the device's memory, which the processor cannot access.  It
maps the page (PTE_MAPPED).  The way there is that of any migration (migrate.py); an access brings
the page back, from every process that maps it.
"""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.folio import (
    alloc_frame,
    compound_head,
    has_flag,
    hold_frame,
    is_anon,
    is_exclusive,
    is_free,
    is_ksm,
    is_large,
    page_count,
    page_ref_add,
    put_page,
    set_exclusive,
    set_flag,
    unhold,
)
from pageherd.machine.gup import ungrab
from pageherd.machine.huge import split_huge_pmd
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.lock import (
    locked_by_other,
    mmap_read_lock,
    mmap_read_unlock,
    ptl_taken,
    trylock_page,
    unlock_page,
)
from pageherd.machine.lru import lru_add_drain, lru_cache_add
from pageherd.machine.migrate import isolate
from pageherd.machine.pte import (
    may_write,
    pte_of,
    pte_same,
    restore_none,
    set_pte,
    userfaultfd_pte_wp,
)
from pageherd.machine.questions import (
    DEVICE_EXCLUSIVE,
    DEVICE_FAULT_HOLDS,
    DEVICE_RESTORES_WRITABLE,
    MAPS_ITS_PAGE,
    MIGRATION_EXCLUSIVE,
    NO_SUCH_ENTRY,
    RMAP_STOPS,
    STILL_MAPPED,
)
from pageherd.machine.rmap import find_mapping, page_add_rmap, page_remove_rmap
from pageherd.machine.split import split_if_large
from pageherd.machine.state import (
    BUSY,
    COST_COPIES,
    COST_READS,
    COST_TLB_FLUSHES,
    COST_WRITES,
    HOLD_FRAME,
    NONE,
    NR_CPUS,
    OK,
    PG_DIRTY,
    PG_HUGETLB,
    PG_LAZYFREE,
    PTE_DEVICE,
    PTE_DEVICE_EXCLUSIVE,
    PTE_DEVICE_PRIVATE,
    PTE_DIRTY,
    PTE_HUGE,
    PTE_MAPPED,
    PTE_PRESENT,
    PTE_SOFT_DIRTY,
    PTE_UFFD_WP,
    PTE_WRITE,
    SEGV,
    VM_HUGETLB,
    VM_READ,
    VM_SOFTDIRTY,
    ask,
    ask_value,
)
from pageherd.machine.watch import ALIVE, breach, note_load, note_store


@step(steps.DEVICE_EXCLUSIVE)
def device_exclusive(s: State, t: int, k: KernelRecord) -> int:
    """make_device_exclusive(): GUP for writing first, so COW is broken (b756a3b5e7ea, v5.14)."""
    if ask_value(k, DEVICE_EXCLUSIVE) == NO_SUCH_ENTRY:
        s.t_result[t] = SEGV
        return steps.IDLE
    return steps.GUP


@helper
def give_up(s: State, t: int) -> int:
    """The page is put, and stays as it is."""
    ungrab(s, t)
    mmap_read_unlock(s, t, int(s.t_mm[t]))
    return steps.IDLE


@step(steps.EXCLUSIVE_LOCK)
def exclusive_lock(s: State, t: int, k: KernelRecord) -> int:
    """make_device_exclusive(): lock the page of anonymous memory; a PMD was split (FOLL_SPLIT_PMD).

    Until v6.14 make_device_exclusive_range() leaves what is locked, and all but a folio's first
    page.
    """
    mm, page, frame = int(s.t_mm[t]), int(s.t_page[t]), int(s.t_frame[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    split_huge_pmd(s, t, k, mm, page)
    s.t_result[t] = BUSY
    mapped = ask_value(k, DEVICE_EXCLUSIVE) == MAPS_ITS_PAGE
    if not is_anon(s, frame) or has_flag(s, frame, PG_HUGETLB):
        s.t_result[t] = SEGV if mapped else BUSY  # EOPNOTSUPP
        return give_up(s, t)
    if mapped and locked_by_other(s, t, frame):
        return steps.BLOCKED
    tail = frame != compound_head(s, frame)
    if (tail and not mapped) or not trylock_page(s, t, frame):
        return give_up(s, t)
    return steps.EXCLUSIVE_REPLACE if mapped else steps.EXCLUSIVE_UNMAP


@helper
def set_exclusive_entry(s: State, mm: int, page: int, kept: int) -> None:
    """ptep_clear_flush(), make_device_exclusive_entry(): the page knows what the entry forgets."""
    pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
    if pte & PTE_DIRTY:
        set_flag(s, frame, PG_DIRTY)
    set_pte(s, mm, page, PTE_DEVICE_EXCLUSIVE | kept, frame)
    s.cost[COST_TLB_FLUSHES] += 1


@step(steps.EXCLUSIVE_UNMAP)
def exclusive_unmap(s: State, t: int, k: KernelRecord) -> int:
    """page_make_device_exclusive_one(): until v6.14 every mapping of the folio is taken away.

    The call is done if it came by the mapping that was meant, and that was writable.
    """
    folio, pages = int(s.t_frame[t]), int(s.nr_pages)
    found = find_mapping(s, folio, 0, 0)
    if found == NONE:
        return steps.EXCLUSIVE_END
    mm, page = found // pages, found % pages
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
    if mm == s.t_mm[t] and page == s.t_page[t] and pte & PTE_WRITE:
        s.t_result[t] = OK
    set_exclusive_entry(s, mm, page, pte & (PTE_WRITE | PTE_SOFT_DIRTY | PTE_UFFD_WP))
    page_remove_rmap(s, t, k, frame, mm, page)
    return steps.EXCLUSIVE_END if ask(s, t, k, RMAP_STOPS, folio) else steps.EXCLUSIVE_UNMAP


@step(steps.EXCLUSIVE_REPLACE)
def exclusive_replace(s: State, t: int, k: KernelRecord) -> int:
    """make_device_exclusive(): since v6.15 the one entry, if it still maps the page for writing.

    If not, all begins anew.
    """
    mm, page, frame = int(s.t_mm[t]), int(s.t_page[t]), int(s.t_frame[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    pte = pte_of(s, mm, page)
    writable = (pte & (PTE_PRESENT | PTE_WRITE | PTE_HUGE)) == PTE_PRESENT | PTE_WRITE
    if not writable or s.pte_to[mm, page] != frame:
        unlock_page(s, frame)
        ungrab(s, t)
        return steps.GUP_SLOW
    set_exclusive_entry(s, mm, page, PTE_MAPPED | (pte & PTE_SOFT_DIRTY))
    s.t_result[t] = OK
    return steps.EXCLUSIVE_END


@step(steps.EXCLUSIVE_END)
def exclusive_end(s: State, t: int, k: KernelRecord) -> int:
    """folio_make_device_exclusive(): done, if the page is not mapped any more, as far as known.

    The driver tells its device, unlocks the page and puts it (test_hmm: dmirror_exclusive()).
    """
    frame = int(s.t_frame[t])
    if ask_value(k, DEVICE_EXCLUSIVE) != MAPS_ITS_PAGE and ask(s, t, k, STILL_MAPPED, frame):
        s.t_result[t] = BUSY
    unlock_page(s, frame)
    return give_up(s, t)


# -- back to the processor -------------------------------------------------------------------------


@helper
def restore_exclusive_pte(s: State, t: int, k: KernelRecord, mm: int, page: int) -> None:
    """restore_exclusive_pte(): the page is mapped again, by the entry's own reference.

    Whether for writing is a rule; a page that is dirty makes a dirty entry then.
    """
    entry, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
    pte = PTE_PRESENT | (entry & (PTE_SOFT_DIRTY | PTE_UFFD_WP))
    if may_write(s, mm, page) and ask(s, t, k, DEVICE_RESTORES_WRITABLE, frame):
        pte |= PTE_WRITE
        if has_flag(s, frame, PG_DIRTY):
            pte |= PTE_DIRTY | PTE_SOFT_DIRTY
    if (entry & PTE_MAPPED) == 0:
        page_add_rmap(s, t, k, frame, mm, page)
    set_pte(s, mm, page, restore_none(s, mm, page, pte), frame)


@step(steps.EXCLUSIVE_FAULT)
def exclusive_fault(s: State, t: int, k: KernelRecord) -> int:
    """remove_device_exclusive_entry(): a reference first, unless the page is free by now.

    Some kernels go on without one.
    """
    frame = int(s.t_pte_to[t])
    s.t_frame[t] = frame
    if ask(s, t, k, DEVICE_FAULT_HOLDS, frame):
        if page_count(s, frame) == 0:
            return int(s.t_return[t])
        hold_frame(s, t, frame)
    return steps.EXCLUSIVE_RESTORE


@step(steps.EXCLUSIVE_RESTORE)
def exclusive_restore(s: State, t: int, k: KernelRecord) -> int:
    """remove_device_exclusive_entry(): lock the page; if the entry is the same, restore it.

    Before that the device is told (MMU_NOTIFY_EXCLUSIVE).  Nobody may lock a page that is free.
    """
    mm, page, frame = int(s.t_mm[t]), int(s.t_page[t]), int(s.t_frame[t])
    if locked_by_other(s, t, frame) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    if is_free(s, frame):
        breach(s, ALIVE)
    if pte_same(s, t, mm, page):
        restore_exclusive_pte(s, t, k, mm, page)
    if int(s.t_held[t]) & HOLD_FRAME:
        unhold(s, t, HOLD_FRAME)
        put_page(s, frame)
    return int(s.t_return[t])


# -- memory of a device ----------------------------------------------------------------------------


@helper
def can_be_device_memory(s: State, mm: int, page: int) -> bool:
    """migrate_vma_collect_pmd(): a small page of anonymous memory; here not one that KSM merged."""
    frame = int(s.pte_to[mm, page])
    if (pte_of(s, mm, page) & PTE_PRESENT) == 0 or not is_anon(s, frame):
        return False
    return not is_large(s, frame) and not is_ksm(s, frame)


@step(steps.MIGRATE_TO_DEVICE)
def migrate_to_device(s: State, t: int, k: KernelRecord) -> int:
    """migrate_vma_setup(): lock and isolate the page, if nobody has locked it; all batches drain.

    A huge page is split.  The machine does not fill holes in the device's memory, as kernels do.
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if not mmap_read_lock(s, t, mm) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    readable = (int(s.vma[mm, page]) & (VM_READ | VM_HUGETLB)) == VM_READ
    s.t_result[t] = BUSY if readable else SEGV  # EINVAL
    for cpu in range(NR_CPUS):
        lru_add_drain(s, cpu)
    if pte_of(s, mm, page) & PTE_HUGE and is_anon(s, int(s.pte_to[mm, page])):
        split_if_large(s, t, k, int(s.pte_to[mm, page]))
    following, frame = steps.IDLE, int(s.pte_to[mm, page])
    if readable and can_be_device_memory(s, mm, page) and trylock_page(s, t, frame):
        following = isolate(s, t, k, frame)
        if following == steps.IDLE:
            unlock_page(s, frame)
    if following == steps.IDLE:
        mmap_read_unlock(s, t, mm)
    return following


@helper
def mapping_is_locked(s: State, t: int, frame: int) -> bool:
    """Whether a page-table lock is taken of a process that maps `frame`."""
    pages = int(s.nr_pages)
    at = find_mapping(s, frame, 0, 0)
    while at != NONE:
        if ptl_taken(s, t, at // pages):
            return True
        at = find_mapping(s, frame, (at + 1) // pages, (at + 1) % pages)
    return False


@helper
def map_in_ram(
    s: State, t: int, k: KernelRecord, mm: int, page: int, new: int, alone: bool
) -> None:
    """try_to_migrate_one(), remove_migration_pte(): the entry as it was, but present and clean."""
    entry, old = pte_of(s, mm, page), int(s.pte_to[mm, page])
    page_remove_rmap(s, t, k, old, mm, page)
    put_page(s, old)
    kept = PTE_SOFT_DIRTY | PTE_UFFD_WP | (PTE_WRITE if may_write(s, mm, page) else 0)
    pte = restore_none(s, mm, page, PTE_PRESENT | (entry & kept))
    if entry & PTE_WRITE or (alone and ask(s, t, k, MIGRATION_EXCLUSIVE, new)):
        set_exclusive(s, k, new)
    page_ref_add(s, new, 1)
    page_add_rmap(s, t, k, new, mm, page)
    set_pte(s, mm, page, pte, new)


@step(steps.MIGRATE_TO_RAM)
def migrate_to_ram(s: State, t: int, k: KernelRecord) -> int:
    """dmirror_devmem_fault(): every mapping of the page gets a new page; then the access again.

    The migration is one step here, since nobody finds the page but by these entries.
    """
    mm, page, old = int(s.t_mm[t]), int(s.t_page[t]), int(s.t_pte_to[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    if not pte_same(s, t, mm, page):
        return int(s.t_return[t])
    if locked_by_other(s, t, old) or mapping_is_locked(s, t, old):
        return steps.BLOCKED
    new = alloc_frame(s)
    if new == NONE:
        return steps.IDLE  # the alarm is raised
    s.content[new] = s.content[old]
    s.cost[COST_COPIES] += 1
    s.frame_index[new] = s.frame_index[old]
    set_flag(s, new, int(s.page_flags[old]) & (PG_DIRTY | PG_LAZYFREE))
    alone, pages = is_exclusive(s, old), int(s.nr_pages)
    at = find_mapping(s, old, 0, 0)
    while at != NONE:
        map_in_ram(s, t, k, at // pages, at % pages, new, alone)
        at = find_mapping(s, old, (at + 1) // pages, (at + 1) % pages)
    s.cost[COST_TLB_FLUSHES] += 1
    lru_cache_add(s, t, new)
    put_page(s, new)
    return int(s.t_return[t])


# -- the device ------------------------------------------------------------------------------------


@helper
def device_has(s: State, mm: int, page: int) -> bool:
    """Whether the device may use the page: as long as no notifier has taken it away.

    The machine's device keeps it as long as the entry is there.
    """
    return (pte_of(s, mm, page) & PTE_DEVICE) != 0


@helper
def store_is_noticed(s: State, mm: int, page: int) -> bool:
    """Whether a notifier has told the device that it may not store any more.

    mprotect(), a userfaultfd, tracking by soft-dirty bits; fork, of a page in its own memory.
    """
    pte = pte_of(s, mm, page)
    if (pte & (PTE_DEVICE_PRIVATE | PTE_WRITE)) == PTE_DEVICE_PRIVATE:
        return True
    if not may_write(s, mm, page) or userfaultfd_pte_wp(s, mm, page, pte):
        return True
    return (int(s.vma[mm, page]) & VM_SOFTDIRTY) == 0 and (pte & PTE_SOFT_DIRTY) == 0


@step(steps.DEVICE_READ)
def device_read(s: State, t: int, k: KernelRecord) -> int:
    """A device's load (test_hmm: dmirror_do_read()): what its process would load."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    s.t_result[t] = BUSY
    if device_has(s, mm, page):
        value = int(s.content[int(s.pte_to[mm, page])])
        s.cost[COST_READS] += 1
        note_load(s, mm, page, value)
        s.t_result[t] = value
    return steps.IDLE


@step(steps.DEVICE_WRITE)
def device_write(s: State, t: int, k: KernelRecord) -> int:
    """A device's store (test_hmm: dmirror_do_write()), which counts as one of its process.

    The driver marks the page dirty.
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    s.t_result[t] = BUSY
    if device_has(s, mm, page) and not store_is_noticed(s, mm, page):
        frame, value = int(s.pte_to[mm, page]), int(s.t_value[t])
        s.content[frame] = value
        set_flag(s, frame, PG_DIRTY)
        s.cost[COST_WRITES] += 1
        note_store(s, mm, frame, value, False, False)
        s.t_result[t] = OK
    return steps.IDLE
