"""Running operations: begin one, take one step, run it to its end.

Run without preemption this is the sequential mode; stepping several threads in turn is the
concurrent one.  Registers are zeroed when a path ends, so states between operations carry none.
"""

from __future__ import annotations

from typing import Any, Final

from pageherd.machine.jit import (
    ALARM_STUCK,
    KernelRecord,
    driver,
    helper,
    invoke_step,
)
from pageherd.machine.layout import State, States
from pageherd.machine.operations import FRAME_OF_PAGE, FRAME_OF_REF
from pageherd.machine.pte import pte_of
from pageherd.machine.state import (
    NONE,
    PTE_DEVICE,
    PTE_MIGRATION,
    PTE_PRESENT,
    PTE_SWAP,
)
from pageherd.machine.steps import BLOCKED, IDLE
from pageherd.machine.watch import PROGRESS, breach

STEP_LIMIT: Final = 4000  # of one operation, and as many again per hundred pages of the process


@helper
def frame_shown(s: State, mm: int, page: int) -> int:
    """The frame that a page maps, or that the swap cache has for it; NONE if there is none."""
    pte = pte_of(s, mm, page)
    if pte & (PTE_PRESENT | PTE_MIGRATION | PTE_DEVICE):
        return int(s.pte_to[mm, page])
    if pte & PTE_SWAP:
        return int(s.slot_frame[int(s.pte_to[mm, page])]) - 1
    return NONE


@helper
def begin(s: State, k: KernelRecord, op: Any) -> None:
    """Load the operation into the registers of its thread."""
    t = int(op.thread)
    s.t_pc[t] = op.pc
    s.t_return[t] = op.then
    s.t_register[t] = op.register
    s.t_mm[t] = op.mm
    s.t_page[t] = op.page
    s.t_first[t] = op.page
    s.t_end[t] = op.page + op.span
    s.t_other[t] = op.other
    s.t_fault[t] = op.fault
    foll = int(op.foll)
    if op.question >= 0:
        foll |= int(k.rule[op.question])
        k.asked[op.question] += 1
    s.t_foll[t] = foll
    s.t_ref[t] = op.ref
    s.t_value[t] = op.value
    if op.frame_from == FRAME_OF_PAGE:
        s.t_frame[t] = frame_shown(s, int(op.mm), int(op.page))
    elif op.frame_from == FRAME_OF_REF:
        s.t_frame[t] = int(s.ref_frame[int(op.ref)]) - 1


@helper
def end(s: State, t: int) -> None:
    """The path is over: deliver the result, zero the registers."""
    if s.t_register[t] != 0:
        s.reg[int(s.t_register[t]) - 1] = s.t_result[t]
    s.t_pc[t] = IDLE
    s.t_return[t] = IDLE
    s.t_register[t] = 0
    s.t_mm[t] = 0
    s.t_page[t] = 0
    s.t_first[t] = 0
    s.t_end[t] = 0
    s.t_other[t] = 0
    s.t_fault[t] = 0
    s.t_foll[t] = 0
    s.t_frame[t] = 0
    s.t_new[t] = 0
    s.t_held[t] = 0
    s.t_pte[t] = 0
    s.t_pte_to[t] = 0
    s.t_seq[t] = 0
    s.t_ref[t] = 0
    s.t_value[t] = 0
    s.t_result[t] = 0


@helper
def step_thread(s: State, k: KernelRecord, t: int) -> int:
    """Take one step of thread `t`; BLOCKED if a lock it needs is taken, IDLE when it has ended."""
    pc = int(s.t_pc[t])
    k.stepped[pc] += 1
    following = invoke_step(k.step[pc], s, t, k)
    if following == BLOCKED:
        return BLOCKED
    s.t_pc[t] = following
    if following == IDLE:
        end(s, t)
    return following


@helper
def step_limit(s: State) -> int:
    """How many steps one operation may take; a path that takes more does not come to an end."""
    return STEP_LIMIT + STEP_LIMIT // 100 * int(s.nr_pages)


@helper
def run_path(s: State, k: KernelRecord, t: int) -> None:
    """Run the path that thread `t` is on to its end; the alarm is raised if it waits for a lock.

    Nobody else runs, so one that takes too many steps goes round in circles.
    """
    for _ in range(step_limit(s)):
        following = step_thread(s, k, t)
        if following == IDLE or s.alarm != 0:
            return
        if following == BLOCKED:
            s.alarm = ALARM_STUCK
            return
    breach(s, PROGRESS)


@driver
def drive(states: States, i: int, kernels: Any, ops: Any, first: int, last: int) -> int:
    """Run ops[first:last] on states[i] under kernels[0]; the number of operations run."""
    s, k = states[i], kernels[0]
    for j in range(first, last):
        begin(s, k, ops[j])
        run_path(s, k, int(ops[j].thread))
        if s.t_pc[int(ops[j].thread)] != IDLE and s.alarm == 0:
            s.alarm = ALARM_STUCK
        if s.alarm != 0:
            return j - first
    return last - first


@driver
def drive_begin(states: States, i: int, kernels: Any, ops: Any, j: int) -> None:
    """Load ops[j] on states[i]."""
    begin(states[i], kernels[0], ops[j])


@driver
def drive_step(states: States, i: int, kernels: Any, t: int) -> int:
    """One step of thread `t` of states[i]."""
    return step_thread(states[i], kernels[0], t)
