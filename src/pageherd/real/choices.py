"""Every way in which a real kernel may take a step that the model's state leaves open.

Three things are the kernel's choice: whether somebody else has filled an LRU batch and so drained
it, which pages go when everything of a cgroup is reclaimed, and after how many passes over them it
stops.  All else follows from the state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from pageherd.errors import ModelError
from pageherd.litmus.syntax import KERNEL, Step
from pageherd.machine import state as st
from pageherd.machine.drive import STEP_LIMIT, drive_begin
from pageherd.machine.jit import ALARMS, records
from pageherd.machine.layout import TEST, States, words_compared
from pageherd.machine.operations import Operation, encode
from pageherd.machine.steps import BLOCKED, IDLE, RECLAIM_ISOLATE
from pageherd.promises.table import PROMISES
from pageherd.real.steer import Steered
from pageherd.search.program import operation_of
from pageherd.search.store import step_checked

PASSES: Final = 2  # the first writes a page to swap, the second frees it
MOST: Final = 512  # ways followed at once

Way = tuple[States, frozenset[str]]
"""A state after the step, its result in register 0; and the promises that the step broke."""


def ways(
    steered: Steered, state: States, step: Step, operation: Operation, kernel: Any
) -> Iterator[Way]:
    """Every state that the step may lead to.

    Raises:
        ModelError: the machine cannot answer.
    """
    if step.verb == "reclaim":
        yield from _reclaimed(state, operation.thread, kernel)
        return
    yield _done(state.copy(), operation, kernel)
    if steered.test.lru_batches and state["frame_batch"].any():
        drained, _ = _done(state.copy(), _drain(steered), kernel)
        yield _done(drained, operation, kernel)


def _drain(steered: Steered) -> Operation:
    return operation_of(steered.program.names, Step(KERNEL, "drain"))


def _done(states: States, operation: Operation, kernel: Any) -> Way:
    return states, run_operation(states, operation, kernel)


def _reclaimed(state: States, thread: int, kernel: Any) -> Iterator[Way]:
    """Reclaim of a cgroup: each page in use may be passed over, or passed once or twice."""
    found: dict[bytes, Way] = {_identity(state): (state.copy(), frozenset())}
    reclaim = Operation(RECLAIM_ISOLATE, thread=thread)
    for frame in range(1, int(state["nr_frames"][0])):
        if not state["refcount"][0, frame] and not state["pincount"][0, frame]:
            continue
        for states, broke in list(found.values()):
            for _ in range(PASSES):
                if not states["refcount"][0, frame]:
                    break
                states = states.copy()
                broke |= run_operation(states, reclaim, kernel, frame)
                found.setdefault(_identity(states), (states, broke))
        if len(found) > MOST:
            break
    for states, broke in found.values():
        states["reg"][0, 0] = st.OK
        yield states, broke


def _identity(states: States) -> bytes:
    """What tells one state from another, the scratch register set aside."""
    plain = states.copy()
    plain["reg"][0, 0] = st.UNBOUND
    return plain.tobytes()[: words_compared(TEST)]


def run_operation(
    states: States, operation: Operation, kernel: Any, frame: int = 0
) -> frozenset[str]:
    """Run one operation of the model to its end; its result is in register 0.

    `frame` is what a path without a page or a reference works on.  Returns the promises that it
    broke.

    Raises:
        ModelError: the machine cannot answer.
    """
    ops = encode([replace(operation, register=1)])
    drive_begin(records(states), 0, records(kernel), records(ops), 0)
    if frame:
        states["t_frame"][0, operation.thread] = frame
    bits = 0
    for _ in range(STEP_LIMIT):
        states["broke"][0] = 0
        following = int(step_checked(records(states), 0, records(kernel), operation.thread))
        alarm = int(states["alarm"][0])
        if alarm:
            raise ModelError(ALARMS.get(alarm, "a rule failed"), alarm)
        bits |= int(states["broke"][0])
        if following in (IDLE, BLOCKED):
            break
    return frozenset(promise.name for promise in PROMISES if bits >> promise.number & 1)
