"""The loop of a hunt, compiled: expand one canonical state after the other."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from pageherd.machine.drive import begin, run_path
from pageherd.machine.jit import (
    ALARM_OVERFLOW,
    ALARM_STUCK,
    KernelRecord,
    driver,
    helper,
)
from pageherd.machine.layout import State, States
from pageherd.machine.state import LIVE, UNUSED, VM_LOCKED, VM_MAPPED
from pageherd.machine.watch import ALIVE
from pageherd.promises.checks import check_state
from pageherd.promises.leaks import check_leaks
from pageherd.search.canonical import Work, canonical, decode, encode, simplify
from pageherd.search.scope import (
    ANY,
    MAPPED,
    NOBODY,
    ORDER_OF_PROCESSES,
)
from pageherd.search.store import NR_PROMISES, breaches_of, hash_words, same_words

# the records of `states`
EMPTY: Final = 0
BASE: Final = 1
SCRATCH: Final = 2
TORN: Final = 3
NR_RECORDS: Final = 4

# the places of `count`
NEXT: Final = 0  # the state to be expanded next
STATES: Final = 1
TRANSITIONS: Final = 2
DEPTH: Final = 3  # operations from the first state to the one that is expanded next
LEVEL_END: Final = 4
PRUNED: Final = 5
STUCK: Final = 6
ALARM: Final = 7
ALARM_EDGE: Final = 8
NR_COUNTS: Final = 9


@helper
def live_processes(s: State) -> int:
    alive = 0
    for mm in range(s.nr_mms):
        if s.mm_state[mm] == LIVE:
            alive += 1
    return alive


@helper
def order_matters(s: State, ordered_by: int) -> bool:
    """Whether going through the names in another order could make a difference in this state."""
    if ordered_by == ORDER_OF_PROCESSES:
        if live_processes(s) < 2:
            return False
        for mm in range(s.nr_mms):
            for page in range(s.nr_pages):
                if int(s.vma[mm, page]) & VM_LOCKED:
                    return True
        return False
    pinned = 0
    for frame in range(1, s.nr_frames):
        if s.pincount[frame] != 0:
            pinned += 1
    return pinned > 1


@helper
def enabled(s: State, g: Any) -> bool:
    """Whether the guarded operation makes sense in the state."""
    if g.live != NOBODY and s.mm_state[g.live] != LIVE:
        return False
    if g.vma != ANY:
        mapped = (int(s.vma[g.mm, g.page]) & VM_MAPPED) != 0
        if mapped != (g.vma == MAPPED):
            return False
    if g.held != NOBODY and s.ref_frame[g.held] == 0:
        return False
    if g.take != NOBODY:
        if s.ref_frame[g.take] != 0:
            return False
        if g.first and g.take > 0:
            for ref in range(g.take):
                if s.ref_frame[ref] == 0:
                    return False
    if g.child != NOBODY:
        if s.mm_state[g.child] != UNUSED:
            return False
        if g.first:
            for mm in range(g.child):
                if s.mm_state[mm] == UNUSED:
                    return False
    if g.company and live_processes(s) < 2:
        return False
    return True


@helper
def load(states: States, words: Any, w: Work, codes: Any, node: int) -> None:
    """Unpack a stored state into the record BASE."""
    for i in range(w.bytes):
        w.row[i] = codes[node, i]
    words[BASE] = words[EMPTY]
    decode(w, states[BASE])


@helper
def load_in_order(states: States, words: Any, w: Work, order: int) -> None:
    """Copy BASE to SCRATCH with its names put into another order."""
    encode(states[BASE], w, order, 0)
    for i in range(w.bytes):
        w.row[i] = w.code[0, i]
    words[SCRATCH] = words[EMPTY]
    decode(w, states[SCRATCH])


@helper
def apply(states: States, words: Any, w: Work, k: KernelRecord, op: Any, g: Any) -> bool:
    """Run the operation on a copy of BASE, in SCRATCH; whether anything changed.

    The promises are checked when it is over: no other thread looks between its steps.
    """
    if g.order != 0:
        load_in_order(states, words, w, int(g.order))
    else:
        words[SCRATCH] = words[BASE]
    s = states[SCRATCH]
    begin(s, k, op)
    run_path(s, k, 0)
    if g.order == 0 and same_words(words, SCRATCH, BASE, int(w.compared)):
        return False
    check_state(s, k)
    return True


@helper
def find(code_words: Any, table: Any, node: int) -> Any:
    """The place in the table where the code at `node` is, or would go."""
    mask = table.shape[0] - 1
    n = code_words.shape[1]
    slot = np.int64(hash_words(code_words, node, n) & np.uint64(mask))
    while table[slot] >= 0 and not same_words(code_words, table[slot], node, n):
        slot = (slot + 1) & mask
    return slot


@helper
def note_broken(broken: Any, bits: int, node: int, edge: int) -> None:
    """The first breach found is a shortest one, since states come in the order of their depth."""
    for promise in range(NR_PROMISES):
        if bits & (1 << promise) and broken[promise, 0] < 0:
            broken[promise, 0] = node
            broken[promise, 1] = edge


@helper
def leaks_of(states: States, words: Any, k: KernelRecord) -> int:
    """The promises broken when SCRATCH is torn down."""
    words[TORN] = words[SCRATCH]
    s = states[TORN]
    check_leaks(s, k)
    return int(s.broke)


@driver
def expand(
    states: States,
    words: Any,
    works: Any,
    kernels: Any,
    ops: Any,
    guards: Any,
    codes: Any,
    code_words: Any,
    table: Any,
    parents: Any,
    edges: Any,
    broken: Any,
    count: Any,
    budget: int,
) -> None:
    """Expand up to `budget` states; sooner back when the arrays are full or an alarm is raised.

    Args:
        states: NR_RECORDS records, of which EMPTY is the template; words: the same memory as words.
        codes: (capacity, bytes) the stored states; code_words: the same memory as words.
        table: (power of two,) int32, -1 where there is nothing.
        parents, edges: (capacity,) the state and the operation that first led to each state.
        broken: (NR_PROMISES, 2) int32, all -1 at first: state and operation of the shortest breach.
        count: see the places above.
    """
    k, w = kernels[0], works[0]
    capacity = codes.shape[0]
    nr_ops = ops.shape[0]
    stop = min(count[NEXT] + budget, np.int64(2147483647))
    while count[NEXT] < count[STATES] and count[NEXT] < stop:
        i = count[NEXT]
        if count[STATES] + nr_ops >= capacity:
            return
        if i == count[LEVEL_END]:
            count[DEPTH] += 1
            count[LEVEL_END] = count[STATES]
        load(states, words, w, codes, i)
        base = states[BASE]
        for j in range(nr_ops):
            g = guards[j]
            if not enabled(base, g) or (
                g.ordered_by != 0 and g.order != 0 and not order_matters(base, g.ordered_by)
            ):
                continue
            count[TRANSITIONS] += 1
            if not apply(states, words, w, k, ops[j], g):
                continue
            s = states[SCRATCH]
            bits = breaches_of(s)
            if s.alarm == ALARM_STUCK or s.alarm == ALARM_OVERFLOW:
                count[STUCK] = s.alarm
                continue
            note_broken(broken, bits, i, j)
            if bits & (1 << ALIVE):
                count[PRUNED] += 1
                continue
            simplify(s, w)
            canonical(s, w)
            if s.alarm != 0:
                count[ALARM] = s.alarm
                count[ALARM_EDGE] = j
                return
            node = count[STATES]
            for at in range(w.bytes):
                codes[node, at] = w.code[w.best, at]
            slot = find(code_words, table, node)
            if table[slot] >= 0:
                continue
            table[slot] = node
            parents[node] = i
            edges[node] = j
            count[STATES] = node + 1
            note_broken(broken, leaks_of(states, words, k), i, j)
        count[NEXT] = i + 1


@driver
def enter(codes: Any, code_words: Any, table: Any, first: int, last: int) -> None:
    """Enter stored states into an empty table (it has grown)."""
    for node in range(first, last):
        table[find(code_words, table, node)] = node


@driver
def pack(states: States, i: int, works: Any, simple: bool) -> int:
    """Leave the smallest code of states[i] in the work's `code`; the order that gave it."""
    if not simple:
        simplify(states[i], works[0])
    return canonical(states[i], works[0])


@driver
def unpack(states: States, words: Any, works: Any, codes: Any, node: int) -> None:
    """Put the stored state `node` into the record BASE."""
    load(states, words, works[0], codes, node)


@driver
def rename(states: States, words: Any, works: Any, order: int) -> None:
    """Leave BASE, with its names put into another order, in SCRATCH."""
    load_in_order(states, words, works[0], order)


@driver
def orbit(states: States, i: int, works: Any, seen: Any, orders: int) -> int:
    """How many different codes states[i] has under the first `orders` orders of its names."""
    s, w = states[i], works[0]
    found = 0
    for order in range(orders):
        encode(s, w, order, 0)
        known = False
        for other in range(found):
            alike = True
            for at in range(w.bytes):
                if seen[other, at] != w.code[0, at]:
                    alike = False
            known = known or alike
        if not known:
            for at in range(w.bytes):
                seen[found, at] = w.code[0, at]
            found += 1
    return found


@driver
def retrace(
    states: States, words: Any, works: Any, kernels: Any, ops: Any, guards: Any, j: int
) -> int:
    """Run operation j on BASE and make its canonical successor the new BASE; the order chosen."""
    w = works[0]
    apply(states, words, w, kernels[0], ops[j], guards[j])
    s = states[SCRATCH]
    s.broke = 0
    simplify(s, w)
    order = canonical(s, w)
    for at in range(w.bytes):
        w.row[at] = w.code[w.best, at]
    words[BASE] = words[EMPTY]
    decode(w, states[BASE])
    return order
