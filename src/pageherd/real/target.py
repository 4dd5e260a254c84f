"""Where programs run: on the kernel that is running, or on an image in QEMU.

Both start the same runner (`c/runner.c`) and read the same lines, so that nothing above this file
knows which it was.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from pageherd.errors import EnvironmentFailed, RuleError
from pageherd.real import images, vm
from pageherd.real.compile import SOURCES, compile_static
from pageherd.real.observe import Sight
from pageherd.real.results import Probes, Run, read
from pageherd.real.steer import Steered, encode
from pageherd.rules import kernels

HOST: Final = "host"
IDLE_SECONDS: Final = 60.0  # no line for so long: the runner hangs
SWAP_BYTES: Final = 16 << 20
Words: TypeAlias = Callable[[dict[str, str]], str]
"""From swap devices, by kind, to what the runner reads."""

_RELEASE: Final = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Batch:
    """Programs to run together, in this order."""

    programs: Sequence[Steered]
    repeat: int = 1
    facts: bool = True


@dataclass(slots=True)
class Report:
    """How a batch went, beside its runs: what the runner and the kernel said."""

    probes: Probes = field(default_factory=Probes)
    ended: str = ""  # empty: to the end; else what stopped it
    console: str = ""
    complaints: tuple[str, ...] = ()
    accel: str = ""
    boot_seconds: float = 0.0


class Target(ABC):
    """A real kernel that programs can be run on."""

    name: str
    release: str  # as `uname -r` says

    @abstractmethod
    def lines(self, programs: Words, cpus: int, report: Report) -> Generator[str]:
        """What the runner prints when it is given `programs(swap devices)`."""

    def run(self, batch: Batch, report: Report) -> Iterator[Run]:
        """Run a batch; each program's run as it comes, the rest of what is known in `report`.

        Raises:
            EnvironmentFailed: no compiler, no QEMU, or the runner could not be started.
        """

        def words(devices: dict[str, str]) -> str:
            return "".join(
                encode(p, devices.get(p.swap, "none"), repeat=batch.repeat, facts=batch.facts)
                for p in batch.programs
            )

        cpus = max((program.cpus for program in batch.programs), default=1)
        with contextlib.closing(self.lines(words, cpus, report)) as lines:
            yield from read(lines, report.probes)
        if not report.probes.release:
            raise EnvironmentFailed(
                f"nothing came from {self.name}: {report.ended}", report.console
            )

    def kernel(self) -> str:
        """The row of the table of kernels whose rules this kernel should have."""
        return row_of(self.release)


def row_of(release: str) -> str:
    """The newest shipped kernel of the table that is not newer than `release`.

    Raises:
        RuleError: the release is older than every row, or is none.
    """
    match = _RELEASE.match(release)
    if match is None:
        raise RuleError(f"'{release}' is no kernel release; choose the rules with --kernel")
    wanted = int(match[1]), int(match[2])
    found = None
    for row in kernels.ROWS:
        version = re.fullmatch(r"linux-(\d+)\.(\d+)", row.name)
        if version and not row.proposal and (int(version[1]), int(version[2])) <= wanted:
            found = row.name
    if found is None:
        raise RuleError(f"no kernel of the table is as old as {release}; choose one with --kernel")
    return found


def sight_of(probes: Probes) -> Sight:
    """What a run on this kernel can see."""
    match = _RELEASE.match(probes.release)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    flags = not probes.missing("kpageflags")
    return Sight(
        frames=not probes.missing("pagemap"),
        counts=not probes.missing("kpagecount"),
        flags=flags,
        exclusive=flags and version >= (5, 19),  # PG_anon_exclusive, 78fbe906cc90
        soft_dirty=not probes.missing("soft-dirty"),
    )


def find(name: str, progress: Callable[[str], None] | None = None) -> Target:
    """`host`, a distribution's kernel such as `debian-6.1`, or the path of a bzImage.

    Raises:
        ImageError: there is no such image.
        EnvironmentFailed: it cannot be fetched.
    """
    return Host() if name == HOST else Vm(images.find(name, progress))


class Host(Target):
    """The kernel that is running."""

    def __init__(self) -> None:
        self.name = HOST
        self.release = os.uname().release

    def lines(self, programs: Words, cpus: int, report: Report) -> Generator[str]:
        """Run the runner as a child; it is killed with everything it started if we stop early."""
        runner = compile_static(SOURCES / "runner.c")
        with _swap_devices() as devices, tempfile.TemporaryFile("w+") as given:
            given.write(programs(devices))
            given.seek(0)
            process = subprocess.Popen(
                [runner],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            try:
                yield from _with_limit(process, report)
            finally:
                _end(process)
            if process.returncode:
                errors = process.stderr.read() if process.stderr else ""
                report.ended = report.ended or f"the runner failed: {errors.strip()[:500]}"


def _with_limit(process: subprocess.Popen[str], report: Report) -> Iterator[str]:
    """The lines that a process prints, until it ends or prints none for too long."""
    lines: queue.Queue[str | None] = queue.Queue()

    def pump() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=pump, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            report.ended = f"nothing came for {IDLE_SECONDS:.0f} s"
            return
        if line is None:
            process.wait()
            return
        yield line


def _end(process: subprocess.Popen[str]) -> None:
    """Let the runner clean up (swap off, processes gone); kill it if it does not."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def _swap_devices() -> Iterator[dict[str, str]]:
    """Devices for the host to swap on while tests run: an idle zram, and a small file."""
    devices: dict[str, str] = {}
    if os.geteuid() != 0:
        yield devices
        return
    for size in sorted(Path("/sys/block").glob("zram*/disksize")):
        if size.read_text().strip() == "0":
            devices["zram"] = f"/dev/{size.parent.name}"
            break
    with tempfile.NamedTemporaryFile(prefix="pageherd-swap-", dir="/var/tmp") as file:
        os.posix_fallocate(file.fileno(), 0, SWAP_BYTES)
        devices["disk"] = file.name
        yield devices


class Vm(Target):
    """An image in QEMU."""

    DEVICES: Final = {"zram": "/dev/zram0", "disk": "/dev/vda"}

    def __init__(self, image: images.Image) -> None:
        self.name = image.name
        self.release = image.release
        self.image = image

    def lines(self, programs: Words, cpus: int, report: Report) -> Generator[str]:
        """Boot once, give the runner everything, and pass its lines on."""
        lines: queue.Queue[str | BaseException | None] = queue.Queue()
        stop = threading.Event()

        def deliver(line: str) -> None:
            if stop.is_set():
                raise _Stopped
            lines.put(line)

        def boot() -> None:
            try:
                result = vm.run(
                    self.image,
                    compile_static(SOURCES / "runner.c"),
                    programs=programs(self.DEVICES).encode(),
                    on_line=deliver,
                    idle_timeout=IDLE_SECONDS,
                    cpus=cpus,
                )
            except _Stopped:
                pass
            except BaseException as error:
                lines.put(error)
            else:
                _fill(report, result)
            lines.put(None)

        thread = threading.Thread(target=boot, daemon=True)
        thread.start()
        try:
            while (line := lines.get()) is not None:
                if isinstance(line, BaseException):
                    raise line
                yield line
        finally:
            stop.set()
            thread.join(30)


class _Stopped(Exception):
    """Nobody wants further lines."""


def _fill(report: Report, result: vm.Result) -> None:
    report.ended = result.reason
    if result.status == "done" and result.exit_status:
        report.ended = f"the runner ended with {result.exit_status}"
    report.console = result.console_tail
    report.complaints = result.complaints
    report.accel = result.accel
    report.boot_seconds = result.boot_seconds or 0.0
    report.probes.facts.update(result.facts)
