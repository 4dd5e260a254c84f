"""Choosing a kernel: by name, by name with changes, or from a user's own file of rules.

linux-6.1
linux-6.1:reuse=by-mapcount,unshare=never
my_rules.py
my_rules.py:fork=share
"""

from __future__ import annotations

import difflib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pageherd.errors import RuleError
from pageherd.machine import paths
from pageherd.machine.jit import (
    ALARM_RULE_NONSENSE,
    ALARM_RULE_RAISED,
    KERNEL_DTYPE,
    STEPS,
    RuleFunction,
    rule_address,
    step_address,
)
from pageherd.machine.layout import TEST, Layout
from pageherd.rules import kernels
from pageherd.rules.base import Alternative
from pageherd.rules.catalog import POINTS

assert paths.PATHS  # importing them registered the steps


@dataclass(frozen=True, slots=True)
class Kernel:
    """A complete choice: one alternative for every decision point."""

    name: str
    choices: Mapping[str, Alternative]
    base: str  # the row of the table that it is, or changes
    file: Path | None = None

    def absent(self) -> Mapping[str, str]:
        """Verbs whose call this kernel does not have, with the role that is played instead."""
        return kernels.absent_verbs(self.base)

    def of(self, point: str) -> str:
        """The name of the alternative chosen at `point`."""
        return self.choices[point].name


@dataclass(frozen=True, slots=True)
class UserKernel:
    """What a user's file of rules calls `KERNEL`: a row of its own."""

    name: str
    extends: str
    about: str
    changes: Mapping[str, str | Alternative]


def alternative(point: str, name: str | None = None) -> Callable[[Callable[..., int]], Alternative]:
    """Make a rule of the decorated function `(s, t, k, frame) -> answer`, for a user's file.

    Raises:
        RuleError: there is no decision point called `point`.
    """
    if len(_point(point).questions) != 1:
        raise RuleError(f"'{point}' answers several questions: use `alternatives`")

    def make(function: Callable[..., int]) -> Alternative:
        return alternatives(point, function, name=name)

    return make


def alternatives(
    point: str, *functions: Callable[..., int], name: str | None = None
) -> Alternative:
    """A rule of several functions, one for each question of `point` (`counting` has three).

    Raises:
        RuleError: there is no such decision point, or it has another number of questions.
    """
    questions = _point(point).questions
    if len(functions) != len(questions):
        raise RuleError(f"'{point}' answers {len(questions)} questions, {len(functions)} given")
    for function in functions:
        code = function.__code__
        if code.co_argcount != 4:
            where = f"{code.co_filename}:{code.co_firstlineno}"
            raise RuleError(f"{where}: a rule takes (s, t, k, frame), {function.__name__} does not")
    chosen = name or functions[0].__name__.replace("_", "-")
    return Alternative(point, chosen, "the user's own rule", functions, trusted=False)


def proposal(name: str, *, extends: str, about: str = "", **changes: Any) -> UserKernel:
    """A kernel of one's own: `extends` a row of the table and changes some decision points.

    A change is the name of a shipped alternative or what `@alternative` made; dashes of a decision
    point's name are written as underscores.
    """
    return UserKernel(name, extends, about, {k.replace("_", "-"): v for k, v in changes.items()})


def choose(spec: str) -> Kernel:
    """The kernel that `spec` stands for (see the head of this file).

    Raises:
        RuleError: an unknown name, decision point or alternative, or a file that does not load.
    """
    base, _, changes = _split(spec)
    kernel = _from_file(Path(base)) if base.endswith(".py") else _from_table(base)
    if not changes:
        return kernel
    choices = dict(kernel.choices)
    for change in changes.split(","):
        point, equals, chosen = change.partition("=")
        if not equals:
            raise RuleError(f"'{change}' in '{spec}' is not of the form decision=alternative")
        choices[point] = _alternative(point, chosen)
    return Kernel(spec, choices, kernel.base, kernel.file)


def _split(spec: str) -> tuple[str, str, str]:
    """The part before the colon that starts the changes, and the changes."""
    if spec.endswith(".py"):
        return spec, "", ""
    head, colon, tail = spec.partition(".py:")
    return (head + ".py", ":", tail) if colon else spec.partition(":")


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _point(name: str) -> Any:
    if name not in POINTS:
        raise RuleError(f"no decision point named '{name}'{nearest(name, POINTS)}")
    return POINTS[name]


def _alternative(point: str, name: str) -> Alternative:
    alternatives: dict[str, Alternative] = _point(point).alternatives
    if name not in alternatives:
        hint = nearest(name, alternatives) or f"; there are {', '.join(alternatives)}"
        raise RuleError(f"decision point '{point}' has no alternative '{name}'{hint}")
    return alternatives[name]


def _from_table(name: str) -> Kernel:
    if name not in kernels.names():
        raise RuleError(f"no kernel named '{name}'{nearest(name, kernels.names())}")
    chosen = {point: _alternative(point, alt) for point, alt in kernels.resolve(name).items()}
    return Kernel(name, chosen, name)


def _from_file(path: Path) -> Kernel:
    """Load `KERNEL` from a user's file of rules: trusted Python, unlike a litmus file."""
    if not path.is_file():
        raise RuleError(f"{path}: no such file of rules")
    spec = importlib.util.spec_from_file_location(f"pageherd_user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except RuleError:
        raise
    except Exception as error:
        raise RuleError(f"{_where(path, error)}: {type(error).__name__}: {error}") from error
    user = getattr(module, "KERNEL", None)
    if not isinstance(user, UserKernel):
        raise RuleError(f"{path}: no KERNEL = proposal(...) in this file")
    kernel = _from_table(user.extends)
    choices = dict(kernel.choices)
    for point, change in user.changes.items():
        choices[point] = change if isinstance(change, Alternative) else _alternative(point, change)
        if choices[point].point != point:
            raise RuleError(f"{path}: '{choices[point].name}' decides '{choices[point].point}'")
    return Kernel(user.name, choices, kernel.base, path)


def _where(path: Path, error: BaseException) -> str:
    """`file:line` of the innermost frame of the user's file."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{path}:{error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    return f"{path}:{frames[-1].lineno}" if frames else str(path)


# -- from a choice to a record of addresses --------------------------------------------------------

Progress = Callable[[int, int, str], None]


def record(
    kernel: Kernel, layout: Layout = TEST, progress: Progress | None = None
) -> np.ndarray[Any, np.dtype[Any]]:
    """The kernel as one record: the address of every step and of every chosen rule.

    What has not been compiled before is compiled now; `progress(done, total, name)` is called
    before each function.

    Raises:
        RuleError: a user's rule does not compile.
    """
    table = np.zeros(1, KERNEL_DTYPE)
    total = len(STEPS) + len(kernel.choices)
    for done, (number, function) in enumerate(sorted(STEPS.items())):
        if progress:
            progress(done, total, f"step {function.__name__}")
        table["step"][0, number] = step_address(function, layout)
    for done, chosen in enumerate(kernel.choices.values(), len(STEPS)):
        if progress:
            progress(done, total, f"rule {chosen.point}={chosen.name}")
        for question, entry in zip(
            POINTS[chosen.point].questions, entries(chosen, layout), strict=True
        ):
            table["rule"][0, question] = entry
    return table


def entries(chosen: Alternative, layout: Layout) -> tuple[int, ...]:
    """What an alternative puts into the questions' places: addresses, or its plain numbers."""
    if chosen.values:
        return chosen.values
    questions = POINTS[chosen.point].questions
    return tuple(
        _compile(chosen, function, question, layout)
        for question, function in zip(questions, chosen.functions, strict=True)
    )


def _compile(chosen: Alternative, function: RuleFunction, question: int, layout: Layout) -> int:
    if chosen.trusted:
        return rule_address(function, layout)
    try:
        return rule_address(function, layout, question)
    except Exception as error:  # Numba reports mistakes in a rule by many classes of errors
        text = f"the state has no field {error}" if isinstance(error, KeyError) else str(error)
        raise RuleError(_compile_error(chosen, function, text)) from error


def _compile_error(chosen: Alternative, function: RuleFunction, text: str) -> str:
    """Numba's long report in one line, with the line of the rule if the report has it."""
    code = function.__code__
    name = re.escape(Path(code.co_filename).name)
    line = re.search(rf'{name}"?,? (?:line |\()(\d+)', text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    what = next((line for line in lines if not line.startswith("Failed in")), "cannot compile")
    where = f"{code.co_filename}:{line[1] if line else code.co_firstlineno}"
    return f"{where}: rule '{chosen.name}' ({chosen.point}) does not compile: {what}"


def blame(kernel: Kernel, alarm: int) -> str | None:
    """Which rule of the kernel raised `alarm`, as `file:line: what it did`; None: no rule did."""
    if alarm < ALARM_RULE_RAISED:
        return None
    nonsense = alarm >= ALARM_RULE_NONSENSE
    question = alarm - (ALARM_RULE_NONSENSE if nonsense else ALARM_RULE_RAISED)
    what = "gave an answer that its question does not have" if nonsense else "raised an exception"
    for chosen in kernel.choices.values():
        for asked, function in zip(POINTS[chosen.point].questions, chosen.functions, strict=False):
            if asked == question:
                code = function.__code__
                where = f"{code.co_filename}:{code.co_firstlineno}"
                return f"{where}: rule '{chosen.name}' ({chosen.point}) {what}"
    return None
