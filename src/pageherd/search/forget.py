"""What a state between two operations may forget, because nothing can tell the difference.

Each thing forgotten is a map from states to states such that a state and its image are *bisimilar*:
whatever operation is done to one of them, some operation leads the other one to a bisimilar state
and breaks the same promises.  So the search explores images only, and finds the same breaches after
the same number of operations.  Each helper below says why its map is such a one; the suite checks
that the search over images reaches the images of the states that the plain search reaches, and no
others, equally deep.  `forgettable.py` says which of them hold for which kernel.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from pageherd.machine.folio import (
    clear_flag,
    compound_head,
    free_if_unused,
    has_flag,
    has_folios,
)
from pageherd.machine.jit import KernelRecord, driver, helper, invoke_rule
from pageherd.machine.layout import State, States
from pageherd.machine.pte import set_pte
from pageherd.machine.questions import REUSE, REUSE_PAGE
from pageherd.machine.state import (
    AV_ALONE,
    AV_ID,
    AV_START,
    DEAD,
    FOLL_GET,
    FOLL_LONGTERM,
    FOLL_PIN,
    FOLL_WRITE,
    LIVE,
    PG_DIRTY,
    PG_EXCLUSIVE,
    PG_LRU,
    PTE_DIRTY,
    PTE_PRESENT,
    PTE_SOFT_DIRTY,
    PTE_SWAP,
    PTE_WRITE,
    REF_FORKED,
    REF_IO_URING,
    REF_SHARED,
    UNUSED,
    VM_ANON_VMA,
    VM_HUGEPAGE,
    VM_MAPPED,
    VM_SOFTDIRTY,
    VM_WRITE,
    ZERO_FRAME,
)
from pageherd.machine.watch import (
    GET_FORK,
    OWN_WRITES,
    PIN_COHERENT,
    PRIVATE,
    promised_to_follow,
)
from pageherd.search.packing import word
from pageherd.search.work import Work

SOFT_DIRTY: Final = 1
PTE_DIRTIES: Final = 2
WRITE_BIT: Final = 4
HAS_PINNED: Final = 8
FOLL_FLAGS: Final = 16
OUT_OF_REACH: Final = 32
MAP_COUNT: Final = 64
ZERO_ENTRY: Final = 128
ZERO_PINS: Final = 256
FOLIOS: Final = 512
"""The bits of `Work.forget`."""


@helper
def relation(s: State, want: int, frame: int, slot: int) -> int:
    """1: wanted is what the frame holds; 2: what only its slot holds; 3: neither."""
    if frame > 0:
        if want == s.content[frame]:
            return name_of(s, want, 1)
        dirty = has_flag(s, compound_head(s, frame), PG_DIRTY)
        if slot >= 0 and not dirty and want == s.slot_content[slot]:
            return name_of(s, want, 2)
        return 3
    return name_of(s, want, 1) if want == s.slot_content[slot] else 3


@helper
def name_of(s: State, value: int, name: int) -> int:
    """The new name of a value; where there are large folios zero keeps its own.

    Splitting a folio and swapping it out look for pages of zeros.
    """
    return 0 if has_folios(s) and value == 0 else name


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
        kept = word(s.slot_content[slot])
        if frame > 0 and not has_flag(s, compound_head(s, frame), PG_DIRTY):
            s.slot_content[slot] = name_of(s, kept, 1 if kept == s.content[frame] else 2)
        elif frame > 0:
            s.slot_content[slot] = 1
        else:
            s.slot_content[slot] = name_of(s, kept, 1) if s.swap_count[slot] != 0 else 0
    name_contents(s)


@helper
def name_contents(s: State) -> None:
    """What a frame in use holds has one name."""
    s.content[ZERO_FRAME] = 0
    for frame in range(1, s.nr_frames):
        head = compound_head(s, frame)
        used = s.refcount[head] != 0 or s.pincount[head] != 0
        s.content[frame] = name_of(s, word(s.content[frame]), 1) if used else 0


@helper
def is_settled(w: Work, promise: int) -> bool:
    """Whether the search has a shortest breach of the promise already, or nobody asked for it."""
    return bool(w.settled >> promise & 1)


@helper
def forget_values(s: State) -> None:
    """Once `own-writes` is settled, no value matters: let every page show what it must."""
    for mm in range(s.nr_mms):
        for page in range(s.nr_pages):
            pte, to = word(s.pte[mm, page]), word(s.pte_to[mm, page])
            own = pte & PTE_SWAP or (pte & PTE_PRESENT and to != ZERO_FRAME)
            shown = 0
            if own and s.mm_state[mm] == LIVE:
                cached = word(s.slot_frame[to]) - 1 if pte & PTE_SWAP else to
                shown = word(s.content[cached] if cached > 0 else s.slot_content[to])
                shown = name_of(s, shown, 1)
            s.want[mm, page] = shown
    for slot in range(s.nr_slots):
        used = s.slot_frame[slot] != 0 or s.swap_count[slot] != 0
        s.slot_content[slot] = name_of(s, word(s.slot_content[slot]), 1) if used else 0
    name_contents(s)


@helper
def forget_settled(s: State, w: Work, ref: int) -> None:
    """Of a reference, what only promises look at of which nothing more is to be found out.

    What the monitors keep (`want`, where a reference is attached, whose it is, whether a fork went
    over it) never decides what the machine does, only which promise a step breaks.  So states that
    differ in nothing else break all other promises alike, and after the level of the search that
    found a shortest breach of a promise, what serves its monitor alone may go:
    - attachment serves `pin-coherent` or, if the reference is a short-term FOLL_GET for writing,
      `get-fork`; it tells `own-writes` where a store through a reference must show; and for such a
      FOLL_GET it leads to the mark of a fork, by which a store is excused from `private`;
    - that mark serves `private`, `get-fork` and `own-writes`;
    - the owner serves attachment, `private` and `get-fork`.
    A process that is gone and owned it leaves its id sooner, as when it had let it go.
    """
    stores = is_settled(w, PRIVATE) and is_settled(w, GET_FORK)
    values = is_settled(w, OWN_WRITES)
    writes = (word(s.ref_flags[ref]) & FOLL_WRITE) != 0
    if promised_to_follow(s, ref):
        if is_settled(w, PIN_COHERENT) and (values or not writes):
            s.ref_page[ref] = 0
    elif (stores and values) or not writes:
        s.ref_page[ref] = 0
        s.ref_state[ref] = word(s.ref_state[ref]) & ~REF_FORKED
    if stores and s.ref_page[ref] == 0:
        s.ref_state[ref] = REF_SHARED
        s.ref_mm[ref] = 0


@helper
def forget_entry_bits(s: State, w: Work, mm: int, page: int) -> None:
    """Bits of an entry, and the soft-dirty flag of its mapping.

    Soft-dirty bits are looked at by rules only.  A frame is dirty from the moment it enters the
    swap cache (`reclaim_swap`) until it is written with no entry left; so before that neither its
    own dirty bit nor those of its entries matter, and while it is dirty those of its entries do
    not, unless a rule looks at them.

    The write bit of an entry that maps an exclusive page does not matter where such a page is
    always reused, in place and without a look at any count: the next write sets the bit, GUP takes
    the page either way, fork clears it or leaves the page alone.  But the fault that sets it makes
    the entry dirty, so it stays where that is news.  All this holds as long as `exclusive` does: a
    page that two processes map keeps the bit of the one when the other forks.
    """
    pte, to = word(s.pte[mm, page]), word(s.pte_to[mm, page])
    if w.forget & SOFT_DIRTY:
        if word(s.vma[mm, page]) & VM_MAPPED:
            s.vma[mm, page] = word(s.vma[mm, page]) | VM_SOFTDIRTY
        pte &= ~PTE_SOFT_DIRTY
    if pte & PTE_PRESENT:
        written = s.frame_slot[to] == 0 or has_flag(s, to, PG_DIRTY)
        exclusive = to != ZERO_FRAME and has_flag(s, to, PG_EXCLUSIVE)
        if w.forget & WRITE_BIT and exclusive and (written or pte & PTE_DIRTY):
            if word(s.vma[mm, page]) & VM_WRITE:
                pte |= PTE_WRITE
        if w.forget & PTE_DIRTIES and written:
            pte &= ~PTE_DIRTY
    s.pte[mm, page] = pte


@helper
def forget_zero_entry(s: State, mm: int, page: int) -> None:
    """An entry that maps the zero page is as good as none: the next look maps it again.

    A load gives zero, a store gets a new page, GUP faults first, either way; a pin of the zero page
    that is attached goes stale at the same store.  So whether fork copies it does not matter, and
    the mapping's anon_vma tells nothing that its entry does not.
    """
    pte = word(s.pte[mm, page])
    if pte & PTE_PRESENT and s.pte_to[mm, page] == ZERO_FRAME and (pte & PTE_WRITE) == 0:
        pte = 0
        set_pte(s, mm, page, 0, 0)
    s.vma[mm, page] = word(s.vma[mm, page]) & ~VM_ANON_VMA
    if pte & (PTE_PRESENT | PTE_SWAP):
        s.vma[mm, page] = word(s.vma[mm, page]) | VM_ANON_VMA


@helper
def forget_flags(s: State, ref: int) -> None:
    """How a reference was taken; what is left is whether it counts as a pin and may be written.

    After GUP nothing looks at FOLL_FAST and FOLL_FORCE.  That io_uring took it matters to whether
    its release makes dirty what may be written.  FOLL_LONGTERM only makes an attached FOLL_GET a
    pin in user space's sense.  Of a FOLL_GET for reading it does not matter where it is attached:
    no promise is about it, and nothing is stored through it.
    """
    flags = word(s.ref_flags[ref])
    kept = flags & (FOLL_GET | FOLL_PIN | FOLL_WRITE)
    if flags & FOLL_LONGTERM and (flags & FOLL_PIN) == 0 and s.ref_page[ref] != 0:
        kept |= FOLL_LONGTERM
    if kept == FOLL_GET:
        s.ref_page[ref] = 0
    if flags & FOLL_WRITE:
        kept |= flags & REF_IO_URING
    s.ref_flags[ref] = kept


@helper
def frames_in_reach(s: State) -> int:
    """The frames, as bits, that some page maps or finds in the swap cache, or that a file has."""
    one = np.int64(1)
    reach = one  # the zero page always is
    for mm in range(s.nr_mms):
        if s.mm_state[mm] != LIVE:
            continue
        for page in range(s.nr_pages):
            pte, to = word(s.pte[mm, page]), word(s.pte_to[mm, page])
            if pte & PTE_PRESENT:
                reach |= one << to
            elif pte & PTE_SWAP and s.slot_frame[to] != 0:
                reach |= one << (word(s.slot_frame[to]) - 1)
    for file in range(s.nr_pages):
        if s.file_frame[file] != 0:
            reach |= one << (word(s.file_frame[file]) - 1)
    return reach  # type: ignore[return-value]


@helper
def is_harmless(s: State, w: Work, frame: int) -> bool:
    """Whether no store through the references of a frame out of reach can break a promise."""
    owner, several, writable = -1, False, False
    for ref in range(w.refs):
        if s.ref_frame[ref] == frame + 1:
            if s.ref_page[ref] != 0:
                return False
            several = several or (owner >= 0 and s.ref_mm[ref] != owner)
            owner = word(s.ref_mm[ref])
            writable = writable or (word(s.ref_flags[ref]) & FOLL_WRITE) != 0
    stores = is_settled(w, PRIVATE) and is_settled(w, GET_FORK)
    return stores or not (several and writable)


@helper
def has_domain(s: State, w: Work, mm: int) -> bool:
    """Whether a process that is gone still owns a reference through which it could see or be seen.

    Not through one to a frame out of reach that is harmless, nor to the zero page.
    """
    reach = frames_in_reach(s)
    for ref in range(w.refs):
        if s.ref_frame[ref] == 0 or s.ref_mm[ref] != mm:
            continue
        frame = word(s.ref_frame[ref]) - 1
        retired = (word(s.ref_state[ref]) & REF_SHARED) != 0
        if (
            not retired
            and frame != ZERO_FRAME
            and (reach >> frame & 1 or not is_harmless(s, w, frame))
        ):
            return True
    return False


@helper
def bury(s: State, w: Work) -> None:
    """A dead process without a domain leaves nothing: its id may be used again."""
    for mm in range(s.nr_mms):
        s.mm_seq[mm] = 0  # compared only while a path runs
        if s.mm_state[mm] == DEAD and not has_domain(s, w, mm):
            s.mm_state[mm] = UNUSED


@helper
def retire(s: State, ref: int) -> None:
    """Leave of a reference only what it counts as; nobody owns it, as if handed to everyone."""
    s.ref_flags[ref] = word(s.ref_flags[ref]) & (FOLL_GET | FOLL_PIN)
    s.ref_state[ref] = REF_SHARED
    s.ref_mm[ref] = 0


@helper
def forget_out_of_reach(s: State, w: Work) -> None:
    """Frames that no page maps or could read from the swap cache: they never come back in reach.

    Nobody looks whether such a frame is exclusive; nor whether it is dirty or equal to its slot,
    since it can be written to a slot, but not leave it while a reference is held, nor be named any
    more after that.  One that only the LRU batch holds is as good as freed, since the batch holds
    one frame and the next one drains it.  Who holds references to it, and for what, matters only
    while a store by one holder could be seen by another one, or is promised to an attached page;
    after that the owner's domain no longer needs them.  So it is with references to the zero page
    that are not attached.
    """
    reach = frames_in_reach(s)
    for frame in range(1, s.nr_frames):
        if reach >> frame & 1 or (s.refcount[frame] == 0 and s.pincount[frame] == 0):
            continue
        clear_flag(s, frame, PG_EXCLUSIVE | PG_DIRTY)
        if s.frame_slot[frame] != 0:
            s.slot_content[word(s.frame_slot[frame]) - 1] = s.content[frame]
        if w.forget & MAP_COUNT:
            s.mapcount[frame] = 0
        held = s.pincount[frame] != 0 or s.frame_slot[frame] != 0
        if s.frame_batch[frame] != 0 and s.refcount[frame] == 1 and not held:
            s.refcount[frame] = 0
            free_if_unused(s, frame)
        elif is_harmless(s, w, frame):
            for ref in range(w.refs):
                if s.ref_frame[ref] == frame + 1:
                    retire(s, ref)
    for ref in range(w.refs):
        writable = (word(s.ref_flags[ref]) & FOLL_WRITE) != 0
        detached = s.ref_frame[ref] == ZERO_FRAME + 1 and s.ref_page[ref] == 0
        if w.forget & ZERO_PINS and detached and not writable:
            if word(s.ref_flags[ref]) & FOLL_PIN:  # which not every kernel counts there
                if s.pincount[ZERO_FRAME] != 0:
                    s.pincount[ZERO_FRAME] = word(s.pincount[ZERO_FRAME]) - 1
                s.refcount[ZERO_FRAME] = word(s.refcount[ZERO_FRAME]) + 1
            s.ref_flags[ref] = FOLL_GET
            retire(s, ref)


@helper
def advise(s: State, mm: int) -> None:
    """MADV_HUGEPAGE goes with every mmap() of a huge range: nothing comes between them."""
    for page in range(s.nr_pages if s.nr_huge > 1 else 0):
        if word(s.vma[mm, page]) & VM_MAPPED:
            s.vma[mm, page] = word(s.vma[mm, page]) | VM_HUGEPAGE


@helper
def forget_anon_vma(s: State, mm: int) -> None:
    """The names of anon_vmas are compared only, with each other; a VMA begins where one is mapped.

    Whether an anon_vma may be handed on (AV_ALONE) matters only to a mapped page that has none.
    """
    first, before = 0, False
    named, mapped = 0, 0
    for page in range(s.nr_pages):
        if word(s.vma[mm, page]) & VM_MAPPED:
            mapped += 1
            named += 1 if word(s.vma_anon[mm, page]) & AV_ID else 0
    for page in range(s.nr_pages):
        anon = word(s.vma_anon[mm, page])
        if (word(s.vma[mm, page]) & VM_MAPPED) == 0:
            s.vma_anon[mm, page] = 0
            before = False
            continue
        name = anon & AV_ID
        if first == 0:
            first = name
        if name != 0:
            name = 1 if name == first else 2
        kept = anon & AV_START if before else 0
        if named != mapped:
            kept |= anon & AV_ALONE
        s.vma_anon[mm, page] = name | kept
        before = True


@helper
def forget_marks(s: State) -> None:
    """A page of a folio that nothing maps any more is not mapped again: its mark tells nothing."""
    reach = frames_in_reach(s)
    for frame in range(1, s.nr_frames):
        if (reach >> frame & 1) == 0:
            clear_flag(s, frame, PG_EXCLUSIVE)


@helper
def simplify(s: State, w: Work) -> None:
    """Forget all that no longer matters; the state is then ready for `canonical`."""
    for mm in range(s.nr_mms):
        if has_folios(s):
            advise(s, mm)
            if w.forget & FOLIOS:
                forget_anon_vma(s, mm)
        if w.forget & HAS_PINNED:
            s.mm_has_pinned[mm] = 1 if s.mm_state[mm] == LIVE else 0
        for page in range(s.nr_pages):
            forget_entry_bits(s, w, mm, page)
            if w.forget & ZERO_ENTRY:
                forget_zero_entry(s, mm, page)
    for frame in range(1, s.nr_frames):
        if w.forget & PTE_DIRTIES and s.frame_slot[frame] == 0:
            clear_flag(s, frame, PG_DIRTY)
    if has_folios(s) and w.forget & FOLIOS:
        forget_marks(s)
    if w.forget & FOLL_FLAGS:
        for ref in range(w.refs):
            if s.ref_frame[ref] != 0:
                forget_settled(s, w, ref)
                forget_flags(s, ref)
    if w.forget & OUT_OF_REACH:
        forget_out_of_reach(s, w)
    bury(s, w)
    s.copies = 0
    if w.tokens == 0:
        if is_settled(w, OWN_WRITES):
            forget_values(s)
        else:
            erase_tokens(s)


@helper
def reuses(s: State, k: KernelRecord, refs: int, pins: int, maps: int, entries: int) -> bool:
    """Whether the kernel's rule reuses an exclusive page with these counts, in place.

    `entries`: the swap entries of its slot, plus one; 0 if it has no slot.
    """
    s.page_flags[1] = PG_EXCLUSIVE | PG_LRU
    s.refcount[1], s.pincount[1], s.mapcount[1] = refs, pins, maps
    s.frame_slot[1] = 1 if entries != 0 else 0
    s.slot_frame[0] = 2 if entries != 0 else 0
    s.swap_count[0] = entries - 1 if entries != 0 else 0
    return bool(invoke_rule(k.rule[REUSE], s, 0, k, 1) == REUSE_PAGE)


@driver
def reuses_exclusive(states: States, kernels: Any, refs: int, pins: int, maps: int) -> bool:
    """Whether the rule does so whatever the counts are, up to these; states[0] is scratch."""
    s, k = states[0], kernels[0]
    for r in range(1, refs + 1):
        for p in range(pins + 1):
            for m in range(1, maps + 1):
                for entries in range(maps + 2):
                    if not reuses(s, k, r, p, m, entries):
                        return False
    return s.alarm == 0  # type: ignore[no-any-return]
