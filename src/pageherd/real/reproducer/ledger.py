"""What user space is promised to see: a ledger of every page and reference, whatever the kernel.

A promise like `private` speaks of every state of a machine.  A program on a real kernel can only
compare what it reads with what it should read.  So a ledger keeps, step by step, what each process
last stored to its page or inherited at fork, and what a reference may still show.  It knows no
frames, counts or rules: a kernel that shows something else breaks a promise.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

Where: TypeAlias = tuple[str, str]  # a process and its page
Kind: TypeAlias = Literal["page", "reader", "pin"]

READERS: Final = frozenset({"vmsplice"})
"""Calls whose reference may show what was there when it was taken: FOLL_GET for reading."""
WRITERS: Final = frozenset({"io_uring_register", "vfio_map", "odirect_read"})
"""Calls whose reference a device can store through."""
PINS: Final = frozenset({"io_uring_register", "vfio_map", "vfio_map_ro"})
"""Calls that promise to follow the page: long-term pins."""
TAKES: Final = READERS | WRITERS | PINS


@dataclass(frozen=True, slots=True)
class Cell:
    """One mapped page of one process."""

    value: int | None = 0  # None: nobody can say
    prot: str = "rw"
    past: frozenset[int] = frozenset({0})  # every value that its process was promised here
    line: int = 0  # of the mapping that it is, or descends from by fork
    frame: int = 0  # pages with the same number may still be shared
    written: bool = False  # there is content, not only the promise of zeros
    out: bool = False  # it may be swapped out
    locked: bool = False
    doubt: bool = False  # a failed call may have taken it away
    dontfork: bool = False
    wiped: bool = False  # at fork


@dataclass(frozen=True, slots=True)
class Ref:
    """One reference; `page` is the page that it is attached to, if any."""

    call: str
    owner: str
    page: str | None
    past: frozenset[int]  # every value that it may show
    line: int = 0  # that of the page
    taken: bool = True
    forked: bool = False  # its owner has forked meanwhile
    shared: bool = False  # handed over: what its owners store may show to each other

    @property
    def follows(self) -> bool:
        """Whether it is promised to show what its page holds."""
        return self.call in PINS and self.page is not None


@dataclass(frozen=True, slots=True)
class Sight:
    """What one register is promised to hold, and what it must never hold."""

    kind: Kind
    value: int | None  # None: several values would be right
    past: frozenset[int]
    foreign: frozenset[int]  # what other processes had stored by then


@dataclass(slots=True)
class Ledger:
    """What is promised at one point of one order of the steps."""

    live: frozenset[str]
    cells: dict[Where, Cell] = field(default_factory=dict)
    refs: dict[str, Ref] = field(default_factory=dict)
    stores: frozenset[tuple[str, int, int]] = frozenset()  # by whom, to which line, what
    sights: dict[str, Sight] = field(default_factory=dict)
    frames: int = 0
    swap: bool = True  # it is on
    hidden_copy: bool = False  # a copy may have been made that pagemap cannot show

    def copy(self) -> Ledger:
        return replace(self, cells=dict(self.cells), refs=dict(self.refs), sights=dict(self.sights))

    def key(self) -> tuple[object, ...]:
        return (
            self.live,
            tuple(sorted(self.cells.items())),
            tuple(sorted(self.refs.items())),
            self.stores,
            tuple(sorted(self.sights.items())),
            self.hidden_copy,
        )

    # -- what steps ask ------------------------------------------------------------------------

    def may_read(self, where: Where) -> bool:
        cell = self.cells.get(where)
        return cell is not None and cell.prot in ("r", "rw") and not cell.doubt

    def may_write(self, where: Where) -> bool:
        cell = self.cells.get(where)
        return cell is not None and cell.prot == "rw" and not cell.doubt

    def alone(self, where: Where) -> bool:
        """Whether no other page can share the frame of this one."""
        mine = self.cells[where].frame
        return all(cell.frame != mine for at, cell in self.cells.items() if at != where)

    def goes_out(self, where: Where) -> bool:
        """Whether MADV_PAGEOUT must swap this page out if there is swap."""
        cell = self.cells.get(where)
        held = any(ref.taken and (ref.owner, ref.page) == where for ref in self.refs.values())
        return (
            self.swap
            and cell is not None
            and cell.written
            and not cell.locked
            and not held
            and self.alone(where)
        )

    def attached(self, where: Where) -> list[str]:
        return [
            name for name, ref in self.refs.items() if ref.taken and (ref.owner, ref.page) == where
        ]

    # -- what steps do -------------------------------------------------------------------------

    def new_frame(self) -> int:
        self.frames += 1
        return self.frames

    def detach(self, where: Where) -> None:
        """The page goes away under its references."""
        for name in self.attached(where):
            self.refs[name] = replace(self.refs[name], page=None)

    def put(self, where: Where, value: int) -> None:
        """A store by the page's own process, or on its behalf."""
        self.stores |= {(where[0], self.cells[where].line, value)}
        self.own(where)
        cell = self.cells[where]
        self.cells[where] = replace(
            cell, value=value, past=cell.past | {value}, written=True, out=False
        )
        for name, ref in self.refs.items():
            if ref.owner == where[0]:
                self.refs[name] = replace(ref, past=ref.past | {value})

    def own(self, where: Where) -> None:
        """Whatever the page shared with others, it is a page of its own now."""
        cell = self.cells[where]
        self.hidden_copy |= cell.out
        if not self.alone(where):
            cell = replace(cell, frame=self.new_frame())
        self.cells[where] = replace(cell, written=True, out=False)

    def see(self, register: str | None, who: str, at: Cell | Ref, value: int | None) -> None:
        """A load into a register, through a page or a reference of a process."""
        if register is None:
            return
        foreign = frozenset(v for by, line, v in self.stores if by != who and line == at.line)
        kind: Kind = "page" if isinstance(at, Cell) else "pin" if at.follows else "reader"
        self.sights[register] = Sight(kind, value, at.past, foreign - at.past)
