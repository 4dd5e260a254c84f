"""The state of the machine: one NumPy structured record of fixed-shape arrays.

A *layout* fixes the sizes.  `TEST` holds every test of the library, `SIMULATE` millions of frames;
the same step functions are compiled once for each.  What follows `FIRST_COST` are running totals
(copies, atomics, rmap steps, ...): they never decide anything and take no part in comparing states.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

State: TypeAlias = Any
"""One record of `dtype(layout)`: `s.refcount[frame]`, `s.pte[mm, page]`, `s.t_pc[thread]`, ..."""

States: TypeAlias = npt.NDArray[Any]
"""An array of state records; compiled drivers take the array and an index."""

COSTS: Final = (
    "faults",
    "copies",
    "atomics",
    "rmap_steps",
    "tlb_flushes",
    "reads",
    "writes",
)
"""Running totals, in the order of the field `cost`."""

FIRST_COST: Final = "cost"


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of one layout; `index` is the dtype that holds frame, slot and page numbers."""

    name: str
    mms: int
    pages: int
    threads: int
    frames: int
    slots: int
    refs: int
    registers: int
    index: str = "i2"
    free_list: bool = False
    large: bool = False  # whether folios may have several frames
    vma: str = "u2"  # holds the VM_ flags; those beyond 16 bits are of no hunt


TEST: Final = Layout(
    "test",
    mms=6,
    pages=8,
    threads=9,
    frames=80,
    slots=8,
    refs=8,
    registers=16,
    large=True,
    vma="u4",
)


SIMULATE: Final = Layout(
    "simulate",
    mms=4,
    pages=1 << 20,
    threads=9,
    frames=(1 << 21) + 2,
    slots=1 << 20,
    refs=8,
    registers=16,
    index="i4",
    free_list=True,
    vma="u4",
)
"""For workloads: a million virtual pages in each of four processes, two million frames."""

HUNT: Final = Layout(
    "hunt", mms=3, pages=2, threads=1, frames=14, slots=2, refs=2, registers=1, index="i1"
)
"""For hunts: as little as the scope (3, 2, 2, 2) needs, since one record is copied per step."""

FOLIO: Final = Layout(
    "folio",
    mms=2,
    pages=2,
    threads=1,
    frames=22,
    slots=2,
    refs=1,
    registers=1,
    index="i1",
    large=True,
)
"""For hunts with large folios: every entry may map one page of another folio of two."""


@cache
def dtype(layout: Layout) -> np.dtype[Any]:
    """The structured dtype of `layout`, fields in order: machine, threads, ghosts, observations."""
    per_mm = (layout.mms,)
    per_page = (layout.mms, layout.pages)
    per_frame = (layout.frames,)
    per_slot = (layout.slots,)
    per_ref = (layout.refs,)
    per_thread = (layout.threads,)
    index = layout.index
    per_large = (layout.frames if layout.large else 1,)
    fields: list[tuple[Any, ...]] = [
        # how much of the layout is in use, and the swap device
        ("nr_mms", "i2"),
        ("nr_pages", "i4"),
        ("nr_frames", "i4"),
        ("nr_slots", "i4"),
        ("nr_huge", "i2"),
        ("rest_pages", "i2"),  # what the last page of a large folio stands for; 0 or 1: for itself
        ("swap_kind", "u1"),
        ("swap_stable_writes", "u1"),
        ("anon_order", "u1"),  # of the folios that a first touch allocates; 0: a PMD's
        ("swap_in_pieces", "u1"),  # a swap file: no large folio lies there in one piece
        ("file_kind", "u1"),
        ("batch_limit", "u1"),
        # the pool of hugetlb pages: its size plus 1 (0: as many as it takes), what is free of it,
        # and how many reservations are to be honoured
        ("hugetlb_pool", "u1"),
        ("hugetlb_free", "i2"),
        ("hugetlb_resv", "i2"),
        ("moved", "u1"),
        ("free_head", index),
        # processes
        ("mm_state", "u1", per_mm),
        ("mm_has_pinned", "u1", per_mm),
        ("mm_family", "u1", per_mm),
        ("mm_parent", "u1", per_mm),  # plus 1; 0: not forked
        ("mm_seq", "u1", per_mm),
        ("mm_writer", "u1", per_mm),
        ("mm_readers", "u1", per_mm),
        ("mm_ptl", "u1", per_mm),
        ("mm_uffd", "u1", per_mm),
        ("mm_merge_any", "u1", per_mm),
        # ksm_merging_pages, and how many of them the process had from its parent
        ("mm_merging", "u1", per_mm),
        ("mm_merging_at_fork", "u1", per_mm),
        # mappings and page tables
        ("vma", layout.vma, per_page),
        ("vma_anon", "u1", per_page if layout.large else (1, 1)),
        ("pte", "u2", per_page),
        ("pte_to", index, per_page),
        # the file: its page that is mapped (plus 1), the frames of its page cache (plus 1), its
        # content on disk; and of hugetlb the pages that it has reserved
        ("vma_file", index, per_page),
        ("file_frame", index, (layout.pages,)),
        ("file_content", "i4", (layout.pages,)),
        ("file_reserved", "u1", (layout.pages,)),
        # frames
        ("refcount", "i2", per_frame),
        ("pincount", "i2", per_frame),
        ("mapcount", "i2", per_frame),
        ("page_flags", "u2", per_frame),
        ("frame_lock", "u1", per_frame),
        ("frame_batch", "u1", per_frame),
        ("frame_slot", index, per_frame),
        ("frame_index", index, per_frame),
        ("frame_family", "u1", per_frame),
        ("content", "i4", per_frame),
        # folios of several frames: each knows its place in its folio and the folio's order; the
        # head has the counts of the whole
        ("frame_tail", "u1", per_large),
        ("frame_order", "u1", per_large),
        ("entire_mapcount", "i2", per_large),
        ("large_mapcount", "i2", per_large),
        ("mm_id", "u1", (*per_large, 2)),
        ("mm_id_mapcount", "i2", (*per_large, 2)),
        ("free_next", index, (layout.frames if layout.free_list else 1,)),
        # swap slots
        ("swap_count", "i2", per_slot),
        ("slot_frame", index, per_slot),
        ("slot_claim", "u1", per_slot),
        ("slot_ksm", "u1", per_slot),
        ("slot_content", "i4", per_slot),
        # references and pins
        ("ref_frame", index, per_ref),
        ("ref_times", "i2", per_ref),
        ("ref_flags", "u1", per_ref),
        ("ref_mm", "u1", per_ref),
        ("ref_page", index, per_ref),
        ("ref_state", "u1", per_ref),
        # threads: program counter, the mm they work on, and the registers of the running path
        ("t_pc", "i2", per_thread),
        ("t_return", "i2", per_thread),
        ("t_register", "u1", per_thread),
        ("t_home", "u1", per_thread),
        ("t_cpu", "u1", per_thread),
        ("t_mm", "u1", per_thread),
        ("t_page", index, per_thread),
        ("t_first", index, per_thread),
        ("t_end", index, per_thread),
        ("t_other", index, per_thread),
        ("t_fault", "u1", per_thread),
        ("t_foll", "u1", per_thread),
        ("t_frame", index, per_thread),
        ("t_new", index, per_thread),
        ("t_held", "u1", per_thread),
        ("t_pte", "u2", per_thread),
        ("t_pte_to", index, per_thread),
        ("t_seq", "u1", per_thread),
        ("t_ref", "u1", per_thread),
        ("t_value", "i4", per_thread),
        ("t_result", "i4", per_thread),
        ("t_rmap_mm", "u1", per_thread),
        ("t_rmap_page", index, per_thread),
        # what user space is promised: the value each page must show
        ("want", "i4", per_page),
        ("freed", "u1", per_page),  # or zero, since MADV_FREE and as long as nobody stores
        # the model's own alarms
        ("broke", "i4"),
        ("alarm", "i4"),
        # observations of a test: registers, the copies made, and how far the program has run
        ("reg", "i4", (layout.registers,)),
        ("copies", "i4"),
        ("group", "i2"),
        ("done", "i8"),
        (FIRST_COST, "i8", (len(COSTS),)),
    ]
    return np.dtype(fields, align=True)


def words_compared(layout: Layout) -> int:
    """Bytes of a record that identify a state: everything before the running totals."""
    fields = dtype(layout).fields
    assert fields is not None
    return int(fields[FIRST_COST][1])
