"""Checking a test on a kernel: the typed call under the command line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any

from pageherd.errors import LitmusError, ModelError, RuleError
from pageherd.litmus.shelves import load, load_all
from pageherd.litmus.syntax import Test, steps_of
from pageherd.machine.jit import ALARMS
from pageherd.rules import kernels
from pageherd.rules.choose import Kernel, Progress, blame, choose, record
from pageherd.search.explore import MAX_STATES, explore_program
from pageherd.search.program import Program, program_of
from pageherd.search.trace import Trace, trace
from pageherd.search.verdict import Answer, Verdict, judge


@dataclass(frozen=True, slots=True)
class Chosen:
    """A test and the variant to run."""

    test: Test
    variant: str
    file: str = ""  # where it was read from, if it is not of the library

    @property
    def id(self) -> str:
        """`NAME` or `NAME/VARIANT`."""
        return self.test.id_of(self.variant)


def find(argument: str) -> list[Chosen]:
    """The tests that an argument of the command line names: a file (all its variants) or an id.

    Raises:
        LitmusError: there is no such test, or the file has a mistake.
    """
    path = FilePath(argument)
    if argument.endswith(".litmus") or path.is_file():
        from pageherd.litmus.parsing import parse_file

        test = parse_file(path, kernels.names())
        return [Chosen(test, variant, argument) for variant in test.variant_names]
    loaded = load(argument, kernels.names())
    return [Chosen(loaded.test, loaded.variant)]


def find_all() -> list[Chosen]:
    """Every test of the library with every variant."""
    tests = load_all(kernels.names())
    return [Chosen(test, variant) for test in tests for variant in test.variant_names]


def find_one(argument: str, variant: str | None = None) -> Chosen:
    """One test: of a file or a plain id the variant asked for, else the one it stands for.

    Raises:
        LitmusError: there is no such test or variant, or the file has a mistake.
    """
    return with_variant(find(argument)[0], variant)


def with_variant(chosen: Chosen, variant: str | None) -> Chosen:
    """The same test with another variant.

    Raises:
        LitmusError: the test has no such variant.
    """
    known = chosen.test.variant_names
    if variant is not None and variant not in known:
        raise LitmusError(
            f"no variant '{variant}' of '{chosen.test.name}'; it has {', '.join(known)}", "library"
        )
    return replace(chosen, variant=variant or chosen.variant)


@dataclass(slots=True)
class Checker:
    """Runs tests on kernels; a kernel is compiled once, a test is turned into a program once."""

    progress: Progress | None = None
    max_states: int = MAX_STATES
    _records: dict[str, tuple[Kernel, Any]] = field(default_factory=dict)
    _programs: dict[tuple[int, str], tuple[Test, Program]] = field(default_factory=dict)

    def kernel(self, spec: str) -> tuple[Kernel, Any]:
        """The kernel that `spec` stands for and its record of addresses.

        Raises:
            RuleError: see `rules.choose.choose` and `record`.
        """
        if spec not in self._records:
            kernel = choose(spec)
            self._records[spec] = kernel, record(kernel, progress=self.progress)
        return self._records[spec]

    def program(self, chosen: Chosen) -> Program:
        """The program of a test's variant."""
        key = (id(chosen.test), chosen.variant)  # the test is kept, so that its id stays its own
        if key not in self._programs:
            self._programs[key] = chosen.test, program_of(chosen.test, chosen.variant)
        return self._programs[key][1]

    def check(self, chosen: Chosen, spec: str) -> Verdict:
        """The verdict on a test's variant on one kernel.

        Raises:
            RuleError: the kernel does not exist, or a user's rule failed.
            ModelError: the machine cannot answer.
        """
        kernel, table = self.kernel(spec)
        program = self.program(chosen)
        try:
            exploration = explore_program(program, table, self.max_states)
        except ModelError as error:
            culprit = blame(kernel, error.alarm)
            if culprit is None:
                raise
            last = program.steps[error.path[-1].operation]
            raise RuleError(f"{culprit}, in '{last.thread}: {last.verb}' of {chosen.id}") from error
        notes = roles(chosen.test, chosen.variant, kernel)
        if exploration.stuck:
            notes += (f"cut short: {ALARMS[exploration.stuck]}",)
        return judge(chosen.test, chosen.variant, kernel.name, exploration, notes)

    def explain(self, chosen: Chosen, spec: str, answer: Answer) -> Trace | None:
        """The shortest run that breaks (or, for `allow`, shows) what `answer` is about."""
        if answer.path is None:
            return None
        kernel, table = self.kernel(spec)
        return trace(self.program(chosen), kernel, table, answer.path)


def roles(test: Test, variant: str, kernel: Kernel) -> tuple[str, ...]:
    """What stands in for calls of the test that the kernel does not have."""
    absent = kernel.absent()
    used = {step.verb for step in steps_of(test.variant_steps(variant))}
    return tuple(f"{verb} is played by {role}" for verb, role in absent.items() if verb in used)


def explore(test: Test | str, kernel: str = "linux-6.1", variant: str | None = None) -> Verdict:
    """Explore every outcome of a test on a kernel and judge it.

    Args:
        test: a parsed test, the id of a test of the library, or a file name.
        kernel: a kernel's name, with changes if wanted (`linux-6.1:reuse=by-mapcount`), or a file.
        variant: a variant of the test; the base page if left out.

    Raises:
        LitmusError: there is no such test or variant, or the file has a mistake.
        RuleError: there is no such kernel, or a user's rule failed.

    >>> verdict = explore("cow-vmsplice-child-unmap", "linux-4.19")
    >>> verdict.verdict, verdict.promises
    ('broken', ('private',))
    >>> explore("cow-vmsplice-child-unmap", "linux-6.1").verdict
    'kept'
    """
    if isinstance(test, str):
        chosen = find_one(test, variant)
    else:
        chosen = with_variant(Chosen(test, test.default_variant), variant)
    return Checker().check(chosen, kernel)
