"""`pageherd real`: the same tests on real kernels, beside what the model predicts."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pageherd.cli.main import ENVIRONMENT, FOUND, OK, UNDETERMINED, worst
from pageherd.cli.output import compiling, console, json_line, status

if TYPE_CHECKING:
    from pageherd.real.judge import Result, Verdict
    from pageherd.real.target import Report
    from pageherd.search.check import Chosen

_RESULTS: tuple[Result, ...] = ("pass", "fail", "skip", "error")


def main(arguments: Namespace) -> int:
    """Run the tests on each kernel; a table, JSON lines, or KTAP."""
    from pageherd.search.check import find, find_all

    chosen = [one for name in arguments.tests for one in find(name)] or find_all()
    results = [_on(name, chosen, arguments) for name in arguments.on or ["host"]]
    verdicts = [verdict for found, _ in results for verdict in found]
    if arguments.ktap:
        from pageherd.real.ktap import lines

        for line in lines(verdicts, len(verdicts)):
            print(line)
    elif arguments.json:
        for found, report in results:
            for verdict in found:
                json_line(**asdict(verdict), **_about(report))
    else:
        _print_table(results, whole=not arguments.tests)
    return worst([_code(found) for found, _ in results])


def _on(name: str, chosen: list[Chosen], arguments: Namespace) -> tuple[list[Verdict], Report]:
    from pageherd.real.judge import run_tests
    from pageherd.real.target import Report, find
    from pageherd.rules.choose import choose

    with status(f"{name}: getting the kernel") as say:
        target = find(name, say)
        kernel = choose(arguments.kernel or target.kernel())
        report = Report()
        with compiling():
            say(f"{name}: running {len(chosen)} tests")
            verdicts = list(run_tests(target, chosen, kernel, report, repeat=arguments.repeat))
    if report.accel == "tcg":
        print(f"pageherd: {name} runs under TCG, without KVM", file=sys.stderr)
    for line in report.complaints[:5]:
        print(f"pageherd: {name} said: {line}", file=sys.stderr)
    return verdicts, report


def _about(report: Report) -> dict[str, Any]:
    """What is needed to judge a result: how it ran, what each probe gave, what the kernel said."""
    return {
        "accel": report.accel,
        "probes": report.probes.have,
        "facts": report.probes.facts,
        "complaints": list(report.complaints),
    }


def _code(verdicts: list[Verdict]) -> int:
    """1: model and kernel disagree; 4: a test could not be run; 3: everything was skipped."""
    if any(verdict.agrees is False for verdict in verdicts):
        return FOUND
    if any(verdict.result == "error" for verdict in verdicts):
        return ENVIRONMENT
    return UNDETERMINED if all(v.result == "skip" for v in verdicts) else OK


def _print_table(results: list[tuple[list[Verdict], Report]], *, whole: bool) -> None:
    """Tests down, kernels across; after it what disagrees, and why tests were skipped."""
    from rich.table import Table

    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("test")
    for verdicts, _ in results:
        table.add_column(f"{verdicts[0].on}\n{verdicts[0].release}\nmodel {verdicts[0].kernel}")
    for row in zip(*(verdicts for verdicts, _ in results), strict=True):
        if whole and all(verdict.result == "skip" for verdict in row):
            continue
        table.add_row(row[0].test, *(_cell(verdict) for verdict in row))
    out.print(table)
    for verdicts, _ in results:
        _print_summary(verdicts)


def _cell(verdict: Verdict) -> str:
    style = {"pass": "green", "fail": "yellow", "skip": "dim", "error": "bold red"}[verdict.result]
    broken = ", ".join(verdict.observed.get("promises", ()))
    told = f" ({broken})" if verdict.result == "fail" and broken else ""
    agrees = "" if verdict.agrees is not False else " [bold red]DISAGREES[/]"
    return f"[{style}]{verdict.result}{told}[/]{agrees}"


def _print_summary(verdicts: list[Verdict]) -> None:
    counts = Counter(verdict.result for verdict in verdicts)
    ran = [verdict for verdict in verdicts if verdict.agrees is not None]
    agreeing = sum(verdict.agrees is True for verdict in ran)
    print()
    print(
        f"{verdicts[0].on}: "
        + ", ".join(f"{counts[name]} {name}" for name in _RESULTS if counts[name])
        + f"; the model of {verdicts[0].kernel} agrees with {agreeing} of {len(ran)}"
    )
    for verdict in verdicts:
        if verdict.agrees is False or verdict.result == "error":
            print(f"  {verdict.test}: {verdict.reason}")
    reasons = Counter(verdict.reason for verdict in verdicts if verdict.result == "skip")
    for reason, count in reasons.most_common():
        print(f"  skipped {count}: {reason}")
