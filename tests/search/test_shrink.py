"""Shrinking: lengths worked out by hand, the same breach, nothing left to leave out."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from library import checker, library
from pageherd.cli.main import main
from pageherd.errors import LitmusError
from pageherd.litmus import parse
from pageherd.litmus.check import check
from pageherd.litmus.format import format_step, format_test
from pageherd.litmus.syntax import Group, Keeps, Outcome, Prepare, Step, Test
from pageherd.promises.table import NAMES
from pageherd.rules import kernels
from pageherd.search.check import Chosen, find_one
from pageherd.search.shrink import NotBroken, Shrunk, shrink_chosen, size
from programs import PAGES, PROCESSES, program

CVE = "cow-vmsplice-child-unmap"
SHIPPED = [name for name in kernels.names() if not kernels.row(name).proposal]


def shrunk(test: Test | str, kernel: str) -> Shrunk:
    chosen = find_one(test) if isinstance(test, str) else Chosen(test, test.default_variant)
    return shrink_chosen(chosen, kernel, checker())


def steps(test: Test) -> list[str]:
    return [format_step(step) for step in test.body if isinstance(step, Step)]


# Each length is the least: what every step is for stands beside it.

CHILD_READS_THE_PARENT = [
    "P: mmap a",  # there is memory
    "P: write a = 1",  # with a page of its own, not the zero page
    "P: pageout a",  # 5.10 counts references at a write fault, but not at a swap-in
    "P: fork C",  # somebody else
    "C: r = vmsplice a",  # who keeps a reference to the page
    "C: munmap a",  # and no mapping, so that the map count says that P is alone
    "P: write a = 2",  # what C must not see
]
DEVICE_LOSES_THE_PAGE = [
    "P: mmap a",
    "P: r = odirect_read a",  # a device will store to the page
    "P: fork C",  # which is shared now
    "P: write a = 1",  # so that P moves to a copy
]


def test_the_cve_through_swap() -> None:
    assert steps(shrunk(f"{CVE}/base-swap", "linux-5.10").test) == CHILD_READS_THE_PARENT


def test_the_cve_itself_needs_no_swap() -> None:
    without = [step for step in CHILD_READS_THE_PARENT if "pageout" not in step]
    assert steps(shrunk(CVE, "linux-4.19").test) == without


def test_threads_groups_and_what_comes_after_the_breach_go() -> None:
    small = shrunk("fork-odirect-read", "linux-6.1")
    assert steps(small.test) == DEVICE_LOSES_THE_PAGE
    assert (small.steps_before, small.steps_after) == (8, 4)
    assert small.test.processes == ("P", "C")
    assert small.test.threads == ()


PADDED = """test padded "far too much"
processes Root Child Other
threads T1 of Root
pages x y z
on cpu 1: Child
swap slow
lru_batches 3

variant base {
  Root: write x = 77
  kernel: reclaim Root.x
}

variant idle {
  Root: read x
}

Root: mmap x
Root: mmap y
Root: maybe write y = 5
prepare
Root: maybe pageout x
Root: fork Other
Root: mprotect x r
Root: mprotect x rw
Root: fork Child
concurrent by operation {
  Other: write y = 9
  T1: read y
  Child: before = read x
}
Child: q = vmsplice x
Child: p = pin y write longterm
Child: munmap x
Other: exit
Root: write x = 0xff
Child: after = read_ref q
Child: release p

forbid after = 0xff
keeps private
keeps counts
"""


def test_padding_goes_and_names_are_the_usual_ones() -> None:
    small = shrunk(parse(PADDED), "linux-5.10")
    assert steps(small.test) == CHILD_READS_THE_PARENT
    assert format_test(small.test) == format_test(
        replace(
            shrunk(f"{CVE}/base-swap", "linux-5.10").test,
            name="padded",
            title="shrunk from padded",
            questions=small.test.questions,
        )
    )


def test_the_result_says_what_it_is() -> None:
    small = shrunk(f"{CVE}/base-swap", "linux-5.10").test
    (question,) = small.questions
    assert isinstance(question, Keeps)
    assert question.promise == "private"
    assert small.title == f"shrunk from {CVE}/base-swap"
    assert "broken on linux-5.10 from" in format_test(small)
    verdict = checker().check(Chosen(small, "base"), "linux-5.10")
    assert verdict.agrees is True


def test_a_condition_cannot_become_false_for_no_reason() -> None:
    """Without the kernels that keep it, `seen = read a` alone would break `require seen = 3`."""
    test = find_one("fork-odirect-read").test
    asked = tuple(question for question in test.questions if isinstance(question, Outcome))
    small = shrunk(replace(test, questions=asked), "linux-6.1")
    assert small.keepers == ("linux-6.12", "linux-6.18", "linux-7.3")
    assert steps(small.test) == [
        "P: mmap a",
        "P: r = odirect_read a",
        "P: fork C",
        "P: write a = 1",
        "P: write_ref r = 2",
        "P: x = read a",
    ]
    for keeper in small.keepers:
        assert checker().check(Chosen(small.test, "base"), keeper).agrees


def test_only_the_comparison_that_fails_is_left() -> None:
    text = "test t\nprocesses P\npages a\nP: mmap a\nP: x = read a\nP: y = pagemap a\n"
    small = shrunk(parse(text + "\nrequire x = 0 and y = present\n"), "linux-6.1")
    assert steps(small.test)[-1].endswith("x = pagemap a")
    assert "require x = present\n" in small.text


ALLOWED = """test t
processes P C
pages a b
P: mmap a
P: mmap b
P: write a = 5
concurrent by operation {
  P: fork C
  kernel: reclaim P.b
}
C: maybe exit
P: r = pin a
P: write a = 9
P: x = read_ref r
P: z = read a

allow x = 9 and not (z = 5 or z = 6)
"""


def test_what_never_happens_has_no_run_to_follow() -> None:
    """5.10 copies a page that has a pin; by map count, and by the exclusive mark, it stays."""
    small = shrunk(parse(ALLOWED), "linux-5.10")
    assert "linux-4.19" in small.keepers
    assert "linux-6.1" in small.keepers
    assert steps(small.test) == [
        "P: mmap a",
        "P: write a = 1",  # a pin of the zero page is stale on 6.1
        "P: fork C",  # the page becomes read-only, so that the next write faults
        "C: exit",  # 4.19 counts mappings, and would copy too
        "P: r = pin a",
        "P: write a = 2",
        "P: x = read_ref r",
    ]
    assert "allow x = 2\n" in small.text


def test_copies_are_counted_from_the_same_place() -> None:
    small = shrunk("remote-lru-batch", "linux-6.1")
    assert small.ask == "no copy"
    assert checker().check(Chosen(small.test, "base"), "linux-6.1").verdict == "broken"


@pytest.mark.parametrize(("test", "kernel"), [(CVE, "linux-6.1"), ("fork-twice", "linux-7.3")])
def test_what_is_kept_cannot_be_shrunk(test: str, kernel: str) -> None:
    with pytest.raises(NotBroken, match=f"{test} is kept on {kernel}: nothing"):
        shrunk(test, kernel)


@pytest.mark.parametrize("kernel", SHIPPED)
def test_the_whole_library(kernel: str) -> None:
    """Never longer, broken in the same way, the same every time, and shrinking it again is idle."""
    for chosen in library():
        if checker().check(chosen, kernel).verdict != "broken":
            continue
        small = shrink_chosen(chosen, kernel, checker())
        plain = replace(small.test, questions=small.before.questions, title=small.before.title)
        assert size(plain)[:-1] <= size(small.before)[:-1]  # the texts may differ by names alone
        _is_as_broken_as(small, kernel)
        assert shrink_chosen(chosen, kernel, checker()).text == small.text
        again = shrunk(small.test, kernel)
        assert again.text == small.text
        assert not again.changed


def _is_as_broken_as(small: Shrunk, kernel: str) -> None:
    verdict = checker().check(Chosen(small.test, small.test.default_variant), kernel)
    assert verdict.verdict == "broken"
    (question,), (asked,) = small.test.questions, small.before.questions
    assert type(question) is type(asked)
    if isinstance(question, Keeps):
        assert question == replace(asked, claims=question.claims)


@cache
def random_test(seed: int) -> Test:
    """A random program as a test that asks for everything, without the steps that cannot be."""
    questions = tuple(Keeps(name) for name in NAMES)
    test = Test("random", PROCESSES, (), questions, pages=PAGES)
    for step in (Step("P", "mmap", ("b",)), *program(seed, 40)):
        if step.verb == "tee" and step.arguments[1] == 0:
            continue  # the parser, not the checker, refuses to copy it no time
        longer = replace(test, body=(*test.body, step))
        try:
            check(longer)
        except LitmusError:
            continue
        test = longer
    return test


@pytest.mark.parametrize("kernel", ["linux-4.19", "linux-5.10", "linux-6.1"])
def test_random_programs_lose_all_that_can_go(kernel: str) -> None:
    broken = 0
    for seed in range(100):
        test = random_test(seed)
        if checker().check(Chosen(test, "base"), kernel).verdict != "broken":
            continue
        broken += 1
        small = shrunk(test, kernel)
        assert small.steps_after <= len(test.body)
        _is_as_broken_as(small, kernel)
        assert "broken" not in _without_each_step(small.test, kernel)
        assert shrunk(small.test, kernel).text == small.text
    assert broken >= 5


def _without_each_step(test: Test, kernel: str) -> list[str]:
    """The verdicts on all tests with one step less; those that cannot be are left out."""
    verdicts = []
    for number in range(len(test.body)):
        assert not isinstance(test.body[number], Group | Prepare)
        less = replace(test, body=test.body[:number] + test.body[number + 1 :])
        try:
            less = parse(format_test(less))
        except LitmusError:
            continue
        verdicts.append(checker().check(Chosen(less, "base"), kernel).verdict)
    return verdicts


# the command line


def test_the_output_is_a_file_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shrink", f"{CVE}/base-swap", "--kernel", "linux-5.10"]) == 0
    printed = capsys.readouterr()
    assert "9 steps, now 7" in printed.err
    path = tmp_path / "small.litmus"
    path.write_text(printed.out)
    assert main(["run", str(path), "-k", "linux-5.10"]) == 0
    capsys.readouterr()
    assert main(["shrink", str(path), "-k", "linux-5.10"]) == 0
    again = capsys.readouterr()
    assert again.out == printed.out
    assert "7 steps, as few as can be" in again.err


def test_json_has_the_fields_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shrink", "fork-odirect-read", "--kernel", "linux-6.1", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    fields = "test kernel verdict steps_before steps_after tried text"
    assert list(found) == fields.split()
    assert (found["verdict"], found["steps_before"], found["steps_after"]) == ("broken", 8, 4)
    assert parse(found["text"]).name == "fork-odirect-read"


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shrink", CVE, "-k", "linux-6.1"]) == 3
    assert "there is nothing to shrink" in capsys.readouterr().err
    assert main(["shrink", "no-such-test", "-k", "linux-6.1"]) == 2
    assert main(["shrink", CVE, "-k", "linux-0.1"]) == 2
    assert main(["shrink", CVE, "-k", "linux-6.1", "--variant", "none"]) == 2
    (tmp_path / "bad.litmus").write_text("test t\nprocesses P\nP: fly\n")
    assert main(["shrink", str(tmp_path / "bad.litmus"), "-k", "linux-6.1"]) == 2


def test_kernels_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A kernel that is not in the table cannot stand in a claim, so a note names it."""
    assert main(["shrink", CVE, "-k", "linux-6.1:reuse=by-mapcount"]) == 0
    assert 'note "broken on linux-6.1:reuse=by-mapcount"' in capsys.readouterr().out
    rules = Path(__file__).parents[2] / "docs" / "examples" / "by_rmap.py"
    path = tmp_path / "padded.litmus"
    path.write_text(PADDED)
    assert main(["shrink", str(path), "-k", str(rules)]) == 0
    assert "keeps private" in capsys.readouterr().out
