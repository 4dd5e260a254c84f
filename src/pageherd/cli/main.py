"""`pageherd VERB ...`: arguments, errors and exit codes.

Exit codes: 0 as it should be; 1 found; 2 bad input or usage; 3 undetermined; 4 the environment
failed; 130 interrupted (143: by SIGTERM).  Of several, the first of 2, 4, 1, 3 counts.
"""

from __future__ import annotations

import argparse
import errno
import gc
import os
import signal
import sys
import threading
from _thread import interrupt_main
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final, NoReturn

from pageherd.interrupts import on_interrupt

OK: Final = 0
FOUND: Final = 1
BAD_INPUT: Final = 2
UNDETERMINED: Final = 3
ENVIRONMENT: Final = 4
INTERRUPTED: Final = 130
TERMINATED: Final = 143
_ORDER: Final = (BAD_INPUT, ENVIRONMENT, FOUND, UNDETERMINED)


def worst(codes: Sequence[int]) -> int:
    """The exit code of several: the first of 2, 4, 1, 3 that occurs, else 0."""
    return next((code for code in _ORDER if code in codes), OK)


class _Parser(argparse.ArgumentParser):
    """Usage errors are one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        print(f"pageherd: {message} (see: {self.prog} --help)", file=sys.stderr)
        raise SystemExit(BAD_INPUT)


class _Version(argparse.Action):
    """Looks the version up only when asked: that takes longer than all the rest of `--help`."""

    def __call__(self, *_: object) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"pageherd {version('pageherd')}")
        except PackageNotFoundError:
            print("pageherd (not installed)")
        raise SystemExit(OK)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pageherd",
        description="Litmus tests for Linux anonymous memory: fork, copy-on-write, GUP and swap.",
        epilog="Exit codes: 0 as it should be, 1 found, 2 bad input, 3 undetermined,"
        " 4 the environment failed, 130 interrupted.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(
        title="verbs", metavar="VERB", required=True, parser_class=_Parser
    )

    run = verbs.add_parser("run", help="explore tests on kernels and print a table of verdicts")
    run.add_argument("tests", nargs="*", metavar="TEST", help="an id or a file; all if left out")
    run.add_argument("--kernel", "-k", action="append", metavar="K", help=_KERNEL_HELP)
    run.add_argument("--max-states", type=_positive, metavar="N", help="give up beyond N states")
    _json(run)
    run.set_defaults(module="run")

    explain = verbs.add_parser("explain", help="the shortest way to a broken promise, step by step")
    explain.add_argument("test", metavar="TEST", help="an id or a file")
    explain.add_argument("--kernel", "-k", required=True, metavar="K", help=_KERNEL_HELP)
    explain.add_argument("--variant", metavar="V", help="which variant of a file")
    explain.add_argument("--quiet-steps", action="store_true", help="only the operations")
    _json(explain)
    explain.set_defaults(module="explain")

    hunt = verbs.add_parser("hunt", help="search all programs in a scope for a broken promise")
    hunt.add_argument("--kernel", "-k", required=True, metavar="K", help=_KERNEL_HELP)
    hunt.add_argument("--scope", default="small", metavar="S", help=_SCOPE_HELP)
    hunt.add_argument("--ops", metavar="A,B", help="only these operations")
    hunt.add_argument("--without", metavar="A,B", help="all operations but these")
    hunt.add_argument(
        "--ask", action="append", default=[], choices=["get-fork"], help="ask for this promise too"
    )
    hunt.add_argument("--max-states", type=_positive, metavar="N", help="give up beyond N states")
    hunt.add_argument(
        "--resume", metavar="FILE", help="go on from this checkpoint; new ones are written there"
    )
    hunt.add_argument("--save", metavar="DIR", help="write counterexamples there, as tests")
    _json(hunt)
    hunt.set_defaults(module="hunt")

    diff = verbs.add_parser("diff", help="the shortest program that tells two kernels apart")
    diff.add_argument("k1", metavar="K1", help=_KERNEL_HELP)
    diff.add_argument("k2", metavar="K2", help=_KERNEL_HELP)
    diff.add_argument("--scope", default="small", metavar="S", help=_SCOPE_HELP)
    diff.add_argument(
        "--observe",
        action="append",
        default=[],
        choices=["promises", "values", "copies", "counts"],
        help="what to compare; several are tried in turn (promises, then values)",
    )
    diff.add_argument(
        "--promise",
        action="append",
        default=[],
        choices=_PROMISES,
        metavar="P",
        help="compare only this promise",
    )
    diff.add_argument("--why", action="store_true", help="name the rules that make the difference")
    diff.add_argument("--all", action="store_true", help="all shortest programs")
    diff.add_argument("--ops", metavar="A,B", help="only these operations")
    diff.add_argument("--without", metavar="A,B", help="all operations but these")
    diff.add_argument("--max-states", type=_positive, metavar="N", help="give up beyond N pairs")
    diff.add_argument(
        "--resume", metavar="FILE", help="go on from this checkpoint; new ones are written there"
    )
    diff.add_argument("--save", metavar="FILE", help="write the program there, as a test")
    _json(diff)
    diff.set_defaults(module="diff")

    real = verbs.add_parser("real", help="run tests on real kernels, beside the prediction")
    real.add_argument("tests", nargs="*", metavar="TEST", help="an id or a file; all if left out")
    _real_options(real)
    real.add_argument(
        "--repeat",
        type=_positive,
        default=1000,
        metavar="N",
        help="runs of a test with concurrent steps (1000)",
    )
    real.add_argument("--ktap", action="store_true", help="KTAP 1, for a test harness")
    _json(real)
    real.set_defaults(module="real")

    conform = verbs.add_parser("conform", help="hold the model to a real kernel on random programs")
    _real_options(conform)
    conform.add_argument("--programs", type=_positive, default=1000, metavar="N", help="how many")
    conform.add_argument("--seed", type=_natural, default=1, metavar="S", help="where to begin")
    conform.add_argument("--save", metavar="DIR", help="write diverging programs there, as tests")
    _json(conform)
    conform.set_defaults(module="conform")

    reproducer = verbs.add_parser("reproducer", help="a self-contained C program for a test")
    reproducer.add_argument("test", metavar="TEST", help="an id or a file")
    reproducer.add_argument("--variant", metavar="V", help="which variant of a file")
    reproducer.add_argument("--kernel", "-k", metavar="K", help=_KERNEL_HELP)
    reproducer.add_argument("--output", "-o", metavar="FILE", help="write there")
    reproducer.set_defaults(module="reproducer")

    doctor = verbs.add_parser("doctor", help="what this machine can run, and cures")
    doctor.add_argument("--online", action="store_true", help="also try to reach Debian's archive")
    _json(doctor)
    doctor.set_defaults(module="doctor")

    for name, what in (
        ("kernels", "kernels and proposals, or the rules of one"),
        ("tests", "the library of tests, or one of them"),
        ("promises", "what must never break, or one of them"),
    ):
        lister = verbs.add_parser(name, help=f"list {what}")
        lister.add_argument("name", nargs="?", help="show this one")
        _json(lister)
        lister.set_defaults(module=name)

    shrink = verbs.add_parser("shrink", help="the smallest test that still shows the same verdict")
    shrink.add_argument("test", metavar="TEST", help="an id or a file")
    shrink.add_argument("--kernel", "-k", required=True, metavar="K", help=_KERNEL_HELP)
    shrink.add_argument("--variant", metavar="V", help="which variant of a file")
    _json(shrink)
    shrink.set_defaults(module="shrink")

    counts = verbs.add_parser("counts", help="what user space is told of counts, and what is true")
    counts.add_argument("tests", nargs="*", metavar="TEST", help="an id or a file; all if left out")
    counts.add_argument("--kernel", "-k", default="linux-6.18", metavar="K", help=_KERNEL_HELP)
    _json(counts)
    counts.set_defaults(module="counts")

    fmt = verbs.add_parser("fmt", help="rewrite tests in the standard form")
    fmt.add_argument(
        "files", nargs="+", metavar="FILE", help="a .litmus file; - for standard input"
    )
    fmt.add_argument("--check", action="store_true", help="change nothing; 1 if one would change")
    fmt.set_defaults(module="fmt")
    return parser


_KERNEL_HELP = "a kernel or proposal, with changes (linux-6.1:reuse=by-mapcount), or a .py file"

_PROMISES = (
    *("private", "own-writes", "pin-coherent", "get-fork", "alive", "no-leak", "counts"),
    "exclusive",
)

_ON_HELP = "host, debian-5.10, debian-6.1, debian-6.12, debian-7.3, or the path of a bzImage"

_SCOPE_HELP = (
    "small, default (three and two-pages), three, two-pages, large, folio (folio-pins and"
    " folio-swap), folio-large; or numbers: processes,pages,references,slots"
)


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def _real_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--on", action="append", metavar="WHERE", help=_ON_HELP)
    parser.add_argument("--kernel", "-k", metavar="K", help="the rules to predict with")


def _natural(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def _positive(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= 10**9:
        raise argparse.ArgumentTypeError(f"'{text[:40]}' is not a number from 1 to 1000000000")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code."""
    arguments = _parser().parse_args(argv)
    gc.set_threshold(200_000)  # loading compiled code makes many objects and no garbage
    with _noticing_interrupts() as interrupts:
        try:
            return _run(arguments)
        except KeyboardInterrupt:
            return _interrupted(interrupts)
        except Exception:
            if interrupts:
                return _interrupted(interrupts)
            raise


def _run(arguments: argparse.Namespace) -> int:
    """The verb's own exit code, or that of the error that it raised."""
    from pageherd.errors import EnvironmentFailed, PageherdError

    try:
        code: int = import_module(f"pageherd.cli.{arguments.module}").main(arguments)
        sys.stdout.flush()
    except PageherdError as error:
        print(f"pageherd: {error}", file=sys.stderr)
        return ENVIRONMENT if isinstance(error, EnvironmentFailed) else BAD_INPUT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        print(f"pageherd: {error}", file=sys.stderr)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        return ENVIRONMENT if full else BAD_INPUT
    return code


def _interrupted(signals: Sequence[int]) -> int:
    terminated = signal.SIGTERM in signals
    print(f"pageherd: {'terminated' if terminated else 'interrupted'}", file=sys.stderr)
    return TERMINATED if terminated else INTERRUPTED


@contextmanager
def _noticing_interrupts() -> Iterator[list[int]]:
    """The interrupts so far; the compiler may swallow one and then fail in a way of its own.

    SIGTERM ends a run as Ctrl-C does: what was started is ended, what was found is kept.  An
    interrupt that falls into a destructor or a callback of C is lost there, so it comes again.
    """
    seen: list[int] = []
    report = sys.unraisablehook

    def lost(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            threading.Timer(0.05, interrupt_main, [seen[-1]]).start()
        else:
            report(unraisable)

    def interrupt(number: int, frame: object) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    sys.unraisablehook = lost
    try:
        with on_interrupt(interrupt):
            yield seen
    finally:
        sys.unraisablehook = report


if __name__ == "__main__":
    raise SystemExit(main())
