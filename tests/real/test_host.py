"""The kernel that is running: the model holds for library tests and for random programs.

Without root there is no swap, and frames cannot be told apart; what is left is run.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from functools import cache

import pytest

from pageherd.errors import RuleError
from pageherd.real.compile import SOURCES, compile_static
from pageherd.real.conform import prepare
from pageherd.real.judge import run_tests
from pageherd.real.target import Host, Report, row_of
from pageherd.rules.choose import choose
from pageherd.search.check import find_one


def why_not() -> str:
    """Why nothing can be run here; "" if it can."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return "the runner is for Linux on x86-64"
    if not any(map(shutil.which, ("cc", "gcc", "clang", "musl-gcc"))):
        return "no C compiler"
    try:
        row_of(os.uname().release)
    except RuleError as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

TESTS = (
    *("cow-vmsplice-child-unmap", "cow-vmsplice-child-unmap/base-swap", "cow-vmsplice-after-fork"),
    *("cow-basic-fork", "fork-twice", "fork-zero-page", "zero-page-is-not-copied", "wipeonfork"),
    *("dontneed-of-locked", "mremap-of-nothing", "mremap-over-page", "overmap-under-pin"),
    *("no-swap-after-swapoff", "swapoff-empties-cache", "soft-dirty-over-swap-in"),
    *("clean-swap-cache-again", "fork-keeps-dirty", "zram-shared-by-fork/base-swap"),
    *("cow-iouring-fork", "poke-read-only-shared", "peek-by-stranger", "tee-and-release"),
    *("ksm-cow-write", "ksm-fork", "ksm-merge-forked", "ksm-unmerge", "ksm-unmerge-inaccessible"),
    *("ksm-read-only-clean/piped", "ksm-mremap", "migrate-pinned-refused/piped", "move-shared"),
    *("populate-write-shared", "mprotect-clean-exclusive", "get-then-soft-dirty"),
)


@cache
def host() -> Host:
    return Host()


def test_the_runner_compiles_without_a_warning() -> None:
    compile_static(SOURCES / "runner.c", ["-Werror"])


def test_the_model_agrees_with_library_tests() -> None:
    chosen = [find_one(name) for name in TESTS]
    report = Report()
    found = list(run_tests(host(), chosen, choose(host().kernel()), report))
    assert not report.ended
    wrong = [v for v in found if v.agrees is False or v.result == "error"]
    assert not [(v.test, v.reason) for v in wrong]
    ran = {v.test for v in found if v.agrees}
    assert {"cow-vmsplice-child-unmap", "fork-twice", "mremap-of-nothing"} <= ran
    if os.geteuid() == 0 and report.probes.missing("pageout") is None:
        assert "clean-swap-cache-again" in ran
    for verdict in found:
        assert verdict.release == os.uname().release
        assert verdict.agrees or verdict.reason.startswith(("missing: ", "not steerable: ")), (
            verdict
        )


def test_the_model_agrees_with_random_programs() -> None:
    tally = prepare(host()).run(100, 1000, progress=lambda tally: None)
    assert not tally.found, tally.found[0].text
    assert not tally.hung
    assert tally.programs == 100
    assert tally.observations > 500


def test_no_process_is_left_behind() -> None:
    before = children()
    list(run_tests(host(), [find_one("fork-twice")], choose(host().kernel()), Report()))
    assert children() == before


def children() -> list[str]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return file.read().split()
