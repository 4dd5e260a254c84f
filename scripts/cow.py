"""The kernel's selftest cow.c, line by line beside the model:  python scripts/cow.py FILE ...

FILE is the built selftest, which is run here or (--on) in a guest, or what it printed.  Exit codes:
0 all agrees, 1 something disagrees, 2 usage, 3 nothing could be compared, 4 it did not run to its
end or a step of it failed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pageherd.cli.main import (
    BAD_INPUT,
    ENVIRONMENT,
    FOUND,
    INTERRUPTED,
    OK,
    UNDETERMINED,
    worst,
)
from pageherd.cli.output import compiling, json_line
from pageherd.errors import EnvironmentFailed, LitmusError, PageherdError, RuleError
from pageherd.real import cow, cow_run, images
from pageherd.real.target import HOST, row_of
from pageherd.rules.choose import choose

CODES = {"DISAGREE": FOUND, "error": ENVIRONMENT, "undetermined": UNDETERMINED}


def main(words: Sequence[str] | None = None) -> int:
    try:
        return run(arguments(words))
    except EnvironmentFailed as error:
        print(f"cow.py: {error}", file=sys.stderr)
        return ENVIRONMENT
    except (PageherdError, OSError) as error:
        print(f"cow.py: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--on", default=HOST, metavar="WHERE", help="host, debian-6.12, a bzImage")
    parser.add_argument("--prepare", action="store_true", help="on the host: swap, huge pages")
    parser.add_argument("--release", metavar="R", help="the kernel that printed a saved output")
    parser.add_argument("--kernel", metavar="K", help="the model kernel, in place of R's")
    parser.add_argument("--seconds", type=float, default=cow_run.SECONDS, metavar="N")
    parser.add_argument("--save", type=Path, metavar="TAP", help="keep what the selftest printed")
    parser.add_argument("--brief", action="store_true", help="only what needs a look, and figures")
    parser.add_argument("--json", action="store_true", help="a JSON object for each line")
    return parser.parse_args(words)


def run(given: argparse.Namespace) -> int:
    text, release = output(given)
    if given.save:
        given.save.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
    tap = cow.read_tap(text)
    if not tap.lines:
        raise LitmusError("no line of TAP in it", str(given.file))
    kernel = choose(given.kernel or row_of(release)).name
    with compiling():
        compared = list(cow.Comparison(kernel).compare(tap.lines))
    if given.json:
        show_json(compared, kernel)
    else:
        show(compared, kernel, brief=given.brief)
    if not tap.complete:
        print(f"it ended early: {len(tap.lines)} of {tap.planned} lines", file=sys.stderr)
    return worst([code(compared), OK if tap.complete else ENVIRONMENT])


def output(given: argparse.Namespace) -> tuple[list[str], str]:
    """What the selftest printed, and on which release."""
    if not cow_run.is_program(given.file):
        if not (given.release or given.kernel):
            raise RuleError("say which kernel printed it, with --release or --kernel")
        return given.file.read_text(errors="replace").splitlines(), given.release or ""
    if given.on == HOST:
        text = cow_run.on_host(given.file, prepare=given.prepare, seconds=given.seconds)
        return text, given.release or os.uname().release
    image = images.find(given.on)
    text = cow_run.in_guest(given.file, image, seconds=given.seconds)
    return text, given.release or image.release


def show(compared: Sequence[cow.Compared], kernel: str, *, brief: bool) -> None:
    """The table, then how many lines of which kind there are, and why lines were skipped."""
    shown = [one for one in compared if not brief or one.relation not in ("agree", "skipped")]
    width = max((len(one.line.name) for one in shown), default=4)
    if shown:
        print(f"{'line':{width}}  {'real':5}  {'model':12}  {kernel}")
    for one in shown:
        end = f"{one.line.name:{width}}  {one.line.result:5}  {one.model or '-':12}  {one.relation}"
        print(f"{end}: {one.line.reason}" if one.line.result == "error" else end)
    counts = Counter(one.relation for one in compared)
    print(f"{len(compared)} lines: " + ", ".join(f"{n} {name}" for name, n in counts.most_common()))
    skips = Counter(one.line.reason for one in compared if one.line.result == "skip")
    for reason, number in skips.most_common():
        print(f"  skipped {number}: {reason or 'no reason given'}")


def show_json(compared: Sequence[cow.Compared], kernel: str) -> None:
    for one in compared:
        json_line(
            line=one.line.name,
            result=one.line.result,
            reason=one.line.reason,
            test=one.test,
            kernel=kernel,
            predicted=one.model,
            relation=one.relation,
        )


def code(compared: Sequence[cow.Compared]) -> int:
    """The exit code of a comparison."""
    relations = {one.relation for one in compared}
    found = worst([number for relation, number in CODES.items() if relation in relations])
    return found or (OK if "agree" in relations else UNDETERMINED)


if __name__ == "__main__":
    raise SystemExit(main())
