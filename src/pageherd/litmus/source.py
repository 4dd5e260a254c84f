"""The text of a litmus file, kept so that errors can show the line they are about."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pageherd.errors import LitmusError
from pageherd.litmus.limits import MAX_NAME
from pageherd.litmus.syntax import Place

_OVERLONG = re.compile(rf"([\w.-]{{{MAX_NAME}}})[\w.-]+")


@dataclass(frozen=True, slots=True)
class Source:
    """A file's name and lines."""

    file: str = "<test>"
    lines: tuple[str, ...] = ()

    def line(self, number: int) -> str:
        """The text of a line, counted from 1; empty if there is none."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def error(self, place: Place, message: str, hint: str = "") -> LitmusError:
        """An error about one place in the file."""
        line, column, width = place
        text = self.line(line)
        return LitmusError(_short(message), self.file, line, column, text, width, _short(hint))


def _short(message: str) -> str:
    """A message without the far ends of overlong words."""
    return _OVERLONG.sub(r"\1...", message)
