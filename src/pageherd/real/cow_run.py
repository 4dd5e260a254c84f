"""Running the kernel's selftest of COW: on the kernel that is running, or in a guest."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from pageherd.errors import EnvironmentFailed
from pageherd.real import vm
from pageherd.real.compile import SOURCES, compile_static
from pageherd.real.host_swap import swap_devices
from pageherd.real.images import Image
from pageherd.real.target import Vm

SECONDS: Final = 900.0  # a run may take
HUGE_PAGES: Final = 32  # of 2 MiB, added to the pool if asked for
_GUEST_MIB: Final = 1024
_END_SECONDS: Final = 10.0  # from SIGTERM to SIGKILL
_ELF: Final = b"\x7fELF"
_SYS: Final = Path("/sys/kernel/mm")
_SETTINGS: Final = (
    "transparent_hugepage/*",
    "transparent_hugepage/*/*",
    "hugepages/*/nr_hugepages",
)


def is_program(path: Path) -> bool:
    """Whether a file is a program, as against the output of one."""
    with path.open("rb") as file:
        return file.read(4) == _ELF


def on_host(program: Path, *, prepare: bool = False, seconds: float = SECONDS) -> list[str]:
    """What the selftest prints on this kernel; if asked to, with swap and huge pages.

    What it changes in the settings of huge pages is as before at the end, however it ends.

    Raises:
        EnvironmentFailed: it cannot be run, or takes too long.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_settings_kept())
        if not prepare:
            return _run([str(program.resolve())], None, seconds)
        if os.geteuid() != 0:
            raise EnvironmentFailed("swap and huge pages are root's", "run it as root")
        swap = stack.enter_context(swap_devices())
        file = stack.enter_context(program.open("rb"))
        device = swap.paths.get("zram") or swap.paths["disk"]
        command = [str(_stage()), device, str(HUGE_PAGES)]
        return _run(command, file, seconds, [] if swap.lock is None else [swap.lock])


def in_guest(program: Path, image: Image, *, seconds: float = SECONDS) -> list[str]:
    """What the selftest, which must be static, prints in a guest with swap and huge pages.

    Raises:
        EnvironmentFailed: there is no QEMU, the guest died, or it takes too long.
    """
    lines: list[str] = []
    result = vm.run(
        image,
        _stage(),
        (Vm.DEVICES["zram"], str(HUGE_PAGES)),
        program.read_bytes(),
        on_line=lines.append,
        total_timeout=seconds,
        memory_mib=_GUEST_MIB,
    )
    if result.status != "done":
        raise EnvironmentFailed(
            f"{image.name}: {result.reason}", f"it said:\n{result.console_tail[-1000:]}"
        )
    if result.exit_status in _NOT_RUN:
        raise EnvironmentFailed(
            f"{program} did not run in {image.name}", "it must be linked statically"
        )
    return lines


_NOT_RUN: Final = (126, 127)


def _stage() -> Path:
    return compile_static(SOURCES / "selftest.c")


def _run(
    command: Sequence[str], given: IO[bytes] | None, seconds: float, kept: Sequence[int] = ()
) -> list[str]:
    """The lines that a program prints; it is ended with all its children if we stop early."""
    try:
        process = subprocess.Popen(
            command,
            stdin=given or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for us, who end the program and its children
            pass_fds=kept,
        )
    except OSError as error:
        raise EnvironmentFailed(f"cannot run {command[0]}: {error.strerror}") from error
    try:
        return list(_lines(process, time.monotonic() + seconds))
    finally:
        _end(process)


def _lines(process: subprocess.Popen[str], until: float) -> Iterator[str]:
    lines: queue.Queue[str | None] = queue.Queue()

    def pump() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line.rstrip("\n"))
        lines.put(None)

    threading.Thread(target=pump, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise EnvironmentFailed(
                "the selftest takes too long", "allow it more with --seconds"
            ) from None
        if line is None:
            break
        yield line
    if process.wait() in _NOT_RUN:
        raise EnvironmentFailed("the selftest could not be started")


def _end(process: subprocess.Popen[str]) -> None:
    """End what still runs of the program's session: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # children that outlived it


@contextlib.contextmanager
def _settings_kept() -> Iterator[None]:
    """Undo what a selftest that was killed has set: sizes of THP, pools of huge pages."""
    before = _settings()
    try:
        yield
    finally:
        for path, value in before.items():
            if _setting(path) != value:
                with contextlib.suppress(OSError):
                    path.write_text(value)


def _settings() -> dict[Path, str]:
    files = (path for pattern in _SETTINGS for path in _SYS.glob(pattern))
    found = {path: _setting(path) for path in files if os.access(path, os.W_OK)}
    return {path: value for path, value in found.items() if value}


def _setting(path: Path) -> str:
    """What a file of settings is set to: the word in brackets, or all of it."""
    try:
        text = path.read_text().strip()
    except OSError:
        return ""
    chosen = re.search(r"\[(.+?)\]", text)
    return chosen[1] if chosen else text
