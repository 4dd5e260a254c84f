"""What only settled promises need is forgotten: the others are judged as before."""

from __future__ import annotations

from itertools import combinations

import pytest

from pageherd.machine.jit import records
from pageherd.machine.layout import HUNT
from pageherd.promises.table import PROMISES
from pageherd.rules.choose import choose, record
from pageherd.search import expand as ex
from pageherd.search.breadth import Search
from pageherd.search.client import client_of
from pageherd.search.forecast import forecast
from pageherd.search.hunt import Finding, hunt
from pageherd.search.scope import BASE, Scope, chosen_verbs, scopes_of

BREAKING = ("linux-4.19", "linux-5.8", "linux-5.10", "linux-5.18", "linux-6.12", "unshare-2021")
FORKS = (
    *("mmap", "read", "write", "fork", "exit", "vmsplice", "odirect_read", "rdma_register"),
    *("rdma_register_ro", "write_ref", "release", "drain"),
)
SWAP = ("mmap", "read", "write", "fork", "exit", "odirect_read", "write_ref", "release", "pageout")
SCOPES = [("1,1,1,1", ()), ("2,1,1,0", FORKS), ("2,1,1,1", SWAP), ("2,1,2,0", FORKS[:8])]
MONITORED = ("private", "own-writes", "pin-coherent", "get-fork")


def search(
    kernel: str, scope: str, ops: tuple[str, ...], *, settle: bool = True, unasked: int = 0
) -> Search:
    chosen, (bounds,) = choose(kernel), scopes_of(scope)
    table = record(chosen, HUNT)
    has = tuple(verb for verb in ops or BASE if verb not in chosen.absent())
    client = client_of(bounds, chosen, table, chosen_verbs(has))
    done = Search(bounds, chosen, client, table, settle=settle, unasked=unasked)
    assert done.run()
    return done


def images(whole: Search, settled: int) -> set[bytes]:
    """What the states of the search are once they forget what serves only settled promises."""
    work = whole.work.copy()
    work["settled"] = settled
    found = set()
    for node in range(whole.nr_states):
        ex.unpack(records(whole.states), whole.words, records(work), whole.codes, node)
        ex.pack(records(whole.states), ex.BASE, records(work), False)
        code = work["code"][0, int(work["best"][0]), : int(work["bytes"][0])]
        found.add(code.tobytes())
    return found


def lengths(done: Search, *left_out: str) -> dict[str, int | None]:
    paths = {p.name: done.path_to(p.name) for p in PROMISES if p.name not in left_out}
    return {name: None if path is None else len(path) for name, path in paths.items()}


@pytest.mark.parametrize("kernel", [*BREAKING, "three-state", "no-mapcount", "exclusive-bit"])
@pytest.mark.parametrize(("scope", "ops"), SCOPES)
def test_settled_promises_change_no_other(kernel: str, scope: str, ops: tuple[str, ...]) -> None:
    whole, settling = (search(kernel, scope, ops, settle=settle) for settle in (False, True))
    assert lengths(settling) == lengths(whole)


@pytest.mark.parametrize("kernel", BREAKING)
@pytest.mark.parametrize("nr", [1, 2])
def test_promises_that_nobody_asks_for(kernel: str, nr: int) -> None:
    """Each set of them is forgotten from the first state on: the strongest use of every line."""
    whole = search(kernel, "2,1,1,1", SWAP, settle=False)
    number = {promise.name: promise.number for promise in PROMISES}
    for unasked in combinations(MONITORED, nr):
        bits = sum(1 << number[name] for name in unasked)
        fewer = search(kernel, "2,1,1,1", SWAP, settle=False, unasked=bits)
        assert lengths(fewer, *unasked) == lengths(whole, *unasked)
        assert images(whole, bits) <= {code.tobytes() for code in fewer.codes}


def test_what_is_found_late_is_confirmed_too() -> None:
    (found,) = hunt("linux-5.10", "2,1,1,1", ops=SWAP, ask=("get-fork",))
    assert len({len(breach.operations) for breach in found.breaches.values()}) > 1
    assert all(breach.confirmed for breach in found.breaches.values())


def test_what_is_found_is_told_at_once() -> None:
    told: list[Finding] = []
    (found,) = hunt("linux-4.19", "2,1,1,1", ops=FORKS, tell=told.append)
    assert {each.promise for each in told} == set(found.breaches)
    lengths = [len(each.operations) for each in told]
    assert lengths == sorted(lengths)
    for each in told:
        assert each.operations == found.breaches[each.promise].operations


def test_a_guess_is_near() -> None:
    guess = forecast("linux-6.12", Scope("a", 3, 1, 1, 1), ops=FORKS)
    (found,) = hunt("linux-6.12", "3,1,1,1", ops=FORKS)
    assert guess.states == pytest.approx(found.size.states)
    assert guess.room > 0
