"""What a runner prints, read back; and lines that no runner prints."""

from __future__ import annotations

import errno

import pytest

from pageherd.real.results import Probes, Ran, Run, read

PAGE = "8000000000001234 2 1000"


def runs(*lines: str) -> tuple[list[Run], Probes]:
    probes = Probes()
    return list(read(iter(line + "\n" for line in lines), probes)), probes


def test_one_program() -> None:
    (run,), probes = runs(
        "release 6.1.0-x",
        "have pagemap 0",
        "have nbd 19",
        "fact numa 2 nodes",
        "swap 0",
        "program a:base",
        f"step 0 0 0 | 0.0 {PAGE} | 0.1 0 0 0",
        f"step 1 -14 7 | 0.0 {PAGE}",
        "end",
    )
    assert (run.id, run.ending, run.no_swap) == ("a:base", "end", 0)
    assert [(r.step, r.status, r.seen) for r in run.steps] == [(0, "ok", 0), (1, "fault", 7)]
    page = run.steps[0].pages[0, 0]
    assert (page.entry, page.frame, page.mapcount) == ("present", 0x1234, 2)
    assert run.steps[0].pages[0, 1].entry == "absent"
    assert probes.release == "6.1.0-x"
    assert probes.missing("pagemap") is None
    assert probes.missing("nbd") == "nbd: ENODEV"
    assert probes.missing("never heard of") == "never heard of: ENOSYS"
    assert probes.facts == {"numa": "2 nodes"}


def test_repeated_runs_are_runs_of_their_own() -> None:
    found, _ = runs("program a", "step 0 0 1", "again", "step 0 0 2", "again", "step 0 0 3", "end")
    assert [(run.id, run.ending, run.steps[0].seen) for run in found] == [
        ("a", "end", 1),
        ("a", "end", 2),
        ("a", "end", 3),
    ]


def test_endings() -> None:
    assert [run.ending for run in runs("program a", "hang 0", "end")[0]] == ["hang"]
    assert [run.ending for run in runs("program a", "hang 0", "stuck")[0]] == ["hang"]
    assert [run.ending for run in runs("program a", "step 0 0 0", "stuck")[0]] == ["stuck"]
    assert [run.ending for run in runs("program a", "step 0 0 0")[0]] == ["missing"]
    assert runs("release 6.1")[0] == []


def test_each_program_has_a_swap_device_of_its_own() -> None:
    found, _ = runs("swap -2", "program a", "end", "swap 0", "program b", "again", "end")
    assert [(run.id, run.no_swap) for run in found] == [("a", 2), ("b", 0), ("b", 0)]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (0, "ok"),
        (errno.EFAULT, "fault"),
        (errno.ENOMEM, "fault"),
        (errno.EINVAL, "fault"),
        (errno.EPERM, "EPERM"),
        (4000, "4000"),
    ],
)
def test_an_error_number_is_a_status(error: int, status: str) -> None:
    assert Ran(0, error, 0, {}).status == status


@pytest.mark.parametrize(
    "line",
    [
        "step",
        "step 1",
        "step one 0 0",
        "step 0 0 0 | nonsense",
        "step 0 0 0 | 0.0 8000000000001234 2",
        f"step 0 0 0 | -1.0 {PAGE}",
        f"step 0 0 0 | 0.0 {PAGE} 9",
        "have pagemap",
        "swap on",
    ],
)
def test_a_line_that_no_runner_prints_is_not_guessed_at(line: str) -> None:
    with pytest.raises(ValueError, match=r"printed|expected|unpack|invalid literal"):
        runs("program a", line, "end")


def test_lines_without_a_program_and_unknown_words_are_passed_over() -> None:
    found, probes = runs("", "step 0 0 0", "end", "again", "Segmentation fault", "program a", "end")
    assert [(run.id, run.steps) for run in found] == [("a", [])]
    assert probes.have == {}
