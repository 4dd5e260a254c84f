"""The litmus language: reading, checking, writing and identifying tests, and their library.

Names are loaded when first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pageherd.litmus.claims import expected, expected_claim
    from pageherd.litmus.format import format_question, format_step, format_test
    from pageherd.litmus.identify import identity
    from pageherd.litmus.parsing import parse, parse_file
    from pageherd.litmus.shelves import load, names
    from pageherd.litmus.syntax import Test

# No name may be that of a module of this package: importing the module would hide it.
_HOME = {
    "Test": "syntax",
    "expected": "claims",
    "expected_claim": "claims",
    "format_question": "format",
    "format_step": "format",
    "format_test": "format",
    "identity": "identify",
    "load": "shelves",
    "names": "shelves",
    "parse": "parsing",
    "parse_file": "parsing",
}

__all__ = [
    "Test",
    "expected",
    "expected_claim",
    "format_question",
    "format_step",
    "format_test",
    "identity",
    "load",
    "names",
    "parse",
    "parse_file",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
