"""Text that may stand in a program: harmless comments, and lines that are not too long."""

from __future__ import annotations

import re
import textwrap
from typing import Final

WIDTH: Final = 100


_WHOLE: Final = re.compile(r'"[^"]*"|\([a-z ]+\)\{[^}]*\}|\S+ [!=]= \S+')


def fold(line: str, indent: int = 8) -> list[str]:
    """A statement over several lines if it is long; strings and comparisons stay whole."""
    folded = textwrap.wrap(
        _WHOLE.sub(lambda match: match[0].replace(" ", "\0"), line),
        WIDTH - indent,
        subsequent_indent="\t",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [part.replace("\0", " ") for part in folded]


def harmless(text: str) -> str:
    """A text that may stand in a comment: it cannot end it, and holds nothing but ASCII."""
    text = "".join(c if " " <= c <= "~" else "?" for c in " ".join(text.split()))
    text = text.replace("\\", "/")
    text = re.sub(r"\*(?=/)", "* ", text)
    text = re.sub(r"/(?=\*)", "/ ", text)
    return re.sub(r"\?(?=\?)", "? ", text)


def comment(text: str) -> list[str]:
    lines = textwrap.wrap(harmless(text), WIDTH - 8, break_on_hyphens=False)
    if len(lines) == 1:
        return [f"/* {lines[0]} */"]
    return ["/*", *(f" * {line}" for line in lines), " */"]


def wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        harmless(text),
        WIDTH - 3,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_on_hyphens=False,
    )
