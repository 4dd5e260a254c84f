"""Every way in which a real kernel may take a step that the model's state leaves open.

What is the kernel's choice: whether somebody else has filled an LRU batch and so drained it; which
pages go when everything of a cgroup is reclaimed, and after how many passes over them it stops; in
which order ksmd looks at pages; whether a huge page that others map too was accessed lately.  All
else follows from the state, and from what a lever reaches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pageherd.litmus.syntax import KERNEL, Step
from pageherd.machine import state as st
from pageherd.machine.jit import records
from pageherd.machine.layout import States
from pageherd.machine.migrate import is_found
from pageherd.machine.operations import Operation
from pageherd.machine.steps import RECLAIM_ISOLATE
from pageherd.real import ksmd
from pageherd.real.operate import identity, run_operation
from pageherd.real.steer import Steered
from pageherd.search.program import operation_of

PASSES: Final = 3  # one finds that a lazyfree page is dirty, one writes it to swap, one frees it
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
    if step.verb in ksmd.VERBS:
        drained, _ = _done(state.copy(), _drain(steered), kernel)
        yield from ksmd.scanned(drained, operation, kernel)
        return
    if step.verb == "migrate" and not _finds(state, operation, kernel):
        stays = state.copy()
        stays["reg"][0, 0] = st.BUSY
        yield stays, frozenset()
        return
    yield _done(state.copy(), operation, kernel)
    if steered.test.lru_batches and state["frame_batch"].any():
        drained, _ = _done(state.copy(), _drain(steered), kernel)
        yield _done(drained, operation, kernel)
    if step.verb == "pageout" and _is_accessed_elsewhere(state, operation):
        stays, _ = _done(state.copy(), _drain(steered), kernel)
        stays["reg"][0, 0] = st.OK
        yield stays, frozenset()


def _is_accessed_elsewhere(states: States, operation: Operation) -> bool:
    """Whether others may have accessed a huge page lately, which only the caller's entry forgets.

    page_check_references() keeps it then; v6.10 (2864f3d0f583) ignores references, but from v6.8 on
    a folio that others map is not looked at, nor is one before whose first page they map.
    """
    entries, frames = states["pte"][0], states["pte_to"][0]
    if not entries[operation.mm, operation.page] & st.PTE_HUGE:
        return False
    head = frames[operation.mm, operation.page]
    of_folio = (frames >= head) & (frames < head + states["nr_huge"][0])
    others = of_folio & ((entries & st.PTE_PRESENT) != 0)
    others[operation.mm] = False
    return bool(others.any())


def _finds(states: States, operation: Operation, kernel: Any) -> bool:
    return bool(is_found(records(states), 0, records(kernel), operation.mm, operation.page))


def _drain(steered: Steered) -> Operation:
    return operation_of(steered.program.names, Step(KERNEL, "drain"))


def _done(states: States, operation: Operation, kernel: Any) -> Way:
    return states, run_operation(states, operation, kernel)


def _reclaimed(state: States, thread: int, kernel: Any) -> Iterator[Way]:
    """Reclaim of a cgroup: each page in use may be passed over, or passed some times."""
    found: dict[bytes, Way] = {identity(state): (state.copy(), frozenset())}
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
                found.setdefault(identity(states), (states, broke))
        if len(found) > MOST:
            break
    for states, broke in found.values():
        states["reg"][0, 0] = st.OK
        yield states, broke
