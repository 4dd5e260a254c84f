"""The kernel's selftest of COW (tools/testing/selftests/mm/cow.c), line by line beside the model.

The selftest prints TAP: what it runs ("Basic COW after fork() ... with base page") and how that
went.  The library has its tests under other names; which one is which, a test says in its source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Final, Literal, TypeAlias

from pageherd.litmus.shelves import load_all
from pageherd.litmus.syntax import Outcome, Test
from pageherd.rules import kernels
from pageherd.search.check import Checker, Chosen
from pageherd.search.verdict import holds, questions_of

Real: TypeAlias = Literal["pass", "fail", "skip", "error"]
Model: TypeAlias = Literal["kept", "broken", "either", "undetermined", ""]
Relation: TypeAlias = Literal[
    "agree", "DISAGREE", "no counterpart", "skipped", "error", "undetermined"
]

# The page that a line is about, and the variants of the library that stand for it: the first that
# the test has.  A size behind it, in kB, does not matter.
VARIANTS: Final[dict[str, tuple[str, ...]]] = {
    "base page": ("base",),
    "swapped out base page": ("base-swap",),
    "THP": ("thp-pmd",),
    "swapped-out THP": ("thp-pmd-swap",),
    "PTE-mapped THP": ("thp-pte",),
    "swapped-out, PTE-mapped THP": ("thp-pte-swap",),
    "single PTE of THP": ("thp-single-pte",),
    "single PTE of swapped-out THP": ("thp-single-pte-swap",),
    "swapped-out, single PTE of THP": ("thp-single-pte-swap",),
    "partially mremap()'ed THP": ("thp-partial-mremap",),
    "partially shared THP": ("thp-partial-shared",),
    "hugetlb": ("hugetlb",),
    "shared zeropage": ("zeropage",),
    "huge zeropage": ("huge-zeropage",),
    "memfd": ("memfd",),
    "tmpfile": ("tmpfile",),
    "memfd hugetlb": ("memfd-hugetlb",),
}

_SOURCE: Final = re.compile(r"tools/testing/selftests/mm/cow\.c: (?:non-anonymous )?'(?P<name>.+)'")
_NAME: Final = re.compile(
    r"(?P<test>.+?)(?: \.\.\. with (?P<page>.+?)(?: \(\d+ kB\))?)?", re.DOTALL
)
# A harness puts "# " before each line of a test that it ran.
_RUN: Final = re.compile(r"[#\s]*\[RUN\]\s+(?P<name>.+?)\s*")
_RESULT: Final = re.compile(
    r"[#\s]*(?P<ok>ok|not ok)\s+(?P<number>\d+)\b(?:\s+-)?\s*(?P<text>.*?)"
    r"(?:\s*#\s+(?P<directive>SKIP|XFAIL|XPASS)\b\s*(?P<rest>.*))?"
)
_PLAN: Final = re.compile(r"[#\s]*1\.\.(?P<count>\d+)\s*")
_COMMENT: Final = re.compile(r"[#\s]*#\s*(?P<text>\S.*?)\s*")
# What the selftest says if what it tests for failed.  Any other failure is that of a step on the
# way, which tells nothing.
_BREACH: Final = re.compile(r"Leak from|Other mapping|is (?:not )?reliable")


@dataclass(frozen=True, slots=True)
class Line:
    """One result of the selftest."""

    number: int
    name: str  # "TEST ... with PAGE"
    result: Real
    reason: str = ""  # why it was skipped or failed


@dataclass(frozen=True, slots=True)
class Tap:
    """The results of a run, and how many it announced; 0 if it did not."""

    lines: tuple[Line, ...]
    planned: int = 0

    @property
    def complete(self) -> bool:
        """Whether no announced result is missing."""
        return len(self.lines) >= self.planned


@dataclass(frozen=True, slots=True)
class Compared:
    """A line beside the model."""

    line: Line
    test: str  # the id of the library's test; "" if there is none
    model: Model
    relation: Relation


def read_tap(text: Iterable[str]) -> Tap:
    """The results in what the selftest printed, also as a harness passes it on."""
    found: list[Line] = []
    name, said, planned = "", "", 0
    for line in text:
        line = line.rstrip("\n")
        if match := _RUN.fullmatch(line):
            name, said = match["name"], ""
        elif match := _RESULT.fullmatch(line):
            found.append(_line(match, name, said))
            name, said = "", ""
        elif match := _PLAN.fullmatch(line):
            planned = int(match["count"])
        elif match := _COMMENT.fullmatch(line):
            said = match["text"]
    return Tap(tuple(found), planned)


def _line(match: re.Match[str], name: str, said: str) -> Line:
    """One result: older selftests print the reason in it, newer ones the name, the reason before.

    A test without `[RUN]` is known by what the result line says.
    """
    text, rest = match["text"].strip(), (match["rest"] or "").strip()
    reason = next((t for t in (rest, text) if t and t != name), "") or said
    name = name or text or rest
    return Line(int(match["number"]), name, _result(match, reason), reason)


def _result(match: re.Match[str], reason: str) -> Real:
    if match["directive"] == "SKIP":
        return "skip"
    if match["ok"] == "ok" and match["directive"] != "XFAIL":
        return "pass"
    return "fail" if _BREACH.search(reason) else "error"


@cache
def counterparts() -> dict[str, Test]:
    """The library's tests by the selftest's name for them."""
    found = {}
    for test in load_all(kernels.names()):
        for source in test.sources:
            if match := _SOURCE.fullmatch(source):
                found[match["name"]] = test
    return found


def counterpart(name: str) -> Chosen | None:
    """The library's test and variant for a line; None if there is none."""
    match = _NAME.fullmatch(name)
    test = counterparts().get(match["test"]) if match else None
    if match is None or test is None:
        return None
    if match["page"] is None:
        return Chosen(test, test.default_variant)
    wanted = VARIANTS.get(match["page"], ())
    known = (variant for variant in wanted if variant in test.variant_names)
    variant = next(known, None)
    return None if variant is None else Chosen(test, variant)


@dataclass(slots=True)
class Comparison:
    """Holds lines to the model of one kernel; each test is explored once."""

    kernel: str
    checker: Checker = field(default_factory=Checker)
    _known: dict[str, Model] = field(default_factory=dict)

    def compare(self, lines: Iterable[Line]) -> Iterator[Compared]:
        """Each line beside the verdict on its test's first question about an outcome."""
        for line in lines:
            chosen = counterpart(line.name)
            model = self._model(chosen) if chosen else ""
            yield Compared(line, chosen.id if chosen else "", model, _relation(line, model))

    def _model(self, chosen: Chosen) -> Model:
        if chosen.id not in self._known:
            self._known[chosen.id] = self._ask(chosen)
        return self._known[chosen.id]

    def _ask(self, chosen: Chosen) -> Model:
        question = next(q for q in questions_of(chosen.test) if isinstance(q, Outcome))
        found = self.checker.check(chosen, self.kernel).exploration
        wanted = question.polarity != "forbid"
        ends = {holds(question.condition, end.registers) == wanted for end in found.outcomes}
        if len(ends) == 2:
            return "either"
        if not found.proves:
            return "undetermined"
        return "kept" if ends == {True} else "broken"


def _relation(line: Line, model: Model) -> Relation:
    if line.result == "skip":
        return "skipped"
    if not model:
        return "no counterpart"
    if line.result == "error":
        return "error"
    if model == "undetermined":
        return "undetermined"
    shown = "kept" if line.result == "pass" else "broken"
    return "agree" if model in (shown, "either") else "DISAGREE"
