"""From the parse tree to a Test: words become names, numbers and arguments.

This reads each line by itself; whether names are declared and steps possible is `check.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from pageherd.litmus.build_question import read_question
from pageherd.litmus.build_step import read_step
from pageherd.litmus.limits import MAX_CPUS, MAX_HUGETLB_POOL, MAX_LRU_BATCH
from pageherd.litmus.reader import TEST_FORM, Reader, place_of
from pageherd.litmus.source import Source
from pageherd.litmus.syntax import (
    MEMFD,
    FileKind,
    FileLine,
    Group,
    Huge,
    Place,
    Placement,
    Prepare,
    Question,
    Standing,
    Step,
    Swap,
    SwapKind,
    Test,
    Thread,
    Variant,
)
from pageherd.litmus.words import TEST_NAME

if TYPE_CHECKING:
    from lark import Token, Tree

    Node: TypeAlias = Tree[Token]

FILE_KINDS = ("memfd", "tmpfile", "hugetlb", "dax")
SWAP_KINDS = ("disk", "slow", "zram", "none")


def build(tree: Node, source: Source) -> Test:
    """The test that a parse tree stands for."""
    return _Builder(source).test(tree)


class _Head:
    """What the lines before the steps have said so far."""

    def __init__(self) -> None:
        self.name = self.title = ""
        self.shelf: str | None = None
        self.sources: list[str] = []
        self.notes: list[str] = []
        self.processes: list[str] = []
        self.threads: list[Thread] = []
        self.pages: list[str] = []
        self.huge: list[Huge] = []
        self.cpus: list[Placement] = []
        self.files: list[FileLine] = []
        self.swap = Swap()
        self.lru_batches = 0
        self.hugetlb_pool: int | None = None
        self.places: dict[tuple[str, int], Place] = {}


class _Builder:
    def __init__(self, source: Source) -> None:
        self.reader = Reader(source)
        self.head = _Head()
        self.head_lines: dict[str, Callable[[list[Any]], None]] = {
            "test_line": self.test_line,
            "shelf": self.shelf,
            "source": self.from_source,
            "note": self.note,
            "processes": self.processes,
            "threads": self.threads,
            "pages": self.pages,
            "huge": self.huge,
            "cpu": self.cpu,
            "file": self.file,
            "swap": self.swap,
            "lru_batches": self.lru_batches,
            "hugetlb_pool": self.hugetlb_pool,
        }

    def test(self, tree: Node) -> Test:
        variants: list[Variant] = []
        body: list[Step | Group | Prepare] = []
        questions: list[Question] = []
        for node in cast("list[Node]", tree.children):
            kind = node.data
            if kind == "step":
                body.append(read_step(self.reader, node))
            elif kind in self.head_lines:
                self.head_lines[kind](node.children)
            elif kind == "question":
                questions.append(read_question(self.reader, node.children))
            elif kind == "variant":
                variants.append(self.variant(node.children))
            elif kind == "group":
                body.append(self.group(node.children))
            else:
                body.append(Prepare(place_of(cast("Token", node.children[0]))))
        head = self.head
        return Test(
            name=head.name,
            title=head.title,
            shelf=head.shelf,
            sources=tuple(head.sources),
            notes=tuple(head.notes),
            processes=tuple(head.processes),
            threads=tuple(head.threads),
            pages=tuple(head.pages),
            huge=tuple(head.huge),
            cpus=tuple(head.cpus),
            files=tuple(head.files),
            swap=head.swap,
            lru_batches=head.lru_batches,
            hugetlb_pool=head.hugetlb_pool,
            variants=tuple(variants),
            body=tuple(body),
            questions=tuple(questions),
            places=head.places,
        )

    # the head

    def test_line(self, children: list[Any]) -> None:
        _, name, title = children
        self.head.name = self.reader.test_name(name, "test")
        self.head.title = self.reader.string(title) if title else ""
        self.note_place("test", 0, name)

    def shelf(self, children: list[Any]) -> None:
        keyword, name = children
        self.once("shelf", keyword)
        self.head.shelf = self.reader.name(name, "shelf", TEST_NAME, TEST_FORM)
        self.note_place("shelf", 0, name)

    def from_source(self, children: list[Any]) -> None:
        keyword, text = children
        self.note_place("from", len(self.head.sources), keyword)
        self.head.sources.append(self.reader.string(text))

    def note(self, children: list[Any]) -> None:
        keyword, text = children
        self.note_place("note", len(self.head.notes), keyword)
        self.head.notes.append(self.reader.string(text))

    def processes(self, children: list[Any]) -> None:
        for name in children[1:]:
            self.note_place("process", len(self.head.processes), name)
            self.head.processes.append(self.reader.process_name(name, "process"))

    def threads(self, children: list[Any]) -> None:
        *names, process = children[1:]
        for name in names:
            self.note_place("thread", len(self.head.threads), name)
            self.note_place("thread's process", len(self.head.threads), process)
            self.head.threads.append(Thread(self.reader.process_name(name, "thread"), str(process)))

    def pages(self, children: list[Any]) -> None:
        for name in children[1:]:
            self.note_place("page", len(self.head.pages), name)
            self.head.pages.append(self.reader.page_name(name, "page"))

    def huge(self, children: list[Any]) -> None:
        _, name, *pages = children
        self.note_place("huge", len(self.head.huge), name)
        named = self.reader.page_name(name, "huge range")
        self.head.huge.append(Huge(named, tuple(str(page) for page in pages)))

    def cpu(self, children: list[Any]) -> None:
        _, number, *names = children
        cpu = self.reader.number(number, MAX_CPUS - 1, "a CPU")
        for name in names:
            self.note_place("cpu", len(self.head.cpus), name)
            self.head.cpus.append(Placement(str(name), cpu))

    def file(self, children: list[Any]) -> None:
        keyword, kind, variants = children
        names = variants.children if variants else []
        if kind not in FILE_KINDS:
            raise self.reader.unknown(kind, "kind of file", FILE_KINDS)
        if not names:
            self.once("file", keyword)
            self.note_place("file", 0, keyword)
            if kind == MEMFD:  # the default
                return
        line = FileLine(
            cast("FileKind", str(kind)),
            tuple(str(name) for name in names),
            place_of(keyword),
            tuple(place_of(name) for name in names),
        )
        self.head.files.append(line)

    def swap(self, children: list[Any]) -> None:
        keyword, kind, *options = children
        self.once("swap", keyword)
        self.note_place("swap", 0, kind)
        if kind not in SWAP_KINDS:
            raise self.reader.unknown(kind, "swap device", SWAP_KINDS)
        for option in options:
            if option != "stable-writes":
                raise self.reader.unknown(option, "swap option", ("stable-writes",))
        if len(options) > 1:
            raise self.reader.error(options[1], "'stable-writes' is said twice")
        if options and kind == "none":
            raise self.reader.error(options[0], "without a swap device there are no stable writes")
        self.head.swap = Swap(cast("SwapKind", str(kind)), bool(options))

    def lru_batches(self, children: list[Any]) -> None:
        keyword, size = children
        self.once("lru_batches", keyword)
        self.note_place("lru_batches", 0, size)
        if size != "drained":
            hint = "write: lru_batches 15, or: lru_batches drained"
            self.head.lru_batches = self.reader.number(size, MAX_LRU_BATCH, "a batch", 1, hint)

    def hugetlb_pool(self, children: list[Any]) -> None:
        keyword, size = children
        self.once("hugetlb_pool", keyword)
        self.note_place("hugetlb_pool", 0, size)
        hint = "write: hugetlb_pool 1"
        self.head.hugetlb_pool = self.reader.number(size, MAX_HUGETLB_POOL, "a pool", 0, hint)

    # variants and steps

    def variant(self, children: list[Any]) -> Variant:
        _, name, title, page, huge, *steps, end = children
        return Variant(
            self.reader.test_name(name, "variant"),
            tuple(read_step(self.reader, step) for step in steps),
            self.reader.string(title) if title else "",
            None if page is None else Standing(str(page), str(huge)),
            place_of(name),
            place_of(end),
        )

    def group(self, children: list[Any]) -> Group:
        _, by, *steps, end = children
        if by not in ("operation", "step"):
            raise self.reader.error(
                by, f"no way to interleave by '{by}'", "write: concurrent by operation {"
            )
        return Group(
            str(by),
            tuple(read_step(self.reader, step) for step in steps),
            place_of(by),
            place_of(end),
        )

    # words

    def note_place(self, part: str, index: int, token: Token) -> None:
        self.head.places[part, index] = place_of(token)

    def once(self, part: str, keyword: Token) -> None:
        if (part, 0) in self.head.places:
            first = self.head.places[part, 0].line
            raise self.reader.error(keyword, f"'{part}' is said twice", f"first in line {first}")
