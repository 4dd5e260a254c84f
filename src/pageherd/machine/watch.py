"""What the machine remembers of user space's expectations while it runs.

`want[mm, page]` is the value that a load of that page must give.  Stores update it, loads compare
with it, fork and mremap carry it along.  The promises that are broken by one particular step
(`private`, `own-writes`, `get-fork`, `alive`) are noticed here and set a bit in `broke`; those that
can be read off a state are checked in `pageherd.promises`.
"""

from __future__ import annotations

from typing import Final

from pageherd.machine.folio import has_flag
from pageherd.machine.jit import helper
from pageherd.machine.layout import State
from pageherd.machine.rmap import keeps_index
from pageherd.machine.state import (
    FOLL_GET,
    FOLL_LONGTERM,
    FOLL_PIN,
    FOLL_WRITE,
    LIVE,
    NONE,
    PG_FILE,
    PTE_DEVICE,
    PTE_MIGRATION,
    PTE_PRESENT,
    PTE_SWAP,
    REF_FORKED,
    REF_SHARED,
    ZERO_FRAME,
)

PRIVATE: Final = 0
OWN_WRITES: Final = 1
PIN_COHERENT: Final = 2
GET_FORK: Final = 3
ALIVE: Final = 4
NO_LEAK: Final = 5
COUNTS: Final = 6
EXCLUSIVE: Final = 7
PROGRESS: Final = 8

MEANINGLESS: Final = 1 << ALIVE | 1 << PROGRESS  # what follows such a breach


@helper
def breach(s: State, promise: int) -> None:
    """Note that the running step broke `promise`."""
    s.broke = int(s.broke) | (1 << promise)


@helper
def shows(s: State, mm: int, page: int, frame: int) -> bool:
    """Whether `page` of `mm` shows `frame`: mapped, in migration, or swapped and in the cache.

    Or a device has it for itself.
    """
    if int(s.pte[mm, page]) & (PTE_PRESENT | PTE_MIGRATION | PTE_DEVICE):
        return bool(s.pte_to[mm, page] == frame)
    if (int(s.pte[mm, page]) & PTE_SWAP) == 0 or s.frame_slot[frame] == 0:
        return False
    return bool(s.pte_to[mm, page] == s.frame_slot[frame] - 1)


@helper
def promised_to_follow(s: State, ref: int) -> bool:
    """Whether `ref` is a pin in user space's sense: FOLL_PIN, or long-term by whatever means."""
    return (int(s.ref_flags[ref]) & (FOLL_PIN | FOLL_LONGTERM)) != 0


@helper
def is_get_write(s: State, ref: int) -> bool:
    """Whether `ref` is a short-term FOLL_GET reference for writing (O_DIRECT read before 6.5)."""
    flags = int(s.ref_flags[ref])
    return (flags & FOLL_GET) != 0 and (flags & FOLL_WRITE) != 0 and (flags & FOLL_LONGTERM) == 0


@helper
def note_file_store(s: State, frame: int, value: int) -> None:
    """A store landed in the page cache: every mapping that still shows the file shows it.

    That is one that maps the frame, or maps nothing yet.
    """
    for mm in range(s.nr_mms):
        if s.mm_state[mm] != LIVE:
            continue
        for page in range(s.nr_pages):
            file = int(s.vma_file[mm, page])
            if file == 0 or s.file_frame[file - 1] != frame + 1:
                continue
            pte = int(s.pte[mm, page])
            if pte == 0 or (pte & PTE_PRESENT and s.pte_to[mm, page] == frame):
                s.want[mm, page] = value


@helper
def note_store(s: State, owner: int, frame: int, value: int, excused: bool, to_file: bool) -> None:
    """A store by `owner` landed in `frame`: who else could see it?

    `excused` is set for a store through a FOLL_GET write reference over which a fork went: that is
    `get-fork`, not `private`, since no kernel promises anything about it (open(2), O_DIRECT).
    `to_file` is set for a store through a shared mapping; any other must not reach the page cache.
    """
    if has_flag(s, frame, PG_FILE):
        if not to_file:
            breach(s, PRIVATE)
        note_file_store(s, frame, value)
        return
    for mm in range(s.nr_mms):
        if s.mm_state[mm] != LIVE:
            continue
        # a frame keeps its index unless pages were moved
        first = int(s.frame_index[frame]) if keeps_index(s, frame) else 0
        last = first + 1 if keeps_index(s, frame) else int(s.nr_pages)
        for page in range(first, last):
            if shows(s, mm, page, frame):
                if mm != owner:
                    breach(s, GET_FORK if excused else PRIVATE)
                s.want[mm, page] = value
                s.freed[mm, page] = 0
    for ref in range(s.ref_frame.shape[0]):
        if s.ref_frame[ref] == frame + 1 and s.ref_mm[ref] != owner:
            if (int(s.ref_state[ref]) & REF_SHARED) == 0:
                breach(s, GET_FORK if excused else PRIVATE)
    if frame == ZERO_FRAME:
        breach(s, PRIVATE)


@helper
def note_load(s: State, mm: int, page: int, value: int) -> None:
    """A load gave `value`: `own-writes` wants the last value stored there."""
    if value != s.want[mm, page]:
        breach(s, OWN_WRITES)
        s.want[mm, page] = value


@helper
def note_fork(s: State, parent: int, child: int, page: int, shared: bool) -> None:
    """The child starts with the parent's value; a FOLL_GET write reference may go stale."""
    s.want[child, page] = s.want[parent, page]
    s.freed[child, page] = s.freed[parent, page]
    if not shared:
        return
    for ref in range(s.ref_frame.shape[0]):
        if s.ref_frame[ref] != 0 and s.ref_mm[ref] == parent and s.ref_page[ref] == page + 1:
            if is_get_write(s, ref):
                s.ref_state[ref] = int(s.ref_state[ref]) | REF_FORKED


@helper
def detach(s: State, mm: int, page: int) -> None:
    """The owner unmapped, discarded or overmapped the page: its references follow it no more."""
    for ref in range(s.ref_frame.shape[0]):
        if s.ref_frame[ref] != 0 and s.ref_mm[ref] == mm and s.ref_page[ref] == page + 1:
            s.ref_page[ref] = 0


@helper
def move_attached(s: State, mm: int, page: int, to: int) -> None:
    """mremap carries the references of a page along."""
    for ref in range(s.ref_frame.shape[0]):
        if s.ref_frame[ref] != 0 and s.ref_mm[ref] == mm and s.ref_page[ref] == page + 1:
            s.ref_page[ref] = to + 1


@helper
def attached_page(s: State, ref: int) -> int:
    """The page of its owner that a reference is attached to, or NONE."""
    mm = int(s.ref_mm[ref])
    if s.ref_frame[ref] == 0 or s.mm_state[mm] != LIVE or s.ref_page[ref] == 0:
        return NONE
    return int(s.ref_page[ref]) - 1
