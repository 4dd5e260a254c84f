"""Checkpoints of a search: written whole or not at all, and taken up only by the same search.

A hunt and a comparison of two kernels keep theirs in the same way.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import numpy as np

from pageherd.cache import user_cache
from pageherd.errors import PageherdError
from pageherd.machine.jit import cache_directory
from pageherd.rules.choose import Kernel
from pageherd.search.client import Client
from pageherd.search.scope import Scope

_MAGIC: Final = b"pageherd checkpoint 2\n"
_ARRAYS: Final = ("codes", "parents", "edges")

Identity = dict[str, Any]
"""What must be equal for a search to go on from a checkpoint: the machine, the kernels, the scopes,
the operations and what is asked for."""


class CheckpointError(PageherdError):
    """A file that is no checkpoint, or one of another search."""


class Kept(Protocol):
    """A search that a checkpoint can hold."""

    @property
    def codes(self) -> Any: ...

    @property
    def parents(self) -> Any: ...

    @property
    def edges(self) -> Any: ...

    def counts(self) -> dict[str, Any]:
        """Everything else that it needs to go on, as plain data."""

    def restore(self, codes: Any, parents: Any, edges: Any, counts: dict[str, Any]) -> None:
        """Be where the search was from which these are."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Searches that were cut short: what came of those that are done, and the next one."""

    done: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    arrays: tuple[Any, ...] = ()

    def resume(self, search: Kept) -> None:
        """Let the search go on where it was; one that has not begun stays as it is."""
        if self.arrays:
            codes, parents, edges = self.arrays
            search.restore(codes, parents, edges, self.counts)


def identity_of(
    command: str,
    kernels: tuple[Kernel, ...],
    scopes: tuple[Scope, ...],
    clients: list[Client],
    promises: tuple[str, ...],
    modes: dict[str, Any],
) -> Identity:
    """What a checkpoint must agree with; the first difference is the one that is told."""
    rules = []
    for kernel in kernels:
        choices = {point: chosen.name for point, chosen in kernel.choices.items()}
        own = hashlib.blake2b(kernel.file.read_bytes()).hexdigest() if kernel.file else ""
        rules.append([choices, own])
    moves = hashlib.blake2b(repr([client.moves for client in clients]).encode(), digest_size=16)
    return {
        "command": command,
        "machine": cache_directory().name,
        "kernel": " and ".join(kernel.name for kernel in kernels),
        "rules": rules,
        "scope": scopes[0].name if len(scopes) == 1 else "default",
        "sizes": [list(each.sizes) for each in scopes],
        "operations": moves.hexdigest(),
        "promises": list(promises),
        "options": modes,
    }


def default_path(identity: Identity) -> Path:
    """Where checkpoints are left unless it is told: the same place for the same search."""
    digest = hashlib.blake2b(json.dumps(identity).encode(), digest_size=5).hexdigest()
    name = "".join(c if c.isalnum() or c in ".-" else "_" for c in identity["kernel"][:40])
    command, scope = identity["command"], identity["scope"].replace(",", "-")
    return user_cache() / f"{command}s" / f"{name}-{scope}-{digest}.{command}"


def save(path: Path, identity: Identity, done: list[dict[str, Any]], search: Kept) -> None:
    """Write a checkpoint; the one that was there stays until the new one is on the disk.

    Raises:
        OSError: it cannot be written; what was there is untouched.
    """
    header = {"identity": identity, "done": done, "counts": search.counts()}
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
        CheckpointError: it is none, is damaged, or another search's.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise CheckpointError(f"{path}: not a checkpoint of this version of pageherd")
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
    if name in ("command", "kernel", "scope"):
        return f"another {name}: {theirs.get(name)}, not {ours[name]}"
    if name == "machine":
        return "another version of pageherd's machine; it must start anew"
    return f"a {ours['command']} with other {name}"
