"""Loads and stores of user space: the hardware walks the page table, a fault helps it on."""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.huge import set_entry, touch_written
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.lock import mmap_read_lock, mmap_read_unlock
from pageherd.machine.pte import is_shared, pte_of, range_mapped
from pageherd.machine.questions import POPULATE_SKIPS
from pageherd.machine.state import (
    COST_READS,
    COST_WRITES,
    FAULT_TOUCH,
    FAULT_WRITE,
    NONE,
    OK,
    PTE_DIRTY,
    PTE_PRESENT,
    PTE_PROTNONE,
    PTE_SOFT_DIRTY,
    PTE_WRITE,
    SEGV,
    VM_MAPPED,
    VM_READ,
    VM_WRITE,
    ask,
)
from pageherd.machine.tlb import stale_frame
from pageherd.machine.watch import note_load, note_store


@helper
def store(s: State, t: int, mm: int, page: int, frame: int) -> None:
    """The value arrives in the frame."""
    s.content[frame] = s.t_value[t]
    s.cost[COST_WRITES] += 1
    note_store(s, mm, frame, int(s.t_value[t]), False, is_shared(s, mm, page))
    s.t_result[t] = OK


@helper
def skips_hole(s: State, t: int, k: KernelRecord, mm: int, page: int) -> bool:
    """madvise_walk_vmas(): populate goes on behind what is not mapped; some kernels end there."""
    touched = (int(s.t_fault[t]) & FAULT_TOUCH) != 0
    hole = touched and (int(s.vma[mm, page]) & VM_MAPPED) == 0
    return bool(hole and ask(s, t, k, POPULATE_SKIPS, 0))


@helper
def next_access(s: State, t: int) -> int:
    """Turn to the next page of the range."""
    page = int(s.t_page[t]) + 1
    s.t_page[t] = page
    return steps.ACCESS if page < s.t_end[t] else steps.IDLE


@step(steps.ACCESS)
def access(s: State, t: int, k: KernelRecord) -> int:
    """One load or store for each page, repeated after each fault until the entry allows it.

    The processor looks at the entry alone: where it is writable, it is written.  To the processor
    an entry that waits for a NUMA hinting fault is none.
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    write = (int(s.t_fault[t]) & FAULT_WRITE) != 0
    pte = pte_of(s, mm, page)
    if pte & PTE_PROTNONE:
        pte = 0
    allowed = int(s.vma[mm, page]) & (VM_WRITE if write else VM_READ)
    if not allowed and not (write and pte & PTE_WRITE):
        mmap_read_unlock(s, t, mm)
        s.t_result[t] = SEGV
        return next_access(s, t) if skips_hole(s, t, k, mm, page) else steps.IDLE
    if (pte & PTE_PRESENT) == 0 or (write and (pte & PTE_WRITE) == 0):
        if not mmap_read_lock(s, t, mm):
            return steps.BLOCKED
        s.t_return[t] = steps.ACCESS
        return steps.FAULT
    mmap_read_unlock(s, t, mm)
    frame = int(s.pte_to[mm, page])
    if int(s.t_fault[t]) & FAULT_TOUCH:
        if write:
            touch_written(s, mm, page)
        s.t_result[t] = OK if range_mapped(s, t, mm) else SEGV  # ENOMEM, once the rest is done
    elif write:
        set_entry(s, mm, page, pte | PTE_DIRTY | PTE_SOFT_DIRTY)
        store(s, t, mm, page, frame)
    else:
        s.cost[COST_READS] += 1
        note_load(s, mm, page, int(s.content[frame]))
        s.t_result[t] = s.content[frame]
    return next_access(s, t)


@step(steps.STALE_STORE)
def stale_store(s: State, t: int, k: KernelRecord) -> int:
    """A store by a processor that has kept the page's entry in its TLB, if that is not flushed.

    It looks at no entry and takes no fault.  After the flush it is a store as any other.
    """
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    frame = stale_frame(s, mm, page)
    if frame == NONE:
        return steps.ACCESS
    store(s, t, mm, page, frame)
    return steps.IDLE
