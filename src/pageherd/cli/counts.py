"""`pageherd counts`: what user space is told under each way of counting, and how wrong it is."""

from __future__ import annotations

from argparse import Namespace
from fractions import Fraction
from typing import TYPE_CHECKING

from pageherd.cli.output import compiling, console, json_line, status

if TYPE_CHECKING:
    from rich.text import Text

    from pageherd.search.check import Checker, Chosen
    from pageherd.search.counts import Kind, Look, Reading, Tally


def main(arguments: Namespace) -> int:
    """Print the readings of one test, or how wrong they are over several."""
    from pageherd.search.check import Checker, find, find_all
    from pageherd.search.counts import SCHEMES, looks, tallies

    chosen = [one for name in arguments.tests for one in find(name)] or find_all()
    with compiling() as progress, status("counting") as say:
        checker = Checker(progress)
        if len(chosen) == 1 and not arguments.json:
            _print_one(
                chosen[0], {s: looks(chosen[0], s, arguments.kernel, checker) for s in SCHEMES}
            )
            return 0
        if arguments.json:
            _print_json(chosen, arguments.kernel, checker)
            return 0
        found = {}
        for scheme in SCHEMES:
            say(f"counting: {scheme}")
            found[scheme] = tallies(chosen, scheme, arguments.kernel, checker)
    _print_tallies(found, len(chosen), arguments.kernel)
    return 0


def _print_json(chosen: list[Chosen], kernel: str, checker: Checker) -> None:
    from pageherd.search.counts import SCHEMES, looks

    for one in chosen:
        for scheme in SCHEMES:
            for number, look in enumerate(looks(one, scheme, kernel, checker), 1):
                json_line(
                    test=one.id,
                    kernel=kernel,
                    counting=scheme,
                    number=number,
                    step=look.step,
                    readings=[
                        {"kind": r.kind, "of": r.of, "said": float(r.said), "true": float(r.true)}
                        for r in look.readings
                    ],
                )


def _print_one(chosen: Chosen, found: dict[str, list[Look]]) -> None:
    """A column for all ways of counting that say the same; the truth beside what is wrong."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    number = _moment(found)
    columns: dict[tuple[Reading, ...], list[str]] = {}
    for scheme, seen in found.items():
        if number < len(seen):
            columns.setdefault(seen[number].readings, []).append(scheme)
    out.print(Text(f"{chosen.id} after step {number + 1}: ", style="bold"), end="")
    out.print(Text(next(seen[number].step for seen in found.values() if number < len(seen))))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    table.add_column("")
    for schemes in columns.values():
        table.add_column("\n".join(schemes), vertical="bottom", no_wrap=True)
    names = dict.fromkeys((r.kind, r.of) for readings in columns for r in readings)
    for kind, of in names:
        cells = [
            next((_cell(r) for r in readings if (r.kind, r.of) == (kind, of)), Text(""))
            for readings in columns
        ]
        table.add_row(f"{of}: {kind}" if of else kind, *cells)
    out.print(table)


def _moment(found: dict[str, list[Look]]) -> int:
    """The last step after which something is wrong; the last step if nothing ever is."""
    wrong = [
        number
        for seen in found.values()
        for number, look in enumerate(seen)
        if any(reading.wrong for reading in look.readings)
    ]
    return max(wrong, default=max(len(seen) for seen in found.values()) - 1)


def _cell(reading: Reading) -> Text:
    from rich.text import Text

    if not reading.wrong:
        return Text(_number(reading.said))
    return Text(f"{_number(reading.said)} (is {_number(reading.true)})", style="red")


def _number(value: Fraction) -> str:
    return f"{float(value):.2f}".rstrip("0").rstrip(".")


def _print_tallies(found: dict[str, dict[Kind, Tally]], tests: int, kernel: str) -> None:
    """The share of readings that are wrong; of sums of pages, how far off they are in all."""
    from rich.table import Table

    from pageherd.search.counts import KINDS

    out = console()
    any_scheme = next(iter(found.values()))
    readings = sum(tally.readings for tally in any_scheme.values())
    out.print(f"{tests} test-variants on {kernel}, {readings:,} readings for each way of counting")
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    table.add_column("wrong readings, and by how much in all")
    for kind in KINDS:
        table.add_column(kind, justify="right")
    for scheme, tally in found.items():
        table.add_row(scheme, *(_share(tally[kind]) for kind in KINDS))
    out.print(table)


def _share(tally: Tally) -> str:
    if not tally.wrong:
        return "-"
    off = f"{float(100 * tally.off / tally.true):.1f} %" if tally.true else "?"
    return f"{100 * tally.wrong / tally.readings:.1f} %, {off}"
