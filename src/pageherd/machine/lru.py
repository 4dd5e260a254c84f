"""The LRU lists: a page taken off them, and the per-CPU batches drained from outside."""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.state import (
    NR_CPUS,
    OK,
    PG_ISOLATED,
    PG_LRU,
    clear_flag,
    has_flag,
    hold_frame,
    lru_add_drain,
    set_flag,
)


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
