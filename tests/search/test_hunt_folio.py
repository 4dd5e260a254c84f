"""Hunts with large folios: what they find, and that renaming and forgetting change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pageherd.machine.jit import records
from pageherd.machine.layout import FOLIO as LAYOUT
from pageherd.promises.table import PROMISES
from pageherd.rules.choose import choose, record
from pageherd.search import expand as ex
from pageherd.search.breadth import Search
from pageherd.search.client import client_of
from pageherd.search.hunt import hunt
from pageherd.search.scope import Scope, chosen_verbs
from pageherd.search.work import work_record

SHARED = ("mmap", "write", "fork", "exit", "munmap")
"""Every process can be the last one, so that all names of a state are reached without symmetry."""
SPLIT = ("mmap", "write", "fork", "exit", "split", "collapse")
SWAPPED = ("mmap", "write", "munmap", "pageout", "split")
PINNED = ("mmap", "write", "fork", "exit", "vfio_map_ro", "release")
CASES = [
    ("linux-5.10", Scope("pins", 2, 2, 1, 0, folio=2), PINNED),
    ("linux-7.3", Scope("pins", 2, 2, 1, 0, folio=2), PINNED),
    ("linux-6.12", Scope("split", 2, 2, 0, 0, folio=2), SPLIT),
    ("linux-7.3", Scope("swap", 1, 2, 0, 2, folio=2), SWAPPED),
    ("page-tables", Scope("shared", 2, 2, 0, 0, folio=2), SHARED),
]
"""Kernel, scope, operations.  The last kernel counts the page tables that map a folio."""


def search(kernel: str, scope: Scope, ops: tuple[str, ...], **how: Any) -> Search:
    chosen = choose(f"linux-6.18:counting={kernel}" if kernel == "page-tables" else kernel)
    table = record(chosen, LAYOUT)
    verbs = chosen_verbs(ops, scope=scope)
    client = client_of(scope, chosen, table, verbs, symmetry=how.get("symmetry", True))
    done = Search(scope, chosen, client, table, settle=False, **how)
    assert done.run()
    return done


def shortest(done: Search) -> dict[str, int]:
    paths = {promise.name: done.path_to(promise.name) for promise in PROMISES}
    return {name: len(path) for name, path in paths.items() if path is not None}


def test_a_pipe_sees_into_a_huge_page_on_linux_5_10() -> None:
    ops = ("mmap", "write", "fork", "vmsplice", "munmap")
    old, new = (hunt(kernel, "folio-pins", ops=ops)[0] for kernel in ("linux-5.10", "linux-6.1"))
    assert list(old.breaches) == ["private"]
    breach = old.breaches["private"]
    assert breach.confirmed
    assert breach.operations[:2] == ("P: mmap h", "P: hugepage h")
    assert len(breach.operations) == 7
    assert old.complete
    assert new.complete
    assert not new.breaches


@pytest.mark.parametrize(("kernel", "scope", "ops"), CASES, ids=lambda case: str(case)[:20])
def test_orbits_sum_to_the_states_without_symmetry(
    kernel: str, scope: Scope, ops: tuple[str, ...]
) -> None:
    reduced, whole = (search(kernel, scope, ops, symmetry=way) for way in (True, False))
    orders = int(reduced.work["orders"][0])
    seen = np.zeros((orders, int(reduced.work["bytes"][0])), np.uint8)
    states, work = records(reduced.states), records(reduced.work)
    total = 0
    for node in range(reduced.nr_states):
        ex.unpack(states, reduced.words, work, reduced.codes, node)
        total += ex.orbit(states, ex.BASE, work, seen, orders)
    assert total == whole.nr_states
    assert shortest(reduced) == shortest(whole)


@pytest.mark.parametrize(("kernel", "scope", "ops"), CASES, ids=lambda case: str(case)[:20])
def test_what_is_forgotten_changes_nothing(kernel: str, scope: Scope, ops: tuple[str, ...]) -> None:
    plain, reduced = (search(kernel, scope, ops, forget=bits) for bits in (0, None))
    work = work_record(scope, int(reduced.work["forget"][0]))
    states, images = records(plain.states), set[bytes]()
    for node in range(plain.nr_states):
        ex.unpack(states, plain.words, records(work), plain.codes, node)
        ex.pack(states, ex.BASE, records(work), False)
        code = work["code"][0, int(work["best"][0]), : int(work["bytes"][0])]
        images.add(code.tobytes())
    assert images == {code.tobytes() for code in reduced.codes}
    assert shortest(plain) == shortest(reduced)


@pytest.mark.parametrize(("kernel", "scope", "ops"), CASES, ids=lambda case: str(case)[:20])
def test_erased_values_change_nothing(kernel: str, scope: Scope, ops: tuple[str, ...]) -> None:
    erased, whole = (search(kernel, scope, ops, tokens=tokens) for tokens in (False, True))
    assert shortest(erased) == shortest(whole)
    assert whole.nr_states >= erased.nr_states
