"""The identity of a test: the same for the same meaning, another for any other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pageherd.litmus import format_test, identity, parse

SAMPLES = Path(__file__).parent / "samples"
COW = (SAMPLES / "cow-child-unmap.litmus").read_text(encoding="utf-8")
DAEMONS = (SAMPLES / "daemons.litmus").read_text(encoding="utf-8")

NAMES = {
    COW: {"P": "Parent", "C": "Child", "a": "z", "r": "pipe", "before": "b4", "after": "x"},
    DAEMONS: {"P": "Q", "Q": "C", "C": "P", "T1": "U", "U": "T1", "a": "b", "b": "a", "x": "y"}
    | {"y": "x", "p": "q"},
}


def of(text: str, variant: str = "base") -> str:
    return identity(parse(text), variant)


def renamed(text: str) -> str:
    names = NAMES[text]
    quoted = re.split(r'("(?:[^"\\]|\\.)*"|#.*|(?<=mprotect b )r)', text)
    quoted[::2] = [
        re.sub(r"(?<![\w-])\w+(?![\w-])", lambda m: names.get(m.group(), m.group()), part)
        for part in quoted[::2]
    ]
    return "".join(quoted)


@pytest.mark.parametrize("text", [COW, DAEMONS])
def test_names_do_not_count(text: str) -> None:
    assert parse(renamed(text)) != parse(text)
    assert of(renamed(text)) == of(text)


@pytest.mark.parametrize("text", [COW, DAEMONS])
def test_layout_does_not_count(text: str) -> None:
    assert of(re.sub(r"(?m)#.*$", "", format_test(parse(text)))) == of(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("test cow-child-unmap", "test another"),
        ("shelf references\n", ""),
        ('from "CVE-2020-29374"\nnote', "note"),
        ('note "a quote', 'note "no quote'),
        ("  unknown on linux-6.18\n", ""),
        ("write a = 1\n", "write a = 0x01\n"),
        ("pages a\n", "pages a b\n"),
        ("processes P C\n", "processes P C\nswap disk\nlru_batches drained\non cpu 0: P\n"),
        ("(after != 1 or before = fault)", "((after != 1) or before = fault)"),
        ("variant base-swap", "variant swapped"),
    ],
)
def test_what_is_not_meaning_does_not_count(old: str, new: str) -> None:
    assert old in COW
    text = COW.replace(old, new)
    if "swapped" in new:
        text = text.replace("base base-swap", "base swapped").replace("in base-swap", "in swapped")
    assert of(text) == of(COW)


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        (COW, "write a = 1\n", "write a = 2\n"),
        (COW, "maybe write", "write"),
        (COW, "on cpu 1: C", "on cpu 2: C"),
        (COW, "processes P C\n", "processes P C\nswap zram\n"),
        (COW, "processes P C\n", "processes P C\nswap disk stable-writes\n"),
        (COW, "processes P C\n", "processes P C\nlru_batches 15\n"),
        (COW, "processes P C\n", "processes P C\nhugetlb_pool 0\n"),
        (COW, "P: mmap a\nprepare\n", "prepare\nP: mmap a\n"),
        (COW, "C: before = read a\nC: r = vmsplice a\n", "C: r = vmsplice a\nC: before = read a\n"),
        (COW, "forbid after = 0xff", "forbid after != 0xff"),
        (COW, "forbid after = 0xff", "forbid before = 0xff"),
        (COW, "allow after = 1", "require after = 1"),
        (COW, "keeps private", "keeps alive"),
        (COW, "no copy\n", ""),
        (COW, "copies <= 1", "copies < 1"),
        (COW, "copies <= 1", "copies <= 2"),
        (COW, "before = 1 and not", "before = 1 or not"),
        (DAEMONS, "threads U of Q", "threads U of P"),
        (DAEMONS, "T1: mprotect", "P: mprotect"),
        (DAEMONS, "mprotect b r\n", "mprotect b none\n"),
        (DAEMONS, "mremap a b", "mremap b a"),
        (DAEMONS, "pin b write longterm fast", "pin b write longterm"),
        (DAEMONS, "reclaim p", "reclaim P.b"),
        (DAEMONS, "drain\n", "drain 0\n"),
        (DAEMONS, "  kernel: reclaim P.b\n}\n", "}\nkernel: reclaim P.b\n"),
        (DAEMONS, "x != y or", "x = y or"),
    ],
)
def test_what_is_meaning_counts(text: str, old: str, new: str) -> None:
    assert old in text
    assert of(text.replace(old, new)) != of(text)


def test_the_kind_of_file_counts_where_there_is_one() -> None:
    head = "test t\nprocesses P\npages a\n"
    kinds = "file tmpfile in two\nvariant one {\n}\nvariant two {\n}\nprepare\n"
    plain, both = of(head + "P: mmap_file a\n"), head + kinds + "P: mmap_file a\n"
    assert of(both, "one") == plain != of(both, "two")
    assert of(head + "file tmpfile\nP: mmap a\n") == of(head + "P: mmap a\n")


def test_variants_differ() -> None:
    assert of(COW, "base") != of(COW, "base-swap")


def test_where_the_main_part_begins_counts_only_for_copies() -> None:
    head = "test t\nprocesses P\npages a\nvariant base {\n}\n"
    early = head + "prepare\nP: read a\nP: read a\n"
    late = head + "P: read a\nprepare\nP: read a\n"
    assert of(early) == of(late)
    assert of(early + "no copy\n") != of(late + "no copy\n")


def test_an_identity_is_short_and_fixed() -> None:
    assert of("test t\nprocesses P\nP: exit\n") == "29af8befb3b00717"
