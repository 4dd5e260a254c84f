"""`no-leak`: end everything that can end, then look what is left."""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.drive import run_path
from pageherd.machine.file import drop_page_cache
from pageherd.machine.folio import clear_flag, compound_head, has_flag
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.lru import lru_add_drain
from pageherd.machine.state import LIVE, NR_CPUS, PG_HWPOISON, PG_WRITEBACK
from pageherd.machine.watch import NO_LEAK, breach
from pageherd.machine.zap import TAKE_OVER


@helper
def exit_process(s: State, k: KernelRecord, mm: int) -> None:
    """The process ends, as by the verb `exit`."""
    s.t_pc[0] = steps.ZAP
    s.t_return[0] = steps.EXIT
    s.t_mm[0] = mm
    s.t_page[0] = 0
    s.t_other[0] = s.nr_pages
    s.t_value[0] = TAKE_OVER
    run_path(s, k, 0)


@helper
def release_reference(s: State, k: KernelRecord, ref: int) -> None:
    """The reference is released, as by the verb `release`."""
    s.t_pc[0] = steps.RELEASE
    s.t_ref[0] = ref
    run_path(s, k, 0)


@helper
def reclaim_frame(s: State, k: KernelRecord, frame: int) -> None:
    """One pass of reclaim over the frame, as by the verb `reclaim`."""
    s.t_pc[0] = steps.RECLAIM_ISOLATE
    s.t_frame[0] = frame
    run_path(s, k, 0)


@helper
def check_leaks(s: State, k: KernelRecord) -> None:
    """Tear everything down (the state is consumed) and note a breach if anything is left.

    Reclaim passes twice over a page that was dirty: once to write it, once to drop it.
    """
    for mm in range(s.nr_mms):
        if s.mm_state[mm] == LIVE:
            exit_process(s, k, mm)
    for ref in range(s.ref_frame.shape[0]):
        if s.ref_frame[ref] != 0:
            release_reference(s, k, ref)
    for cpu in range(NR_CPUS):
        lru_add_drain(s, cpu)
    drop_page_cache(s)
    for frame in range(1, s.nr_frames):
        for _ in range(2):
            clear_flag(s, frame, PG_WRITEBACK)
            poisoned = has_flag(s, frame, PG_HWPOISON)
            if s.refcount[compound_head(s, frame)] != 0 and not poisoned:
                reclaim_frame(s, k, frame)
    if s.alarm != 0:  # what cannot even be torn down is not given back
        breach(s, NO_LEAK)
    for frame in range(1, s.nr_frames):
        kept = int(has_flag(s, frame, PG_HWPOISON))  # a poisoned page never comes back
        if s.refcount[frame] != kept or s.pincount[frame] != 0:
            breach(s, NO_LEAK)
    if s.hugetlb_pool != 0 and (s.hugetlb_free != s.hugetlb_pool - 1 or s.hugetlb_resv != 0):
        breach(s, NO_LEAK)
    for slot in range(s.nr_slots):
        if s.swap_count[slot] != 0 or s.slot_frame[slot] != 0:
            breach(s, NO_LEAK)
