"""Verdicts: from what was found to kept, broken or undetermined, question by question."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from pageherd.litmus.claims import expected
from pageherd.litmus.format import format_question
from pageherd.litmus.syntax import (
    And,
    Comparison,
    Condition,
    Copies,
    Keeps,
    Not,
    Or,
    Outcome,
    Question,
    Test,
)
from pageherd.litmus.syntax import Verdict as Claimed
from pageherd.machine import state as st
from pageherd.promises.table import DEFAULT, NAMES
from pageherd.search.explore import Exploration, Path
from pageherd.search.explore import Outcome as Ending

Word: TypeAlias = Literal["kept", "broken", "undetermined"]

KEPT: Final = "kept"
BROKEN: Final = "broken"
UNDETERMINED: Final = "undetermined"

WORDS: Final = {
    "ok": st.OK,
    "fault": st.SEGV,
    "busy": st.BUSY,
    "full": st.FULL,
    "notified": st.NOTIFIED,
    "absent": st.ABSENT,
    "zero": st.ZEROED,
    "present": st.PRESENT,
    "swapped": st.SWAPPED,
}
_SPELLED: Final = {number: word for word, number in WORDS.items()} | {st.UNBOUND: "unset"}
_COMPARE: Final[dict[str, Callable[[int, int], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict on one question, what was expected, and the shortest way to break it."""

    ask: str
    verdict: Word
    expected: Claimed | None
    path: Path | None
    promise: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a test: the conjunction of its questions."""

    test: str
    kernel: str
    verdict: Word
    answers: tuple[Answer, ...]
    also: tuple[str, ...]  # promises that were not asked about and are broken
    exploration: Exploration
    notes: tuple[str, ...] = ()  # roles played for calls that the kernel does not have

    @property
    def promises(self) -> tuple[str, ...]:
        """The promises asked about that are broken."""
        found = (a.promise for a in self.answers if a.verdict == BROKEN and a.promise)
        return tuple(dict.fromkeys(found))

    @property
    def expected(self) -> Claimed | None:
        """The conjunction of what the claims say; None where nothing is claimed."""
        claims = [a.expected for a in self.answers]
        if BROKEN in claims:
            return "broken"
        if all(claim == KEPT for claim in claims):
            return "kept"
        return "unknown" if "unknown" in claims else None

    @property
    def agrees(self) -> bool | None:
        """Whether every claim came true; None where nothing is claimed."""
        pairs = [(a.expected, a.verdict) for a in self.answers if a.expected in (KEPT, BROKEN)]
        return all(claim == found for claim, found in pairs) if pairs else None


def spell(value: int) -> str:
    """A register's value as people read it."""
    return _SPELLED.get(value, str(value))


def plain(value: int) -> int | str:
    """A register's value as scripts read it: a number, or a word."""
    return value if value >= 0 else spell(value)


def holds(condition: Condition, registers: dict[str, int]) -> bool:
    """Whether a final condition is true of the registers."""
    if isinstance(condition, Not):
        return not holds(condition.part, registers)
    if isinstance(condition, And):
        return all(holds(part, registers) for part in condition.parts)
    if isinstance(condition, Or):
        return any(holds(part, registers) for part in condition.parts)
    return _compare(condition, registers)


def _compare(comparison: Comparison, registers: dict[str, int]) -> bool:
    right = comparison.right
    if isinstance(right, str):
        right = registers[right] if right in registers else WORDS[right]
    return _COMPARE[comparison.operator](registers[comparison.register], right)


def questions_of(test: Test) -> tuple[Question, ...]:
    """What the test asks; a test that asks nothing asks for every promise."""
    return test.questions or tuple(Keeps(name) for name in DEFAULT)


def judge(
    test: Test,
    variant: str,
    kernel: str,
    exploration: Exploration,
    notes: tuple[str, ...] = (),
) -> Verdict:
    """The verdict on `variant` of `test`, explored on `kernel`."""
    answers = tuple(
        _answer(test, question, variant, kernel, exploration) for question in questions_of(test)
    )
    asked = {answer.promise for answer in answers}
    also = tuple(
        name
        for name in NAMES
        if name in exploration.broken and name in DEFAULT and name not in asked
    )
    words = [answer.verdict for answer in answers]
    verdict: Word = BROKEN if BROKEN in words else UNDETERMINED if UNDETERMINED in words else KEPT
    return Verdict(test.id_of(variant), kernel, verdict, answers, also, exploration, notes)


def _answer(
    test: Test, question: Question, variant: str, kernel: str, found: Exploration
) -> Answer:
    claim = expected(test, question, variant, kernel)
    ask = format_question(question)
    if isinstance(question, Keeps):
        path = found.broken.get(question.promise)
        verdict = _judged(path is not None, found)
        return Answer(ask, verdict, claim, path, question.promise)
    if isinstance(question, Outcome) and question.polarity == "allow":
        witness = _first(found, lambda end: holds(question.condition, end.registers))
        if witness is not None:
            return Answer(ask, KEPT, claim, witness)
        return Answer(ask, _judged(found.proves, found), claim, None)
    path = _first(found, lambda end: _breaks(question, end))
    return Answer(ask, _judged(path is not None, found), claim, path)


def _judged(broken: bool, found: Exploration) -> Word:
    """Broken stands even if the search was cut short; kept needs the whole space."""
    if broken:
        return BROKEN
    return KEPT if found.proves else UNDETERMINED


def _breaks(question: Question, ending: Ending) -> bool:
    if isinstance(question, Copies):
        return not _COMPARE[question.operator](ending.copies, question.number)
    assert isinstance(question, Outcome)
    met = holds(question.condition, ending.registers)
    return met if question.polarity == "forbid" else not met


def _first(found: Exploration, wanted: Callable[[Ending], bool]) -> Path | None:
    """The way to the ending that is wanted with the fewest operations."""
    paths = [ending.path for ending in found.outcomes if wanted(ending)]
    return min(paths, key=lambda p: sum(not e.left_out for e in p)) if paths else None
