"""Formatting and parsing are inverse to each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pageherd.litmus import format_test, identity, parse, parse_file
from pageherd.litmus.syntax import (
    And,
    Claim,
    Comparison,
    Condition,
    Copies,
    FileKind,
    FileLine,
    Group,
    Keeps,
    KernelRange,
    Not,
    Or,
    Outcome,
    PageOf,
    Placement,
    Polarity,
    Prepare,
    Question,
    Step,
    Swap,
    SwapKind,
    Test,
    Thread,
    Variant,
)
from pageherd.litmus.words import PROMISES
from pageherd.machine.verbs import LISTS, PROT_WORDS, VERBS, Actor, Kind, Result, Verb

SAMPLES = sorted((Path(__file__).parent / "samples").glob("*.litmus"))
TEXT = st.text(
    st.characters(exclude_categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")), max_size=20
)
POLARITIES: tuple[Polarity, ...] = ("forbid", "allow", "require")
FILE_KINDS: tuple[FileKind, ...] = ("memfd", "tmpfile", "hugetlb")
SWAP_KINDS: tuple[SwapKind, ...] = ("disk", "slow", "zram", "none")
WORDS = {Result.STATUS: ("ok", "fault"), Result.STATE: ("absent", "swapped"), Result.VALUE: ()}


class Author:
    """Writes random tests that make sense, keeping track of what exists."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.processes = ["P", "C", "Q", "R_1"][: draw(st.integers(1, 4))]
        self.threads = draw(
            st.lists(st.sampled_from(self.processes), max_size=3).map(
                lambda owners: [Thread(f"T{n}", owner) for n, owner in enumerate(owners)]
            )
        )
        self.pages = ["a", "b2", "c_"][: draw(st.integers(1, 3))]
        self.unborn = [name for name in self.processes[1:] if draw(st.booleans())]
        self.bound: dict[str, Result] = {}
        self.gone: set[str] = set()
        self.live: list[str] = []

    def of(self, *options: object) -> object:
        return self.draw(st.sampled_from(options))

    def existing(self) -> list[str]:
        return [name for name in self.processes if name not in self.unborn]

    def actors(self) -> list[str]:
        alive = [name for name in self.existing() if name not in self.gone]
        return alive + [thread.name for thread in self.threads if thread.process in alive]

    def argument(self, kind: Kind) -> object:
        page = self.of(*self.pages)
        if kind is Kind.FRAME and self.live and self.draw(st.booleans()):
            return self.of(*self.live)
        if kind in (Kind.REMOTE, Kind.FRAME):
            return PageOf(str(self.of(*self.existing())), str(page))
        if kind in LISTS:
            chosen = self.draw(st.sets(st.sampled_from(LISTS[kind])))
            return tuple(word for word in LISTS[kind] if word in chosen)
        simple: dict[Kind, st.SearchStrategy[object]] = {
            Kind.PAGE: st.just(page),
            Kind.REFERENCE: st.sampled_from(self.live or [""]),
            Kind.PROCESS: st.sampled_from(self.existing()),
            Kind.PROT: st.sampled_from(PROT_WORDS),
            Kind.NUMBER: st.integers(1, 3),
            Kind.VALUE: st.integers(0, 0xFFFF),
        }
        return self.draw(simple[kind])

    def possible(self, plain: bool) -> list[Verb]:
        """The verbs that can be used now; plain ones bind nothing and end nothing."""
        return [
            verb
            for verb in VERBS.values()
            if not (Kind.REFERENCE in verb.arguments and not self.live)
            and Kind.HUGE not in verb.arguments  # no test that is made up has huge ranges
            and not (verb.name == "fork" and (plain or not self.unborn))
            and not (plain and verb.name in ("exit", "release"))
            and not (verb.result is Result.REFERENCE and (plain or len(self.live) > 3))
            and not (verb.actor is Actor.PROCESS and not self.actors())
        ]

    def step(self, plain: bool = False) -> Step:
        verb = self.draw(st.sampled_from(self.possible(plain)))
        thread = "kernel" if verb.actor is Actor.KERNEL else str(self.of(*self.actors()))
        maybe = self.draw(st.booleans()) and verb.name != "fork"
        kinds = verb.arguments
        if verb.optional and self.draw(st.booleans()):
            kinds = kinds[: -verb.optional]
        if verb.name == "fork":
            arguments: tuple[object, ...] = (self.unborn.pop(0),)
        else:
            arguments = tuple(self.argument(kind) for kind in kinds)
        result = None
        needed = verb.result is Result.REFERENCE
        if needed or (not plain and len(self.bound) < 10 and self.draw(st.booleans())):
            result = f"x{len(self.bound)}"
            self.bound[result] = verb.result
            if needed:
                self.live.append(result)
        if verb.name == "exit" and not maybe:
            self.gone.add(next((t.process for t in self.threads if t.name == thread), thread))
        if verb.name == "release" and not maybe:
            self.live.remove(str(arguments[0]))
        return Step(thread, verb.name, arguments, result, maybe)  # type: ignore[arg-type]

    def steps(self, least: int, most: int, plain: bool) -> tuple[Step, ...]:
        return tuple(self.step(plain) for _ in range(self.draw(st.integers(least, most))))

    def condition(self, depth: int = 0) -> Condition:
        kind = self.draw(st.integers(0, 3 if depth < 3 else 0))
        if kind == 0:
            return self.comparison()
        if kind == 1:
            return Not(self.condition(depth + 1))
        junction = And if kind == 2 else Or
        parts: list[Condition] = []
        while len(parts) < 2:
            part = self.condition(depth + 1)
            parts += part.parts if isinstance(part, junction) else (part,)
        return junction(tuple(parts))

    def comparison(self) -> Comparison:
        registers = [name for name, kind in self.bound.items() if kind is not Result.REFERENCE]
        name = str(self.of(*registers))
        alike = [other for other in registers if self.bound[other] is self.bound[name]]
        right: list[int | str] = [*WORDS[self.bound[name]], *alike]
        if self.bound[name] is Result.VALUE:
            right += [0, 9, 10, 0xFFFF, "fault"]
        return Comparison(name, self.of("=", "!="), self.of(*right))  # type: ignore[arg-type]

    def claims(self, variants: list[str]) -> tuple[Claim, ...]:
        sources = st.none() | TEXT
        claims = [
            Claim("broken", (KernelRange(f"linux-{n}"),), (), self.draw(sources))
            for n in range(self.draw(st.integers(0, 2)))
        ]
        if bool(variants) and self.draw(st.booleans()):
            ranges = (KernelRange("linux-0", "linux-7.y"), KernelRange("mine"))
            claims.append(Claim("unknown", ranges, (variants[0],), self.draw(sources)))
        elif self.draw(st.booleans()):
            claims.append(Claim("kept", (), tuple(variants), self.draw(sources)))
            if variants:
                claims = claims[-1:]
        return tuple(claims)

    def questions(self, variants: list[str]) -> tuple[Question, ...]:
        asked: list[Question] = []
        if any(kind is not Result.REFERENCE for kind in self.bound.values()):
            for polarity in self.draw(st.sets(st.sampled_from(POLARITIES))):
                asked.append(Outcome(polarity, self.condition(), self.claims(variants)))
        for promise in sorted(self.draw(st.sets(st.sampled_from(PROMISES), max_size=3))):
            asked.append(Keeps(promise, self.claims(variants)))
        for number in sorted(self.draw(st.sets(st.integers(0, 0xFFFF), max_size=2))):
            operator = self.of("=", "!=", "<", "<=", ">", ">=")
            asked.append(Copies(operator, number, self.claims(variants)))  # type: ignore[arg-type]
        return tuple(asked)

    def files(self, variants: list[str]) -> tuple[FileLine, ...]:
        only = self.draw(st.sets(st.sampled_from(variants))) if variants else set()
        lines = [FileLine(self.draw(st.sampled_from(FILE_KINDS)), (name,)) for name in sorted(only)]
        if self.draw(st.booleans()):
            lines.append(FileLine("tmpfile"))
        return tuple(lines)

    def test(self) -> Test:
        names = [["base"], ["one", "two.x"], []][self.draw(st.integers(0, 2))]
        variants = tuple(
            Variant(name, self.steps(0, 3, plain=True), self.draw(TEXT)) for name in names
        )
        body: list[Step | Group | Prepare] = [Prepare()] if names else []
        body.append(self.step())
        for _ in range(self.draw(st.integers(0, 8))):
            if self.draw(st.integers(0, 4)) == 0:
                body.append(Group("operation", self.steps(1, 4, plain=True)))
            else:
                body.append(self.step())
        body += [
            Step(self.processes[0], "fork", (child,))
            for child in self.unborn
            if self.processes[0] not in self.gone
        ]
        placed = self.draw(st.sets(st.sampled_from(self.processes)))
        disk = self.draw(st.sampled_from(SWAP_KINDS))
        return Test(
            name=self.draw(st.from_regex(r"[a-z0-9][a-z0-9._-]{3,9}x", fullmatch=True)),
            title=self.draw(TEXT),
            shelf=self.draw(st.none() | st.just("references")),
            sources=tuple(self.draw(st.lists(TEXT, max_size=2))),
            notes=tuple(self.draw(st.lists(TEXT, max_size=2))),
            processes=tuple(self.processes),
            threads=tuple(self.threads),
            pages=tuple(self.pages),
            cpus=tuple(Placement(name, self.draw(st.integers(0, 3))) for name in sorted(placed)),
            swap=Swap(disk, disk != "none" and self.draw(st.booleans())),
            files=self.files(names),
            lru_batches=self.draw(st.integers(0, 31)),
            hugetlb_pool=self.draw(st.none() | st.integers(0, 16)),
            variants=variants,
            body=tuple(body),
            questions=self.questions(names),
        )


@st.composite
def valid_tests(draw: st.DrawFn) -> Test:
    return Author(draw).test()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(valid_tests())
def test_any_test_survives_being_written_and_read(test: Test) -> None:
    text = format_test(test)
    read = parse(text)
    assert read == test
    assert format_test(read) == text
    for variant in test.variant_names:
        assert identity(read, variant) == identity(test, variant)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_standard_form_is_stable(path: Path) -> None:
    test = parse_file(path)
    text = format_test(test)
    again = parse(text)
    assert again == test
    assert format_test(again) == text


@pytest.mark.parametrize("path", SAMPLES[:1], ids=lambda path: path.stem)
def test_a_test_in_standard_form_is_left_alone(path: Path) -> None:
    assert format_test(parse_file(path)) == path.read_text(encoding="utf-8")


COMMENTED = """\
# 1
   # 2

test t  # 3
# 4
swap disk  # 5
# 6
pages a # 7
pages b # 8
processes P
lru_batches drained # 9
variant base { # 10
  # 11
} # 12
# 13
prepare# 14
concurrent by operation {
  # 15
  P: read a#16
  # 17
}
# 18
keeps private # 19
  # 20
  kept everywhere from "#no" # 21
# 22
"""


def test_no_comment_is_lost() -> None:
    test = parse(COMMENTED)
    text = format_test(test)
    kept = [comment.text.removeprefix("#").strip() for comment in parse(text).comments]
    assert sorted(kept, key=int) == [str(n) for n in range(1, 23)]
    assert format_test(parse(text)) == text
    assert parse(text) == test


def test_comments_stay_with_their_lines() -> None:
    text = format_test(parse(COMMENTED))
    assert "# 1\n# 2\ntest t  # 3\n" in text
    assert "# 7\npages a b  # 8\n" in text
    assert "variant base {  # 10\n  # 11\n}  # 12\n" in text
    assert "  # 15\n  P: read a  #16\n  # 17\n}" in text
    assert '  # 20\n  kept everywhere from "#no"  # 21\n' in text
    assert text.endswith("\n# 22\n")
