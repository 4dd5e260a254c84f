"""The loop of a hunt, compiled: expand one canonical state after the other."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from pageherd.machine.drive import begin, frame_shown, run_path
from pageherd.machine.jit import (
    ALARM_OVERFLOW,
    ALARM_STUCK,
    KernelRecord,
    driver,
    helper,
)
from pageherd.machine.layout import State, States
from pageherd.machine.rmap import maps_here
from pageherd.machine.state import LIVE, NONE, UNUSED, VM_LOCKED, VM_MAPPED
from pageherd.machine.watch import MEANINGLESS
from pageherd.promises.checks import check_state
from pageherd.promises.leaks import check_leaks
from pageherd.search.canonical import canonical
from pageherd.search.client import ANY, MAPPED, NOBODY, ORDER_OF_PROCESSES
from pageherd.search.forget import simplify
from pageherd.search.packing import decode, encode
from pageherd.search.store import NR_PROMISES, breaches_of, hash_words, same_words
from pageherd.search.work import Work

# the records of `states`
EMPTY: Final = 0
BASE: Final = 1
SCRATCH: Final = 2
TORN: Final = 3
NR_RECORDS: Final = 4

# the places of `tally`, which is what the expansion of some states came to
FOUND: Final = 0  # successors that may be new
TRANSITIONS: Final = 1
PRUNED: Final = 2
STUCK: Final = 3
ALARM: Final = 4
ALARM_EDGE: Final = 5
NR_TALLIES: Final = 6

_NODE_BITS: Final = np.uint64(32)
_NODE_MASK: Final = np.uint64((1 << 32) - 1)
_NOTHING: Final = np.uint64(0)


@helper
def live_processes(s: State) -> int:
    alive = 0
    for mm in range(s.nr_mms):
        if s.mm_state[mm] == LIVE:
            alive += 1
    return alive


@helper
def is_partly_locked(s: State, frame: int) -> bool:
    """Whether some mappings of the frame are locked, some not; a walk ends at the first locked."""
    locked, free = False, False
    for mm in range(s.nr_mms):
        for page in range(s.nr_pages):
            if s.mm_state[mm] == LIVE and maps_here(s, mm, page, frame):
                if int(s.vma[mm, page]) & VM_LOCKED:
                    locked = True
                else:
                    free = True
    return locked and free


@helper
def order_matters(s: State, g: Any) -> bool:
    """Whether going through the names in another order could make a difference in this state.

    In an rmap walk over the frame that the operation is about, or in a fork that copies pages.
    """
    if g.ordered_by == ORDER_OF_PROCESSES:
        if g.held != NOBODY:
            return is_partly_locked(s, int(s.ref_frame[g.held]) - 1)
        frame = frame_shown(s, int(g.mm), int(g.page))
        return frame != NONE and is_partly_locked(s, frame)
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
        for page in range(g.page, g.page + g.span):
            mapped = (int(s.vma[g.mm, page]) & VM_MAPPED) != 0
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
def find(code_words: Any, table: Any, words: Any, i: int, hashed: Any) -> Any:
    """The place in the table where the code at words[i] is, or would go.

    An entry of the table is the upper half of a code's hash, and its number plus one; codes whose
    halves agree are compared in full.
    """
    mask = np.uint64(table.shape[0] - 1)
    n = words.shape[1]
    place = hashed & mask
    while table[place] != _NOTHING:
        entry = table[place]
        if entry >> _NODE_BITS == hashed >> _NODE_BITS:
            node = np.int64(entry & _NODE_MASK) - 1
            alike = True
            for w in range(n):
                if code_words[node, w] != words[i, w]:
                    alike = False
                    break
            if alike:
                return place
        place = (place + np.uint64(1)) & mask
    return place


@helper
def entry_of(hashed: Any, node: int) -> Any:
    return hashed >> _NODE_BITS << _NODE_BITS | np.uint64(node + 1)


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
    first: int,
    last: int,
    new_codes: Any,
    new_words: Any,
    new_hashes: Any,
    new_parents: Any,
    new_edges: Any,
    met: Any,
    broken: Any,
    tally: Any,
) -> None:
    """Expand the stored states first .. last - 1 and list the successors that are not stored yet.

    Only reads what several threads share.

    Args:
        states: NR_RECORDS records, of which EMPTY is the template; words: the same memory as words.
        codes: (capacity, bytes) the stored states; code_words: the same memory as words.
        table: (power of two,) uint64 of the stored states, see `find`.
        new_codes, ...: room for all successors; `tally` says how many there are.
        met: (power of two,) uint64, for the table of this call's successors.
        broken: (NR_PROMISES, 2) state and operation of the first breach of this call, or -1.
        tally: (NR_TALLIES,) see above.
    """
    k, w = kernels[0], works[0]
    met[:] = _NOTHING
    broken[:] = -1
    tally[:] = 0
    n = code_words.shape[1]
    for i in range(first, last):
        load(states, words, w, codes, i)
        base = states[BASE]
        for j in range(ops.shape[0]):
            g = guards[j]
            if not enabled(base, g) or (
                g.ordered_by != 0 and g.order != 0 and not order_matters(base, g)
            ):
                continue
            tally[TRANSITIONS] += 1
            if not apply(states, words, w, k, ops[j], g):
                continue
            s = states[SCRATCH]
            bits = breaches_of(s)
            if s.alarm == ALARM_STUCK or s.alarm == ALARM_OVERFLOW:
                tally[STUCK] = s.alarm
                continue
            note_broken(broken, bits, i, j)
            if bits & MEANINGLESS:
                tally[PRUNED] += 1
                continue
            simplify(s, w)
            canonical(s, w)
            if s.alarm != 0:
                tally[ALARM] = s.alarm
                tally[ALARM_EDGE] = j
                return
            found = tally[FOUND]
            for at in range(w.bytes):
                new_codes[found, at] = w.code[w.best, at]
            hashed = hash_words(new_words, found, n)
            if table[find(code_words, table, new_words, found, hashed)] != _NOTHING:
                continue
            place = find(new_words, met, new_words, found, hashed)
            if met[place] != _NOTHING:
                continue
            met[place] = entry_of(hashed, found)
            new_hashes[found] = hashed
            new_parents[found] = i
            new_edges[found] = j
            tally[FOUND] = found + 1
            note_broken(broken, leaks_of(states, words, k), i, j)


@driver
def store(
    codes: Any,
    code_words: Any,
    table: Any,
    parents: Any,
    edges: Any,
    count: int,
    new_words: Any,
    new_hashes: Any,
    new_parents: Any,
    new_edges: Any,
    found: int,
) -> int:
    """Store the successors listed by `expand` that are new; how many states there are then."""
    for i in range(found):
        place = find(code_words, table, new_words, i, new_hashes[i])
        if table[place] != _NOTHING:
            continue
        for w in range(new_words.shape[1]):
            code_words[count, w] = new_words[i, w]
        parents[count] = new_parents[i]
        edges[count] = new_edges[i]
        table[place] = entry_of(new_hashes[i], count)
        count += 1
    return count


@driver
def enter(code_words: Any, table: Any, first: int, last: int) -> None:
    """Enter stored states into an empty table (it has grown)."""
    for node in range(first, last):
        hashed = hash_words(code_words, node, code_words.shape[1])
        table[find(code_words, table, code_words, node, hashed)] = entry_of(hashed, node)


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
