"""KTAP version 1, as tools/testing/kunit's parser and kselftest read it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pageherd.real.judge import Verdict


def lines(verdicts: Iterable[Verdict], count: int) -> Iterator[str]:
    """One result line for each verdict, diagnostics before it; `error` is `not ok`.

    The plan comes first, so `count` must be the number of verdicts.
    """
    yield "KTAP version 1"
    yield f"1..{count}"
    for number, verdict in enumerate(verdicts, start=1):
        name = _clean(f"{verdict.test} on {verdict.on}")
        if verdict.agrees is False:
            yield f"# {_clean(f'the model of {verdict.kernel} disagrees: {verdict.reason}')}"
        elif verdict.result == "fail":
            broken = ", ".join(verdict.observed.get("promises", ())) or "a condition"
            yield f"# {_clean(f'broken: {broken}; as the model of {verdict.kernel} predicts')}"
        if verdict.result == "skip":
            yield f"ok {number} {name} # SKIP {_clean(verdict.reason)}".rstrip()
        elif verdict.result == "pass":
            yield f"ok {number} {name}"
        else:
            reason = f" # ERROR {_clean(verdict.reason)}" if verdict.result == "error" else ""
            yield f"not ok {number} {name}{reason}".rstrip()


def _clean(text: str) -> str:
    """One printable line without the character that begins a directive."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r"\s+", " ", printable.replace("#", "no. ")).strip()
