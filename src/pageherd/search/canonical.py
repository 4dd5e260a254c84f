"""The smallest code of a state: of all that differ in the names of processes, pages, references."""

from __future__ import annotations

from pageherd.machine.jit import helper
from pageherd.machine.layout import State
from pageherd.machine.state import UNUSED
from pageherd.search.packing import Work, encode, word


@helper
def make_key(s: State, w: Work, order: int, buffer: int) -> None:
    """What of a state, renamed by `order`, can be compared without numbering frames."""
    for i in range(s.nr_mms):
        mm = w.mm_at[order, i]
        key = word(s.mm_state[mm]) | word(s.mm_has_pinned[mm]) << 2
        for j in range(s.nr_pages):
            page = w.page_at[order, j]
            want = 0 if w.tokens else word(s.want[mm, page])
            key = key << 16 | word(s.vma[mm, page]) << 8 | word(s.pte[mm, page]) << 2 | want
        w.key[buffer, i] = key
    for i in range(w.refs):
        ref = w.ref_at[order, i]
        key = 0
        if s.ref_frame[ref] != 0:
            key = 1 + word(s.ref_flags[ref]) + 256 * word(s.ref_state[ref])
        w.key[buffer, s.nr_mms + i] = key


@helper
def is_idle_swap(s: State, w: Work, order: int) -> bool:
    """Whether `order` only exchanges names that nothing bears: another order does the same."""
    for i in range(s.nr_mms - 1):
        a, b = w.mm_at[order, i], w.mm_at[order, i + 1]
        if a > b and s.mm_state[a] == UNUSED and s.mm_state[b] == UNUSED:
            return True
    for i in range(w.refs - 1):
        a, b = w.ref_at[order, i], w.ref_at[order, i + 1]
        if a > b and s.ref_frame[a] == 0 and s.ref_frame[b] == 0:
            return True
    return False


@helper
def compare_keys(s: State, w: Work, a: int, b: int) -> int:
    for i in range(s.nr_mms + w.refs):
        if w.key[a, i] != w.key[b, i]:
            return -1 if w.key[a, i] < w.key[b, i] else 1
    return 0


@helper
def compare_codes(w: Work, a: int, b: int) -> int:
    for i in range(w.bytes):
        if w.code[a, i] != w.code[b, i]:
            return -1 if w.code[a, i] < w.code[b, i] else 1
    return 0


@helper
def canonical(s: State, w: Work) -> int:
    """Leave the smallest code of the state in w.code[w.best]; the order that gave it.

    Smallest first by its key, which needs no frames to be numbered, then by its bytes.
    """
    chosen, best, encoded = 0, 0, False
    make_key(s, w, 0, 0)
    for order in range(1, w.orders):
        other = 1 - best
        make_key(s, w, order, other)
        way = compare_keys(s, w, other, best)
        if way > 0 or is_idle_swap(s, w, order):
            continue
        if way < 0:
            chosen, best, encoded = order, other, False
            continue
        if not encoded:
            encode(s, w, chosen, best)
            encoded = True
        encode(s, w, order, other)
        if compare_codes(w, other, best) < 0:
            chosen, best = order, other
    if not encoded:
        encode(s, w, chosen, best)
    w.best = best
    return chosen
