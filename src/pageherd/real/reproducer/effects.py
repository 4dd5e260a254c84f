"""What each step does to the ledger, and whether it succeeds."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pageherd.litmus.syntax import PageOf, Step
from pageherd.real.reproducer.ledger import PINS, TAKES, WRITERS, Cell, Ledger, Ref, Where

_ADVICE: Final = frozenset(
    {"dontneed", "dontfork", "dofork", "wipeonfork", "pageout", "mlock", "populate_read"}
)


def do(book: Ledger, step: Step, me: str, strict: bool) -> list[Ledger] | None:
    """Do a step on a ledger; other ledgers that are as right, or None if the step fails."""
    verb = step.verb
    if verb in TAKES:
        return _take_reference(book, step, me)
    if verb == "reclaim":  # of everything there is
        book.cells = {where: replace(cell, out=True) for where, cell in book.cells.items()}
        return []
    if step.arguments and isinstance(step.arguments[0], str) and step.arguments[0] in book.refs:
        return _use_reference(book, step, me, strict)
    if verb in ("fork", "exit", "swapoff", "clear_soft_dirty", "pagemap", "drain", "mthp"):
        return _of_process(book, step, me)
    if verb.startswith(("process_vm", "ptrace")):
        return _remote(book, step)
    return _on_page(book, step, me)


def _on_page(book: Ledger, step: Step, me: str) -> list[Ledger] | None:
    where, verb = (me, str(step.arguments[0])), step.verb
    cell = book.cells.get(where)
    if verb == "mmap":
        book.detach(where)
        frame = book.new_frame()
        book.cells[where] = Cell(line=frame, frame=frame)
        return []
    if verb == "munmap":
        book.detach(where)
        book.cells.pop(where, None)
        return []
    if cell is None:
        if verb == "mremap":
            _doubt(book, (me, str(step.arguments[1])))
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
    book.see(step.result, where[0], cell, cell.value)
    book.cells[where] = replace(cell, out=False)
    return []


def _doubt(book: Ledger, where: Where) -> None:
    """Until v5.16 mremap() cleared the new address before it looked the old one up."""
    if where in book.cells:
        book.cells[where] = replace(book.cells[where], doubt=True)


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
        book.cells[where] = replace(cell, dontfork=True)
    elif verb == "dofork":
        book.cells[where] = replace(cell, dontfork=False)
    elif verb == "wipeonfork":
        book.cells[where] = replace(cell, wiped=True)
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
        book.swap = False
        book.cells = {where: replace(cell, out=False) for where, cell in book.cells.items()}
    return []


def _fork(book: Ledger, me: str, child: str) -> None:
    book.live |= {child}
    for (process, page), cell in list(book.cells.items()):
        if process != me or cell.dontfork:
            continue
        if cell.wiped:
            inherited = Cell(prot=cell.prot, line=cell.line, frame=book.new_frame(), wiped=True)
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
        book.refs[name] = Ref(step.verb, me, None, frozenset(), taken=False)
        return None
    if writes:
        book.own(where)
    cell = book.cells[where]
    book.hidden_copy |= cell.out
    book.refs[name] = Ref(step.verb, me, where[1], cell.past, cell.line)
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
    value = book.cells[ref.owner, str(ref.page)].value if ref.follows else None
    book.see(register, ref.owner, ref, value)


def _store_through(book: Ledger, name: str, value: int, strict: bool) -> list[Ledger] | None:
    """A device's store: it shows in the page that the reference is attached to."""
    ref = book.refs[name]
    if ref.call not in WRITERS:
        return None
    if ref.page is None:
        book.stores |= {(ref.owner, ref.line, value)}
        book.refs[name] = replace(ref, past=ref.past | {value})
        return []
    astray = ref.call not in PINS and ref.forked and not strict
    missed = _gone_astray(book, ref, value) if astray else []
    where = (ref.owner, ref.page)
    frame = book.cells[where].frame
    book.put(where, value)
    book.cells[where] = replace(book.cells[where], frame=frame)  # a device does not copy
    return missed


def _gone_astray(book: Ledger, ref: Ref, value: int) -> list[Ledger]:
    """No kernel promises where a FOLL_GET reference leads after a fork: to the child, perhaps."""
    for where, cell in book.cells.items():
        if cell.line == ref.line and where[0] != ref.owner:
            book.cells[where] = replace(cell, value=None, past=cell.past | {value})
    lost = book.copy()
    lost.stores |= {(ref.owner, ref.line, value)}
    return [lost]
