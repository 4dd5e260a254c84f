"""A self-contained C program for one test, to hand over in a bug report.

The program does the steps of the test in their order, each in the process that must do it, and
prints one line of KTAP for each question.  Nothing of a test becomes C but checked names and
numbers; titles and sources stand in the first comment, where they cannot end it.
"""

from __future__ import annotations

from pageherd.litmus.syntax import Test
from pageherd.real.reproducer.about import shipped
from pageherd.real.reproducer.plan import plan
from pageherd.real.reproducer.program import program
from pageherd.real.reproducer.questions import Line
from pageherd.rules.choose import Kernel
from pageherd.search.check import Chosen

__all__ = ["Line", "default_kernel", "observable", "reproducer"]


def default_kernel() -> str:
    """The newest kernel of the table that shipped."""
    return shipped()[-1]


def reproducer(chosen: Chosen, kernel: Kernel) -> str:
    """The C program for one test.

    Args:
        kernel: decides by which call a raw `get` or `pin` is taken.

    Raises:
        NotSteerable: a step cannot be brought about from user space; the text says why.
    """
    return program(plan(chosen, kernel))


def observable(chosen: Chosen, kernel: Kernel) -> tuple[Test, tuple[Line, ...]]:
    """The test that the program does, probes included, and its lines; for checks by the model.

    Raises:
        NotSteerable: a step cannot be brought about from user space.
    """
    made = plan(chosen, kernel)
    return made.test, made.lines
