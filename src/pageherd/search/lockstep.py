"""Two kernels in lockstep, compiled: the same operation is done to a state of each.

What is stored is a pair of states, packed side by side under one and the same renaming of
processes, pages and references; frames and swap slots are numbered in each state for itself.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from pageherd.machine.drive import begin, run_path
from pageherd.machine.jit import ALARM_OVERFLOW, ALARM_STUCK, KernelRecord, driver, helper
from pageherd.machine.layout import State, States
from pageherd.machine.state import (
    LIVE,
    PTE_PRESENT,
    PTE_SWAP,
    UNUSED,
    VM_MAPPED,
    ZERO_FRAME,
)
from pageherd.machine.watch import MEANINGLESS
from pageherd.promises.checks import check_state
from pageherd.search.canonical import compare_codes, compare_orders, make_keys
from pageherd.search.client import ANY, MAPPED, NOBODY
from pageherd.search.expand import (
    BASE,
    EMPTY,
    SCRATCH,
    entry_of,
    find,
    leaks_of,
    live_processes,
    order_matters,
)
from pageherd.search.forget import simplify
from pageherd.search.packing import decode, encode, put, rename
from pageherd.search.store import breaches_of, hash_words, same_words
from pageherd.search.work import FRESH, Work

# what is compared after each operation
PROMISES: Final = 0
VALUES: Final = 1
COPIES: Final = 2
COUNTS: Final = 3

# the places of `tally`
COUNT: Final = 0  # states stored
TRANSITIONS: Final = 1
PRUNED: Final = 2
STUCK: Final = 3
ALARM: Final = 4
ALARM_EDGE: Final = 5
FOUND: Final = 6  # differences listed
ALARM_SIDE: Final = 7
NR_TALLIES: Final = 8

_NOTHING: Final = np.uint64(0)
_FRAME_BYTES: Final = 3


# -- what makes sense ------------------------------------------------------------------------------


@helper
def unused_in_both(a: State, b: State, mm: int) -> bool:
    return bool(a.mm_state[mm] == UNUSED and b.mm_state[mm] == UNUSED)


@helper
def free_in_both(a: State, b: State, ref: int) -> bool:
    return bool(a.ref_frame[ref] == 0 and b.ref_frame[ref] == 0)


@helper
def names_fit(a: State, b: State, g: Any) -> bool:
    """Whether the names that the operation gives are free on both sides, and the first such."""
    if g.take != NOBODY:
        if not free_in_both(a, b, g.take):
            return False
        for ref in range(g.take):
            if free_in_both(a, b, ref):
                return False
    if g.child != NOBODY:
        if not unused_in_both(a, b, g.child):
            return False
        for mm in range(g.child):
            if unused_in_both(a, b, mm):
                return False
    return True


@helper
def makes_sense(s: State, g: Any) -> bool:
    """Whether what the operation works on is there."""
    if g.live != NOBODY and s.mm_state[g.live] != LIVE:
        return False
    if g.vma != ANY:
        mapped = (int(s.vma[g.mm, g.page]) & VM_MAPPED) != 0
        if mapped != (g.vma == MAPPED):
            return False
    if g.held != NOBODY and s.ref_frame[g.held] == 0:
        return False
    return not (g.company and live_processes(s) < 2)


@helper
def possible(a: State, b: State, g: Any) -> bool:
    """Whether the operation can be done on both sides."""
    if not names_fit(a, b, g) or not makes_sense(a, g) or not makes_sense(b, g):
        return False
    if g.ordered_by == 0 or g.order == 0:
        return True
    return order_matters(a, g) or order_matters(b, g)


# -- what shows ------------------------------------------------------------------------------------


@helper
def looks(s: State, mm: int, page: int) -> int:
    """A page as /proc shows it: 0 absent, 1 swapped, 2 the zero page, else 4 + its map count."""
    pte, to = int(s.pte[mm, page]), int(s.pte_to[mm, page])
    if pte & PTE_SWAP:
        return 1
    if (pte & PTE_PRESENT) == 0:
        return 0
    return 2 if to == ZERO_FRAME else 4 + int(s.mapcount[to])


@helper
def counts_differ(a: State, b: State) -> bool:
    for mm in range(a.nr_mms):
        if a.mm_state[mm] == LIVE:
            for page in range(a.nr_pages):
                if looks(a, mm, page) != looks(b, mm, page):
                    return True
    return False


@helper
def shows_differently(a: State, b: State, observe: int) -> bool:
    """Whether the operation just done showed something else on one side than on the other."""
    if observe == VALUES:
        return bool(a.reg[0] != b.reg[0])
    if observe == COPIES:
        return bool(a.copies != b.copies)
    if observe == COUNTS:
        return counts_differ(a, b)
    return False


# -- packing a pair --------------------------------------------------------------------------------


@helper
def simplify_for(s: State, w: Work, observe: int) -> None:
    """Forget what nothing can tell; what promises want is only looked at where they are asked."""
    simplify(s, w)
    if observe == PROMISES:
        return
    for mm in range(s.nr_mms):
        for page in range(s.nr_pages):
            s.want[mm, page] = 0
    if observe != VALUES:
        for slot in range(s.nr_slots):
            used = s.swap_count[slot] != 0 or s.slot_frame[slot] != 0
            s.slot_content[slot] = 1 if used else 0


@helper
def share_values(s: State, w: Work, names: Work, order: int, buffer: int) -> None:
    """Write the values of the second state once more, by the names that the first one gave."""
    for value in range(FRESH + 1):
        w.value_no[value] = names.value_no[value]
    w.nr_values = names.nr_values
    mms, pages, slots = int(s.nr_mms), int(s.nr_pages), int(s.nr_slots)
    at = mms * (1 + 3 * pages) + 3 * int(w.refs) + 2 * slots + 2 + _FRAME_BYTES * int(w.held)
    for i in range(mms):
        for j in range(pages):
            value = int(s.want[w.mm_at[order, i], w.page_at[order, j]])
            at = put(w, buffer, at, rename(w, value))
    at = put(w, buffer, at, rename(w, int(s.content[ZERO_FRAME])))
    for number in range(1, w.held + 1):
        value = int(s.content[w.frame_at[number]]) if number <= w.nr_frames else 0
        at = put(w, buffer, at, rename(w, value))
    for number in range(1, slots + 1):
        value = int(s.slot_content[w.slot_at[number]]) if number <= w.nr_slots else 0
        at = put(w, buffer, at, rename(w, value))


@helper
def encode_pair(a: State, b: State, wa: Work, wb: Work, order: int, buffer: int) -> None:
    encode(a, wa, order, buffer)
    encode(b, wb, order, buffer)
    if wa.tokens:
        share_values(b, wb, wa, order, buffer)


@helper
def canonical_pair(a: State, b: State, wa: Work, wb: Work) -> int:
    """Leave the smallest codes of the pair in `code[best]` of both; the order that gave them."""
    chosen, best, encoded = 0, 0, False
    make_keys(a, wa)
    make_keys(b, wb)
    for order in range(1, wa.orders):
        other = 1 - best
        way = compare_orders(a, wa, order, chosen)
        if way == 0:
            way = compare_orders(b, wb, order, chosen)
        if way > 0:
            continue
        if way < 0:
            chosen, encoded = order, False
            continue
        if not encoded:
            encode_pair(a, b, wa, wb, chosen, best)
            encoded = True
        encode_pair(a, b, wa, wb, order, other)
        way = compare_codes(wa, other, best)
        if way == 0:
            way = compare_codes(wb, other, best)
        if way < 0:
            chosen, best = order, other
    if not encoded:
        encode_pair(a, b, wa, wb, chosen, best)
    wa.best = best
    wb.best = best
    return chosen


@helper
def write_pair(codes: Any, row: int, wa: Work, wb: Work, history: int) -> None:
    """Store the codes of a pair, and which promises broke on both sides on the way to it."""
    n = int(wa.bytes)
    for at in range(n):
        codes[row, at] = wa.code[wa.best, at]
        codes[row, n + at] = wb.code[wb.best, at]
    for at in range(2 * n, codes.shape[1]):
        codes[row, at] = 0
    codes[row, 2 * n] = history


@helper
def load_side(states: States, words: Any, w: Work, codes: Any, node: int, first: int) -> None:
    """Unpack one side of a stored pair into its record BASE."""
    for i in range(w.bytes):
        w.row[i] = codes[node, first + i]
    words[BASE] = words[EMPTY]
    decode(w, states[BASE])


@helper
def take_row(states: States, words: Any, w: Work) -> None:
    """Unpack what `encode` left in the first buffer into the record SCRATCH."""
    for i in range(w.bytes):
        w.row[i] = w.code[0, i]
    words[SCRATCH] = words[EMPTY]
    decode(w, states[SCRATCH])


@helper
def copy_pair(
    states_a: States, words_a: Any, wa: Work, states_b: States, words_b: Any, wb: Work, order: int
) -> None:
    """Copy both records BASE to SCRATCH, their names put into another order if `order` says so."""
    if order == 0:
        words_a[SCRATCH] = words_a[BASE]
        words_b[SCRATCH] = words_b[BASE]
        return
    encode_pair(states_a[BASE], states_b[BASE], wa, wb, order, 0)
    take_row(states_a, words_a, wa)
    take_row(states_b, words_b, wb)


@helper
def run_side(states: States, words: Any, w: Work, k: KernelRecord, op: Any, g: Any) -> bool:
    """Run the operation in SCRATCH; whether anything changed."""
    s = states[SCRATCH]
    begin(s, k, op)
    run_path(s, k, 0)
    if g.order == 0 and same_words(words, SCRATCH, BASE, int(w.compared)):
        return False
    check_state(s, k)
    return True


@helper
def cut_short(s: State, tally: Any) -> bool:
    """Whether the run cannot go on on this side."""
    if s.alarm == ALARM_STUCK or s.alarm == ALARM_OVERFLOW:
        tally[STUCK] = s.alarm
        return True
    return False


@helper
def note_difference(
    found: Any, tally: Any, node: int, edge: int, promises: int, hashed: Any
) -> None:
    """List a difference, if there is room."""
    at = tally[FOUND]
    if at < found.shape[0]:
        found[at, 0] = node
        found[at, 1] = edge
        found[at, 2] = promises
        found[at, 3] = np.int64(hashed >> np.uint64(1))
        tally[FOUND] = at + 1


@helper
def broken_on_one(bits_a: int, bits_b: int, known: int) -> int:
    """The promises that just one kernel breaks, and that were kept until now."""
    return (bits_a ^ bits_b) & ~known


@driver
def advance(
    states_a: States,
    words_a: Any,
    works_a: Any,
    kernels_a: Any,
    states_b: States,
    words_b: Any,
    works_b: Any,
    kernels_b: Any,
    ops: Any,
    guards: Any,
    codes: Any,
    code_words: Any,
    table: Any,
    parents: Any,
    edges: Any,
    first: int,
    last: int,
    observe: int,
    asked: int,
    every: int,
    found: Any,
    tally: Any,
) -> int:
    """Expand the stored pairs first .. last - 1; the first one that is not expanded.

    Ends early when there may be no room for another pair's successors, and at the first difference
    unless `every`.

    Args:
        states_a, words_a, works_a, kernels_a: of the first kernel, as `expand.expand` has them.
        codes: (capacity, bytes) the stored pairs; code_words: the same memory as words.
        table: (power of two,) uint64, see `expand.find`; parents, edges: (capacity,).
        observe: what is compared; asked: the promises asked for, as bits.
        found: (most, 4) pair, operation, promises as bits, hash of what follows.
        tally: (NR_TALLIES,) see above.
    """
    ka, kb, wa, wb = kernels_a[0], kernels_b[0], works_a[0], works_b[0]
    nr_ops = ops.shape[0]
    half, n = int(wa.bytes), code_words.shape[1]
    for i in range(first, last):
        if tally[COUNT] + nr_ops + 1 >= parents.shape[0]:
            return i
        load_side(states_a, words_a, wa, codes, i, 0)
        load_side(states_b, words_b, wb, codes, i, half)
        known = int(codes[i, 2 * half])
        for j in range(nr_ops):
            g = guards[j]
            if not possible(states_a[BASE], states_b[BASE], g):
                continue
            tally[TRANSITIONS] += 1
            copy_pair(states_a, words_a, wa, states_b, words_b, wb, int(g.order))
            changed_a = run_side(states_a, words_a, wa, ka, ops[j], g)
            changed_b = run_side(states_b, words_b, wb, kb, ops[j], g)
            a, b = states_a[SCRATCH], states_b[SCRATCH]
            if not changed_a and not changed_b:
                continue
            bits_a, bits_b = breaches_of(a), breaches_of(b)
            if cut_short(a, tally) or cut_short(b, tally):
                continue
            differs = shows_differently(a, b, observe)
            promises, history = 0, 0
            if observe == PROMISES:
                promises = broken_on_one(bits_a, bits_b, known) & asked
                history = known | (bits_a & bits_b & asked)
            pruned = ((bits_a | bits_b) & MEANINGLESS) != 0
            if pruned:
                if promises != 0 or differs:
                    note_difference(found, tally, i, j, promises, hash_words(code_words, i, n))
                    if every == 0:
                        return i
                tally[PRUNED] += 1
                continue
            simplify_for(a, wa, observe)
            simplify_for(b, wb, observe)
            canonical_pair(a, b, wa, wb)
            if a.alarm != 0 or b.alarm != 0:
                tally[ALARM] = a.alarm if a.alarm != 0 else b.alarm
                tally[ALARM_SIDE] = 0 if a.alarm != 0 else 1
                tally[ALARM_EDGE] = j
                return i
            count = tally[COUNT]
            write_pair(codes, count, wa, wb, history)
            hashed = hash_words(code_words, count, n)
            if promises != 0 or differs:
                note_difference(found, tally, i, j, promises, hashed)
                if every == 0:
                    return i
                continue
            place = find(code_words, table, code_words, count, hashed)
            if table[place] != _NOTHING:
                continue
            table[place] = entry_of(hashed, count)
            parents[count] = i
            edges[count] = j
            tally[COUNT] = count + 1
            if observe == PROMISES:
                leaks_a = leaks_of(states_a, words_a, ka)
                leaks_b = leaks_of(states_b, words_b, kb)
                promises = broken_on_one(leaks_a, leaks_b, history) & asked
                if promises != 0:
                    note_difference(found, tally, i, j, promises, hashed)
                    if every == 0:
                        return i
    return last


@driver
def pack_pair(
    states_a: States, works_a: Any, states_b: States, works_b: Any, codes: Any, row: int
) -> int:
    """Store the pair of the records BASE; the order that gave the smallest code."""
    order = canonical_pair(states_a[BASE], states_b[BASE], works_a[0], works_b[0])
    write_pair(codes, row, works_a[0], works_b[0], 0)
    return order


@driver
def unpack_pair(
    states_a: States,
    words_a: Any,
    works_a: Any,
    states_b: States,
    words_b: Any,
    works_b: Any,
    codes: Any,
    node: int,
) -> None:
    """Put both sides of the stored pair into their records BASE."""
    load_side(states_a, words_a, works_a[0], codes, node, 0)
    load_side(states_b, words_b, works_b[0], codes, node, int(works_a[0].bytes))


@driver
def retrace_pair(
    states_a: States,
    words_a: Any,
    works_a: Any,
    kernels_a: Any,
    states_b: States,
    words_b: Any,
    works_b: Any,
    kernels_b: Any,
    ops: Any,
    guards: Any,
    j: int,
    observe: int,
    codes: Any,
    row: int,
) -> int:
    """Do operation j to both records BASE and make what follows the new BASE; the order chosen."""
    wa, wb = works_a[0], works_b[0]
    copy_pair(states_a, words_a, wa, states_b, words_b, wb, int(guards[j].order))
    run_side(states_a, words_a, wa, kernels_a[0], ops[j], guards[j])
    run_side(states_b, words_b, wb, kernels_b[0], ops[j], guards[j])
    a, b = states_a[SCRATCH], states_b[SCRATCH]
    breaches_of(a)
    breaches_of(b)
    simplify_for(a, wa, observe)
    simplify_for(b, wb, observe)
    order = canonical_pair(a, b, wa, wb)
    write_pair(codes, row, wa, wb, 0)
    load_side(states_a, words_a, wa, codes, row, 0)
    load_side(states_b, words_b, wb, codes, row, int(wa.bytes))
    return order
