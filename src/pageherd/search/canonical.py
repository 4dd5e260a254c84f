"""The smallest code of a state: of all that differ in the names of processes, pages, references."""

from __future__ import annotations

from pageherd.machine.folio import has_folios
from pageherd.machine.jit import helper
from pageherd.machine.layout import State
from pageherd.machine.state import REF_SHARED, UNUSED
from pageherd.search.packing import encode, word
from pageherd.search.work import Work


@helper
def make_keys(s: State, w: Work) -> None:
    """What of processes, in each order of their pages, and of references needs no frame numbers."""
    for order in range(w.page_orders):
        for mm in range(s.nr_mms):
            key = word(s.mm_state[mm]) | word(s.mm_has_pinned[mm]) << 2
            for j in range(s.nr_pages):
                page = w.page_at[order * w.page_step, j]
                want = 0 if w.tokens else word(s.want[mm, page])
                key = key << 16 | (word(s.vma[mm, page]) & 255) << 8
                key |= (word(s.pte[mm, page]) & 63) << 2 | want
            w.mm_key[order, mm] = key
    for ref in range(w.refs):
        key = 0
        if s.ref_frame[ref] != 0:
            key = 1 + word(s.ref_flags[ref]) + 256 * word(s.ref_state[ref])
        w.ref_key[ref] = key


@helper
def compare_orders(s: State, w: Work, a: int, b: int) -> int:
    """Which of two orders puts the smaller keys first."""
    pages_a, pages_b = w.page_order[a], w.page_order[b]
    for i in range(s.nr_mms):
        one, other = w.mm_key[pages_a, w.mm_at[a, i]], w.mm_key[pages_b, w.mm_at[b, i]]
        if one != other:
            return -1 if one < other else 1
    for i in range(w.refs):
        one, other = w.ref_key[w.ref_at[a, i]], w.ref_key[w.ref_at[b, i]]
        if one != other:
            return -1 if one < other else 1
    return 0


@helper
def processes_alike(s: State, w: Work, a: int, b: int) -> bool:
    """Whether exchanging the names of two processes changes nothing: same entries, no references.

    Two that share every page, say, or two ids that nobody bears.
    """
    if w.mm_key[0, a] != w.mm_key[0, b] or (has_folios(s) and s.mm_state[a] != UNUSED):
        return False  # processes are named in a large folio, too
    for page in range(s.nr_pages):
        if s.pte_to[a, page] != s.pte_to[b, page] or s.want[a, page] != s.want[b, page]:
            return False
    for ref in range(w.refs):
        owned = s.ref_frame[ref] != 0 and (word(s.ref_state[ref]) & REF_SHARED) == 0
        if owned and (s.ref_mm[ref] == a or s.ref_mm[ref] == b):
            return False
    return True


@helper
def references_alike(s: State, w: Work, a: int, b: int) -> bool:
    """Whether exchanging the names of two references changes nothing."""
    same = s.ref_frame[a] == s.ref_frame[b] and s.ref_page[a] == s.ref_page[b]
    return bool(same and s.ref_mm[a] == s.ref_mm[b] and w.ref_key[a] == w.ref_key[b])


@helper
def find_alike(s: State, w: Work) -> int:
    """The pairs that are alike, as bits: of two orders that only exchange such, one is enough."""
    alike = 0
    for a in range(s.nr_mms):
        for b in range(a + 1, s.nr_mms):
            if processes_alike(s, w, a, b):
                alike |= w.pair[0, a, b]
    for a in range(w.refs):
        for b in range(a + 1, w.refs):
            if references_alike(s, w, a, b):
                alike |= w.pair[1, a, b]
    return alike


@helper
def compare_codes(w: Work, a: int, b: int) -> int:
    for i in range(w.bytes):
        if w.code[a, i] != w.code[b, i]:
            return -1 if w.code[a, i] < w.code[b, i] else 1
    return 0


@helper
def canonical(s: State, w: Work) -> int:
    """Leave the smallest code of the state in w.code[w.best]; the order that gave it.

    Smallest first by its keys, which need no frames to be numbered, then by its bytes.
    """
    chosen, best, encoded = 0, 0, False
    make_keys(s, w)
    alike = find_alike(s, w)
    for order in range(1, w.orders):
        if w.exchanged[order] & alike:
            continue
        way = compare_orders(s, w, order, chosen)
        if way < 0:
            chosen, encoded = order, False
        elif way == 0:
            if not encoded:
                encode(s, w, chosen, best)
                encoded = True
            encode(s, w, order, 1 - best)
            if compare_codes(w, 1 - best, best) < 0:
                chosen, best = order, 1 - best
    if not encoded:
        encode(s, w, chosen, best)
    w.best = best
    return chosen
