"""The tables of README.md and docs/ that are made from the source: scripts/tables.py [--write].

Without --write it changes nothing and exits with 1 if a table is out of date.  A table stands
between `<!-- table NAME -->` and `<!-- end of table -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from pageherd.machine.questions import QUESTIONS
from pageherd.machine.verbs import VERBS
from pageherd.promises.table import PROMISES
from pageherd.real.levers import LEVERS, NOT_STEERABLE, Lever
from pageherd.rules import kernels
from pageherd.rules.base import DecisionPoint
from pageherd.rules.calls import CALLS
from pageherd.rules.catalog import POINTS
from pageherd.search.check import Checker, find_all
from pageherd.search.counts import KINDS, SCHEMES, Tally, tallies

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_TABLE = re.compile(r"(?s)(<!-- table (\w+) -->\n).*?(<!-- end of table -->)")

SHIPPED = [row.name for row in kernels.ROWS if not row.proposal]
CHOICES = {name: kernels.resolve(name) for name in kernels.names()}


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def users(point: str, alternative: str) -> str:
    """Which kernels chose an alternative; neighbours in the table as a range."""
    chosen = [name for name, choices in CHOICES.items() if choices[point] == alternative]
    words: list[str] = []
    shipped = [name for name in SHIPPED if name in chosen]
    while shipped:
        run = [shipped.pop(0)]
        while shipped and SHIPPED.index(shipped[0]) == SHIPPED.index(run[-1]) + 1:
            run.append(shipped.pop(0))
        if len(run) > 2:
            words.append(f"`{run[0]}` to `{run[-1]}`")
        else:
            words += [f"`{name}`" for name in run]
    words += [f"`{name}`" for name in chosen if name not in SHIPPED]
    return ", ".join(words) or "none"


def overview() -> str:
    rows = [
        (f"[`{point.name}`](#{point.name})", point.about, f"`{point.kernel_function}`")
        for point in POINTS.values()
        if point.name not in CALLS
    ]
    return table(("decision point", "asks", "asked in"), rows)


def rules() -> str:
    return "\n".join(section(point) for point in POINTS.values() if point.name not in CALLS)


def section(point: DecisionPoint) -> str:
    first = QUESTIONS[point.questions[0]]
    answers = ", ".join(f"{n} {word}" for n, word in enumerate(first.answers))
    functions = len(point.questions)
    how = f"Answers: {answers}." if answers else f"Answers: numbers; {functions} functions."
    rows = [
        (f"`{name}`", alternative.doc, alternative.stands_for, users(point.name, name))
        for name, alternative in point.alternatives.items()
    ]
    asks = point.about[0].upper() + point.about[1:]
    head = f"### {point.name}\n\n{asks} Asked in `{point.kernel_function}`. {how}\n\n"
    return head + table(("alternative", "what it does", "stands for", "chosen by"), rows)


def calls() -> str:
    rows = []
    for call, (_, function) in CALLS.items():
        used: dict[str, None] = dict.fromkeys(CHOICES[name][call] for name in CHOICES)
        first = True
        for flags in used:
            rows.append(
                (
                    f"`{call}`" if first else "",
                    f"`{function}`" if first else "",
                    f"`{flags}`",
                    users(call, flags),
                )
            )
            first = False
    return table(("call", "kernel function", "FOLL flags", "chosen by"), rows)


def kernel_table() -> str:
    rows = [
        (f"`{row.name}`", row.version, row.about, f"`{row.extends}`" if row.extends else "")
        for row in kernels.ROWS
    ]
    return table(("kernel", "read in", "rules in a line", "extends"), rows)


def promise_table() -> str:
    rows = [(f"[`{p.name}`](#{p.name})", p.broken_when) for p in PROMISES]
    return table(("promise", "broken when"), rows)


def levers() -> str:
    rows = [
        (f"`{verb}`", LEVERS[verb].call, needs(LEVERS[verb]), LEVERS[verb].since)
        for verb in VERBS
        if verb in LEVERS
    ]
    return table(("step", "done by", "needs", "since"), rows)


def needs(lever: Lever) -> str:
    """What must be there, beside the kernel's version."""
    return "; ".join(word for word in (lever.config, lever.privilege) if word)


def without_lever() -> str:
    rows = [(f"`{verb}`", why) for verb, why in NOT_STEERABLE.items()]
    return table(("step", "why not"), rows)


def counts() -> str:
    """How wrong user space is told, over the library."""
    checker, library = Checker(), find_all()
    rows = []
    for scheme in SCHEMES:
        tally = tallies(library, scheme, "linux-6.18", checker)
        rows.append((f"`{scheme}`", *(share(tally[kind]) for kind in KINDS)))
    return table(("counting", *KINDS), rows)


def share(tally: Tally) -> str:
    return f"{100 * tally.wrong / tally.readings:.1f} %" if tally.wrong else "never"


TABLES: dict[str, Callable[[], str]] = {
    "overview": overview,
    "rules": rules,
    "calls": calls,
    "kernels": kernel_table,
    "promises": promise_table,
    "levers": levers,
    "without_lever": without_lever,
    "counts": counts,
}


def up_to_date(text: str) -> str:
    """The text of a page with its tables made anew."""
    return _TABLE.sub(lambda found: found[1] + "\n" + TABLES[found[2]]() + "\n" + found[3], text)


def main() -> int:
    stale = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if up_to_date(text) != text:
            stale.append(page.name)
            if "--write" in sys.argv[1:]:
                page.write_text(up_to_date(text), encoding="utf-8")
    for name in stale:
        print(f"{name}: {'written' if '--write' in sys.argv[1:] else 'out of date'}")
    return 1 if stale and "--write" not in sys.argv[1:] else 0


if __name__ == "__main__":
    raise SystemExit(main())
