"""The state in words: what a page-table entry, a frame, a slot or a reference is right now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pageherd.machine import state as st
from pageherd.machine.layout import State

_FOLL: Final = (
    (st.FOLL_GET, "FOLL_GET"),
    (st.FOLL_PIN, "FOLL_PIN"),
    (st.FOLL_WRITE, "FOLL_WRITE"),
    (st.FOLL_FORCE, "FOLL_FORCE"),
    (st.FOLL_LONGTERM, "FOLL_LONGTERM"),
)
_PAGE_FLAGS: Final = (
    (st.PG_EXCLUSIVE, "anon-exclusive"),
    (st.PG_DIRTY, "dirty"),
    (st.PG_WRITEBACK, "write-back"),
    (st.PG_ISOLATED, "isolated"),
    (st.PG_FILE, "page cache"),
    (st.PG_HUGETLB, "hugetlb"),
    (st.PG_KSM, "KSM"),
    (st.PG_STABLE_NODE, "stable node"),
    (st.PG_LAZYFREE, "lazyfree"),
    (st.PG_HWPOISON, "poisoned"),
)


@dataclass(frozen=True, slots=True)
class Labels:
    """The names of what the state knows by number."""

    processes: Sequence[str]
    threads: Sequence[str]
    pages: Sequence[str]
    references: Sequence[str]


def foll_words(flags: int) -> str:
    """FOLL_ flags in words."""
    return " ".join(word for flag, word in _FOLL if flags & flag)


def entry(s: State, mm: int, page: int) -> str:
    """A page-table entry in words."""
    pte, to = int(s["pte"][mm, page]), int(s["pte_to"][mm, page])
    tracked = ", uffd-wp" if pte & st.PTE_UFFD_WP else ""
    if pte & st.PTE_PROTNONE:
        rwp = int(s["vma"][mm, page]) & st.VM_UFFD_RWP and pte & st.PTE_UFFD_WP
        tracked += ", no access" if rwp else ", no access (NUMA hint)"
    if pte & st.PTE_PRESENT:
        where = "the zero page" if to == st.ZERO_FRAME else f"frame {to}"
        return f"{where}, {'writable' if pte & st.PTE_WRITE else 'read-only'}{tracked}"
    if pte & st.PTE_SWAP:
        mark = ", exclusive" if pte & st.PTE_SWP_EXCLUSIVE else ""
        return f"swap slot {to}{mark}{tracked}"
    if pte & st.PTE_MIGRATION:
        kind = "for writing" if pte & st.PTE_WRITE else "for reading"
        mark = ", exclusive" if pte & st.PTE_SWP_EXCLUSIVE else ""
        return f"migration entry {kind}{mark}, frame {to}{tracked}"
    if pte & st.PTE_DEVICE_EXCLUSIVE:
        kind = " for writing" if pte & st.PTE_WRITE else ""
        kind += ", mapped" if pte & st.PTE_MAPPED else ""
        return f"device-exclusive entry{kind}, frame {to}{tracked}"
    if pte & st.PTE_DEVICE_PRIVATE:
        kind = "for writing" if pte & st.PTE_WRITE else "for reading"
        return f"device-private entry {kind}, frame {to}{tracked}"
    if pte & st.PTE_GUARD:
        return "a guard region"
    if pte & st.PTE_HWPOISON:
        return f"hwpoison entry, frame {to}{tracked}"
    if tracked:
        return f"nothing{tracked}"
    if int(s["vma"][mm, page]) & st.VM_HUGETLB and int(s["vma"][mm, page]) & st.HPAGE_RESV_UNMAPPED:
        return "nothing: its page was taken away"
    return "nothing" if int(s["vma"][mm, page]) & st.VM_MAPPED else "no mapping"


def _marks(s: State, flags: int) -> list[str]:
    """The flags of a frame in words; two of them mean something else of other pages."""
    if flags & st.PG_FILE and s["file_kind"] == st.FILE_DAX:
        marks = ((st.PG_DIRTY, "dirty"), (st.PG_FILE, "DAX file"), (st.PG_DEVMAP, "devmap"))
        return [word for flag, word in marks if flags & flag]
    words = [word for flag, word in _PAGE_FLAGS if flags & flag]
    if flags & st.PG_PRIVATE:
        words.append("buffers" if flags & st.PG_FILE else "memory of a device")
    return words


def frame(s: State, number: int) -> list[str]:
    """A frame in words: content, counts, marks."""
    words = [f"holds {int(s['content'][number])}", f"refcount {int(s['refcount'][number])}"]
    if s["pincount"][number]:
        words.append(f"pins {int(s['pincount'][number])}")
    words.append(f"mapcount {int(s['mapcount'][number])}")
    words += _marks(s, int(s["page_flags"][number]))
    if s["frame_slot"][number]:
        words.append(f"swap cache of slot {int(s['frame_slot'][number]) - 1}")
    if s["frame_batch"][number]:
        words.append(f"in the LRU batch of cpu {int(s['frame_batch'][number]) - 1}")
    if s["frame_lock"][number]:
        words.append("locked")
    return words


def in_use(s: State, number: int) -> bool:
    """Whether a frame is allocated."""
    return bool(s["refcount"][number] or s["pincount"][number])


def reference(s: State, labels: Labels, number: int) -> str:
    """A reference in words."""
    held = int(s["ref_frame"][number]) - 1
    if held < 0:
        return "released"
    owner = labels.processes[int(s["ref_mm"][number])]
    what = "the zero page" if held == st.ZERO_FRAME else f"frame {held}"
    times = int(s["ref_times"][number])
    many = f" {times} times" if times > 1 else ""
    return f"{owner}'s {foll_words(int(s['ref_flags'][number]))} on {what}{many}"


def facts(s: State, labels: Labels) -> Iterator[tuple[str, str]]:
    """Every fact of the state that people look at: (what, how it is)."""
    for mm, process in enumerate(labels.processes):
        yield process, ("not there", "alive", "gone")[int(s["mm_state"][mm])]
        if s["mm_state"][mm] != st.LIVE:
            continue
        for page, name in enumerate(labels.pages):
            yield f"{process}.{name}", entry(s, mm, page)
    for number in range(1, int(s["nr_frames"])):
        yield f"frame {number}", ", ".join(frame(s, number)) if in_use(s, number) else "free"
    if s["file_kind"] == st.FILE_DISK:
        for page, name in enumerate(labels.pages):
            yield f"file {name}", f"{int(s['file_content'][page])} on disk"
    for slot in range(int(s["nr_slots"])):
        named = int(s["swap_count"][slot])
        cached = int(s["slot_frame"][slot]) - 1
        cache = f", cached by frame {cached}" if cached >= 0 else ""
        holds = f", holds {int(s['slot_content'][slot])}" if named or cached >= 0 else ""
        yield f"slot {slot}", f"{named} entries{cache}{holds}"
    for number, name in enumerate(labels.references):
        yield name, reference(s, labels, number)


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What differs between two sets of facts, in words; counts are shown one by one."""
    found = []
    for what, now in after.items():
        was = before.get(what, "")
        if was == now:
            continue
        if what.startswith("frame") and was != "free" and now != "free":
            found.append(f"{what}: {_word_changes(was, now)}")
        else:
            found.append(f"{what}: {was} -> {now}" if was else f"{what}: {now}")
    return found


def _word_changes(was: str, now: str) -> str:
    """Of two lists of words only those that changed: `refcount 1 -> 2`, `+dirty`, `-locked`."""
    old, new = was.split(", "), now.split(", ")
    gone, come = [w for w in old if w not in new], [w for w in new if w not in old]
    parts = []
    for word in come:
        key = word.rpartition(" ")[0]
        match = next((g for g in gone if key and g.rpartition(" ")[0] == key), None)
        if match is not None and word.rpartition(" ")[2].isdigit():
            gone.remove(match)
            parts.append(f"{match} -> {word.rpartition(' ')[2]}")
        else:
            parts.append(f"+{word}")
    return ", ".join(parts + [f"-{word}" for word in gone])


def reasons(before: State, after: State, labels: Labels, owner: int) -> Iterator[tuple[str, str]]:
    """Why an operation that led from `before` to `after` may have broken a promise: (promise, why).

    What it stored into and who but its `owner` sees that frame; which reference holds another frame
    than its page; which page should have shown another value.
    """
    for number in range(1, int(after["nr_frames"])):
        if in_use(before, number) and before["content"][number] != after["content"][number]:
            seen = sorted(
                {who for s in (before, after) for who in _who_sees(s, labels, number, owner)}
            )
            if seen:
                where = f"the store landed in frame {number}, which shows in {', '.join(seen)}"
                yield "private", where
                yield "get-fork", where
    for ref, name in enumerate(labels.references):
        mm, page = int(before["ref_mm"][ref]), int(before["ref_page"][ref]) - 1
        held = int(after["ref_frame"][ref]) - 1
        if held < 0 or page < 0 or after["mm_state"][mm] != st.LIVE:
            continue
        place = f"{labels.processes[mm]}.{labels.pages[page]}"
        where = "the zero page" if held == st.ZERO_FRAME else f"frame {held}"
        why = f"{name} holds {where}, but {place} is {entry(after, mm, page)}"
        if not _shows(after, mm, page, held):
            yield "pin-coherent", why
            yield "get-fork", why
    for mm, process in enumerate(labels.processes):
        for page, name in enumerate(labels.pages):
            want, got = int(before["want"][mm, page]), int(after["want"][mm, page])
            if want != got and after["mm_state"][mm] == st.LIVE:
                yield "own-writes", f"{process}.{name} should have shown {want}, not {got}"


def _shows(s: State, mm: int, page: int, number: int) -> bool:
    pte, to = int(s["pte"][mm, page]), int(s["pte_to"][mm, page])
    if pte & (st.PTE_PRESENT | st.PTE_MIGRATION | st.PTE_DEVICE):
        return to == number
    return bool(pte & st.PTE_SWAP) and int(s["slot_frame"][to]) - 1 == number


def _who_sees(s: State, labels: Labels, number: int, owner: int) -> Iterator[str]:
    """The pages and references of processes other than `owner` that show a frame."""
    for mm, process in enumerate(labels.processes):
        for page, name in enumerate(labels.pages):
            if mm != owner and s["mm_state"][mm] == st.LIVE and _shows(s, mm, page, number):
                yield f"{process}.{name}"
    for ref, name in enumerate(labels.references):
        if int(s["ref_frame"][ref]) - 1 == number and s["ref_mm"][ref] != owner:
            yield f"{labels.processes[int(s['ref_mm'][ref])]}'s {name}"
