"""`pageherd diff`: the shortest program that tells two kernels apart."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from pageherd.cli.main import FOUND, OK, UNDETERMINED
from pageherd.cli.output import compiling, console, json_line, status
from pageherd.cli.resume import cut_short, resumed

if TYPE_CHECKING:
    from pageherd.search.diff import Difference, Distinction
    from pageherd.search.product import Product
    from pageherd.search.why import Reason


def main(arguments: Namespace) -> int:
    """Compare, print, and say by the exit code whether anything differs."""
    from pageherd.search.diff import diff
    from pageherd.search.product import MAX_STATES

    resume = resumed(arguments.resume, "comparison")
    with compiling() as progress, status("comparing") as say:
        found = diff(
            arguments.k1,
            arguments.k2,
            arguments.scope,
            arguments.observe or None,
            why=arguments.why,
            every=arguments.all,
            promises=arguments.promise,
            ops=_names(arguments.ops),
            without=_names(arguments.without),
            max_states=arguments.max_states or MAX_STATES,
            resume=resume,
            progress=progress,
            watch=lambda search: say(_progress(search)),
        )
    if arguments.json:
        _print_json(found)
    else:
        _print(found)
    if arguments.save and found.found:
        _save(found, Path(arguments.save), arguments.json)
    found_out = FOUND if found.found else OK if found.complete else UNDETERMINED
    return cut_short(found.checkpoint, found.unsaved, found.interrupted) or found_out


def _progress(search: Product) -> str:
    """How far one comparison is."""
    left = search.nr_states - search.next
    return (
        f"{search.scope.name}, {search.observe}: {search.nr_states:,} pairs,"
        f" depth {len(search.levels) - 2}, {left:,} to expand, {search.seconds:.0f} s"
    )


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()


def _print(found: Difference) -> None:
    from rich.text import Text

    out = console()
    one, other = found.kernels
    out.print(Text(f"{one} and {other}, scope {found.scope.name}", style="bold"))
    for program in found.programs:
        _print_program(found, program)
    if not found.found:
        what = " or ".join(found.observe)
        if found.interrupted:
            out.print(f"  interrupted: no difference in {what} found so far", style="yellow")
        elif found.complete:
            out.print(f"  no difference in this scope: no other {what}", style="green")
        else:
            out.print(f"  no difference in {what} found, scope not exhausted", style="yellow")
    _print_search(found)


def _print_program(found: Difference, program: Distinction) -> None:
    from pageherd.litmus.format import format_test

    out = console()
    out.print()
    for line in format_test(program.test).splitlines():
        out.print(f"  {line}", markup=False)
    width = max(map(len, found.kernels))
    for kernel, shown in zip(found.kernels, program.shows, strict=True):
        out.print(f"  {kernel.ljust(width)}  {shown}", markup=False, style="bold")
    if program.slots is not None and program.confirmed:
        out.print(f"  with a swap device of {program.slots} pages, which no test can ask for")
    if not program.confirmed:
        out.print("  not confirmed by the checker: please report this", style="bold red")
    for reason in program.why:
        _print_reason(reason)
    out.print()


def _print_reason(reason: Reason) -> None:
    out = console()
    out.print(f"  {reason.spec} shows what the other kernel shows:", markup=False)
    for change in reason.changes:
        text = f"    {change.point}: {change.before} becomes {change.after}: {change.stands_for}"
        out.print(text, markup=False, soft_wrap=True)


def _print_search(found: Difference) -> None:
    """What is needed to judge and repeat the search."""
    lines = [
        f"{found.states} pairs of states, {found.transitions} transitions, {found.seconds:.2f} s",
        f"compared, in this order: {', '.join(found.observe)}",
        f"operations: {', '.join(found.client.verbs)}",
    ]
    if found.client.same:
        same = (f"{verb} ({first})" for verb, first in found.client.same.items())
        lines.append(f"left out, flags equal to another call's on both: {', '.join(same)}")
    if found.absent:
        lines.append(f"left out, not in both kernels: {', '.join(found.absent)}")
    lines.extend(f"cut short: {note}" for note in found.notes)
    for line in lines:
        console().print(f"  {line}", markup=False, style="dim", soft_wrap=True)


def _print_json(found: Difference) -> None:
    """A line for each program; one line if there is none."""
    one, other = found.kernels
    for program in found.programs or (None,):
        json_line(
            k1=one,
            k2=other,
            scope=found.scope.name,
            observe=found.observe[-1] if found.found else list(found.observe),
            found=found.found,
            promise=program.promise or None if program else None,
            trace=list(program.operations) if program else [],
            shows={one: program.shows[0], other: program.shows[1]} if program else {},
            why=[_reason(reason) for reason in program.why] if program else [],
            states=found.states,
            transitions=found.transitions,
            seconds=round(found.seconds, 6),
            complete=found.complete,
        )


def _reason(reason: Reason) -> dict[str, object]:
    return {
        "kernel": reason.spec,
        "changes": [
            {
                "point": change.point,
                "before": change.before,
                "after": change.after,
                "stands_for": change.stands_for,
            }
            for change in reason.changes
        ],
    }


def _save(found: Difference, file: Path, quiet: bool) -> None:
    """The first program to the file, the others beside it with a number."""
    from pageherd.litmus.format import format_test

    for number, program in enumerate(found.programs, 1):
        chosen = file if number == 1 else file.with_stem(f"{file.stem}-{number}")
        chosen.write_text(format_test(program.test), encoding="utf-8")
        if not quiet:
            console().print(f"  saved {chosen}", markup=False)
