"""Planted faults: a step is replaced in a kernel's table; nothing else is compiled again."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from library import checker, library
from pageherd.machine.jit import STEPS, helper, step_address
from pageherd.machine.layout import TEST
from pageherd.rules.choose import choose, record
from pageherd.search.explore import explore_program
from pageherd.search.verdict import judge

StepFunction = Callable[[Any, int, Any], int]

KERNELS = ("linux-6.1", "linux-5.10")


def sound(number: int) -> Any:
    """The step as it should be."""
    return helper(STEPS[number])


@cache
def kept_promises(kernel: str) -> dict[str, frozenset[str]]:
    """What each test breaks on the sound machine."""
    return {
        chosen.id: frozenset(checker().check(chosen, kernel).exploration.broken)
        for chosen in library()
    }


def caught(
    number: int, fault: StepFunction, kernels: tuple[str, ...] = KERNELS
) -> set[tuple[str, str, str]]:
    """(promise, test, kernel) for each promise that only the faulty machine breaks."""
    found = set()
    for kernel in kernels:
        table = record(choose(kernel))
        table["step"][0, number] = step_address(fault, TEST, keep=False)
        for chosen in library():
            broken = explore_program(checker().program(chosen), table).broken
            for promise in set(broken) - kept_promises(kernel)[chosen.id]:
                found.add((promise, chosen.id, kernel))
    return found


def contradicted(
    number: int, fault: StepFunction, kernels: tuple[str, ...] = KERNELS
) -> set[tuple[str, str]]:
    """(test, kernel) for each test of which a claim fails on the faulty machine."""
    found = set()
    for kernel in kernels:
        table = record(choose(kernel))
        table["step"][0, number] = step_address(fault, TEST, keep=False)
        for chosen in library():
            explored = explore_program(checker().program(chosen), table)
            if judge(chosen.test, chosen.variant, kernel, explored).agrees is False:
                found.add((chosen.id, kernel))
    return found
