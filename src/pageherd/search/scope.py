"""The scope of a hunt: how much of everything there is, and what may be done with it.

The client is the most general one: in every state it may do every operation of its set that makes
sense there.  An operation that could only fail, or that nothing could ever observe, is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from math import factorial
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from pageherd.errors import PageherdError
from pageherd.machine.layout import FOLIO, HUNT, Layout
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
from pageherd.rules.choose import Kernel, nearest
from pageherd.search.packing import FRESH, held_frames

NOBODY: Final = -1
ALL_CPUS: Final = -1


class ScopeError(PageherdError):
    """A scope or an operation set that does not exist."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The bounds of one search."""

    name: str
    processes: int
    pages: int
    references: int
    slots: int
    folio: int = 1  # pages of a folio; more than one: all pages are those of one huge range
    extra: tuple[str, ...] = ()  # operations that other scopes have only if `--ops` names them

    @property
    def layout(self) -> Layout:
        """That of the states."""
        return HUNT if self.folio == 1 else FOLIO

    @property
    def page_orders(self) -> int:
        """In how many orders the pages can be named; each page of a folio has its place in it."""
        return factorial(self.pages) if self.folio == 1 else 1

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """The four numbers, in the order in which `--scope` takes them."""
        return self.processes, self.pages, self.references, self.slots

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.sizes))})"


SMALL: Final = Scope("small", 2, 1, 2, 1)
THREE: Final = Scope("three", 3, 1, 2, 1)
TWO_PAGES: Final = Scope("two-pages", 2, 2, 1, 1)
LARGE: Final = Scope("large", 3, 2, 2, 1)
FOLIO_PINS: Final = Scope("folio-pins", 2, 2, 1, 0, folio=2)
FOLIO_SWAP: Final = Scope("folio-swap", 2, 2, 0, 2, folio=2)
FOLIO_LARGE: Final = Scope("folio-large", 2, 2, 1, 2, folio=2)
MOVES: Final = ("migrate", "move")
MIGRATION: Final = Scope("migration", 2, 1, 2, 1, extra=MOVES)
SCOPES: Final = MappingProxyType(
    {
        "small": (SMALL,),
        "default": (THREE, TWO_PAGES),
        "three": (THREE,),
        "two-pages": (TWO_PAGES,),
        "large": (LARGE,),
        "migration": (MIGRATION,),
        "folio": (FOLIO_PINS, FOLIO_SWAP),
        "folio-pins": (FOLIO_PINS,),
        "folio-swap": (FOLIO_SWAP,),
        "folio-large": (FOLIO_LARGE,),
    }
)
GREATEST: Final = (HUNT.mms, HUNT.pages, HUNT.refs, HUNT.slots)


def scopes_of(text: str) -> tuple[Scope, ...]:
    """The scopes that a name or four numbers stand for.

    Raises:
        ScopeError: neither a name nor four numbers within what a hunt can hold.

    >>> [str(scope) for scope in scopes_of("default")]
    ['(3, 1, 2, 1)', '(2, 2, 1, 1)']
    >>> scopes_of("2,1,0,1")[0].references
    0
    """
    if text in SCOPES:
        return SCOPES[text]
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        hint = nearest(text, SCOPES) or f"; there are {', '.join(SCOPES)}"
        raise ScopeError(
            f"no scope '{text[:40]}'{hint}; or processes,pages,references,slots, as in 2,1,2,1"
        )
    sizes = [int(part) for part in parts]
    for size, least, most in zip(sizes, (1, 1, 0, 0), GREATEST, strict=True):
        if not least <= size <= most:
            raise ScopeError(
                f"scope {text}: from 1,1,0,0 to {','.join(map(str, GREATEST))} can be hunted"
            )
    return (Scope(text, *sizes),)


# -- the operation set -----------------------------------------------------------------------------

_PLAIN: Final = (
    *("read", "write", "munmap", "dontneed", "dontfork", "dofork", "wipeonfork", "mlock"),
    *("pageout", "populate_write"),
)
_TAKES: Final = (
    *("vmsplice", "odirect_read", "odirect_write", "io_uring_register", "rdma_register"),
    *("rdma_register_ro", "vfio_map", "vfio_map_ro"),
)
_REMOTE: Final = ("process_vm_readv", "process_vm_writev", "ptrace_peek", "ptrace_poke")
_OF_ANY_FRAME: Final = ("reclaim", "migrate")  # mapped, cached, or only held by a reference
OF_FOLIOS: Final = ("collapse", "split")
OPERATIONS: Final = (
    *("mmap", *_PLAIN, "mprotect", "mremap", "clear_soft_dirty", "fork", "exit", *OF_FOLIOS),
    *(*_TAKES, "write_ref", "release", *_REMOTE, "reclaim", "drain", *MOVES),
)
"""Every verb of a hunt, in the order in which operations of equal length are tried.

Not among them: verbs that change nothing and whose result no promise is about (`populate_read`,
`pagemap`, `read_ref`); `tee` and `share` (consent is for tests); `get` and `pin`, which stand for
no call of their own, and `send_zerocopy`, whose flags are those of vmsplice; `writeback` and
`swapoff`, since the disk of a hunt writes at once and stays.  Overmapping is munmap, then mmap.
"""

ADVICE: Final = ("dontfork", "dofork", "wipeonfork")
"""Only in a hunt if `--ops` names them.  They make a child begin without a page, or with an empty
one: as if it had been forked before the page was mapped, which is a program of the hunt, and no
longer.  Their flags would multiply the states of each page by four, to no other end."""

# MOVES, too, are only in a hunt if its scope or `--ops` names them: they nearly double its states.

_WHOLE: Final = ("mmap", "collapse")
"""In a hunt with large folios always of all pages.  MADV_HUGEPAGE goes with mmap()."""

NOT_OF_FOLIOS: Final = (
    *("mlock", "mremap", "clear_soft_dirty", "mprotect", "dontneed", "populate_write", "drain"),
    *("odirect_read", "odirect_write", "rdma_register", "rdma_register_ro", "vfio_map", *_REMOTE),
)
"""In a hunt with large folios only if `--ops` names them, since they multiply its states.  Of the
calls that take pages there is one left of each kind: a reference, a long-term pin for writing, one
for reading."""

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


def chosen_verbs(
    ops: Collection[str] = (), without: Collection[str] = (), scope: Scope = SMALL
) -> tuple[str, ...]:
    """The verbs of `--ops` and `--without` for a scope, in the order of the table.

    Raises:
        ScopeError: a name that is no operation of a hunt, or of this scope.
    """
    for name in (*ops, *without):
        if name not in OPERATIONS:
            raise ScopeError(f"no operation '{name}' in a hunt{nearest(name, OPERATIONS)}")
    for name in ops:
        if name in OF_FOLIOS and scope.folio == 1:
            raise ScopeError(f"operation '{name}' is for large folios: --scope folio has them")
    chosen = ops or tuple(v for v in OPERATIONS if v not in _left_out(scope))
    return tuple(v for v in OPERATIONS if v in chosen and v not in without)


def _left_out(scope: Scope) -> set[str]:
    """What only `--ops` brings into a hunt of this scope."""
    left = {*ADVICE, *MOVES}
    if scope.folio == 1:
        left.update(OF_FOLIOS)
    else:
        left.update(NOT_OF_FOLIOS, () if scope.slots else ("pageout", "reclaim"))
    return left.difference(scope.extra)


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
        if verb in _TAKES or verb in _REMOTE:
            built = BUILDERS[verb](Operands(thread=0, mm=0))
            flags = (verb in _TAKES, int(record["rule"][0, built.question]), built.other)
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
    elif verb in _TAKES:
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
        to=max(move.to, 0),
        value=value,
        ref=max(move.ref, 0),
        frame_from=frame_from,
        pages=scope.pages,
    )
    return build(move.verb, operands)


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
        "vma": (UNMAPPED if move.verb == "mmap" else MAPPED) if on_page else ANY,
        "company": int(remote),
        "first": int(symmetry),
        "order": move.order,
        "ordered_by": move.ordered_by,
    }


def empty_hunt_state(scope: Scope) -> Any:
    """The template of all states: nobody lives, every frame that can be in use at once is there."""
    from pageherd.machine.state import SWAP_DISK
    from pageherd.search.program import empty_state

    mms, pages, refs, slots = scope.sizes
    state = empty_state(scope.layout, mms, pages, slots)
    held = held_frames(mms, pages, refs, slots, scope.folio)
    state["nr_frames"] = 1 + held + 2 * scope.folio  # a copy, one more in a fork
    if scope.folio > 1:
        state["nr_huge"] = scope.folio
        state["nr_frames"] = 1 + state["nr_frames"]  # a folio begins at an even frame
    state["swap_kind"] = SWAP_DISK
    state["batch_limit"] = 1
    state["moved"] = 1  # rmap walks look at every page, so no state depends on where one was born
    return state
