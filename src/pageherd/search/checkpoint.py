"""Checkpoints of a hunt: written whole or not at all, and taken up only by the same hunt."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from pageherd.cache import user_cache
from pageherd.errors import PageherdError
from pageherd.search.breadth import Search

_MAGIC: Final = b"pageherd hunt checkpoint 1\n"
_COUNTS: Final = ("next", "transitions", "pruned", "stuck", "levels", "settled", "seconds")
_ARRAYS: Final = ("codes", "parents", "edges")
_TALLIES: Final = ("asked", "stepped")

Identity = dict[str, Any]
"""What must be equal for a hunt to go on from a checkpoint: the machine, the kernel, the scopes,
the operations and the promises asked for."""


class CheckpointError(PageherdError):
    """A file that is no checkpoint, or one of another hunt."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A hunt that was cut short: the scopes that are done, and the search of the next one."""

    done: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    arrays: tuple[Any, ...] = ()

    def resume(self, search: Search) -> None:
        """Let the search go on where it was; one that has not begun stays as it is."""
        if not self.arrays:
            return
        search.restore(*self.arrays)
        for name in _COUNTS:
            setattr(search, name, self.counts[name])
        search.broken[:] = self.counts["broken"]
        for name in _TALLIES:
            search.record[name][0] = self.counts[name]


def default_path(identity: Identity) -> Path:
    """Where a hunt leaves its checkpoints unless it is told: the same place for the same hunt."""
    digest = hashlib.blake2b(json.dumps(identity).encode(), digest_size=5).hexdigest()
    name = "".join(c if c.isalnum() or c in ".-" else "_" for c in identity["kernel"][:40])
    return user_cache() / "hunts" / f"{name}-{identity['scope'].replace(',', '-')}-{digest}.hunt"


def save(path: Path, identity: Identity, done: list[dict[str, Any]], search: Search) -> None:
    """Write a checkpoint; the one that was there stays until the new one is on the disk.

    Raises:
        OSError: it cannot be written; what was there is untouched.
    """
    counts = {name: getattr(search, name) for name in _COUNTS}
    counts["broken"] = search.broken.tolist()
    counts |= {name: search.record[name][0].tolist() for name in _TALLIES}
    header = {"identity": identity, "done": done, "counts": counts}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(_MAGIC + json.dumps(header).encode() + b"\n")
            for name in _ARRAYS:
                np.lib.format.write_array(file, getattr(search, name), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path, identity: Identity) -> Checkpoint:
    """The checkpoint at `path`.

    Raises:
        CheckpointError: it is none, is damaged, or another hunt's.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise CheckpointError(f"{path}: not a checkpoint of this version of pageherd's hunts")
        try:
            return _read(path, file, identity)
        except (ValueError, KeyError, EOFError) as error:
            raise CheckpointError(f"{path}: a damaged checkpoint ({error})") from error


def _read(path: Path, file: BinaryIO, identity: Identity) -> Checkpoint:
    header = json.loads(file.readline())
    theirs = header["identity"]
    for name, ours in identity.items():
        if theirs.get(name) != ours:
            raise CheckpointError(f"{path}: a checkpoint of {_difference(name, theirs, identity)}")
    arrays = tuple(np.lib.format.read_array(file, allow_pickle=False) for _ in _ARRAYS)
    if len({len(array) for array in arrays}) != 1:
        raise ValueError("its parts do not fit together")
    return Checkpoint(header["done"], header["counts"], arrays)


def _difference(name: str, theirs: Identity, ours: Identity) -> str:
    if name in ("kernel", "scope"):
        return f"another {name}: {theirs.get(name)}, not {ours[name]}"
    if name == "machine":
        return "another version of pageherd's machine; the hunt must start anew"
    return f"a hunt with other {name}"
