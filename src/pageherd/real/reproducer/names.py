"""The names and conditions of a test in C.

Names get a prefix, so that none can be a keyword, a macro or a name of the C library; only pages of
one or two letters stand as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pageherd.litmus.syntax import And, Comparison, Condition, Not, Or
from pageherd.machine.verbs import STATE_WORDS, STATUS_WORDS

_SHORT: Final = 2  # no macro or function of the C library has so short a name, but these
_TAKEN: Final = frozenset({"at", "do", "if", "j0", "j1", "jn", "y0", "y1", "yn"})

WORDS: Final[Mapping[str, str]] = {
    "ok": "0",
    "fault": "-EFAULT",
    "busy": "-EBUSY",
    "full": "-ENOSPC",
    "notified": "-EAGAIN",
    "absent": "ABSENT",
    "zero": "ZERO_PAGE",
    "present": "PRESENT",
    "swapped": "SWAPPED",
}

assert set(WORDS) == {*STATUS_WORDS, *STATE_WORDS}


def page(name: str) -> str:
    """The variable that points to a page."""
    return name if len(name) <= _SHORT and name not in _TAKEN else f"page_{name}"


def register(name: str) -> str:
    """The member of `struct shared` that holds a register."""
    return f"r_{name}"


def process(name: str) -> str:
    """The function with the steps of a process, or of the kernel."""
    return f"process_{name}"


def thread(name: str) -> str:
    """The function with the steps of another thread."""
    return f"thread_{name}"


def pid(name: str) -> str:
    """The member of `struct shared` that holds a process's id."""
    return f"pid_{name}"


def number(value: int) -> str:
    """Small numbers decimal, others hexadecimal, as in tests."""
    return f"{value:#x}" if value > 9 else str(value)


def condition(asked: Condition) -> str:
    """A condition on the registers."""
    if isinstance(asked, Comparison):
        return f"shared->{register(asked.register)} {_operator(asked)} {_right(asked.right)}"
    if isinstance(asked, Not):
        return f"!({condition(asked.part)})"
    word = " && " if isinstance(asked, And) else " || "
    return word.join(_inside(part) for part in asked.parts)


def negated(asked: Condition) -> str:
    """The opposite of a condition, without needless parentheses."""
    if isinstance(asked, Comparison):
        operator = "=" if asked.operator == "!=" else "!="
        return condition(Comparison(asked.register, operator, asked.right))  # type: ignore[arg-type]
    if isinstance(asked, Not):
        return condition(asked.part)
    return f"!({condition(asked)})"


def _inside(part: Condition) -> str:
    text = condition(part)
    return f"({text})" if isinstance(part, And | Or) else text


def _operator(asked: Comparison) -> str:
    return "==" if asked.operator == "=" else "!="


def _right(right: int | str) -> str:
    if isinstance(right, int):
        return number(right)
    return WORDS[right] if right in WORDS else f"shared->{register(right)}"
