"""Names of compiled functions, which are kept on disk and linked with those of other processes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pageherd.machine.jit import JIT

LAYOUTS = ("TEST", "HUNT", "FOLIO", "SIMULATE")
SCRIPT = """
import json, sys
from pageherd.machine import layout
from pageherd.machine.jit import _types
records = {name: _types(getattr(layout, name))[0] for name in sys.argv[1:]}
print(json.dumps({name: record.mangling_args[0] for name, record in records.items()}))
"""


def names(*layouts: str) -> dict[str, str]:
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT, *layouts], capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(out.stdout)
    return found


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
def test_they_tell_layouts_apart_and_processes_not() -> None:
    found = names(*LAYOUTS)
    assert len(set(found.values())) == len(LAYOUTS)
    assert names(*reversed(LAYOUTS)) == found
