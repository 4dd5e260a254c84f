"""The parser's tables are kept in the user's cache, and nothing depends on that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pageherd.litmus import parse, parsing

TEXT = "test t\nprocesses P\nP: exit\n"
SAMPLE = Path(__file__).parent / "samples" / "cow-child-unmap.litmus"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    parsing._parser.cache_clear()
    yield tmp_path / "pageherd" / "litmus-parser"
    parsing._parser.cache_clear()


def test_the_tables_are_kept(cache: Path) -> None:
    first = parse(TEXT)
    assert cache.stat().st_size > 1000
    parsing._parser.cache_clear()
    assert parse(TEXT) == first


@pytest.mark.parametrize("spoilt", [b"", b"nonsense\n", b"\n\x80\x04"])
def test_a_spoilt_cache_is_made_anew(cache: Path, spoilt: bytes) -> None:
    cache.parent.mkdir()
    cache.write_bytes(spoilt)
    assert parse(TEXT).name == "t"
    assert cache.stat().st_size > 1000


def test_a_truncated_cache_is_made_anew(cache: Path) -> None:
    parse(TEXT)
    whole = cache.stat().st_size
    cache.write_bytes(cache.read_bytes()[: whole // 2])
    parsing._parser.cache_clear()
    assert parse(TEXT).name == "t"
    assert cache.stat().st_size > 0.9 * whole


def test_no_cache_is_needed(cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be", encoding="utf-8")
    assert parse(TEXT).name == "t"


def test_parsing_is_quick() -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    parse(text)
    begun = time.perf_counter()
    for _ in range(20):
        parse(text)
    assert (time.perf_counter() - begun) / 20 < 0.03  # ten times what it takes
