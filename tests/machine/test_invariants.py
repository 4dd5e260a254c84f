"""Representation invariants: every state between operations satisfies the written list.

The list follows the kernel's own rules: what a page-table entry, a mark, a count may be at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from library import checker, library, said_to_break
from pageherd.machine import state as st
from pageherd.machine.steps import IDLE
from pageherd.rules.choose import Kernel
from pageherd.search.explore import FIRST_CAPACITY, _Tables

KERNELS = ("linux-4.19", "linux-5.10", "linux-5.18", "linux-6.1", "linux-6.12", "linux-7.3")


def has_marks(kernel: Kernel) -> bool:
    return kernel.of("marks") == "anon-exclusive"


def is_of_file(s: Any, frame: int) -> bool:
    """The first page of a folio says it for all of them."""
    return bool(int(s["page_flags"][frame - int(s["frame_tail"][frame])]) & st.PG_FILE)


def entries(s: Any) -> Iterator[tuple[int, int, int, int]]:
    for mm in range(int(s["nr_mms"])):
        for page in range(int(s["nr_pages"])):
            yield mm, page, int(s["pte"][mm, page]), int(s["pte_to"][mm, page])


def violations(s: Any, kernel: Kernel) -> Iterator[str]:
    """What is wrong with the state, if anything."""
    yield from entry_violations(s, kernel)
    yield from frame_violations(s, kernel)
    yield from slot_violations(s)
    yield from pool_violations(s)
    yield from file_violations(s, kernel)
    yield from marker_violations(s)
    yield from quiet_violations(s)


def entry_violations(s: Any, kernel: Kernel) -> Iterator[str]:
    writers: dict[int, set[int]] = {}
    mappers: dict[int, set[int]] = {}
    for mm, page, pte, to in entries(s):
        if s["mm_state"][mm] != st.LIVE and pte:
            yield "a process that is not there maps something"
        if pte & st.PTE_PRESENT and pte & st.PTE_SWAP:
            yield "an entry is present and swapped"
        if pte and not int(s["vma"][mm, page]) & st.VM_MAPPED:
            yield "an entry without a mapping"
        vma = int(s["vma"][mm, page])
        hugetlb = bool(vma & st.VM_HUGETLB)
        if pte & st.PTE_WRITE and not vma & st.VM_WRITE and not hugetlb:
            yield "an entry is writable in a read-only mapping"
        tracked = not vma & st.VM_SOFTDIRTY and not pte & st.PTE_SOFT_DIRTY
        if pte & st.PTE_PRESENT and pte & st.PTE_WRITE and tracked and not hugetlb:
            yield "a write that is tracked would be missed"
        of_file = bool(pte & st.PTE_PRESENT and is_of_file(s, to))
        if pte & st.PTE_PRESENT and hugetlb != bool(int(s["page_flags"][to]) & st.PG_HUGETLB):
            yield "a hugetlb page outside a hugetlb mapping, or another page in one"
        if hugetlb and pte & st.PTE_SWAP:
            yield "a hugetlb page is swapped"
        if of_file and not vma & st.VM_FILE:
            yield "a page of the file in a mapping of no file"
        if of_file and pte & st.PTE_WRITE and not vma & st.VM_SHARED:
            yield "a page of the file is writable through a private mapping"
        if pte and to != st.ZERO_FRAME and not of_file and not vma & st.VM_ANON_VMA:
            yield "a page of one's own in a mapping without anon_vma"
        if vma & st.VM_ANON_VMA and not vma & st.VM_MAPPED:
            yield "an anon_vma without a mapping"
        if pte & st.PTE_SWP_EXCLUSIVE and s["swap_count"][to] != 1:
            yield "an exclusive swap entry is not the only one"
        if not pte & st.PTE_PRESENT:
            remembered = st.PTE_WRITE if pte & st.PTE_DEVICE else 0
            if pte & (st.PTE_WRITE | st.PTE_DIRTY) & ~remembered:
                yield "write or dirty bit in an entry that is not present"
            continue
        if to == st.ZERO_FRAME:
            if pte & st.PTE_WRITE:
                yield "the zero page is writable"
            continue
        if of_file:
            continue
        mappers.setdefault(to, set()).add(mm)
        if pte & st.PTE_WRITE:
            writers.setdefault(to, set()).add(mm)
            marked = to - int(s["frame_tail"][to]) if pte & st.PTE_HUGE else to
            if has_marks(kernel) and not int(s["page_flags"][marked]) & st.PG_EXCLUSIVE:
                yield "a writable page is not exclusive"
    for frame, who in writers.items():
        if mappers[frame] != who or len(who) > 1:
            yield "a writable page is mapped by another process"


def marker_violations(s: Any) -> Iterator[str]:
    """Guard regions, hwpoison entries, and pages that may be dropped."""
    mapped = st.PTE_PRESENT | st.PTE_SWAP | st.PTE_MIGRATION | st.PTE_DEVICE
    for mm, page, pte, to in entries(s):
        droppable = int(s["vma"][mm, page]) & st.VM_DROPPABLE
        if pte & st.PTE_GUARD and (pte & (mapped | st.PTE_HWPOISON) or to):
            yield "a guard region with a page"
        if pte & st.PTE_HWPOISON and pte & mapped:
            yield "a hwpoison entry that maps something"
        if pte & st.PTE_HWPOISON and not int(s["page_flags"][to]) & st.PG_HWPOISON:
            yield "a hwpoison entry of a page that is not poisoned"
        if droppable and pte & st.PTE_SWAP:
            yield "a droppable page is swapped"
        if droppable and pte & st.PTE_PRESENT and to != st.ZERO_FRAME:
            if not int(s["page_flags"][to - int(s["frame_tail"][to])]) & st.PG_LAZYFREE:
                yield "a droppable page is swapbacked"
    for frame in range(int(s["nr_frames"])):
        if int(s["page_flags"][frame]) & st.PG_HWPOISON and not s["refcount"][frame]:
            yield "a poisoned page is free"


def file_violations(s: Any, kernel: Kernel) -> Iterator[str]:
    pages = int(s["nr_pages"])
    cached = [int(frame) - 1 for frame in s["file_frame"][:pages] if frame]
    if len(set(cached)) != len(cached):
        yield "two pages of the file have one frame"
    for frame in range(int(s["nr_frames"])):
        if is_of_file(s, frame) != (frame in cached):
            yield "the page cache and the flags of its frames differ"
    for mm in range(int(s["nr_mms"])):
        for page in range(pages):
            vma = int(s["vma"][mm, page])
            if bool(vma & st.VM_FILE) != bool(s["vma_file"][mm, page]):
                yield "a mapping of a file without a place in it, or the other way round"
            guarded = kernel.of("guard") != "none"  # anon_vma_prepare(), of any mapping
            copied = vma & st.VM_HUGETLB and kernel.of("hugetlb-soft-dirty") == "noticed"
            if vma & st.VM_SHARED and vma & st.VM_ANON_VMA and not (guarded or copied):
                yield "a shared mapping with pages of its own"


def frame_violations(s: Any, kernel: Kernel) -> Iterator[str]:
    if int(s["page_flags"][st.ZERO_FRAME]) or s["mapcount"][st.ZERO_FRAME]:
        yield "the zero page is marked or counted"
    for frame in range(1, int(s["nr_frames"])):
        names = ("mapcount", "page_flags", "frame_lock", "frame_batch", "frame_slot", "content")
        head = frame - int(s["frame_tail"][frame])
        free = not s["refcount"][head] and not s["pincount"][head]
        order = int(s["frame_order"][head])
        if s["frame_order"][frame] != order or frame - head >= 1 << order or head % (1 << order):
            yield "a frame is outside its folio"
        if frame != head and (s["refcount"][frame] or s["pincount"][frame]):
            yield "a page that is not the first of its folio has counts of its own"
        if free and any(s[name][frame] for name in names):
            yield "a free frame is not clean"
        if free:
            continue
        kinds = st.PTE_PRESENT | st.PTE_MAPPED
        maps = sum(bool(p & kinds) and to == frame for _, _, p, to in entries(s))
        devmap = st.PG_FILE | st.PG_DEVMAP  # mappings of a DAX file's page hold nothing
        if maps > s["refcount"][head] and int(s["page_flags"][head]) & devmap != devmap:
            yield "more mappings than references"
        exclusive = int(s["page_flags"][frame]) & st.PG_EXCLUSIVE
        if exclusive and not has_marks(kernel):
            yield "a mark in a kernel that has none"
        if exclusive and maps > 1:
            yield "an exclusive page is mapped twice"
        of_device = int(s["page_flags"][head]) & st.PG_DEVICE and not is_of_file(s, frame)
        kinds = [
            p & (st.PTE_PRESENT | st.PTE_DEVICE_PRIVATE)
            for _, _, p, to in entries(s)
            if to == frame
        ]
        if any(kinds) and (st.PTE_DEVICE_PRIVATE in kinds) != bool(of_device):
            yield "a page of a device's memory is mapped as another one, or another one as such"
        slot = int(s["frame_slot"][frame]) - 1
        if exclusive and slot >= 0 and s["swap_count"][slot]:
            yield "a page is marked exclusive although a swap entry names it"
        if s["frame_lock"][frame] or int(s["page_flags"][frame]) & st.PG_ISOLATED:
            yield "a page is locked or isolated between operations"
        if s["frame_batch"][frame] and int(s["page_flags"][frame]) & st.PG_LRU:
            yield "a page is in a batch and on the LRU list"


def pool_violations(s: Any) -> Iterator[str]:
    if not s["hugetlb_pool"]:
        return
    frames = range(1, int(s["nr_frames"]))
    flags = [int(s["page_flags"][frame]) for frame in frames]
    of_pool = [one & st.PG_HUGETLB and not one & st.PG_TEMPORARY for one in flags]
    if s["hugetlb_free"] != s["hugetlb_pool"] - 1 - sum(map(bool, of_pool)):
        yield "a page of the pool is neither free nor in use"
    kinds = st.VM_HUGETLB | st.HPAGE_RESV_OWNER | st.RESV_USED
    pages = [(mm, page) for mm, page, _, _ in entries(s)]
    unused = [int(s["vma"][at]) & kinds == st.VM_HUGETLB | st.HPAGE_RESV_OWNER for at in pages]
    returning = [bool(one & st.PG_RESTORE_RESERVE) for one in flags]
    of_file = (s["file_reserved"] != 0) & (s["file_frame"] == 0)
    if s["hugetlb_resv"] != sum(unused) + sum(of_file) - sum(returning):
        yield "reservations are not those of the mappings that have not used theirs"
    if any(one & st.PG_TEMPORARY for one in flags):
        yield "a page from outside the pool stays"


def slot_violations(s: Any) -> Iterator[str]:
    for slot in range(int(s["nr_slots"])):
        cached = int(s["slot_frame"][slot])
        if cached and s["frame_slot"][cached - 1] != slot + 1:
            yield "the swap cache and its page disagree"
        if not cached and not s["swap_count"][slot] and s["slot_content"][slot]:
            yield "a free slot is not clean"


def quiet_violations(s: Any) -> Iterator[str]:
    registers = [name for name in s.dtype.names if name.startswith("t_")]
    for name in registers:
        if name not in ("t_cpu", "t_home") and s[name].any():
            yield f"register {name} is not zero between operations"
    for name in ("mm_writer", "mm_readers", "mm_ptl"):
        if s[name].any():
            yield f"{name} is held between operations"
    if (s["mm_seq"] % 2).any():
        yield "write_protect_seq is odd between operations"


def pin_violations(s: Any, kernel: Kernel) -> Iterator[str]:
    """A page pinned through an entry stays exclusive as long as it is mapped there."""
    if not has_marks(kernel):
        return
    for ref in range(len(s["ref_frame"])):
        frame, page = int(s["ref_frame"][ref]) - 1, int(s["ref_page"][ref]) - 1
        if frame <= 0 or page < 0 or not int(s["ref_flags"][ref]) & st.FOLL_PIN:
            continue
        mm = int(s["ref_mm"][ref])
        mapped = int(s["pte"][mm, page]) & st.PTE_PRESENT and s["pte_to"][mm, page] == frame
        if mapped and int(s["pte"][mm, page]) & st.PTE_HUGE:
            frame -= int(s["frame_tail"][frame])
        exclusive = int(s["page_flags"][frame]) & st.PG_EXCLUSIVE
        if mapped and not exclusive and not is_of_file(s, frame):
            yield "a pinned, mapped page is not exclusive"


@pytest.mark.parametrize("name", KERNELS)
def test_every_stored_state(name: str) -> None:
    kernel, table = checker().kernel(name)
    for chosen in library():
        if "exclusive" in said_to_break(chosen, name):
            continue
        program = checker().program(chosen)
        tables = _Tables(program, FIRST_CAPACITY)
        tables.search(program, table)
        stored = tables.states[: int(tables.summary[0])]
        by_step = program.by_step[np.minimum(stored["group"], len(program.by_step) - 1)] != 0
        inside = by_step & (stored["t_pc"] != IDLE).any(axis=1)  # of a path, in a group by step
        for state in stored[~inside]:
            wrong = [*violations(state, kernel), *pin_violations(state, kernel)]
            assert not wrong, (chosen.id, name)
