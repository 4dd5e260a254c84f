"""Running one operation of the model to its end, outside of a search."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pageherd.errors import ModelError
from pageherd.machine import state as st
from pageherd.machine.drive import STEP_LIMIT, drive_begin
from pageherd.machine.jit import ALARMS, records
from pageherd.machine.layout import TEST, States, words_compared
from pageherd.machine.operations import Operation, encode
from pageherd.machine.steps import BLOCKED, IDLE
from pageherd.promises.table import PROMISES
from pageherd.search.store import step_checked


def identity(states: States) -> bytes:
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
