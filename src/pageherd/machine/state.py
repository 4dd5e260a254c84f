"""Words for the state, and the small things that every kernel path does to it.

Functions here read like the kernel helpers they are named after.  Unless a line says otherwise
the kernel facts are the same in every kernel of the table (v4.19 to 7.3).
"""

from __future__ import annotations

from typing import Final

from pageherd.machine.jit import (
    ALARM_NO_FRAME,
    ALARM_OVERFLOW,
    ALARM_UNDERFLOW,
    KernelRecord,
    helper,
    invoke_rule,
)
from pageherd.machine.layout import State
from pageherd.machine.questions import (
    COUNT_ON_MAP,
    COUNT_ON_MAP_PMD,
    COUNT_ON_UNMAP,
    COUNT_ON_UNMAP_PMD,
    MARKS,
    STILL_MAPPED,
)

NONE: Final = -1
ZERO_FRAME: Final = 0  # the shared zero page; never counted as mapped, never freed
COUNT_MAX: Final = 32767
NR_CPUS: Final = 4
PIN_BIAS: Final = 1024  # GUP_PIN_COUNTING_BIAS, include/linux/mm.h

# mm_state
UNUSED: Final = 0
LIVE: Final = 1
DEAD: Final = 2

# vma: one byte per page, since every page may have its own VMA
VM_MAPPED: Final = 1
VM_READ: Final = 2
VM_WRITE: Final = 4
VM_DONTCOPY: Final = 8
VM_WIPEONFORK: Final = 16
VM_SOFTDIRTY: Final = 32  # set: writes are not tracked
VM_LOCKED: Final = 64
VM_ANON_VMA: Final = 128  # vma->anon_vma: the mapping has held a page of its own
VM_FILE: Final = 1024  # of a file (a memfd): vma_file says of which of its pages
VM_SHARED: Final = 2048  # MAP_SHARED
VM_HUGETLB: Final = 4096  # a private mapping of one hugetlb page
VM_MERGEABLE: Final = 256
VM_HUGEPAGE: Final = 8192  # MADV_HUGEPAGE: a fault may fill the whole PMD at once
VM_PTE_TABLE: Final = 16384  # a page table hangs below the PMD: no huge page fits there any more

# pte
PTE_PRESENT: Final = 1
PTE_SWAP: Final = 2
PTE_WRITE: Final = 4
PTE_DIRTY: Final = 8
PTE_SOFT_DIRTY: Final = 16
PTE_SWP_EXCLUSIVE: Final = 32  # of a swap entry, or of a migration entry for reading
PTE_MIGRATION: Final = 64  # the page is being moved; with PTE_WRITE the entry was writable
PTE_HUGE: Final = 512  # one of the pages that a single PMD entry maps

# flags of a frame
PG_EXCLUSIVE: Final = 1  # PageAnonExclusive
PG_DIRTY: Final = 2
PG_WRITEBACK: Final = 4
PG_LRU: Final = 8
PG_ISOLATED: Final = 16
PG_LAZYFREE: Final = 64  # anonymous and not PageSwapBacked: MADV_FREE
PG_FILE: Final = 128  # a page of the page cache, which holds a reference
PG_HUGETLB: Final = 256  # a hugetlb page: one frame of the machine
PG_KSM: Final = 32  # PageKsm
PG_PARTIALLY_MAPPED: Final = 512  # on the deferred split queue
PG_MAYBE_SHARED: Final = 1024  # FOLIO_MM_IDS_SHARED: perhaps more than one mm maps the folio

# t_fault
FAULT_WRITE: Final = 1
FAULT_UNSHARE: Final = 2
FAULT_TOUCH: Final = 4  # populate: fault, but store nothing
FAULT_BREAK_KSM: Final = 8  # break_ksm(), which holds the page meanwhile

# t_foll and ref_flags
FOLL_GET: Final = 1
FOLL_PIN: Final = 2
FOLL_WRITE: Final = 4
FOLL_FORCE: Final = 8
FOLL_LONGTERM: Final = 16
FOLL_FAST: Final = 32  # get_user_pages_fast and its relatives are tried first
FOLL_COW: Final = 64  # a write fault has broken COW (until 6.0)
FOLL_BREAK_COW: Final = 128  # 17839856fd58: the read was turned into a write

# ref_flags only
REF_IO_URING: Final = 64  # an io_uring buffer: whether letting go marks the page dirty is a rule

# ref_state
REF_FORKED: Final = 1  # a fork shared the page under a FOLL_GET write reference
REF_SHARED: Final = 2  # handed over knowingly
REF_MAP_SHARED: Final = 4  # taken through a shared mapping: its stores are the file's

# t_held: what t_frame and t_new stand for in the counts
HOLD_FRAME: Final = 1
HOLD_NEW: Final = 2
HOLD_PIN: Final = 4
HOLD_MMAP: Final = 8  # mmap_lock for reading
BYPASSED: Final = 16  # t_frame was read from swap past the swap cache: nobody else knows it
FOUND: Final = 32  # t_frame was in the swap cache already, and so on an LRU list

# swap_kind
SWAP_NONE: Final = 0
SWAP_DISK: Final = 1  # write-back finishes before the next operation
SWAP_SLOW: Final = 2  # write-back finishes when the test says so
SWAP_ZRAM: Final = 3  # synchronous: SWP_SYNCHRONOUS_IO

# results of operations, and states of a page; values are 0..65535
OK: Final = -1
SEGV: Final = -2
BUSY: Final = -3
FULL: Final = -4
ABSENT: Final = -5
ZEROED: Final = -6
PRESENT: Final = -7
SWAPPED: Final = -8
UNBOUND: Final = -9

# running totals: places in `cost`
COST_FAULTS: Final = 0
COST_COPIES: Final = 1
COST_ATOMICS: Final = 2
COST_RMAP_STEPS: Final = 3
COST_TLB_FLUSHES: Final = 4
COST_READS: Final = 5
COST_WRITES: Final = 6


@helper
def ask(s: State, t: int, k: KernelRecord, question: int, frame: int) -> int:
    """Put a question to the kernel's rules, and remember that it was asked."""
    k.asked[question] += 1
    answer = invoke_rule(k.rule[question], s, t, k, frame)
    k.answer[question] = answer
    return answer


# -- counts -------------------------------------------------------------------------------------


@helper
def out_of_range(s: State, count: int) -> bool:
    """Whether a count would wrap; it never does, the alarm is raised instead."""
    if count < 0:
        s.alarm = ALARM_UNDERFLOW
    elif count > COUNT_MAX:
        s.alarm = ALARM_OVERFLOW
    return count < 0 or count > COUNT_MAX


@helper
def compound_head(s: State, frame: int) -> int:
    """compound_head(), page_folio(): the frame that has the counts of the whole folio."""
    if s.frame_tail.shape[0] == 1:  # a layout without large folios: known when compiled
        return frame
    return frame - int(s.frame_tail[frame])


@helper
def folio_nr_pages(s: State, frame: int) -> int:
    """How many frames the folio of `frame` has."""
    if s.frame_tail.shape[0] == 1:
        return 1
    return 1 << int(s.frame_order[frame])


@helper
def is_large(s: State, frame: int) -> bool:
    """folio_test_large()."""
    return folio_nr_pages(s, frame) > 1


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
def is_anon(s: State, frame: int) -> bool:
    """PageAnon(): every frame but the zero page and those of the page cache."""
    return frame != ZERO_FRAME and (int(s.page_flags[frame]) & PG_FILE) == 0


@helper
def is_exclusive(s: State, frame: int) -> bool:
    """PageAnonExclusive()."""
    return (int(s.page_flags[frame]) & PG_EXCLUSIVE) != 0


@helper
def is_ksm(s: State, frame: int) -> bool:
    """PageKsm(): equal pages of any processes were merged into this one."""
    return (int(s.page_flags[frame]) & PG_KSM) != 0


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
def set_exclusive(s: State, k: KernelRecord, frame: int) -> None:
    """SetPageAnonExclusive(), in kernels that have the mark (6c287605fd56, v5.19)."""
    k.asked[MARKS] += 1
    if k.rule[MARKS] != 0:
        set_flag(s, frame, PG_EXCLUSIVE)


@helper
def in_swap_cache(s: State, frame: int) -> bool:
    """PageSwapCache()."""
    return int(s.frame_slot[frame]) != 0


# -- frames -------------------------------------------------------------------------------------


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
    if s.frame_tail.shape[0] > 1:
        s.frame_tail[frame] = 0
        s.frame_order[frame] = 0
        s.entire_mapcount[frame] = 0
        s.large_mapcount[frame] = 0
        for slot in range(2):
            s.mm_id[frame, slot] = 0
            s.mm_id_mapcount[frame, slot] = 0
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


# -- locks --------------------------------------------------------------------------------------


@helper
def ptl_taken(s: State, t: int, mm: int) -> bool:
    """Whether another thread holds the page-table lock of `mm` across steps."""
    holder = int(s.mm_ptl[mm])
    return holder != 0 and holder != t + 1


@helper
def trylock_page(s: State, t: int, frame: int) -> bool:
    """trylock_page(): the lock is the folio's."""
    head = compound_head(s, frame)
    if s.frame_lock[head] != 0:
        return False
    s.frame_lock[head] = t + 1
    return True


@helper
def unlock_page(s: State, frame: int) -> None:
    s.frame_lock[compound_head(s, frame)] = 0


@helper
def locked_by_other(s: State, t: int, frame: int) -> bool:
    holder = int(s.frame_lock[compound_head(s, frame)])
    return holder != 0 and holder != t + 1


@helper
def mmap_read_lock(s: State, t: int, mm: int) -> bool:
    """mmap_lock for reading, kept until `mmap_read_unlock`; false while a writer has it."""
    if int(s.t_held[t]) & HOLD_MMAP:
        return True
    if s.mm_writer[mm] != 0:
        return False
    s.mm_readers[mm] += 1
    s.t_held[t] = int(s.t_held[t]) | HOLD_MMAP
    return True


@helper
def mmap_read_unlock(s: State, t: int, mm: int) -> None:
    if int(s.t_held[t]) & HOLD_MMAP:
        s.mm_readers[mm] -= 1
        s.t_held[t] = int(s.t_held[t]) & ~HOLD_MMAP


@helper
def mmap_write_lock(s: State, t: int, mm: int) -> bool:
    """mmap_lock for writing; false while anyone else has it."""
    if s.mm_writer[mm] == t + 1:
        return True
    if s.mm_writer[mm] != 0 or s.mm_readers[mm] != 0:
        return False
    s.mm_writer[mm] = t + 1
    return True


@helper
def mmap_write_unlock(s: State, mm: int) -> None:
    s.mm_writer[mm] = 0


# -- mappings -----------------------------------------------------------------------------------


@helper
def ask_count(
    s: State, t: int, k: KernelRecord, question: int, frame: int, mm: int, page: int
) -> int:
    """Ask how a counter changes, telling whose page it is that is mapped or unmapped."""
    s.t_rmap_mm[t] = mm
    s.t_rmap_page[t] = page
    count = ask(s, t, k, question, frame)
    s.t_rmap_mm[t] = 0
    s.t_rmap_page[t] = 0
    s.cost[COST_ATOMICS] += 1
    return count


@helper
def page_add_rmap(s: State, t: int, k: KernelRecord, frame: int, mm: int, page: int) -> None:
    """page_add_anon_rmap(): the mapping counter goes up as the kernel's way of counting says."""
    if s.mapcount[frame] == 0:
        s.frame_index[frame] = page
    count = ask_count(s, t, k, COUNT_ON_MAP, frame, mm, page)
    if not out_of_range(s, count):
        s.mapcount[frame] = count


@helper
def page_remove_rmap(s: State, t: int, k: KernelRecord, frame: int, mm: int, page: int) -> None:
    """page_remove_rmap(), the entry is cleared.

    A large folio that is mapped in part queues for splitting (deferred_split_folio()): until then
    its other pages keep the memory of the unmapped one.
    """
    count = ask_count(s, t, k, COUNT_ON_UNMAP, frame, mm, page)
    if not out_of_range(s, count):
        s.mapcount[frame] = count
    if is_large(s, frame) and ask(s, t, k, STILL_MAPPED, frame):
        set_flag(s, frame, PG_PARTIALLY_MAPPED)


@helper
def folio_add_rmap_pmd(s: State, t: int, k: KernelRecord, head: int, mm: int, page: int) -> None:
    """folio_add_anon_rmap_pmd(): one entry maps the whole folio at `page` and after."""
    for i in range(folio_nr_pages(s, head)):
        s.frame_index[head + i] = page + i
    count = ask_count(s, t, k, COUNT_ON_MAP_PMD, head, mm, page)
    if not out_of_range(s, count):
        s.entire_mapcount[head] = count


@helper
def folio_remove_rmap_pmd(s: State, t: int, k: KernelRecord, head: int, mm: int, page: int) -> None:
    """folio_remove_rmap_pmd(), the entry is cleared or split."""
    count = ask_count(s, t, k, COUNT_ON_UNMAP_PMD, head, mm, page)
    if not out_of_range(s, count):
        s.entire_mapcount[head] = count


@helper
def maps_here(s: State, mm: int, page: int, frame: int) -> bool:
    """Whether `page` of `mm` maps `frame`."""
    return bool((int(s.pte[mm, page]) & PTE_PRESENT) != 0 and s.pte_to[mm, page] == frame)


@helper
def keeps_index(s: State, frame: int) -> bool:
    """Whether every process that maps `frame` maps it at the page that is its index."""
    return bool(s.moved == 0 and not is_ksm(s, frame))


@helper
def maps_folio_here(s: State, mm: int, page: int, head: int) -> bool:
    """Whether `page` of `mm` maps a page of the folio at `head`."""
    if (int(s.pte[mm, page]) & PTE_PRESENT) == 0:
        return False
    to = int(s.pte_to[mm, page])
    return head <= to < head + folio_nr_pages(s, head)


@helper
def find_mapping(s: State, frame: int, from_mm: int, from_page: int) -> int:
    """The first mapping of `frame`'s folio at or after (from_mm, from_page): mm * nr_pages + page.

    rmap_walk_anon(): a folio keeps its index, so an entry for each of its pages is looked at in
    every process, unless pages were moved by mremap.  NONE when there is no further mapping.
    """
    head = compound_head(s, frame)
    nr = folio_nr_pages(s, head)
    for mm in range(from_mm, s.nr_mms):
        first = from_page if mm == from_mm else 0
        if s.mm_state[mm] != LIVE:
            continue
        last = int(s.nr_pages)
        if keeps_index(s, head):
            index = int(s.frame_index[head])
            first, last = max(first, index), min(last, index + nr)
        for page in range(first, last):
            s.cost[COST_RMAP_STEPS] += 1
            if maps_folio_here(s, mm, page, head):
                return mm * int(s.nr_pages) + page
    return NONE


# -- LRU ----------------------------------------------------------------------------------------


@helper
def lru_cache_add(s: State, t: int, frame: int) -> None:
    """lru_cache_add(): into this CPU's batch, which holds a reference until it is drained.

    A large folio makes the batch drain at once: it is on the list when this returns.
    """
    if s.batch_limit == 0 or is_large(s, frame):
        if s.batch_limit != 0:
            lru_add_drain(s, int(s.t_cpu[t]))
        set_flag(s, frame, PG_LRU)
        return
    cpu = int(s.t_cpu[t])
    waiting = 0
    for other in range(1, s.nr_frames):
        if s.frame_batch[other] == cpu + 1:
            waiting += 1
    if waiting >= s.batch_limit:
        lru_add_drain(s, cpu)
    s.frame_batch[frame] = cpu + 1
    page_ref_add(s, frame, 1)


@helper
def lru_add_drain(s: State, cpu: int) -> None:
    """lru_add_drain_cpu(): the batch's pages go to the LRU list, its references are dropped."""
    if s.batch_limit == 0:
        return
    for frame in range(1, s.nr_frames):
        if s.frame_batch[frame] == cpu + 1:
            s.frame_batch[frame] = 0
            set_flag(s, frame, PG_LRU)
            put_page(s, frame)


# -- swap ---------------------------------------------------------------------------------------


@helper
def alloc_slot(s: State) -> int:
    """get_swap_page(): the lowest free slot, or NONE when swap is full or there is none."""
    return alloc_slots(s, 1)


@helper
def alloc_slots(s: State, nr: int) -> int:
    """get_swap_pages(): the first of `nr` free slots in a row, NONE if there are none."""
    if s.swap_kind == SWAP_NONE:
        return NONE
    for first in range(int(s.nr_slots) - nr + 1):
        free = True
        for slot in range(first, first + nr):
            used = s.swap_count[slot] != 0 or s.slot_frame[slot] != 0 or s.slot_claim[slot] != 0
            free = free and not used
        if free:
            return first
    return NONE


@helper
def add_to_swap_cache(s: State, frame: int, slot: int) -> None:
    """add_to_swap_cache(): the cache holds one reference for each page of the folio."""
    head = compound_head(s, frame)
    for i in range(folio_nr_pages(s, head)):
        s.frame_slot[head + i] = slot + i + 1
        s.slot_frame[slot + i] = head + i + 1
    page_ref_add(s, head, folio_nr_pages(s, head))


@helper
def delete_from_swap_cache(s: State, frame: int) -> None:
    """delete_from_swap_cache(): drops the cache's references; slots nobody names become free."""
    head = compound_head(s, frame)
    nr = folio_nr_pages(s, head)
    for each in range(head, head + nr):
        slot = int(s.frame_slot[each]) - 1
        s.frame_slot[each] = 0
        s.slot_frame[slot] = 0
        forget_slot_if_free(s, slot)
    page_ref_add(s, head, -nr)
    free_if_unused(s, head)


@helper
def forget_slot_if_free(s: State, slot: int) -> None:
    if s.swap_count[slot] == 0 and s.slot_frame[slot] == 0 and s.slot_claim[slot] == 0:
        s.slot_content[slot] = 0
        s.slot_ksm[slot] = 0


@helper
def swap_count_add(s: State, slot: int, n: int) -> None:
    """swap_duplicate() and swap_free(), without the cache's own flag."""
    count = int(s.swap_count[slot]) + n
    if out_of_range(s, count):
        return
    s.swap_count[slot] = count
    forget_slot_if_free(s, slot)


@helper
def was_bypassed(s: State, t: int) -> bool:
    """`page != swapcache` in do_swap_page(): not whether the page is in the cache by now."""
    return (int(s.t_held[t]) & BYPASSED) != 0


@helper
def swap_count_of(s: State, frame: int) -> int:
    """How many swap entries name the slot that this swap-cache page stands for."""
    if not in_swap_cache(s, frame):
        return 0
    return int(s.swap_count[int(s.frame_slot[frame]) - 1])


@helper
def folio_swapped(s: State, frame: int) -> bool:
    """folio_swapped(): whether a swap entry names any page of this swap-cache folio."""
    head = compound_head(s, frame)
    for each in range(head, head + folio_nr_pages(s, head)):
        if swap_count_of(s, each) != 0:
            return True
    return False


@helper
def try_to_free_swap(s: State, frame: int) -> bool:
    """try_to_free_swap(), page lock held: refused under write-back or while entries name it."""
    if not in_swap_cache(s, frame):
        return False
    if has_flag(s, frame, PG_WRITEBACK) or folio_swapped(s, frame):
        return False
    set_flag(s, frame, PG_DIRTY)
    delete_from_swap_cache(s, frame)
    return True


@helper
def free_swap_cache(s: State, t: int, k: KernelRecord, frame: int) -> None:
    """free_swap_cache(): for a page that lost its last mapping, if its lock can be had."""
    if not in_swap_cache(s, frame) or ask(s, t, k, STILL_MAPPED, frame) != 0:
        return
    if trylock_page(s, t, frame):
        try_to_free_swap(s, frame)
        unlock_page(s, frame)


@helper
def free_swap_and_cache(s: State, t: int, k: KernelRecord, slot: int) -> None:
    """free_swap_and_cache(): an entry goes; the last one takes an unmapped cache page along."""
    swap_count_add(s, slot, -1)
    cached = int(s.slot_frame[slot])
    if s.swap_count[slot] == 0 and cached != 0:
        free_swap_cache(s, t, k, cached - 1)


# -- page-table entries -------------------------------------------------------------------------


@helper
def pte_of(s: State, mm: int, page: int) -> int:
    return int(s.pte[mm, page])


@helper
def set_pte(s: State, mm: int, page: int, pte: int, to: int) -> None:
    s.pte[mm, page] = pte
    s.pte_to[mm, page] = to
    if s.nr_huge > 1 and pte != 0 and (pte & PTE_HUGE) == 0:
        s.vma[mm, page] = int(s.vma[mm, page]) | VM_PTE_TABLE


@helper
def marked_page(s: State, pte: int, frame: int) -> int:
    """The page whose exclusive mark counts: of a PMD mapping it is the head's."""
    return compound_head(s, frame) if pte & PTE_HUGE else frame


@helper
def pte_same(s: State, t: int, mm: int, page: int) -> bool:
    """pte_same() against what the path saw before it dropped the page-table lock."""
    return bool(s.pte[mm, page] == s.t_pte[t] and s.pte_to[mm, page] == s.t_pte_to[t])


@helper
def remember_pte(s: State, t: int, mm: int, page: int) -> None:
    s.t_pte[t] = s.pte[mm, page]
    s.t_pte_to[t] = s.pte_to[mm, page]


@helper
def may_write(s: State, mm: int, page: int) -> bool:
    """maybe_mkwrite(): whether the VMA allows writing."""
    return (int(s.vma[mm, page]) & VM_WRITE) != 0


@helper
def is_shared(s: State, mm: int, page: int) -> bool:
    """Whether the mapping is MAP_SHARED; any other is a COW mapping (is_cow_mapping())."""
    return (int(s.vma[mm, page]) & VM_SHARED) != 0


@helper
def is_hugetlb(s: State, mm: int, page: int) -> bool:
    """is_vm_hugetlb_page()."""
    return (int(s.vma[mm, page]) & VM_HUGETLB) != 0


@helper
def wants_no_notice(s: State, mm: int, page: int) -> bool:
    """Whether vm_page_prot is writable: a shared mapping of which no write must be noticed.

    vma_wants_writenotify(); a memfd needs no notice for itself, tracking by soft-dirty does.
    """
    wanted = VM_SHARED | VM_WRITE | VM_SOFTDIRTY
    return (int(s.vma[mm, page]) & wanted) == wanted


@helper
def file_value(s: State, file: int) -> int:
    """What page `file` of the file holds: zeros where nothing was ever written."""
    cached = int(s.file_frame[file])
    return int(s.content[cached - 1]) if cached != 0 else 0


@helper
def untouched_value(s: State, mm: int, page: int) -> int:
    """What a mapping shows before the process has stored into it: the file's value, or zeros."""
    file = int(s.vma_file[mm, page])
    return file_value(s, file - 1) if file != 0 else 0


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
def finish_write_fault(s: State, t: int, mm: int, page: int) -> None:
    """VM_FAULT_WRITE: a forced write through GUP learns that COW was broken (FOLL_COW)."""
    if not may_write(s, mm, page):
        s.t_foll[t] = int(s.t_foll[t]) | FOLL_COW
