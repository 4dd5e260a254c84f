"""What states forget makes no difference: neither to what is reached, nor to what is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from pageherd.machine.jit import records
from pageherd.machine.layout import HUNT
from pageherd.machine.verbs import PROT_WORDS
from pageherd.promises.table import PROMISES
from pageherd.rules.choose import choose, record
from pageherd.search import client, forget
from pageherd.search import expand as ex
from pageherd.search import scope as scopes
from pageherd.search.breadth import Search
from pageherd.search.client import client_of
from pageherd.search.forgettable import forgettable
from pageherd.search.hunt import hunt
from pageherd.search.scope import chosen_verbs, scopes_of
from pageherd.search.work import work_record

KERNELS = ("linux-4.19", "linux-5.8", "linux-5.10", "linux-5.18", "linux-6.1", "linux-7.3")
PROPOSALS = ("unshare-2021", "three-state", "no-mapcount", "exclusive-bit")
SWAP = ("mmap", "read", "write", "mprotect", "munmap", "fork", "exit", "mlock", "clear_soft_dirty")
FORKS = ("mmap", "read", "write", "mprotect", "fork", "exit", "clear_soft_dirty")
TAKES = ("vmsplice", "odirect_read", "rdma_register", "rdma_register_ro", "vfio_map_ro")

OWN = """
from pageherd import alternative, proposal
from pageherd.machine.questions import COPY, REUSE_PAGE
from pageherd.machine.folio import has_flag, is_exclusive, page_count
from pageherd.machine.rmap import find_mapping


@alternative("reuse")
def mine(s, t, k, frame):
    return REUSE_PAGE if {condition} else COPY


KERNEL = proposal("own", extends="linux-6.1", about="a rule", reuse=mine)
"""
PLAIN = ("s.mapcount[frame] < 2", "is_exclusive(s, frame) or page_count(s, frame) == 1")
CURIOUS = ("s.pte[0, 0] & 8", "s['want'][0, 0] == 1", "has_flag(s, frame, 2)", "s.ref_mm[0] == 1")


def search(kernel: str, scope: str, ops: tuple[str, ...], kept: int | None) -> Search:
    chosen, (bounds,) = choose(kernel), scopes_of(scope)
    table = record(chosen, HUNT)
    done = Search(
        bounds,
        chosen,
        client_of(bounds, chosen, table, chosen_verbs(ops)),
        table,
        forget=kept,
        settle=False,
    )
    assert done.run()
    return done


def depths(done: Search) -> list[int]:
    found: list[int] = []
    for parent in done.parents.tolist():
        found.append(found[parent] + 1 if parent >= 0 else 0)
    return found


def images(plain: Search, bits: int) -> dict[bytes, int]:
    """What the states of the plain search are once they forget, and how deep the first one is."""
    work = work_record(plain.scope, bits)
    found: dict[bytes, int] = {}
    deep = depths(plain)
    for node in range(plain.nr_states):
        ex.unpack(records(plain.states), plain.words, records(work), plain.codes, node)
        ex.pack(records(plain.states), ex.BASE, records(work), False)
        code = work["code"][0, int(work["best"][0]), : int(work["bytes"][0])].tobytes()
        found.setdefault(code, deep[node])
    return found


def shortest(done: Search) -> dict[str, int | None]:
    paths = {promise.name: done.path_to(promise.name) for promise in PROMISES}
    return {name: None if path is None else len(path) for name, path in paths.items()}


def operations(kernel: str, ops: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `ops` that the kernel has; all but the advice for fork if there are none."""
    chosen = ops or scopes.BASE
    return tuple(verb for verb in chosen if verb not in choose(kernel).absent())


@pytest.mark.parametrize("kernel", [*KERNELS, *PROPOSALS])
@pytest.mark.parametrize(
    ("scope", "ops"),
    [
        ("1,1,1,1", ()),
        ("2,1,1,0", (*FORKS, *TAKES, "write_ref", "release", "drain")),
        ("2,1,0,1", (*SWAP, "pageout", "reclaim", "drain")),
        ("1,1,2,0", ("mmap", "read", "write", "mprotect", "dontneed", *TAKES, "write_ref", "exit")),
        ("2,1,1,1", ("mmap", "write", "fork", "exit", *TAKES[:3], "write_ref", "reclaim", "drain")),
        ("2,1,0,1", (*SWAP, "reclaim", "drain", *scopes.MOVES)),
        ("2,1,1,0", (*FORKS, *TAKES, "write_ref", "release", *scopes.MOVES)),
    ],
)
def test_images_are_what_is_reached(kernel: str, scope: str, ops: tuple[str, ...]) -> None:
    ops = operations(kernel, ops)
    reduced = search(kernel, scope, ops, None)
    bits = int(reduced.work["forget"][0])
    if bits & forget.WRITE_BIT and scope == "1,1,1,1":
        ops = tuple(verb for verb in ops if verb != "clear_soft_dirty")  # see the next test
        reduced = search(kernel, scope, ops, None)
    plain = search(kernel, scope, ops, 0)
    assert reduced.nr_states <= plain.nr_states
    codes = [code.tobytes() for code in reduced.codes]
    assert images(plain, bits) == dict(zip(codes, depths(reduced), strict=True))
    assert shortest(plain) == shortest(reduced)


@pytest.mark.parametrize("kernel", ["linux-6.1", "linux-7.3", "exclusive-bit"])
def test_tracking_changes_nothing_but_one_fault(kernel: str) -> None:
    """A tracked page may become dirty, where it is clean and in the swap cache, without a store.

    That state of the plain search has no image in the other one: it only writes back once more.
    """
    ops = operations(kernel, ())
    plain, reduced = search(kernel, "1,1,1,1", ops, 0), search(kernel, "1,1,1,1", ops, None)
    reached = images(plain, forgettable(choose(kernel)))
    assert {code.tobytes() for code in reduced.codes} <= reached.keys()
    assert shortest(plain) == shortest(reduced)


@pytest.mark.parametrize("kernel", ["linux-4.19", "linux-5.10", "linux-6.12", "exclusive-bit"])
def test_no_access_at_all_adds_nothing(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ops = operations(kernel, ())
    without = search(kernel, "1,1,1,1", ops, None)
    monkeypatch.setattr(client, "_PROTECTIONS", PROT_WORDS)
    assert shortest(search(kernel, "1,1,1,1", ops, None)) == shortest(without)


@pytest.mark.parametrize("kernel", ["linux-4.19", "linux-5.10", "linux-6.12"])
def test_advice_for_fork_adds_nothing(kernel: str) -> None:
    ops = operations(kernel, ())
    without = search(kernel, "2,1,1,0", ops, None)
    assert shortest(search(kernel, "2,1,1,0", (*ops, *scopes.ADVICE), None)) == shortest(without)


def own(folder: Path, condition: str) -> str:
    """A file of rules."""
    file = folder / "own.py"
    file.write_text(OWN.format(condition=condition))
    return str(file)


@pytest.mark.parametrize("condition", PLAIN)
@pytest.mark.parametrize(
    ("scope", "ops"),
    [
        ("2,1,1,0", (*FORKS, *TAKES, "ptrace_poke", "write_ref", "release", "drain")),
        ("2,1,0,1", (*SWAP, "pageout", "reclaim", "drain", "ptrace_poke")),
    ],
)
def test_a_rule_of_ones_own_that_looks_at_counts(
    condition: str, scope: str, ops: tuple[str, ...], tmp_path: Path
) -> None:
    test_images_are_what_is_reached(own(tmp_path, condition), scope, ops)


def test_a_rule_of_ones_own_may_look_at_anything(tmp_path: Path) -> None:
    for condition in CURIOUS:
        assert forgettable(choose(own(tmp_path, condition))) == 0
    for condition, known in ((PLAIN[0], False), (PLAIN[1], True)):
        kernel = choose(own(tmp_path, condition))
        table = record(kernel, HUNT)
        assert forgettable(kernel, table) & forget.OUT_OF_REACH
        assert bool(forgettable(kernel, table) & forget.WRITE_BIT) == known
    walks = "is_exclusive(s, frame) and find_mapping(s, frame, 0, 0) < 0"
    kernel = choose(own(tmp_path, walks))
    assert not forgettable(kernel, record(kernel, HUNT)) & forget.WRITE_BIT


def test_a_kernel_that_counts_otherwise() -> None:
    assert forgettable(choose("linux-4.19")) & forget.SOFT_DIRTY
    assert forgettable(choose("three-state")) & forget.PTE_DIRTIES
    assert not forgettable(choose("three-state:still-mapped=by-count")) & forget.PTE_DIRTIES


@pytest.mark.parametrize(("count", "word"), [(1, "kept"), (2, "undetermined")])
def test_wrong_marks_leave_the_rest_undetermined(count: int, word: str, tmp_path: Path) -> None:
    rule = own(tmp_path, f"is_exclusive(s, frame) or page_count(s, frame) == {count}")
    (found,) = hunt(rule, "2,1,0,1", ops=(*FORKS, "pageout"))
    assert (found.verdict("exclusive") == "broken") == (count == 2)
    assert found.verdict("no-leak") == word
