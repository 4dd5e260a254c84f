"""The most general client of a scope: in every state it may do every operation that makes sense.

An operation that could only fail, or that nothing could ever observe, is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from math import factorial
from typing import Any, Final

import numpy as np

from pageherd.machine.operations import (
    BUILDERS,
    FRAME_OF_PAGE,
    FRAME_OF_REF,
    PROTECTIONS,
    Operands,
    build,
    encode,
)
from pageherd.machine.verbs import VERBS, Kind, Result
from pageherd.rules.choose import Kernel
from pageherd.search.scope import FILES, REMOTE, TAKES, Scope
from pageherd.search.work import FRESH, held_frames

NOBODY: Final = -1
ALL_CPUS: Final = -1

_OF_ANY_FRAME: Final = ("reclaim", "migrate")  # mapped, cached, or only held by a reference
_WHOLE: Final = ("mmap", "collapse")
"""In a hunt with large folios always of all pages.  MADV_HUGEPAGE goes with mmap()."""

_PROTECTIONS: Final = ("r", "rw")
"""Not `none`: a page that may be read can do all that one without access can, and what mprotect and
GUP make of it is the same."""

ANY: Final = 0
MAPPED: Final = 1
UNMAPPED: Final = 2

ORDER_OF_PROCESSES: Final = 1  # an rmap walk over several processes, one of which may end it
ORDER_OF_PAGES: Final = 2  # fork copies two pages at once; the last one stays in the LRU batch

GUARD_DTYPE: Final = np.dtype(
    [
        (name, "i4")
        for name in (
            *("live", "child", "take", "held", "mm", "page", "span", "vma", "company", "first"),
            *("order", "ordered_by"),
        )
    ]
)
"""When an operation makes sense.  `live`, `child`, `take`, `held`: the process or reference that
must be so, or NOBODY; `first`: only the first unused process or free reference is taken."""


@dataclass(frozen=True, slots=True)
class Move:
    """One operation of the client, in the numbers of a state."""

    verb: str
    mm: int = NOBODY  # the acting process, or the remote one
    page: int = NOBODY
    span: int = 1  # pages from there on: a huge range
    to: int = NOBODY  # the second page, or the child
    ref: int = NOBODY
    prot: str = ""
    order: int = 0  # of the names, where the machine goes through them one after the other
    ordered_by: int = 0


@dataclass(frozen=True, slots=True)
class Client:
    """Every operation that the most general client may do, encoded for the machine."""

    moves: tuple[Move, ...]
    ops: np.ndarray[Any, np.dtype[Any]]
    guards: np.ndarray[Any, np.dtype[Any]]
    verbs: tuple[str, ...]
    same: dict[str, str]  # calls left out because another one uses the same flags
    absent: tuple[str, ...]  # calls that the kernel does not have


def client_of(
    scope: Scope, kernel: Kernel, record: Any, verbs: Collection[str], *, symmetry: bool = True
) -> Client:
    """The client for `scope`; without symmetry any unused name may be taken, not only the first."""
    absent = tuple(verb for verb in verbs if verb in kernel.absent())
    same = _duplicates(record, [verb for verb in verbs if verb not in absent])
    used = tuple(verb for verb in verbs if verb not in absent and verb not in same)
    moves = tuple(
        ordered for verb in used for move in _moves(scope, verb) for ordered in _orders(scope, move)
    )
    operations = [_operation(scope, move) for move in moves]
    guards = [
        tuple(_guard(move, symmetry)[name] for name in GUARD_DTYPE.names or ()) for move in moves
    ]
    return Client(moves, encode(operations), np.array(guards, GUARD_DTYPE), used, same, absent)


def _duplicates(record: Any, verbs: Collection[str]) -> dict[str, str]:
    """Calls that take pages exactly as an earlier one does: `later -> earlier`."""
    first: dict[tuple[bool, int, int], str] = {}
    same: dict[str, str] = {}
    for verb in verbs:
        if verb in TAKES or verb in REMOTE:
            built = BUILDERS[verb](Operands(thread=0, mm=0))
            flags = (verb in TAKES, int(record["rule"][0, built.question]), built.other)
            if flags in first:
                same[verb] = first[flags]
            first.setdefault(flags, verb)
    return same


def _moves(scope: Scope, verb: str) -> Iterator[Move]:
    """The verb with everything it can be applied to."""
    if verb == "drain":
        yield Move(verb)
        return
    if verb in ("release", "write_ref"):
        yield from (Move(verb, ref=ref) for ref in range(scope.references))
        return
    for mm in range(scope.processes):
        yield from _moves_of(scope, verb, mm)
    if verb in _OF_ANY_FRAME:
        yield from (Move(verb, ref=ref) for ref in range(scope.references))


def _moves_of(scope: Scope, verb: str, mm: int) -> Iterator[Move]:
    pages = range(scope.pages)
    if scope.folio > 1:
        yield from _moves_of_ranges(scope, verb, mm)
    if scope.folio > 1 and verb in _WHOLE:
        return
    if verb in ("exit", "clear_soft_dirty"):
        yield Move(verb, mm)
    elif verb == "fork":
        yield from (Move(verb, mm, to=child) for child in range(scope.processes) if child != mm)
    elif verb == "mprotect":
        yield from (Move(verb, mm, page, prot=prot) for page in pages for prot in _PROTECTIONS)
    elif verb == "mremap":
        yield from (Move(verb, mm, page, to=to) for page in pages for to in pages if to != page)
    elif verb in TAKES:
        yield from (Move(verb, mm, page, ref=r) for page in pages for r in range(scope.references))
    else:
        yield from (Move(verb, mm, page) for page in pages)


def _moves_of_ranges(scope: Scope, verb: str, mm: int) -> Iterator[Move]:
    """The verb on all pages at once; a store to all is one to each, in order."""
    if verb == "mprotect":
        yield from (Move(verb, mm, 0, scope.folio, prot=prot) for prot in _PROTECTIONS)
    elif verb in _WHOLE or (VERBS[verb].ranges and verb not in ("read", "write", "mremap")):
        yield Move(verb, mm, 0, scope.folio)


def _orders(scope: Scope, move: Move) -> Iterator[Move]:
    """The move, and once more for each other order that the machine could go in.

    Names in a state say nothing about age, so the search does not know in which order the kernel
    would come to the processes of an rmap walk or to the pages of a fork: it tries all.
    """
    yield move
    inner = factorial(scope.references)
    if move.verb in ("reclaim", "pageout"):
        for i in range(1, factorial(scope.processes)):
            yield replace(move, order=i * scope.page_orders * inner, ordered_by=ORDER_OF_PROCESSES)
    if move.verb == "fork":
        for i in range(1, scope.page_orders):
            yield replace(move, order=i * inner, ordered_by=ORDER_OF_PAGES)


def _operation(scope: Scope, move: Move) -> Any:
    """The operation, in the numbers that the state has after it was put into the move's order."""
    mm, frame_from = max(move.mm, 0), 0
    if move.ordered_by == ORDER_OF_PROCESSES and move.mm != NOBODY:
        place = move.order // (scope.page_orders * factorial(scope.references))
        mm = list(permutations(range(scope.processes)))[place].index(mm)
    if move.verb in _OF_ANY_FRAME:
        frame_from = FRAME_OF_REF if move.mm == NOBODY else FRAME_OF_PAGE
    value = {"mprotect": PROTECTIONS.get(move.prot, 0), "drain": ALL_CPUS}.get(move.verb, FRESH)
    operands = Operands(
        thread=0,
        mm=mm,
        page=max(move.page, 0),
        span=move.span,
        to=move.to if move.verb in FILES else max(move.to, 0),
        value=value,
        ref=max(move.ref, 0),
        frame_from=frame_from,
        pages=scope.pages,
    )
    return build(move.verb, operands)


def _mapping(move: Move) -> int:
    """Whether the pages must be mapped or not: overmapping is munmap, then mmap."""
    if move.verb == "write_file":
        return ANY
    return UNMAPPED if move.verb.startswith("mmap") else MAPPED


def _guard(move: Move, symmetry: bool) -> dict[str, int]:
    takes = VERBS[move.verb].result is Result.REFERENCE
    on_page = move.page != NOBODY
    remote = VERBS[move.verb].arguments[:1] == (Kind.REMOTE,)
    return {
        "live": move.mm,
        "child": move.to if move.verb == "fork" else NOBODY,
        "take": move.ref if takes else NOBODY,
        "held": NOBODY if takes else move.ref,
        "mm": max(move.mm, 0),
        "page": max(move.page, 0),
        "span": move.span,
        "vma": _mapping(move) if on_page else ANY,
        "company": int(remote),
        "first": int(symmetry),
        "order": move.order,
        "ordered_by": move.ordered_by,
    }


def empty_hunt_state(scope: Scope) -> Any:
    """The template of all states: nobody lives, every frame that can be in use at once is there."""
    from pageherd.machine.state import SWAP_DISK
    from pageherd.search.program import empty_state

    mms, pages, _, slots = scope.sizes
    state = empty_state(scope.layout, mms, pages, slots)
    held = held_frames(scope.sizes, scope.folio, files=scope.wide)
    state["nr_frames"] = 1 + held + 2 * scope.folio  # a copy, one more in a fork
    if scope.folio > 1:
        state["nr_huge"] = scope.folio
        state["nr_frames"] = 1 + state["nr_frames"]  # a folio begins at an even frame
    state["swap_kind"] = SWAP_DISK
    state["batch_limit"] = 1
    state["moved"] = 1  # rmap walks look at every page, so no state depends on where one was born
    return state
