"""Names of the litmus language: how they look, which are taken, and which one was meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pageherd.machine.verbs import FLAG_WORDS, STATE_WORDS, STATUS_WORDS, VERBS
from pageherd.promises.table import NAMES

HEAD_WORDS: Final = (
    "shelf",
    "from",
    "note",
    "processes",
    "threads",
    "pages",
    "huge",
    "on",
    "file",
    "swap",
    "lru_batches",
    "hugetlb_pool",
)
STEP_WORDS: Final = ("prepare", "concurrent")
QUESTION_WORDS: Final = ("forbid", "require", "allow", "keeps", "no", "copies")
CLAIM_WORDS: Final = ("kept", "broken", "unknown")
INNER_WORDS: Final = (
    "of",
    "cpu",
    "maybe",
    "by",
    "copy",
    "everywhere",
    "in",
    "and",
    "or",
    "not",
    "kernel",
    "with",
    "as",
)
DIRECTIVES: Final = ("test", *HEAD_WORDS, "variant", *STEP_WORDS, *QUESTION_WORDS, *CLAIM_WORDS)
SOFT_WORDS: Final = frozenset(("file",))  # begin a line of the head, and may name a result
KEYWORDS: Final = frozenset(DIRECTIVES + INNER_WORDS) - SOFT_WORDS

PROMISES: Final = NAMES
RESERVED_PROMISES: Final = ("cache-coherent",)

TEST_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
PROCESS_NAME: Final = re.compile(r"[A-Z][A-Za-z0-9_]*")
PAGE_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]+")

_TAKEN_BY: Final = (
    (KEYWORDS, "a keyword"),
    (frozenset(VERBS), "a verb"),
    (frozenset(FLAG_WORDS), "a flag"),
    (frozenset(STATUS_WORDS), "a status"),
    (frozenset(STATE_WORDS), "a state of a page"),
)


def taken(name: str) -> str | None:
    """What the language itself uses a word for, as in 'a verb'; None if it is free."""
    return next((use for words, use in _TAKEN_BY if name in words), None)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, if one is near enough."""
    from difflib import get_close_matches

    candidates = list(known)
    for candidate in candidates:
        if candidate.lower() == name.lower():
            return candidate
    matches = get_close_matches(name[:100], candidates, n=1, cutoff=0.6)
    return matches[0] if matches else _one_letter_off(name, candidates)


def _one_letter_off(name: str, known: Iterable[str]) -> str | None:
    """For very short names, which difflib finds too different: `aa` for `a`."""
    return next((k for k in known if name and k and (k in name or name in k)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint with the nearest known name, or all of them if they are few, or nothing."""
    candidates = list(known)
    near = nearest(name, candidates)
    if near is not None:
        return f"did you mean '{near}'?"
    if 0 < len(candidates) <= 12:
        return "there is: " + " ".join(candidates)
    return ""
