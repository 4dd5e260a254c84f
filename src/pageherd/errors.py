"""The errors that pageherd raises on purpose: each is one message that a user can act on."""

from __future__ import annotations

from typing import Any

_SHOWN = 100  # how much of a long source line is shown


class PageherdError(Exception):
    """Base of all errors that are the input's or the environment's fault, not a bug."""


class LitmusError(PageherdError):
    """A mistake in a litmus file: what is wrong, where, and what would be right."""

    def __init__(
        self,
        message: str,
        file: str = "<string>",
        line: int = 0,
        column: int = 0,
        source_line: str = "",
        width: int = 1,
        hint: str = "",
    ) -> None:
        super().__init__(message, file, line, column, source_line, width, hint)
        self.message = message
        self.file = file
        self.line = line  # 1 for the first line; 0 if the mistake is in no line
        self.column = column  # 1 for the first character
        self.source_line = source_line
        self.width = width
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        parts = [f"{place}: {self.message}"]
        if self.source_line.strip():
            parts += self._excerpt()
        if self.hint:
            parts.append(f"   {self.hint}")
        return "\n".join(parts)

    def _excerpt(self) -> list[str]:
        """The source line with a line of carets below it."""
        at = self.column - 1
        begin = max(0, at - _SHOWN // 2)
        shown = self.source_line[begin : begin + _SHOWN].rstrip()
        margin = f"{self.line:5} | "
        indent = "".join("\t" if c == "\t" else " " for c in shown[: at - begin])
        indent = indent.ljust(at - begin)
        carets = "^" * max(1, min(self.width, begin + len(shown) - at))
        return [margin + shown, " " * (len(margin) - 2) + "| " + indent + carets]


class RuleError(PageherdError):
    """A kernel, decision point or alternative that does not exist, or a user's rule that fails."""


class ModelError(PageherdError):
    """The machine raised an alarm: the answer would mean nothing, so there is none."""

    def __init__(self, message: str, alarm: int = 0, path: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.alarm = alarm  # the number in `machine.jit`
        self.path = path  # the edges that led there, the last is the operation that was running


class EnvironmentFailed(PageherdError):
    """Something outside pageherd that it needs is missing or failed; the exit code is 4.

    The message says what failed; `cure` what to do about it, and is shown on a line of its own.
    """

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message, cure)
        self.message = message
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.message}\n   {self.cure}" if self.cure else self.message
