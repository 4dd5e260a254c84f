"""Hunts: what must be found is found, and every way of searching gives the same answer."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pageherd.cli.main import main
from pageherd.litmus import parse
from pageherd.machine.jit import records
from pageherd.machine.layout import HUNT
from pageherd.promises.table import BY_NAME
from pageherd.rules.choose import choose, record
from pageherd.search import expand as ex
from pageherd.search.breadth import Search
from pageherd.search.client import client_of
from pageherd.search.hunt import Found, hunt
from pageherd.search.scope import MOVES, ScopeError, chosen_verbs, scopes_of

FEW = ("mmap", "write", "read", "fork", "munmap", "exit", "vmsplice", "pageout", "drain", "release")
PINS = (
    *("mmap", "write", "read", "fork", "exit", "rdma_register", "write_ref", "release"),
    *("reclaim", "drain"),
)

FORKS = ("mmap", "write", "fork", "exit", "vmsplice", "release")
LOCKS = ("mmap", "write", "read", "fork", "exit", "mlock", "reclaim", "drain", "rdma_register")
MOVED = ("mmap", "write", "fork", "exit", "mlock", "pageout", "rdma_register", *MOVES)
TWO_PINS = ("mmap", "write", "fork", "exit", "rdma_register", "release", "drain")


def one(kernel: str, scope: str = "2,1,1,1", **chosen: Any) -> Found:
    (found,) = hunt(kernel, scope, **chosen)
    return found


def search(kernel: str, scope: str, ops: tuple[str, ...], symmetry: bool) -> Search:
    chosen, (bounds,) = choose(kernel), scopes_of(scope)
    table = record(chosen, HUNT)
    client = client_of(bounds, chosen, table, chosen_verbs(ops), symmetry=symmetry)
    done = Search(bounds, chosen, client, table, symmetry=symmetry)
    assert done.run()
    return done


def shortest(found: Found) -> dict[str, int]:
    return {name: len(breach.operations) for name, breach in found.breaches.items()}


@pytest.mark.parametrize(
    ("kernel", "promise", "length"),
    [
        ("linux-4.19", "private", 6),
        ("linux-4.19", "pin-coherent", 5),
        ("linux-5.8", "pin-coherent", 5),
    ],
)
def test_known_breaches(kernel: str, promise: str, length: int) -> None:
    ops = ("mmap", "write", "fork", "vmsplice", "rdma_register", "munmap")
    found = one(kernel, ops=ops)
    assert found.complete
    assert len(found.breaches[promise].operations) <= length
    assert all(breach.confirmed for breach in found.breaches.values())


def test_a_kernel_that_keeps_everything() -> None:
    found = one("linux-7.3", ops=FEW)
    assert found.complete
    assert not found.breaches
    assert {found.verdict(promise) for promise in found.asked} == {"kept"}


@pytest.mark.parametrize("kernel", ["linux-5.10", "linux-7.3"])
def test_pages_that_move_break_nothing_more(kernel: str) -> None:
    """In the scope `migration` no program is shorter, and no promise breaks that `small` keeps."""
    (plain,), (moving,) = hunt(kernel, "small"), hunt(kernel, "migration")
    assert moving.complete
    assert set(MOVES) <= set(moving.client.verbs)
    assert shortest(moving) == shortest(plain)


def test_a_bound_leaves_it_undetermined() -> None:
    found = one("linux-7.3", ops=FEW, max_states=50)
    assert not found.complete
    assert {found.verdict(promise) for promise in found.asked} == {"undetermined"}


@pytest.mark.parametrize("ops", [FEW, PINS])
@pytest.mark.parametrize("kernel", ["linux-4.19", "linux-5.10", "linux-6.1", "linux-7.3"])
def test_tokens_and_symmetry_change_no_verdict(kernel: str, ops: tuple[str, ...]) -> None:
    plain = one(kernel, ops=ops, ask=("get-fork",))
    for way in ({"tokens": True}, {"symmetry": False}):
        other = one(kernel, ops=ops, ask=("get-fork",), **way)
        assert other.complete
        assert shortest(other) == shortest(plain)
        assert other.size.states >= plain.size.states


@pytest.mark.parametrize(
    ("scope", "kernel", "ops"),
    [
        *((scope, "linux-6.12", FORKS) for scope in ("2,1,1,1", "2,1,2,0", "3,1,0,1", "2,2,0,1")),
        *((scope, "linux-6.12", PINS) for scope in ("2,1,1,1", "2,1,2,0", "3,1,0,1", "2,2,0,1")),
        *((scope, "linux-6.12", MOVED) for scope in ("2,1,1,1", "3,1,0,1", "2,2,0,1")),
        # names are gone through one after the other: forks of two pins
        ("2,2,2,0", "linux-6.12", TWO_PINS),
        ("2,2,2,0", "linux-5.10", TWO_PINS),
    ],
)
def test_orbits_sum_to_the_states_without_symmetry(
    scope: str, kernel: str, ops: tuple[str, ...]
) -> None:
    reduced, whole = (search(kernel, scope, ops, symmetry) for symmetry in (True, False))
    orders = int(reduced.work["orders"][0])
    seen = np.zeros((orders, int(reduced.work["bytes"][0])), np.uint8)
    total = 0
    for node in range(reduced.nr_states):
        ex.unpack(
            records(reduced.states), reduced.words, records(reduced.work), reduced.codes, node
        )
        total += ex.orbit(records(reduced.states), ex.BASE, records(reduced.work), seen, orders)
    assert total == whole.nr_states


@pytest.mark.parametrize(
    ("scope", "kernel"), [("3,1,0,1", "linux-6.12"), ("2,1,1,1", "linux-5.10")]
)
def test_walks_that_a_lock_ends_are_taken_in_every_order(scope: str, kernel: str) -> None:
    """Without symmetry a walk goes by number, so only one name of what it leaves is reached."""
    reduced, whole = (search(kernel, scope, LOCKS, symmetry) for symmetry in (True, False))
    codes = set()
    for node in range(whole.nr_states):
        ex.unpack(records(whole.states), whole.words, records(whole.work), whole.codes, node)
        ex.pack(records(whole.states), ex.BASE, records(reduced.work), True)
        codes.add(reduced.smallest_code().tobytes())
    assert codes == {code.tobytes() for code in reduced.codes}
    assert lengths(reduced) == lengths(whole)


def lengths(done: Search) -> list[int | None]:
    paths = (done.path_to(name) for name in BY_NAME)
    return [None if path is None else len(path) for path in paths]


def test_parents_lead_to_the_first_state() -> None:
    done = search("linux-4.19", "2,1,1,1", FEW, True)
    path = done.path_to("private")
    assert path is not None
    assert done.path_to("no-leak") is None
    assert len(done.retrace(path)) == len(path) + 1
    assert all(a <= b for a, b in pairwise(done.parents.tolist()))  # breadth first
    assert done.broken[BY_NAME["private"].number, 0] >= 0


def test_two_hunts_are_equal() -> None:
    first, second = (one("linux-5.10", ops=FEW) for _ in range(2))
    assert first.size.states == second.size.states
    assert first.size.transitions == second.size.transitions
    assert {n: b.operations for n, b in first.breaches.items()} == {
        n: b.operations for n, b in second.breaches.items()
    }


def test_bad_scopes_and_operations() -> None:
    for text in ("smal", "2,1", "0,1,1,1", "9,9,9,9", "a,b,c,d"):
        with pytest.raises(ScopeError):
            scopes_of(text)
    with pytest.raises(ScopeError, match="write"):
        chosen_verbs(("wriet",))
    with pytest.raises(ScopeError, match="--scope folio"):
        chosen_verbs(("mmap", "split"))


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["hunt", "--kernel", "linux-4.19", "--scope", "2,1,1,0"]
    arguments += ["--ops", "mmap,write,fork,vmsplice,munmap"]
    assert main([*arguments, "--json", "--save", str(tmp_path)]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    broken = [line for line in lines if line["verdict"] == "broken"]
    assert [line["promise"] for line in broken] == ["private"]
    assert broken[0]["complete"]
    assert broken[0]["trace"]
    (saved,) = tmp_path.iterdir()
    assert parse(saved.read_text()).questions
    assert main(["run", str(saved), "--kernel", "linux-4.19"]) == 1
    assert main(["run", str(saved), "--kernel", "linux-6.1"]) == 0
    capsys.readouterr()
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert "the scope is exhausted" in out
    assert "operations: mmap, write, munmap, fork, vmsplice" in out
    assert main(["hunt", "--kernel", "linux-7.3", "--scope", "nowhere"]) == 2
