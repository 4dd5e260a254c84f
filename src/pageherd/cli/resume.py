"""What `hunt` and `diff` say about checkpoints."""

from __future__ import annotations

import sys
from pathlib import Path

from pageherd.cli.main import ENVIRONMENT, INTERRUPTED


def resumed(file: str | None, what: str) -> Path | None:
    """The checkpoint asked for; one that is not there yet may be a slip, so it is said."""
    if file is None:
        return None
    if not Path(file).exists():
        print(f"pageherd: {file} is not there yet: a new {what}, kept there", file=sys.stderr)
    return Path(file)


def cut_short(checkpoint: Path | None, unsaved: str, interrupted: bool) -> int:
    """Say on standard error how a search that was cut short can go on; its exit code, else 0."""
    if unsaved:
        print(f"pageherd: {unsaved}", file=sys.stderr)
    if checkpoint:
        print(f"pageherd: to go on: the same with --resume {checkpoint}", file=sys.stderr)
    if unsaved:
        return ENVIRONMENT
    return INTERRUPTED if interrupted else 0
