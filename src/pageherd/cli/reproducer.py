"""`pageherd reproducer`: a C program for one test, on standard output or in a file."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from pageherd.cli.main import OK, UNDETERMINED


def main(arguments: Namespace) -> int:
    """Print the program; a test that user space cannot steer makes none, and the exit code is 3."""
    from pageherd.real.reproducer import default_kernel, reproducer
    from pageherd.real.steer import NotSteerable
    from pageherd.rules.choose import choose
    from pageherd.search.check import find_one

    chosen = find_one(arguments.test, arguments.variant)
    kernel = choose(arguments.kernel or default_kernel())
    try:
        text = reproducer(chosen, kernel)
    except NotSteerable as reason:
        print(f"pageherd: {chosen.id} has no reproducer: {reason}", file=sys.stderr)
        return UNDETERMINED
    if arguments.output is None:
        print(text, end="")
    else:
        Path(arguments.output).write_text(text, encoding="ascii")
    return OK
