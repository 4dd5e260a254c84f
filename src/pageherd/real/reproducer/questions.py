"""From the questions of a test to what the program checks: one line of KTAP each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pageherd.litmus.asked import comparisons
from pageherd.litmus.format import format_question
from pageherd.litmus.syntax import (
    And,
    Comparison,
    Condition,
    Copies,
    Group,
    Keeps,
    Or,
    Outcome,
    Question,
    Test,
    steps_of,
)
from pageherd.promises.table import DEFAULT
from pageherd.real.levers import LEVERS
from pageherd.real.reproducer.probes import is_reference
from pageherd.real.reproducer.walk import Walk, parts_of, walk

_UNSEEN: Final = {
    "alive": "user space cannot see which frames are free",
    "no-leak": "user space cannot see which frames are free",
    "counts": "user space cannot see reference counts",
    "exclusive": "user space cannot see which pages are marked exclusive",
}
_COMPARED: Final = {
    "private": "nobody sees what another process stored for itself",
    "own-writes": "everybody reads what they stored last, or inherited at fork()",
    "pin-coherent": "through a pin the device sees what the page's owner sees",
    "get-fork": "what the device stores shows to the owner of the page, and to nobody else",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of KTAP: its name, and a condition on the outcome or why there is none."""

    name: str
    good: Condition | None = None
    polarity: str = "require"
    unseen: str = ""
    copies: Copies | None = None
    compared: str = ""


def asked_of(test: Test) -> tuple[Question, ...]:
    return test.questions or tuple(Keeps(promise) for promise in DEFAULT)


def wants_probes(test: Test) -> bool:
    return any(isinstance(q, Keeps) and q.promise in _COMPARED for q in asked_of(test))


def lines_of(asked: Test, test: Test, found: Walk) -> tuple[Line, ...]:
    return tuple(_line(question, test, found) for question in asked_of(asked))


def _line(question: Question, test: Test, found: Walk) -> Line:
    name = format_question(question)
    if isinstance(question, Outcome):
        blind = _blind(question.condition, test)
        if blind:
            return Line(name, unseen=f"what {blind} gives cannot be seen")
        return Line(name, question.condition, question.polarity)
    if isinstance(question, Copies):
        if found.hidden_copy() or any(isinstance(part, Group) for part in test.body):
            return Line(name, unseen="not every copy can be seen in pagemap")
        return Line(name, copies=question)
    if question.promise not in _COMPARED:
        return Line(name, unseen=_UNSEEN[question.promise])
    condition = _promise(question.promise, test, found)
    if condition is None:
        return Line(name, unseen="nothing that the processes read depends on it")
    return Line(name, condition, compared=f"{question.promise}: {_COMPARED[question.promise]}")


def _blind(condition: Condition, test: Test) -> str | None:
    """The verb of a register in a condition whose result user space does not get."""
    verbs = {s.result: s.verb for s in steps_of(parts_of(test)) if s.result}
    for comparison in comparisons(condition):
        for name in (comparison.register, comparison.right):
            verb = verbs.get(str(name), "")
            if verb == "pageout" and comparison.right == "fault":
                continue  # madvise() tells a mapping that it refuses, not what became of the page
            if verb and verb != "pagemap" and not LEVERS[verb].returns:
                return verb
    return None


def _promise(promise: str, test: Test, found: Walk) -> Condition | None:
    """What must be true of the registers if the promise is kept; None: nothing can be told."""
    registers = [s.result for s in steps_of(parts_of(test)) if s.result and not is_reference(s)]
    if promise == "private":
        return _both([part for name in registers for part in _nothing_foreign(name, found)])
    if promise == "get-fork":
        strict = walk(test, strict=True)
        shown = [part for name in registers for part in _as_promised(name, strict, "page")]
        return _both([*shown, *(p for name in registers for p in _nothing_foreign(name, strict))])
    kind = "page" if promise == "own-writes" else "pin"
    return _both([part for name in registers for part in _as_promised(name, found, kind)])


def _nothing_foreign(name: str, found: Walk) -> list[Condition]:
    return [Comparison(name, "!=", value) for value in sorted(found.foreign(name))]


def _as_promised(name: str, found: Walk, kind: str) -> list[Condition]:
    values = found.values(name)
    if found.kind(name) != kind or values is None:
        return []
    equal = tuple(Comparison(name, "=", value) for value in sorted(values))
    return [equal[0] if len(equal) == 1 else Or(equal)]


def _both(parts: list[Condition]) -> Condition | None:
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else And(tuple(parts))
