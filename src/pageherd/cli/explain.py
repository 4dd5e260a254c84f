"""`pageherd explain`: the shortest trace, with what each step changed."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from typing import TYPE_CHECKING

from pageherd.cli.output import compiling, console, json_line

if TYPE_CHECKING:
    from rich.console import Console

    from pageherd.search.trace import OperationTrace, StepTrace, Trace
    from pageherd.search.verdict import Answer, Verdict


def main(arguments: Namespace) -> int:
    """Print one trace for each question that is broken; if none is, one run of the test."""
    from pageherd.cli.run import code
    from pageherd.search.check import Checker, find_one

    chosen = find_one(arguments.test, arguments.variant)
    with compiling() as progress:
        checker = Checker(progress)
        verdict = checker.check(chosen, arguments.kernel)
        answers = _told(verdict)
        traces = [(answer, checker.explain(chosen, arguments.kernel, answer)) for answer in answers]
    for answer, trace in traces:
        if trace is None:
            continue
        if arguments.json:
            _print_json(verdict, answer, trace)
        else:
            _print(verdict, answer, trace, not arguments.quiet_steps)
    return code(verdict)


def _told(verdict: Verdict) -> list[Answer]:
    """The broken answers whose runs differ; if nothing is broken, one with an example run."""
    broken = [a for a in verdict.answers if a.verdict == "broken" and a.path is not None]
    longest = sorted(broken, key=lambda a: -len(a.path or ()))
    told: list[Answer] = []
    for answer in longest:  # a run that only begins like another one adds nothing
        paths = [other.path or () for other in told]
        if not any(path[: len(answer.path or ())] == answer.path for path in paths):
            told.append(answer)
    if told:
        return told
    outcomes = verdict.exploration.outcomes
    return [replace(verdict.answers[0], path=outcomes[0].path)] if outcomes else []


def _print(verdict: Verdict, answer: Answer, trace: Trace, with_steps: bool) -> None:
    from rich.text import Text

    out = console()
    style = {"kept": "green", "broken": "red"}.get(answer.verdict, "yellow")
    head = Text(f"{verdict.test} on {verdict.kernel}: {answer.ask}: ", style="bold")
    out.print(head.append(answer.verdict, style=f"bold {style}"))
    if answer.verdict != "broken":
        out.print("Nothing that was asked is broken; this is one run of the test.")
    for number, operation in enumerate(trace.operations, 1):
        _print_operation(out, number, operation, with_steps)
    for promise in trace.left_over:
        where = "from here no order comes to an end:" if promise == "progress" else "at the end"
        out.print(Text(f"     {where} {promise} is broken", style="bold red"))
    out.print()


def _print_operation(out: Console, number: int, operation: OperationTrace, steps: bool) -> None:
    from rich.text import Text

    from pageherd.search.verdict import spell

    line = Text(f"{number:3}  ").append(operation.text, style="bold")
    if operation.result is not None:
        line.append(f"    -> {spell(operation.result)}", style="cyan")
    out.print(line)
    if steps:
        for step in operation.steps:
            if step.changes or step.decisions:
                _print_step(out, step)
    for breach in operation.broke:
        why = f": {breach.why}" if breach.why else ""
        out.print(Text(f"     {breach.promise} is broken here", style="bold red").append(why))


def _print_step(out: Console, step: StepTrace) -> None:
    from rich.text import Text

    margin = " " * 7
    out.print(Text(f"{margin}{step.kernel_function}", style="dim"))
    for decision in step.decisions:
        asked = f"{decision.point}={decision.alternative}"
        out.print(Text(f"{margin}  rule {asked}: ").append(decision.answer, style="yellow"))
    for change in step.changes:
        out.print(Text(f"{margin}  {change}"))


def _print_json(verdict: Verdict, answer: Answer, trace: Trace) -> None:
    from pageherd.search.verdict import plain

    json_line(
        test=verdict.test,
        kernel=verdict.kernel,
        ask=answer.ask,
        verdict=answer.verdict,
        trace=[
            {
                "operation": operation.text,
                "result": None if operation.result is None else plain(operation.result),
                "broke": [{"promise": b.promise, "why": b.why} for b in operation.broke],
                "steps": [
                    {
                        "function": step.kernel_function,
                        "changes": list(step.changes),
                        "decisions": [
                            {"point": d.point, "alternative": d.alternative, "answer": d.answer}
                            for d in step.decisions
                        ],
                    }
                    for step in operation.steps
                ],
            }
            for operation in trace.operations
        ],
        left_over=list(trace.left_over),
    )
