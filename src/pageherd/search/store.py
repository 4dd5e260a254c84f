"""The breadth-first search over a program's outcomes, compiled.

States are kept whole and compared whole, so no state is ever lost to a hash collision.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from pageherd.machine.drive import begin, step_limit, step_thread
from pageherd.machine.jit import (
    ALARM_OVERFLOW,
    ALARM_STUCK,
    ALARM_UNDERFLOW,
    KernelRecord,
    driver,
    helper,
)
from pageherd.machine.layout import State, States
from pageherd.machine.steps import BLOCKED, IDLE
from pageherd.machine.watch import ALIVE, COUNTS, MEANINGLESS, NO_LEAK, PROGRESS, breach
from pageherd.promises.checks import check_state
from pageherd.promises.leaks import check_leaks

NR_PROMISES: Final = 9

# the places of `summary`
STATES: Final = 0
TRANSITIONS: Final = 1
ALARM: Final = 2
ALARM_PARENT: Final = 3
ALARM_EDGE: Final = 4
PRUNED: Final = 5
FULL: Final = 6
FINAL: Final = 7
STUCK: Final = 8
SUMMARY: Final = 9

# how an operation is followed (follow); and that it has changed nothing
LEAVE_OUT: Final = 0
RUN: Final = 1
STEP: Final = 2
WAITS: Final = -2

_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
_SHIFT: Final = np.uint64(29)


@helper
def hash_words(words: Any, i: int, n: int) -> Any:
    """A 64-bit hash of the first `n` words of words[i]."""
    h = np.uint64(n)
    for j in range(n):
        h = (h ^ words[i, j]) * _MULTIPLIER
        h ^= h >> _SHIFT
    return h


@helper
def same_words(words: Any, i: int, j: int, n: int) -> bool:
    for w in range(n):
        if words[i, w] != words[j, w]:
            return False
    return True


@helper
def checked_step(s: State, k: KernelRecord, t: int) -> int:
    """One step of thread `t`, and a look at every promise unless it waits (BLOCKED)."""
    following = step_thread(s, k, t)
    if following != BLOCKED:
        check_state(s, k)
    return following


@helper
def run_checked(s: State, k: KernelRecord, op: Any) -> None:
    """Run one operation; after each step look at every promise."""
    begin(s, k, op)
    for _ in range(step_limit(s)):
        following = checked_step(s, k, int(op.thread))
        if following == BLOCKED:
            s.alarm = ALARM_STUCK
        if following == IDLE or s.alarm != 0:
            return
    breach(s, PROGRESS)


@helper
def one_step(s: State, k: KernelRecord, op: Any) -> int:
    """One step of an operation that its thread may have begun before, and a look at every promise.

    What comes next: IDLE after the last one.  A thread that waits for a lock (BLOCKED) may have
    taken another one.
    """
    t = int(op.thread)
    if s.t_pc[t] == IDLE:
        begin(s, k, op)
    return checked_step(s, k, t)


@helper
def breaches_of(s: State) -> int:
    """The promises that the operation broke; an impossible count breaks two."""
    bits = int(s.broke)
    s.broke = 0
    if s.alarm == ALARM_UNDERFLOW:
        s.alarm = 0
        bits |= (1 << COUNTS) | (1 << ALIVE)
    return bits


@driver
def step_checked(states: States, i: int, kernels: Any, t: int) -> int:
    """One step of thread `t` of states[i], and a look at every promise."""
    return checked_step(states[i], kernels[0], t)


@driver
def leaks(states: States, i: int, kernels: Any) -> int:
    """Tear states[i] down; the bits of the promises that broke."""
    states[i].broke = 0
    check_leaks(states[i], kernels[0])
    return int(states[i].broke)


@helper
def advance(s: State, op: Any, full: Any, main_group: int) -> None:
    """Note that `op` is done; the next group begins when all of this one are."""
    s.done = s.done | op.bit
    if s.done == full[s.group]:
        s.done = 0
        s.group += 1
        if s.group == main_group:
            s.copies = 0


@helper
def is_ready(s: State, op: Any) -> bool:
    """Whether the operation is one of the group that runs, not done, and has what it needs."""
    done = int(s.done)
    needs = int(op.needs)
    return bool(op.group == s.group and not done & int(op.bit) and (done & needs) == needs)


@helper
def follow(
    states: States, words: Any, compared: int, i: int, k: KernelRecord, op: Any, how: int
) -> int:
    """Into the scratch record: states[i] after an operation, left out, run, or by one step.

    What comes next in it, IDLE if it is over; WAITS if nothing has changed.
    """
    scratch = states.shape[0] - 1
    words[scratch] = words[i]
    if how == RUN:
        run_checked(states[scratch], k, op)
    elif how == STEP:
        following = one_step(states[scratch], k, op)
        if following == BLOCKED and same_words(words, i, scratch, compared):
            return WAITS
        return following
    return IDLE


@helper
def find(words: Any, i: int, compared: int, table: Any) -> int:
    """The place of words[i] in the table; it is free if the state is new."""
    mask = table.shape[0] - 1
    slot = np.int64(hash_words(words, i, compared) & np.uint64(mask))
    while table[slot] >= 0 and not same_words(words, table[slot], i, compared):
        slot = (slot + 1) & mask
    return int(slot)


@helper
def comes_to_an_end(
    states: States,
    words: Any,
    compared: int,
    table: Any,
    ends: Any,
    i: int,
    k: KernelRecord,
    ops: Any,
    full: Any,
) -> bool:
    """Whether one step leads from states[i] out of its group, or to a state that comes to an end.

    So do a step with which the search stops, and one that all wait for: that is told already.
    """
    scratch = states.shape[0] - 1
    stands = True
    for j in range(ops.shape[0]):
        if not is_ready(states[i], ops[j]):
            continue
        begun = states[i].t_pc[int(ops[j].thread)] != IDLE
        for left_out in range(0 if begun else int(ops[j].maybe), -1, -1):
            following = follow(
                states, words, compared, i, k, ops[j], LEAVE_OUT if left_out else STEP
            )
            if following == WAITS:
                continue
            stands = False
            s = states[scratch]
            if breaches_of(s) & MEANINGLESS or s.alarm != 0:
                return True
            if following == IDLE:
                advance(s, ops[j], full, -1)
            if s.group != states[i].group:
                return True
            seen = table[find(words, scratch, compared, table)]
            if seen < 0 or ends[seen] != 0:
                return True
    return stands


@helper
def find_circle(
    states: States,
    words: Any,
    compared: int,
    table: Any,
    weights: Any,
    count: int,
    k: KernelRecord,
    ops: Any,
    full: Any,
    by_step: Any,
) -> int:
    """The nearest state of a group by step that no order brings to the group's end; -1: none.

    Backwards, as the states that a state leads to mostly come after it.
    """
    ends = np.zeros(count, np.uint8)
    for i in range(count):
        group = int(states[i].group)
        ends[i] = group == full.shape[0] or not by_step[group]
    found = True
    while found:
        found = False
        for i in range(count - 1, -1, -1):
            if not ends[i] and comes_to_an_end(
                states, words, compared, table, ends, i, k, ops, full
            ):
                ends[i] = 1
                found = True
    nearest = -1
    for i in range(count):
        if not ends[i] and (nearest < 0 or weights[i] < weights[nearest]):
            nearest = i
    return nearest


@driver
def search(
    states: States,
    words: Any,
    compared: int,
    table: Any,
    parents: Any,
    edges: Any,
    finals: Any,
    weights: Any,
    broken: Any,
    summary: Any,
    kernels: Any,
    ops: Any,
    full: Any,
    by_step: Any,
    main_group: int,
) -> None:
    """Explore every outcome of the program `ops` from states[0].

    Args:
        states: (capacity + 1,) state records; the last one is scratch.
        words: the same memory as (capacity + 1, words per record) uint64.
        compared: how many leading words identify a state.
        table: (power of two,) int32, all -1.
        parents, edges: (capacity,) int32; an edge is 2 * operation + (1 if it was left out).  In a
            group by step it is one step of the operation.
        finals: (capacity,) int32, filled with the final states.
        weights: (capacity,) int32, the operations run on the way to a state; of several ways the
            one with the fewest is kept.
        broken: (NR_PROMISES, 3) int32, all -1: parent, edge and weight of the shortest breach; for
            `no-leak` the final state itself, -1 and its weight.
        summary: (SUMMARY,) int64.
        kernels: (1,) kernel record.
        ops: operations with group, bit and needs.
        full: the done-set of each complete group; by_step: if it is run by step.
    """
    capacity = states.shape[0] - 1
    scratch = capacity
    k = kernels[0]
    groups = full.shape[0]
    if groups > 0 and main_group == 0:
        states[0].copies = 0
    table[find(words, 0, compared, table)] = 0
    parents[0] = -1
    edges[0] = -1
    weights[0] = 0
    count = 1
    transitions = 0
    final = 0
    i = 0
    while i < count:
        group = int(states[i].group)
        if group == groups:
            finals[final] = i
            final += 1
            i += 1
            continue
        waits = int(by_step[group])  # until a thread of the group does not
        for j in range(ops.shape[0]):
            if not is_ready(states[i], ops[j]):
                continue
            begun = states[i].t_pc[int(ops[j].thread)] != IDLE
            for left_out in range(0 if begun else int(ops[j].maybe), -1, -1):
                how = LEAVE_OUT if left_out else STEP if by_step[group] else RUN
                following = follow(states, words, compared, i, k, ops[j], how)
                if following == WAITS:
                    continue
                s = states[scratch]
                edge = 2 * j + left_out
                weight = weights[i] + 1 - left_out
                waits = 0
                transitions += 1
                broke = breaches_of(s)
                if s.alarm == ALARM_STUCK or s.alarm == ALARM_OVERFLOW:
                    summary[STUCK] = s.alarm  # what would follow stays unproven
                    continue
                if s.alarm != 0:
                    summary[ALARM] = s.alarm
                    summary[ALARM_PARENT] = i
                    summary[ALARM_EDGE] = edge
                    summary[STATES] = count
                    summary[TRANSITIONS] = transitions
                    summary[FINAL] = final
                    return
                for promise in range(NR_PROMISES):
                    if broke & (1 << promise) and (
                        broken[promise, 0] < 0 or weight < broken[promise, 2]
                    ):
                        broken[promise, 0] = i
                        broken[promise, 1] = edge
                        broken[promise, 2] = weight
                if broke & MEANINGLESS:
                    summary[PRUNED] += 1
                    continue  # what follows has no meaning
                if following == IDLE:
                    advance(s, ops[j], full, main_group)
                slot = find(words, scratch, compared, table)
                if table[slot] >= 0:
                    seen = table[slot]
                    if weight < weights[seen]:
                        weights[seen] = weight
                        parents[seen] = i
                        edges[seen] = edge
                    continue
                if count == capacity:
                    summary[FULL] = 1
                    summary[STATES] = count
                    summary[TRANSITIONS] = transitions
                    summary[FINAL] = final
                    return
                table[slot] = count
                words[count] = words[scratch]
                parents[count] = i
                edges[count] = edge
                weights[count] = weight
                count += 1
        if waits and (broken[PROGRESS, 0] < 0 or weights[i] < broken[PROGRESS, 2]):
            broken[PROGRESS, 0] = i  # each waits for another
            broken[PROGRESS, 2] = weights[i]
        i += 1
    if by_step.any():
        circle = find_circle(states, words, compared, table, weights, count, k, ops, full, by_step)
        if circle >= 0 and (broken[PROGRESS, 0] < 0 or weights[circle] < broken[PROGRESS, 2]):
            broken[PROGRESS, 0] = circle
            broken[PROGRESS, 2] = weights[circle]
    for j in range(final):
        weight = weights[finals[j]]
        if broken[NO_LEAK, 0] >= 0 and broken[NO_LEAK, 2] <= weight:
            continue
        words[scratch] = words[finals[j]]
        s = states[scratch]
        check_leaks(s, k)
        if int(s.broke) & (1 << NO_LEAK):
            broken[NO_LEAK, 0] = finals[j]
            broken[NO_LEAK, 2] = weight
    summary[STATES] = count
    summary[TRANSITIONS] = transitions
    summary[FINAL] = final
