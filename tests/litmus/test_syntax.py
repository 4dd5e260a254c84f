"""What a Test says about itself."""

from __future__ import annotations

from pathlib import Path

import pytest

import pageherd.litmus
from pageherd.litmus import format_question, format_step, parse, parse_file
from pageherd.litmus.syntax import Step
from pageherd.litmus.words import DIRECTIVES, INNER_WORDS, KEYWORDS, SOFT_WORDS

SAMPLES = Path(__file__).parent / "samples"
HEAD = "test t\nprocesses P\npages a\n"


def test_steps_of_a_variant() -> None:
    test = parse_file(SAMPLES / "cow-child-unmap.litmus")
    assert test.ids == ("cow-child-unmap", "cow-child-unmap/base-swap")
    verbs = [step.verb for step in test.variant_steps("base-swap") if isinstance(step, Step)]
    assert verbs[:4] == ["mmap", "write", "pageout", "fork"]
    assert (test.main_start("base"), test.main_start("base-swap")) == (2, 3)
    with pytest.raises(KeyError):
        test.variant_steps("huge")


def test_a_test_without_variants() -> None:
    test = parse_file(SAMPLES / "daemons.litmus")
    assert (test.ids, test.default_variant) == (("daemons",), "base")
    assert test.main_start("base") == 0
    assert test.thread_names() == ("P", "C", "Q", "T1", "T2", "U")
    assert [test.process_of(name) for name in ("P", "T2", "U")] == ["P", "P", "Q"]
    assert [test.cpu_of(name) for name in ("P", "C", "T1", "T2")] == [0, 3, 3, 0]


def test_the_first_variant_stands_in_for_base() -> None:
    test = parse(HEAD + "variant x {\n}\nvariant y {\n}\nprepare\nP: exit\n")
    assert test.ids == ("t/x", "t/y")
    assert test.default_variant == "x"


def test_steps_and_questions_are_written_as_they_are_read() -> None:
    test = parse_file(SAMPLES / "daemons.litmus")
    steps = [step for step in test.variant_steps("base") if isinstance(step, Step)]
    assert format_step(steps[5]) == "P: p = pin b write longterm fast"
    assert format_question(test.questions[0]) == "forbid (x = 2 or y = 2) and (x != y or s = ok)"
    assert format_question(parse(HEAD + "P: exit\ncopies = 0\n").questions[0]) == "no copy"


def test_tests_are_values() -> None:
    text = (SAMPLES / "daemons.litmus").read_text(encoding="utf-8")
    assert hash(parse(text)) == hash(parse("# moved\n" + text))
    assert parse(text) == parse("# moved\n" + text)


def test_a_process_that_no_step_forks_exists_from_the_start() -> None:
    assert parse("test t\nprocesses P Q\npages a\nQ: read a\n").processes == ("P", "Q")


def test_what_may_happen_is_not_refused() -> None:
    parse(
        "test t\nprocesses P C\nthreads T of P\npages a\n"
        "P: r = vmsplice a\nP: maybe release r\nP: x = read_ref r\n"
        "P: maybe fork C\nC: read a\nC: maybe exit\nC: read a\n"
        "concurrent by operation {\nP: release r\nT: y = read_ref r\nC: exit\n}\n"
        "P: z = process_vm_readv C.a\nforbid x = y or y != fault\n"
    )


def test_all_keywords_of_the_grammar_are_known() -> None:
    from pageherd.litmus.parsing import _parser

    words = {str(terminal.pattern.value) for terminal in _parser().terminals}
    assert {word for word in words if word.isidentifier()} == (KEYWORDS | SOFT_WORDS) - {"kernel"}
    assert len(KEYWORDS | SOFT_WORDS) == len(DIRECTIVES) + len(INNER_WORDS)


def test_the_public_names_are_there() -> None:
    for name in pageherd.litmus.__all__:
        assert callable(getattr(pageherd.litmus, name))
    with pytest.raises(AttributeError):
        pageherd.litmus.no_such_name  # noqa: B018
