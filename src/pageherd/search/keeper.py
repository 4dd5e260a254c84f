"""A search that keeps its checkpoint up to date, and ends with one when it is cut short."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from pageherd.interrupts import on_interrupt
from pageherd.search import checkpoint

SAVE_EVERY: Final = 180.0  # seconds between two checkpoints


class Searching(checkpoint.Kept, Protocol):
    """A search that can be run again and again until it is over."""

    max_states: int

    @property
    def nr_states(self) -> int: ...

    def run(self, watch: Any, stop: Callable[[], bool]) -> bool:
        """Search on; false if `stop` said so or the bound on states was hit first."""


@contextmanager
def noticing() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM are noted, not raised, so that no state is left half done."""
    seen: list[int] = []
    with on_interrupt(lambda number, frame: seen.append(number)):
        yield seen


@dataclass
class Keeper:
    """Keeps the checkpoint of some searches, done one after the other."""

    path: Path
    identity: checkpoint.Identity
    named: bool  # whether somebody asked for this file
    begun: checkpoint.Checkpoint
    done: list[dict[str, Any]]  # what came of the searches that are over
    last: float = field(default_factory=time.monotonic)
    unsaved: str = ""  # why the last checkpoint could not be written

    def run(self, search: Searching, watch: Any, interrupts: list[int]) -> bool:
        """Search to the end; with a checkpoint now and then, and one if it is cut short."""
        if len(self.done) == len(self.begun.done):
            self.begun.resume(search)
        while True:
            over = search.run(watch, lambda: bool(interrupts) or self._due())
            bound = search.nr_states >= search.max_states
            if over or (bound and not self.named and not interrupts):
                return over
            self._save(search)
            if bound or interrupts:
                return False

    def _due(self) -> bool:
        return time.monotonic() - self.last >= SAVE_EVERY

    def _save(self, search: Searching) -> None:
        """Write a checkpoint; if that fails the search goes on, and says so in the end."""
        try:
            checkpoint.save(self.path, self.identity, self.done, search)
            self.unsaved = ""
        except OSError as error:
            self.unsaved = f"no checkpoint could be written: {error}"
        self.last = time.monotonic()

    def saved(self) -> Path | None:
        """The checkpoint from which a search that was cut short can go on."""
        return self.path if self.path.exists() else None

    def forget(self) -> None:
        """All is over."""
        self.path.unlink(missing_ok=True)


def keeper(resume: Path | None, identity: checkpoint.Identity) -> Keeper:
    """For the checkpoint that is to be resumed, if it is there; else for one in the cache.

    Raises:
        CheckpointError: `resume` is a checkpoint of another search, or none.
    """
    begun = checkpoint.Checkpoint()
    if resume is not None and resume.exists():
        begun = checkpoint.load(resume, identity)
    path = resume or checkpoint.default_path(identity)
    return Keeper(path, identity, resume is not None, begun, begun.done[:])
