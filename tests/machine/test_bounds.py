"""The library once more with Numba's bounds checks on: no step leaves its arrays."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from library import checker, library
from pageherd.rules import kernels

# Guarded steps are not cached, so one process does both: the library, and a step that is wild.
PROGRAM = """
from pageherd.cli.main import main
from pageherd.hand import Machine
from pageherd.machine import steps
from pageherd.machine.jit import step_address
from pageherd.machine.layout import TEST

main(["run", "--json"])

def wild(s, t, k):
    s.refcount[s.nr_frames + 1000 * (t + 1)] = 7
    return steps.IDLE

m = Machine("linux-6.1")
m._record["step"][0, steps.PAGEMAP] = step_address(wild, TEST, keep=False)
p = m.process("P")
p.pagemap(p.mmap("a"))
"""


def test_the_library_with_bounds_checks_and_a_step_out_of_bounds() -> None:
    """The verdicts are as without; and the detector detects: what is wild raises the alarm."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, "NUMBA_BOUNDSCHECK": "1"},
        check=False,
    )
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(lines) == len(library()) * len(kernels.names())
    checked = {(line["test"], line["kernel"]): line["verdict"] for line in lines}
    for chosen in library():
        for kernel in kernels.names():
            assert checked[chosen.id, kernel] == checker().check(chosen, kernel).verdict
    assert run.returncode != 0
    assert run.stderr.count("a step raised an exception") == 1, run.stderr
