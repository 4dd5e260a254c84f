"""The file system that a guest gets is one: e2fsck finds nothing wrong with it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pageherd.real.compile import SOURCES, compile_static

PROGRAM = f"""\
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#include "{SOURCES}/ext2.h"
int main(int count, char **arguments) {{ return count != 2 || !ext2_make(arguments[1]); }}
"""

E2FSCK = shutil.which("e2fsck") or shutil.which("e2fsck", path="/sbin:/usr/sbin")
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler"
)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "make.c"
    source.write_text(PROGRAM)
    made = tmp_path / "disk"
    made.write_bytes(bytes(4 << 20))
    subprocess.run([compile_static(source), made], check=True)
    return made


@needs_compiler
@pytest.mark.skipif(E2FSCK is None, reason="no e2fsck")
def test_nothing_is_wrong_with_it(disk: Path) -> None:
    done = subprocess.run([str(E2FSCK), "-fn", disk], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@needs_compiler
def test_it_has_room_for_a_file(disk: Path) -> None:
    data = disk.read_bytes()
    free_blocks, free_inodes = (
        int.from_bytes(data[1024 + at : 1028 + at], "little") for at in (12, 16)
    )
    assert free_blocks > 100
    assert free_inodes > 1


def test_what_cannot_be_written_is_told(disk: Path) -> None:
    made = subprocess.run(
        [compile_static(disk.parent / "make.c"), disk.parent / "none" / "disk"], check=False
    )
    assert made.returncode == 1
