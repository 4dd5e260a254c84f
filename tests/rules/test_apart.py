"""The library tells rules apart: a mutation test over the rule table.

For every decision point and every two alternatives that rows of the table use, some test has
another verdict or another set of outcomes when nothing but that decision is switched.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import combinations

import pytest

from library import checker, library
from pageherd.rules import kernels
from pageherd.rules.calls import CALLS
from pageherd.rules.catalog import POINTS
from pageherd.rules.choose import choose, record
from pageherd.search.explore import explore_program
from pageherd.search.verdict import judge

Signature = tuple[object, ...]

# Decisions that only save a fault while write faults believe the mark; they show where they do not.
ELSEWHERE = {
    "mprotect-upgrade": ("linux-6.1:reuse=by-refcount-after-drop",),
    "swapin-read-maps": ("linux-6.1:reuse=by-refcount-after-drop",),
    "unshare-in-place": (
        "linux-6.1:unshare=mapped-more-than-once",
        "linux-6.1:reuse=by-refcount-after-drop",
    ),
    "migration-dirty": ("linux-6.1:reuse=by-refcount-after-drop",),
    "swapin-drop": ("linux-6.1:swapin-tail=mapped",),
    "numa-write": ("linux-5.10:numa-skips=not-mapped-once",),
    "uffd-unprotect": ("linux-6.1:reuse=by-refcount-after-drop",),
}

NOT_APART = {
    "copy-drops-swap": "shows in how much swap is used: reclaim leaves a page that is held alone",
    "migration-order": "shows only in the middle of a migration: machine/test_schedule_migration",
    "migration-soft-dirty": "no verb tells soft-dirty bits: `pageherd real` and `conform` do",
    "mprotect-soft-dirty": "no verb tells soft-dirty bits: `pageherd real` and `conform` do",
    "numa-gup": "GUP ends with the page, whether it has taken the hinting fault first or not",
    "zero-pin": "the zero page is never freed and no rule reads its count",
}

PAIRS_NOT_APART = {
    ("vma-merge", "unfaulted-too", "sticky-soft-dirty"): "no verb tells soft-dirty bits:"
    " `pageherd real` does, of merged-mapping-soft-dirty on 7.3",
}

# FOLL_ flags whose change no whole operation shows.
FLAGS_NOT_APART = {
    "copy-drops-swap": "shows in how much swap is used: reclaim leaves a page that is held alone",
    "fast": "gup-fast without interleaving ends where the slow path ends",
    "longterm": "a pin for writing replaces the zero page anyway, a transient reference is gone;"
    " what is left is migration out of movable zones",
}
LONGTERM_SHOWS = {
    ("vfio-ro", "pin-longterm"),
    ("vfio-ro", "get-longterm"),
    ("rdma-ro", "pin-longterm-fast"),
    ("rdma-ro", "get-write-force-longterm"),
    ("rdma", "get-write-longterm"),
    ("vfio", "get-write-longterm"),
    ("io-uring", "get-write-longterm"),
    ("raw-pin", "get-longterm"),
    ("vmsplice", "get-fast"),
    ("odirect-write", "pin-fast"),
}


@cache
def signature(spec: str, index: int) -> Signature:
    """Everything that a test shows on a kernel."""
    chosen = library()[index]
    found = explore_program(checker().program(chosen), _record(spec))
    verdict = judge(chosen.test, chosen.variant, spec, found)
    return (
        tuple(answer.verdict for answer in verdict.answers),
        frozenset(found.broken),
        frozenset((tuple(sorted(o.registers.items())), o.copies) for o in found.outcomes),
    )


@cache
def _record(spec: str) -> object:
    return record(choose(spec))


def switched(base: str, point: str, alternative: str) -> str:
    joint = "," if ":" in base else ":"
    return f"{base}{joint}{point}={alternative}"


def told_apart(point: str, first: str, second: str, bases: Iterable[str]) -> bool:
    return any(
        signature(switched(base, point, first), index)
        != signature(switched(base, point, second), index)
        for base in bases
        for index in range(len(library()))
    )


def users(point: str, *alternatives: str) -> list[str]:
    return [n for n in kernels.names() if kernels.resolve(n)[point] in alternatives]


def used(point: str) -> list[str]:
    return list(dict.fromkeys(kernels.resolve(name)[point] for name in kernels.names()))


PAIRS = [
    (point, first, second)
    for point in POINTS
    if point not in CALLS
    for first, second in combinations(used(point), 2)
]


@pytest.mark.parametrize(("point", "first", "second"), PAIRS)
def test_two_alternatives_are_told_apart(point: str, first: str, second: str) -> None:
    bases = [*ELSEWHERE.get(point, ()), *users(point, first, second)]
    excused = point in NOT_APART or (point, first, second) in PAIRS_NOT_APART
    assert told_apart(point, first, second, bases) != excused


def toggled(alternative: str) -> dict[str, str]:
    """The alternatives that differ in one flag: `{flag: alternative}`."""
    kind, *modifiers = alternative.split("-")
    order = ("write", "force", "longterm", "fast")

    def spell(kind: str, chosen: set[str]) -> str:
        return "-".join([kind, *(m for m in order if m in chosen)])

    found = {"get/pin": spell("pin" if kind == "get" else "get", set(modifiers))}
    for flag in order:
        found[flag] = spell(kind, set(modifiers) ^ {flag})
    return found


FLAGS = [
    (call, alternative, flag, other)
    for call in CALLS
    for alternative in used(call)
    for flag, other in toggled(alternative).items()
    if flag not in FLAGS_NOT_APART or (flag == "longterm" and (call, alternative) in LONGTERM_SHOWS)
]


@pytest.mark.parametrize(("call", "alternative", "flag", "other"), FLAGS)
def test_the_flags_of_a_call_are_told_apart(
    call: str, alternative: str, flag: str, other: str
) -> None:
    assert told_apart(call, alternative, other, [*users(call, alternative), *kernels.names()])


def test_what_cannot_be_told_apart_is_still_so() -> None:
    """If gup-fast or a transient pin ever shows, the excuse above is out of date."""
    assert not told_apart("vmsplice", "get-fast", "get", ["linux-5.10", "linux-6.1", "linux-7.3"])
    assert not told_apart("io-uring", "pin-write-longterm", "pin-write", ["linux-6.1"])


def test_every_rule_is_asked_by_some_test() -> None:
    from pageherd.search.explore import never_asked, never_taken

    found = [
        checker().check(chosen, kernel).exploration
        for chosen in library()
        for kernel in kernels.names()
    ]
    assert never_asked(found) == []
    assert never_taken(found) == []
