"""KSM: equal pages become one (try_to_merge_one_page), and are made private again (break_ksm).

The page that ksmd is at is `t_frame`, mapped at `t_page` of `t_mm`; the page that it shall become
is `t_new`, mapped at `t_other` of process `t_ref`.  ksmd holds both.
"""

from __future__ import annotations

from typing import Any, Final

from pageherd.machine import steps
from pageherd.machine.anon_vma import vma_modify
from pageherd.machine.folio import (
    alloc_frame,
    clear_flag,
    has_stable_node,
    hold_frame,
    is_anon,
    is_exclusive,
    is_ksm,
    page_ref_add,
    put_page,
    set_flag,
    unhold,
)
from pageherd.machine.huge import split_unless_covered
from pageherd.machine.jit import KernelRecord, driver, helper, step
from pageherd.machine.layout import State, States
from pageherd.machine.lock import (
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_lock,
    mmap_write_unlock,
    ptl_taken,
    trylock_page,
    unlock_page,
)
from pageherd.machine.pte import is_followed, pte_of, pte_same, remember_pte, set_pte
from pageherd.machine.questions import (
    KSM_BREAKS,
    KSM_CHECKS,
    KSM_COUNTS,
    KSM_COUNTS_MERGING,
    KSM_MARKS_ZERO,
    STILL_MAPPED,
    UNMAP_REFUSES,
    UNSHARE_FAULT,
)
from pageherd.machine.rmap import maps_here, page_add_rmap, page_remove_rmap
from pageherd.machine.split import split_if_large
from pageherd.machine.state import (
    BUSY,
    COST_COPIES,
    COST_TLB_FLUSHES,
    FAULT_BREAK_KSM,
    FAULT_TOUCH,
    FAULT_UNSHARE,
    FAULT_WRITE,
    HOLD_FRAME,
    HOLD_NEW,
    LIVE,
    NONE,
    OK,
    PG_DIRTY,
    PG_EXCLUSIVE,
    PG_KSM,
    PG_STABLE_NODE,
    PTE_DIRTY,
    PTE_MIGRATION,
    PTE_PRESENT,
    PTE_SOFT_DIRTY,
    PTE_WRITE,
    SEGV,
    VM_ANON_VMA,
    VM_DROPPABLE,
    VM_HUGETLB,
    VM_MAPPED,
    VM_MERGEABLE,
    VM_SHARED,
    ZERO_FRAME,
    ask,
    ask_value,
)
from pageherd.machine.swap import try_to_free_swap

# t_value: what becomes of the page that ksmd is at
UPGRADE: Final = 0  # it becomes a KSM page in place; the other one is next
REPLACE: Final = 1  # its mapping gets the other page
# t_seq: the other page has been upgraded just now, and is broken again if nothing comes of it
UPGRADED: Final = 1


@helper
def is_mergeable(s: State, mm: int, page: int) -> bool:
    """find_mergeable_vma(): MADV_MERGEABLE, and the mapping has held pages of its own.

    The advice is ignored for shared, hugetlb and droppable mappings (ksm_madvise).
    """
    wanted = VM_MERGEABLE | VM_ANON_VMA
    asked = int(s.vma[mm, page]) & (wanted | VM_SHARED | VM_HUGETLB | VM_DROPPABLE)
    return bool(s.mm_state[mm] == LIVE and asked == wanted)


@helper
def mergeable_page(s: State, mm: int, page: int) -> int:
    """ksm_next_page_pmd_entry(): a present anonymous page of a mergeable mapping, or NONE."""
    frame = int(s.pte_to[mm, page])
    present = (pte_of(s, mm, page) & PTE_PRESENT) != 0 and is_anon(s, frame)
    return frame if present and is_mergeable(s, mm, page) else NONE


@helper
def is_found_again(s: State, t: int, k: KernelRecord, mm: int, page: int) -> bool:
    """get_ksm_page() by its number, or get_mergeable_page() by its address in an unstable tree."""
    return has_stable_node(s, int(s.pte_to[mm, page])) or is_followed(s, t, k, mm, page)


@driver
def find_mergeable(states: States, i: int, mm: int, page: int) -> int:
    """The frame of a page of states[i] that ksmd would merge, or NONE."""
    return mergeable_page(states[i], mm, page)


@driver
def find_again(states: States, i: int, kernels: Any, mm: int, page: int) -> int:
    """The same for a page that ksmd has seen before, and would merge another one with."""
    found = is_found_again(states[i], 0, kernels[0], mm, page)
    return mergeable_page(states[i], mm, page) if found else NONE


@helper
def exchange(s: State, t: int) -> None:
    """Turn to the other page."""
    mm, page, frame = int(s.t_mm[t]), int(s.t_page[t]), int(s.t_frame[t])
    s.t_mm[t] = s.t_ref[t]
    s.t_page[t] = s.t_other[t]
    s.t_frame[t] = s.t_new[t]
    s.t_ref[t] = mm
    s.t_other[t] = page
    s.t_new[t] = frame


@helper
def stable_page(s: State, frame: int) -> int:
    """stable_tree_search(): a KSM page with the same content, or NONE.

    get_ksm_page() wants it alive: a pipe or the swap cache is enough, no page table need map it.
    """
    for other in range(1, s.nr_frames):
        held = s.refcount[other] != 0 or s.pincount[other] != 0
        if held and has_stable_node(s, other) and s.content[other] == s.content[frame]:
            return other
    return NONE


@driver
def find_stable(states: States, i: int, frame: int) -> int:
    """The KSM page of states[i] with the content of `frame`, or NONE."""
    return stable_page(states[i], frame)


@helper
def count_merging(s: State) -> None:
    """stable_tree_append(), remove_rmap_item_from_tree(): ksmd brings ksm_merging_pages up to date.

    What became of a merged page meanwhile is noticed when ksmd comes by again.
    """
    for mm in range(s.nr_mms):
        count = int(s.mm_merging_at_fork[mm])
        for page in range(s.nr_pages):
            frame = mergeable_page(s, mm, page)
            if frame != NONE and has_stable_node(s, frame):
                count += 1
        s.mm_merging[mm] = count


@driver
def scan_ends(states: States, i: int) -> None:
    """ksmd has gone over everything: what it counts in states[i] is right again."""
    count_merging(states[i])


@step(steps.KSM_MERGING)
def ksm_merging(s: State, t: int, k: KernelRecord) -> int:
    """proc_pid_ksm_merging_pages(), v5.19 (7609385337a4)."""
    known = ask_value(k, KSM_COUNTS_MERGING) != 0
    s.t_result[t] = int(s.mm_merging[int(s.t_mm[t])]) if known else SEGV  # ENOENT
    return steps.IDLE


# -- merging ---------------------------------------------------------------------------------------


@step(steps.KSM)
def ksm(s: State, t: int, k: KernelRecord) -> int:
    """cmp_and_merge_page(): ksmd is at a page and finds an equal one in one of its trees.

    If neither is a KSM page yet, the page that ksmd is at becomes one; the other one follows.  A
    page of a large folio is split off first, or left alone.  One page named twice: whatever the
    stable tree has for it.
    """
    s.t_result[t] = BUSY
    if ptl_taken(s, t, int(s.t_mm[t])) or ptl_taken(s, t, int(s.t_ref[t])):
        return steps.BLOCKED
    count_merging(s)
    frame = mergeable_page(s, int(s.t_mm[t]), int(s.t_page[t]))
    other = mergeable_page(s, int(s.t_ref[t]), int(s.t_other[t]))
    if frame == NONE or other == NONE:
        return steps.IDLE
    if frame != other and has_stable_node(s, frame):
        if has_stable_node(s, other):
            return steps.IDLE
        exchange(s, t)
        frame, other = other, frame
    if not is_found_again(s, t, k, int(s.t_ref[t]), int(s.t_other[t])):
        return steps.IDLE
    if s.t_mm[t] == s.t_ref[t] and s.t_page[t] == s.t_other[t] and not is_ksm(s, frame):
        other = stable_page(s, frame)
        if other == NONE:
            return steps.IDLE
    if frame == other:  # a KSM page, or one that fork shares, which is left alone
        s.t_result[t] = OK if is_ksm(s, frame) else BUSY
        return steps.IDLE
    if s.content[frame] != s.content[other]:
        return steps.IDLE
    if not split_if_large(s, t, k, frame) or not split_if_large(s, t, k, other):
        return steps.IDLE
    hold_frame(s, t, frame)
    page_ref_add(s, other, 1)
    s.t_new[t] = other
    s.t_held[t] = int(s.t_held[t]) | HOLD_NEW
    s.t_value[t] = REPLACE if has_stable_node(s, other) else UPGRADE
    return steps.KSM_PROTECT


@step(steps.KSM_ZERO)
def ksm_zero(s: State, t: int, k: KernelRecord) -> int:
    """try_to_merge_with_zero_page(), use_zero_pages (v4.12, e86c59b1b12d): a page full of zeros."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    s.t_result[t] = BUSY
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    count_merging(s)
    frame = mergeable_page(s, mm, page)
    if frame == NONE or is_ksm(s, frame) or s.content[frame] != s.content[ZERO_FRAME]:
        return steps.IDLE
    if not split_if_large(s, t, k, frame):
        return steps.IDLE
    hold_frame(s, t, frame)
    s.t_new[t] = ZERO_FRAME
    s.t_value[t] = REPLACE
    return steps.KSM_PROTECT


@helper
def write_protect_page(s: State, t: int, k: KernelRecord, mm: int, page: int, frame: int) -> bool:
    """write_protect_page(): read-only and clean; false, and nothing changed, if somebody holds it.

    An entry that is both already, of a page without a mark, is taken without any test.  A KSM page
    has no anon_vma, and is not found (page_address_in_vma): one that lost its partner before it got
    a stable node is merged with nothing any more.
    """
    if is_ksm(s, frame):
        return False
    if not ask(s, t, k, KSM_CHECKS, frame):
        return True
    s.cost[COST_TLB_FLUSHES] += 1
    if not ask(s, t, k, KSM_COUNTS, frame):
        return False
    if is_exclusive(s, frame) and ask(s, t, k, UNMAP_REFUSES, frame):
        return False
    clear_flag(s, frame, PG_EXCLUSIVE)
    pte = pte_of(s, mm, page)
    if pte & PTE_DIRTY:
        set_flag(s, frame, PG_DIRTY)
    s.pte[mm, page] = pte & ~(PTE_WRITE | PTE_DIRTY)
    return True


@helper
def give_up(s: State, t: int) -> int:
    """EFAULT: if the other page was upgraded for this one, break_cow() makes it private again."""
    if s.frame_lock[int(s.t_frame[t])] == t + 1:
        unlock_page(s, int(s.t_frame[t]))
    if s.t_seq[t] == UPGRADED:
        mmap_read_unlock(s, t, int(s.t_mm[t]))
        exchange(s, t)
    return steps.KSM_END


@step(steps.KSM_PROTECT)
def ksm_protect(s: State, t: int, k: KernelRecord) -> int:
    """try_to_merge_one_page(): under the page lock, if it can be had at once."""
    mm, page, frame = int(s.t_mm[t]), int(s.t_page[t]), int(s.t_frame[t])
    if not mmap_read_lock(s, t, mm) or ptl_taken(s, t, mm):
        return steps.BLOCKED
    if not is_mergeable(s, mm, page) or not trylock_page(s, t, frame):
        return give_up(s, t)
    if not maps_here(s, mm, page, frame) or not write_protect_page(s, t, k, mm, page, frame):
        return give_up(s, t)
    remember_pte(s, t, mm, page)
    if s.t_value[t] == REPLACE:
        return steps.KSM_REPLACE
    set_flag(s, frame, PG_KSM | PG_DIRTY)  # set_page_stable_node()
    unlock_page(s, frame)
    mmap_read_unlock(s, t, mm)
    s.t_value[t] = REPLACE
    s.t_seq[t] = UPGRADED
    exchange(s, t)
    return steps.KSM_PROTECT


@step(steps.KSM_REPLACE)
def ksm_replace(s: State, t: int, k: KernelRecord) -> int:
    """replace_page(): if the contents are equal still and nobody has changed the entry meanwhile.

    From v6.6 on the entry of a zero page is dirty, so that unmerging finds it; pte_mkdirty() sets
    the soft-dirty bit, too.
    """
    mm, page, frame, kept = int(s.t_mm[t]), int(s.t_page[t]), int(s.t_frame[t]), int(s.t_new[t])
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    if s.content[frame] != s.content[kept] or not pte_same(s, t, mm, page):
        return give_up(s, t)
    if kept != ZERO_FRAME:
        page_ref_add(s, kept, 1)
        page_add_rmap(s, t, k, kept, mm, page)
        set_pte(s, mm, page, PTE_PRESENT, kept)
        set_flag(s, kept, PG_STABLE_NODE)  # stable_tree_insert(), once both are merged
    else:
        marked = PTE_DIRTY | PTE_SOFT_DIRTY if ask(s, t, k, KSM_MARKS_ZERO, kept) else 0
        set_pte(s, mm, page, PTE_PRESENT | marked, kept)
    s.cost[COST_TLB_FLUSHES] += 1
    page_remove_rmap(s, t, k, frame, mm, page)
    if not ask(s, t, k, STILL_MAPPED, frame):
        try_to_free_swap(s, frame)
    put_page(s, frame)
    unlock_page(s, frame)
    count_merging(s)
    s.t_result[t] = OK
    return steps.KSM_END


@step(steps.KSM_END)
def ksm_end(s: State, t: int, k: KernelRecord) -> int:
    """ksmd lets both pages go."""
    mmap_read_unlock(s, t, int(s.t_mm[t]))
    frame, other = int(s.t_frame[t]), int(s.t_new[t])
    both = (int(s.t_held[t]) & HOLD_NEW) != 0
    unhold(s, t, HOLD_FRAME | HOLD_NEW)
    put_page(s, frame)
    if both:
        put_page(s, other)
    if s.t_result[t] != OK and s.t_seq[t] == UPGRADED:
        return steps.KSM_BREAK
    return steps.IDLE


# -- unmerging -------------------------------------------------------------------------------------


@helper
def clear_mergeable(s: State, k: KernelRecord, mm: int, page: int) -> None:
    """__ksm_del_vma(), madvise_update_vma()."""
    s.vma[mm, page] = int(s.vma[mm, page]) & ~VM_MERGEABLE
    vma_modify(s, k, mm, page, page, page + 1)


@step(steps.UNMERGE)
def unmerge(s: State, t: int, k: KernelRecord) -> int:
    """ksm_madvise(MADV_UNMERGEABLE): every KSM page of the mapping becomes private first."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if not mmap_write_lock(s, t, mm):
        return steps.BLOCKED
    s.t_result[t] = OK if int(s.vma[mm, page]) & VM_MAPPED else SEGV
    if is_mergeable(s, mm, page):
        return steps.KSM_BREAK
    if (int(s.vma[mm, page]) & (VM_MERGEABLE | VM_HUGETLB)) == VM_MERGEABLE:
        split_unless_covered(s, t, k, mm, page, page, page + 1)
        clear_mergeable(s, k, mm, page)
    mmap_write_unlock(s, mm)
    return steps.IDLE


@helper
def is_merged(s: State, t: int, k: KernelRecord, mm: int, page: int) -> bool:
    """break_ksm_pmd_entry(): a KSM page, one in migration too; from v6.6 a zero page of KSM."""
    pte, frame = pte_of(s, mm, page), int(s.pte_to[mm, page])
    if not is_followed(s, t, k, mm, page):
        return False
    if pte & (PTE_PRESENT | PTE_MIGRATION) and is_ksm(s, frame):
        return True
    zero = pte & PTE_PRESENT and frame == ZERO_FRAME and pte & PTE_DIRTY
    return bool(zero != 0 and ask(s, t, k, KSM_MARKS_ZERO, frame))


@helper
def breaks(s: State, t: int, k: KernelRecord, mm: int, page: int) -> bool:
    """Whether a page is to be made private: then `t_fault` says by what fault, `t_page` where."""
    s.t_fault[t] = 0
    if not is_mergeable(s, mm, page) or not is_merged(s, t, k, mm, page):
        return False
    unshare = ask(s, t, k, KSM_BREAKS, int(s.pte_to[mm, page])) == UNSHARE_FAULT
    s.t_fault[t] = FAULT_BREAK_KSM | (FAULT_UNSHARE if unshare else FAULT_WRITE | FAULT_TOUCH)
    s.t_page[t] = page
    return True


@step(steps.KSM_BREAK)
def ksm_break(s: State, t: int, k: KernelRecord) -> int:
    """break_ksm(): fault on the page until it is no KSM page any more."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    unmerging = s.mm_writer[mm] == t + 1
    if not unmerging and not mmap_read_lock(s, t, mm):
        return steps.BLOCKED
    if ptl_taken(s, t, mm):
        return steps.BLOCKED
    if breaks(s, t, k, mm, page):
        s.t_return[t] = steps.KSM_BREAK
        return steps.FAULT
    return steps.KSM_BREAK_END


@step(steps.KSM_BREAK_END)
def ksm_break_end(s: State, t: int, k: KernelRecord) -> int:
    """unmerge_ksm_pages() is over: VM_MERGEABLE goes, whether or not the fault has copied."""
    mm, page = int(s.t_mm[t]), int(s.t_page[t])
    if s.mm_writer[mm] == t + 1:
        clear_mergeable(s, k, mm, page)
        mmap_write_unlock(s, mm)
    mmap_read_unlock(s, t, mm)
    return steps.IDLE


# -- swapping --------------------------------------------------------------------------------------


@helper
def is_strange(s: State, mm: int, page: int, frame: int, slot: int) -> bool:
    """ksm_might_need_to_copy(): swapped as a KSM page, and by now a page of another family.

    A family is a process with all that were forked from it; the kernel's is that of the mapping's
    anon_vma.
    """
    if s.slot_ksm[slot] == 0 or is_ksm(s, frame) or s.frame_family[frame] == 0:
        return False
    kin = s.frame_family[frame] == s.mm_family[mm] + 1
    return bool(not kin or s.frame_index[frame] != page)


@helper
def join_family(s: State, mm: int, frame: int, slot: int) -> None:
    """The first mapping of a page that was swapped as a KSM page decides whose page it is."""
    if s.slot_ksm[slot] != 0 and not is_ksm(s, frame) and s.frame_family[frame] == 0:
        s.frame_family[frame] = int(s.mm_family[mm]) + 1


@helper
def private_copy(s: State, t: int, frame: int) -> int:
    """ksm_might_need_to_copy(): a new page with the same content, outside of the swap cache."""
    new = alloc_frame(s)
    s.content[new] = s.content[frame]
    set_flag(s, new, PG_DIRTY)
    s.cost[COST_COPIES] += 1
    s.copies += 1
    return new
