"""`pageherd promises`: what must never break."""

from __future__ import annotations

import sys
from argparse import Namespace

from pageherd.cli.main import BAD_INPUT
from pageherd.cli.output import console, json_line


def main(arguments: Namespace) -> int:
    """List all, or show one."""
    from pageherd.litmus.words import nearest
    from pageherd.promises.table import BY_NAME, NAMES, PROMISES

    if arguments.name and arguments.name not in BY_NAME:
        near = nearest(arguments.name, NAMES)
        hint = f" (did you mean '{near}'?)" if near else ""
        print(f"pageherd: no promise named '{arguments.name[:60]}'{hint}", file=sys.stderr)
        return BAD_INPUT
    shown = [BY_NAME[arguments.name]] if arguments.name else PROMISES
    if arguments.json:
        for promise in shown:
            json_line(
                promise=promise.name,
                broken_when=promise.broken_when,
                asked_by_default=promise.asked_by_default,
            )
        return 0
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 1, 0))
    table.add_column("promise", no_wrap=True)
    table.add_column("broken when", overflow="fold")
    for promise in shown:
        asked = "" if promise.asked_by_default else " (only judged when asked for)"
        table.add_row(promise.name, promise.broken_when + asked)
    console().print(table)
    return 0
