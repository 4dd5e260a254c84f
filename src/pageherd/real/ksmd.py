"""What ksmd may do when it goes over all mergeable memory, as the lever of `ksm` lets it.

In the machine `ksm` merges two pages; on a real kernel ksmd looks at every page there is, at one
process after the other, and merges each with the first equal one that it knows.  What it does with
two pages is the machine's step.  Left open is which process is first, which pages ksmd has seen
before, as it merges only those, and whether it finds a KSM page that is held but not mapped any
more: that depends on whether an old mapping of it is still on ksmd's list (rmap_hlist_len).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, combinations, permutations
from typing import Any, Final

from pageherd.machine import state as st
from pageherd.machine import steps
from pageherd.machine.jit import records
from pageherd.machine.ksm import find_again, find_mergeable, find_stable, scan_ends
from pageherd.machine.layout import State, States
from pageherd.machine.operations import Operation
from pageherd.real.observe import Where
from pageherd.real.operate import identity, run_operation

VERBS: Final = frozenset(("ksm", "ksm_zero"))
SEEN_AT_MOST: Final = 4  # of more equal pages all or none have been seen before


def scanned(
    state: States, operation: Operation, kernel: Any
) -> Iterator[tuple[States, frozenset[str]]]:
    """Every state that two scans may lead to, with what the operation gives in register 0."""
    found: dict[bytes, tuple[States, frozenset[str]]] = {}
    pages = mergeable(state)
    for order in permutations(sorted({mm for mm, _ in pages})):
        for late in _late(state[0], pages, operation.pc == steps.KSM_ZERO):
            for zero_first in (True, False) if operation.pc == steps.KSM_ZERO else (False,):
                for finds_held in (True, False) if _any_held(state[0]) else (True,):
                    scan = _Scan(state.copy(), operation, kernel, order, zero_first, finds_held)
                    scan.over_all(late)
                    scan.over_all(frozenset())
                    scan.states["reg"][0, 0] = _result(scan.states[0], operation)
                    found.setdefault(identity(scan.states), (scan.states, scan.broke))
    yield from found.values()


def mergeable(states: States) -> list[Where]:
    """The pages that ksmd looks at (scan_get_next_rmap_item())."""
    return [
        (mm, page)
        for mm in range(int(states["nr_mms"][0]))
        for page in range(int(states["nr_pages"][0]))
        if _frame(states, (mm, page)) is not None
    ]


def _frame(states: States, where: Where) -> int | None:
    """The frame of a page that can be merged; None if it cannot."""
    frame = int(find_mergeable(records(states), 0, *where))
    return None if frame == st.NONE else frame


def _is_stable(s: State, frame: int) -> bool:
    return bool(int(s["page_flags"][frame]) & st.PG_STABLE_NODE)


def _any_held(s: State) -> bool:
    """Whether a page of the stable tree is held, but not mapped."""
    frames = range(1, int(s["nr_frames"]))
    return any(s["refcount"][f] and _is_stable(s, f) and not s["mapcount"][f] for f in frames)


def _late(s: State, pages: list[Where], zeros: bool) -> Iterator[frozenset[Where]]:
    """Which of the pages that have an equal one, or may become the zero page, are new to ksmd."""
    contents: dict[int, set[int]] = {}
    for where in pages:
        frame = int(s["pte_to"][where])
        contents.setdefault(int(s["content"][frame]), set()).add(frame)
    of = {w: int(s["content"][int(s["pte_to"][w])]) for w in pages}
    equal = [w for w in pages if len(contents[of[w]]) > 1 or (zeros and of[w] == 0)]
    sizes = range(len(equal) + 1) if len(equal) <= SEEN_AT_MOST else (0, len(equal))
    choices = chain.from_iterable(combinations(equal, size) for size in sizes)
    return map(frozenset[Where], choices)


def _result(s: State, operation: Operation) -> int:
    """Whether the pages that the test names are one now."""
    here = int(s["pte_to"][operation.mm, operation.page])
    if operation.pc == steps.KSM_ZERO:
        present = int(s["pte"][operation.mm, operation.page]) & st.PTE_PRESENT
        return st.OK if present and here == st.ZERO_FRAME else st.BUSY
    pages = (operation.mm, operation.page), (operation.ref, operation.other)
    one = all(s["pte_to"][w] == here and s["pte"][w] & st.PTE_PRESENT for w in pages)
    return st.OK if one and int(s["page_flags"][here]) & st.PG_KSM else st.BUSY


class _Scan:
    """ksmd's way over the memory of the processes, in this order."""

    def __init__(
        self,
        states: States,
        operation: Operation,
        kernel: Any,
        order: tuple[int, ...],
        zero_first: bool,
        finds_held: bool,
    ) -> None:
        self.states = states
        self.operation = operation
        self.kernel = kernel
        self.order = order
        self.zero_first = zero_first
        self.finds_held = finds_held
        self.munlocked: set[int] = set()  # frames with a reference until the next scan drains
        self.broke: frozenset[str] = frozenset()

    def over_all(self, late: frozenset[Where]) -> None:
        """One scan; pages that are `late` are seen for the first time, and left for the next."""
        unstable: dict[int, Where] = {}
        self.munlocked.clear()  # scan_get_next_rmap_item(): lru_add_drain_all()
        for mm in self.order:
            for page in range(int(self.states["nr_pages"][0])):
                if (mm, page) not in late:
                    self.visit((mm, page), unstable)
        scan_ends(records(self.states), 0)

    def visit(self, where: Where, unstable: dict[int, Where]) -> None:
        """cmp_and_merge_page(): the zero page, the stable tree, then the unstable one."""
        frame = _frame(self.states, where)
        if frame is None or _is_stable(self.states[0], frame) or frame in self.munlocked:
            return
        if self.zero_first and self.becomes_zero(where):
            return
        content = int(self.states["content"][0, frame])
        stable = self.stable(content)
        if stable is not None:
            self.merge(where, stable)
            return
        if self.finds_held and find_stable(records(self.states), 0, frame) != st.NONE:
            self.merge(where, where)
            return
        if self.operation.pc == steps.KSM_ZERO and not self.zero_first and self.becomes_zero(where):
            return
        other = unstable.setdefault(content, where)
        if other == where or self.again(other) in (st.NONE, frame):
            return
        if self.merge(where, other):
            del unstable[content]

    def stable(self, content: int) -> Where | None:
        """Where a page of the stable tree with this content is mapped."""
        s = self.states[0]
        for where in mergeable(self.states):
            frame = int(s["pte_to"][where])
            if _is_stable(s, frame) and s["content"][frame] == content:
                return where
        return None

    def again(self, where: Where) -> int:
        """The frame of a page in the unstable tree, or NONE."""
        return int(find_again(records(self.states), 0, records(self.kernel), *where))

    def becomes_zero(self, where: Where) -> bool:
        mm, page = where
        return self.take(Operation(steps.KSM_ZERO, mm=mm, page=page))

    def merge(self, where: Where, other: Where) -> bool:
        (mm, page), (ref, to) = where, other
        return self.take(Operation(steps.KSM, mm=mm, page=page, ref=ref, other=to), other)

    def take(self, operation: Operation, other: Where | None = None) -> bool:
        """Take a step of the machine; whether it came to something."""
        operation = replace(operation, thread=self.operation.thread)
        places = {(operation.mm, operation.page), other or (operation.mm, operation.page)}
        before = {where: int(self.states["pte_to"][0][where]) for where in places}
        self.broke |= run_operation(self.states, operation, self.kernel)
        for where, frame in before.items():
            locked = int(self.states["vma"][0][where]) & st.VM_LOCKED
            if locked and int(self.states["pte_to"][0][where]) != frame:
                self.munlocked.add(frame)  # munlock_folio(), or putback_lru_page() until v5.17
        return bool(self.states["reg"][0, 0] == st.OK)
