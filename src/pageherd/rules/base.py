"""Decision points and their alternatives: the design space that kernels choose from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pageherd.machine.jit import RuleFunction
from pageherd.machine.questions import QUESTIONS

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way to decide: a function for each question of the decision point, or plain numbers.

    `stands_for` names the kernel function, the version and the commit, or the message.
    """

    point: str
    name: str
    stands_for: str
    functions: tuple[RuleFunction, ...] = ()
    values: tuple[int, ...] = ()
    trusted: bool = True  # shipped with pageherd; a user's rule is checked at every call

    @property
    def doc(self) -> str:
        """What it does, from the docstring of its first function."""
        text = (self.functions[0].__doc__ or "") if self.functions else ""
        return " ".join(text.split())


@dataclass(slots=True)
class DecisionPoint:
    """Something that kernels decide differently, and all the ways it has been decided."""

    name: str
    questions: tuple[int, ...]
    about: str
    kernel_function: str
    alternatives: dict[str, Alternative] = field(default_factory=dict)

    def alternative(self, name: str, stands_for: str) -> Callable[[F], F]:
        """Add the decorated rule function under `name`."""

        def add(function: F) -> F:
            self._add(Alternative(self.name, name, stands_for, functions=(function,)))
            return function

        return add

    def group(self, name: str, stands_for: str, *functions: RuleFunction) -> None:
        """Add an alternative that answers several questions, one function each."""
        self._add(Alternative(self.name, name, stands_for, functions=functions))

    def value(self, name: str, value: int, stands_for: str) -> None:
        """Add an alternative that is just a number (GUP flags, a mark that exists or not)."""
        self._add(Alternative(self.name, name, stands_for, values=(value,)))

    def _add(self, alternative: Alternative) -> None:
        assert alternative.name not in self.alternatives, f"{self.name}={alternative.name} twice"
        given = len(alternative.functions) + len(alternative.values)
        assert given == len(self.questions), f"{self.name} has {len(self.questions)} questions"
        self.alternatives[alternative.name] = alternative


DECLARED: Final[dict[str, DecisionPoint]] = {}
"""The decision points declared so far; `catalog.POINTS` has them all."""


def decision_point(
    name: str, *questions: int, kernel_function: str, about: str | None = None
) -> DecisionPoint:
    """Declare a decision point that answers `questions`."""
    asks = about or QUESTIONS[questions[0]].asks
    point = DecisionPoint(name, questions, asks, kernel_function)
    DECLARED[name] = point
    return point


def no(s: Any, t: int, k: Any, frame: int) -> int:
    """Never."""
    return 0


def yes(s: Any, t: int, k: Any, frame: int) -> int:
    """Always."""
    return 1
