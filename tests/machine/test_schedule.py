"""Paths interleaved: gup-fast against fork (57efa1fe5957, v5.11), Dirty COW, Huge Dirty COW."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pageherd import Machine
from pageherd.litmus.syntax import Huge, PageOf, Step
from pageherd.machine import steps


def race(kernel: str) -> Machine:
    """Thread T pins P.a by gup-fast while P forks; the pin is taken while fork decides."""
    m = Machine(kernel)
    p = m.process("P")
    thread = p.new_thread("T")
    a = p.mmap("a")
    p.write(a, 1)
    m._add_process("C")
    pin = m.begin(Step(thread.thread, "pin", ("a", ("write", "longterm", "fast")), "r"))
    fork = m.begin(Step("P", "fork", ("C",)))
    states = m._states["t_pc"][0]
    while states[fork] != steps.FORK_WRPROTECT:  # fork has decided to share: nothing is pinned yet
        m.step(fork)
    while states[pin] != steps.GUP_FAST_END:  # gup-fast reads the entry, grabs, reads it again
        assert m.step(pin) != steps.BLOCKED or states[pin] == steps.GUP_SLOW
        if states[pin] == steps.GUP_SLOW:
            break
    while states[fork] != steps.IDLE:
        m.step(fork)
    while states[pin] != steps.IDLE:
        m.step(pin)
    p.write(a, 2)
    return m


def test_without_the_sequence_the_pin_goes_stale() -> None:
    assert "pin-coherent" in race("linux-5.10:fork-seq=ignored").broken


@pytest.mark.parametrize("kernel", ["linux-5.10", "linux-5.18", "linux-6.1", "linux-7.3"])
def test_with_it_the_pin_is_given_back_and_taken_again(kernel: str) -> None:
    m = race(kernel)
    assert m.broken == ()
    assert int(m._states["pincount"][0].sum()) == 1


def test_slow_gup_waits_for_fork() -> None:
    """mmap_lock keeps the slow path out while fork copies."""
    m = Machine("linux-6.1")
    p = m.process("P")
    thread = p.new_thread("T")
    p.write(p.mmap("a"), 1)
    m._add_process("C")
    fork = m.begin(Step("P", "fork", ("C",)))
    m.step(fork)
    pin = m.begin(Step(thread.thread, "pin", ("a", ("write",)), "r"))
    m.step(pin)
    assert m.step(pin) == steps.BLOCKED
    while m._states["t_pc"][0, fork] != steps.IDLE:
        m.step(fork)
    while m._states["t_pc"][0, pin] != steps.IDLE:
        assert m.step(pin) != steps.BLOCKED
    assert m.broken == ()


def dirty_cow(kernel: str, steps_before: int) -> Machine:
    """A debugger pokes a read-only private mapping of a file; after so many steps T discards it."""
    m = Machine(kernel)
    p = m.process("P")
    thread = p.new_thread("T")
    debugger = m.process("Q")
    a = m.page("a")
    p.mmap_file(a)
    p.mprotect(a, "r")
    p.read(a)
    poke = m.begin(Step(debugger.thread, "ptrace_poke", (PageOf("P", "a"), 1)))
    pcs = m._states["t_pc"][0]
    for _ in range(steps_before):
        if pcs[poke] != steps.IDLE:
            m.step(poke)
    discard = m.begin(Step(thread.thread, "dontneed", ("a",)))
    while pcs[discard] != steps.IDLE:
        assert m.step(discard) != steps.BLOCKED
    while pcs[poke] != steps.IDLE:
        assert m.step(poke) != steps.BLOCKED
    return m


def files_after(spec: str) -> set[int | str]:
    """What the file may hold after the race, whenever the discard comes."""
    found = set()
    for steps_before in range(30):
        m = dirty_cow(spec, steps_before)
        value = m.process("R").read_file(m.page("a"))
        assert ("private" in m.broken) == (value == 1)
        found.add(value)
    return found


@pytest.mark.parametrize("kernel", ["linux-4.19", "linux-5.10", "linux-6.1", "linux-7.3"])
def test_dirty_cow_needs_a_write_that_is_forgotten(kernel: str) -> None:
    """CVE-2016-5195: only with the rule of v4.8, and only in one window, is the file written."""
    assert files_after(kernel) == {0}
    assert files_after(f"{kernel}:force-retry=as-read") == {0, 1}


def test_where_reads_break_cow_too_a_forgotten_write_does_no_harm() -> None:
    """Derived: with 17839856fd58 the lookup for reading is a write fault again."""
    assert files_after("linux-5.8:force-retry=as-read") == {0}


def huge_dirty_cow(kernel: str, steps_before: int) -> Machine:
    """A debugger pokes a read-only huge page; after so many steps T discards it and Q peeks."""
    m = Machine(kernel)
    p = m.process("P")
    thread = p.new_thread("T")
    debugger, other = m.process("Q"), m.process("R")
    m.page("a"), m.page("b")
    names, m._states["nr_huge"][0] = m._names, 2
    m._names = lambda: replace(names(), huge=(Huge("h", ("a", "b")),))  # type: ignore[method-assign]

    def run(name: str, verb: str, *arguments: str | PageOf) -> None:
        begun = m.begin(Step(name, verb, arguments))
        while m._states["t_pc"][0, begun] != steps.IDLE:
            assert m.step(begun) != steps.BLOCKED

    run("P", "mmap", "h")
    run("P", "hugepage", "h")
    run("P", "mprotect", "h", "r")
    run("P", "read", "a")
    poke = m.begin(Step(debugger.thread, "ptrace_poke", (PageOf("P", "a"), 1)))
    for _ in range(steps_before):
        if m._states["t_pc"][0, poke] != steps.IDLE:
            m.step(poke)
    run(thread.thread, "dontneed", "h")
    run(other.thread, "ptrace_peek", PageOf("P", "a"))
    while m._states["t_pc"][0, poke] != steps.IDLE:
        assert m.step(poke) != steps.BLOCKED
    return m


def zeros_after(spec: str) -> set[int]:
    """What the zero page may hold after the race, whenever the discard and the peek come."""
    found = set()
    for steps_before in range(30):
        m = huge_dirty_cow(spec, steps_before)
        value = int(m._states["content"][0, 0])
        assert ("private" in m.broken) == (value == 1)
        found.add(value)
    return found


@pytest.mark.parametrize("kernel", ["linux-4.19", "linux-5.10", "linux-6.1", "linux-7.3"])
def test_huge_dirty_cow_needs_a_read_that_makes_dirty(kernel: str) -> None:
    """CVE-2017-1000405: by the rule of v4.14 the huge zero page is written.

    Derived: not where a huge zero page is replaced by small ones, nor where a forced write wants an
    exclusive page.
    """
    assert zeros_after(kernel) == {0}
    assert zeros_after(f"{kernel}:touch-dirties=always") == (
        {0, 1} if kernel == "linux-4.19" else {0}
    )
