"""Counterexamples are kept, and refute the next rule before its hunt begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pageherd.cli.main import main
from pageherd.search import kept

HUNT = ["hunt", "--scope", "2,1,1,0", "--ops", "mmap,write,fork,vmsplice,munmap", "--kernel"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept, "folder", lambda: tmp_path / "kept")
    return tmp_path / "kept"


def test_the_next_hunt_replays_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*HUNT, "linux-4.19"]) == 1
    first = capsys.readouterr()
    assert "earlier hunt" not in first.err
    assert "private is broken by" in first.err
    assert len(list(folder.iterdir())) == 1
    assert main([*HUNT, "linux-4.19", "--json"]) == 1
    second = capsys.readouterr()
    assert "private is broken by a program of an earlier hunt: P: mmap a;" in second.err
    assert all(json.loads(line) for line in second.out.splitlines())
    assert len(list(folder.iterdir())) == 1
    assert [each.promise for each in kept.replay("linux-5.8")] == []
    assert main([*HUNT, "linux-6.1"]) == 0
    assert "broken" not in capsys.readouterr().err


def test_what_cannot_be_read_is_passed_over(folder: Path) -> None:
    folder.mkdir()
    (folder / "one.litmus").write_text("nonsense")
    (folder / "two.litmus").write_text("test a\n\nprocesses P\npages a\n\nP: mmap a\n")
    assert kept.kept() == []
    assert list(kept.replay("linux-6.1")) == []


def test_where_nothing_can_be_written_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(kept, "folder", lambda: tmp_path / "file" / "kept")
    kept.keep([])
    assert kept.kept() == []
