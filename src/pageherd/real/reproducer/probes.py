"""Steps that are appended to a test, so that what a promise is about gets read at the end."""

from __future__ import annotations

from collections.abc import Mapping

from pageherd.litmus.syntax import Group, Step, Test, steps_of
from pageherd.machine.verbs import VERBS, Result
from pageherd.real.reproducer.ledger import Ledger
from pageherd.real.reproducer.walk import Walk, parts_of


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
