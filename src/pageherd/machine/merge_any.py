"""KSM of all that a process maps, now and later: prctl(PR_SET_MEMORY_MERGE), ksm_enable_merge_any.

`mm_merge_any` is MMF_VM_MERGE_ANY, which fork hands on.
"""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.anon_vma import vma_end, vma_start
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.ksm import breaks
from pageherd.machine.layout import State
from pageherd.machine.lock import mmap_write_lock, mmap_write_unlock, ptl_taken
from pageherd.machine.questions import KSM_NEW_VMAS, MARKED_FIRST
from pageherd.machine.state import (
    OK,
    SEGV,
    VM_HUGETLB,
    VM_MAPPED,
    VM_MERGEABLE,
    VM_SHARED,
    ask_value,
)


@helper
def ksm_add_vma(s: State, mm: int, page: int) -> None:
    """__ksm_add_vma(): private mappings, but not of hugetlb."""
    vma = int(s.vma[mm, page])
    if vma & VM_MAPPED and (vma & (VM_SHARED | VM_HUGETLB)) == 0:
        s.vma[mm, page] = vma | VM_MERGEABLE


@helper
def mark_new_vma(s: State, k: KernelRecord, mm: int, first: int, end: int, merged: bool) -> None:
    """ksm_vma_flags() before it is looked for a VMA to merge with, ksm_add_vma() afterwards.

    What has become part of another VMA has the flags of that one.
    """
    if s.mm_merge_any[mm] == 0 or (ask_value(k, KSM_NEW_VMAS) == MARKED_FIRST) == merged:
        return
    tracked = s.nr_huge > 1
    joined = tracked and (vma_start(s, mm, first) != first or vma_end(s, mm, end - 1) != end)
    if merged and joined:
        return
    for page in range(first, end):
        ksm_add_vma(s, mm, page)


@step(steps.MERGE_ANY)
def merge_any(s: State, t: int, k: KernelRecord) -> int:
    """ksm_enable_merge_any(): every mapping is mergeable; no VMAs are joined by that."""
    mm = int(s.t_mm[t])
    if not mmap_write_lock(s, t, mm):
        return steps.BLOCKED
    s.t_result[t] = SEGV  # EINVAL
    if ask_value(k, KSM_NEW_VMAS) != 0:
        s.t_result[t] = OK
        if s.mm_merge_any[mm] == 0:
            for page in range(s.nr_pages):
                ksm_add_vma(s, mm, page)
        s.mm_merge_any[mm] = 1
    mmap_write_unlock(s, mm)
    return steps.IDLE


@step(steps.UNMERGE_ANY)
def unmerge_any(s: State, t: int, k: KernelRecord) -> int:
    """ksm_disable_merge_any(): every KSM page becomes private, then no mapping is mergeable."""
    mm = int(s.t_mm[t])
    if not mmap_write_lock(s, t, mm) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    s.t_result[t] = OK if ask_value(k, KSM_NEW_VMAS) != 0 else SEGV
    if s.mm_merge_any[mm] != 0:
        for page in range(s.nr_pages):
            if breaks(s, t, k, mm, page):
                s.t_return[t] = steps.UNMERGE_ANY
                return steps.FAULT
        for page in range(s.nr_pages):
            if (int(s.vma[mm, page]) & VM_HUGETLB) == 0:
                s.vma[mm, page] = int(s.vma[mm, page]) & ~VM_MERGEABLE
        s.mm_merge_any[mm] = 0
    mmap_write_unlock(s, mm)
    return steps.IDLE
