"""Reading single words of a test: strings, names and numbers, each with its own complaint."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pageherd.errors import LitmusError
from pageherd.litmus.limits import MAX_NAME, MAX_STRING
from pageherd.litmus.source import Source
from pageherd.litmus.syntax import Place
from pageherd.litmus.words import (
    KEYWORDS,
    NUMBER,
    PAGE_NAME,
    PROCESS_NAME,
    TEST_NAME,
    did_you_mean,
    taken,
)

if TYPE_CHECKING:
    from lark import Token

_DIGITS: Final = 9  # no number has so many
TEST_FORM: Final = "small letters, digits and . _ -, as in: fork-read-1"


def place_of(token: Token) -> Place:
    """Where a token stands."""
    return Place(token.line or 0, token.column or 0, len(token))


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the words of one file."""

    source: Source

    def error(self, token: Token, message: str, hint: str = "") -> LitmusError:
        """An error about one word."""
        return self.source.error(place_of(token), message, hint)

    def unknown(self, token: Token, what: str, known: Iterable[str]) -> LitmusError:
        """An error about a word that is none of those known."""
        return self.error(token, f"no {what} named '{token}'", did_you_mean(token, known))

    def string(self, token: Token) -> str:
        """The text of a string."""
        text = token[1:-1]
        if len(text) > MAX_STRING:
            raise self.error(token, f"a string has at most {MAX_STRING} characters")
        return re.sub(r"\\(.)", r"\1", text) if "\\" in text else text

    def test_name(self, token: Token, what: str) -> str:
        """The name of a test or variant."""
        if token in KEYWORDS:
            raise self.error(token, f"'{token}' is a keyword and cannot name a {what}")
        return self.name(token, what, TEST_NAME, TEST_FORM)

    def process_name(self, token: Token, what: str) -> str:
        """The name of a process or thread."""
        form = "a capital letter, then letters, digits and _, as in: P"
        return self.name(token, what, PROCESS_NAME, form)

    def page_name(self, token: Token, what: str) -> str:
        """The name of a page, register or reference."""
        form = "a small letter, then small letters, digits and _, as in: a"
        use = taken(token)
        if use is not None:
            raise self.error(token, f"'{token}' is {use} and cannot name a {what}")
        return self.name(token, what, PAGE_NAME, form)

    def name(self, token: Token, what: str, pattern: re.Pattern[str], form: str) -> str:
        """A name that looks as it should."""
        if not pattern.fullmatch(token):
            raise self.error(token, f"'{token}' cannot name a {what}", f"a {what}'s name is {form}")
        if len(token) > MAX_NAME:
            raise self.error(token, f"a name has at most {MAX_NAME} characters")
        return str(token)

    def number(self, token: Token, greatest: int, what: str, least: int = 0, hint: str = "") -> int:
        """A number within its bounds."""
        if not NUMBER.fullmatch(token):
            raise self.error(
                token, f"'{token}' is no number", hint or "write it as in: 255 or 0xff"
            )
        base = 16 if token[:2].lower() == "0x" else 10
        digits = token[2:] if base == 16 else str(token)
        significant = digits.lstrip("0") or "0"
        number = int(significant, base) if len(significant) < _DIGITS else greatest + 1
        if not least <= number <= greatest:
            raise self.error(token, f"{what} is a number from {least} to {greatest}", hint)
        return number
