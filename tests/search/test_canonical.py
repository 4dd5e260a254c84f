"""Canonical states: renaming does not change them, packing loses nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pageherd.machine.jit import records
from pageherd.machine.layout import HUNT
from pageherd.rules.choose import choose, record
from pageherd.search import expand as ex
from pageherd.search.breadth import Search
from pageherd.search.client import client_of
from pageherd.search.scope import chosen_verbs, scopes_of

SCOPES = ("3,1,2,1", "2,2,1,1", "3,2,2,2")
OPS = ("mmap", "write", "read", "fork", "exit", "rdma_register", "vmsplice", "pageout", "mremap")
SOME = 3000  # states of each scope


@pytest.fixture(scope="module")
def searches() -> dict[str, Search]:
    kernel = choose("linux-6.1")
    table = record(kernel, HUNT)
    found = {}
    for text in SCOPES:
        (scope,) = scopes_of(text)
        scope_ops = chosen_verbs(OPS if scope.pages > 1 else OPS[:-1])
        client = client_of(scope, kernel, table, scope_ops)
        found[text] = Search(scope, kernel, client, table, max_states=SOME)
        found[text].run()
    return found


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_renaming_gives_the_same_code(data: st.DataObject, searches: dict[str, Search]) -> None:
    search = searches[data.draw(st.sampled_from(SCOPES))]
    node = data.draw(st.integers(0, search.nr_states - 1))
    order = data.draw(st.integers(0, int(search.work["orders"][0]) - 1))
    states, work = records(search.states), records(search.work)
    ex.unpack(states, search.words, work, search.codes, node)
    ex.rename(states, search.words, work, order)
    ex.pack(states, ex.SCRATCH, work, True)
    assert search.smallest_code().tolist() == search.codes[node].tolist()


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_frames_may_be_renumbered(data: st.DataObject, searches: dict[str, Search]) -> None:
    search = searches[data.draw(st.sampled_from(SCOPES))]
    node = data.draw(st.integers(0, search.nr_states - 1))
    states, work = records(search.states), records(search.work)
    ex.unpack(states, search.words, work, search.codes, node)
    record_ = search.states[ex.BASE]
    nr = int(record_["nr_frames"])
    new = np.array([0, *data.draw(st.permutations(range(1, nr)))])
    for name in (
        *("refcount", "pincount", "mapcount", "page_flags", "frame_batch", "frame_slot"),
        "content",
    ):
        moved = record_[name].copy()
        moved[new] = record_[name][:nr]
        record_[name][:nr] = moved[:nr]
    present = (record_["pte"] & 1) != 0
    record_["pte_to"][present] = new[record_["pte_to"][present]]
    for name in ("ref_frame", "slot_frame"):
        named = record_[name] != 0
        record_[name][named] = new[record_[name][named] - 1] + 1
    ex.pack(states, ex.BASE, work, True)
    assert search.smallest_code().tolist() == search.codes[node].tolist()


def test_no_state_is_stored_twice(searches: dict[str, Search]) -> None:
    for search in searches.values():
        assert len(np.unique(search.codes, axis=0)) == search.nr_states
