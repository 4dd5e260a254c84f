"""What is done through a reference or pin at any later time: loads, stores, tee, release."""

from __future__ import annotations

from pageherd.machine import steps
from pageherd.machine.folio import free_if_unused, is_free, page_pin_add, page_ref_add, set_flag
from pageherd.machine.jit import KernelRecord, helper, step
from pageherd.machine.layout import State
from pageherd.machine.questions import IO_URING_DIRTIES, NO, ZERO_PIN
from pageherd.machine.state import (
    FOLL_PIN,
    FOLL_WRITE,
    NONE,
    OK,
    PG_DIRTY,
    REF_FORKED,
    REF_IO_URING,
    REF_MAP_SHARED,
    REF_SHARED,
    SEGV,
    ZERO_FRAME,
    ask,
)
from pageherd.machine.watch import ALIVE, attached_page, breach, is_get_write, note_store


@helper
def held(s: State, t: int) -> bool:
    """Whether the reference is held; the call that should have taken it may have failed."""
    if s.ref_frame[int(s.t_ref[t])] != 0:
        return True
    s.t_result[t] = SEGV
    return False


@helper
def add_references(s: State, t: int, k: KernelRecord, ref: int, n: int) -> None:
    """Change what `ref` holds by `n` references or pins."""
    frame = int(s.ref_frame[ref]) - 1
    if int(s.ref_flags[ref]) & FOLL_PIN:
        if frame != ZERO_FRAME or ask(s, t, k, ZERO_PIN, frame):
            page_pin_add(s, frame, n)
    else:
        page_ref_add(s, frame, n)
    free_if_unused(s, frame)


@step(steps.READ_REF)
def read_ref(s: State, t: int, k: KernelRecord) -> int:
    """A pipe's reader or a device loads from the page that the reference holds."""
    if not held(s, t):
        return steps.IDLE
    frame = int(s.ref_frame[int(s.t_ref[t])]) - 1
    if is_free(s, frame):
        breach(s, ALIVE)
    s.t_result[t] = s.content[frame]
    return steps.IDLE


@step(steps.WRITE_REF)
def write_ref(s: State, t: int, k: KernelRecord) -> int:
    """A device stores through a write reference: it counts as a store of the reference's owner.

    The owner's attached page is promised to show it, unless a fork went over a FOLL_GET reference.
    """
    if not held(s, t):
        return steps.IDLE
    ref = int(s.t_ref[t])
    if (int(s.ref_flags[ref]) & FOLL_WRITE) == 0:
        s.t_result[t] = SEGV  # no device writes through a read mapping
        return steps.IDLE
    frame, owner = int(s.ref_frame[ref]) - 1, int(s.ref_mm[ref])
    value = int(s.t_value[t])
    s.content[frame] = value
    forked = is_get_write(s, ref) and (int(s.ref_state[ref]) & REF_FORKED) != 0
    page = attached_page(s, ref)
    if page != NONE and not forked:
        s.want[owner, page] = value
    to_file = (int(s.ref_state[ref]) & REF_MAP_SHARED) != 0
    note_store(s, owner, frame, value, forked, to_file)
    s.t_result[t] = OK
    return steps.IDLE


@step(steps.TEE)
def tee(s: State, t: int, k: KernelRecord) -> int:
    """tee(): so many references more on the same page."""
    if not held(s, t):
        return steps.IDLE
    ref = int(s.t_ref[t])
    n = int(s.t_value[t])
    s.ref_times[ref] = int(s.ref_times[ref]) + n
    add_references(s, t, k, ref, n)
    s.t_result[t] = OK
    return steps.IDLE


@step(steps.SHARE)
def share(s: State, t: int, k: KernelRecord) -> int:
    """The reference is handed to another process knowingly; later stores are no breach."""
    if not held(s, t):
        return steps.IDLE
    ref = int(s.t_ref[t])
    s.ref_state[ref] = int(s.ref_state[ref]) | REF_SHARED
    s.t_result[t] = OK
    return steps.IDLE


@step(steps.RELEASE)
def release(s: State, t: int, k: KernelRecord) -> int:
    """put_page() or unpin_user_page(); what could be written is marked dirty first.

    io_uring does not: whether it does is a rule.
    """
    if not held(s, t):
        return steps.IDLE
    ref = int(s.t_ref[t])
    frame = int(s.ref_frame[ref]) - 1
    flags = int(s.ref_flags[ref])
    if flags & FOLL_WRITE and not (
        flags & REF_IO_URING and ask(s, t, k, IO_URING_DIRTIES, frame) == NO
    ):
        set_flag(s, frame, PG_DIRTY)
    add_references(s, t, k, ref, -int(s.ref_times[ref]))
    s.ref_frame[ref] = 0
    s.ref_times[ref] = 0
    s.ref_flags[ref] = 0
    s.ref_mm[ref] = 0
    s.ref_page[ref] = 0
    s.ref_state[ref] = 0
    s.t_result[t] = OK
    return steps.IDLE
