"""Promises that can be read off a state between any two steps.

Those that one particular step breaks (`private`, `own-writes`) are noticed by `machine.watch`.
"""

from __future__ import annotations

from pageherd.machine.folio import (
    compound_head,
    folio_nr_pages,
    has_flag,
    is_anon,
    is_exclusive,
    is_free,
    is_ksm,
    is_large,
    is_normal,
)
from pageherd.machine.jit import KernelRecord, helper, invoke_rule
from pageherd.machine.layout import State
from pageherd.machine.pte import is_shared
from pageherd.machine.questions import (
    COUNT_BOUNDS,
    COUNT_FOLIO_BOUNDS,
    COUNT_MMS_BOUNDS,
    ZERO_PIN,
)
from pageherd.machine.rmap import counts_here, maps_folio_here
from pageherd.machine.state import (
    FOLL_PIN,
    HOLD_FRAME,
    HOLD_NEW,
    HOLD_PIN,
    LIVE,
    NONE,
    PG_FILE,
    PG_HWPOISON,
    PTE_DEVICE,
    PTE_DEVICE_EXCLUSIVE,
    PTE_HUGE,
    PTE_MAPPED,
    PTE_MIGRATION,
    PTE_PRESENT,
    PTE_SWAP,
    PTE_SWP_EXCLUSIVE,
    PTE_WRITE,
    REF_FORKED,
    ZERO_FRAME,
)
from pageherd.machine.swap import in_swap_cache
from pageherd.machine.watch import (
    ALIVE,
    COUNTS,
    EXCLUSIVE,
    GET_FORK,
    PIN_COHERENT,
    attached_page,
    breach,
    is_get_write,
    promised_to_follow,
)


@helper
def check_references(s: State) -> None:
    """`alive`, `pin-coherent` and `get-fork` of every reference."""
    for ref in range(s.ref_frame.shape[0]):
        if s.ref_frame[ref] == 0:
            continue
        frame = int(s.ref_frame[ref]) - 1
        if is_free(s, frame) and frame != ZERO_FRAME:
            breach(s, ALIVE)
        page = attached_page(s, ref)
        if page == NONE or not has_gone_stale(s, int(s.ref_mm[ref]), page, frame):
            continue
        if promised_to_follow(s, ref):
            breach(s, PIN_COHERENT)
            s.ref_page[ref] = 0
        elif is_get_write(s, ref) and int(s.ref_state[ref]) & REF_FORKED:
            breach(s, GET_FORK)
            s.ref_page[ref] = 0


@helper
def has_gone_stale(s: State, mm: int, page: int, frame: int) -> bool:
    """Whether the page shows another frame than the reference holds."""
    pte, to = int(s.pte[mm, page]), int(s.pte_to[mm, page])
    if pte & (PTE_PRESENT | PTE_MIGRATION | PTE_DEVICE):
        return to != frame
    if pte & PTE_SWAP:
        return bool(s.slot_frame[to] != frame + 1)
    return False


@helper
def check_entries(s: State) -> None:
    """`alive` and `exclusive` of every page-table entry."""
    for mm in range(s.nr_mms):
        if s.mm_state[mm] != LIVE:
            continue
        for page in range(s.nr_pages):
            pte, to = int(s.pte[mm, page]), int(s.pte_to[mm, page])
            if pte & PTE_SWAP:
                if s.swap_count[to] == 0:
                    breach(s, ALIVE)
                if pte & PTE_SWP_EXCLUSIVE and s.swap_count[to] != 1:
                    breach(s, EXCLUSIVE)
            elif pte & PTE_PRESENT and to != ZERO_FRAME:
                if is_free(s, to):
                    breach(s, ALIVE)
                if pte & PTE_WRITE and is_anon(s, to) and mapped_elsewhere(s, to, mm):
                    breach(s, EXCLUSIVE)
                if pte & PTE_WRITE and is_ksm(s, to):
                    breach(s, EXCLUSIVE)
            elif pte & PTE_PRESENT and pte & PTE_WRITE:
                breach(s, EXCLUSIVE)  # a writable zero page
            elif pte & PTE_MIGRATION:
                check_migration(s, mm, page)
            elif pte & PTE_DEVICE:
                if is_free(s, to):
                    breach(s, ALIVE)
                alone = (pte & (PTE_DEVICE_EXCLUSIVE | PTE_WRITE)) != 0
                if alone and mapped_elsewhere(s, to, mm):
                    breach(s, EXCLUSIVE)


@helper
def check_migration(s: State, mm: int, page: int) -> None:
    """A migration entry names a page that is in use and locked; of an exclusive one it is alone."""
    pte, frame = int(s.pte[mm, page]), int(s.pte_to[mm, page])
    if is_free(s, frame) or s.frame_lock[compound_head(s, frame)] == 0:
        breach(s, ALIVE)
    if (pte & (PTE_WRITE | PTE_SWP_EXCLUSIVE)) == 0 or is_shared(s, mm, page):
        return
    if mapped_elsewhere(s, frame, mm):
        breach(s, EXCLUSIVE)
    for other in range(s.nr_mms):
        if other != mm and s.mm_state[other] == LIVE:
            for place in range(s.nr_pages):
                if int(s.pte[other, place]) & PTE_MIGRATION and s.pte_to[other, place] == frame:
                    breach(s, EXCLUSIVE)


@helper
def mapped_elsewhere(s: State, frame: int, mm: int) -> bool:
    """Whether a process other than `mm` maps `frame`."""
    for other in range(s.nr_mms):
        if other != mm and s.mm_state[other] == LIVE:
            for page in range(s.nr_pages):
                if counts_here(s, other, page, frame):
                    return True
    return False


@helper
def count_mappings(s: State, frame: int) -> int:
    """The true number of mappings of `frame`."""
    count = 0
    for mm in range(s.nr_mms):
        if s.mm_state[mm] == LIVE:
            for page in range(s.nr_pages):
                count += int(counts_here(s, mm, page, frame))
    return count


@helper
def count_unmapped(s: State, head: int) -> int:
    """Device-exclusive entries that hold a page of the folio, but do not map it."""
    count = 0
    for mm in range(s.nr_mms):
        if s.mm_state[mm] == LIVE:
            for page in range(s.nr_pages):
                kind = int(s.pte[mm, page]) & (PTE_DEVICE_EXCLUSIVE | PTE_MAPPED)
                if kind == PTE_DEVICE_EXCLUSIVE:
                    count += int(compound_head(s, int(s.pte_to[mm, page])) == head)
    return count


@helper
def count_entries(s: State, slot: int) -> int:
    """The true number of swap entries that name `slot`."""
    count = 0
    for mm in range(s.nr_mms):
        if s.mm_state[mm] == LIVE:
            for page in range(s.nr_pages):
                if int(s.pte[mm, page]) & PTE_SWAP and s.pte_to[mm, page] == slot:
                    count += 1
    return count


@helper
def references_to(s: State, k: KernelRecord, head: int) -> tuple[int, int]:
    """References and pins of the folio that references and running paths hold."""
    references, pins = 0, 0
    for ref in range(s.ref_frame.shape[0]):
        if s.ref_frame[ref] != 0 and compound_head(s, int(s.ref_frame[ref]) - 1) == head:
            if (int(s.ref_flags[ref]) & FOLL_PIN) == 0:
                references += int(s.ref_times[ref])
            elif head != ZERO_FRAME or invoke_rule(k.rule[ZERO_PIN], s, 0, k, head) != 0:
                pins += int(s.ref_times[ref])
    for t in range(s.t_held.shape[0]):
        held = int(s.t_held[t])
        if held:
            here = compound_head(s, int(s.t_frame[t])) == head
            references += int(held & HOLD_FRAME != 0 and here)
            references += int(held & HOLD_NEW != 0 and s.t_new[t] == head)
            pins += int(held & HOLD_PIN != 0 and here)
    return references, pins


@helper
def count_folio(s: State, head: int) -> tuple[int, int]:
    """How many entries map the folio (a PMD entry is one), and in how many processes."""
    entries, mms = 0, 0
    for mm in range(s.nr_mms):
        found = 0
        if s.mm_state[mm] == LIVE:
            for page in range(s.nr_pages):
                if maps_folio_here(s, mm, page, head):
                    huge = (int(s.pte[mm, page]) & PTE_HUGE) != 0
                    found += int(not huge or s.pte_to[mm, page] == head)
        entries += found
        mms += int(found != 0)
    return entries, mms


@helper
def within(s: State, k: KernelRecord, question: int, frame: int, truth: int) -> bool:
    """Whether the truth is what the way of counting vouches for."""
    bounds = invoke_rule(k.rule[question], s, 0, k, frame)
    return bounds % 4096 <= truth <= bounds // 4096


@helper
def check_folio(s: State, k: KernelRecord, head: int) -> None:
    """`counts` of one folio in use: the sum of its holders, and what its counters vouch for."""
    references, pins = references_to(s, k, head)
    if head == ZERO_FRAME:
        if s.refcount[head] != references + 1 or s.pincount[head] != pins:
            breach(s, COUNTS)
        return
    entries, mms = count_folio(s, head)
    if is_normal(s, head):
        references += entries
    references += count_unmapped(s, head) + int(s.frame_batch[head] != 0)
    if has_flag(s, head, PG_FILE):
        references += folio_nr_pages(s, head)  # the page cache's
    references += int(has_flag(s, head, PG_HWPOISON))  # memory_failure()'s
    for frame in range(head, head + folio_nr_pages(s, head)):
        references += int(in_swap_cache(s, frame))
        check_page(s, k, frame)
    if s.refcount[head] != references or s.pincount[head] != pins:
        breach(s, COUNTS)
    if is_large(s, head):
        if not within(s, k, COUNT_FOLIO_BOUNDS, head, entries):
            breach(s, COUNTS)
        if not within(s, k, COUNT_MMS_BOUNDS, head, mms):
            breach(s, COUNTS)


@helper
def check_page(s: State, k: KernelRecord, frame: int) -> None:
    """`counts` and `exclusive` of one page: its own mappings."""
    maps = count_mappings(s, frame) if is_normal(s, frame) else 0
    if not within(s, k, COUNT_BOUNDS, frame, maps):
        breach(s, COUNTS)
    if is_exclusive(s, frame):
        if maps > 1 or is_ksm(s, frame):
            breach(s, EXCLUSIVE)
        if maps > 0 and in_swap_cache(s, frame):
            if s.swap_count[int(s.frame_slot[frame]) - 1] != 0:
                breach(s, EXCLUSIVE)


@helper
def check_slots(s: State) -> None:
    """`counts` and `alive` of the swap slots."""
    for slot in range(s.nr_slots):
        if s.swap_count[slot] != count_entries(s, slot):
            breach(s, COUNTS)
        cached = int(s.slot_frame[slot])
        if cached != 0:
            if is_free(s, cached - 1) or s.frame_slot[cached - 1] != slot + 1:
                breach(s, ALIVE)


@helper
def check_file(s: State) -> None:
    """`alive` of the page cache."""
    for file in range(s.nr_pages):
        cached = int(s.file_frame[file])
        if cached != 0 and (is_free(s, cached - 1) or not has_flag(s, cached - 1, PG_FILE)):
            breach(s, ALIVE)


@helper
def check_state(s: State, k: KernelRecord) -> None:
    """Check every promise that a state can break; bits are set in `broke`."""
    check_references(s)
    check_entries(s)
    for frame in range(s.nr_frames):
        if not is_free(s, frame) and compound_head(s, frame) == frame:
            check_folio(s, k, frame)
    check_slots(s)
    check_file(s)
