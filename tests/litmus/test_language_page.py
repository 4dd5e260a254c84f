"""The page about the language says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pageherd.litmus import format_test, limits, parse
from pageherd.litmus.words import KEYWORDS, PROMISES, RESERVED_PROMISES
from pageherd.machine.verbs import (
    FEATURE_WORDS,
    FLAG_WORDS,
    PROT_WORDS,
    STATE_WORDS,
    STATUS_WORDS,
    VERBS,
    Actor,
    Kind,
    Verb,
)

PAGE = (Path(__file__).parents[2] / "docs" / "language.md").read_text(encoding="utf-8")
KINDS = {
    Kind.PAGE: "PAGE",
    Kind.HUGE: "HUGE",
    Kind.REMOTE: "P.PAGE",
    Kind.FRAME: "FRAME",
    Kind.REFERENCE: "REF",
    Kind.PROCESS: "P",
    Kind.PROT: "PROT",
    Kind.NUMBER: "N",
    Kind.VALUE: "= V",
    Kind.FLAGS: "FLAGS",
    Kind.FEATURES: "FEATURES",
}


def section(title: str) -> str:
    return re.split(r"(?m)^#+ ", PAGE.split(f"# {title}\n")[1])[0]


def row(verb: Verb) -> tuple[str, str, bool]:
    """What the table says of a verb: how it is written, its result, whether only kernels do it."""
    words = [KINDS[kind] for kind in verb.arguments]
    if verb.optional:
        words[-verb.optional :] = [f"[{word}]" for word in words[-verb.optional :]]
    written = " ".join([verb.name, *words])
    return written, verb.result.value, verb.actor is Actor.KERNEL


def test_the_table_has_every_verb_and_only_verbs() -> None:
    rows = re.findall(r"(?m)^\| `([^`]+)` \| (\w+) \| (.*) \|$", section("Verbs"))
    shown = [(step, result, "only by `kernel`" in text) for step, result, text in rows]
    assert shown == [row(verb) for verb in VERBS.values()]


def test_the_example_is_a_test_in_standard_form() -> None:
    text = re.findall(r"(?s)```litmus\n(.*?)```", PAGE)[0]
    assert format_test(parse(text)) == text


@pytest.mark.parametrize("word", sorted(KEYWORDS))
def test_every_keyword_is_explained(word: str) -> None:
    assert re.search(rf"`[^`\n]*\b{word}\b|\"{word}\"", PAGE)


def test_the_words_of_the_language_are_those_of_its_tables() -> None:
    flat = " ".join(PAGE.split())
    for words in (FLAG_WORDS, FEATURE_WORDS, STATUS_WORDS + STATE_WORDS):
        assert " ".join(words) in flat
    *first, last = (f"`{name}`" for name in PROMISES)
    assert f"{', '.join(first)} and {last}" in flat
    for name in PROT_WORDS + RESERVED_PROMISES:
        assert f"`{name}`" in flat


def test_the_limits_are_those_of_the_checker() -> None:
    said = [int(number) for number in re.findall(r"\d+", section("The file").split("Limits:")[1])]
    assert said == [
        limits.MAX_FILE_BYTES // 1024,
        limits.MAX_STRING,
        limits.MAX_NAME,
        limits.MAX_PROCESSES,
        limits.MAX_THREADS,
        limits.MAX_PAGES,
        limits.MAX_CPUS,
        limits.MAX_STEPS,
        limits.MAX_REFERENCES,
        limits.MAX_REGISTERS,
        limits.MAX_GROUP,
        limits.MAX_VARIANTS,
        limits.MAX_QUESTIONS,
        limits.MAX_CLAIMS,
    ]
