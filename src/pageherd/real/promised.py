"""What user space is promised to see: a ledger of every page and reference, whatever the kernel.

A promise like `private` speaks of every state of a machine.  A program on a real kernel can only
compare what it reads with what it should read, so this walks through the steps of a test and keeps
what each process last stored to its page or inherited at fork, what a reference may still show, and
which steps must succeed.  It knows no frames, counts or rules: a kernel that behaves otherwise
breaks a promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from pageherd.litmus.syntax import BASE, KERNEL, Group, PageOf, Step, Test, steps_of
from pageherd.machine.verbs import VERBS, Result

Where = tuple[str, str]  # a process and its page

READERS: Final = frozenset({"vmsplice"})
"""Calls whose reference may show what was there when it was taken: FOLL_GET for reading."""
WRITERS: Final = frozenset({"io_uring_register", "vfio_map", "odirect_read"})
"""Calls whose reference a device can store through."""
PINS: Final = frozenset({"io_uring_register", "vfio_map", "vfio_map_ro"})
"""Calls that promise to follow the page: long-term pins."""
TAKES: Final = READERS | WRITERS | PINS

_ADVICE: Final = frozenset(
    {"dontneed", "dontfork", "dofork", "wipeonfork", "pageout", "mlock", "populate_read"}
)
_MAX_LEDGERS: Final = 4096


class TooManyOrders(Exception):
    """A concurrent group has more orders than are worth following."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One mapped page of one process."""

    value: int = 0
    prot: str = "rw"
    past: frozenset[int] = frozenset({0})  # every value that its process was promised here
    frame: int = 0  # pages with the same number may still be shared
    written: bool = False  # there is content, not only the promise of zeros
    out: bool = False  # it may be swapped out
    locked: bool = False
    at_fork: Literal["copy", "skip", "wipe"] = "copy"


@dataclass(frozen=True, slots=True)
class Ref:
    """One reference; `page` is the page that it is attached to, if any."""

    call: str
    owner: str
    page: str | None
    value: int  # once it is not attached any more
    past: frozenset[int]  # every value that it may show
    taken: bool = True
    forked: bool = False  # its owner has forked meanwhile
    shared: bool = False  # handed over: what its owners store may show to each other


@dataclass(frozen=True, slots=True)
class Sight:
    """What one register is promised to hold, and what it must never hold."""

    kind: Literal["page", "reader", "pin"]
    value: int | None  # None: several values would be right
    past: frozenset[int]
    foreign: frozenset[int]  # what other processes had stored by then


@dataclass(slots=True)
class Ledger:
    """What is promised at one point of one order of the steps."""

    live: frozenset[str]
    cells: dict[Where, Cell] = field(default_factory=dict)
    refs: dict[str, Ref] = field(default_factory=dict)
    stores: frozenset[tuple[str, int]] = frozenset()
    sights: dict[str, Sight] = field(default_factory=dict)
    frames: int = 0
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
        return cell is not None and cell.prot in ("r", "rw")

    def may_write(self, where: Where) -> bool:
        cell = self.cells.get(where)
        return cell is not None and cell.prot == "rw"

    def alone(self, where: Where) -> bool:
        """Whether no other page can share the frame of this one."""
        mine = self.cells[where].frame
        return all(cell.frame != mine for at, cell in self.cells.items() if at != where)

    def goes_out(self, where: Where) -> bool:
        """Whether MADV_PAGEOUT must swap this page out if there is swap."""
        cell = self.cells.get(where)
        held = any(ref.taken and (ref.owner, ref.page) == where for ref in self.refs.values())
        return (
            cell is not None and cell.written and not cell.locked and not held and self.alone(where)
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
        """The page goes away under its references; they keep what it held."""
        cell = self.cells.get(where)
        for name in self.attached(where):
            value = cell.value if cell is not None else 0
            self.refs[name] = replace(self.refs[name], page=None, value=value)

    def put(self, where: Where, value: int) -> None:
        """A store by the page's own process, or on its behalf."""
        self.stores |= {(where[0], value)}
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

    def see(
        self,
        register: str | None,
        kind: Literal["page", "reader", "pin"],
        who: str,
        value: int | None,
        past: frozenset[int],
    ) -> None:
        if register is None:
            return
        foreign = frozenset(stored for owner, stored in self.stores if owner != who)
        self.sights[register] = Sight(kind, value, past, foreign - past)


# -- steps -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Walk:
    """All that was learnt from walking through a test once, in every order of its groups."""

    ledgers: list[Ledger]
    sure: dict[int, bool] = field(default_factory=dict)  # step -> it succeeds in every order
    swaps: dict[int, bool] = field(default_factory=dict)  # pageout -> the page must be gone

    @property
    def last(self) -> Ledger:
        """One of the ledgers at the end; what exists is the same in all but groups with exits."""
        return self.ledgers[0]

    def hidden_copy(self) -> bool:
        return any(ledger.hidden_copy for ledger in self.ledgers)

    def values(self, register: str) -> frozenset[int] | None:
        """The values that a register may hold; None if that cannot be said."""
        sights = [ledger.sights.get(register) for ledger in self.ledgers]
        values = [sight.value for sight in sights if sight is not None and sight.value is not None]
        return frozenset(values) if values and len(values) == len(sights) else None

    def foreign(self, register: str) -> frozenset[int]:
        """The values that a register must not hold: another process stored them for itself."""
        sights = [s for ledger in self.ledgers if (s := ledger.sights.get(register)) is not None]
        if len(sights) < len(self.ledgers):
            return frozenset()
        past = frozenset[int]().union(*(sight.past for sight in sights))
        return frozenset[int]().union(*(sight.foreign for sight in sights)) - past

    def kind(self, register: str) -> str | None:
        sight = self.last.sights.get(register)
        return None if sight is None else sight.kind


def walk(test: Test, *, strict: bool = False) -> Walk:
    """Walk through a test without variants or `maybe`.

    Args:
        strict: a device's store through a FOLL_GET reference is promised to show even after a fork.

    Raises:
        TooManyOrders: a group cannot be followed.
    """
    forked = {str(s.arguments[0]) for s in steps_of(parts_of(test)) if s.verb == "fork"}
    found = Walk([Ledger(frozenset(p for p in test.processes if p not in forked))])
    number = 0
    for part in parts_of(test):
        members = part.steps if isinstance(part, Group) else (part,)
        found.ledgers = _unique(_in_every_order(test, members, number, found, strict))
        number += len(members)
    return found


def parts_of(test: Test) -> tuple[Step | Group, ...]:
    """The steps and groups of a test without variants."""
    return test.variant_steps(BASE)


def _unique(ledgers: Iterable[Ledger]) -> list[Ledger]:
    return list({ledger.key(): ledger for ledger in ledgers}.values())


def _in_every_order(
    test: Test, steps: Sequence[Step], first: int, found: Walk, strict: bool
) -> Iterable[Ledger]:
    """The ledgers after the steps, which keep their order within each thread."""
    threads = [
        [number for number, step in enumerate(steps) if step.thread == thread]
        for thread in dict.fromkeys(step.thread for step in steps)
    ]
    reached: dict[tuple[int, ...], list[Ledger]] = {(0,) * len(threads): found.ledgers}
    for _ in steps:
        following: dict[tuple[int, ...], list[Ledger]] = {}
        for done, ledgers in reached.items():
            for which, mine in enumerate(threads):
                if done[which] == len(mine):
                    continue
                after = (*done[:which], done[which] + 1, *done[which + 1 :])
                number = mine[done[which]]
                for ledger in ledgers:
                    following.setdefault(after, []).extend(
                        _take(test, steps[number], first + number, ledger, found, strict)
                    )
        reached = {done: _unique(ledgers) for done, ledgers in following.items()}
        if sum(map(len, reached.values())) > _MAX_LEDGERS:
            raise TooManyOrders
    return [ledger for ledgers in reached.values() for ledger in ledgers]


def _take(
    test: Test, step: Step, number: int, before: Ledger, found: Walk, strict: bool
) -> list[Ledger]:
    """One step: the ledgers that may follow, and whether it succeeds."""
    ledger = before.copy()
    process = test.process_of(step.thread)
    if step.verb == "pageout":
        where = (process, str(step.arguments[0]))
        found.swaps[number] = found.swaps.get(number, True) and ledger.goes_out(where)
    others = _do(ledger, step, process, strict)
    ok = others is not None
    found.sure[number] = found.sure.get(number, True) and ok
    return [ledger, *(others or ())]


def _do(book: Ledger, step: Step, me: str, strict: bool) -> list[Ledger] | None:
    """Do a step on a ledger; other ledgers that are as right, or None if the step fails."""
    verb = step.verb
    if verb in TAKES:
        return _take_reference(book, step, me)
    if step.arguments and isinstance(step.arguments[0], str) and step.arguments[0] in book.refs:
        return _use_reference(book, step, me, strict)
    if verb in ("fork", "exit", "swapoff", "clear_soft_dirty", "pagemap", "drain"):
        return _of_process(book, step, me)
    if verb.startswith(("process_vm", "ptrace")):
        return _remote(book, step)
    return _on_page(book, step, me)


def _on_page(book: Ledger, step: Step, me: str) -> list[Ledger] | None:
    where, verb = (me, str(step.arguments[0])), step.verb
    cell = book.cells.get(where)
    if verb == "mmap":
        book.detach(where)
        book.cells[where] = Cell(frame=book.new_frame())
        return []
    if verb == "munmap":
        book.detach(where)
        book.cells.pop(where, None)
        return []
    if cell is None:
        return None
    if verb == "read":
        return _read(book, step, where)
    if verb == "write":
        if not book.may_write(where):
            return None
        book.put(where, int(str(step.arguments[1])))
    elif verb == "mprotect":
        book.cells[where] = replace(cell, prot=str(step.arguments[1]))
    elif verb == "mremap":
        _move(book, where, (me, str(step.arguments[1])))
    elif verb == "populate_write":
        if not book.may_write(where):
            return None
        book.own(where)
    elif verb in _ADVICE:
        return _advise(book, verb, where, cell)
    return []


def _read(book: Ledger, step: Step, where: Where) -> list[Ledger] | None:
    if not book.may_read(where):
        return None
    cell = book.cells[where]
    book.see(step.result, "page", where[0], cell.value, cell.past)
    book.cells[where] = replace(cell, out=False)
    return []


def _move(book: Ledger, where: Where, to: Where) -> None:
    book.detach(to)
    names = book.attached(where)
    book.cells[to] = book.cells.pop(where)
    for name in names:
        book.refs[name] = replace(book.refs[name], page=to[1])


def _advise(book: Ledger, verb: str, where: Where, cell: Cell) -> list[Ledger] | None:
    if verb in ("dontneed", "pageout") and cell.locked:
        return None
    if verb in ("mlock", "populate_read") and cell.prot == "none":
        return None
    if verb == "dontneed":
        book.detach(where)
        book.cells[where] = replace(
            cell, value=0, past=cell.past | {0}, frame=book.new_frame(), written=False, out=False
        )
    elif verb == "pageout":
        book.cells[where] = replace(cell, out=True)
    elif verb == "mlock":
        book.hidden_copy |= cell.out  # it writes to the page if it may
        book.cells[where] = replace(cell, locked=True, out=False)
    elif verb == "dontfork":
        book.cells[where] = replace(cell, at_fork="skip")
    elif verb == "dofork":
        book.cells[where] = replace(cell, at_fork="copy")
    elif verb == "wipeonfork":
        book.cells[where] = replace(cell, at_fork="wipe")
    return []


def _of_process(book: Ledger, step: Step, me: str) -> list[Ledger] | None:
    if step.verb == "fork":
        _fork(book, me, str(step.arguments[0]))
    elif step.verb == "exit":
        for where in [where for where in book.cells if where[0] == me]:
            book.detach(where)
            del book.cells[where]
        book.live -= {me}
    elif step.verb == "swapoff":
        book.cells = {where: replace(cell, out=False) for where, cell in book.cells.items()}
    return []


def _fork(book: Ledger, me: str, child: str) -> None:
    book.live |= {child}
    for (process, page), cell in list(book.cells.items()):
        if process != me or cell.at_fork == "skip":
            continue
        if cell.at_fork == "wipe":
            inherited = Cell(prot=cell.prot, frame=book.new_frame(), at_fork="wipe")
        else:
            # MAP_LOCKED memory is not locked in the child
            inherited = replace(cell, locked=False)
        book.cells[child, page] = inherited
    for name, ref in book.refs.items():
        if ref.owner == me:
            book.refs[name] = replace(ref, forked=True)


def _remote(book: Ledger, step: Step) -> list[Ledger] | None:
    """One process at another's memory; reading it is a copy that nobody is surprised by."""
    target = step.arguments[0]
    assert isinstance(target, PageOf)
    where = (target.process, target.page)
    cell, verb = book.cells.get(where), step.verb
    force = verb.startswith("ptrace")
    if cell is None or target.process not in book.live:
        return None
    if not force and not (
        book.may_write(where) if verb.endswith("writev") else book.may_read(where)
    ):
        return None
    book.hidden_copy |= cell.out
    if verb in ("process_vm_writev", "ptrace_poke"):
        book.put(where, int(str(step.arguments[1])))
    return []


def _take_reference(book: Ledger, step: Step, me: str) -> list[Ledger] | None:
    where = (me, str(step.arguments[0]))
    writes = step.verb in WRITERS
    ok = book.may_write(where) if writes else book.may_read(where)
    name = step.result or ""
    if not ok:
        book.refs[name] = Ref(step.verb, me, None, 0, frozenset(), taken=False)
        return None
    if writes:
        book.own(where)
    cell = book.cells[where]
    book.hidden_copy |= cell.out
    book.refs[name] = Ref(step.verb, me, where[1], cell.value, cell.past)
    return []


def _use_reference(book: Ledger, step: Step, me: str, strict: bool) -> list[Ledger] | None:
    name, verb = str(step.arguments[0]), step.verb
    ref = book.refs[name]
    if verb == "release":
        del book.refs[name]
        return [] if ref.taken else None
    if not ref.taken:
        return None
    if verb == "share":
        book.refs[name] = replace(ref, shared=True)
    elif verb == "read_ref":
        _look_through(book, step.result, ref)
    elif verb == "write_ref":
        return _store_through(book, name, int(str(step.arguments[1])), strict)
    return []


def _look_through(book: Ledger, register: str | None, ref: Ref) -> None:
    if ref.shared:
        return
    if ref.call in PINS and ref.page is not None:
        cell = book.cells[ref.owner, ref.page]
        book.see(register, "pin", ref.owner, cell.value, ref.past | cell.past)
    else:
        book.see(register, "reader", ref.owner, None, ref.past)


def _store_through(book: Ledger, name: str, value: int, strict: bool) -> list[Ledger] | None:
    ref = book.refs[name]
    if ref.call not in WRITERS:
        return None
    if ref.page is None:
        book.stores |= {(ref.owner, value)}
        book.refs[name] = replace(ref, value=value, past=ref.past | {value})
        return []
    missed: list[Ledger] = []
    if ref.call not in PINS and ref.forked and not strict:
        lost = book.copy()  # no kernel promises that the page still shows it
        lost.stores |= {(ref.owner, value)}
        missed = [lost]
    where = (ref.owner, ref.page)
    frame = book.cells[where].frame
    book.put(where, value)
    book.cells[where] = replace(book.cells[where], frame=frame)  # the device does not copy
    return missed


# -- the probes at the end ---------------------------------------------------------------------


def is_reference(step: Step) -> bool:
    """Whether the step's result names a reference."""
    return step.result is not None and VERBS[step.verb].result is Result.REFERENCE


def probes(test: Test, found: Walk) -> tuple[Step, ...]:
    """Steps to append: each process reads each of its pages, and each reference is looked through.

    Their registers begin with `end_`, and none has a name that the test uses.
    """
    taken = set(test.pages) | {step.result for step in steps_of(parts_of(test))}
    late = _looked_at_last(test)
    steps: list[Step] = []

    def add(thread: str, verb: str, argument: str, name: str) -> None:
        register = f"end_{name}"
        while register in taken:
            register += "_"
        taken.add(register)
        steps.append(Step(thread, verb, (argument,), register))

    last = found.ledgers
    for where in ((process, page) for process in test.processes for page in test.pages):
        if where not in late and all(where[0] in b.live and b.may_read(where) for b in last):
            add(where[0], "read", where[1], f"{where[0].lower()}_{where[1]}")
    for name, call in _readable(last).items():
        owner = last[0].refs[name].owner
        alive = [p for p in (owner, *test.processes) if all(p in book.live for book in last)]
        if alive and call != "odirect_read" and name not in late:
            add(alive[0], "read_ref", name, name)
    return tuple(steps)


def _looked_at_last(test: Test) -> set[object]:
    """Pages and references that are read by name after everything else."""
    seen: set[object] = set()
    for part in reversed(parts_of(test)):
        if isinstance(part, Group) or part.verb not in ("read", "read_ref", "pagemap"):
            break
        if part.result is not None and part.verb == "read":
            seen.add((test.process_of(part.thread), part.arguments[0]))
        elif part.result is not None:
            seen.add(part.arguments[0])
    return seen


def _readable(ledgers: list[Ledger]) -> Mapping[str, str]:
    """References that are there in every ledger, with the call that took them."""
    return {
        name: ref.call
        for name, ref in ledgers[0].refs.items()
        if all(name in ledger.refs and ledger.refs[name].taken for ledger in ledgers)
        and not ref.shared
    }


def may_be_shared(test: Test, index: int) -> bool:
    """Whether another process may map the page that the step, a pageout, is about."""
    before = walk(replace(test, body=_first_steps(test, index)))
    step = list(steps_of(parts_of(test)))[index]
    where = (test.process_of(step.thread), str(step.arguments[0]))
    return step.thread != KERNEL and any(
        where in ledger.cells and not ledger.alone(where) for ledger in before.ledgers
    )


def _first_steps(test: Test, count: int) -> tuple[Step | Group, ...]:
    """The parts of a test that end before its step number `count`; not of its group."""
    parts: list[Step | Group] = []
    for part in parts_of(test):
        length = len(part.steps) if isinstance(part, Group) else 1
        if length > count:
            break
        count -= length
        parts.append(part)
    return tuple(parts)
