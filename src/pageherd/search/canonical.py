"""States up to renaming: packed, tokens erased, and the smallest of all that differ in names only.

A hunt keeps each state as a short row of bytes, its *code*.  Processes, pages and references may
be renamed at will: of all codes that one state has under the permutations of those, the smallest
is kept.  Frames and swap slots are numbered by first appearance (page tables, then references), so
their names never matter.  What is between operations always the same (locks, registers, the fork
sequence) or never decides anything (running totals; the index of a frame, since hunts set `moved`)
has no place in a code.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from itertools import permutations, product
from typing import Any, Final, TypeAlias

import numpy as np

from pageherd.machine.jit import ALARM_NO_FRAME, ALARM_OVERFLOW, helper
from pageherd.machine.layout import Layout, State, words_compared
from pageherd.machine.state import (
    DEAD,
    LIVE,
    PG_DIRTY,
    PTE_DIRTY,
    PTE_PRESENT,
    PTE_SOFT_DIRTY,
    PTE_SWAP,
    UNUSED,
    VM_SOFTDIRTY,
    ZERO_FRAME,
    clear_flag,
    has_flag,
)

Work: TypeAlias = Any
"""One record of `work_dtype`: the permutations, and room for the codes being compared."""

FRESH: Final = 99  # the value that every store stores: no state between operations has it
TOKENS: Final = 64  # in a search with tokens: values are renamed to 1, 2, ... below this

BITS: Final = ("PTE_SOFT_DIRTY", "PTE_DIRTY")
"""Bits of an entry that matter only if a rule of the kernel looks at them."""

_FRAME_BYTES: Final = 3
_MAX_NIBBLE: Final = 15
_MAX_BYTE: Final = 255


def held_frames(mms: int, pages: int, refs: int, slots: int) -> int:
    """Frames that can be held between operations: mapped, cached, referenced, in the one batch."""
    return mms * pages + slots + refs + 1


def code_bytes(mms: int, pages: int, refs: int, slots: int, tokens: bool) -> int:
    """Bytes of a code, rounded up to whole words."""
    frames = held_frames(mms, pages, refs, slots)
    plain = mms * (1 + 3 * pages) + 3 * refs + 2 * slots + 2 + _FRAME_BYTES * frames
    kept = mms * pages + slots + frames + 1 if tokens else 0
    return (plain + kept + 7) // 8 * 8


@cache
def work_dtype(layout: Layout) -> np.dtype[Any]:
    """The dtype of a `Work` record; sized by the layout, so that scopes share compiled code."""
    sizes = layout.mms, layout.pages, layout.refs
    orders = int(np.prod([np.prod(np.arange(1, size + 1)) for size in sizes]))
    longest = code_bytes(*sizes, layout.slots, True)
    return np.dtype(
        [
            ("orders", "i8"),  # how many of `mm_at`, ... are in use; the first changes no name
            ("refs", "i8"),  # of the scope
            ("held", "i8"),  # frames that a code has room for
            ("bytes", "i8"),  # of a code
            ("tokens", "i8"),  # whether real values are kept
            ("soft_dirty", "i8"),  # whether a rule of the kernel looks at soft-dirty bits
            ("pte_dirty", "i8"),  # whether one looks at the dirty bit of an entry
            ("compared", "i8"),  # words of a record that tell states apart
            ("best", "i8"),  # which of the two rows of `code` is the smallest so far
            ("mm_at", "i1", (orders, layout.mms)),  # the old name at each new place
            ("page_at", "i1", (orders, layout.pages)),
            ("ref_at", "i1", (orders, layout.refs)),
            ("key", "i8", (2, layout.mms + layout.refs)),
            ("code", "u1", (2, longest)),
            ("row", "u1", (longest,)),
            ("frame_no", "i1", (layout.frames,)),  # 0: not numbered yet
            ("slot_no", "i1", (layout.slots,)),
            ("frame_at", "i1", (layout.frames + 1,)),  # the frame with each number
            ("slot_at", "i1", (layout.slots + 1,)),
            ("nr_frames", "i8"),
            ("nr_slots", "i8"),
            ("mm_to", "i1", (layout.mms,)),  # the new name of each old one
            ("page_to", "i1", (layout.pages,)),
            ("value_no", "i1", (FRESH + 1,)),
            ("nr_values", "i8"),
        ],
        align=True,
    )


def work_record(
    layout: Layout,
    sizes: tuple[int, int, int, int],
    looks_at: Collection[str] = BITS,
    *,
    tokens: bool = False,
    symmetry: bool = True,
) -> np.ndarray[Any, np.dtype[Any]]:
    """Room to work in for (processes, pages, references, slots); without symmetry: one order.

    `looks_at`: which of BITS the kernel's rules look at.
    """
    mms, pages, refs, _ = sizes
    work = np.zeros(1, work_dtype(layout))
    every = list(
        product(permutations(range(mms)), permutations(range(pages)), permutations(range(refs)))
    )
    for i, (mm, page, ref) in enumerate(every):
        work["mm_at"][0, i, :mms] = mm
        work["page_at"][0, i, :pages] = page
        work["ref_at"][0, i, :refs] = ref
    work["orders"] = len(every) if symmetry else 1
    work["refs"] = refs
    work["held"] = held_frames(*sizes)
    work["compared"] = words_compared(layout) // 8
    work["bytes"] = code_bytes(*sizes, tokens)
    work["tokens"] = int(tokens)
    work["soft_dirty"] = int("PTE_SOFT_DIRTY" in looks_at)
    work["pte_dirty"] = int("PTE_DIRTY" in looks_at)
    return work


@helper
def word(value: Any) -> int:
    """A field as a signed word: Numba takes a small unsigned field for an unsigned word."""
    return np.int64(value)  # type: ignore[return-value]


# -- what no longer matters ----------------------------------------------------------------------


@helper
def bury(s: State, w: Work) -> None:
    """A dead process whose references are gone leaves nothing: its id may be used again."""
    for mm in range(s.nr_mms):
        s.mm_seq[mm] = 0  # compared only while a path runs
        if s.mm_state[mm] != DEAD:
            continue
        owns = False
        for ref in range(w.refs):
            if s.ref_frame[ref] != 0 and s.ref_mm[ref] == mm:
                owns = True
        if not owns:
            s.mm_state[mm] = UNUSED


@helper
def relation(s: State, want: int, frame: int, slot: int) -> int:
    """1: wanted is what the frame holds; 2: what only its slot holds; 3: neither."""
    if frame > 0:
        if want == s.content[frame]:
            return 1
        if slot >= 0 and not has_flag(s, frame, PG_DIRTY) and want == s.slot_content[slot]:
            return 2
        return 3
    return 1 if want == s.slot_content[slot] else 3


@helper
def erase_tokens(s: State) -> None:
    """Rename values to what can still matter: does a page show what it must?

    Values are only ever compared in one place, when a load of a page is held against `want`; all
    else copies them.  What a load of a page can give before the next store to it is
    - the value of the frame that it shows (mapped, or in the swap cache), or of a copy of it;
    - the value of that frame's slot, if the frame is dropped and read again.  A dirty frame is
      written to the slot first, so the slot's old value can then never be read again (only
      `reclaim_write` clears the dirty flag, only clean frames are dropped while entries are left);
    - zero, if it shows nothing or the zero page.
    Stores bring a value that is nowhere else.  So two states are bisimilar if for each page the
    answers to "is `want` the frame's value, is it the slot's value" and for each slot the answer to
    "is it the value of the cached frame" are equal; that is all that is left here.  Every other
    equation (between two frames, between two pages) is never asked.
    """
    for mm in range(s.nr_mms):
        if s.mm_state[mm] != LIVE:
            continue
        for page in range(s.nr_pages):
            pte, to, want = word(s.pte[mm, page]), word(s.pte_to[mm, page]), word(s.want[mm, page])
            if pte & PTE_PRESENT and to != ZERO_FRAME:
                s.want[mm, page] = relation(s, want, to, word(s.frame_slot[to]) - 1)
            elif pte & PTE_SWAP:
                s.want[mm, page] = relation(s, want, word(s.slot_frame[to]) - 1, to)
            elif pte & PTE_PRESENT:
                s.want[mm, page] = 0 if want == s.content[ZERO_FRAME] else 1
            else:
                s.want[mm, page] = 0 if want == 0 else 1
    for slot in range(s.nr_slots):
        frame = word(s.slot_frame[slot]) - 1
        if frame > 0 and not has_flag(s, frame, PG_DIRTY):
            s.slot_content[slot] = 1 if s.slot_content[slot] == s.content[frame] else 2
        else:
            s.slot_content[slot] = 1 if frame > 0 or s.swap_count[slot] != 0 else 0
    s.content[ZERO_FRAME] = 0
    for frame in range(1, s.nr_frames):
        s.content[frame] = 1 if s.refcount[frame] != 0 or s.pincount[frame] != 0 else 0


@helper
def clean_bits(s: State, w: Work) -> None:
    """Clear bits that are set again, or cleared, before anything looks at them.

    A frame is dirty from the moment it enters the swap cache (`reclaim_swap`), until it is written
    with no entry left; so before that neither its own dirty bit nor those of its entries matter,
    unless a rule looks at them.  Soft-dirty bits are looked at by rules only.
    """
    for mm in range(s.nr_mms):
        for page in range(s.nr_pages):
            pte = word(s.pte[mm, page])
            if w.soft_dirty == 0:
                s.vma[mm, page] = word(s.vma[mm, page]) & (255 - VM_SOFTDIRTY)
                pte &= 255 - PTE_SOFT_DIRTY
            if w.pte_dirty == 0 and pte & PTE_PRESENT and s.frame_slot[s.pte_to[mm, page]] == 0:
                pte &= 255 - PTE_DIRTY
            s.pte[mm, page] = pte
    for frame in range(1, s.nr_frames):
        if s.frame_slot[frame] == 0:
            clear_flag(s, frame, PG_DIRTY)


@helper
def simplify(s: State, w: Work) -> None:
    """Forget all that no longer matters; the state is then ready for `canonical`."""
    bury(s, w)
    clean_bits(s, w)
    s.copies = 0
    if w.tokens == 0:
        erase_tokens(s)


# -- numbering frames and slots ------------------------------------------------------------------


@helper
def number_frame(s: State, w: Work, frame: int) -> int:
    """The number of a frame in use, the next one if it has none; its slot is numbered with it."""
    if frame <= ZERO_FRAME or w.frame_no[frame] != 0:
        return word(w.frame_no[frame]) if frame > ZERO_FRAME else 0
    w.nr_frames += 1
    w.frame_no[frame] = w.nr_frames
    w.frame_at[w.nr_frames] = frame
    slot = word(s.frame_slot[frame]) - 1
    if slot >= 0 and w.slot_no[slot] == 0:
        w.nr_slots += 1
        w.slot_no[slot] = w.nr_slots
        w.slot_at[w.nr_slots] = slot
    return word(w.frame_no[frame])


@helper
def number_slot(s: State, w: Work, slot: int) -> int:
    """The number of a slot in use; the frame that is cached for it is numbered with it."""
    if w.slot_no[slot] == 0:
        w.nr_slots += 1
        w.slot_no[slot] = w.nr_slots
        w.slot_at[w.nr_slots] = slot
        number_frame(s, w, word(s.slot_frame[slot]) - 1)
    return word(w.slot_no[slot])


@helper
def frame_traits(s: State, w: Work, frame: int) -> int:
    """What tells apart frames that no page table and no reference names."""
    slot = word(s.frame_slot[frame]) - 1
    traits = word(s.refcount[frame]) * 16 + word(s.mapcount[frame])
    traits = traits * 64 + (word(s.page_flags[frame]) | (32 if s.frame_batch[frame] else 0))
    traits = traits * 16 + word(s.pincount[frame])
    if slot < 0:
        return traits * 4096
    return (
        traits * 4096 + 1 + 4 * word(s.swap_count[slot]) + 1024 * (word(s.slot_content[slot]) & 3)
    )


@helper
def number_the_rest(s: State, w: Work) -> None:
    """Frames and slots that only batches and the swap cache know, in an order free of names.

    Those with equal traits are alike in every way: nothing else names them.
    """
    while True:
        chosen, least = -1, 0
        for frame in range(1, s.nr_frames):
            if w.frame_no[frame] == 0 and (s.refcount[frame] != 0 or s.pincount[frame] != 0):
                traits = frame_traits(s, w, frame)
                if chosen < 0 or traits < least:
                    chosen, least = frame, traits
        if chosen < 0:
            break
        number_frame(s, w, chosen)
    while True:
        chosen, least = -1, 0
        for slot in range(s.nr_slots):
            if w.slot_no[slot] == 0 and s.swap_count[slot] != 0:
                traits = word(s.swap_count[slot]) * 256 + word(s.slot_content[slot])
                if chosen < 0 or traits < least:
                    chosen, least = slot, traits
        if chosen < 0:
            break
        number_slot(s, w, chosen)


# -- the code of a state -------------------------------------------------------------------------


@helper
def put(w: Work, buffer: int, at: int, byte: int) -> int:
    w.code[buffer, at] = byte
    return at + 1


@helper
def encode(s: State, w: Work, order: int, buffer: int) -> None:
    """Write the code of the state, renamed by `order`, to w.code[buffer]."""
    mms, pages, refs, slots = word(s.nr_mms), word(s.nr_pages), word(w.refs), word(s.nr_slots)
    w.nr_frames, w.nr_slots = 0, 0
    for frame in range(s.nr_frames):
        w.frame_no[frame] = 0
    for slot in range(slots):
        w.slot_no[slot] = 0
    for i in range(mms):
        w.mm_to[w.mm_at[order, i]] = i
    for i in range(pages):
        w.page_to[w.page_at[order, i]] = i
    at = 0
    for i in range(mms):
        mm = w.mm_at[order, i]
        at = put(w, buffer, at, word(s.mm_state[mm]) | word(s.mm_has_pinned[mm]) << 2)
        for j in range(pages):
            page = w.page_at[order, j]
            pte, to = word(s.pte[mm, page]), word(s.pte_to[mm, page])
            if pte & PTE_SWAP:
                to = number_slot(s, w, to)
            elif pte & PTE_PRESENT:
                to = number_frame(s, w, to)
            want = 0 if w.tokens else word(s.want[mm, page])
            at = put(w, buffer, at, word(s.vma[mm, page]))
            at = put(w, buffer, at, pte | want << 6)
            at = put(w, buffer, at, to)
    for i in range(refs):
        ref = w.ref_at[order, i]
        held = word(s.ref_frame[ref])
        owner, page = 0, word(s.ref_page[ref])
        if held:
            held = 1 + number_frame(s, w, held - 1)
            owner = word(w.mm_to[s.ref_mm[ref]])
        if page:
            page = 1 + word(w.page_to[page - 1])
        at = put(w, buffer, at, held)
        at = put(w, buffer, at, word(s.ref_flags[ref]))
        at = put(w, buffer, at, owner | page << 3 | word(s.ref_state[ref]) << 6)
    number_the_rest(s, w)
    at = encode_frames(s, w, buffer, at)
    if w.tokens:
        at = encode_values(s, w, order, buffer, at)
    while at < w.bytes:
        at = put(w, buffer, at, 0)


@helper
def encode_frames(s: State, w: Work, buffer: int, at: int) -> int:
    """The part of a code about slots and frames, in the order of their numbers."""
    for number in range(1, s.nr_slots + 1):
        count, frame = 0, 0
        if number <= w.nr_slots:
            slot = w.slot_at[number]
            kept = 0 if w.tokens else word(s.slot_content[slot])
            count = word(s.swap_count[slot]) | kept << 6
            frame = number_frame(s, w, word(s.slot_frame[slot]) - 1)
        at = put(w, buffer, at, count)
        at = put(w, buffer, at, frame)
    at = put(w, buffer, at, word(s.refcount[ZERO_FRAME]))
    at = put(w, buffer, at, word(s.pincount[ZERO_FRAME]))
    if w.nr_frames > w.held:
        s.alarm = ALARM_NO_FRAME
        return at
    for number in range(1, w.held + 1):
        refs, maps, flags = 0, 0, 0
        if number <= w.nr_frames:
            frame = w.frame_at[number]
            refs = word(s.refcount[frame])
            maps = word(s.mapcount[frame]) | word(s.pincount[frame]) << 4
            flags = word(s.page_flags[frame]) | (32 if s.frame_batch[frame] else 0)
            if s.frame_slot[frame] != 0:
                flags |= word(w.slot_no[word(s.frame_slot[frame]) - 1]) << 6
            if s.mapcount[frame] > _MAX_NIBBLE or s.pincount[frame] > _MAX_NIBBLE:
                s.alarm = ALARM_OVERFLOW
            if refs > _MAX_BYTE:
                s.alarm = ALARM_OVERFLOW
        at = put(w, buffer, at, refs)
        at = put(w, buffer, at, maps)
        at = put(w, buffer, at, flags)
    return at


@helper
def rename(w: Work, value: int) -> int:
    """The new name of a value; zero keeps its name."""
    if value == 0:
        return 0
    if w.value_no[value] == 0:
        w.nr_values += 1
        w.value_no[value] = w.nr_values
    return word(w.value_no[value])


@helper
def encode_values(s: State, w: Work, order: int, buffer: int, at: int) -> int:
    """The values themselves, renamed by first appearance (a search that keeps tokens)."""
    for value in range(FRESH + 1):
        w.value_no[value] = 0
    w.nr_values = 0
    for i in range(s.nr_mms):
        for j in range(s.nr_pages):
            mm, page = w.mm_at[order, i], w.page_at[order, j]
            at = put(w, buffer, at, rename(w, word(s.want[mm, page])))
    at = put(w, buffer, at, rename(w, word(s.content[ZERO_FRAME])))
    for number in range(1, w.held + 1):
        value = word(s.content[w.frame_at[number]]) if number <= w.nr_frames else 0
        at = put(w, buffer, at, rename(w, value))
    for number in range(1, s.nr_slots + 1):
        value = word(s.slot_content[w.slot_at[number]]) if number <= w.nr_slots else 0
        at = put(w, buffer, at, rename(w, value))
    return at


@helper
def decode(w: Work, s: State) -> None:
    """The state that the code in w.row stands for; `s` is an empty state of the scope."""
    mms, pages, refs, slots = word(s.nr_mms), word(s.nr_pages), word(w.refs), word(s.nr_slots)
    at = 0
    for mm in range(mms):
        s.mm_state[mm] = w.row[at] & 3
        s.mm_has_pinned[mm] = w.row[at] >> 2
        at += 1
        for page in range(pages):
            pte = word(w.row[at + 1]) & 63
            s.vma[mm, page] = w.row[at]
            s.pte[mm, page] = pte
            s.want[mm, page] = w.row[at + 1] >> 6
            s.pte_to[mm, page] = word(w.row[at + 2]) - (1 if pte & PTE_SWAP else 0)
            at += 3
    for ref in range(refs):
        if w.row[at] != 0:
            s.ref_frame[ref] = w.row[at]
            s.ref_times[ref] = 1
            s.ref_flags[ref] = w.row[at + 1]
            s.ref_mm[ref] = w.row[at + 2] & 7
            s.ref_page[ref] = w.row[at + 2] >> 3 & 7
            s.ref_state[ref] = w.row[at + 2] >> 6
        at += 3
    for slot in range(slots):
        s.swap_count[slot] = w.row[at] & 63
        s.slot_content[slot] = w.row[at] >> 6
        s.slot_frame[slot] = 0 if w.row[at + 1] == 0 else w.row[at + 1] + 1
        at += 2
    s.refcount[ZERO_FRAME] = w.row[at]
    s.pincount[ZERO_FRAME] = w.row[at + 1]
    at += 2
    for frame in range(1, w.held + 1):
        s.refcount[frame] = w.row[at]
        s.mapcount[frame] = w.row[at + 1] & 15
        s.pincount[frame] = w.row[at + 1] >> 4
        s.page_flags[frame] = w.row[at + 2] & 31
        s.frame_batch[frame] = w.row[at + 2] >> 5 & 1
        s.frame_slot[frame] = w.row[at + 2] >> 6
        used = s.refcount[frame] != 0 or s.pincount[frame] != 0
        s.content[frame] = 1 if used else 0
        at += _FRAME_BYTES
    if w.tokens:
        decode_values(w, s, at)


@helper
def decode_values(w: Work, s: State, at: int) -> None:
    for mm in range(s.nr_mms):
        for page in range(s.nr_pages):
            s.want[mm, page] = w.row[at]
            at += 1
    for frame in range(w.held + 1):
        s.content[frame] = w.row[at]
        at += 1
    for slot in range(s.nr_slots):
        s.slot_content[slot] = w.row[at]
        at += 1


# -- the smallest code ---------------------------------------------------------------------------


@helper
def make_key(s: State, w: Work, order: int, buffer: int) -> None:
    """What of a state, renamed by `order`, can be compared without numbering frames."""
    for i in range(s.nr_mms):
        mm = w.mm_at[order, i]
        key = word(s.mm_state[mm]) | word(s.mm_has_pinned[mm]) << 2
        for j in range(s.nr_pages):
            page = w.page_at[order, j]
            want = 0 if w.tokens else word(s.want[mm, page])
            key = key << 15 | word(s.vma[mm, page]) << 8 | word(s.pte[mm, page]) << 2 | want
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
