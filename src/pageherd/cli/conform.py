"""`pageherd conform`: random programs, every observation of a real kernel against the model."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from pageherd.cli.main import FOUND, OK, worst
from pageherd.cli.output import compiling, json_line, status

if TYPE_CHECKING:
    from pageherd.real.conform import Tally


def main(arguments: Namespace) -> int:
    """Run random programs on each kernel, and report what diverged."""
    return worst([_on(name, arguments) for name in arguments.on or ["host"]])


def _on(name: str, arguments: Namespace) -> int:
    from pageherd.real.conform import prepare
    from pageherd.real.target import find

    with status(f"{name}: getting the kernel") as say, compiling():
        conform = prepare(find(name, say), arguments.kernel)

        def progress(tally: Tally) -> None:
            rate = tally.programs / tally.seconds if tally.seconds else 0.0
            say(
                f"{name}: {tally.programs} of {arguments.programs} programs, {rate:.0f}/s,"
                f" {tally.observations} observations, {len(tally.found)} divergences"
            )

        tally = conform.run(arguments.programs, arguments.seed, progress=progress)
    if arguments.save:
        _save(tally, Path(arguments.save))
    if arguments.json:
        _print_json(tally, arguments)
    else:
        _print(tally, arguments)
    return FOUND if tally.found or tally.hung else OK


def _save(tally: Tally, folder: Path) -> None:
    """Write each shrunk program as a test."""
    folder.mkdir(parents=True, exist_ok=True)
    for found in tally.found:
        (folder / f"{found.test.name}.litmus").write_text(found.text)


def _print(tally: Tally, arguments: Namespace) -> None:
    rate = tally.programs / tally.seconds if tally.seconds else 0.0
    print(f"{tally.on} ({tally.release}) against the model of {tally.kernel}")
    print(
        f"  {tally.programs} programs from seed {arguments.seed}, {tally.observations} observations"
        f" in {tally.seconds:.0f} s ({rate:.0f} programs/s{_boots(tally)})"
    )
    print(
        f"  {100 * tally.share:.1f} % of the programs have more than one allowed outcome"
        f" ({tally.choices} observations)"
    )
    verbs = ", ".join(f"{verb} {count}" for verb, count in tally.steps.most_common())
    print(f"  steps: {verbs}")
    for line in tally.complaints[:5]:
        print(f"  the kernel said: {line}")
    for line in tally.hung:
        print(f"  did not end: {line}")
    for kind, count in tally.outcomes.suspicious():
        print(f"  suspicious: allowed in {count} steps, seen in none: {kind}")
    print(f"  {len(tally.found) or 'no'} divergence{'' if len(tally.found) == 1 else 's'}")
    for found in tally.found:
        print(
            f"\nseed {found.seed}: seen in {found.seen} of {found.runs} runs,"
            f" {found.steps_before} steps shrunk to these; at '{found.divergence.step}':"
        )
        for difference in found.divergence.differences:
            print(f"  {difference}")
        print(found.text, end="")


def _boots(tally: Tally) -> str:
    if not tally.accel:
        return ""
    return f", {tally.boots} boot{'' if tally.boots == 1 else 's'} under {tally.accel.upper()}"


def _print_json(tally: Tally, arguments: Namespace) -> None:
    common = {"on": tally.on, "release": tally.release, "kernel": tally.kernel}
    for found in tally.found:
        json_line(
            **common,
            seed=found.seed,
            step=found.divergence.step,
            differences=found.divergence.differences,
            seen=found.seen,
            runs=found.runs,
            text=found.text,
        )
    json_line(
        **common,
        seed=arguments.seed,
        programs=tally.programs,
        observations=tally.observations,
        undetermined=tally.undetermined,
        suspicious=[
            {"outcome": kind, "allowed": count} for kind, count in tally.outcomes.suspicious()
        ],
        divergences=len(tally.found),
        hung=tally.hung,
        seconds=round(tally.seconds, 3),
        boots=tally.boots,
        accel=tally.accel,
        complaints=tally.complaints,
    )
    sys.stdout.flush()
