"""One body of code: compiled or not, in whatever layout, the same programs give the same states."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pageherd.machine import state as st
from pageherd.machine.layout import SIMULATE
from programs import PAGES, PROCESSES, run, run_checked

SCRIPT = Path(__file__).parent.parent / "programs.py"
KERNELS = ("linux-4.19", "linux-5.8", "linux-5.10", "linux-5.18", "linux-6.1", "linux-7.3")


@pytest.mark.parametrize("kernel", ["linux-4.19", "linux-5.10", "linux-6.1", "linux-7.3"])
def test_compiled_and_uncompiled_agree(kernel: str) -> None:
    """Random programs, wholly uncompiled in a subprocess: the same state after every operation."""
    command = [sys.executable, str(SCRIPT), kernel, "100", "25"]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    compiled = subprocess.run(command, capture_output=True, text=True, check=True)
    plain = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert len(plain.stdout.splitlines()) == 25 * 40
    assert compiled.stdout == plain.stdout


def observations(state: Any) -> list[object]:
    """What does not depend on how frames are numbered."""
    s = state[0]
    seen: list[object] = [int(s["copies"]), int(s["alarm"])]
    for mm in range(len(PROCESSES)):
        for page in range(len(PAGES)):
            pte = int(s["pte"][mm, page])
            seen.append((pte, int(s["want"][mm, page]), int(s["vma"][mm, page])))
            if pte & (st.PTE_PRESENT | st.PTE_SWAP):
                frame = int(py_frame_shown(s, mm, page))
                if frame >= 0:
                    names = ("refcount", "pincount", "mapcount", "page_flags", "content")
                    seen.append(tuple(int(s[name][frame]) for name in names))
    return seen


def py_frame_shown(s: Any, mm: int, page: int) -> int:
    if int(s["pte"][mm, page]) & st.PTE_PRESENT:
        return int(s["pte_to"][mm, page])
    return int(s["slot_frame"][s["pte_to"][mm, page]]) - 1


def test_layouts_agree() -> None:
    """The layout for workloads (free list, wide indices) against the one for tests."""
    for seed in range(24):
        kernel = KERNELS[seed % len(KERNELS)]
        narrow_run = [(r, observations(state)) for _, state, r in run(kernel, seed)]
        wide_run = [(r, observations(state)) for _, state, r in run(kernel, seed, SIMULATE)]
        assert narrow_run == wide_run


@pytest.mark.parametrize("kernel", KERNELS)
def test_random_programs_keep_the_books(kernel: str) -> None:
    """Whatever a program does, counts, life times and exclusive marks stay right."""
    books = 1 << 4 | 1 << 6 | 1 << 7
    for seed in range(300):
        for step, state in run_checked(kernel, seed):
            assert state["alarm"][0] == 0, (seed, step)
            assert not int(state["broke"][0]) & books, (seed, step)
