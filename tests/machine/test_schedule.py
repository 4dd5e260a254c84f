"""Two paths interleaved by a hand-picked schedule: gup-fast against fork (57efa1fe5957, v5.11)."""

from __future__ import annotations

import pytest

from pageherd import Machine
from pageherd.litmus.syntax import Step
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
