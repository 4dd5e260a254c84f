"""Exploring a program on a kernel: every outcome, and the shortest way to each broken promise."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from pageherd.errors import ModelError
from pageherd.machine.jit import ALARMS, STEPS, records
from pageherd.machine.layout import dtype, words_compared
from pageherd.promises.table import PROMISES
from pageherd.rules.catalog import POINTS
from pageherd.search import store
from pageherd.search.program import Program

FIRST_CAPACITY: Final = 64
MAX_STATES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Edge:
    """One operation of a program, run or (where the test says `maybe`) left out.

    In a group by step: the next step of that operation.
    """

    operation: int
    left_out: bool = False


Path = tuple[Edge, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One way in which the program can end."""

    registers: dict[str, int]
    copies: int
    path: Path


@dataclass(frozen=True, slots=True)
class Exploration:
    """Everything that a search found out.

    `complete`: the whole space was explored.  `pruned` counts runs that ended because `alive`
    broke; `stuck` is the alarm of a run that could not go on (a kernel path that comes to no end, a
    count too large), or 0.  What such runs leave unproven is undetermined.
    """

    hash: str  # of the test's meaning
    outcomes: tuple[Outcome, ...]
    broken: dict[str, Path]
    states: int
    transitions: int
    seconds: float
    complete: bool
    pruned: int
    stuck: int
    steps_reached: frozenset[int] = field(default_factory=frozenset)
    questions_asked: frozenset[int] = field(default_factory=frozenset)

    @property
    def proves(self) -> bool:
        """Whether what was not found cannot happen."""
        return self.complete and self.pruned == 0 and self.stuck == 0


def explore_program(program: Program, kernel: Any, max_states: int = MAX_STATES) -> Exploration:
    """Run `program` in every way on `kernel` (a record made by `rules.choose.record`).

    Raises:
        ModelError: a rule raised or gave nonsense, or a path does not come to an end.
    """
    started = time.perf_counter()
    capacity = min(FIRST_CAPACITY, max_states)
    while True:
        tables = _Tables(program, capacity)
        kernel["asked"] = 0
        kernel["stepped"] = 0
        tables.search(program, kernel)
        if tables.summary[store.FULL] == 0 or capacity >= max_states:
            break
        capacity = min(capacity * 16, max_states)
    if tables.summary[store.ALARM] != 0:
        raise tables.alarm()
    return tables.result(program, kernel, time.perf_counter() - started)


class _Tables:
    """The arrays that one compiled search fills."""

    def __init__(self, program: Program, capacity: int) -> None:
        record = dtype(program.layout)
        self.states = np.zeros(capacity + 1, record)
        self.states[0] = program.first[0]
        self.words = self.states.view(np.uint64).reshape(capacity + 1, record.itemsize // 8)
        self.compared = words_compared(program.layout) // 8
        size = 1 << (2 * capacity - 1).bit_length()
        self.table = np.full(size, -1, np.int32)
        self.parents = np.zeros(capacity, np.int32)
        self.edges = np.zeros(capacity, np.int32)
        self.finals = np.zeros(capacity, np.int32)
        self.weights = np.zeros(capacity, np.int32)
        self.broken = np.full((store.NR_PROMISES, 3), -1, np.int32)
        self.summary = np.zeros(store.SUMMARY, np.int64)

    def search(self, program: Program, kernel: Any) -> None:
        with np.errstate(over="ignore"):  # the hash wraps on purpose
            self._search(program, kernel)

    def _search(self, program: Program, kernel: Any) -> None:
        store.search(
            records(self.states),
            self.words,
            self.compared,
            self.table,
            self.parents,
            self.edges,
            self.finals,
            self.weights,
            self.broken,
            self.summary,
            records(kernel),
            records(program.ops),
            program.full,
            program.by_step,
            program.main_group,
        )

    def path(self, node: int, *last: int) -> Path:
        """The edges from the first state to `node`, then `last`."""
        edges = [edge for edge in last if edge >= 0]
        while self.parents[node] >= 0:
            edges.insert(0, int(self.edges[node]))
            node = int(self.parents[node])
        return tuple(Edge(edge // 2, bool(edge % 2)) for edge in edges)

    def alarm(self) -> ModelError:
        edge = int(self.summary[store.ALARM_EDGE])
        path = self.path(int(self.summary[store.ALARM_PARENT]), edge)
        alarm = int(self.summary[store.ALARM])
        return ModelError(ALARMS.get(alarm, "a rule failed"), alarm, path)

    def result(self, program: Program, kernel: Any, seconds: float) -> Exploration:
        broken = {
            promise.name: self.path(
                int(self.broken[promise.number, 0]), int(self.broken[promise.number, 1])
            )
            for promise in PROMISES
            if self.broken[promise.number, 0] >= 0
        }
        outcomes = []
        for node in self.finals[: int(self.summary[store.FINAL])]:
            record = self.states[node]
            values = {
                name: int(record["reg"][index])
                for index, name in enumerate(program.names.registers)
            }
            outcomes.append(Outcome(values, int(record["copies"]), self.path(int(node))))
        return Exploration(
            hash=program.hash,
            outcomes=tuple(outcomes),
            broken=broken,
            states=int(self.summary[store.STATES]),
            transitions=int(self.summary[store.TRANSITIONS]),
            seconds=seconds,
            complete=bool(self.summary[store.FULL] == 0),
            pruned=int(self.summary[store.PRUNED]),
            stuck=int(self.summary[store.STUCK]),
            steps_reached=frozenset(np.flatnonzero(kernel["stepped"][0]).tolist()),
            questions_asked=frozenset(np.flatnonzero(kernel["asked"][0]).tolist()),
        )


def never_asked(explorations: Iterable[Exploration]) -> list[str]:
    """The decision points that no exploration ever asked: nothing is said about their rules."""
    asked = frozenset[int]().union(*(found.questions_asked for found in explorations))
    return [p.name for p in POINTS.values() if not asked.intersection(p.questions)]


def never_taken(explorations: Iterable[Exploration]) -> list[str]:
    """The steps that no exploration ever took."""
    taken = frozenset[int]().union(*(found.steps_reached for found in explorations))
    return [function.__name__ for number, function in sorted(STEPS.items()) if number not in taken]
