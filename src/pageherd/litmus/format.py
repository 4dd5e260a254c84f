"""Writing a test in its standard form.

Formatting and parsing are inverse to each other, and comments keep their lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from pageherd.litmus.syntax import (
    MEMFD,
    And,
    Claim,
    Comment,
    Comparison,
    Condition,
    Group,
    Keeps,
    KernelRange,
    Not,
    Or,
    Outcome,
    Place,
    Prepare,
    Question,
    Step,
    Swap,
    Test,
    Variant,
)
from pageherd.machine.verbs import VERBS, Kind

_INDENT = "  "


def format_test(test: Test) -> str:
    """The test in the standard form, comments included."""
    page = _Page(test.comments)
    page.paragraph(_title_lines(test))
    page.paragraph(_declarations(test))
    for variant in test.variants:
        page.paragraph(_variant_lines(variant))
    page.paragraph(line for part in test.body for line in _part_lines(part))
    for run in _question_runs(test.questions):
        page.paragraph(line for question in run for line in _question_lines(question))
    return page.text()


def format_step(step: Step) -> str:
    """One step as it is written in a test."""
    words = [f"{step.thread}:"]
    if step.maybe:
        words.append("maybe")
    if step.result is not None:
        words += [step.result, "="]
    words.append(step.verb)
    for kind, argument in zip(VERBS[step.verb].arguments, step.arguments, strict=False):
        if isinstance(argument, tuple):
            words += argument
        elif kind is Kind.VALUE:
            words += ["=", format_value(argument)]
        else:
            words.append(str(argument))
    return " ".join(words)


def format_question(question: Question) -> str:
    """A question without its claims."""
    if isinstance(question, Outcome):
        return f"{question.polarity} {format_condition(question.condition)}"
    if isinstance(question, Keeps):
        return f"keeps {question.promise}"
    if question.operator == "=" and question.number == 0:
        return "no copy"
    return f"copies {question.operator} {question.number}"


def format_condition(condition: Condition) -> str:
    """A condition, with parentheses only where they are needed."""
    if isinstance(condition, Comparison):
        right = format_value(condition.right)
        return f"{condition.register} {condition.operator} {right}"
    if isinstance(condition, Not):
        return f"not {_inside(condition.part, And, Or)}"
    if isinstance(condition, And):
        return " and ".join(_inside(part, And, Or) for part in condition.parts)
    return " or ".join(_inside(part, Or) for part in condition.parts)


def format_claim(claim: Claim) -> str:
    """A claim as it stands under its question."""
    where = ["on", *map(_kernels, claim.kernels)] if claim.kernels else ["everywhere"]
    words = [claim.verdict, *where]
    if claim.variants:
        words += ["in", *claim.variants]
    if claim.source is not None:
        words += ["from", _quoted(claim.source)]
    return " ".join(words)


def format_value(value: object) -> str:
    """A value: small numbers decimal, others hexadecimal, words as they are."""
    return f"{value:#x}" if isinstance(value, int) and value > 9 else str(value)


def _inside(condition: Condition, *loose: type) -> str:
    text = format_condition(condition)
    return f"({text})" if isinstance(condition, loose) else text


def _kernels(one: KernelRange) -> str:
    return one.first if one.last is None else f"{one.first}..{one.last}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# The lines of each part: their text, and the lines of the file that they stand for.  The text is
# empty where a line of the file says only what goes without saying; its comments stay.

_Line = tuple[str, tuple[int, ...]]


def _line(text: str, *places: Place) -> _Line:
    return text, tuple(place.line for place in places)


def _title_lines(test: Test) -> Iterator[_Line]:
    places = _HeadPlaces(test)
    title = f" {_quoted(test.title)}" if test.title else ""
    yield _line(f"test {test.name}{title}", *places("test", 0))
    if test.shelf is not None:
        yield _line(f"shelf {test.shelf}", *places("shelf", 0))
    for index, source in enumerate(test.sources):
        yield _line(f"from {_quoted(source)}", *places("from", index))
    for index, note in enumerate(test.notes):
        yield _line(f"note {_quoted(note)}", *places("note", index))


def _declarations(test: Test) -> Iterator[_Line]:
    places = _HeadPlaces(test)
    everywhere = range(len(test.processes))
    yield _line(f"processes {' '.join(test.processes)}", *places("process", *everywhere))
    for process, threads in groupby(enumerate(test.threads), lambda pair: pair[1].process):
        members = list(threads)
        names = " ".join(thread.name for _, thread in members)
        where = places("thread", *(index for index, _ in members))
        yield _line(f"threads {names} of {process}", *where)
    if test.pages:
        yield _line(f"pages {' '.join(test.pages)}", *places("page", *range(len(test.pages))))
    for index, huge in enumerate(test.huge):
        yield _line(f"huge {huge.name} = {' '.join(huge.pages)}", *places("huge", index))
    for cpu, placements in groupby(enumerate(test.cpus), lambda pair: pair[1].cpu):
        placed = list(placements)
        names = " ".join(placement.thread for _, placement in placed)
        where = places("cpu", *(index for index, _ in placed))
        yield _line(f"on cpu {cpu}: {names}", *where)
    if not any(line.kind != MEMFD and not line.variants for line in test.files):
        yield _line("", *places("file", 0))
    for file in test.files:
        only = f" in {' '.join(file.variants)}" if file.variants else ""
        yield _line(f"file {file.kind}{only}", file.place)
    stable = " stable-writes" if test.swap.stable_writes else ""
    swap = f"swap {test.swap.kind}{stable}" if test.swap != Swap() else ""
    yield _line(swap, *places("swap", 0))
    batches = f"lru_batches {test.lru_batches}" if test.lru_batches else ""
    yield _line(batches, *places("lru_batches", 0))
    pool = "" if test.hugetlb_pool is None else f"hugetlb_pool {test.hugetlb_pool}"
    yield _line(pool, *places("hugetlb_pool", 0))


class _HeadPlaces:
    def __init__(self, test: Test) -> None:
        self.places = test.places

    def __call__(self, part: str, *indices: int) -> list[Place]:
        found = (self.places.get((part, index)) for index in indices)
        return [place for place in found if place is not None]


def _variant_lines(variant: Variant) -> Iterator[_Line]:
    title = f" {_quoted(variant.title)}" if variant.title else ""
    standing = variant.standing
    instead = f" with {standing.page} as {standing.huge}" if standing else ""
    opening = f"variant {variant.name}{title}{instead}"
    yield from _block_lines(opening, variant.steps, variant.place, variant.end)


def _part_lines(part: Step | Group | Prepare) -> Iterator[_Line]:
    if isinstance(part, Step):
        yield _line(format_step(part), part.place)
    elif isinstance(part, Prepare):
        yield _line("prepare", part.place)
    else:
        yield from _block_lines(f"concurrent by {part.by}", part.steps, part.place, part.end)


def _block_lines(opening: str, steps: Iterable[Step], place: Place, end: Place) -> Iterator[_Line]:
    yield _line(f"{opening} {{", place)
    for step in steps:
        yield _line(_INDENT + format_step(step), step.place)
    yield _line("}", end)


def _question_runs(questions: Iterable[Question]) -> Iterator[list[Question]]:
    """Questions without claims stand together; one with claims is a paragraph of its own."""
    for claimed, run in groupby(questions, lambda question: bool(question.claims)):
        if claimed:
            yield from ([question] for question in run)
        else:
            yield list(run)


def _question_lines(question: Question) -> Iterator[_Line]:
    yield _line(format_question(question), question.place)
    for claim in question.claims:
        yield _line(_INDENT + format_claim(claim), claim.place)


class _Page:
    """The text so far; puts each comment back at the line that it belongs to."""

    def __init__(self, comments: Iterable[Comment]) -> None:
        self.above: dict[int, list[str]] = {}
        self.beside: dict[int, list[str]] = {}
        for comment in comments:
            lines = self.beside if comment.trailing else self.above
            lines.setdefault(comment.line, []).append(comment.text)
        self.waiting: list[str] = []  # for the next line that is written
        self.paragraphs: list[str] = []

    def paragraph(self, lines: Iterable[_Line]) -> None:
        written = [line for text, numbers in lines for line in self.with_comments(text, numbers)]
        if written:
            self.paragraphs.append("\n".join(written))

    def with_comments(self, text: str, numbers: tuple[int, ...]) -> Iterator[str]:
        different = dict.fromkeys(numbers)
        self.waiting += [comment for n in different for comment in self.above.pop(n, ())]
        beside = [comment for n in different for comment in self.beside.pop(n, ())]
        last = beside.pop() if beside and text else ""
        self.waiting += beside
        if not text:
            return
        indent = _INDENT if text == "}" else text[: len(text) - len(text.lstrip())]
        yield from (indent + comment for comment in self.waiting)
        self.waiting.clear()
        yield f"{text}  {last}" if last else text

    def text(self) -> str:
        left = sorted([*self.above.items(), *self.beside.items()])
        rest = self.waiting + [comment for _, comments in left for comment in comments]
        if rest:
            self.paragraphs.append("\n".join(rest))
        return "\n\n".join(self.paragraphs) + "\n"
