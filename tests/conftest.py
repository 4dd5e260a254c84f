"""Fixtures and paths of the suite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

CHECKED = "from pageherd.cli.main import main; main(['run', 'fork-twice'])"
HUNTED = tuple(
    "from pageherd.cli.main import main;"
    f"main(['hunt', '--kernel', 'linux-6.1', '--scope', '{scope}', '--max-states', '10'])"
    for scope in ("2,1,1,1", "folio")
)
CI_IMAGES = ("debian-5.10", "debian-6.1", "debian-7.3")


def pytest_sessionstart(session: pytest.Session) -> None:
    """In CI what real kernels need must be there: a skip would go unnoticed.

    A shell may have started us with SIGINT ignored; what the tests start and interrupt must not be.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if session.config.getoption("numprocesses", None) and session.config.args == ["tests"]:
        compile_ahead()
    if os.environ.get("CI") != "true" or hasattr(session.config, "workerinput"):
        return
    from pageherd.errors import PageherdError
    from pageherd.real import images, vm
    from pageherd.real.compile import find_compiler

    try:
        find_compiler()
        vm.find_qemu()
        for name in CI_IMAGES:
            images.find(name)
    except PageherdError as error:
        pytest.exit(f"CI lacks what tests on real kernels need: {error}", returncode=1)


def compile_ahead() -> None:
    """The layouts of tests and of hunts, side by side; else every worker compiles them all."""
    nowhere = subprocess.DEVNULL
    compiling = [
        subprocess.Popen([sys.executable, "-c", code], stdout=nowhere, stderr=nowhere)
        for code in (CHECKED, *HUNTED)
    ]
    for process in compiling:
        process.wait()
