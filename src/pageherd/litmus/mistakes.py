"""What to say about a line that the grammar refuses.

Each rule looks at where the parser stopped and, if the mistake is a typical one, says what is
wrong and how to write it; the last one says what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from pageherd.errors import LitmusError
from pageherd.litmus.source import Source
from pageherd.litmus.syntax import KERNEL, Place
from pageherd.litmus.words import (
    CLAIM_WORDS,
    DIRECTIVES,
    HEAD_WORDS,
    KEYWORDS,
    STEP_WORDS,
    did_you_mean,
    nearest,
)
from pageherd.machine.verbs import VERBS

if TYPE_CHECKING:
    from lark import UnexpectedInput

STEP_FORM: Final = "P: x = read a"
FORMS: Final = {
    "test": 'test fork-write "the child writes first"',
    "shelf": "shelf basics",
    "from": 'from "CVE-2020-29374"',
    "note": 'note "what to know about this test"',
    "processes": "processes P C",
    "threads": "threads T1 T2 of P",
    "pages": "pages a b",
    "on": "on cpu 1: C",
    "file": "file tmpfile in tmpfile",
    "swap": "swap disk stable-writes",
    "lru_batches": "lru_batches 15",
    "hugetlb_pool": "hugetlb_pool 1",
    "variant": "variant swapped {",
    "prepare": "prepare",
    "concurrent": "concurrent by operation {",
    "forbid": "forbid x = 1 and not (y = 2)",
    "require": "require x = 1 or y != 2",
    "allow": "allow x = fault",
    "keeps": "keeps private",
    "no": "no copy",
    "copies": "copies <= 1",
    "kept": 'kept on linux-5.8..linux-6.1 in base from "17839856fd58"',
    "broken": 'broken on linux-4.19 in base from "CVE-2020-29374"',
    "unknown": "unknown everywhere",
}
_SYMBOLS: Final = {
    "WORD": "a name or number",
    "STRING": "a string in double quotes",
    "_NL": "the end of the line",
    "COLON": "':'",
    "EQ": "'='",
    "NE": "'!='",
    "LE": "'<='",
    "GE": "'>='",
    "LT": "'<'",
    "GT": "'>'",
    "LBRACE": "'{'",
    "RBRACE": "'}'",
    "LPAR": "'('",
    "RPAR": "')'",
}
_WORD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_CLOSED_STRING: Final = re.compile(r'"(?:[^"\\]|\\["\\])*"')
_STEP: Final = re.compile(r"\s*[A-Za-z0-9_.\-]+\s*:")
_LOGIC: Final = {"&": "and", "/\\": "and", "|": "or", "\\/": "or", "!": "not", "~": "not"}


class _Finding(NamedTuple):
    message: str
    hint: str = ""
    column: int | None = None  # if not where the parser stopped
    width: int | None = None


@dataclass(frozen=True, slots=True)
class _Stop:
    """Where the parser stopped, and what it could have gone on with."""

    line: str
    column: int
    expected: frozenset[str]
    at_end: bool

    @property
    def before(self) -> str:
        return self.line[: self.column - 1]

    @property
    def rest(self) -> str:
        return self.line[self.column - 1 :]

    @property
    def found(self) -> str:
        """The word or the character at which the parser stopped; empty at the line's end."""
        word = _WORD.match(self.rest)
        text = word.group() if word else self.rest[:1]
        return "" if text == "#" else text

    @property
    def head(self) -> str:
        """The first word of the line."""
        word = _WORD.match(self.line.lstrip())
        return word.group() if word else ""

    @property
    def early(self) -> bool:
        """Whether the line's first word alone was understood, at most."""
        return self.before.strip() in ("", self.head)

    def whole_head(self, message: str, hint: str = "") -> _Finding:
        """A finding about the first word of the line."""
        column = len(self.line) - len(self.line.lstrip()) + 1
        return _Finding(message, hint, column, max(1, len(self.head)))


def explain(unexpected: UnexpectedInput, source: Source) -> LitmusError:
    """The one message for a text that is no test."""
    stop, number = _stop(unexpected, source)
    finding = next(found for rule in _RULES if (found := rule(stop)) is not None)
    column = stop.column if finding.column is None else finding.column
    width = max(1, len(stop.found)) if finding.width is None else finding.width
    return source.error(Place(number, column, width), finding.message, finding.hint)


def _stop(unexpected: UnexpectedInput, source: Source) -> tuple[_Stop, int]:
    from lark import UnexpectedToken

    at_end = isinstance(unexpected, UnexpectedToken) and unexpected.token.type == "$END"
    expected = (
        unexpected.accepts or unexpected.expected
        if isinstance(unexpected, UnexpectedToken)
        else getattr(unexpected, "allowed", None) or ()
    )
    line, column = unexpected.line, unexpected.column
    if at_end:
        line = next((n for n in range(len(source.lines), 0, -1) if source.line(n).strip()), 1)
        column = len(source.line(line).rstrip()) + 1
    return _Stop(source.line(line), column, frozenset(expected), at_end), line


# the rules, in the order in which they are tried


def _end_of_file(stop: _Stop) -> _Finding | None:
    if not stop.at_end:
        return None
    if "TEST" in stop.expected:
        return _Finding(
            "there is no test in this file", f"the first line is as in: {FORMS['test']}"
        )
    return _Finding("the file ends inside a block", "close it with a line '}'")


def _string(stop: _Stop) -> _Finding | None:
    if stop.found == "'":
        return _Finding("strings stand in double quotes", 'write: "..."')
    if stop.found != '"' or _CLOSED_STRING.match(stop.rest):
        return None
    if re.match(r'"(?:[^"\\]|\\["\\])*\\', stop.rest):
        return _Finding('a backslash in a string stands before " or \\ only', 'write: \\\\ or \\"')
    return _Finding("this string is not closed", 'a string ends with " in the same line')


def _punctuation(stop: _Stop) -> _Finding | None:
    if stop.found == ",":
        return _Finding("names are separated by spaces, not by commas", "leave the comma out")
    if stop.found == ";":
        return _Finding("a statement ends where its line ends", "leave the ';' out")
    if stop.rest.startswith(("//", "/*", "(*")):
        return _Finding("a comment begins with '#'", "write: # ...")
    if re.match(r"[-+]\s*[0-9]", stop.rest):
        return _Finding("numbers have no sign", "values go from 0 to 65535")
    return None


def _condition(stop: _Stop) -> _Finding | None:
    if stop.head not in ("forbid", "require", "allow"):
        return None
    if stop.found == "=" and stop.before.endswith("="):
        return _Finding("a comparison has one '='", f"write it as in: {FORMS[stop.head]}")
    for sign, word in _LOGIC.items():
        if stop.rest.startswith(sign) and not stop.rest.startswith("!="):
            return _Finding(f"'{word}' is written as a word", f"write '{word}' instead of '{sign}'")
    if stop.found[:1] in ("<", ">"):
        return _Finding("registers are compared by '=' and '!=' only")
    if "RPAR" in stop.expected and not stop.found:
        return _Finding("a ')' is missing", f"write it as in: {FORMS[stop.head]}")
    if stop.found == ")":
        return _Finding(
            "this ')' closes nothing"
            if "_NL" in stop.expected
            else "a comparison is missing before ')'",
            f"write it as in: {FORMS[stop.head]}",
        )
    return None


def _first_line(stop: _Stop) -> _Finding | None:
    if "TEST" not in stop.expected:
        return None
    if nearest(stop.head, ("test",)):
        return stop.whole_head(f"no directive named '{stop.head}'", "did you mean 'test'?")
    return stop.whole_head("a file begins with the line 'test'", f"write it as in: {FORMS['test']}")


def _in_block(stop: _Stop) -> _Finding | None:
    """A line that cannot stand in a block: a brace is missing, or blocks are nested."""
    as_thread = stop.expected == {"COLON"} and stop.before.strip() == stop.head
    if not as_thread and ("RBRACE" not in stop.expected or stop.before.strip()):
        return None
    if stop.head in STEP_WORDS and stop.line[:1] in " \t":
        message = f"'{stop.head}' cannot stand inside a block"
        return stop.whole_head(message, "blocks contain steps only")
    if stop.head in (STEP_WORDS if as_thread else DIRECTIVES):
        return stop.whole_head("a block is not closed before this line", "close it with a line '}'")
    return None


def _out_of_place(stop: _Stop) -> _Finding | None:
    """A known directive in the wrong part of the file."""
    head = stop.head
    if not stop.early or head.upper() in stop.expected:
        return None
    if stop.before.strip() and stop.expected != {"COLON"}:
        return None  # it was read as the directive that it is
    if head == "test":
        return stop.whole_head("one file holds one test", "put this one into another file")
    if head in HEAD_WORDS:
        return stop.whole_head(
            f"'{head}' belongs in the head of the test", "it goes before the variants and steps"
        )
    if head == "variant":
        return stop.whole_head("variants stand before the first step of the test")
    if head in STEP_WORDS or (_STEP.match(stop.line) and "COLON" not in stop.expected):
        return stop.whole_head("steps stand before the questions")
    if head in CLAIM_WORDS:
        return stop.whole_head(f"'{head}' is a claim and stands under a question")
    return None


def _no_colon(stop: _Stop) -> _Finding | None:
    head = stop.head
    if not stop.early or not head or head in DIRECTIVES:
        return None
    if (head[0].isupper() or head == KERNEL) and stop.found and stop.expected == {"COLON"}:
        rest = " ".join(stop.rest.split())[:60]
        message = f"a ':' is missing after the thread '{head}'"
        written = f"write: {head}: {rest}" if _WORD.match(rest) else f"as in: {STEP_FORM}"
        return _Finding(message, written)
    if head in VERBS:
        line = " ".join(stop.line.split())[:60]
        return stop.whole_head("a step begins with its thread", f"write: P: {line}")
    if not (head[0].isupper() or head == KERNEL):
        hint = did_you_mean(head, DIRECTIVES) or f"a step is written as in: {STEP_FORM}"
        return stop.whole_head(f"no directive named '{head}'", hint)
    return None


def _step(stop: _Stop) -> _Finding | None:
    if not _STEP.match(stop.line) or stop.head == "on":
        return None
    last = stop.before.split()[-1] if stop.before.split() else ""
    if stop.found == "=" and last in KEYWORDS:
        at = stop.before.rindex(last) + 1
        return _Finding(f"'{last}' is a keyword and cannot name a result", "", at, len(last))
    if stop.found == "(":
        call = " ".join(re.sub(r"[(),;]", " ", stop.line).split())[:60]
        return _Finding("arguments stand after the verb without parentheses", f"write: {call}")
    if stop.rest.startswith(":="):
        return _Finding("a result is bound by '='", f"write it as in: {STEP_FORM}")
    if stop.found in ("{", "}"):
        return _Finding(f"a '{stop.found}' stands on the line of its block or on a line of its own")
    if not stop.found and stop.before.rstrip().endswith(":"):
        return _Finding("the step is missing", f"write it as in: {STEP_FORM}")
    return _expected(stop, STEP_FORM)


def _block(stop: _Stop) -> _Finding | None:
    if stop.head in ("variant", "concurrent") and "{" in stop.before and stop.found:
        return _Finding("the steps of a block stand on lines of their own", "begin a new line here")
    if stop.line.strip().startswith("}"):
        if "RBRACE" not in stop.expected and stop.early:
            return _Finding("this '}' closes nothing")
        return _Finding("nothing else stands on the line of '}'", "begin a new line here")
    if "LBRACE" in stop.expected and not stop.found:
        form = FORMS.get(stop.head, "variant swapped {")
        return _Finding("the '{' is missing", f"write it as in: {form}")
    return None


def _anything(stop: _Stop) -> _Finding:
    return _expected(stop, FORMS.get(stop.head, STEP_FORM))


def _expected(stop: _Stop, form: str) -> _Finding:
    names = sorted(_SYMBOLS.get(name, f"'{name.lower()}'") for name in stop.expected)
    wanted = " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    found = f"not '{stop.found[:40]}'" if stop.found else "but the line ends"
    if len(names) > 6 or not names:
        return _Finding(f"'{stop.found[:40]}' cannot stand here", f"write it as in: {form}")
    return _Finding(f"{wanted} is expected here, {found}", f"write it as in: {form}")


_Rule: TypeAlias = Callable[[_Stop], _Finding | None]
_RULES: Final[tuple[_Rule, ...]] = (
    _end_of_file,
    _string,
    _punctuation,
    _condition,
    _first_line,
    _in_block,
    _out_of_place,
    _no_colon,
    _step,
    _block,
    _anything,
)
