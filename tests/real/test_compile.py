"""Compiling: cached by content, and a clear message when it cannot be done."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from pageherd.errors import EnvironmentFailed
from pageherd.real import compile as c

PROGRAM = '#include <stdio.h>\nint main(void) { puts("%s"); return 0; }\n'

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler"
)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)


def source(tmp_path: Path, word: str) -> Path:
    file = tmp_path / "hello.c"
    file.write_text(PROGRAM % word)
    return file


@needs_compiler
def test_makes_a_static_program_that_runs(tmp_path: Path) -> None:
    made = c.compile_static(source(tmp_path, "here"))
    assert subprocess.run([made], capture_output=True, text=True, check=True).stdout == "here\n"
    data = made.read_bytes()
    (at,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    kinds = [struct.unpack_from("<I", data, at + size * i)[0] for i in range(count)]
    assert 3 not in kinds, "it asks for a dynamic linker"


@needs_compiler
def test_is_made_once_for_each_content(tmp_path: Path) -> None:
    first = c.compile_static(source(tmp_path, "one"))
    stamp = first.stat().st_mtime_ns
    assert c.compile_static(source(tmp_path, "one")) == first
    assert first.stat().st_mtime_ns == stamp
    second = c.compile_static(source(tmp_path, "two"))
    assert second != first
    assert c.compile_static(tmp_path / "hello.c", ["-DX"]) != second
    (tmp_path / "other.h").write_text("#define Y\n")
    assert c.compile_static(tmp_path / "hello.c") != second


@needs_compiler
def test_mistakes_are_shown_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "bad.c").write_text("int main(void) { return x; }\n")
    with pytest.raises(
        EnvironmentFailed, match=r"could not compile bad\.c:\n(.|\n)*'x' undeclared|x"
    ):
        c.compile_static(tmp_path / "bad.c")
    assert list((tmp_path / "cache/pageherd/programs").iterdir()) == []


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFailed, match="no C compiler on this machine") as caught:
        c.compile_static(source(tmp_path, "x"))
    assert "apt install gcc" in str(caught.value)


def test_a_compiler_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "no-such-cc -m64")
    with pytest.raises(EnvironmentFailed, match="no compiler 'no-such-cc', which CC names"):
        c.compile_static(source(tmp_path, "x"))


def test_no_static_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "fake-cc"
    fake.write_text("#!/bin/sh\necho 'ld: cannot find -lc' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("CC", str(fake))
    with pytest.raises(EnvironmentFailed, match="glibc-static"):
        c.compile_static(source(tmp_path, "x"))


@needs_compiler
def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(
        EnvironmentFailed, match=r"cannot write to the cache .*(.|\n)*XDG_CACHE_HOME"
    ):
        c.compile_static(source(tmp_path, "x"))


@needs_compiler
def test_the_programs_of_pageherd_compile_without_a_warning() -> None:
    c.compile_static(c.SOURCES / "init.c", ["-Werror"])
