"""Debian's kernels in QEMU: the model holds on those that taught it what it did not know."""

from __future__ import annotations

import shutil

import pytest

from pageherd.errors import EnvironmentFailed
from pageherd.real import images, vm
from pageherd.real.conform import prepare
from pageherd.real.judge import Verdict, run_tests
from pageherd.real.target import Report, Vm
from pageherd.rules.choose import choose
from pageherd.search.check import Chosen, find_one
from pageherd.search.hunt import hunt

pytestmark = pytest.mark.vm

LEARNED = (
    *("zero-page-is-not-copied", "dontneed-of-locked", "no-swap-after-swapoff"),
    *("swapoff-empties-cache", "mremap-of-nothing", "soft-dirty-over-swap-in"),
)
OTHERS = (
    *("cow-vmsplice-child-unmap", "cow-vmsplice-child-unmap/base-swap", "cow-basic-fork"),
    *("fork-keeps-dirty", "cow-iouring-fork", "aa-vfio-ro-swap", "fork-odirect-read"),
    *("zram-own-page/base-swap", "get-then-soft-dirty", "pin-then-soft-dirty"),
)


@pytest.fixture(params=images.NAMES)
def guest(request: pytest.FixtureRequest) -> Vm:
    """One of Debian's kernels, if it has been fetched before; nothing is fetched here."""
    if not any(map(shutil.which, ("cc", "gcc", "clang", "musl-gcc"))):
        pytest.skip("no C compiler")
    try:
        vm.find_qemu()
    except EnvironmentFailed as error:
        pytest.skip(str(error))
    image = images.cached(request.param)
    if image is None:
        pytest.skip(f"{request.param} has not been fetched: pageherd real --on {request.param}")
    return Vm(image)


def test_the_model_agrees_with_library_tests(guest: Vm) -> None:
    chosen = [find_one(name) for name in (*LEARNED, *OTHERS)]
    report = Report()
    verdicts = run_tests(guest, chosen, choose(guest.kernel()), report, repeat=50)
    found = {v.test: v for v in verdicts}
    assert not report.ended, report.console
    assert not [(v.test, v.reason) for v in found.values() if v.agrees is not True]
    assert [name for name in LEARNED if failed(found[name])] == (
        ["mremap-of-nothing"] if guest.name == "debian-5.10" else []
    )
    assert failed(found["cow-vmsplice-child-unmap/base-swap"]) == (guest.name == "debian-5.10")


def failed(verdict: Verdict) -> bool:
    assert verdict.result in ("pass", "fail"), verdict
    return verdict.result == "fail"


def test_what_a_hunt_finds_happens(guest: Vm) -> None:
    """Debian's 5.10 breaks what the hunt says, by the programs that it says."""
    if guest.name != "debian-5.10":
        pytest.skip("hunted for linux-5.10")
    (found,) = hunt("linux-5.10", "small", without=("rdma_register", "rdma_register_ro"))
    assert set(found.breaches) == {"private", "own-writes", "pin-coherent"}
    tests = [breach.test for breach in found.breaches.values()]
    report = Report()
    verdicts = run_tests(
        guest, [Chosen(test, test.default_variant) for test in tests], choose("linux-5.10"), report
    )
    assert {v.test: (v.result, v.agrees) for v in verdicts} == {
        test.name: ("fail", True) for test in tests
    }


def test_the_model_agrees_with_random_programs(guest: Vm) -> None:
    tally = prepare(guest).run(60, 7000, progress=lambda tally: None)
    assert not tally.found, tally.found[0].text
    assert not tally.hung
    assert tally.programs == 60
