"""A short name for what a test means, the same however it is written.

Names of processes, threads, pages, registers and references are replaced by numbers in the order
of first use; titles, sources, notes, claims, comments and layout do not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from pageherd.litmus.syntax import (
    KERNEL,
    MEMFD,
    Argument,
    Comparison,
    Condition,
    Copies,
    Group,
    Keeps,
    Not,
    Outcome,
    PageOf,
    Question,
    Step,
    Test,
    steps_of,
)
from pageherd.machine.verbs import FILE_VERBS, STATE_WORDS, STATUS_WORDS, VERBS, Kind

# Part of what is hashed: to be raised when the meaning of the language changes.
_LANGUAGE = "litmus 1"


def identity(test: Test, variant: str) -> str:
    """16 hexadecimal digits that stand for the meaning of one variant of a test."""
    meaning = "\n".join((_LANGUAGE, *_Plain(test, variant).lines()))
    return blake2b(meaning.encode(), digest_size=8).hexdigest()


class _Plain:
    """One variant of a test in plain words, without the names that its author chose."""

    def __init__(self, test: Test, variant: str) -> None:
        self.test = test
        self.variant = variant
        self.numbers: dict[tuple[str, str], str] = {}

    def lines(self) -> Iterator[str]:
        test = self.test
        yield f"swap {test.swap.kind} {test.swap.stable_writes}"
        yield f"batches {test.lru_batches}"
        if self.uses_file() and test.file_of(self.variant) != MEMFD:
            yield f"file {test.file_of(self.variant)}"
        if test.hugetlb_pool is not None:
            yield f"pool {test.hugetlb_pool}"
        if self.uses_ranges():
            for page in test.pages:
                self.name("page", page)
            yield from (f"huge {self.huge(huge.name)}" for huge in test.huge)
        self.name("process", test.processes[0])  # the one that exists from the start
        main = test.main_start(self.variant)
        for index, part in enumerate(test.variant_steps(self.variant)):
            if index == main and self.counts_copies():
                yield "prepared"
            if isinstance(part, Group):
                yield f"concurrent {part.by}"
                yield from map(self.step, part.steps)
                yield "end"
            else:
                yield self.step(part)
        yield from map(self.question, test.questions)

    def uses_file(self) -> bool:
        """Whether it matters what kind of file it is."""
        steps = steps_of(self.test.variant_steps(self.variant))
        return any(step.verb in FILE_VERBS for step in steps)

    def uses_ranges(self) -> bool:
        """Whether it matters which pages make a huge range: whether a step names one."""
        ranges = {huge.name for huge in self.test.huge}
        steps = steps_of(self.test.variant_steps(self.variant))
        return any(argument in ranges for step in steps for argument in step.arguments)

    def huge(self, name: str) -> str:
        """A range by its pages; the name of a page as it is."""
        for huge in self.test.huge:
            if huge.name == name:
                return "+".join(self.name("page", page) for page in huge.pages)
        return self.name("page", name)

    def counts_copies(self) -> bool:
        return any(isinstance(question, Copies) for question in self.test.questions)

    def name(self, kind: str, name: str) -> str:
        known = self.numbers.get((kind, name))
        if known is None:
            count = sum(other == kind for other, _ in self.numbers)
            known = self.numbers[kind, name] = f"{kind}{count}"
        return known

    def thread(self, name: str) -> str:
        if name == KERNEL:
            return name
        process = self.name("process", self.test.process_of(name))
        own = "" if name in self.test.processes else self.name("thread", name)
        return f"{process}.{own}@{self.test.cpu_of(name)}"

    def step(self, step: Step) -> str:
        words = [self.thread(step.thread), "maybe" if step.maybe else "", step.verb]
        kinds = VERBS[step.verb].arguments
        words += map(self.argument, kinds, step.arguments)
        if step.result is not None:
            words.append("-> " + self.name("bound", step.result))
        return " ".join(words)

    def argument(self, kind: Kind, argument: Argument) -> str:
        if isinstance(argument, PageOf):
            process = self.name("process", argument.process)
            return f"{process}.{self.name('page', argument.page)}"
        if kind in (Kind.PAGE, Kind.HUGE):
            return self.huge(str(argument))
        if kind is Kind.PROCESS:
            return self.name("process", str(argument))
        if kind in (Kind.REFERENCE, Kind.FRAME):
            return self.name("bound", str(argument))
        return str(argument)

    def question(self, question: Question) -> str:
        if isinstance(question, Outcome):
            return f"{question.polarity} {self.condition(question.condition)}"
        if isinstance(question, Keeps):
            return f"keeps {question.promise}"
        return f"copies {question.operator} {question.number}"

    def condition(self, condition: Condition) -> str:
        if isinstance(condition, Comparison):
            right = condition.right
            if isinstance(right, str) and right not in STATUS_WORDS + STATE_WORDS:
                right = self.name("bound", right)
            return f"{self.name('bound', condition.register)} {condition.operator} {right}"
        if isinstance(condition, Not):
            return f"not({self.condition(condition.part)})"
        inner = ",".join(map(self.condition, condition.parts))
        return f"{type(condition).__name__}({inner})"
