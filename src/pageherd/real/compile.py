"""Compiling the small C programs that run inside a guest: static, and kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pageherd.cache import user_cache
from pageherd.errors import EnvironmentFailed

SOURCES: Final = Path(__file__).parent / "c"
FLAGS: Final = ("-std=gnu11", "-O2", "-g0", "-Wall", "-Wextra", "-static", "-pthread")

_COMPILERS: Final = ("cc", "gcc", "clang", "musl-gcc")
_CURE: Final = (
    "install a C compiler and the static C library (Debian: apt install gcc libc6-dev;"
    " Fedora: dnf install gcc glibc-static), or name a compiler in CC"
)
_SECONDS: Final = 300


def find_compiler() -> list[str]:
    """The command that compiles C: `$CC` if it is set, else the first of cc, gcc, clang, musl-gcc.

    Raises `EnvironmentFailed` if there is none.
    """
    chosen = os.environ.get("CC", "").split()
    if chosen:
        if shutil.which(chosen[0]) is None:
            raise EnvironmentFailed(f"there is no compiler '{chosen[0]}', which CC names", _CURE)
        return chosen
    found = next((name for name in _COMPILERS if shutil.which(name)), None)
    if found is None:
        raise EnvironmentFailed("there is no C compiler on this machine", _CURE)
    return [found]


def compile_static(source: Path, flags: Sequence[str] = ()) -> Path:
    """The static program made from one C file, compiled unless the cache has it already.

    What decides is content: the file, the headers beside it, the flags and the compiler's name.
    Raises `EnvironmentFailed` if there is no compiler, or if it fails: then with what it said.
    """
    compiler = find_compiler()
    folder = user_cache() / "programs"
    made = folder / f"{source.stem}-{_key(source, [*compiler, *FLAGS, *flags])}"
    if made.is_file():
        return made
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{source.stem}-", dir=folder)
    except OSError as error:
        raise EnvironmentFailed(
            f"cannot write to the cache {folder}: {error.strerror}",
            "make room or set XDG_CACHE_HOME to a folder that can be written",
        ) from error
    os.close(handle)
    try:
        _compile([*compiler, *FLAGS, *flags, "-o", name, str(source)], source)
        os.chmod(name, 0o755)
        os.replace(name, made)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return made


def _key(source: Path, command: Sequence[str]) -> str:
    digest = hashlib.sha256("\0".join(command).encode())
    for file in [source, *sorted(source.parent.glob("*.h"))]:
        digest.update(b"\0" + file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _compile(command: Sequence[str], source: Path) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFailed(
            f"{command[0]} took more than {_SECONDS} s for {source.name}"
        ) from error
    except OSError as error:
        raise EnvironmentFailed(f"cannot run {command[0]}: {error.strerror}", _CURE) from error
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-20:])
        lacks_libc = "cannot find -l" in said or "unable to find library" in said
        raise EnvironmentFailed(
            f"{command[0]} could not compile {source.name}:\n{said}", _CURE if lacks_libc else ""
        )
