"""`pageherd shrink`: the smallest test with the same verdict, ready to be saved as a file."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from pageherd.cli.main import OK, UNDETERMINED
from pageherd.cli.output import compiling, json_line

if TYPE_CHECKING:
    from pageherd.search.shrink import Shrunk


def main(arguments: Namespace) -> int:
    """Print the test on standard output, so that it can be saved, and what was done beside it."""
    from pageherd.search.check import Checker, find_one
    from pageherd.search.shrink import NotBroken, shrink_chosen

    chosen = find_one(arguments.test, arguments.variant)
    with compiling() as progress:
        try:
            shrunk = shrink_chosen(chosen, arguments.kernel, Checker(progress))
        except NotBroken as reason:
            print(f"pageherd: {reason}", file=sys.stderr)
            return UNDETERMINED
    if arguments.json:
        _print_json(shrunk)
    else:
        print(shrunk.text, end="")
        print(_summary(shrunk), file=sys.stderr)
    return OK


def _print_json(shrunk: Shrunk) -> None:
    json_line(
        test=shrunk.id,
        kernel=shrunk.kernel,
        verdict="broken",
        steps_before=shrunk.steps_before,
        steps_after=shrunk.steps_after,
        tried=shrunk.tried,
        text=shrunk.text,
    )


def _summary(shrunk: Shrunk) -> str:
    before, after = shrunk.steps_before, shrunk.steps_after
    steps = f"{before} steps, now {after}" if shrunk.changed else f"{after} steps, as few as can be"
    passes = ", ".join(name for name, _ in shrunk.helped)
    return "\n".join(
        (
            f"{shrunk.id} on {shrunk.kernel}: {shrunk.ask}: still broken",
            f"{steps}; {shrunk.tried} tests tried" + (f"; {passes}" if passes else ""),
        )
    )
