"""Finding the comments of a litmus file and the lines that they belong to."""

from __future__ import annotations

import re

from pageherd.litmus.source import Source
from pageherd.litmus.syntax import Comment

_TRAILING = re.compile(r'(?:[^"#]|"(?:[^"\\]|\\.)*")*(#.*)')


def comments_of(source: Source) -> tuple[Comment, ...]:
    """All comments in order; a whole-line comment belongs to the next line that says something."""
    comments: list[Comment] = []
    waiting: list[str] = []
    for number, line in enumerate(source.lines, 1):
        text = line.strip()
        if text.startswith("#"):
            waiting.append(text)
        elif text:
            comments += (Comment(above, number, False) for above in waiting)
            waiting.clear()
            trailing = _TRAILING.match(line) if "#" in line else None
            if trailing:
                comments.append(Comment(trailing.group(1).strip(), number, True))
    comments += (Comment(above, len(source.lines) + 1, False) for above in waiting)
    return tuple(comments)
