"""Traces: the shortest run that reaches a broken promise, step by step, with what each changed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from pageherd.litmus.format import format_step
from pageherd.machine.describe import Labels, changes, facts, reasons
from pageherd.machine.drive import STEP_LIMIT, drive_begin
from pageherd.machine.jit import STEPS, records
from pageherd.machine.layout import TEST, words_compared
from pageherd.machine.questions import QUESTIONS
from pageherd.machine.steps import BLOCKED, IDLE, WRITE_REF
from pageherd.machine.watch import PROGRESS
from pageherd.promises.table import PROMISES
from pageherd.rules.catalog import POINTS
from pageherd.rules.choose import Kernel
from pageherd.search.explore import Path
from pageherd.search.program import Program
from pageherd.search.store import leaks, step_checked


@dataclass(frozen=True, slots=True)
class Decision:
    """A rule that was asked: decision point, alternative chosen by the kernel, its answer."""

    point: str
    alternative: str
    answer: str


@dataclass(frozen=True, slots=True)
class StepTrace:
    """One step of a kernel path: where it stands for, what it changed, which rules it asked."""

    kernel_function: str
    about: str
    changes: tuple[str, ...]
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class Breach:
    """A promise that an operation broke, and why in words (empty where the steps say it all)."""

    promise: str
    why: str


@dataclass(frozen=True, slots=True)
class OperationTrace:
    """One operation: its line in the test, its result, its steps, the promises it broke.

    Of a group by step: a stretch of it without another thread's steps between; a comment in the
    line says which.
    """

    text: str
    result: int | None
    steps: tuple[StepTrace, ...]
    broke: tuple[Breach, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """The operations of one run in order; `left_over` names promises broken at the very end.

    Of a run that stops before its end, and broke nothing until then, that is `progress`.
    """

    kernel: str
    operations: tuple[OperationTrace, ...]
    left_over: tuple[str, ...]

    @property
    def listing(self) -> list[str]:
        """The operations as lines of a test."""
        return [operation.text for operation in self.operations]


def trace(program: Program, kernel: Kernel, record: Any, path: Path) -> Trace:
    """Run `path` again, one step at a time, and note what each step did."""
    replay = _Replay(program, kernel, record)
    taken = (edge.operation for edge in path if not edge.left_out)
    operations = [replay.operation(number, len(list(run))) for number, run in groupby(taken)]
    complete = replay.ended + sum(edge.left_out for edge in path) == len(program.operations)
    left_over: tuple[str, ...] = ()
    if complete:
        left_over = replay.left_over()
    elif not operations or not operations[-1].broke:
        left_over = (PROMISES[PROGRESS].name,)
    return Trace(kernel.name, tuple(operations), left_over)


class _Replay:
    def __init__(self, program: Program, kernel: Kernel, record: Any) -> None:
        self.program = program
        self.kernel = kernel
        self.record = record
        self.states = program.first.copy()
        self.ended = 0  # operations
        names = program.names
        self.labels = Labels(names.processes, names.threads, names.pages, names.references)

    def operation(self, number: int, run: int) -> OperationTrace:
        """Run an operation to its end, or in a group by step so many steps of it."""
        operation = self.program.operations[number]
        thread, by_step = operation.thread, self.program.by_step[operation.group]
        self.states["broke"][0] = 0
        before = self.states[0].copy()
        goes_on = before["t_pc"][thread] != IDLE
        if not goes_on:
            ops = records(self.program.ops)
            drive_begin(records(self.states), 0, records(self.record), ops, number)
        steps, seen = [], set()
        for _ in range(run if by_step else STEP_LIMIT):
            pc = int(self.states["t_pc"][0, thread])
            taken, following = self._step(pc, thread)
            steps.append(taken)
            waits_forever = following == BLOCKED and not by_step
            if following == IDLE or waits_forever or self.states["alarm"][0]:
                break
            now = self.states.tobytes()[: words_compared(TEST)]
            if now in seen and not by_step:
                self.states["broke"][0] |= 1 << PROGRESS
                break
            seen.add(now)
        ended = self.states["t_pc"][0, thread] == IDLE
        self.ended += ended
        register = operation.register if ended else 0
        result = int(self.states["reg"][0, register - 1]) if register else None
        through = operation.pc == WRITE_REF
        owner = int(before["ref_mm"][operation.ref]) if through else operation.mm
        why = dict(reasons(before, self.states[0], self.labels, owner))
        broke = tuple(Breach(name, why.get(name, "")) for name in self._broke())
        text = format_step(self.program.steps[number]) + _stretch(bool(goes_on), bool(ended))
        return OperationTrace(text, result, tuple(steps), broke)

    def _step(self, pc: int, thread: int) -> tuple[StepTrace, int]:
        before = dict(facts(self.states[0], self.labels))
        asked = self.record["asked"][0].copy()
        following = step_checked(records(self.states), 0, records(self.record), thread)
        after = dict(facts(self.states[0], self.labels))
        decisions = self._decisions(np.flatnonzero(self.record["asked"][0] != asked).tolist())
        function, about = _doc_of(pc)
        return StepTrace(function, about, tuple(changes(before, after)), decisions), following

    def _decisions(self, questions: list[int]) -> tuple[Decision, ...]:
        found = []
        for point in POINTS.values():
            for question in point.questions:
                words = QUESTIONS[question].answers
                if question in questions and words and self.kernel.choices[point.name].functions:
                    answer = words[int(self.record["answer"][0, question])]
                    found.append(Decision(point.name, self.kernel.of(point.name), answer))
        return tuple(found)

    def _broke(self) -> tuple[str, ...]:
        bits = int(self.states["broke"][0])
        return tuple(promise.name for promise in PROMISES if bits >> promise.number & 1)

    def left_over(self) -> tuple[str, ...]:
        bits = leaks(records(self.states.copy()), 0, records(self.record))
        return tuple(promise.name for promise in PROMISES if bits >> promise.number & 1)


def _stretch(goes_on: bool, ended: bool) -> str:
    """A comment, if a stretch is not the whole operation."""
    if goes_on:
        return "  # goes on" if ended else "  # goes on, not to its end"
    return "" if ended else "  # not to its end"


def _doc_of(pc: int) -> tuple[str, str]:
    """The kernel function that a step stands for, and what it does, from its docstring."""
    function = STEPS[pc]
    first = " ".join((function.__doc__ or "").split("\n\n")[0].split())
    head, colon, rest = first.partition("(): ")
    if colon and " " not in head:
        return f"{head}()", rest
    return function.__name__, first
