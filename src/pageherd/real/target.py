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
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, TypeAlias

from pageherd.errors import EnvironmentFailed, RuleError
from pageherd.real import images, vm
from pageherd.real.compile import SOURCES, compile_static
from pageherd.real.host_swap import swap_devices
from pageherd.real.observe import Sight
from pageherd.real.results import Probes, Run, read
from pageherd.real.steer import Steered, encode
from pageherd.rules import kernels

HOST: Final = "host"
NO_DEVICE: Final = "missing"  # where there is no swap device of the kind: it cannot be turned on
IDLE_SECONDS: Final = 60.0  # no line for so long: the runner hangs
_CONSOLE_LINES: Final = 12  # that are shown when a kernel dies
_FACTS: Final = {
    "page_cluster": "/proc/sys/vm/page-cluster",
    "swappiness": "/proc/sys/vm/swappiness",
    "lru_gen": "/sys/kernel/mm/lru_gen/enabled",
    "thp": "/sys/kernel/mm/transparent_hugepage/enabled",
    "ksm": "/sys/kernel/mm/ksm/run",
    "numa_balancing": "/proc/sys/kernel/numa_balancing",
    "cpus": "/sys/devices/system/cpu/online",
}
Words: TypeAlias = Callable[[dict[str, str]], str]
"""From swap devices, by kind, to what the runner reads."""

_RELEASE: Final = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Batch:
    """Programs to run together, in this order."""

    programs: Sequence[Steered]
    repeat: int = 1
    facts: bool = True


def by_swap(programs: Iterable[Steered]) -> list[Steered]:
    """The programs in an order that changes the swap device seldom, which takes a while."""
    return sorted(programs, key=lambda program: program.swap)


@dataclass(slots=True)
class Report:
    """How a batch went, beside its runs: what the runner and the kernel said."""

    probes: Probes = field(default_factory=Probes)
    ended: str = ""  # empty: to the end; else what stopped it
    console: str = ""
    complaints: tuple[str, ...] = ()
    accel: str = ""
    boot_seconds: float = 0.0

    def failure(self, what: str) -> EnvironmentFailed:
        """What to raise if the batch cannot be used: why it ended, and the kernel's last words."""
        said = "\n   ".join(self.console.splitlines()[-_CONSOLE_LINES:])
        return EnvironmentFailed(f"{what}: {self.ended}", said and f"it said:\n   {said}")


class Target(ABC):
    """A real kernel that programs can be run on."""

    name: str
    release: str  # as `uname -r` says
    in_pieces: frozenset[str] = frozenset()  # swap that no huge page lies on in one piece

    @abstractmethod
    def lines(self, programs: Words, cpus: int, report: Report) -> Generator[str]:
        """What the runner prints when it is given `programs(swap devices)`."""

    def run(self, batch: Batch, report: Report) -> Iterator[Run]:
        """Run a batch; each program's run as it comes, the rest of what is known in `report`.

        Raises:
            EnvironmentFailed: no compiler, no QEMU, or the runner could not be started.
        """

        def words(devices: dict[str, str]) -> str:
            known = {"none": "none", **devices}
            return "".join(
                encode(p, known.get(p.swap, NO_DEVICE), repeat=batch.repeat, facts=batch.facts)
                for p in batch.programs
            )

        cpus = max((program.cpus for program in batch.programs), default=1)
        with contextlib.closing(self.lines(words, cpus, report)) as lines:
            yield from read(lines, report.probes)
        if not report.probes.release:
            raise report.failure(f"nothing came from {self.name}")

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
        ksm=flags and not probes.missing("ksm-flag"),
        of_head=version >= (6, 10),  # dee3d0bef2b0
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
        self.in_pieces = frozenset({"disk"})  # a file: SWP_BLKDEV is not set

    def lines(self, programs: Words, cpus: int, report: Report) -> Generator[str]:
        """Run the runner as a child; it is killed with everything it started if we stop early."""
        runner = compile_static(SOURCES / "runner.c")
        report.probes.facts.update(_facts())
        with swap_devices() as swap, _temporary(programs(swap.paths)) as given:
            process = subprocess.Popen(
                [runner],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C is for us, who tell the runner to stop
                pass_fds=[] if swap.lock is None else [swap.lock],
            )
            try:
                yield from _with_limit(process, report)
            finally:
                _end(process)
            report.ended = report.ended or _failure(process)


def _facts() -> dict[str, str]:
    """What decides how this kernel treats pages; c/init.c tells the same of a guest."""
    found = {"uname": " ".join(part for i, part in enumerate(os.uname()) if i != 1)}  # no name
    for name, path in _FACTS.items():
        with contextlib.suppress(OSError):
            found[name] = Path(path).read_text().strip().partition("\n")[0]
    return found


@contextlib.contextmanager
def _temporary(text: str) -> Iterator[IO[str]]:
    """An unnamed file with this text, to be read from its beginning."""
    with tempfile.TemporaryFile("w+") as file:
        try:
            file.write(text)
            file.seek(0)
        except OSError as error:
            raise EnvironmentFailed(
                f"cannot write {len(text) >> 10} KiB to {tempfile.gettempdir()}: {error.strerror}",
                "make room there, or name another folder in TMPDIR",
            ) from error
        yield file


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


def _failure(process: subprocess.Popen[str]) -> str:
    """Why a runner did not end as it should; "" if it did."""
    if not process.returncode:
        return ""
    if process.returncode < 0:
        return f"the runner was killed ({signal.Signals(-process.returncode).name})"
    errors = process.stderr.read() if process.stderr else ""
    return f"the runner ended with {process.returncode}: {errors.strip()[:500]}"


def _end(process: subprocess.Popen[str]) -> None:
    """Let the runner clean up (swap off, processes gone); kill it if it does not."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


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

        def look_up() -> None:
            if stop.is_set():
                raise _Stopped

        def boot() -> None:
            try:
                result = vm.run(
                    self.image,
                    compile_static(SOURCES / "runner.c"),
                    programs=programs(self.DEVICES).encode(),
                    on_line=lines.put,
                    on_wait=look_up,
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
