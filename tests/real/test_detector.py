"""The detector detects: on a real kernel models with one wrong rule are told from the right one."""

from __future__ import annotations

import os

import pytest

from pageherd.errors import PageherdError
from pageherd.real import detector, images, vm
from pageherd.real.compile import SOURCES, compile_static
from pageherd.real.conform import Conform, prepare
from pageherd.real.target import Host, Target, find
from pageherd.rules.catalog import POINTS
from pretend import Pretend

PROGRAMS = 400
SEED = 100

NOTICED = (
    ("marks", "none"),
    ("process-vm-readv", "get"),
    ("unshare", "never"),
    ("fork", "share"),
    ("io-uring", "get-write-longterm"),
    ("reclaim-skips", "nothing"),
    ("swapin", "by-refcount"),
    ("swap-exclusive", "forgotten"),
    ("pageout-skips", "nothing"),
    ("counting", "none"),
    ("counting", "three-state"),
    ("swapin-drop", "keep"),
    ("fork-swap", "duplicate"),
    ("reuse", "by-mapcount"),
)
"""Wrong for every kernel from 6.1 on, and noticed within 400 programs."""

UNSEEN = {
    "fork-seq": "a race: programs run one step at a time",
    "zero-pin": "references to the zero page show nowhere",
    "still-mapped": "the map count of a base page is exact, so rmap finds the same",
    "copy-drops-swap": "the page that is copied from is not mapped any more, so nothing shows it",
    "zap-drains": "the runner drains every LRU batch after every step",
    "readahead-drains": "the runner drains every LRU batch after every step",
    "mprotect-upgrade": "a store to an exclusive page keeps it with or without a fault",
    "force": "derived: a page whose COW was broken by force is both dirty and exclusive",
    "send-zerocopy": "no lever",
    "odirect-write": "no lever",
    "rdma": "no lever",
    "rdma-ro": "no lever",
    "raw-pin": "random programs use the calls, not raw pins",
    "process-vm-writev": "the reference is gone when the call returns, and a write unshares anyway",
}
"""Decision points that random programs of base pages cannot see on any kernel, and why."""

SAME = {
    ("linux-6.1", "fork", "copy-if-pinned"): "pinned pages are exclusive and keep the mark",
    ("linux-6.1", "reclaim-skips", "pinned-before-swap"): "unmap-refuses, or the pin's references",
    ("linux-6.1", "pageout-skips", "mapped-twice-by-rmap"): "the count of a base page is exact",
    ("linux-7.3", "swapin", "by-exclusive"): "in the swap cache the refcount is never 1",
}
"""Alternatives that no program of base pages tells from the right one: docs/real.md says why."""


def why_not() -> str:
    if os.geteuid() != 0:
        return "without root neither frames nor swap can be seen"
    try:
        compile_static(SOURCES / "runner.c")
    except PageherdError as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


def prepared(target: Target) -> Conform:
    conform = prepare(target)
    if conform.swaps == ("none",) or not conform.sight.exclusive:
        pytest.skip("no swap can be turned on, or the kernel is older than these rules")
    return conform


def held(conform: Conform) -> dict[str, int | None]:
    """After how many programs each wrong rule is noticed."""
    samples = detector.collect(conform, PROGRAMS, SEED)
    assert len(samples) > PROGRAMS * 0.9, "the right model agrees"
    rules = [rule for rule in NOTICED if rule in set(detector.wrong_rules(conform.kernel.base))]
    assert len(rules) > len(NOTICED) / 2
    found = detector.notice(conform, samples, rules)
    return {one.rule: one.programs if one.divergence else None for one in found}


def test_wrong_rules_are_noticed_on_this_kernel() -> None:
    conform = prepared(Host())
    assert None not in (found := held(conform)).values(), found


@pytest.mark.vm
@pytest.mark.parametrize("name", ["debian-6.1"])
def test_wrong_rules_are_noticed_in_a_guest(name: str) -> None:
    try:
        vm.find_qemu()
        images.find(name)
    except PageherdError as error:
        pytest.skip(str(error))
    assert None not in (found := held(prepared(find(name)))).values(), found


def test_a_wrong_rule_is_shrunk_to_a_small_program() -> None:
    conform = prepared(Host())
    rules = [("reuse", "by-mapcount")]
    (one,) = detector.notice(conform, detector.collect(conform, PROGRAMS, SEED), rules)
    assert detector.shrunk(conform, one) <= 8


@pytest.mark.parametrize(("kernel", "point", "alternative"), SAME)
def test_alternatives_that_are_the_same_are_not_noticed(
    kernel: str, point: str, alternative: str
) -> None:
    assert (point, alternative) in set(detector.wrong_rules(kernel))
    conform = prepare(Pretend(kernel, kernel.removeprefix("linux-") + ".0"))
    samples = detector.collect(conform, 2 * PROGRAMS, SEED)
    (one,) = detector.notice(conform, samples, [(point, alternative)])
    assert one.divergence is None


def test_points_that_cannot_be_seen_exist() -> None:
    assert set(UNSEEN) < set(POINTS)
    assert not {point for point, _ in NOTICED} & set(UNSEEN)
