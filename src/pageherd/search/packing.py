"""States as short rows of bytes, and back.

A hunt keeps each state as a short row of bytes, its *code*.  Processes, pages and references may
be renamed at will: of all codes that one state has under the permutations of those, the smallest
is kept.  Frames and swap slots are numbered by first appearance (page tables, then references), so
their names never matter.  What is between operations always the same (locks, registers, the fork
sequence) or never decides anything (running totals; the index of a frame, since hunts set `moved`)
has no place in a code.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from pageherd.machine.folio import compound_head, folio_nr_pages, has_folios
from pageherd.machine.jit import ALARM_NO_FRAME, ALARM_OVERFLOW, helper
from pageherd.machine.layout import State
from pageherd.machine.state import (
    PTE_PRESENT,
    PTE_SWAP,
    REF_MAP_SHARED,
    REF_SHARED,
    ZERO_FRAME,
)
from pageherd.search.work import FRAME_BYTES, FRESH, LARGE_FRAME_BYTES, Work

_BATCHED: Final = 1 << 12  # beside the flags of a frame of the machine
_ZEROS: Final = 1 << 13
_MAX_NIBBLE: Final = 15
_MAX_BYTE: Final = 255


@helper
def word(value: Any) -> int:
    """A field as a signed word: Numba takes a small unsigned field for an unsigned word."""
    return np.int64(value)  # type: ignore[return-value]


# -- numbering frames and slots ------------------------------------------------------------------


@helper
def number_frame(s: State, w: Work, frame: int) -> int:
    """The number of a frame in use, the next one if it has none; its slot is numbered with it.

    So are the other frames of its folio, in a row.
    """
    if frame <= ZERO_FRAME or w.frame_no[frame] != 0:
        return word(w.frame_no[frame]) if frame > ZERO_FRAME else 0
    head = compound_head(s, frame)
    for each in range(head, head + folio_nr_pages(s, frame)):
        w.nr_frames += 1
        w.frame_no[each] = w.nr_frames
        w.frame_at[w.nr_frames] = each
        slot = word(s.frame_slot[each]) - 1
        if slot >= 0:
            give_slot(s, w, slot)
    return word(w.frame_no[frame])


@helper
def give_slot(s: State, w: Work, slot: int) -> None:
    """The next number for a slot that has none; slots of large folios keep theirs, in a row."""
    if w.slot_no[slot] == 0:
        w.nr_slots += 1
        w.slot_no[slot] = w.nr_slots
        w.slot_at[w.nr_slots] = slot


@helper
def number_slot(s: State, w: Work, slot: int) -> int:
    """The number of a slot in use; the frame that is cached for it is numbered with it."""
    give_slot(s, w, slot)
    number_frame(s, w, word(s.slot_frame[slot]) - 1)
    return word(w.slot_no[slot])


@helper
def frame_traits(s: State, w: Work, frame: int) -> int:
    """What tells apart frames that no page table and no reference names."""
    slot = word(s.frame_slot[frame]) - 1
    traits = word(s.refcount[frame]) * 16 + word(s.mapcount[frame])
    if has_folios(s):
        traits = traits * 64 + word(s.page_flags[frame]) // 64
        traits = traits * 4 + word(s.frame_order[frame])
        traits = traits * 256 + word(s.large_mapcount[frame]) * 16 + word(s.entire_mapcount[frame])
    traits = traits * 64 + (word(s.page_flags[frame]) & 31 | (32 if s.frame_batch[frame] else 0))
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
def put_two(w: Work, buffer: int, at: int, value: int) -> int:
    return put(w, buffer, put(w, buffer, at, value & 255), value >> 8)


@helper
def two_at(w: Work, at: int) -> int:
    return word(w.row[at]) | word(w.row[at + 1]) << 8


@helper
def new_page_name(w: Work, page: int) -> int:
    """The new name of a page, plus one, from the old one, plus one; 0 is none."""
    return 1 + word(w.page_to[page - 1]) if page else 0


@helper
def encode(s: State, w: Work, order: int, buffer: int) -> None:
    """Write the code of the state, renamed by `order`, to w.code[buffer]."""
    mms, pages, refs, slots = word(s.nr_mms), word(s.nr_pages), word(w.refs), word(s.nr_slots)
    w.nr_frames, w.nr_slots = 0, 0
    for frame in range(s.nr_frames):
        w.frame_no[frame] = 0
    for slot in range(slots):
        w.slot_no[slot] = 0
        if has_folios(s):
            give_slot(s, w, slot)
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
            if has_folios(s):
                at = put(w, buffer, at, word(s.vma_anon[mm, page]))
                at = put_two(w, buffer, at, word(s.vma[mm, page]))
                at = put_two(w, buffer, at, pte)
                at = put(w, buffer, at, want)
                if w.wide:
                    at = put(w, buffer, at, word(s.freed[mm, page]))
                    at = put(w, buffer, at, new_page_name(w, word(s.vma_file[mm, page])))
            else:
                at = put(w, buffer, at, word(s.vma[mm, page]))
                at = put(w, buffer, at, pte | want << 6)
            at = put(w, buffer, at, to)
    for i in range(refs):
        ref = w.ref_at[order, i]
        held = word(s.ref_frame[ref])
        owner, page, state = 0, word(s.ref_page[ref]), word(s.ref_state[ref])
        if held:
            held = 1 + number_frame(s, w, held - 1)
            if state & REF_SHARED == 0:
                owner = word(w.mm_to[s.ref_mm[ref]])
        page = new_page_name(w, page)
        at = put(w, buffer, at, held)
        at = put(w, buffer, at, word(s.ref_flags[ref]))
        at = put(w, buffer, at, owner | (state & REF_MAP_SHARED) | page << 3 | (state & 3) << 6)
    if has_folios(s) and w.wide:
        for i in range(pages):
            cached = word(s.file_frame[w.page_at[order, i]])
            at = put(w, buffer, at, 1 + number_frame(s, w, cached - 1) if cached else 0)
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
    if has_folios(s):
        return encode_large(s, w, buffer, at)
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
def encode_large(s: State, w: Work, buffer: int, at: int) -> int:
    """Frames, some of large folios; and whether one holds zeros, since rules look for those."""
    for number in range(1, w.held + 1):
        if number > w.nr_frames:
            for _ in range(LARGE_FRAME_BYTES):
                at = put(w, buffer, at, 0)
            continue
        frame = w.frame_at[number]
        flags = word(s.page_flags[frame]) | (_BATCHED if s.frame_batch[frame] else 0)
        flags |= _ZEROS if s.content[frame] == 0 else 0
        total, entire = word(s.large_mapcount[frame]), word(s.entire_mapcount[frame])
        one, other = mapper(s, w, frame, 0), mapper(s, w, frame, 1)
        if one < other:  # neither slot is the first one
            one, other = other, one
        if s.mapcount[frame] > _MAX_NIBBLE or s.pincount[frame] > _MAX_NIBBLE:
            s.alarm = ALARM_OVERFLOW
        if total > _MAX_NIBBLE or entire > _MAX_NIBBLE or s.refcount[frame] > _MAX_BYTE:
            s.alarm = ALARM_OVERFLOW
        place = word(s.frame_slot[frame]) | word(s.frame_tail[frame]) << 2
        at = put(w, buffer, at, word(s.refcount[frame]))
        at = put(w, buffer, at, word(s.mapcount[frame]) | word(s.pincount[frame]) << 4)
        at = put_two(w, buffer, at, flags)
        at = put(w, buffer, at, place | word(s.frame_order[frame]) << 6)
        at = put(w, buffer, at, total | entire << 4)
        at = put(w, buffer, at, one)
        at = put(w, buffer, at, other)
    return at


@helper
def mapper(s: State, w: Work, frame: int, slot: int) -> int:
    """A process that maps a large folio, and how often."""
    mm, count = word(s.mm_id[frame, slot]), word(s.mm_id_mapcount[frame, slot])
    if count > _MAX_NIBBLE:
        s.alarm = ALARM_OVERFLOW
    return (1 + word(w.mm_to[mm - 1]) if mm else 0) << 4 | count


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
            if has_folios(s):
                pte = two_at(w, at + 3)
                s.vma_anon[mm, page] = w.row[at]
                s.vma[mm, page] = two_at(w, at + 1)
                s.pte[mm, page] = pte
                s.want[mm, page] = w.row[at + 5]
                if w.wide:
                    s.freed[mm, page] = w.row[at + 6]
                    s.vma_file[mm, page] = w.row[at + 7]
                    at += 2
                s.pte_to[mm, page] = word(w.row[at + 6]) - (1 if pte & PTE_SWAP else 0)
                at += 7
                continue
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
            s.ref_mm[ref] = w.row[at + 2] & 3
            s.ref_page[ref] = w.row[at + 2] >> 3 & 7
            s.ref_state[ref] = w.row[at + 2] >> 6 | (w.row[at + 2] & REF_MAP_SHARED)
        at += 3
    if has_folios(s) and w.wide:
        for page in range(pages):
            s.file_frame[page] = w.row[at]
            at += 1
    for slot in range(slots):
        s.swap_count[slot] = w.row[at] & 63
        s.slot_content[slot] = w.row[at] >> 6
        s.slot_frame[slot] = 0 if w.row[at + 1] == 0 else w.row[at + 1] + 1
        at += 2
    s.refcount[ZERO_FRAME] = w.row[at]
    s.pincount[ZERO_FRAME] = w.row[at + 1]
    at += 2
    at = decode_large(w, s, at) if has_folios(s) else decode_frames(w, s, at)
    if w.tokens:
        decode_values(w, s, at)


@helper
def decode_frames(w: Work, s: State, at: int) -> int:
    for frame in range(1, w.held + 1):
        s.refcount[frame] = w.row[at]
        s.mapcount[frame] = w.row[at + 1] & 15
        s.pincount[frame] = w.row[at + 1] >> 4
        s.page_flags[frame] = w.row[at + 2] & 31
        s.frame_batch[frame] = w.row[at + 2] >> 5 & 1
        s.frame_slot[frame] = w.row[at + 2] >> 6
        used = s.refcount[frame] != 0 or s.pincount[frame] != 0
        s.content[frame] = 1 if used else 0
        at += FRAME_BYTES
    return at


@helper
def decode_large(w: Work, s: State, at: int) -> int:
    for frame in range(1, w.held + 1):
        flags = two_at(w, at + 2)
        s.refcount[frame] = w.row[at]
        s.mapcount[frame] = w.row[at + 1] & 15
        s.pincount[frame] = w.row[at + 1] >> 4
        s.page_flags[frame] = flags & (_BATCHED - 1)
        s.frame_batch[frame] = 1 if flags & _BATCHED else 0
        s.frame_slot[frame] = w.row[at + 4] & 3
        s.frame_tail[frame] = w.row[at + 4] >> 2 & 15
        s.frame_order[frame] = w.row[at + 4] >> 6
        s.large_mapcount[frame] = w.row[at + 5] & 15
        s.entire_mapcount[frame] = w.row[at + 5] >> 4
        for slot in range(2):
            s.mm_id[frame, slot] = w.row[at + 6 + slot] >> 4
            s.mm_id_mapcount[frame, slot] = w.row[at + 6 + slot] & 15
        head = frame - word(s.frame_tail[frame])
        used = s.refcount[head] != 0 or s.pincount[head] != 0
        s.content[frame] = 1 if used and (flags & _ZEROS) == 0 else 0
        at += LARGE_FRAME_BYTES
    return at


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
