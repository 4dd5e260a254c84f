"""`pageherd doctor`: what this machine can run, and the cure for what it cannot.

Exit code 0 if tests can be run on a real kernel, the running one or one in QEMU; else 4.
"""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from pageherd.cli.main import ENVIRONMENT, OK
from pageherd.cli.output import console, json_line, status

if TYPE_CHECKING:
    from pageherd.real.doctor import Finding


def main(arguments: Namespace) -> int:
    """Look at everything and print it."""
    from pageherd.real.doctor import can_run, examine

    findings: list[Finding] = []
    with status("looking at this machine") as say:
        for finding in examine(online=arguments.online):
            findings.append(finding)
            say(f"looking at this machine: {finding.what}")
    if arguments.json:
        for one in findings:
            json_line(what=one.what, ok=one.ok, detail=one.detail, cure=one.cure, group=one.group)
    else:
        _print(findings, runs=can_run(findings))
    return OK if can_run(findings) else ENVIRONMENT


def _print(findings: list[Finding], *, runs: bool) -> None:
    """What is there and what is missing, group by group."""
    out = console()
    width = max(len(one.what) for one in findings)
    group = ""
    for one in findings:
        if one.group != group:
            group = one.group
            out.print(f"[bold]{group}[/]")
        mark = "[green]ok     [/]" if one.ok else "[yellow]missing[/]"
        out.print(f"  {mark} {one.what:{width}}  ", end="")
        out.print(one.detail, markup=False, soft_wrap=True)
        if one.cure:
            out.print(f"          {'':{width}}  cure: {one.cure}", markup=False, soft_wrap=True)
    can = "can be run" if runs else "cannot be run on any real kernel"
    out.print(f"\ntests {can} here; the model needs none of this")
