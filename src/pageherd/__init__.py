"""pageherd: litmus tests for Linux anonymous memory.

One executable model of fork, copy-on-write, get_user_pages, swap and rmap in which the page-sharing
rules are swappable parts, and a checker that explores every outcome of a test on every kernel.

Names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pageherd.errors import LitmusError, ModelError, PageherdError, RuleError
    from pageherd.hand import Machine, Page, Process, PromiseBroken, Reference
    from pageherd.litmus.parsing import parse, parse_file
    from pageherd.litmus.syntax import Test
    from pageherd.rules.choose import Kernel, alternative, alternatives, choose, proposal
    from pageherd.search.check import explore
    from pageherd.search.shrink import shrink
    from pageherd.search.trace import Trace
    from pageherd.search.verdict import Verdict

_HOME = {
    "Kernel": "rules.choose",
    "LitmusError": "errors",
    "Machine": "hand",
    "ModelError": "errors",
    "Page": "hand",
    "PageherdError": "errors",
    "Process": "hand",
    "PromiseBroken": "hand",
    "Reference": "hand",
    "RuleError": "errors",
    "Test": "litmus.syntax",
    "Trace": "search.trace",
    "Verdict": "search.verdict",
    "alternative": "rules.choose",
    "alternatives": "rules.choose",
    "choose": "rules.choose",
    "explore": "search.check",
    "parse": "litmus.parsing",
    "parse_file": "litmus.parsing",
    "proposal": "rules.choose",
    "shrink": "search.shrink",
}

__all__ = [
    "Kernel",
    "LitmusError",
    "Machine",
    "ModelError",
    "Page",
    "PageherdError",
    "Process",
    "PromiseBroken",
    "Reference",
    "RuleError",
    "Test",
    "Trace",
    "Verdict",
    "alternative",
    "alternatives",
    "choose",
    "explore",
    "parse",
    "parse_file",
    "proposal",
    "shrink",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
