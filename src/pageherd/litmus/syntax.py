"""What a litmus test is, as data.

These are plain frozen records.  Where something stood in the file is carried along for error
messages and comments, but two tests that differ only in that are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypeAlias

from pageherd.machine.verbs import VERBS

Verdict: TypeAlias = Literal["kept", "broken", "unknown"]
SwapKind: TypeAlias = Literal["disk", "slow", "zram", "none"]
FileKind: TypeAlias = Literal["memfd", "tmpfile", "hugetlb", "dax"]
Polarity: TypeAlias = Literal["forbid", "allow", "require"]
Operator: TypeAlias = Literal["=", "!=", "<=", ">=", "<", ">"]

MEMFD: FileKind = "memfd"  # unless a line of the head says otherwise
TMPFILE: FileKind = "tmpfile"
HUGETLB: FileKind = "hugetlb"
DAX: FileKind = "dax"
KERNEL = "kernel"  # the thread name of the kernel's own steps
BY_STEP = "step"  # what a concurrent group interleaves: the insides of operations
BASE = "base"  # the variant that the plain name of a test stands for


class Place(NamedTuple):
    """A piece of a source line; lines and columns count from 1."""

    line: int
    column: int
    width: int


NOWHERE = Place(0, 0, 0)


@dataclass(frozen=True, slots=True)
class PageOf:
    """`C.a`: the page of a named process."""

    process: str
    page: str

    def __str__(self) -> str:
        return f"{self.process}.{self.page}"


# A page, reference, process or protection is a str; a number or value an int; flags are a tuple
# of words in the order of FLAG_WORDS.  An optional argument left out is not in the tuple.
Argument: TypeAlias = str | int | PageOf | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """`T: maybe result = verb arguments`: one operation of one thread or of the kernel."""

    thread: str
    verb: str
    arguments: tuple[Argument, ...] = ()
    result: str | None = None
    maybe: bool = False
    place: Place = field(default=NOWHERE, compare=False, repr=False)
    verb_place: Place = field(default=NOWHERE, compare=False, repr=False)
    result_place: Place = field(default=NOWHERE, compare=False, repr=False)
    argument_places: tuple[Place, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Group:
    """`concurrent by operation { ... }`, `by step`: steps of several threads, in any order."""

    by: str
    steps: tuple[Step, ...]
    place: Place = field(default=NOWHERE, compare=False, repr=False)
    end: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Prepare:
    """`prepare`: here the steps of the chosen variant are done."""

    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Huge:
    """`huge h = a b`: the pages that one PMD entry can map, and a name for all of them."""

    name: str
    pages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """`with a as h`: in this variant a step that can work on a range does so, where it says `a`."""

    page: str
    huge: str


@dataclass(frozen=True, slots=True)
class Variant:
    """A named preparation; the test is run once for each."""

    name: str
    steps: tuple[Step, ...]
    title: str = ""
    standing: Standing | None = None
    place: Place = field(default=NOWHERE, compare=False, repr=False)
    end: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`register = right` or `!=`; right is a number, a status or state word, or a register."""

    register: str
    operator: Literal["=", "!="]
    right: int | str
    place: Place = field(default=NOWHERE, compare=False, repr=False)
    right_place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Not:
    """True where its part is not."""

    part: Condition


@dataclass(frozen=True, slots=True)
class And:
    """True where all parts are; never directly inside another And."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True where a part is; never directly inside another Or."""

    parts: tuple[Condition, ...]


Condition: TypeAlias = Comparison | Not | And | Or


@dataclass(frozen=True, slots=True)
class KernelRange:
    """One kernel, or all from `first` to `last` in the order of the table of kernels."""

    first: str
    last: str | None = None
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Claim:
    """What is known of a question; no kernels means everywhere, no variants means all."""

    verdict: Verdict
    kernels: tuple[KernelRange, ...] = ()
    variants: tuple[str, ...] = ()
    source: str | None = None
    place: Place = field(default=NOWHERE, compare=False, repr=False)
    variant_places: tuple[Place, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`forbid`, `allow` or `require` a condition on the registers at the end."""

    polarity: Polarity
    condition: Condition
    claims: tuple[Claim, ...] = ()
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Keeps:
    """`keeps promise`: the promise holds in every state of every run."""

    promise: str
    claims: tuple[Claim, ...] = ()
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Copies:
    """`copies <= 1`: how many pages may be copied after `prepare`; `no copy` is `copies = 0`."""

    operator: Operator
    number: int
    claims: tuple[Claim, ...] = ()
    place: Place = field(default=NOWHERE, compare=False, repr=False)


Question: TypeAlias = Outcome | Keeps | Copies


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread declared beside the one that each process has under its own name."""

    name: str
    process: str


@dataclass(frozen=True, slots=True)
class Placement:
    """`on cpu N: thread`."""

    thread: str
    cpu: int


@dataclass(frozen=True, slots=True)
class Swap:
    """The swap device of a test."""

    kind: SwapKind = "disk"
    stable_writes: bool = False


@dataclass(frozen=True, slots=True)
class FileLine:
    """`file tmpfile`, or `file tmpfile in VARIANTS`: what kind of file it is there."""

    kind: FileKind
    variants: tuple[str, ...] = ()
    place: Place = field(default=NOWHERE, compare=False, repr=False)
    variant_places: tuple[Place, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment and the line that it belongs to: the next one, or its own if it trails it."""

    text: str
    line: int
    trailing: bool


# Where the parts of a head stood: ("page", 1) is the second page declared.
HeadPlaces: TypeAlias = Mapping[tuple[str, int], Place]


@dataclass(frozen=True, slots=True)
class Test:
    """A whole litmus test."""

    __test__ = False  # not a test case for pytest

    name: str
    processes: tuple[str, ...]
    body: tuple[Step | Group | Prepare, ...]
    questions: tuple[Question, ...] = ()
    title: str = ""
    shelf: str | None = None
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    threads: tuple[Thread, ...] = ()
    pages: tuple[str, ...] = ()
    huge: tuple[Huge, ...] = ()
    cpus: tuple[Placement, ...] = ()
    files: tuple[FileLine, ...] = ()
    swap: Swap = Swap()
    lru_batches: int = 0  # how many pages a batch holds before it drains; 0: always drained
    hugetlb_pool: int | None = None  # how many hugetlb pages there are; None: as many as it takes
    variants: tuple[Variant, ...] = ()
    kernels: tuple[str, ...] = field(default=(), compare=False, repr=False)
    comments: tuple[Comment, ...] = field(default=(), compare=False, repr=False)
    places: HeadPlaces = field(default_factory=dict, compare=False, repr=False)

    @property
    def variant_names(self) -> tuple[str, ...]:
        """The variants in order; a test without any has one, `base`."""
        return tuple(variant.name for variant in self.variants) or (BASE,)

    @property
    def default_variant(self) -> str:
        """The variant that the plain name of the test stands for."""
        names = self.variant_names
        return BASE if BASE in names else names[0]

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all variants in order."""
        return tuple(self.id_of(variant) for variant in self.variant_names)

    def id_of(self, variant: str) -> str:
        """The id of one variant: the plain name for `base`, else `NAME/VARIANT`."""
        return self.name if variant == BASE else f"{self.name}/{variant}"

    def variant_steps(self, variant: str) -> tuple[Step | Group, ...]:
        """The steps of one variant, `prepare` replaced by the variant's own."""
        return tuple(self._expanded(variant))

    def main_start(self, variant: str) -> int:
        """The index in `variant_steps` of the first step after `prepare`; 0 if there is none."""
        for index, part in enumerate(self.body):
            if isinstance(part, Prepare):
                return index + len(self._preparation(variant))
        return 0

    def file_of(self, variant: str) -> FileKind:
        """What kind of file the file is in one variant."""
        named = [line.kind for line in self.files if variant in line.variants]
        others = [line.kind for line in self.files if not line.variants]
        return (*named, *others, MEMFD)[0]

    def files_of(self, variant: str) -> tuple[FileLine, ...]:
        """The `file` line of a test that has nothing but one variant's steps."""
        kind = self.file_of(variant)
        return () if kind == MEMFD else (FileLine(kind),)

    def thread_names(self) -> tuple[str, ...]:
        """All threads: first the one of each process, then the declared ones."""
        return self.processes + tuple(thread.name for thread in self.threads)

    def process_of(self, thread: str) -> str:
        """The process that a thread belongs to."""
        for declared in self.threads:
            if declared.name == thread:
                return declared.process
        return thread

    def cpu_of(self, thread: str) -> int:
        """The CPU that a thread runs on."""
        for placement in self.cpus:
            if placement.thread == thread:
                return placement.cpu
        return 0

    def _expanded(self, variant: str) -> Iterator[Step | Group]:
        standing = self._variant(variant).standing
        for part in self.body:
            if isinstance(part, Prepare):
                yield from self._preparation(variant)
            elif standing is None:
                yield part
            elif isinstance(part, Group):
                steps = tuple(_with_range(step, standing) for step in part.steps)
                yield replace(part, steps=steps)
            else:
                yield _with_range(part, standing)

    def _preparation(self, variant: str) -> tuple[Step, ...]:
        return self._variant(variant).steps

    def _variant(self, variant: str) -> Variant:
        for candidate in self.variants:
            if candidate.name == variant:
                return candidate
        if variant == BASE and not self.variants:
            return Variant(BASE, ())
        raise KeyError(variant)


def _with_range(step: Step, standing: Standing) -> Step:
    """The step with the range in place of its first page, if its verb takes ranges."""
    if not VERBS[step.verb].ranges:
        return step
    arguments = tuple(standing.huge if a == standing.page else a for a in step.arguments)
    return replace(step, arguments=arguments)


def steps_of(parts: tuple[Step | Group, ...]) -> Iterator[Step]:
    """All steps in the order written, those of groups included."""
    for part in parts:
        if isinstance(part, Group):
            yield from part.steps
        else:
            yield part
