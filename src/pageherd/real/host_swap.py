"""Swap on the host while a batch runs: one idle zram and one small file, and nothing left of them.

Swap is the whole machine's, so only one batch at a time may have it: who comes second waits.  The
lock is held by the runner too; it ends with the last of them, however they end.  Devices bear a
label, so that those of a run that was killed are recognized by the next one, turned off and given
back; swap that is somebody else's is never touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pageherd.errors import EnvironmentFailed

FILE: Final = Path("/var/tmp/pageherd.swap")
FILE_BYTES: Final = 64 << 20
LABEL: Final = b"pageherd"  # c/runner.c writes it into the header of a swap device
WAIT_SECONDS: Final = 900.0

_LABEL_AT: Final = 1024 + 28  # after version, last page, bad pages and uuid
_NOTES: Final = Path("/run")  # c/settings.h notes there what it has changed
_SETTINGS: Final = {
    "pageherd.thp": ("/sys/kernel/mm/transparent_hugepage/", "/proc/sys/vm/page-cluster"),
    "pageherd.ksm": ("/sys/kernel/mm/ksm/",),
}  # by the name of the note: what may stand in it begins with one of these
_SWAPS: Final = Path("/proc/swaps")
_BLOCK: Final = Path("/sys/block")
_CGROUPS: Final = Path("/sys/fs/cgroup")  # c/reclaim.h makes one for the time of a batch


@dataclass(frozen=True, slots=True)
class Devices:
    """Swap devices by kind (`zram`, `disk`), and a file descriptor that holds the lock."""

    paths: dict[str, str] = field(default_factory=dict)
    lock: int | None = None


@contextlib.contextmanager
def swap_devices(wait: float = WAIT_SECONDS) -> Iterator[Devices]:
    """Devices that the runner may swap on; they are off and gone at the end.  None without root.

    Raises:
        EnvironmentFailed: another run keeps the lock for `wait` seconds, or there is no room for
            the file.
    """
    if os.geteuid() != 0:
        yield Devices()
        return
    with _SWAPS.open("rb") as file:
        _wait_for(file.fileno(), wait)
        give_back()
        try:
            yield Devices(_find(), file.fileno())
        finally:
            give_back()


def _wait_for(lock: int, seconds: float) -> None:
    """Take the lock, waiting for other runs."""
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                raise
        if time.monotonic() > until:
            raise EnvironmentFailed(
                "another run uses this machine's swap",
                f"wait for its end; it holds a lock on {_SWAPS}, which lslocks shows",
            )
        time.sleep(0.05)


def _find() -> dict[str, str]:
    found = {"disk": str(_make_file())}
    for device in idle_zrams():
        found["zram"] = str(device)
        break
    return found


def idle_zrams() -> list[Path]:
    """The zram devices that have no size, so that nobody uses them."""
    return [
        Path("/dev") / size.parent.name
        for size in sorted(_BLOCK.glob("zram*/disksize"))
        if _read(size) == "0"
    ]


def _make_file() -> Path:
    """An empty file for swap, which nobody else may read."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        number = os.open(FILE, flags, 0o600)
        try:
            os.posix_fallocate(number, 0, FILE_BYTES)
        finally:
            os.close(number)
    except OSError as error:
        with contextlib.suppress(OSError):
            FILE.unlink()
        raise EnvironmentFailed(
            f"cannot make {FILE} of {FILE_BYTES >> 20} MiB to swap on: {error.strerror}",
            f"make room in {FILE.parent}",
        ) from error
    return FILE


def give_back() -> None:
    """Turn off and remove what a run has left, this one or one that was killed; needs the lock."""
    for path in in_use():
        if path == FILE or (path.name.startswith("zram") and _is_ours(path)):
            _swapoff(path)
    for size in sorted(_BLOCK.glob("zram*/disksize")):
        device = Path("/dev") / size.parent.name
        if _read(size) != "0" and device not in in_use() and _is_ours(device):
            _reset(size.parent / "reset")
    with contextlib.suppress(OSError):
        FILE.unlink()
    _put_settings_back()
    for group in (*_CGROUPS.glob("pageherd-*"), *_CGROUPS.glob("memory/pageherd-*")):
        number = group.name.partition("-")[2]
        if number.isdigit() and not Path(f"/proc/{number}").exists():
            with contextlib.suppress(OSError):
                group.rmdir()


def _put_settings_back() -> None:
    """The settings of huge pages and of KSM that a killed runner left."""
    for name, allowed in _SETTINGS.items():
        note = _NOTES / name
        lines = _read(note).splitlines()
        if lines and name == "pageherd.ksm":
            lines.insert(0, f"{allowed[0]}run 2")  # what it merged counts until it is unmerged
        for line in lines:
            path, _, value = line.partition(" ")
            if path.startswith(allowed) and ".." not in path:
                with contextlib.suppress(OSError):
                    Path(path).write_text(value)
        with contextlib.suppress(OSError):
            note.unlink()


def in_use() -> list[Path]:
    """The devices and files that the machine swaps on."""
    lines = _read(_SWAPS).splitlines()[1:]
    return [Path(line.split()[0].replace("\\040", " ")) for line in lines if line.strip()]


def _is_ours(device: Path) -> bool:
    try:
        with device.open("rb") as file:
            file.seek(_LABEL_AT)
            return file.read(16).rstrip(b"\0") == LABEL
    except OSError:
        return False


def _swapoff(path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    while libc.swapoff(os.fsencode(path)) and ctypes.get_errno() == errno.EINTR:
        pass


def _reset(file: Path) -> None:
    """Free a zram device; what looks at new devices may have it open for a moment."""
    for _ in range(20):
        try:
            file.write_text("1")
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                return
            time.sleep(0.05)


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
