"""The tests that come with the package: `library/SHELF/NAME.litmus`."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pageherd.cache import user_cache
from pageherd.errors import LitmusError
from pageherd.litmus.syntax import BASE, Test
from pageherd.litmus.words import nearest
from pageherd.machine import verbs

SUFFIX = ".litmus"
LIBRARY = Path(__file__).with_name("library")
# Enough to tell the names in a file; a string never spans lines, so no line can deceive it.
_NAMES = re.compile(r"^[ \t]*(test|variant)[ \t]+([a-z0-9][a-z0-9._-]*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A test of the library and the variant that was asked for."""

    test: Test
    variant: str


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    name: str
    variants: tuple[str, ...]

    @property
    def default(self) -> str:
        return BASE if BASE in self.variants else self.variants[0]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(
            self.name if variant == BASE else f"{self.name}/{variant}" for variant in self.variants
        )


def names(root: Path = LIBRARY) -> list[str]:
    """The ids of all tests and variants of the library, sorted by shelf and name."""
    return [test_id for entry in _entries(root).values() for test_id in entry.ids]


def paths(root: Path = LIBRARY) -> list[Path]:
    """The files of the library, sorted by shelf and name."""
    return sorted(root.glob(f"*/*{SUFFIX}"))


def load(test_id: str, kernels: Sequence[str] | None = None, root: Path = LIBRARY) -> Loaded:
    """The test with an id, `NAME` or `NAME/VARIANT`."""
    entries = _entries(root)
    name, slash, variant = test_id.partition("/")
    entry = entries.get(name)
    if entry is None or (slash and variant not in entry.variants):
        raise LitmusError(f"no test named '{test_id[:100]}'", "library", hint=_hint(test_id, root))
    return Loaded(load_file(entry.path, kernels), variant or entry.default)


def load_all(kernels: Sequence[str], root: Path = LIBRARY) -> tuple[Test, ...]:
    """Every test of the library, by shelf and name.

    Parsing them takes longer than running them, so they are kept, parsed, in the user's cache.
    """
    files = paths(root)
    mark = hashlib.blake2b(repr(tuple(kernels)).encode(), digest_size=8)
    for source in (*files, *sorted(Path(__file__).parent.glob("*.*")), Path(verbs.__file__)):
        mark.update(source.read_bytes())
    kept = user_cache() / f"library-{mark.hexdigest()}.pickle"
    with suppress(Exception):  # not there yet, unreadable or spoilt: parse
        tests: tuple[Test, ...] = pickle.loads(kept.read_bytes())
        return tests
    tests = tuple(load_file(path, kernels) for path in files)
    with suppress(OSError):  # an unwritable cache or a full disk costs only time
        kept.parent.mkdir(parents=True, exist_ok=True)
        for old in kept.parent.glob("library-*.pickle"):
            old.unlink()
        temporary = kept.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(pickle.dumps(tests))
        temporary.replace(kept)
    return tests


def load_file(path: Path, kernels: Sequence[str] | None = None) -> Test:
    """A file of the library; its name and its folder must be those that it states."""
    from pageherd.litmus.parsing import parse_file  # brings the parser with it

    test = parse_file(path, kernels)
    if test.name != path.stem:
        raise LitmusError(f"the file is named '{path.stem}', the test '{test.name}'", str(path))
    if test.shelf != path.parent.name:
        folder = path.parent.name
        message = f"the file is in folder '{folder}', but its shelf is '{test.shelf}'"
        raise LitmusError(message, str(path), hint=f"write: shelf {folder}")
    return test


def _hint(test_id: str, root: Path) -> str:
    near = nearest(test_id, names(root))
    return f"did you mean '{near}'?" if near else ""


@cache
def _entries(root: Path) -> dict[str, _Entry]:
    found: dict[str, _Entry] = {}
    for path in paths(root):
        entry = _entry(path)
        if entry.name in found:
            other = found[entry.name].path
            raise LitmusError(f"test '{entry.name}' is also in {other}", str(path))
        found[entry.name] = entry
    return found


def _entry(path: Path) -> _Entry:
    """The names in a file, without parsing it; a file that does not parse still has its own."""
    stated = _NAMES.findall(path.read_text(encoding="utf-8", errors="replace"))
    variants = tuple(name for keyword, name in stated if keyword == "variant")
    return _Entry(path, path.stem, variants or (BASE,))
