"""The LRU lists: pages put on them through per-CPU batches, taken off, and batches drained."""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.folio import (
    clear_flag,
    has_flag,
    hold_frame,
    is_large,
    page_ref_add,
    put_page,
    set_flag,
)
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.state import NR_CPUS, OK, PG_ISOLATED, PG_LRU


@helper
def lru_cache_add(s: State, t: int, frame: int) -> None:
    """lru_cache_add(): into this CPU's batch, which holds a reference until it is drained.

    A large folio makes the batch drain at once: it is on the list when this returns.
    """
    if s.batch_limit == 0 or is_large(s, frame):
        if s.batch_limit != 0:
            lru_add_drain(s, int(s.t_cpu[t]))
        set_flag(s, frame, PG_LRU)
        return
    cpu = int(s.t_cpu[t])
    waiting = 0
    for other in range(1, s.nr_frames):
        if s.frame_batch[other] == cpu + 1:
            waiting += 1
    if waiting >= s.batch_limit:
        lru_add_drain(s, cpu)
    s.frame_batch[frame] = cpu + 1
    page_ref_add(s, frame, 1)


@helper
def lru_add_drain(s: State, cpu: int) -> None:
    """lru_add_drain_cpu(): the batch's pages go to the LRU list, its references are dropped."""
    if s.batch_limit == 0:
        return
    for frame in range(1, s.nr_frames):
        if s.frame_batch[frame] == cpu + 1:
            s.frame_batch[frame] = 0
            set_flag(s, frame, PG_LRU)
            put_page(s, frame)


@helper
def isolate_lru_page(s: State, t: int, frame: int) -> bool:
    """isolate_lru_page(): takes a page, with a reference, off the LRU list; false if not on it."""
    if not has_flag(s, frame, PG_LRU) or s.refcount[frame] == 0:
        return False
    clear_flag(s, frame, PG_LRU)
    set_flag(s, frame, PG_ISOLATED)
    hold_frame(s, t, frame)
    return True


@step(steps.DRAIN)
def drain(s: State, t: int, k: KernelRecord) -> int:
    """lru_add_drain_cpu() of CPU t_value; as many as there are: lru_add_drain_all()."""
    cpu = int(s.t_value[t])
    if cpu < 0:
        for each in range(NR_CPUS):
            lru_add_drain(s, each)
    else:
        lru_add_drain(s, cpu)
    s.t_result[t] = OK
    return steps.IDLE
