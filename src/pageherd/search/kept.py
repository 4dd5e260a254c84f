"""Counterexamples that hunts have found, kept for the next hunt, which replays them first.

A rule being edited often breaks again what it, or a kernel, broke before; to run a few dozen short
programs takes far less time than to search.  They are kept whatever the kernel was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pageherd.cache import user_cache
from pageherd.errors import LitmusError
from pageherd.litmus.format import format_step, format_test
from pageherd.litmus.parsing import parse_file
from pageherd.litmus.syntax import Keeps, Test, steps_of
from pageherd.rules import kernels
from pageherd.rules.choose import Progress
from pageherd.search.check import Checker, Chosen
from pageherd.search.verdict import BROKEN

_MOST: Final = 100  # the oldest make room


@dataclass(frozen=True, slots=True)
class Replayed:
    """A promise that a program found earlier breaks."""

    promise: str
    test: Test

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations as lines of a test."""
        return tuple(format_step(step) for step in self.test.body)  # type: ignore[arg-type]


def folder() -> Path:
    """Where they are kept."""
    return user_cache() / "counterexamples"


def keep(tests: Iterable[Test]) -> None:
    """Keep the tests, each program once; where nothing can be written nothing is kept."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        for test in tests:
            text = format_test(test)
            program = "\n".join((promise_of(test), *test.processes, *_lines(test)))
            digest = hashlib.blake2b(program.encode(), digest_size=6).hexdigest()
            (folder() / f"{digest}.litmus").write_text(text, encoding="utf-8")
        files = sorted(folder().glob("*.litmus"), key=lambda file: file.stat().st_mtime)
        for file in files[:-_MOST]:
            file.unlink(missing_ok=True)
    except OSError:
        return


def kept() -> list[Test]:
    """The tests kept, short ones first."""
    found = []
    for file in sorted(folder().glob("*.litmus")):
        try:
            test = parse_file(file, kernels.names())
        except LitmusError:
            continue  # of another version
        if promise_of(test):
            found.append(test)
    return sorted(found, key=lambda test: (len(test.body), _lines(test)))


def replay(kernel: str, progress: Progress | None = None) -> Iterator[Replayed]:
    """A shortest kept program for each promise that breaks on the kernel.

    Raises:
        RuleError: there is no such kernel, or a user's rule failed.
        ModelError: the machine cannot answer.
    """
    checker = Checker(progress)
    broken: set[str] = set()
    for test in kept():
        promise = promise_of(test)
        if promise in broken or _uses(test) & set(checker.kernel(kernel)[0].absent()):
            continue
        if checker.check(Chosen(test, test.default_variant), kernel).verdict == BROKEN:
            broken.add(promise)
            yield Replayed(promise, test)


def promise_of(test: Test) -> str:
    """The promise that the test asks for; empty if it asks for anything else."""
    asked = test.questions[0] if len(test.questions) == 1 else None
    return asked.promise if isinstance(asked, Keeps) else ""


def _lines(test: Test) -> list[str]:
    return [format_step(step) for step in test.body]  # type: ignore[arg-type]


def _uses(test: Test) -> set[str]:
    """The verbs of the test."""
    return {step.verb for step in steps_of(test.variant_steps(test.default_variant))}
