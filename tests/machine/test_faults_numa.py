"""Planted faults in NUMA hinting: each breaks a promise of some test, or a claim."""

from __future__ import annotations

from typing import Any

from pageherd.machine import state as st
from pageherd.machine import steps
from planted import caught, contradicted, sound

KERNELS = ("linux-5.10", "linux-6.12")

_hint = sound(steps.NUMA_HINT)
_fault = sound(steps.FAULT)
_install = sound(steps.FORK_INSTALL)


def hinting_fault_makes_everything_writable(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    hinted = s.pte[mm, page] & st.PTE_PROTNONE
    following = _fault(s, t, k)
    if hinted:
        s.pte[mm, page] |= st.PTE_WRITE
    return following


def fork_leaves_the_saved_write_bit(s: Any, t: int, k: Any) -> int:
    mm, page = s.t_mm[t], s.t_page[t]
    if s.pte[mm, page] & st.PTE_PROTNONE:
        s.pte[mm, page] |= st.PTE_WRITE
    return _install(s, t, k)


def every_page_is_hinted(s: Any, t: int, k: Any) -> int:
    following = _hint(s, t, k)
    s.t_result[t] = st.OK
    return following


def test_a_fault_that_maps_everything_writable_is_caught() -> None:
    assert caught(steps.FAULT, hinting_fault_makes_everything_writable, KERNELS)


def test_a_write_bit_that_survives_fork_is_caught() -> None:
    assert caught(steps.FORK_INSTALL, fork_leaves_the_saved_write_bit, KERNELS)


def test_hinting_at_everything_contradicts_a_claim() -> None:
    assert contradicted(steps.NUMA_HINT, every_page_is_hinted, KERNELS)
