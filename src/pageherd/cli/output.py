"""What the verbs share when they print: consoles, JSON lines, progress while compiling."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 160  # when standard output is not a terminal


def console() -> Console:
    """Standard output; not a terminal: no colour, no wrapping to 80 columns."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def json_line(**fields: Any) -> None:
    """One JSON object on one line."""
    print(json.dumps(fields, ensure_ascii=False))


@contextmanager
def compiling() -> Iterator[Callable[[int, int, str], None] | None]:
    """A progress line while steps and rules are compiled for the first time; quiet in a pipe."""
    from pageherd.machine.jit import JIT, compiled_before

    if not JIT or compiled_before():
        yield None
        return
    if not sys.stderr.isatty():
        print("pageherd: compiling the machine, once (a few minutes)", file=sys.stderr)
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("compiling the machine, once", total=None)

        def progress(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=f"compiling {name}")

        yield progress


@contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """A line on standard error that says what is being done; quiet in a pipe."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status(text) as line:
        yield line.update
