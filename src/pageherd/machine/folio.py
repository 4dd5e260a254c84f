"""Frames and folios: their counts, flags and life, as the kernel helpers of the same names."""

from __future__ import annotations

from pageherd.machine.jit import ALARM_NO_FRAME, KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.questions import MARKS
from pageherd.machine.state import (
    COST_ATOMICS,
    HOLD_FRAME,
    NONE,
    PG_DEVICE,
    PG_DEVMAP,
    PG_EXCLUSIVE,
    PG_FILE,
    PG_HUGETLB,
    PG_KSM,
    PG_RESTORE_RESERVE,
    PG_STABLE_NODE,
    PG_TEMPORARY,
    PIN_BIAS,
    ZERO_FRAME,
    ask_value,
    out_of_range,
)


@helper
def has_folios(s: State) -> bool:
    """Whether the layout has large folios: known when compiled."""
    return bool(s.frame_tail.shape[0] != 1)


@helper
def compound_head(s: State, frame: int) -> int:
    """compound_head(), page_folio(): the frame that has the counts of the whole folio."""
    if not has_folios(s):
        return frame
    return frame - int(s.frame_tail[frame])


@helper
def folio_nr_pages(s: State, frame: int) -> int:
    """How many frames the folio of `frame` has."""
    if not has_folios(s):
        return 1
    return 1 << int(s.frame_order[frame])


@helper
def is_large(s: State, frame: int) -> bool:
    """folio_test_large()."""
    return folio_nr_pages(s, frame) > 1


@helper
def stands_for_many(s: State, frame: int) -> bool:
    """Whether this page of a large folio stands for many: on a real kernel, which has 512 of them.

    Such a page is never the only one that is mapped, whatever its own count says.
    """
    if s.rest_pages <= 1 or not is_large(s, frame):
        return False
    return frame + 1 == compound_head(s, frame) + folio_nr_pages(s, frame)


@helper
def page_ref_add(s: State, frame: int, n: int) -> None:
    """Change the refcount by `n`; an impossible count raises the alarm instead of wrapping."""
    head = compound_head(s, frame)
    count = int(s.refcount[head]) + n
    if out_of_range(s, count):
        return
    s.refcount[head] = count
    s.cost[COST_ATOMICS] += 1


@helper
def page_pin_add(s: State, frame: int, n: int) -> None:
    """Change the pins by `n`; the kernel's bias is applied where the count is tested."""
    head = compound_head(s, frame)
    count = int(s.pincount[head]) + n
    if out_of_range(s, count):
        return
    s.pincount[head] = count
    s.cost[COST_ATOMICS] += 1


@helper
def page_count(s: State, frame: int) -> int:
    """_refcount of the folio as the kernel reads it.

    A pin of a small page weighs GUP_PIN_COUNTING_BIAS; a large folio counts its pins apart, and
    each is one reference (47e29d32afba, v5.7).
    """
    head = compound_head(s, frame)
    weight = 1 if is_large(s, head) else PIN_BIAS
    return int(s.refcount[head]) + weight * int(s.pincount[head])


@helper
def page_maybe_dma_pinned(s: State, frame: int) -> bool:
    """page_maybe_dma_pinned(): 1024 ordinary references of a small page look like a pin."""
    if is_large(s, frame):
        return bool(s.pincount[compound_head(s, frame)] != 0)
    return page_count(s, frame) >= PIN_BIAS


@helper
def is_exclusive(s: State, frame: int) -> bool:
    """PageAnonExclusive()."""
    return (int(s.page_flags[frame]) & PG_EXCLUSIVE) != 0


@helper
def is_ksm(s: State, frame: int) -> bool:
    """PageKsm(): equal pages of any processes were merged into this one."""
    return (int(s.page_flags[frame]) & PG_KSM) != 0


@helper
def has_stable_node(s: State, frame: int) -> bool:
    """page_stable_node(): a KSM page that other pages are merged with."""
    return (int(s.page_flags[frame]) & PG_STABLE_NODE) != 0


@helper
def flag_holder(s: State, frame: int, flag: int) -> int:
    """Each page has its own exclusive mark; every other flag is its folio's."""
    return frame if flag == PG_EXCLUSIVE else compound_head(s, frame)


@helper
def set_flag(s: State, frame: int, flag: int) -> None:
    holder = flag_holder(s, frame, flag)
    s.page_flags[holder] = int(s.page_flags[holder]) | flag


@helper
def clear_flag(s: State, frame: int, flag: int) -> None:
    holder = flag_holder(s, frame, flag)
    s.page_flags[holder] = int(s.page_flags[holder]) & ~flag


@helper
def has_flag(s: State, frame: int, flag: int) -> bool:
    return (int(s.page_flags[flag_holder(s, frame, flag)]) & flag) != 0


@helper
def is_anon(s: State, frame: int) -> bool:
    """PageAnon(): every frame but the zero page and those of the page cache."""
    return frame != ZERO_FRAME and not has_flag(s, frame, PG_FILE)


@helper
def is_normal(s: State, frame: int) -> bool:
    """vm_normal_page(): whether mappings of the frame count and hold references.

    Those of the zero page do not, nor of a DAX file's page while its entries are pte_devmap().
    """
    devmap = PG_FILE | PG_DEVMAP
    flags = int(s.page_flags[compound_head(s, frame)])
    return frame != ZERO_FRAME and (flags & devmap) != devmap


@helper
def is_device_page(s: State, frame: int) -> bool:
    """is_device_private_page(): memory of a device, which the processor cannot access."""
    return is_anon(s, frame) and has_flag(s, frame, PG_DEVICE)


@helper
def set_exclusive(s: State, k: KernelRecord, frame: int) -> None:
    """SetPageAnonExclusive(), in kernels that have the mark (6c287605fd56, v5.19)."""
    if ask_value(k, MARKS) != 0:
        set_flag(s, frame, PG_EXCLUSIVE)


@helper
def alloc_frame(s: State) -> int:
    """A free frame, zeroed, with one reference; NONE (and an alarm) when there is none.

    The lowest free frame, so that equal states stay equal; a free list in layouts that have one.
    """
    frame = NONE
    if s.free_next.shape[0] > 1:
        frame = int(s.free_head)
        if frame != 0:
            s.free_head = s.free_next[frame]
        else:
            frame = NONE
    else:
        for candidate in range(1, s.nr_frames):
            if is_free(s, candidate):
                frame = candidate
                break
    if frame == NONE:
        s.alarm = ALARM_NO_FRAME
        return NONE
    s.refcount[frame] = 1
    return frame


@helper
def is_free(s: State, frame: int) -> bool:
    """A frame that the allocator may hand out."""
    head = compound_head(s, frame)
    return bool(s.refcount[head] == 0 and s.pincount[head] == 0)


@helper
def alloc_folio(s: State, order: int) -> int:
    """The head of 2**order free frames in a row, aligned, with one reference, or NONE.

    Layouts with a free list have no large folios.
    """
    nr = 1 << order
    for first in range(nr, s.nr_frames - nr + 1, nr):
        free = True
        for frame in range(first, first + nr):
            free = free and is_free(s, frame)
        if not free:
            continue
        for frame in range(first, first + nr):
            s.frame_tail[frame] = frame - first
            s.frame_order[frame] = order
        s.refcount[first] = 1
        return first
    s.alarm = ALARM_NO_FRAME
    return NONE


@helper
def put_page(s: State, frame: int) -> None:
    """Drop one reference; the last one frees the folio."""
    page_ref_add(s, frame, -1)
    free_if_unused(s, frame)


@helper
def free_if_unused(s: State, frame: int) -> None:
    """free_unref_page(), once neither references nor pins are left: all frames of the folio."""
    if frame == ZERO_FRAME or not is_free(s, frame):
        return
    head = compound_head(s, frame)
    for each in range(head, head + folio_nr_pages(s, head)):
        forget_frame(s, each)


@helper
def forget_frame(s: State, frame: int) -> None:
    """A free frame remembers nothing."""
    if has_folios(s):
        s.frame_tail[frame] = 0
        s.frame_order[frame] = 0
        s.entire_mapcount[frame] = 0
        s.large_mapcount[frame] = 0
        for slot in range(2):
            s.mm_id[frame, slot] = 0
            s.mm_id_mapcount[frame, slot] = 0
    if s.hugetlb_pool != 0:
        back_to_pool(s, frame)
    s.mapcount[frame] = 0
    s.page_flags[frame] = 0
    s.frame_lock[frame] = 0
    s.frame_batch[frame] = 0
    s.frame_slot[frame] = 0
    s.frame_index[frame] = 0
    s.frame_family[frame] = 0
    s.content[frame] = 0
    if s.free_next.shape[0] > 1:
        s.free_next[frame] = s.free_head
        s.free_head = frame


@helper
def back_to_pool(s: State, frame: int) -> None:
    """free_huge_page(): back to the pool, with the reservation that it was taken for, if any."""
    flags = int(s.page_flags[frame])
    s.hugetlb_free += int((flags & (PG_HUGETLB | PG_TEMPORARY)) == PG_HUGETLB)
    s.hugetlb_resv += int((flags & PG_RESTORE_RESERVE) != 0)


@helper
def hold_frame(s: State, t: int, frame: int) -> None:
    """Take a reference that the path keeps across steps."""
    page_ref_add(s, frame, 1)
    s.t_frame[t] = frame
    s.t_held[t] = int(s.t_held[t]) | HOLD_FRAME


@helper
def unhold(s: State, t: int, what: int) -> None:
    """The reference now belongs to somebody else (a mapping), or was dropped."""
    s.t_held[t] = int(s.t_held[t]) & ~what


@helper
def hold_mapped(s: State, t: int, frame: int) -> None:
    """get_page() of what an entry maps, if vm_normal_page() finds a page there."""
    s.t_frame[t] = frame
    if is_normal(s, frame):
        hold_frame(s, t, frame)


@helper
def put_mapped(s: State, t: int, frame: int) -> None:
    """Let go of what hold_mapped() held."""
    if is_normal(s, frame):
        unhold(s, t, HOLD_FRAME)
        put_page(s, frame)
