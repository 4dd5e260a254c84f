"""The library once more with Numba's bounds checks on: no step leaves its arrays."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from library import checker, library
from pageherd.rules import kernels


def test_the_library_with_bounds_checks() -> None:
    command = [sys.executable, "-m", "pageherd", "run", "--json"]
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "IndexError" not in run.stderr
    assert "alarm" not in run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(lines) == len(library()) * len(kernels.names())
    checked = {(line["test"], line["kernel"]): line["verdict"] for line in lines}
    for chosen in library():
        for kernel in kernels.names():
            assert checked[chosen.id, kernel] == checker().check(chosen, kernel).verdict


def test_a_step_out_of_bounds_is_seen() -> None:
    """The detector detects: a step that writes beyond its array raises the alarm."""
    program = """
import numpy as np
from pageherd.hand import Machine
from pageherd.machine import steps
from pageherd.machine.jit import step_address
from pageherd.machine.layout import TEST

def wild(s, t, k):
    s.refcount[s.nr_frames + 1000 * (t + 1)] = 7
    return steps.IDLE

m = Machine("linux-6.1")
m._record["step"][0, steps.PAGEMAP] = step_address(wild, TEST, keep=False)
p = m.process("P")
p.pagemap(p.mmap("a"))
"""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1"}
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert run.returncode != 0
    assert "a step raised an exception" in run.stderr
