"""`pageherd run`: tests x kernels."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from pageherd.cli.main import FOUND, UNDETERMINED, worst
from pageherd.cli.output import compiling, console, json_line

if TYPE_CHECKING:
    from rich.text import Text

    from pageherd.search.check import Checker, Chosen
    from pageherd.search.explore import Exploration
    from pageherd.search.verdict import Verdict


def main(arguments: Namespace) -> int:
    """Explore, print, and say by the exit code whether all is as it should be."""
    from pageherd.rules import kernels
    from pageherd.search.check import Checker, find, find_all
    from pageherd.search.explore import MAX_STATES

    started = time.perf_counter()
    specs = list(dict.fromkeys(arguments.kernel or kernels.names()))
    chosen = [test for name in arguments.tests for test in find(name)] or find_all()
    with compiling() as progress:
        checker = Checker(progress, arguments.max_states or MAX_STATES)
        names = [checker.kernel(spec)[0].name for spec in specs]
        rows = _rows(checker, chosen, specs, arguments.json)
    if not arguments.json:
        if len(rows) == 1 and len(names) == 1:
            _card(rows[0][0], chosen[0], specs[0])
        else:
            _print(rows, names, time.perf_counter() - started)
    return worst([code(verdict) for row in rows for verdict in row])


def _rows(
    checker: Checker, chosen: Iterable[Chosen], specs: Sequence[str], as_json: bool
) -> list[list[Verdict]]:
    rows = []
    for test in chosen:
        row = []
        for spec in specs:
            verdict = checker.check(test, spec)
            if as_json:
                json_line(**as_object(verdict))
            row.append(verdict)
        rows.append(row)
    return rows


def code(verdict: Verdict) -> int:
    """1: a claim did not come true, or a question without a claim is broken; 3: undetermined."""
    if verdict.agrees is False:
        return FOUND
    if any(a.verdict == "broken" and a.expected is None for a in verdict.answers):
        return FOUND
    return UNDETERMINED if verdict.verdict == "undetermined" else 0


def as_object(verdict: Verdict) -> dict[str, Any]:
    """The verdict as `--json` prints it."""
    from pageherd.search.explore import never_asked, never_taken
    from pageherd.search.verdict import plain

    found = verdict.exploration
    return {
        "test": verdict.test,
        "hash": found.hash,
        "kernel": verdict.kernel,
        "verdict": verdict.verdict,
        "promises": list(verdict.promises),
        "also": list(verdict.also),
        "questions": [
            {"ask": a.ask, "verdict": a.verdict, "expected": a.expected} for a in verdict.answers
        ],
        "outcomes": [
            {**{name: plain(value) for name, value in o.registers.items()}, "copies": o.copies}
            for o in found.outcomes
        ],
        "states": found.states,
        "transitions": found.transitions,
        "seconds": round(found.seconds, 6),
        "expected": verdict.expected,
        "agrees": verdict.agrees,
        "complete": found.complete,
        "never_asked": never_asked([found]),
        "never_taken": never_taken([found]),
        "notes": list(verdict.notes),
    }


_SHORT_LIST: Final = 8

# -- the table ---------------------------------------------------------------------------------


def _print(rows: list[list[Verdict]], names: list[str], seconds: float) -> None:
    out = console()
    cells = [[_cell(verdict) for verdict in row] for row in rows]
    labels = [row[0].test for row in rows]
    margin = max(len(label) for label in labels) + 2
    widths = [
        max(len(_short(name)), *(cell.cell_len for cell in column)) + 2
        for name, column in zip(names, zip(*cells, strict=True), strict=True)
    ]
    first = 0
    while first < len(names):
        last = first + 1
        while last < len(names) and margin + sum(widths[first : last + 1]) <= out.width:
            last += 1
        _block(labels, names, cells, widths, margin, range(first, last))
        first = last
    _summary(rows, names, seconds)


def _block(
    labels: list[str],
    names: list[str],
    cells: list[list[Text]],
    widths: list[int],
    margin: int,
    columns: range,
) -> None:
    """A part of the table as wide as the terminal."""
    from rich.text import Text

    out = console()
    head = Text(" " * margin)
    for column in columns:
        head.append(_short(names[column]).ljust(widths[column]), style="bold")
    out.print(head, no_wrap=True, overflow="ignore", crop=False)
    for label, row in zip(labels, cells, strict=True):
        line = Text(label.ljust(margin))
        for column in columns:
            line.append_text(row[column])
            line.append(" " * (widths[column] - row[column].cell_len))
        line.rstrip()
        out.print(line, no_wrap=True, overflow="ignore", crop=False)
    out.print()


def _short(name: str) -> str:
    return name.removeprefix("linux-")


def _cell(verdict: Verdict) -> Text:
    """`kept`, or what is broken; `!` where a claim did not come true."""
    from rich.text import Text

    if verdict.verdict == "kept":
        cell = Text("kept", style="green")
    elif verdict.verdict == "undetermined":
        cell = Text("?", style="yellow")
    else:
        cell = Text("+".join(_broken(verdict)), style="red")
    if verdict.agrees is False:
        cell.append(" !", style="bold reverse")
    return cell


def _broken(verdict: Verdict) -> list[str]:
    """The promises that broke; only where none did, the kind of question that did."""
    if verdict.promises:
        return list(verdict.promises)
    kinds = [a.ask.split()[0] for a in verdict.answers if a.verdict == "broken"]
    return ["copies" if kind == "no" else kind for kind in dict.fromkeys(kinds)]


def _summary(rows: list[list[Verdict]], names: list[str], seconds: float) -> None:
    out = console()
    verdicts = [verdict for row in rows for verdict in row]
    count = {word: sum(v.verdict == word for v in verdicts) for word in ("kept", "broken")}
    unclear = len(verdicts) - sum(count.values())
    claims = [a for v in verdicts for a in v.answers if a.expected in ("kept", "broken")]
    wrong = [v for v in verdicts if v.agrees is False]
    states = sum(v.exploration.states for v in verdicts)
    moves = sum(v.exploration.transitions for v in verdicts)
    tests = f"{len(rows)} test{'s' * (len(rows) != 1)}"
    out.print(
        f"{tests} x {len(names)} kernels: {count['kept']} kept, {count['broken']} broken,"
        f" {unclear} undetermined; {len(claims) - _missed(claims)} of {len(claims)} claims agree"
    )
    out.print(
        f"{states} states, {moves} transitions, {seconds:.2f} s; every space was explored whole and"
        " states are compared in full"
        if not unclear
        else f"{states} states, {moves} transitions, {seconds:.2f} s"
    )
    _print_reach([v.exploration for v in verdicts])
    for verdict in wrong:
        for answer in verdict.answers:
            if answer.expected in ("kept", "broken") and answer.expected != answer.verdict:
                out.print(
                    f"! {verdict.test} on {verdict.kernel}: {answer.ask}: expected"
                    f" {answer.expected}, is {answer.verdict}",
                    markup=False,
                )
    _print_notes(verdicts)


def _print_notes(verdicts: list[Verdict]) -> None:
    """What stands in for calls that kernels lack: a line for each, with the kernels it is so on."""
    kernels: dict[str, dict[str, None]] = {}
    for verdict in verdicts:
        for note in verdict.notes:
            kernels.setdefault(note, {})[verdict.kernel] = None
    for note in sorted(kernels):
        where = " ".join(name.removeprefix("linux-") for name in kernels[note])
        console().print(f"  {note}: {where}", markup=False, style="dim")


def _print_reach(explorations: list[Exploration]) -> None:
    """How much of the machine was exercised; what never was is named if that is a short list."""
    from pageherd.machine.jit import STEPS
    from pageherd.rules.catalog import POINTS
    from pageherd.search.explore import never_asked, never_taken

    parts = []
    for what, total, missing in (
        ("decision points asked", len(POINTS), never_asked(explorations)),
        ("steps taken", len(STEPS), never_taken(explorations)),
    ):
        never = f" (never: {', '.join(missing)})" if 0 < len(missing) <= _SHORT_LIST else ""
        parts.append(f"{total - len(missing)} of {total} {what}{never}")
    console().print(", ".join(parts), markup=False, style="dim")


def _missed(claims: list[Any]) -> int:
    return sum(claim.expected != claim.verdict for claim in claims)


def _card(verdict: Verdict, chosen: Chosen, spec: str) -> None:
    """One test on one kernel: its questions, its outcomes."""
    from rich.text import Text

    from pageherd.search.verdict import spell

    out = console()
    found = verdict.exploration
    head = Text(f"{verdict.test} on {verdict.kernel}: ")
    head.append_text(_cell(verdict))
    out.print(head)
    for answer in verdict.answers:
        style = {"kept": "green", "broken": "red"}.get(answer.verdict, "yellow")
        line = Text("  ").append(answer.verdict.ljust(13), style=style).append(answer.ask)
        if answer.expected in ("kept", "broken") and answer.expected != answer.verdict:
            line.append(f"   expected {answer.expected}", style="bold reverse")
        out.print(line)
    if verdict.also:
        out.print(f"  also broken: {', '.join(verdict.also)}")
    for note in verdict.notes:
        out.print(f"  note: {note}", markup=False)
    for name in next(iter(found.outcomes)).registers if found.outcomes else ():
        seen: dict[str, int] = {}
        for outcome in found.outcomes:
            value = spell(outcome.registers[name])
            seen[value] = seen.get(value, 0) + 1
        always = len(seen) == 1
        ways = ", ".join(f"{value}" if always else f"{value} sometimes" for value in seen)
        out.print(f"  {name} = {ways}{' always' if always else ''}")
    ends = f"{len(found.outcomes)} outcome{'s' * (len(found.outcomes) != 1)}"
    out.print(
        f"  {ends}, {found.states} states, {found.transitions} transitions,"
        f" {found.seconds * 1000:.1f} ms; states are compared in full"
    )
    _print_reach([found])
    if verdict.verdict == "broken":
        test = f"{chosen.file} --variant {chosen.variant}" if chosen.file else verdict.test
        out.print(f"  see: pageherd explain {test} --kernel {spec}", markup=False, soft_wrap=True)
