"""docs/history.md: what tells each kernel of the table from the one before: [--write].

Without --write it changes nothing and exits with 1 if the page is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from pageherd.rules import kernels
from pageherd.search.diff import Difference, Distinction, Observe, diff
from pageherd.search.why import Reason

PAGE = Path(__file__).parents[1] / "docs" / "history.md"
SCOPE = "2,1,1,1"
MAX_PAIRS = 400_000  # of states; beyond that nothing is said
PROMISES = ("private", "own-writes", "pin-coherent")
ROWS = tuple(row.name for row in kernels.ROWS if not row.proposal)
PAIRS = tuple(pairwise(ROWS))

HEAD = f"""# The history of the rules, in shortest programs

For each kernel and the one before it: a shortest program on which one of them keeps a promise of
user space and the other does not; where no promise differs, one that reads another value, copies
another number of pages, or shows other counts. Beside it the single rules that turn one kernel's
answer into the other's. All programs of the scope {SCOPE} (processes, pages, references, swap
slots) were compared, of any length; `scripts/history.py --write` makes this page anew, and

```
pageherd diff linux-6.1 linux-6.12 --scope {SCOPE} --why
```

does the same for one pair. What differs only beyond the scope (two references, several pages,
another swap device), or beyond {MAX_PAIRS:,} pairs of states, is not seen here.
"""


def compare(one: str, other: str) -> list[Difference]:
    """What differs: each promise by itself, else the first of values, copies and counts."""
    found = [
        diff(one, other, SCOPE, "promises", why=True, promises=(p,), max_states=MAX_PAIRS)
        for p in PROMISES
    ]
    observe: tuple[Observe, ...] = ("promises", "values", "copies", "counts")
    if not any(each.found for each in found):
        found.append(diff(one, other, SCOPE, observe, why=True, max_states=MAX_PAIRS))
    return found


def section(one: str, other: str) -> str:
    """The part of the page about one pair of kernels."""
    row = kernels.row(other)
    found = compare(one, other)
    lines = [f"## {one} to {other}", "", f"{other}: {row.version}; {row.about}.", ""]
    for difference in found:
        for program in difference.programs:
            lines += described(difference, program)
    if not any(each.found for each in found):
        whole = all(each.complete for each in found)
        lines += ["No difference in the scope." if whole else "None found before a bound.", ""]
    return "\n".join(lines)


def described(difference: Difference, program: Distinction) -> Iterator[str]:
    one, other = difference.kernels
    what = f"`{program.promise}`" if program.promise else difference.observe[-1]
    yield f"By {what}: {one} shows {program.shows[0]}, {other} shows {program.shows[1]}."
    yield from ("", "```", *program.operations, "```", "")
    if program.slots is not None:
        yield from (f"This needs a swap device of {program.slots} pages.", "")
    for reason in program.why:
        yield from because(reason)
    if not program.why:
        yield "- No single rule and no pair of rules makes the difference."
    yield ""


def because(reason: Reason) -> Iterator[str]:
    yield f"- `{reason.spec}` is enough:"
    for change in reason.changes:
        yield f"  `{change.point}` is `{change.after}` ({change.stands_for})"
        yield f"  in place of `{change.before}`."


def page() -> str:
    parts = [HEAD]
    for one, other in PAIRS:
        print(f"{one} and {other}", file=sys.stderr)
        parts.append(section(one, other))
    return "\n".join(parts).rstrip() + "\n"


def main() -> int:
    text = page()
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    if "--write" not in sys.argv[1:]:
        print(f"{PAGE.name}: out of date")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"{PAGE.name}: written")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
