"""KSM and migration on real kernels: what the levers reach, and KSM left as it was found."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pageherd.errors import PageherdError
from pageherd.litmus import parse
from pageherd.litmus.syntax import Step, Test, steps_of
from pageherd.machine import state as st
from pageherd.machine.drive import drive
from pageherd.machine.jit import records
from pageherd.machine.layout import States
from pageherd.real import host_swap
from pageherd.real.choices import ways
from pageherd.real.compile import SOURCES, compile_static
from pageherd.real.generate import WEIGHTS, random_test
from pageherd.real.ksmd import VERBS
from pageherd.real.steer import MOVES, NotSteerable, Steered, encode, steer
from pageherd.rules.choose import choose, record

KSM = Path("/sys/kernel/mm/ksm")
EQUAL = """
P: mmap a
P: mmap b
P: mergeable a
P: mergeable b
P: write a = 1
P: write b = 1
"""


def make(steps: str, head: str = "processes P C\npages a b c\n") -> Test:
    return parse(f"test t\n{head}\n{steps}\nkeeps private\n")


def steered(steps: str, kernel: str = "linux-6.12") -> Steered:
    (one,) = steer(make(steps), "base", choose(kernel))
    return one


def after(program: Steered, kernel: str = "linux-6.12") -> list[States]:
    """The states that the last step may lead to, after all the others."""
    states, table = program.program.first.copy(), record(choose(kernel))
    last = len(program.program.operations) - 1
    drive(records(states), 0, records(table), records(program.program.ops), 0, last)
    step, operation = program.program.steps[last], program.program.operations[last]
    return [found for found, _ in ways(program, states, step, operation, table)]


def frames(states: States, *pages: tuple[int, int]) -> set[int]:
    return {int(states["pte_to"][0][where]) for where in pages}


# -- what ksmd may do ---


def test_ksmd_merges_whatever_is_equal_not_only_what_the_test_names() -> None:
    steps = EQUAL + "P: mmap c\nP: mergeable c\nP: write c = 1\nkernel: ksm P.a P.b"
    found = after(steered(steps))
    assert found
    for states in found:
        assert len(frames(states, (0, 0), (0, 1), (0, 2))) == 1
        assert states["reg"][0, 0] == st.OK


def test_a_page_that_is_held_stays_and_the_other_is_private_again() -> None:
    found = after(steered(EQUAL + "P: r = vmsplice a\nkernel: ksm P.a P.b"))
    for states in found:
        assert len(frames(states, (0, 0), (0, 1))) == 2
        assert states["reg"][0, 0] == st.BUSY
        assert not (states["page_flags"][0] & st.PG_KSM).any()


def test_zero_pages_come_only_with_ksm_zero() -> None:
    zeros = EQUAL.replace("= 1", "= 0")
    for merged in after(steered(zeros + "kernel: ksm P.a P.b")):
        assert frames(merged, (0, 0), (0, 1)) != {st.ZERO_FRAME}
    found = after(steered(zeros + "kernel: ksm_zero P.a"))
    assert {st.ZERO_FRAME} in [frames(zeroed, (0, 0), (0, 1)) for zeroed in found]


def test_a_page_of_zeros_may_be_new_to_ksmd() -> None:
    """Then its mappings come in the last scan, and one whose page was locked is held meanwhile."""
    steps = "P: mmap a\nP: mergeable a\nP: mlock a\nP: fork C\nkernel: ksm_zero C.a"
    found = {frozenset(frames(s, (0, 0), (1, 0))) for s in after(steered(steps))}
    assert {st.ZERO_FRAME} in found
    assert any(len(pages) == 2 for pages in found)


@pytest.mark.parametrize(("kernel", "merged"), [("linux-6.1", False), ("linux-6.12", True)])
def test_whether_ksmd_finds_inaccessible_memory_again_is_a_rule(kernel: str, merged: bool) -> None:
    found = after(steered(EQUAL + "P: mprotect a none\nkernel: ksm P.a P.b", kernel), kernel)
    assert {len(frames(states, (0, 0), (0, 1))) == 1 for states in found} == {merged}


# -- what can be moved ---


def test_a_page_that_is_not_mapped_stays_where_it_is() -> None:
    steps = "P: mmap a\nP: write a = 1\nP: r = vmsplice a\nP: pageout a\nkernel: migrate P.a"
    (states,) = after(steered(steps))
    assert states["reg"][0, 0] == st.BUSY


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ("P: r = vmsplice a\nkernel: migrate r", "migrate: of what a reference holds"),
    ],
)
def test_what_the_lever_would_do_to_others_is_refused(steps: str, reason: str) -> None:
    with pytest.raises(NotSteerable, match=reason):
        steered(f"P: mmap a\n{steps}")


@pytest.mark.parametrize(
    "step", ["P: move c", "kernel: migrate P.c", "kernel: ksm P.a P.c", "kernel: ksm_zero P.c"]
)
def test_nothing_moves_and_merges_beside_a_huge_range(step: str) -> None:
    test = make(f"P: mmap h\nP: mmap c\n{step}", "processes P\npages a b c\nhuge h = a b\n")
    with pytest.raises(NotSteerable, match="beside a huge range"):
        steer(test, "base", choose("linux-6.12"))


# -- what was accessed lately ---


@pytest.mark.parametrize(
    ("paged_out", "seen"),
    [
        ("P: fork C\nP: write a = 3\nC: pageout h", {"present", "swapped"}),
        ("P: fork C\nP: munmap h\nC: pageout h", {"swapped"}),
        ("P: fork C\nC: pageout h", {"present"}),
        ("P: write a = 3\nP: pageout h", {"swapped"}),
    ],
    ids=["the first page is C's alone", "C's alone", "shared", "not forked"],
)
def test_a_huge_page_may_have_been_accessed_by_others(paged_out: str, seen: set[str]) -> None:
    """Seen on 5.10 and 6.1: it stays, and goes when it is paged out once more."""
    head = "processes P C\npages a b\nhuge h = a b\nswap zram\n"
    steps = f"P: mmap h\nP: hugepage h\nP: write h = 1\n{paged_out}"
    (program,) = steer(make(steps, head), "base", choose("linux-6.1"))
    mm = 1 if "C: pageout" in paged_out else 0
    entries = {int(s["pte"][0][mm, 1]) for s in after(program, "linux-6.1")}
    assert {"swapped" if pte & st.PTE_SWAP else "present" for pte in entries} == seen


# -- random programs ---


def test_some_random_programs_have_few_contents_and_ksm() -> None:
    verbs = [list(steps_of(random_test(n, 16, list(WEIGHTS), "disk").body)) for n in range(200)]
    merging = [steps for steps in verbs if any(step.verb in VERBS for step in steps)]
    assert 20 < len(merging) < 70
    assert all(_values(steps) <= {0, 1, 2} for steps in merging)
    assert sum(any(step.verb in MOVES for step in steps) for steps in verbs) > 30


def _values(steps: list[Step]) -> set[int]:
    return {int(str(step.arguments[1])) for step in steps if step.verb == "write"}


# -- KSM is the whole machine's ---


def why_not() -> str:
    if os.geteuid() != 0 or not os.access(KSM / "run", os.W_OK):
        return "without root and CONFIG_KSM ksmd cannot be told what to do"
    try:
        compile_static(SOURCES / "runner.c")
    except PageherdError as error:
        return str(error)
    return ""


def settings() -> dict[str, str]:
    names = ("run", "sleep_millisecs", "pages_to_scan", "use_zero_pages", "smart_scan")
    return {name: (KSM / name).read_text() for name in names if (KSM / name).exists()}


def started(words: str) -> subprocess.Popen[str]:
    runner = compile_static(SOURCES / "runner.c")
    process = subprocess.Popen(
        [runner], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin is not None
    process.stdin.write(words)
    process.stdin.flush()
    return process


def has_run(process: subprocess.Popen[str]) -> bool:
    """Read until the program is over; False if ksmd cannot be had."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("have ksm ") and line != "have ksm 0\n":
            return False
        if line == "end\n":
            return True
    raise AssertionError("the runner ended")


@pytest.mark.skipif(bool(why_not()), reason=why_not())
@pytest.mark.parametrize("how", ["end", "SIGTERM", "SIGINT", "SIGKILL"])
def test_ksm_is_left_as_it_was_found(how: str) -> None:
    with host_swap.swap_devices():
        before = settings()
        process = started(encode(steered(EQUAL + "kernel: ksm P.a P.b"), "none"))
        try:
            if not has_run(process):
                pytest.skip("other memory of this machine may be merged")
            assert settings() != before, "ksmd is used, and waits"
            if how != "end":
                process.send_signal(getattr(signal, how))
            assert process.stdin is not None
            process.stdin.close()
            process.wait(20)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        if how == "SIGKILL":
            host_swap.give_back()  # as the next run does
        time.sleep(0.1)
        assert settings() == before
        assert (KSM / "pages_shared").read_text() == "0\n"
        assert not Path("/run/pageherd.ksm").exists()
