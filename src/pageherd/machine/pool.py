"""The pool of hugetlb pages and its reservations (hugetlb_reserve_pages, alloc_huge_page).

A private mapping reserves its page when it is made.  The reservation is of the process that made
it, until its first fault uses it; a child has none.  A shared mapping reserves its page in the
file, for all who map it so, until the file has the page or is gone.  `hugetlb_resv` is
h->resv_huge_pages: what of the free pages is spoken for.  Without a `hugetlb_pool` line there are
as many pages as it takes, and nothing is counted.
"""

from __future__ import annotations

from pageherd.machine.folio import (
    alloc_frame,
    clear_flag,
    has_flag,
    hold_frame,
    is_anon,
    put_page,
    set_flag,
)
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.pte import is_hugetlb, is_shared
from pageherd.machine.questions import HUGETLB_RESTORES
from pageherd.machine.state import (
    HPAGE_RESV_OWNER,
    NONE,
    PG_HUGETLB,
    PG_ISOLATED,
    PG_RESTORE_RESERVE,
    PG_TEMPORARY,
    RESV_USED,
    ask,
)


@helper
def is_limited(s: State) -> bool:
    """Whether the pool has a size."""
    return bool(s.hugetlb_pool != 0)


@helper
def is_owner(s: State, mm: int, page: int) -> bool:
    """is_vma_resv_set(HPAGE_RESV_OWNER): whether this process made the mapping."""
    return is_hugetlb(s, mm, page) and (int(s.vma[mm, page]) & HPAGE_RESV_OWNER) != 0


@helper
def has_reserves(s: State, mm: int, page: int) -> bool:
    """vma_has_reserves(): the file's, or the owner's as long as no fault has used it."""
    if is_shared(s, mm, page):
        return True
    return is_owner(s, mm, page) and (int(s.vma[mm, page]) & RESV_USED) == 0


@helper
def available_huge_pages(s: State) -> bool:
    """available_huge_pages(): a free page that is not reserved; the kernel asks for a difference.

    More may be reserved than is free: `restore_on_unmap()`.
    """
    return bool(not is_limited(s) or s.hugetlb_free != s.hugetlb_resv)


@helper
def reserve(s: State, mm: int, page: int) -> bool:
    """hugetlb_reserve_pages(), hugetlb_acct_memory(): for a new mapping; or ENOMEM.

    It must be free and not reserved; the kernel asks for both (gather_surplus_pages, and the nodes
    that the process may use).  What the file has reserved or holds is not reserved again.
    """
    if not is_limited(s):
        return True
    shared, file = is_shared(s, mm, page), int(s.vma_file[mm, page]) - 1
    if shared and s.file_reserved[file] != 0:
        return True
    if s.hugetlb_free <= 0 or s.hugetlb_free <= s.hugetlb_resv:
        return False
    s.hugetlb_resv += 1
    if shared:
        s.file_reserved[file] = 1
    else:
        s.vma[mm, page] = int(s.vma[mm, page]) | HPAGE_RESV_OWNER
    return True


@helper
def close_reservation(s: State, mm: int, page: int) -> None:
    """hugetlb_vm_op_close(): a private mapping goes, and its reservation if it was not used."""
    if is_owner(s, mm, page) and has_reserves(s, mm, page):
        s.hugetlb_resv -= 1


@helper
def unreserve(s: State, file: int) -> None:
    """hugetlb_unreserve_pages(): the file is gone, and what it reserved and does not hold."""
    if s.file_reserved[file] != 0 and s.file_frame[file] == 0:
        s.hugetlb_resv -= 1
    s.file_reserved[file] = 0


@helper
def new_huge_page(s: State) -> int:
    """A frame for a hugetlb page; the caller has seen to the pool."""
    new = alloc_frame(s)
    if new != NONE:
        set_flag(s, new, PG_HUGETLB)
    return new


@helper
def alloc_huge_page(s: State, mm: int, page: int, cow_from_owner: bool) -> int:
    """alloc_huge_page(), dequeue_huge_page_vma(): a page of the pool, or NONE (ENOSPC).

    Who has no reservation for it must leave those pages alone that others have; so must the owner
    who has used it and only copies.
    """
    if not is_limited(s):
        return new_huge_page(s)
    reserved = has_reserves(s, mm, page) and not cow_from_owner
    if s.hugetlb_free <= 0 or not (reserved or available_huge_pages(s)):
        return NONE
    new = new_huge_page(s)
    s.hugetlb_free -= 1
    if reserved:
        s.hugetlb_resv -= 1
        set_flag(s, new, PG_RESTORE_RESERVE)
        if not is_shared(s, mm, page):
            s.vma[mm, page] = int(s.vma[mm, page]) | RESV_USED
    return new


@helper
def isolate_hugetlb(s: State, t: int, frame: int) -> bool:
    """isolate_hugetlb(): takes a page, with a reference, unless it is isolated already."""
    if has_flag(s, frame, PG_ISOLATED) or s.refcount[frame] == 0:
        return False
    set_flag(s, frame, PG_ISOLATED)
    hold_frame(s, t, frame)
    return True


@helper
def alloc_for_migration(s: State) -> int:
    """alloc_huge_page_nodemask(): a page that is not reserved, or else one from outside the pool.

    The latter is temporary: the page that it replaces leaves the pool, and it joins.
    """
    temporary = not available_huge_pages(s)
    new = new_huge_page(s)
    if new != NONE and temporary:
        set_flag(s, new, PG_TEMPORARY)
    elif is_limited(s):
        s.hugetlb_free -= 1
    return new


@helper
def move_hugetlb_state(s: State, old: int, new: int) -> None:
    """move_hugetlb_state(): of two pages the old one is the temporary one from now on."""
    if has_flag(s, new, PG_TEMPORARY):
        clear_flag(s, new, PG_TEMPORARY)
        set_flag(s, old, PG_TEMPORARY)


@helper
def restore_reserve_on_error(s: State, mm: int, page: int, new: int) -> None:
    """restore_reserve_on_error(): the page was not needed, so the owner has its reservation back.

    The flag stays: freeing the page counts the reservation again.
    """
    if has_flag(s, new, PG_RESTORE_RESERVE):
        s.vma[mm, page] = int(s.vma[mm, page]) & ~RESV_USED
    put_page(s, new)


@helper
def restore_on_unmap(s: State, t: int, k: KernelRecord, mm: int, page: int, frame: int) -> None:
    """__unmap_hugepage_range(): some kernels give the owner its reservation back with the page.

    It is counted again when the page is free, which is later if somebody holds or maps it.
    """
    if not is_limited(s) or not is_owner(s, mm, page) or not is_anon(s, frame):
        return
    if ask(s, t, k, HUGETLB_RESTORES, frame):
        set_flag(s, frame, PG_RESTORE_RESERVE)
        s.vma[mm, page] = int(s.vma[mm, page]) & ~RESV_USED
