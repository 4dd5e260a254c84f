"""Reading a litmus file: the front door."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pageherd.cache import user_cache
from pageherd.errors import LitmusError
from pageherd.litmus.build import build
from pageherd.litmus.check import check
from pageherd.litmus.comments import comments_of
from pageherd.litmus.limits import MAX_FILE_BYTES
from pageherd.litmus.mistakes import explain
from pageherd.litmus.source import Source
from pageherd.litmus.syntax import Place, Test

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

# Control characters, and what could make a terminal show something else than what is there.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def parse_file(path: str | Path, kernels: Sequence[str] | None = None) -> Test:
    """Read one test from a file; `kernels` as for `parse`."""
    file = str(path)
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise LitmusError(f"cannot be read: {error.strerror}", file) from None
    if len(data) > MAX_FILE_BYTES:
        raise _too_large(file)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        place = _place_at(before, len(before))
        raise _source(before, file).error(place, "this is not UTF-8 text") from None
    return parse(text, file, kernels)


def parse(text: str, file: str = "<string>", kernels: Sequence[str] | None = None) -> Test:
    """Read one test.

    `kernels` is the table of known kernels in order, proposals last; with None, the names of
    kernels are taken as they are.  Raises LitmusError, and nothing else, for a bad text.
    """
    if len(text) > MAX_FILE_BYTES:
        raise _too_large(file)
    text = text.replace("\r\n", "\n")
    source = _source(text, file)
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        place = _place_at(text, forbidden.start())
        code = ord(forbidden.group())
        raise source.error(place, f"the control character U+{code:04X} has no place in a test")
    test = build(_tree(text, source), source)
    check(test, source, kernels)
    return replace(test, kernels=tuple(kernels or ()), comments=comments_of(source))


def _tree(text: str, source: Source) -> Tree[Token]:
    from lark import UnexpectedInput

    try:
        return _parser().parse(text + "\n")
    except UnexpectedInput as unexpected:
        raise explain(unexpected, source) from None


@cache
def _parser() -> Lark:
    from lark import Lark

    grammar = Path(__file__).with_name("litmus.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", maybe_placeholders=True, cache=_cache_file() or False)


def _cache_file() -> str | None:
    """Where the user's cache keeps the parser's tables; lark checks that they are of this grammar.

    Without a usable cache the tables are made anew, which takes a tenth of a second.
    """
    try:
        user_cache().mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return str(user_cache() / "litmus-parser")


def _source(text: str, file: str) -> Source:
    return Source(file, tuple(text.split("\n")))


def _place_at(text: str, index: int) -> Place:
    return Place(text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index), 1)


def _too_large(file: str) -> LitmusError:
    return LitmusError(f"a test has at most {MAX_FILE_BYTES // 1024} KiB", file)
