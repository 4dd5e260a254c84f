"""Whatever the file says: it is a test, or there is one LitmusError with a place, and soon."""

from __future__ import annotations

import re
import time
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pageherd.errors import LitmusError
from pageherd.litmus import format_test, parse

SAMPLES = [
    path.read_text(encoding="utf-8")
    for path in sorted((Path(__file__).parent / "samples").glob("*.litmus"))
]
KERNELS = ("linux-4.19", "linux-4.19.y", "linux-5.8", "linux-5.10", "linux-6.18", "linux-7.3")
TOKENS = sorted({token for text in SAMPLES for token in re.findall(r"[\w.-]+|[^\w\s]|\n", text)})
SECONDS = 2.0

relaxed = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def spoilt_tokens(draw: st.DrawFn) -> str:
    pieces = re.findall(r"[\w.-]+|\s|.", draw(st.sampled_from(SAMPLES)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(pieces) - 1))
        other = draw(st.sampled_from(TOKENS))
        change = draw(st.sampled_from(("delete", "double", "replace", "insert", "swap", "line")))
        if change == "delete" and len(pieces) > 1:
            del pieces[at]
        elif change == "double":
            pieces.insert(at, pieces[at])
        elif change == "replace":
            pieces[at] = other
        elif change == "insert":
            pieces.insert(at, f" {other} ")
        elif change == "swap":
            to = draw(st.integers(0, len(pieces) - 1))
            pieces[at], pieces[to] = pieces[to], pieces[at]
        else:
            lines = "".join(pieces).split("\n")
            pieces += ["\n", lines[at % len(lines)]]
    return "".join(pieces)


@st.composite
def spoilt_characters(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(SAMPLES))
    begin = draw(st.integers(0, len(text)))
    end = begin + draw(st.integers(0, 30))
    return text[:begin] + draw(st.text(max_size=3)) + text[end:]


def judge(text: str) -> None:
    for kernels in (None, KERNELS):
        begun = time.perf_counter()
        error = complaint(text, kernels)
        if error is not None:
            assert error.line >= 1
            assert error.column >= 1
            assert str(error).startswith("t.litmus:")
            assert len(str(error)) < 1500
        assert time.perf_counter() - begun < SECONDS


def complaint(text: str, kernels: tuple[str, ...] | None) -> LitmusError | None:
    """What is wrong with a text; if it is a test, it survives being written."""
    try:
        test = parse(text, "t.litmus", kernels)
    except LitmusError as error:
        return error
    assert parse(format_test(test)) == test
    return None


@relaxed
@given(spoilt_tokens())
def test_spoilt_tokens(text: str) -> None:
    judge(text)


@relaxed
@given(spoilt_characters())
def test_spoilt_characters(text: str) -> None:
    judge(text)


@relaxed
@given(st.text(max_size=300))
@example('test t "' + "\\\\" * 30_000)
@example("test t\nprocesses P\nP: x = read a\nforbid " + "(" * 60_000)
@example("test t\nprocesses P\nP: x = read a\nforbid x = 1" + " and x = 1" * 6_000)
@example("test t\nprocesses P\n" + "P: exit\n" * 8_000)
@example("test t\nprocesses " + "P " * 30_000)
@example("test t\nprocesses P\npages " + "a" * 60_000)
@example("test t\nprocesses P\nP: read " + "aab" * 20_000)
@example("test t\nprocesses P\nP: exit\nno copy\n" + "kept on a..b\n" * 5_000)
@example("test t\n" + "#\n" * 30_000)
@example("test t # " + '"' * 60_000)
@example(" " * 60_000)
@example("\n \t" * 20_000)
def test_any_text(text: str) -> None:
    judge(text)
