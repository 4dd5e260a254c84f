"""Shrinking a test: the smallest test that still shows what a broken one shows.

What is held on to is one question of the test that the kernel breaks: a promise if one is asked
about and broken, else a condition or a number of copies.  A broken promise says for itself what
went wrong.  A condition does not: `require x = 3` is also broken by a program that never stores 3.
So a smaller test counts only if, too, each shipped kernel that keeps the condition in the test
keeps it in the smaller one: the result still tells those kernels from this one.

Of two tests the smaller is the one that takes less to understand; the first difference in this
order decides (`Size`):

1. processes, then threads: who acts at the same time is the hardest part of a trace;
2. steps: the length of the story;
3. pages and references: the things it is about;
4. awkwardness: a concurrent group stands for many orders, `maybe` for two programs; then settings,
   the length of the question, daemons, flags and the sizes of numbers;
5. the text, so that of any two tests one is the smaller and the result does not depend on luck.

A pass is a named way to propose tests that may be smaller.  It proposes the same tests for the
same test, in the same order, and need not care whether what it proposes is possible: what hangs on
something that is gone goes with it (`tidy`), and the litmus checker refuses the rest.  The first
proposal that is smaller and shows the same is taken, until a whole round of passes finds none.  So
no step of the result, nor two of them, can be left out, and shrinking the result changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from pageherd.errors import PageherdError
from pageherd.litmus.check import check
from pageherd.litmus.format import format_question, format_test
from pageherd.litmus.limits import MAX_STRING
from pageherd.litmus.parsing import parse
from pageherd.litmus.syntax import (
    BASE,
    KERNEL,
    Claim,
    Copies,
    Group,
    Keeps,
    KernelRange,
    Prepare,
    Question,
    Step,
    Swap,
    Test,
    Variant,
)
from pageherd.litmus.syntax import Verdict as Claimed
from pageherd.rules import kernels
from pageherd.search.check import Checker, Chosen, find_one, with_variant
from pageherd.search.edit import (
    all_steps,
    compared_in,
    takes_reference,
    tidy,
)
from pageherd.search.passes import PASSES, Found
from pageherd.search.verdict import BROKEN, KEPT, Verdict, questions_of

Body: TypeAlias = tuple[Step | Group | Prepare, ...]


class NotBroken(PageherdError):
    """Nothing that the test asks is broken on the kernel: there is nothing to shrink."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The smallest test found, and how it was found."""

    id: str  # of the test that was shrunk
    kernel: str
    ask: str  # the question that is still broken
    keepers: tuple[str, ...]  # the kernels that keep a condition in both tests
    before: Test  # with nothing but the chosen variant and question
    test: Test
    tried: int  # how many tests were judged
    helped: tuple[tuple[str, int], ...]  # the passes that found something smaller, how often
    changed: bool  # False: the test was as small as can be and is left as it was written

    @property
    def steps_before(self) -> int:
        """How many steps the test had, those of the variant included."""
        return len(all_steps(self.before))

    @property
    def steps_after(self) -> int:
        """How many steps the smallest test has."""
        return len(all_steps(self.test))

    @property
    def text(self) -> str:
        """The smallest test in the standard form."""
        return format_test(self.test)


def shrink(
    test: Test | str,
    kernel: str = "linux-6.1",
    variant: str | None = None,
) -> Shrunk:
    """Find the smallest test that breaks on `kernel` what `test` breaks.

    Args:
        test: a parsed test, the id of a test of the library, or a file name.
        kernel: a kernel's name, with changes if wanted, or a file of rules.
        variant: a variant of the test; the base page if left out.

    Raises:
        NotBroken: the test is kept, or the search was cut short before anything broke.
        LitmusError: there is no such test or variant, or the file has a mistake.
        RuleError: there is no such kernel, or a user's rule failed.

    >>> small = shrink("cow-vmsplice-child-unmap", "linux-4.19")
    >>> small.ask, small.steps_before, small.steps_after
    ('keeps private', 8, 6)
    """
    if isinstance(test, str):
        chosen = find_one(test, variant)
    else:
        chosen = with_variant(Chosen(test, test.default_variant), variant)
    return shrink_chosen(chosen, kernel, Checker())


def shrink_chosen(chosen: Chosen, kernel: str, checker: Checker) -> Shrunk:
    """As `shrink`, of a test that was found before, with a checker that may know the kernel."""
    return _Shrinker(checker, chosen, kernel).shrunk()


# the order


class Size(NamedTuple):
    """How much there is to understand in a test; the parts stand in order of weight."""

    processes: int
    threads: int
    steps: int
    pages: int
    references: int
    awkward: tuple[int, ...]
    text: str


def size(test: Test) -> Size:
    """The place of a test in the order from small to large."""
    steps = all_steps(test)
    return Size(
        len(test.processes),
        len(test.threads),
        len(steps),
        len(test.pages),
        sum(map(takes_reference, steps)),
        _awkward(test, steps),
        format_test(test),
    )


def _awkward(test: Test, steps: Iterable[Step]) -> tuple[int, ...]:
    device = (test.swap != Swap(), test.swap.stable_writes)
    pool = test.hugetlb_pool is not None
    settings = (len(test.files), *device, test.lru_batches, len(test.cpus), pool)
    arguments = [argument for step in steps for argument in step.arguments]
    numbers = sum(argument for argument in arguments if isinstance(argument, int))
    asked = sum(c.right for c in compared_in(test.questions[0]) if isinstance(c.right, int))
    return (
        sum(isinstance(part, Group) for part in test.body),
        sum(step.maybe for step in steps),
        sum(isinstance(part, Prepare) for part in test.body),
        sum(map(int, settings)),
        len(format_question(test.questions[0])),
        sum(step.thread == KERNEL for step in steps),
        sum(len(argument) for argument in arguments if isinstance(argument, tuple)),
        numbers + asked,
    )


# the search


class _Shrinker:
    """Goes from one test that shows the verdict to a smaller one until there is none."""

    def __init__(self, checker: Checker, chosen: Chosen, kernel: str) -> None:
        self.checker = checker
        self.chosen = chosen
        self.kernel = kernel
        question = _broken_question(chosen, checker.check(chosen, kernel))
        self.before = _plain(chosen, question)
        self.keepers = self.find_keepers()
        self.seen: set[str] = set()  # texts of tests that were judged
        self.helped: dict[str, int] = {}
        self.best = self.first()

    def shrunk(self) -> Shrunk:
        while sum(map(self.exhaust, PASSES)):
            pass
        test = self.finished()
        return Shrunk(
            self.chosen.id,
            self.checker.kernel(self.kernel)[0].name,
            format_question(self.before.questions[0]),
            self.keepers,
            self.before,
            test,
            len(self.seen),
            tuple(self.helped.items()),
            test is not self.chosen.test,
        )

    def find_keepers(self) -> tuple[str, ...]:
        """The shipped kernels that a smaller test must not break; see the top of this file."""
        if isinstance(self.before.questions[0], Keeps):
            return ()
        shipped = (name for name in kernels.names() if not kernels.row(name).proposal)
        return tuple(name for name in shipped if self.judge(self.before, name).verdict == KEPT)

    def first(self) -> Found:
        """The test in tidy form; as it stands, should its verdict hang on what is not used."""
        neat = tidy(self.before)
        found = None if neat is None else self.shown(neat)
        return found or Found(self.before, None)

    def exhaust(self, name: str) -> int:
        """Take what one pass proposes for as long as it finds something smaller: how often."""
        times = 0
        while self.improved(name):
            times += 1
        if times:
            self.helped[name] = self.helped.get(name, 0) + times
        return times

    def improved(self, name: str) -> bool:
        now = size(self.best.test)
        for proposal in PASSES[name](self.best):
            test = tidy(proposal)
            if test is None or size(test) >= now:
                continue
            found = self.shown(test)
            if found is not None:
                self.best = found
                return True
        return False

    def shown(self, test: Test) -> Found | None:
        """The test with a run, if it can be and shows the same verdict."""
        text = format_test(test)
        if text in self.seen:
            return None  # it was refused before, or something smaller was found since
        self.seen.add(text)
        try:
            check(test)
            answer = self.judge(test, self.kernel).answers[0]
            if answer.verdict != BROKEN or any(
                self.judge(test, keeper).verdict != KEPT for keeper in self.keepers
            ):
                return None
            return Found(parse(text), answer.path)
        except PageherdError:
            return None

    def judge(self, test: Test, kernel: str) -> Verdict:
        return self.checker.check(Chosen(test, BASE), kernel)

    def finished(self) -> Test:
        """The result as a test of its own; a test that is as small as can be is left alone."""
        best, given = self.best.test, self.chosen.test
        bare = replace(given, title="", shelf=None, sources=(), notes=())
        if replace(bare, questions=tuple(replace(q, claims=()) for q in bare.questions)) == best:
            return given
        source = f"shrunk from {self.chosen.id}"
        name = self.checker.kernel(self.kernel)[0].name
        known = name in kernels.names()
        claims = [_claim(BROKEN, [name], source)] if known else []
        claims += [_claim(KEPT, self.keepers, None)] if self.keepers else []
        whole = replace(
            best,
            title=source,
            notes=() if known else (f"broken on {name}"[:MAX_STRING],),
            questions=(replace(best.questions[0], claims=tuple(claims)),),
        )
        return parse(format_test(whole), kernels=kernels.names())


def _claim(verdict: Claimed, names: Iterable[str], source: str | None) -> Claim:
    return Claim(verdict, tuple(KernelRange(name) for name in names), source=source)


def _broken_question(chosen: Chosen, verdict: Verdict) -> Question:
    """The first promise that is broken, else the first other question that is."""
    pairs = zip(questions_of(chosen.test), verdict.answers, strict=True)
    broken = [question for question, answer in pairs if answer.verdict == BROKEN]
    if not broken:
        raise NotBroken(
            f"{verdict.test} is {verdict.verdict} on {verdict.kernel}: "
            "nothing that it asks is broken, so there is nothing to shrink"
        )
    return min(broken, key=lambda question: not isinstance(question, Keeps))


def _plain(chosen: Chosen, question: Question) -> Test:
    """The chosen variant alone, its steps among the others, with one question and no claims.

    Copies are counted from `prepare` on, so where they are asked about that mark stays.
    """
    test, variant = chosen.test, chosen.variant
    body: Body = test.variant_steps(variant)
    main = test.main_start(variant)
    marked = isinstance(question, Copies) and main > 0
    return Test(
        name=test.name,
        processes=test.processes,
        body=(*body[:main], Prepare(), *body[main:]) if marked else body,
        questions=(replace(question, claims=()),),
        threads=test.threads,
        pages=test.pages,
        huge=test.huge,
        cpus=test.cpus,
        files=test.files_of(variant),
        swap=test.swap,
        lru_batches=test.lru_batches,
        hugetlb_pool=test.hugetlb_pool,
        variants=(Variant(BASE, ()),) if marked else (),
    )
