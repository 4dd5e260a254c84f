"""Locks that a path holds across steps: page-table locks, page locks, mmap_lock."""

from __future__ import annotations

from pageherd.machine.folio import compound_head
from pageherd.machine.jit import helper
from pageherd.machine.layout import State
from pageherd.machine.state import HOLD_MMAP


@helper
def ptl_taken(s: State, t: int, mm: int) -> bool:
    """Whether another thread holds the page-table lock of `mm` across steps."""
    holder = int(s.mm_ptl[mm])
    return holder != 0 and holder != t + 1


@helper
def trylock_page(s: State, t: int, frame: int) -> bool:
    """trylock_page(): the lock is the folio's."""
    head = compound_head(s, frame)
    if s.frame_lock[head] != 0:
        return False
    s.frame_lock[head] = t + 1
    return True


@helper
def unlock_page(s: State, frame: int) -> None:
    s.frame_lock[compound_head(s, frame)] = 0


@helper
def locked_by_other(s: State, t: int, frame: int) -> bool:
    holder = int(s.frame_lock[compound_head(s, frame)])
    return holder != 0 and holder != t + 1


@helper
def mmap_read_lock(s: State, t: int, mm: int) -> bool:
    """mmap_lock for reading, kept until `mmap_read_unlock`; false while a writer has it."""
    if int(s.t_held[t]) & HOLD_MMAP:
        return True
    if s.mm_writer[mm] != 0:
        return False
    s.mm_readers[mm] += 1
    s.t_held[t] = int(s.t_held[t]) | HOLD_MMAP
    return True


@helper
def mmap_read_unlock(s: State, t: int, mm: int) -> None:
    if int(s.t_held[t]) & HOLD_MMAP:
        s.mm_readers[mm] -= 1
        s.t_held[t] = int(s.t_held[t]) & ~HOLD_MMAP


@helper
def mmap_write_lock(s: State, t: int, mm: int) -> bool:
    """mmap_lock for writing; false while anyone else has it."""
    if s.mm_writer[mm] == t + 1:
        return True
    if s.mm_writer[mm] != 0 or s.mm_readers[mm] != 0:
        return False
    s.mm_writer[mm] = t + 1
    return True


@helper
def mmap_write_unlock(s: State, mm: int) -> None:
    s.mm_writer[mm] = 0
