"""KTAP as a harness reads it, whatever stands in names and reasons."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from pageherd.real.judge import Verdict
from pageherd.real.ktap import lines

RESULT = re.compile(r"(ok|not ok) (\d+) ([^#]*?)(?: # (SKIP|ERROR) ?(.*))?")


def of(result: Any, **fields: Any) -> Verdict:
    told = {"test": "t", "on": "host", "release": "6.1", "kernel": "linux-6.1", "agrees": True}
    told |= {"observed": {}, "predicted": {}, "reason": ""}
    return Verdict(result=result, **{**told, **fields})


def read(output: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Results (`ok`, `not ok` or the directive; name) and diagnostics, as a harness reads them."""
    version, plan, *rest = output
    assert version == "KTAP version 1"
    results: list[tuple[str, str]] = []
    diagnostics = []
    for line in rest:
        assert line == line.strip()
        assert line.isprintable()
        if line.startswith("#"):
            diagnostics.append(line[1:].strip())
            continue
        match = RESULT.fullmatch(line)
        assert match, line
        assert int(match[2]) == len(results) + 1
        results.append((match[4] or match[1], match[3]))
    assert plan == f"1..{len(results)}"
    return results, diagnostics


def test_every_result() -> None:
    verdicts = [
        of("pass"),
        of("fail", observed={"promises": ["private"]}),
        of("fail"),
        of("skip", agrees=None, reason="missing: nbd: ENODEV"),
        of("error", agrees=False, reason="P: read a: result: 1, the kernel 2"),
        of("error", agrees=None, reason="'P: read' did not return"),
    ]
    results, diagnostics = read(list(lines(verdicts, len(verdicts))))
    assert [kind for kind, _ in results] == ["ok", "not ok", "not ok", "SKIP", "ERROR", "ERROR"]
    assert {name for _, name in results} == {"t on host"}
    assert diagnostics == [
        "broken: private; as the model of linux-6.1 predicts",
        "broken: a condition; as the model of linux-6.1 predicts",
        "the model of linux-6.1 disagrees: P: read a: result: 1, the kernel 2",
    ]


def test_no_results() -> None:
    assert list(lines([], 0)) == ["KTAP version 1", "1..0"]


KIND = {"pass": "ok", "fail": "not ok", "skip": "SKIP", "error": "ERROR"}
HOSTILE = "x # SKIP not really\nok 2 forged\r\n1..9\tBail out!\x1b[31m \u2028#TODO"


def test_a_name_cannot_forge_a_result_or_a_directive() -> None:
    for result in ("pass", "fail", "skip", "error"):
        one = of(result, test=HOSTILE, on=HOSTILE, kernel=HOSTILE, reason=HOSTILE, agrees=False)
        results, diagnostics = read(list(lines([one, of("pass")], 2)))
        assert len(results) == 2
        assert results[0][0] == KIND[result]
        assert len(diagnostics) == 1


@given(some.text(), some.text(), some.sampled_from(["pass", "fail", "skip", "error"]))
def test_any_text(name: str, reason: str, result: str) -> None:
    results, _ = read(list(lines([of(result, test=name, reason=reason)], 1)))
    assert len(results) == 1
    assert results[0][0] == KIND[result]
