"""Hunts of one topic each: hugetlb pages, files, MADV_FREE."""

from __future__ import annotations

import pytest

from pageherd.machine.layout import FOLIO
from pageherd.promises.table import PROMISES
from pageherd.rules.choose import choose, record
from pageherd.search.breadth import Search
from pageherd.search.client import client_of
from pageherd.search.hunt import hunt
from pageherd.search.scope import SCOPES, ScopeError, chosen_verbs

FEW = {
    "hugetlb": ("mmap_hugetlb", "read", "write", "fork", "exit", "vmsplice", "mprotect", "munmap"),
    "file": ("mmap_file", "mmap_shared", "write_file", "write", "fork", "vfio_map_ro", "release"),
    "lazyfree": ("mmap", "write", "read", "free", "fork", "exit", "pageout", "reclaim", "vmsplice"),
}


@pytest.mark.parametrize(
    ("scope", "kernel", "broken"),
    [
        ("hugetlb", "linux-5.10", {"private", "pin-coherent"}),
        ("hugetlb", "linux-6.12", {"private"}),
        ("hugetlb", "linux-7.3", {"private", "progress"}),
        ("file", "linux-4.19", {"private", "pin-coherent"}),
        ("file", "linux-6.1", {"pin-coherent"}),
        ("file", "linux-7.3", set()),
        ("lazyfree", "linux-7.3", set()),
    ],
)
def test_what_breaks(scope: str, kernel: str, broken: set[str]) -> None:
    (found,) = hunt(kernel, scope)
    assert found.complete
    assert set(found.breaches) == broken
    assert all(breach.confirmed for breach in found.breaches.values())


@pytest.mark.parametrize("kernel", ["linux-4.19", "linux-5.10", "linux-7.3"])
@pytest.mark.parametrize("name", FEW)
def test_forgetting_and_symmetry_change_nothing(name: str, kernel: str) -> None:
    (scope,), chosen = SCOPES[name], choose(kernel)
    table = record(chosen, FOLIO)
    verbs = tuple(v for v in chosen_verbs(FEW[name], scope=scope) if v not in chosen.absent())
    lengths, states = [], []
    for symmetry, forget in ((True, None), (True, 0), (False, None)):
        client = client_of(scope, chosen, table, verbs, symmetry=symmetry)
        search = Search(
            scope, chosen, client, table, symmetry=symmetry, forget=forget, settle=False
        )
        assert search.run()
        paths = {promise.name: search.path_to(promise.name) for promise in PROMISES}
        lengths.append({name: path and len(path) for name, path in paths.items()})
        states.append(search.nr_states)
    assert lengths[0] == lengths[1] == lengths[2]
    assert states[0] <= min(states[1:])


def test_operations_of_another_topic() -> None:
    with pytest.raises(ScopeError, match="--scope hugetlb"):
        chosen_verbs(("mmap_hugetlb",))
    assert "migrate" in chosen_verbs(("mmap", "migrate"))
