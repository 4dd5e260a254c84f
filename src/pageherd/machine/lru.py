"""The per-CPU LRU batches, drained from outside."""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.jit import KernelRecord, step
from pageherd.machine.layout import State
from pageherd.machine.state import NR_CPUS, OK, lru_add_drain


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
