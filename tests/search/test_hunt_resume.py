"""The same answer on any number of cores, and however often a search is cut short."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pageherd.cli.main import main
from pageherd.machine.layout import HUNT
from pageherd.rules.choose import choose, record
from pageherd.search import breadth, checkpoint, keeper, product
from pageherd.search.breadth import Search
from pageherd.search.checkpoint import CheckpointError
from pageherd.search.client import client_of
from pageherd.search.diff import diff
from pageherd.search.hunt import Found, hunt
from pageherd.search.scope import chosen_verbs, scopes_of

OPS = ("mmap", "write", "read", "fork", "munmap", "vmsplice", "odirect_read", "pageout")
SCOPE = "2,1,1,1"
KERNEL = "linux-5.10"


def search(cores: int = 1) -> Search:
    chosen, (bounds,) = choose(KERNEL), scopes_of(SCOPE)
    table = record(chosen, HUNT)
    client = client_of(bounds, chosen, table, chosen_verbs(OPS))
    return Search(bounds, chosen, client, table, cores=cores)


def same(a: Search, b: Search) -> bool:
    return (
        (a.transitions, a.pruned, a.levels) == (b.transitions, b.pruned, b.levels)
        and np.array_equal(a.codes, b.codes)
        and np.array_equal(a.parents, b.parents)
        and np.array_equal(a.edges, b.edges)
        and np.array_equal(a.broken, b.broken)
    )


def told(found: list[Found]) -> list[tuple[Any, ...]]:
    return [
        (
            *(each.size.states, each.size.transitions, each.size.depth, each.complete),
            {name: breach.operations for name, breach in each.breaches.items()},
            *(each.never_asked, each.never_taken),
        )
        for each in found
    ]


@pytest.mark.parametrize("cores", [2, 3])
@pytest.mark.parametrize("size", [7, 64])
def test_cores_change_nothing(cores: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = search()
    assert plain.run()
    monkeypatch.setattr(breadth, "SLICE", size)
    other = search(cores)
    assert other.run()
    assert same(plain, other)


def test_a_search_goes_on_where_it_was(tmp_path: Path) -> None:
    plain = search()
    assert plain.run()
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls % 3 == 0

    whole: dict[str, Any] = {"kernel": KERNEL}
    cut = search()
    while not cut.run(stop=stop):
        checkpoint.save(tmp_path / "c", whole, [], cut)
        cut = search()
        checkpoint.load(tmp_path / "c", whole).resume(cut)
    assert calls > 9
    assert same(plain, cut)
    assert [file.name for file in tmp_path.iterdir()] == ["c"]


def test_a_bound_can_be_raised(tmp_path: Path) -> None:
    file = tmp_path / "bound"
    plain = hunt(KERNEL, "default", ops=OPS[:5])
    (short,) = hunt(KERNEL, SCOPE, ops=OPS, max_states=200, resume=file)
    assert (short.complete, short.checkpoint) == (False, file)
    (whole,) = hunt(KERNEL, SCOPE, ops=OPS, resume=file)
    assert told([whole]) == told(hunt(KERNEL, SCOPE, ops=OPS))
    assert not file.exists()
    assert len(plain) == 2


def test_scopes_that_are_done_are_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = hunt(KERNEL, "default", ops=OPS[:5])
    file = tmp_path / "default"
    monkeypatch.setattr(keeper, "SAVE_EVERY", 0.0)  # a checkpoint after every chunk
    before = checkpoint.save

    class Killed(BaseException):
        pass

    def dying(path: Path, identity: Any, done: Any, search: Search) -> None:
        before(path, identity, done, search)
        if len(done) == 1 and search.depth > 3:
            raise Killed

    monkeypatch.setattr(checkpoint, "save", dying)
    with pytest.raises(Killed):
        hunt(KERNEL, "default", ops=OPS[:5], resume=file)
    monkeypatch.setattr(checkpoint, "save", before)
    assert told(hunt(KERNEL, "default", ops=OPS[:5], resume=file)) == told(plain)


def test_only_the_same_hunt_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "it"
    hunt(KERNEL, SCOPE, ops=OPS, max_states=100, resume=file)
    with pytest.raises(CheckpointError, match=r"another kernel: linux-5.10, not linux-5.8"):
        hunt("linux-5.8", SCOPE, ops=OPS, resume=file)
    with pytest.raises(CheckpointError, match="another scope"):
        hunt(KERNEL, "2,1,0,1", ops=OPS, resume=file)
    with pytest.raises(CheckpointError, match="other operations"):
        hunt(KERNEL, SCOPE, ops=OPS[:-1], resume=file)
    with pytest.raises(CheckpointError, match="other promises"):
        hunt(KERNEL, SCOPE, ops=OPS, ask=("get-fork",), resume=file)
    whole = file.read_bytes()
    file.write_bytes(re.sub(rb'"machine": "..', b'"machine": "--', whole))
    with pytest.raises(CheckpointError, match="another version"):
        hunt(KERNEL, SCOPE, ops=OPS, resume=file)
    for damaged in (whole[: len(whole) // 2], whole[:60], b"something else"):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"damaged|not a checkpoint"):
            hunt(KERNEL, SCOPE, ops=OPS, resume=file)


def test_a_full_disk_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "it"
    hunt(KERNEL, SCOPE, ops=OPS, max_states=100, resume=file)
    before = file.read_bytes()

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np.lib.format, "write_array", full)
    arguments = ["hunt", "--kernel", KERNEL, "--scope", SCOPE, "--ops", ",".join(OPS)]
    arguments += ["--resume", str(file), "--max-states", "400"]
    assert main(arguments) == 4
    assert "No space left on device" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["it"]


FEWER = "mlock,mprotect,clear_soft_dirty,ptrace_poke,process_vm_writev,dontneed"
WHERE = ("--json", "--scope", SCOPE, "--observe", "promises", "--ops", ",".join(OPS), "--resume")
HUNT_IT = ("hunt", "--kernel", KERNEL, "--json", "--scope", SCOPE, "--without", FEWER, "--resume")
ALL_ALIKE = ("diff", "linux-6.18", "linux-7.3", *WHERE)
ALL_SHORTEST = ("diff", "linux-5.10", "linux-5.18", "--promise", "private", "--all", *WHERE)
COMMANDS = {HUNT_IT: 1, ALL_ALIKE: 0, ALL_SHORTEST: 1}  # and how each of them ends


def started(command: tuple[str, ...], file: Path, save_every: float) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    program = f"""
import sys, time
from pageherd.cli.main import main
from pageherd.search import checkpoint, keeper, product

def slowly(*arguments, save=checkpoint.save):
    save(*arguments)
    time.sleep(0.02)  # so that a signal comes before the end

checkpoint.save = slowly
keeper.SAVE_EVERY, product._SLICE = {save_every}, 8
sys.exit(main({[*command, str(file)]!r}))
"""
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def over(running: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]], str]:
    """The exit code, the lines of JSON but for the seconds, and what was told."""
    out, err = running.communicate(timeout=300)
    found = [json.loads(line) for line in out.splitlines()]
    for line in found:
        del line["seconds"]
    return running.returncode, found, err


def begun(command: tuple[str, ...], file: Path) -> subprocess.Popen[str]:
    """A search that is under way: its first checkpoint is there."""
    running = started(command, file, 0.01)
    while not file.exists():
        assert running.poll() is None
        time.sleep(0.005)
    return running


@pytest.fixture(scope="module", params=COMMANDS, ids=["hunt", "diff", "diff --all"])
def uninterrupted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """A command, and what it prints if nothing cuts it short."""
    file = tmp_path_factory.mktemp("whole") / "it"
    code, lines, _ = over(started(request.param, file, 1000))
    assert code == COMMANDS[request.param]
    assert not file.exists()
    return request.param, lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_cut_short_by_a_signal(
    number: int, tmp_path: Path, uninterrupted: tuple[tuple[str, ...], list[dict[str, Any]]]
) -> None:
    command, whole = uninterrupted
    file = tmp_path / "it"
    running = begun(command, file)
    running.send_signal(number)
    code, lines, err = over(running)
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 130
        assert not any(line["complete"] for line in lines)
        assert f"--resume {file}" in err
    code, lines, _ = over(started(command, file, 1000))
    assert (code, lines) == (COMMANDS[command], whole)


def test_a_comparison_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is cut short, and for the next thing compared when one is done."""
    asked: dict[str, Any] = {"scope": SCOPE, "ops": OPS, "observe": ("promises", "values")}
    pair = "linux-6.12", "linux-6.18"
    whole = diff(*pair, **asked)
    monkeypatch.setattr(product, "_SLICE", 16)
    file = tmp_path / "it"
    bound, rounds = 20, 0
    while True:
        bound *= 2
        found = diff(*pair, **asked, max_states=bound, resume=file)
        rounds += 1
        if found.checkpoint is None:
            break
        assert found.checkpoint == file
        assert not found.complete
    assert rounds > 1
    assert not file.exists()
    assert replace(found, seconds=0, client=whole.client) == replace(whole, seconds=0)


def test_a_hunt_and_a_comparison_do_not_mix(tmp_path: Path) -> None:
    file = tmp_path / "it"
    diff("linux-6.12", "linux-6.18", SCOPE, "values", ops=OPS, max_states=100, resume=file)
    with pytest.raises(CheckpointError, match=r"another command: diff, not hunt"):
        hunt(KERNEL, SCOPE, ops=OPS, resume=file)
    with pytest.raises(CheckpointError, match=r"another kernel: linux-6.12 and linux-6.18, not"):
        diff("linux-6.12", "linux-7.3", SCOPE, "values", ops=OPS, resume=file)
    with pytest.raises(CheckpointError, match="a diff with other options"):
        diff("linux-6.12", "linux-6.18", SCOPE, "counts", ops=OPS, resume=file)
