"""Huge ranges on real kernels: the runner's words, what it tells, and what has no lever."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pageherd.litmus import parse
from pageherd.litmus.syntax import Test
from pageherd.real import host_swap
from pageherd.real.generate import RANGE, WEIGHTS, random_test
from pageherd.real.observe import KPF_THP, PRESENT_BIT
from pageherd.real.results import Probes, Run, read
from pageherd.real.steer import NotSteerable, encode, steer
from pageherd.rules.choose import choose

KERNEL = choose("linux-6.12")


def make(steps: str) -> Test:
    head = "test t\nprocesses P C\npages a b c\nhuge h = a b\n"
    return parse(f"{head}\nP: mmap h\nP: hugepage h\n{steps}\nkeeps private\n")


def runs(text: str) -> list[Run]:
    return list(read(iter(text.splitlines()), Probes()))


def test_words_name_the_range_and_what_works_on_all_of_it() -> None:
    (steered,) = steer(make("P: write h = 1\nP: write b = 2\nkernel: split P.b"), "base", KERNEL)
    assert encode(steered, "none") == (
        "swap none\nprogram t 1 3 1 1 1\nrange 0 2\nthread 0 0\n"
        "step 0 0 mmap 0 0 0 2\nstep 0 0 hugepage 0 0 0 2\nstep 0 0 write 0 0 1 2\n"
        "step 0 0 write 1 0 2\nstep -1 0 split 0 1 0\nrun\n"
    )
    assert steered.needs == {"thp", "thp-split"}
    assert int(steered.program.first["rest_pages"][0]) == 511


def test_a_range_that_no_step_names_makes_no_difference() -> None:
    head = "test t\nprocesses P\npages a b\nhuge h = a b\n"
    (steered,) = steer(parse(f"{head}P: mmap a\nP: write a = 1\n"), "base", KERNEL)
    assert not steered.test.huge
    assert "thp" not in steered.needs


@pytest.mark.parametrize("swap", ["disk", "zram"])
def test_no_huge_page_lies_on_a_swap_file_in_one_piece(swap: str) -> None:
    test = parse(
        f"test t\nprocesses P\npages a b\nhuge h = a b\nswap {swap}\nP: mmap h\nP: pageout h\n"
    )
    (steered,) = steer(test, "base", KERNEL, in_pieces={"disk"})
    assert bool(steered.program.first["swap_in_pieces"][0]) == (swap == "disk")


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ("P: mmap_shared c\nP: sync_file c", "sync_file: beside a huge range"),
        ("P: mmap_file b c", "mmap: the page of the file has another width"),
        ("P: mmap_shared a c", "mmap: the page of the file has another width"),
        ("P: mmap_hugetlb c", "mmap_hugetlb: beside a huge range"),
        ("P: r = odirect_read b", "odirect_read: the page stands for the rest"),
        ("P: r = vmsplice b\nP: tee r 2", "tee: the page stands for the rest"),
        ("P: r = vfio_map b\nP: write_ref r = 2", "write_ref: a device takes too long"),
        ("P: r = vmsplice a\nkernel: split r", "split: of what a reference holds"),
        ("P: mremap c b", "mremap: the page of a huge range has another width"),
        ("P: mremap b a", "mremap: the page of a huge range has another width"),
    ],
)
def test_what_works_on_one_page_is_refused_where_a_page_is_many(steps: str, reason: str) -> None:
    with pytest.raises(NotSteerable, match=reason):
        steer(make(steps), "base", KERNEL)


def test_a_page_says_whether_it_is_huge() -> None:
    present, thp = 1 << PRESENT_BIT | 7, 1 << KPF_THP
    (run,) = runs(f"program t\nstep 0 0 0 | 0.0 {present:x} 1 {thp:x} 1 0 | 0.1 0 0 0 0 0\nend")
    page = run.steps[0].pages[0, 0]
    assert page.huge
    assert page.large
    assert page.alone is None, "some releases look at the first page of the entry only"
    assert run.steps[0].pages[0, 1].huge is None


@pytest.mark.parametrize(
    "step", ["step 1 0 0 | 0.0 0 0 0 0 3", f"step 1 {-errno.EILSEQ} 0 | 0.0 0 0 0 0 0"]
)
def test_after_pages_were_not_alike_nothing_is_compared(step: str) -> None:
    (run,) = runs(f"program t\nstep 0 0 0 | 0.0 0 0 0 0 0\n{step}\nstep 2 0 0\nend")
    assert run.unlike
    assert [ran.step for ran in run.steps] == [0]


def test_the_runner_says_that_there_was_no_huge_page() -> None:
    (run,) = runs("program t\nstep 0 0 0\nno-huge\nend")
    assert run.no_huge


def test_one_random_program_in_four_has_a_huge_range() -> None:
    tests = [random_test(seed, 12, list(WEIGHTS), "disk") for seed in range(200)]
    assert 30 < sum(test.huge == (RANGE,) for test in tests) < 70
    without = [verb for verb in WEIGHTS if verb != "hugepage"]
    assert not any(random_test(seed, 12, without, "disk").huge for seed in range(50))


def test_settings_that_a_killed_run_left_are_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, stranger, saved = tmp_path / "enabled", tmp_path / "other", tmp_path / "saved"
    folder = tmp_path / "thp"
    folder.mkdir()
    setting = folder / "enabled"
    setting.write_text("madvise")
    stranger.write_text("as it is")
    saved.write_text(f"{setting} always\n{stranger} changed\n{folder}/../other changed\n")
    monkeypatch.setattr(host_swap, "_NOTES", tmp_path)
    monkeypatch.setattr(host_swap, "_SETTINGS", {"saved": (f"{folder}/",)})
    host_swap._put_settings_back()
    assert setting.read_text() == "always"
    assert stranger.read_text() == "as it is"
    assert not saved.exists()
