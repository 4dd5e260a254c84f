"""`pageherd hunt`: every program in a scope, and a shortest one for each promise that breaks."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pageherd.cli.main import FOUND, UNDETERMINED, worst
from pageherd.cli.output import compiling, console, json_line
from pageherd.cli.resume import cut_short, resumed

if TYPE_CHECKING:
    from pageherd.search.breadth import Progressed, Watcher
    from pageherd.search.hunt import Breach, Finding, Found, Teller

_SHOWN_EVERY = 0.2  # seconds between two updates of the progress line


def main(arguments: Namespace) -> int:
    """Hunt, print, and say by the exit code whether anything was found."""
    from pageherd.search.hunt import hunt
    from pageherd.search.kept import keep

    resume = resumed(arguments.resume, "hunt")
    if resume is None or not resume.exists():
        _replay(arguments.kernel)
    bound = arguments.max_states or _bound(arguments)
    with compiling() as progress, _watching() as (watch, tell):
        found = hunt(
            arguments.kernel,
            arguments.scope,
            ops=_names(arguments.ops),
            without=_names(arguments.without),
            ask=arguments.ask,
            max_states=bound,
            resume=resume,
            progress=progress,
            watch=watch,
            tell=tell,
        )
    keep(breach.test for each in found for breach in each.breaches.values() if breach.confirmed)
    for each in found:
        if arguments.json:
            _print_json(each)
        else:
            _print(each)
        if arguments.save:
            _save(each, Path(arguments.save), arguments.json)
    last = found[-1]
    short = cut_short(last.checkpoint, last.unsaved, last.size.interrupted)
    return short or worst([_code(each) for each in found])


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()


def _code(found: Found) -> int:
    if found.breaches:
        return FOUND
    verdicts = {found.verdict(promise) for promise in found.asked}
    return UNDETERMINED if "undetermined" in verdicts else 0


def _replay(kernel: str) -> None:
    """Say on standard error which programs kept from earlier hunts break a promise at once."""
    from pageherd.search.kept import replay

    with compiling() as progress:
        for each in replay(kernel, progress):
            print(
                f"pageherd: {each.promise} is broken by a program of an earlier hunt:"
                f" {'; '.join(each.operations)}",
                file=sys.stderr,
            )


def _bound(arguments: Namespace) -> int:
    """How many states to stop at; of a scope that may be too large, say first how large it is."""
    from pageherd.search.breadth import MAX_STATES
    from pageherd.search.forecast import forecast, is_large
    from pageherd.search.scope import scopes_of

    scopes = scopes_of(arguments.scope)
    if not any(map(is_large, scopes)):
        return MAX_STATES
    with compiling() as progress:
        guess = forecast(
            arguments.kernel,
            scopes[0],
            ops=_names(arguments.ops),
            without=_names(arguments.without),
            progress=progress,
        )
    print(
        f"pageherd: scope {scopes[0].name}: perhaps {guess.states:.0e} states, judging by smaller"
        f" scopes; {guess.hours:.1g} hours and {guess.gigabytes:.1g} GB. There is memory for"
        f" {guess.room:.0e}.",
        file=sys.stderr,
    )
    return min(MAX_STATES, guess.room)


@contextmanager
def _watching() -> Iterator[tuple[Watcher | None, Teller]]:
    """A progress line on a terminal; in a pipe nothing but what is found."""
    if not sys.stderr.isatty():
        yield None, lambda finding: print(f"pageherd: {_found_so_far(finding)}", file=sys.stderr)
        return
    from rich.console import Console
    from rich.status import Status

    from pageherd.search.outlook import states_left

    shown = 0.0
    err = Console(stderr=True, highlight=False)
    with Status("hunting", console=err) as status:

        def watch(now: Progressed) -> None:
            nonlocal shown
            if now.seconds - shown < _SHOWN_EVERY and now.seconds >= shown:
                return
            shown = now.seconds
            rate = now.transitions / max(now.seconds, 0.001) / 1e6
            left = states_left(now.levels)
            status.update(
                f"{now.scope.name}: {now.states:,} states, {rate:.1f} M transitions/s,"
                f" depth {now.depth}, {now.frontier:,} to expand, {now.megabytes:,.0f} MB"
                + (f", perhaps {left:.1g} states left" if left is not None else "")
            )

        def tell(finding: Finding) -> None:
            err.print(_found_so_far(finding), markup=False)

        yield watch, tell


def _found_so_far(finding: Finding) -> str:
    """One line; the whole report follows when the search is over."""
    return (
        f"{finding.scope.name}, {finding.seconds:.1f} s: {finding.promise} is broken by"
        f" {len(finding.operations)} operations: {'; '.join(finding.operations)}"
    )


def _print(found: Found) -> None:
    from rich.text import Text

    out = console()
    scope = found.scope
    processes, pages, references, slots = scope.sizes
    out.print(
        Text(f"{found.kernel}, scope {scope.name}: ", style="bold").append(
            f"{processes} processes, {pages} pages, {references} references, {slots} swap slots"
        )
    )
    for promise in found.asked:
        word = found.verdict(promise)
        style = {"kept": "green", "broken": "red"}.get(word, "yellow")
        out.print(Text("  ").append(word.ljust(13), style=style).append(promise))
        if promise in found.breaches:
            _print_breach(found.breaches[promise])
    _print_search(found)


def _print_breach(breach: Breach) -> None:
    out = console()
    for number, operation in enumerate(breach.operations, 1):
        out.print(f"      {number:2}  {operation}", markup=False)
    if not breach.confirmed:
        out.print("      not confirmed by the checker: please report this", style="bold red")


def _print_search(found: Found) -> None:
    """What is needed to judge and repeat the search."""
    from pageherd.machine.jit import ALARMS

    out = console()
    cores = "1 core" if found.cores == 1 else f"{found.cores} cores"
    size = found.size
    reached = f"{size.states} states, {size.transitions} transitions, depth {size.depth}"
    lines = [
        f"{reached}, {size.seconds:.2f} s on {cores}, {size.bytes_per_state:.0f} bytes per state",
        "states are compared in full, up to renaming; promises are checked after each operation",
        f"operations: {', '.join(found.client.verbs)}",
    ]
    if found.size.interrupted:
        lines.insert(1, "interrupted: the scope is not exhausted")
    elif not found.complete:
        lines.insert(1, "the bound on states was hit: the scope is not exhausted")
    else:
        lines.insert(1, "the scope is exhausted")
    if found.size.stuck:
        lines.append(f"cut short: {ALARMS[found.size.stuck]}")
    if found.client.same:
        same = (f"{verb} ({first})" for verb, first in found.client.same.items())
        lines.append(f"left out, flags equal to another call's: {', '.join(same)}")
    if found.client.absent:
        lines.append(f"left out, not in this kernel: {', '.join(found.client.absent)}")
    if found.never_asked:
        lines.append(f"rules never asked: {', '.join(found.never_asked)}")
    if found.never_taken:
        lines.append(f"steps never taken: {', '.join(found.never_taken)}")
    for line in lines:
        out.print(f"  {line}", markup=False, style="dim", soft_wrap=True)


def _print_json(found: Found) -> None:
    for promise in found.asked:
        breach = found.breaches.get(promise)
        json_line(
            kernel=found.kernel,
            scope=found.scope.name,
            ops=list(found.client.verbs),
            promise=promise,
            verdict=found.verdict(promise),
            trace=list(breach.operations) if breach else [],
            states=found.size.states,
            transitions=found.size.transitions,
            seconds=round(found.size.seconds, 6),
            complete=found.complete,
        )


def _save(found: Found, directory: Path, quiet: bool) -> None:
    """One file for each counterexample; its name says kernel, scope and promise."""
    from pageherd.litmus.format import format_test

    directory.mkdir(parents=True, exist_ok=True)
    for breach in found.breaches.values():
        file = directory / f"{breach.test.name}.litmus"
        file.write_text(format_test(breach.test), encoding="utf-8")
        if not quiet:
            console().print(f"  saved {file}", markup=False)
