"""Differences of kernels: what is known to differ is found, and nothing where nothing differs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from pageherd.cli.main import main
from pageherd.litmus import parse
from pageherd.litmus.format import format_test
from pageherd.search.check import explore
from pageherd.search.diff import Difference, diff

FORKS = ("mmap", "write", "read", "fork", "munmap", "exit", "vmsplice", "release")
SWAPS = (*FORKS, "pageout", "reclaim", "drain")
PINS = (
    *("mmap", "write", "read", "fork", "munmap", "rdma_register", "io_uring_register"),
    *("vfio_map_ro", "write_ref", "release", "reclaim", "drain"),
)


def differ(k1: str, k2: str, observe: Any = "promises", **chosen: Any) -> Difference:
    chosen.setdefault("ops", FORKS)
    return diff(k1, k2, chosen.pop("scope", "2,1,1,1"), observe, **chosen)


@pytest.mark.parametrize(
    ("k1", "k2", "ops", "promise", "breaks"),
    [
        ("linux-4.19", "linux-4.19.y", FORKS, "private", 1),
        ("linux-5.8", "linux-5.10", PINS, "pin-coherent", 1),
        ("linux-5.10", "linux-5.18", SWAPS, "private", 0),
        ("linux-5.18", "linux-6.1", PINS, "pin-coherent", 0),
        ("linux-6.1", "linux-6.12", PINS, "own-writes", 1),
    ],
)
def test_what_is_known_to_differ_is_found(
    k1: str, k2: str, ops: tuple[str, ...], promise: str, breaks: int
) -> None:
    found = differ(k1, k2, ops=ops, promises=(promise,))
    assert found.found
    (program,) = found.programs
    assert program.promise == promise
    for number, kernel in enumerate((k1, k2)):
        expected = "broken" if number == breaks else "kept"
        assert program.shows[number] == f"{promise} {expected}"
        assert explore(program.test, kernel).verdict == expected
    assert program.test.body == parse(format_test(program.test)).body


@pytest.mark.parametrize("observe", ["promises", "values", "copies", "counts"])
def test_a_kernel_does_not_differ_from_itself(observe: Any) -> None:
    found = differ("linux-6.1", "linux-6.1", observe, scope="2,1,1,0")
    assert not found.found
    assert found.complete
    assert found.states > 10


def test_the_order_of_the_kernels_does_not_matter() -> None:
    there = differ("linux-4.19", "linux-4.19.y", every=True)
    back = differ("linux-4.19.y", "linux-4.19", every=True)
    assert there.states == back.states
    shown = {(each.promise, each.operations, each.shows) for each in there.programs}
    assert shown == {(each.promise, each.operations, each.shows[::-1]) for each in back.programs}


def test_values_copies_and_counts_that_differ_are_shown() -> None:
    for observe in ("values", "copies", "counts"):
        found = differ("linux-4.19", "linux-4.19.y", observe)
        assert found.found, observe
        (program,) = found.programs
        assert program.confirmed
        assert program.promise == ""
        assert program.test.body == parse(format_test(program.test)).body


def test_all_shortest_programs_are_equally_long_and_different() -> None:
    found = differ("linux-5.18", "linux-6.1", every=True, ops=PINS)
    lengths = {len(program.operations) for program in found.programs}
    assert lengths == {len(differ("linux-5.18", "linux-6.1", ops=PINS).programs[0].operations)}
    assert all(program.confirmed for program in found.programs)
    named = [(program.promise, program.operations) for program in found.programs]
    assert len(set(named)) == len(named)


@pytest.mark.parametrize(
    ("kernel", "change"),
    [("linux-6.1", "fork=share"), ("linux-5.18", "reuse=by-mapcount"), ("linux-6.1", "rdma=get")],
)
def test_the_one_rule_that_was_changed_is_named(kernel: str, change: str) -> None:
    changed = f"{kernel}:{change}"
    point, _, alternative = change.partition("=")
    found = differ(kernel, changed, ("promises", "values", "copies"), ops=SWAPS + PINS, why=True)
    for reason in found.programs[0].why:
        (named,) = reason.changes
        assert named.point == point
    first = found.programs[0].why[0]
    assert first.spec == changed
    assert first.changes[0].after == alternative
    assert first.changes[0].stands_for


def test_a_bound_leaves_it_undetermined(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["diff", "linux-6.1", "linux-6.1", "--scope", "2,1,1,1", "--max-states", "10"]
    assert main(asked) == 3
    assert "not exhausted" in capsys.readouterr().out


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.litmus"
    asked = ["diff", "linux-4.19", "linux-4.19.y", "--scope", "2,1,1,0", "--why", "--json"]
    asked += ["--ops", ",".join(FORKS), "--save", str(file)]
    assert main(asked) == 1
    line = json.loads(capsys.readouterr().out)
    assert line["shows"] == {"linux-4.19": "private kept", "linux-4.19.y": "private broken"}
    assert line["why"][0]["kernel"] == "linux-4.19:unshare=break-cow"
    assert explore(str(file), "linux-4.19").verdict == "kept"
    assert explore(str(file), "linux-4.19.y").verdict == "broken"


def test_no_difference_and_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    ops = ["--ops", "mmap,write", "--scope", "1,1,0,0"]
    assert main(["diff", "linux-6.1", "linux-7.3", *ops]) == 0
    assert "no difference in this scope" in capsys.readouterr().out
    assert main(["diff", "linux-6.1", "linux-7", *ops]) == 2


def test_the_history_is_up_to_date() -> None:
    """For one pair, and all pairs are there; `scripts/history.py` makes the whole page anew."""
    root = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location("history", root / "scripts" / "history.py")
    assert spec is not None
    assert spec.loader is not None
    history = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(history)
    text = (root / "docs" / "history.md").read_text(encoding="utf-8")
    for one, other in history.PAIRS:
        assert f"## {one} to {other}\n" in text
    assert history.section("linux-4.19", "linux-4.19.y") in text
