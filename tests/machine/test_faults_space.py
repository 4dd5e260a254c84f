"""Planted faults in guard regions, droppable memory, memory failure, and tracking of access."""

from __future__ import annotations

from typing import Any

import pytest

from pageherd.machine import state as st
from pageherd.machine import steps
from pageherd.machine.zap import GUARD, KEEP
from planted import StepFunction, caught, contradicted, sound

KERNELS = ("linux-6.18", "linux-7.3")

_zap = sound(steps.ZAP)
_unguard = sound(steps.UNGUARD)
_fault = sound(steps.FAULT)
_fork = sound(steps.FORK_PAGE)
_protect = sound(steps.UFFD_PROTECT)
_mmap = sound(steps.MMAP)
_droppable = sound(steps.MMAP_DROPPABLE)
_unmap = sound(steps.RECLAIM_UNMAP)
_mlock = sound(steps.MADVISE)
_failure = sound(steps.MEMORY_FAILURE)
_failed = sound(steps.MEMORY_FAILURE_END)
_unmap_failed = sound(steps.MEMORY_FAILURE_UNMAP)
_lookup = sound(steps.SWAPIN_LOOKUP)
_offline = sound(steps.SOFT_OFFLINE)
_mremap = sound(steps.MREMAP_MOVE)
_swapoff = sound(steps.SWAPOFF)
_rwprotect = sound(steps.UFFD_RWPROTECT)
_swapin = sound(steps.SWAPIN_MAP)
_early = sound(steps.FORK_COPY)


# -- guard regions ---------------------------------------------------------------------------------


def guard_only_discards(s: Any, t: int, k: Any) -> int:
    if s.t_value[t] == GUARD:
        s.t_value[t] = KEEP
    return _zap(s, t, k)


def dontneed_drops_guards(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    if s.t_value[t] == KEEP and page < s.t_other[t] and s.pte[mm, page] & st.PTE_GUARD:
        s.pte[mm, page] = 0
    return _zap(s, t, k)


def unguard_forgets_every_entry(s: Any, t: int, k: Any) -> int:
    mm = s.t_mm[t]
    following = _unguard(s, t, k)
    for page in range(s.t_first[t], s.t_end[t]):
        s.pte[mm, page] = 0
        s.pte_to[mm, page] = 0
    return following


def unguard_does_nothing(s: Any, t: int, k: Any) -> int:
    s.t_result[t] = st.OK
    return steps.IDLE


def access_ignores_guards(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    if s.pte[mm, page] & st.PTE_GUARD:
        s.pte[mm, page] = 0
    return _fault(s, t, k)


def fork_forgets_guards(s: Any, t: int, k: Any) -> int:
    mm, child, page = s.t_mm[t], s.t_other[t], s.t_page[t]
    following = _fork(s, t, k)
    if page < s.nr_pages and s.pte[mm, page] & st.PTE_GUARD:
        s.pte[child, page] = 0
    return following


def protecting_covers_guards(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    if s.pte[mm, page] & st.PTE_GUARD:
        s.pte[mm, page] = 0
    return _protect(s, t, k)


# -- droppable memory ------------------------------------------------------------------------------


def droppable_is_ordinary(s: Any, t: int, k: Any) -> int:
    following = _droppable(s, t, k)
    s.t_fault[t] = 0
    return following


def droppable_is_inherited(s: Any, t: int, k: Any) -> int:
    following = _mmap(s, t, k)
    for page in range(s.t_first[t], s.t_end[t]):
        s.vma[s.t_mm[t], page] &= 65535 + st.VM_DROPPABLE - st.VM_WIPEONFORK
    return following


def reclaim_drops_what_is_held(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    for mm in range(s.nr_mms):
        for page in range(s.nr_pages):
            mapped = s.pte[mm, page] & st.PTE_PRESENT and s.pte_to[mm, page] == frame
            if mapped and s.vma[mm, page] & st.VM_DROPPABLE and frame != 0:
                s.pte[mm, page] = 0
                s.pte_to[mm, page] = 0
                s.mapcount[frame] -= 1
                s.refcount[frame] -= 1
    return _unmap(s, t, k)


def mlock_locks_everything(s: Any, t: int, k: Any) -> int:
    following = _mlock(s, t, k)
    mm, page = s.t_mm[t], s.t_first[t]
    if s.t_value[t] & st.VM_LOCKED and s.vma[mm, page]:
        s.vma[mm, page] |= st.VM_LOCKED
    return following


# -- memory failure --------------------------------------------------------------------------------


def poison_takes_one_mapping(s: Any, t: int, k: Any) -> int:
    _unmap_failed(s, t, k)
    return steps.MEMORY_FAILURE_END


def poison_is_put(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    following = _failed(s, t, k)
    s.refcount[frame] -= 1
    return following


def poison_is_not_marked(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    following = _failure(s, t, k)
    s.page_flags[frame] &= 65535 - st.PG_HWPOISON
    return following


def poison_in_swap_cache_is_mapped(s: Any, t: int, k: Any) -> int:
    cached = s.slot_frame[s.t_pte_to[t]]
    if cached != 0:
        s.page_flags[cached - 1] &= 65535 - st.PG_HWPOISON
    return _lookup(s, t, k)


def access_ignores_poison(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    if s.pte[mm, page] & st.PTE_HWPOISON:
        s.pte[mm, page] = 0
    return _fault(s, t, k)


def fork_forgets_poison(s: Any, t: int, k: Any) -> int:
    mm, child, page = s.t_mm[t], s.t_other[t], s.t_page[t]
    following = _fork(s, t, k)
    if page < s.nr_pages and s.pte[mm, page] & st.PTE_HWPOISON:
        s.pte[child, page] = 0
    return following


def mremap_forgets_poison(s: Any, t: int, k: Any) -> int:
    mm = s.t_mm[t]
    for page in range(s.t_first[t], s.t_end[t]):
        if s.pte[mm, page] & (st.PTE_HWPOISON | st.PTE_GUARD):
            s.pte[mm, page] = 0
    return _mremap(s, t, k)


def offline_forgets_a_reference(s: Any, t: int, k: Any) -> int:
    frame = s.t_frame[t]
    following = _offline(s, t, k)
    if frame != st.ZERO_FRAME:
        s.refcount[frame] += 1
    return following


def swapoff_maps_poison(s: Any, t: int, k: Any) -> int:
    for frame in range(1, s.nr_frames):
        if s.frame_slot[frame] != 0:
            s.page_flags[frame] &= 65535 - st.PG_HWPOISON
    return _swapoff(s, t, k)


# -- userfaultfd that tracks all access, khugepaged ------------------------------------------------


def access_is_not_told(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    if s.vma[mm, page] & st.VM_UFFD_RWP:
        s.pte[mm, page] &= 65535 - st.PTE_UFFD_WP
    return _fault(s, t, k)


def protecting_leaves_access(s: Any, t: int, k: Any) -> int:
    mm, page, on = s.t_mm[t], s.t_page[t], s.t_value[t]
    following = _rwprotect(s, t, k)
    if on:
        s.pte[mm, page] &= 65535 - st.PTE_PROTNONE
    return following


def swapping_in_gives_access(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    following = _swapin(s, t, k)
    s.pte[mm, page] &= 65535 - st.PTE_PROTNONE
    return following


def early_copy_gives_access(s: Any, t: int, k: Any) -> int:
    child, page = s.t_other[t], s.t_page[t]
    following = _early(s, t, k)
    s.pte[child, page] &= 65535 - st.PTE_PROTNONE
    return following


def khugepaged_has_no_limits(s: Any, t: int, k: Any) -> int:
    return steps.COLLAPSE


BREAKS_A_PROMISE: dict[str, tuple[int, StepFunction]] = {
    "unguard": (steps.UNGUARD, unguard_forgets_every_entry),
    "held": (steps.RECLAIM_UNMAP, reclaim_drops_what_is_held),
    "put": (steps.MEMORY_FAILURE_END, poison_is_put),
    "mark": (steps.MEMORY_FAILURE, poison_is_not_marked),
    "offline": (steps.SOFT_OFFLINE, offline_forgets_a_reference),
}

CONTRADICTS_A_CLAIM: dict[str, tuple[int, StepFunction]] = {
    "guard": (steps.ZAP, guard_only_discards),
    "dontneed": (steps.ZAP, dontneed_drops_guards),
    "remove": (steps.UNGUARD, unguard_does_nothing),
    "guarded-access": (steps.FAULT, access_ignores_guards),
    "guarded-fork": (steps.FORK_PAGE, fork_forgets_guards),
    "guarded-uffd": (steps.UFFD_PROTECT, protecting_covers_guards),
    "ordinary": (steps.MMAP_DROPPABLE, droppable_is_ordinary),
    "inherited": (steps.MMAP, droppable_is_inherited),
    "locked": (steps.MADVISE, mlock_locks_everything),
    "one-mapping": (steps.MEMORY_FAILURE_UNMAP, poison_takes_one_mapping),
    "swap-cache": (steps.SWAPIN_LOOKUP, poison_in_swap_cache_is_mapped),
    "poisoned-access": (steps.FAULT, access_ignores_poison),
    "poisoned-fork": (steps.FORK_PAGE, fork_forgets_poison),
    "mremap": (steps.MREMAP_MOVE, mremap_forgets_poison),
    "swapoff": (steps.SWAPOFF, swapoff_maps_poison),
    "tracked-access": (steps.FAULT, access_is_not_told),
    "tracking": (steps.UFFD_RWPROTECT, protecting_leaves_access),
    "tracked-swap": (steps.SWAPIN_MAP, swapping_in_gives_access),
    "tracked-fork": (steps.FORK_COPY, early_copy_gives_access),
    "khugepaged": (steps.KHUGEPAGED, khugepaged_has_no_limits),
}


@pytest.mark.parametrize("name", BREAKS_A_PROMISE)
def test_a_fault_breaks_a_promise(name: str) -> None:
    assert caught(*BREAKS_A_PROMISE[name], KERNELS)


@pytest.mark.parametrize("name", CONTRADICTS_A_CLAIM)
def test_a_fault_contradicts_a_claim(name: str) -> None:
    assert contradicted(*CONTRADICTS_A_CLAIM[name], KERNELS)
