"""`pageherd kernels`: the table of kernels and proposals, or the rules of one."""

from __future__ import annotations

from argparse import Namespace

from pageherd.cli.output import console, json_line


def main(arguments: Namespace) -> int:
    """List all, or show one."""
    return _one(arguments) if arguments.name else _all(arguments)


def _all(arguments: Namespace) -> int:
    from pageherd.rules import kernels

    if arguments.json:
        for row in kernels.ROWS:
            json_line(
                kernel=row.name,
                version=row.version,
                about=row.about,
                proposal=row.proposal,
                extends=row.extends,
                changes=dict(row.changes),
            )
        return 0
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("kernel", "read in", "rules in a line"):
        table.add_column(column, overflow="fold")
    for row in kernels.ROWS:
        table.add_row(f"{row.name}{' (proposal)' if row.proposal else ''}", row.version, row.about)
    console().print(table)
    return 0


def _one(arguments: Namespace) -> int:
    from pageherd.rules import kernels
    from pageherd.rules.catalog import POINTS
    from pageherd.rules.choose import choose

    kernel = choose(arguments.name)
    row = kernels.row(kernel.base)
    if arguments.json:
        json_line(
            kernel=kernel.name,
            version=row.version,
            about=row.about,
            sources=list(row.sources),
            rules={point: kernel.of(point) for point in POINTS},
        )
        return 0
    from rich.table import Table

    out = console()
    out.print(f"[bold]{kernel.name}[/]  {row.version}: {row.about}")
    changed = kernel.name != row.name
    parent = row.name if changed else row.extends
    if parent:
        out.print(f"changes {parent}; what it changes is marked *", markup=False)
    for source in row.sources:
        out.print(f"source: {source}", markup=False)
    for question in row.open_questions:
        out.print(f"left open: {question}", markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("decision point", "alternative", "stands for"):
        table.add_column(column, overflow="fold")
    base = kernels.resolve(parent) if parent else {}
    for point in POINTS.values():
        chosen = kernel.choices[point.name]
        mark = "*" if base and base.get(point.name) != chosen.name else " "
        table.add_row(f"{mark} {point.name}", chosen.name, chosen.stands_for)
    out.print(table)
    for verb, role in kernel.absent().items():
        out.print(f"no {verb} here: the test plays {role}", markup=False)
    return 0
