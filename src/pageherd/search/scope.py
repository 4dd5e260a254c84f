"""The scope of a hunt: how much of everything there is, and what may be done with it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import KW_ONLY, dataclass
from math import factorial
from types import MappingProxyType
from typing import Final

from pageherd.errors import PageherdError
from pageherd.machine.layout import FOLIO, HUNT, Layout
from pageherd.rules.choose import nearest


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
    _: KW_ONLY
    folio: int = 1  # pages of a folio; more than one: all pages are those of one huge range
    ops: tuple[str, ...] = ()  # its operations, if they are not those of base pages or folios

    @property
    def wide(self) -> bool:
        """Whether its operations need states with all flags, values and the file."""
        return not TOPICS.isdisjoint(self.ops)

    @property
    def layout(self) -> Layout:
        """That of the states."""
        return FOLIO if self.wide or self.folio > 1 else HUNT

    @property
    def page_orders(self) -> int:
        """In how many orders the pages can be named; each page of a folio has its place in it."""
        return factorial(self.pages) if self.folio == 1 else 1

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """The four numbers, in the order in which `--scope` takes them."""
        return self.processes, self.pages, self.references, self.slots

    @property
    def operations(self) -> tuple[str, ...]:
        """What may be done in it, if `--ops` does not say."""
        if self.ops:
            return self.ops
        if self.folio == 1:
            return BASE
        idle = () if self.slots else ("pageout", "reclaim")
        return tuple(v for v in (*BASE, *OF_FOLIOS) if v not in (*NOT_OF_FOLIOS, *idle))

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.sizes))})"


# -- the operation set -----------------------------------------------------------------------------

MOVES: Final = ("migrate", "move")
FILES: Final = ("mmap_file", "mmap_shared", "write_file")
TOPICS: Final = frozenset(("mmap_hugetlb", *FILES, "free"))
"""Operations that need more of a state than those of base pages."""

TAKES: Final = (
    *("vmsplice", "odirect_read", "odirect_write", "io_uring_register", "rdma_register"),
    *("rdma_register_ro", "vfio_map", "vfio_map_ro"),
)
REMOTE: Final = ("process_vm_readv", "process_vm_writev", "ptrace_peek", "ptrace_poke")
ADVICE: Final = ("dontfork", "dofork", "wipeonfork")
"""Only in a hunt if `--ops` names them.  They make a child begin without a page, or with an empty
one: as if it had been forked before the page was mapped, which is a program of the hunt, and no
longer.  Their flags would multiply the states of each page by four, to no other end."""

OF_FOLIOS: Final = ("collapse", "split")
BASE: Final = (
    *("mmap", "read", "write", "munmap", "dontneed", "mlock", "pageout", "populate_write"),
    *("mprotect", "mremap", "clear_soft_dirty", "fork", "exit"),
    *(*TAKES, "write_ref", "release", *REMOTE, "reclaim", "drain"),
)
"""What may be done in a scope of base pages."""

OPERATIONS: Final = (
    *("mmap", "read", "write", "munmap", "dontneed", *ADVICE, "mlock", "pageout"),
    *("populate_write", "mprotect", "mremap", "clear_soft_dirty", "fork", "exit", *OF_FOLIOS),
    *(*TAKES, "write_ref", "release", *REMOTE, "reclaim", "drain", *MOVES),
    *("mmap_hugetlb", *FILES, "free"),
)
"""Every verb of a hunt, in the order in which operations of equal length are tried.

Not among them: verbs that change nothing and whose result no promise is about (`populate_read`,
`pagemap`, `read_ref`); `tee` and `share` (consent is for tests); `get` and `pin`, which stand for
no call of their own, and `send_zerocopy`, whose flags are those of vmsplice; `writeback` and
`swapoff`, since the disk of a hunt writes at once and stays.  Overmapping is munmap, then mmap.
"""

NOT_OF_FOLIOS: Final = (
    *("mlock", "mremap", "clear_soft_dirty", "mprotect", "dontneed", "populate_write", "drain"),
    *("odirect_read", "odirect_write", "rdma_register", "rdma_register_ro", "vfio_map", *REMOTE),
)
"""With large folios only if `--ops` names them, since they multiply its states.  Of the
calls that take pages there is one left of each kind: a reference, a long-term pin for writing, one
for reading."""

# -- scopes by name --------------------------------------------------------------------------------

SMALL: Final = Scope("small", 2, 1, 2, 1)
THREE: Final = Scope("three", 3, 1, 2, 1)
TWO_PAGES: Final = Scope("two-pages", 2, 2, 1, 1)
LARGE: Final = Scope("large", 3, 2, 2, 1)
FOLIO_PINS: Final = Scope("folio-pins", 2, 2, 1, 0, folio=2)
FOLIO_SWAP: Final = Scope("folio-swap", 2, 2, 0, 2, folio=2)
FOLIO_LARGE: Final = Scope("folio-large", 2, 2, 1, 2, folio=2)
MIGRATION: Final = Scope("migration", 2, 1, 2, 1, ops=(*BASE, *MOVES))
_OF_PAGES: Final = tuple(
    verb for verb in BASE if verb not in ("mmap", "mlock", "pageout", "reclaim", "drain", "mremap")
)
HUGETLB: Final = Scope("hugetlb", 2, 1, 1, 0, ops=("mmap_hugetlb", *_OF_PAGES))
FILE: Final = Scope(
    "file",
    *(2, 1, 1, 0),
    ops=(
        *(*FILES, "read", "write", "munmap", "fork", "exit", "vmsplice", "rdma_register"),
        *("vfio_map_ro", "write_ref", "release", "ptrace_poke"),
    ),
)
LAZYFREE: Final = Scope(
    "lazyfree",
    *(2, 1, 1, 1),
    ops=(
        *("mmap", "read", "write", "munmap", "fork", "exit", "vmsplice", "odirect_read"),
        *("rdma_register", "write_ref", "release", "pageout", "reclaim", "drain", "free"),
    ),
)
SCOPES: Final = MappingProxyType(
    {
        "small": (SMALL,),
        "default": (THREE, TWO_PAGES),
        "three": (THREE,),
        "two-pages": (TWO_PAGES,),
        "large": (LARGE,),
        "migration": (MIGRATION,),
        "hugetlb": (HUGETLB,),
        "file": (FILE,),
        "lazyfree": (LAZYFREE,),
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
        if not _has_room(scope, name):
            better = next(key for key, (each, *_) in SCOPES.items() if _has_room(each, name))
            raise ScopeError(f"no operation '{name}' in this scope: --scope {better} has it")
    chosen = ops or scope.operations
    return tuple(v for v in OPERATIONS if v in chosen and v not in without)


def _has_room(scope: Scope, verb: str) -> bool:
    """Whether the states of the scope hold all that the operation makes."""
    if verb in OF_FOLIOS:
        return scope.folio > 1
    return verb not in TOPICS or (scope.wide and verb in scope.ops)
