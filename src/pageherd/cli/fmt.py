"""`pageherd fmt`: rewrite tests in the standard form."""

from __future__ import annotations

import os
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from pageherd.cli.main import FOUND


def main(arguments: Namespace) -> int:
    """Parse every file before the first is written, so that a mistake changes nothing."""
    from pageherd.litmus.format import format_test
    from pageherd.litmus.parsing import parse, parse_file
    from pageherd.rules import kernels

    known = kernels.names()
    formatted = []
    for name in arguments.files:
        if name == "-":
            sys.stdout.write(format_test(parse(sys.stdin.read(), "<stdin>", known)))
            continue
        path = Path(name)
        test = parse_file(path, known)
        formatted.append((path, format_test(test)))
    changed = [(path, text) for path, text in formatted if path.read_text("utf-8") != text]
    for path, text in changed:
        if arguments.check:
            print(f"{path} would change")
        else:
            _replace(path, text)
    return FOUND if arguments.check and changed else 0


def _replace(path: Path, text: str) -> None:
    """Write beside the file and rename: a full disk or Ctrl-C leaves the old file whole."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, path.stat().st_mode & 0o777)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
