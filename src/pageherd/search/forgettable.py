"""What the states of a hunt may forget on a kernel: which maps of `forget.py` are sound there.

A map may rest on what the kernel's rules look at, or on what they do.  A user's own rule may look
at anything: unless it looks at nothing but counts and the exclusive mark, of a page that a process
maps or finds in the swap cache, nothing is forgotten but what no rule can see.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import FunctionType
from typing import Any, Final

import numpy as np

from pageherd.machine.jit import records
from pageherd.machine.layout import HUNT, dtype
from pageherd.rules.choose import Kernel
from pageherd.search import forget
from pageherd.search.scope import MOVES, OPERATIONS

_REUSES_EXCLUSIVE: Final = (
    "by-exclusive",
    "by-exclusive-small",
    "by-exclusive-or-mm",
    "by-exclusive-bit",
)
_GUP_LEAVES_EXCLUSIVE: Final = ("never", "pins-not-exclusive", "pins-not-exclusive-or-longterm")
_EXCLUSIVE_STAYS: Final = {"unshare": _GUP_LEAVES_EXCLUSIVE}
"""An exclusive page, if faults reuse it, is not unshared by GUP either."""
_NEVER_UPGRADES: Final = {"mprotect-upgrade": ("never",), "swapin-read-maps": ("read-only",)}
_KEEPS_BATCH: Final = {"reuse": ("by-mapcount", "by-refcount", "by-state")}
"""Reuse of a page that a forced write has just faulted in does not drain the LRU batch; so that it
does not matter whether the zero page was mapped before."""
_MOVES_EXCLUSIVE: Final = {"migration-exclusive": ("in-the-entry",)}
"""A page that moves is exclusive afterwards if it was, whether its entry was writable or not."""
_MARKED_AT_BIRTH: Final = {"marks": ("anon-exclusive",)}
"""The same, if exclusive pages are reused, since such a page is exclusive."""
_EXACT: Final = {"counting": ("exact", "exact-and-total", "mm-ids", "mm-ids-only")}
"""Of small pages, and a hunt has no others."""
_BY_RMAP: Final = {"still-mapped": ("by-rmap",)}
_PINS_ARE_OWN: Final = {
    "unshare": _GUP_LEAVES_EXCLUSIVE[1:],
    "fork": ("copy-if-exclusive-pinned",),
    "reclaim-skips": ("pinned",),
    "unmap-refuses": ("exclusive-pinned",),
    "marks": ("anon-exclusive",),
    "soft-dirty-skips": ("nothing", "pinned"),
}
"""A pinned page that is mapped was pinned by the process that maps it, which so has pinned."""
_ON_PAGES: Final = frozenset(
    ("reuse", "unshare", "unshare-in-place", "fork", "swapin", "swapin-drop", "pageout-skips")
)
"""Decision points about a page that a process maps, or finds in the swap cache."""
_PLAIN: Final = frozenset(
    (
        "refcount",
        "pincount",
        "mapcount",
        "frame_slot",
        "slot_frame",
        "swap_count",
        "frame_tail",
        "frame_order",
        "entire_mapcount",
        "large_mapcount",
    )
)
"""Fields of which nothing is forgotten of such a page, or which are those of large folios."""
_WALKS: Final = frozenset(("find_mapping", "maps_here", "counts_here"))
_ASKS_PLAINLY: Final = _WALKS | {"is_exclusive"}
"""Helpers that look at no more of other fields than is never forgotten."""
_NOT_IN_HUNTS: Final = ("ksm", "lazyfree", "huge", "collapse", "device")
"""How the names of decision points begin that no operation of a hunt comes to."""
_OF_MOVES: Final = ("migration", "move")
"""Likewise, unless pages are moved."""
_TRACKS: Final[Mapping[str, tuple[str, ...]]] = {
    "force": ("cow-broken-and-dirty", "exclusive"),
    "mprotect-upgrade": ("never", "exclusive-dirty", "exclusive"),
    "swapin-read-maps": ("read-only", "writable-if-exclusive"),
}


def forgettable(
    kernel: Kernel, table: Any = None, verbs: Collection[str] = OPERATIONS, *, folios: bool = False
) -> int:
    """The bits of `forget.py` that are sound for `kernel`, in a hunt with the operations `verbs`.

    `table` is the kernel's record, if at hand.  With large folios, and where a topic brings
    other pages, only what concerns references and folios: all else was argued for small pages.
    """
    own = {point: each for point, each in kernel.choices.items() if not each.trusted}
    if not all(point in _ON_PAGES and _is_plain(each.functions) for point, each in own.items()):
        return 0
    if folios:
        return forget.FOLL_FLAGS | forget.FOLIOS
    bits = forget.FOLL_FLAGS | forget.OUT_OF_REACH
    if "unshare" not in own:  # which may be asked about the zero page
        bits |= forget.ZERO_PINS
    moves = not set(MOVES).isdisjoint(verbs)
    asked = [
        (point, each.functions)
        for point, each in kernel.choices.items()
        if not point.startswith(_NOT_IN_HUNTS if moves else (*_NOT_IN_HUNTS, *_OF_MOVES))
    ]
    reuses_exclusive = _reuses_exclusive(kernel, table)
    if not _look_at(asked, "mm_has_pinned") or (not own and _agree(kernel, _PINS_ARE_OWN)):
        bits |= forget.HAS_PINNED
    marked_at_birth = reuses_exclusive and _agree(kernel, _MARKED_AT_BIRTH)
    if _agree(kernel, _KEEPS_BATCH) or marked_at_birth:
        bits |= forget.ZERO_ENTRY
    knows_mapped = _agree(kernel, _EXACT) or _agree(kernel, _BY_RMAP)
    if knows_mapped:
        bits |= forget.MAP_COUNT
    stays = _agree(kernel, _EXCLUSIVE_STAYS) and (not moves or _agree(kernel, _MOVES_EXCLUSIVE))
    exclusive = reuses_exclusive and stays
    # what the rules that track writes decide by an entry's bits: whether one more fault on an
    # exclusive page, which is then reused, sets the write bit; or nothing, since the fault before
    # them set the bits
    known = _agree(kernel, _TRACKS) and (exclusive or _agree(kernel, _NEVER_UPGRADES))
    skipped = tuple(_TRACKS) if known and not _look_at(asked, "PTE_SOFT_DIRTY", *_TRACKS) else ()
    if exclusive and skipped:
        bits |= forget.WRITE_BIT
    if not _look_at(asked, "PTE_SOFT_DIRTY", *skipped):
        bits |= forget.SOFT_DIRTY
    # a kernel that takes a mapped page for an unmapped one writes it to swap with entries left
    if knows_mapped and not _look_at(asked, "PTE_DIRTY", *skipped):
        bits |= forget.PTE_DIRTIES
    return bits


def trusts_marks(kernel: Kernel, bits: int) -> bool:
    """Whether `bits` rest on the exclusive marks that a user's own rule leaves being right.

    Those of shipped rules are; where a user's are not, `exclusive` breaks, and what is forgotten
    may hide what else would.
    """
    return bool(bits & forget.WRITE_BIT) and not kernel.choices["reuse"].trusted


def _agree(kernel: Kernel, wanted: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether the kernel chose one of the alternatives wanted at each decision point named."""
    return all(
        kernel.choices[point].trusted and kernel.of(point) in names
        for point, names in wanted.items()
    )


def _reuses_exclusive(kernel: Kernel, table: Any) -> bool:
    """Whether a write fault always reuses an exclusive page, in place.

    A user's own rule is tried with all counts that a page of a hunt can have, unless it also looks
    who maps the page.
    """
    chosen = kernel.choices["reuse"]
    if chosen.trusted:
        return chosen.name in _REUSES_EXCLUSIVE
    walks = any(_names(function) & _WALKS for function in chosen.functions)
    if table is None or walks or not _agree(kernel, _MARKED_AT_BIRTH):
        return False
    most = HUNT.frames
    scratch = np.zeros(1, dtype(HUNT))
    return bool(
        forget.reuses_exclusive(records(scratch), records(table.copy()), most, HUNT.refs, most)
    )


def _is_plain(functions: Iterable[Any]) -> bool:
    """Whether a user's rule, with all that it calls, looks at nothing but `_PLAIN` fields."""
    fields = frozenset(dtype(HUNT).names or ())
    return all((_names(function) & fields) <= _PLAIN for function in functions)


def _names(function: Any) -> frozenset[str]:
    """All names and texts that a function uses, and those of the functions it calls."""
    function = getattr(function, "py_func", function)
    if not isinstance(function, FunctionType) or function.__name__ in _ASKS_PLAINLY:
        return frozenset()
    code = function.__code__
    if code.co_freevars:
        return frozenset(dtype(HUNT).names or ())  # who knows what those are
    found = set(code.co_names) | {text for text in code.co_consts if isinstance(text, str)}
    for used in code.co_names:
        if used in function.__globals__:
            found |= _names(function.__globals__[used])
    return frozenset(found)


def _look_at(asked: Iterable[tuple[str, Iterable[Any]]], name: str, *skipped: str) -> bool:
    """Whether a rule mentions a field or constant, but for those at the decision points skipped."""
    return any(
        _mentions(rule, name) for point, rules in asked if point not in skipped for rule in rules
    )


def _mentions(function: Any, name: str) -> bool:
    """Whether a rule, or a helper that it calls, uses the name."""
    function = getattr(function, "py_func", function)
    if not isinstance(function, FunctionType):
        return False
    names = function.__code__.co_names
    return name in names or any(
        _mentions(function.__globals__[used], name)
        for used in names
        if used in function.__globals__
    )
