"""The first comment of a program: what is asked, what is known of it, how to build and run it."""

from __future__ import annotations

from itertools import groupby

from pageherd.litmus.claims import expected_claim
from pageherd.litmus.format import format_question
from pageherd.litmus.syntax import Question, Test
from pageherd.real.levers import LEVERS
from pageherd.real.reproducer.plan import Plan
from pageherd.real.reproducer.questions import asked_of
from pageherd.real.reproducer.text import WIDTH, wrapped
from pageherd.rules import kernels


def shipped() -> tuple[str, ...]:
    """The kernels of the table that are no proposals."""
    return tuple(row.name for row in kernels.ROWS if not row.proposal)


def about(plan: Plan) -> list[str]:
    """The first comment: what is asked, what is known, how to build and run it."""
    test, name = plan.chosen.test, plan.chosen.id
    title = f"{name}: {test.title}" if test.title else name
    lines = wrapped(title)
    for source in test.sources:
        lines += wrapped(f"From {source}", "")
    for note in test.notes:
        lines += ["", *wrapped(note)]
    lines += ["", "What must hold, and what is known of it:"]
    for number, question in enumerate(asked_of(test), start=1):
        asked = f"{number}. {format_question(question)}"
        known = _known(test, question, plan.chosen.variant)
        together = f"  {asked}: {known[0].strip()}" if len(known) == 1 else ""
        if together and len(together) <= WIDTH - 3:
            lines.append(together)
        else:
            lines += [*wrapped(asked, "  "), *known]
    threads = " -pthread" if test.threads else ""
    lines += [
        f"Build: gcc -O2 -Wall -Wextra -static{threads} -o reproducer reproducer.c",
        *wrapped(f"Needs: {_needs(plan)}"),
    ]
    return lines + wrapped(f"Made by pageherd reproducer {name} --kernel {plan.kernel.name}")


def _known(test: Test, question: Question, variant: str) -> list[str]:
    """What the claims say of the kernels that shipped; the reasons of what is broken."""
    claims = [(k, expected_claim(test, question, variant, k)) for k in shipped()]
    known = [
        (k, (c.verdict, c.source if c.verdict == "broken" else ""))
        for k, c in claims
        if c and c.verdict != "unknown"
    ]
    lines = []
    for (verdict, source), members in groupby(known, key=lambda pair: pair[1]):
        names = [kernel for kernel, _ in members]
        where = names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}"
        lines += wrapped(f"{verdict} on {where}" + (f": {source}" if source else ""), "     ")
    return lines


def _needs(plan: Plan) -> str:
    used = [LEVERS[step.verb] for step in plan.steps]
    since = max((lever.since for lever in used if lever.since), key=_version, default="")
    configs = [part.strip() for lever in used for part in lever.config.split(",") if part.strip()]
    swap = {"none": "no swap", "zram": "swap on zram"}.get(plan.test.swap.kind, "swap on a disk")
    parts = [
        f"Linux {since} or later" if since else "Linux",
        *dict.fromkeys(f"CONFIG_{name}" if name.isupper() else name for name in configs),
        *([swap] if plan.swap else []),
        *(["root"] if _root(plan) else []),
    ]
    return ", ".join(parts)


def _root(plan: Plan) -> bool:
    """Whether the program needs more than an ordinary user may do."""
    off = any(step.verb == "swapoff" for step in plan.steps)
    return off or plan.copies or plan.found.zeros or bool(plan.devices)


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))
