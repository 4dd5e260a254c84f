"""What user space can observe of a page, in the words of both: the model's state, and /proc.

One page of one process is a `Page`: what pagemap says of its entry and what kpagecount and
kpageflags say of its frame.  The model's state is put into the same words here, and nowhere else:

| observation | real kernel | model |
|---|---|---|
| entry | pagemap bits 63 present and 62 swapped, kpageflags ZERO_PAGE | `pte` |
| frame | pagemap bits 0-54, numbered in the order of the pages | `pte_to`, in the same way |
| moved | the frame is not the one of the look before, and the page was present then | likewise |
| slot | pagemap bits 5-54 of a swap entry, likewise | `pte_to` of a swap entry |
| mapcount | /proc/kpagecount | the entries that map the frame |
| alone | pagemap bit 56: mapped exactly once (not anon-exclusive) | mapcount is 1 |
| cached | kpageflags SWAPCACHE | `frame_slot` |
| dirty | kpageflags DIRTY | `PG_DIRTY` |
| ksm | kpageflags KSM, where that is not said of every anonymous page (6.12) | `PG_KSM` |
| exclusive | kpageflags bit 34, PG_anon_exclusive from 5.19 on | `PG_EXCLUSIVE` |
| soft_dirty | pagemap bit 55 | `PTE_SOFT_DIRTY` or `VM_SOFTDIRTY` |
| large | kpageflags THP | the frame's folio has several frames |
| huge | AnonHugePages and ShmemPmdMapped of smaps; not of memory without access | `PTE_HUGE` |

Of hugetlb pages only the first of these and soft_dirty are compared, of pages of files large and
huge, too, of those of DAX files entry, frame, moved and soft_dirty: kernels do not agree in what
they say of the memory of devices.  Memory without access: v6.1 to v6.5 do not tell whether one PMD
entry maps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Final, Literal

from pageherd.machine import state as st
from pageherd.machine.layout import State

PRESENT_BIT: Final = 63
SWAPPED_BIT: Final = 62
ALONE_BIT: Final = 56
SOFT_DIRTY_BIT: Final = 55
MARKER: Final = -1  # a marker of userfaultfd reads as an entry of a swap device of its own
GUARD: Final = 1 << 40  # and so does that of a guard region
POISON: Final = 1 << 41  # a hwpoison entry names its frame likewise; so far on from here
FRAME_MASK: Final = (1 << 55) - 1

# include/uapi/linux/kernel-page-flags.h, and the owner-2 bit (v6.12; MAPPEDTODISK before)
KPF_DIRTY: Final = 4
KPF_MMAP: Final = 11
KPF_ANON: Final = 12
KPF_SWAPCACHE: Final = 13
KPF_HUGE: Final = 17
KPF_NOPAGE: Final = 20
UNTOLD: Final = 2  # for whether one PMD entry maps a page
KPF_THP: Final = 22
KPF_KSM: Final = 21
KPF_ZERO_PAGE: Final = 24
KPF_ANON_EXCLUSIVE: Final = 34

Where = tuple[int, int]
"""A process and a page, by number."""

Entry = Literal["absent", "zero", "present", "swapped"]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of one process as it can be observed; None: this run cannot see it."""

    entry: Entry
    frame: int | None = None
    slot: int | None = None
    mapcount: int | None = None
    alone: bool | None = None
    cached: bool | None = None
    dirty: bool | None = None
    exclusive: bool | None = None
    ksm: bool | None = None
    soft_dirty: bool | None = None
    moved: bool | None = None
    large: bool | None = None
    huge: bool | None = None


Pages = Mapping[Where, Page]
FIELDS: Final = tuple(field.name for field in fields(Page))


@dataclass(frozen=True, slots=True)
class Sight:
    """What this run can see: depends on privilege, kernel and configuration."""

    frames: bool  # pagemap shows frame numbers (CAP_SYS_ADMIN)
    counts: bool  # /proc/kpagecount can be read
    flags: bool  # /proc/kpageflags can be read
    exclusive: bool  # PG_anon_exclusive exists and is exported
    soft_dirty: bool  # CONFIG_MEM_SOFT_DIRTY
    ksm: bool = False  # kpageflags tells KSM pages from others
    of_head: bool = False  # kpageflags of a folio's pages are all those of its first page (v6.10)

    def of(self, page: Page) -> Page:
        """Only what can be seen of a page."""
        return replace(
            page,
            entry="present" if page.entry == "zero" and not self.flags else page.entry,
            frame=page.frame if self.frames else None,
            moved=page.moved if self.frames else None,
            slot=page.slot if self.frames else None,
            mapcount=page.mapcount if self.counts else None,
            cached=page.cached if self.flags else None,
            dirty=page.dirty if self.flags else None,
            exclusive=page.exclusive if self.exclusive else None,
            ksm=page.ksm if self.ksm else None,
            large=page.large if self.flags else None,
            soft_dirty=page.soft_dirty if self.soft_dirty else None,
        )


def real_page(pagemap: int, count: int, flags: int, huge: int | None = None) -> Page:
    """One page from the three words that the kernel says of it.

    `huge`: whether one PMD entry maps it, or `UNTOLD`; None in a program without huge ranges.
    """
    soft_dirty = bool(pagemap >> SOFT_DIRTY_BIT & 1)
    if pagemap >> SWAPPED_BIT & 1:
        return Page("swapped", slot=pagemap & FRAME_MASK, soft_dirty=soft_dirty)
    if not pagemap >> PRESENT_BIT & 1:
        return Page("absent", soft_dirty=soft_dirty)
    if flags >> KPF_ZERO_PAGE & 1:
        return Page("zero", soft_dirty=soft_dirty)
    if flags >> KPF_NOPAGE & 1:
        return Page("present", frame=pagemap & FRAME_MASK, soft_dirty=soft_dirty)
    found = Page(
        "present",
        frame=pagemap & FRAME_MASK,
        mapcount=count,
        alone=bool(pagemap >> ALONE_BIT & 1),
        soft_dirty=soft_dirty,
    )
    if flags >> KPF_HUGE & 1:
        return found
    found = replace(
        found,
        large=None if huge is None else bool(flags >> KPF_THP & 1),
        huge=None if huge in (None, UNTOLD) else bool(huge),
        alone=None if huge else found.alone,  # of a PMD entry some releases look at one page only
    )
    if flags >> KPF_MMAP & 1 and not flags >> KPF_ANON & 1:
        return found  # page cache: the other marks mean something else there
    return replace(
        found,
        cached=bool(flags >> KPF_SWAPCACHE & 1),
        dirty=bool(flags >> KPF_DIRTY & 1),
        exclusive=bool(flags >> KPF_ANON_EXCLUSIVE & 1),
        ksm=bool(flags >> KPF_KSM & 1),
    )


def model_page(s: State, mm: int, page: int, *, of_head: bool = False) -> Page:
    """One page from the model's state; `of_head` as in `Sight`."""
    pte, to, vma = int(s["pte"][mm, page]), int(s["pte_to"][mm, page]), int(s["vma"][mm, page])
    bit = pte & st.PTE_SOFT_DIRTY and not vma & st.VM_HUGETLB  # pagemap_hugetlb_range()
    soft_dirty = bool(vma & st.VM_SOFTDIRTY or bit)
    if pte & st.PTE_SWAP:
        return Page("swapped", slot=to, soft_dirty=soft_dirty)
    if pte & st.PTE_GUARD:
        return Page("swapped", slot=GUARD, soft_dirty=soft_dirty)
    if pte & st.PTE_HWPOISON:
        return Page("swapped", slot=POISON + to, soft_dirty=soft_dirty)
    if pte == st.PTE_UFFD_WP and not vma & st.VM_HUGETLB:
        return Page("swapped", slot=MARKER, soft_dirty=soft_dirty)
    if not pte & st.PTE_PRESENT:
        return Page("absent", soft_dirty=soft_dirty)
    if to == st.ZERO_FRAME:
        return Page("zero", soft_dirty=soft_dirty)
    flags = int(s["page_flags"][to])
    if flags & st.PG_FILE and s["file_kind"] == st.FILE_DAX:
        return Page("present", frame=to, soft_dirty=soft_dirty)
    mapcount = int(((s["pte"] & st.PTE_PRESENT != 0) & (s["pte_to"] == to)).sum())
    found = Page("present", frame=to, mapcount=mapcount, alone=mapcount == 1, soft_dirty=soft_dirty)
    if flags & st.PG_HUGETLB:
        return found
    head = int(s["page_flags"][to - int(s["frame_tail"][to])])
    ranges = s["nr_huge"] > 1
    told = ranges and vma & (st.VM_READ | st.VM_WRITE)
    found = replace(
        found,
        large=bool(s["frame_order"][to]) if ranges else None,
        huge=bool(pte & st.PTE_HUGE) if told else None,
        alone=None if pte & st.PTE_HUGE or (ranges and not told) else found.alone,
    )
    if head & st.PG_FILE:
        return found
    return replace(
        found,
        cached=bool(s["frame_slot"][to]),
        dirty=bool(head & st.PG_DIRTY),
        exclusive=bool((head if of_head else flags) & st.PG_EXCLUSIVE),
        ksm=bool(flags & st.PG_KSM),
    )


def model_pages(
    s: State, processes: int, pages: int, *, of_head: bool = False
) -> dict[Where, Page]:
    """Every page of every living process of the model."""
    return {
        (mm, page): model_page(s, mm, page, of_head=of_head)
        for mm in range(processes)
        if s["mm_state"][mm] == st.LIVE
        for page in range(pages)
    }


def look(pages: Pages, before: Pages, sight: Sight) -> dict[Where, Page]:
    """What can be seen of `pages`; names of frames and slots become numbers in the order of pages.

    A copy is made while the old frame is still held, so a frame that changed between two looks
    tells a copy from a reuse; the name of a frame that was free in between tells nothing.
    """
    frames: dict[int, int] = {}
    slots: dict[int, int] = {}
    found: dict[Where, Page] = {}
    for where in sorted(pages):
        page, old = pages[where], before.get(where)
        was = old.frame if old is not None else None
        moved = None if was is None or page.frame is None else was != page.frame
        visible = sight.of(replace(page, moved=moved))
        found[where] = replace(
            visible, frame=_number(frames, visible.frame), slot=_number(slots, visible.slot)
        )
    return found


def _number(numbers: dict[int, int], name: int | None) -> int | None:
    return None if name is None else numbers.setdefault(name, len(numbers))
