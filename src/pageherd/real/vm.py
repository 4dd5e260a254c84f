"""Running a program under a kernel in QEMU, and telling how that ended.

A guest has no disk, no network and no files of the host: its kernel starts `c/init.c`, which
prepares it, runs one static program and switches the guest off.  What the program prints streams
back line by line over a virtio port, so that what came before a crash is kept.  Everything that
QEMU reads or writes is an unnamed file in memory, so nothing is left behind, however a run ends;
and QEMU is killed by the kernel when the process that started it is gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

from pageherd.cache import user_cache
from pageherd.errors import EnvironmentFailed
from pageherd.real.compile import SOURCES, compile_static
from pageherd.real.images import Image
from pageherd.real.initramfs import find_modules, pack_base, pack_run

Accel: TypeAlias = Literal["kvm", "tcg"]
_End: TypeAlias = Literal["exit", "boot", "idle", "total", "end"]
Status: TypeAlias = Literal["done", "panic", "oops", "hang", "timeout", "died"]

QEMU: Final = "qemu-system-x86_64"
_QEMU_CURE: Final = (
    "install it (Debian: apt install qemu-system-x86; Fedora: dnf install qemu-system-x86-core),"
    " or name the program in PAGEHERD_QEMU"
)
_MARK: Final = b"\x1e"  # begins a record of init, as against a line of the runner
_MAX_LINE: Final = 1 << 20
_CONSOLE_LINES: Final = 400
_MAX_CONSOLE_LINE: Final = 1000
_SCRATCH_BYTES: Final = 64 << 20
_PROBE_SECONDS: Final = 15.0
_END_SECONDS: Final = 10.0  # from the last record to QEMU's exit
_WAIT_SECONDS: Final = 0.2  # between two calls of `on_wait`, at most

_PARAMETERS: Final = (
    "console=ttyS0",
    "earlyprintk=ttyS0",  # a kernel that dies early should say why
    "panic=-1",  # at a panic reset at once, which -no-reboot makes QEMU's exit
    "oops=panic",
    "loglevel=5",
    "mitigations=off",
    "intel_iommu=on",
    "iommu=nopt",
    "transparent_hugepage=madvise",
    "numa_balancing=disable",
    "memmap=4M!128M",  # persistent memory, for files of DAX
    "no_timer_check",  # a busy host may be late with the ticks that are counted at boot
    "proc_mem.force_override=always",
    "random.trust_cpu=on",
)

# Python has no prctl.  This runs between it and QEMU, so that no code runs between fork and exec
# in a process that may have threads.
_LAUNCH: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]): sys.exit(0)
try: os.execv(sys.argv[2], sys.argv[2:])
except OSError as e: sys.exit(f"{sys.argv[2]}: {e.strerror}")
"""

_OWN: Final = "pageherd: "  # begins what init says on the console
_STUCK: Final = re.compile(r"soft lockup|stall|blocked for more than")
_PANIC: Final = re.compile(r"Kernel panic - not syncing")
_OOPS: Final = re.compile(
    r"\bOops: |\bOops\[|kernel BUG at |BUG: unable to handle|BUG: kernel NULL pointer"
    r"|general protection fault, |general protection fault: |invalid opcode: "
    r"|stack segment: |double fault: |KASAN: |Internal error: "
)
_COMPLAINT: Final = re.compile(
    r"WARNING: |\bBUG: |Bad page |Bad rss-counter|soft lockup|rcu: INFO: .*(stall|detected)"
    r"|blocked for more than|refcount_t: |list_(add|del) corruption"
    r"|Kernel panic - not syncing|kernel BUG at |\bOops: |general protection fault"
)


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended.

    done     the runner ended; `exit_status` is its exit code, or minus the signal that killed it
    panic    the kernel panicked
    oops     the kernel noticed a fault of its own (and was told to panic at once)
    hang     no line came for `idle_timeout` seconds, or no sign of life for `boot_timeout`
    timeout  `total_timeout` was over
    died     QEMU ended, or the guest switched itself off, before the runner did
    """

    status: Status
    exit_status: int | None
    reason: str  # one line: what ended it, "" if it is done
    facts: dict[str, str]  # what init found in the guest
    complaints: tuple[str, ...]  # lines of the kernel's log that speak of a fault, also if done
    console_tail: str  # the end of the serial console
    accel: Accel
    boot_seconds: float | None  # until the runner started; None if it never did
    seconds: float
    lines: int  # how many lines of the runner were delivered


@dataclass(slots=True)
class _Guest:
    """What has been heard from a running guest so far."""

    on_line: Callable[[str], None]
    facts: dict[str, str] = field(default_factory=dict)
    console: deque[str] = field(default_factory=lambda: deque(maxlen=_CONSOLE_LINES))
    complaints: list[str] = field(default_factory=list)
    qemu: deque[str] = field(default_factory=lambda: deque(maxlen=20))  # its standard error
    panic: str = ""
    oops: str = ""
    error: str = ""
    exit_status: int | None = None
    started_at: float | None = None
    last_line_at: float = 0.0
    ended_at: float | None = None  # a record or a panic after which nothing more is expected
    lines: int = 0

    def result_line(self, line: bytes) -> None:
        own, mark, record = line.partition(_MARK)
        self.last_line_at = time.monotonic()
        if own or not mark:
            self.lines += 1
            self.on_line(own.decode(errors="replace"))
        if mark:
            self._record(record.decode(errors="replace"))

    def _record(self, record: str) -> None:
        kind, _, rest = record.partition(" ")
        if kind == "fact":
            key, _, value = rest.partition(" ")
            self.facts[key] = value
        elif kind == "start":
            self.started_at = self.last_line_at
        elif kind == "error":
            self.error = rest
        elif kind in ("exit", "signal") and rest.isdigit():
            self.exit_status = int(rest) if kind == "exit" else -int(rest)
            self.ended_at = self.last_line_at

    def qemu_line(self, line: bytes) -> None:
        self.qemu.append(_plain(line))

    def console_line(self, line: bytes) -> None:
        text = _plain(line)
        if not text:
            return
        self.console.append(text)
        if not self.oops and _OOPS.search(text):
            self.oops = text
        if not self.panic and _PANIC.search(text):
            self.panic = text
            self.ended_at = time.monotonic()
        if len(self.complaints) < 100 and _COMPLAINT.search(text):
            self.complaints.append(text)


def _plain(line: bytes) -> str:
    """A line of the console without control sequences and the kernel's time stamp."""
    text = re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|.)", "", line.decode(errors="replace"))
    text = re.sub(r"^\[ *\d+\.\d+\](\[ *[TC]\d+\])? ", "", text)
    return "".join(c for c in text if c.isprintable()).strip()[:_MAX_CONSOLE_LINE]


class _Lines:
    """Splits what comes from a descriptor into lines."""

    def __init__(self, deliver: Callable[[bytes], None]) -> None:
        self.deliver = deliver
        self.rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.deliver(line)
        if len(self.rest) > _MAX_LINE:
            self.finish()

    def finish(self) -> None:
        if self.rest:
            rest, self.rest = self.rest, b""
            self.deliver(rest)


def run(
    image: Image,
    runner: Path,
    arguments: Sequence[str] = (),
    programs: bytes = b"",
    *,
    on_line: Callable[[str], None] = lambda line: None,
    on_wait: Callable[[], None] = lambda: None,
    boot_timeout: float = 120.0,
    idle_timeout: float = 60.0,
    total_timeout: float = 3600.0,
    accel: Literal["auto", "kvm", "tcg"] = "auto",
    cpus: int = 1,
    memory_mib: int = 512,
    parameters: Sequence[str] = (),
) -> Result:
    """Boot a kernel, run a static program in it with `programs` as standard input.

    Each line of its standard output is given to `on_line` as it comes; its standard error goes to
    the console.  `parameters` are added to the kernel's command line.  Memory is split over two
    nodes, so that pages can be migrated.  `on_wait` is called some times each second; it may raise
    to end the run.

    Raises `EnvironmentFailed` if QEMU is missing or will not start, `KeyboardInterrupt` and what
    `on_line` and `on_wait` raise as they come; in each case the guest is gone.
    """
    if len(programs) > memory_mib << 18:
        raise EnvironmentFailed(
            f"{len(programs) >> 20} MiB of programs do not fit into a guest of {memory_mib} MiB",
            "run fewer programs at once",
        )
    qemu = find_qemu()
    chosen = choose_accel(image) if accel == "auto" else accel
    base, missing = _base(image)
    guest = _Guest(on_line, facts={"modules_missing": ", ".join(missing)})
    own = pack_run(runner.read_bytes(), arguments, programs)
    limits = _Limits(boot_timeout, idle_timeout, total_timeout)
    began = time.monotonic()
    with (
        memory_file("initrd", base, own) as initrd,
        memory_file("scratch", size=_SCRATCH_BYTES) as scratch,
    ):
        command = _command(image, chosen, cpus, memory_mib, parameters, initrd, scratch)
        with _started(qemu, command, [initrd, scratch]) as (process, ports):
            why = _listen(process, ports, guest, began, limits, on_wait)
    if why == "exit" and not guest.console and guest.exit_status is None:
        raise _failed_to_start(qemu, process.returncode, guest)
    return _result(guest, why, process.returncode, chosen, began)


def find_qemu() -> str:
    """The path of QEMU: `$PAGEHERD_QEMU`, else `qemu-system-x86_64`.

    Raises `EnvironmentFailed` if it is not there.
    """
    name = os.environ.get("PAGEHERD_QEMU") or QEMU
    path = shutil.which(name)
    if path is None:
        raise EnvironmentFailed(f"there is no program '{name}' on this machine", _QEMU_CURE)
    return path


@contextlib.contextmanager
def memory_file(name: str, *parts: bytes, size: int = 0) -> Iterator[int]:
    """A descriptor of an unnamed file in memory that holds these bytes, then zeroes up to a size.

    Raises `EnvironmentFailed` if there is no memory for it.
    """
    with contextlib.ExitStack() as stack:
        try:
            out = stack.enter_context(os.fdopen(os.memfd_create(name), "wb"))
            out.writelines(parts)
            out.flush()
            if size:
                out.truncate(size)
        except OSError as error:
            raise EnvironmentFailed(f"no memory for the guest's {name}: {error}") from error
        yield out.fileno()


def _base(image: Image) -> tuple[bytes, tuple[str, ...]]:
    """The archive with /init and the image's modules, and the modules that are not there."""
    init = compile_static(SOURCES / "init.c").read_bytes()
    modules = find_modules(image.modules)
    return pack_base(init, modules), modules.missing


def _command(
    image: Image,
    accel: Accel,
    cpus: int,
    memory_mib: int,
    parameters: Sequence[str],
    initrd: int,
    scratch: int,
) -> list[str]:
    half = memory_mib // 2
    return [
        *_machine(accel, image),
        *("-smp", str(cpus), "-m", str(half * 2)),
        *("-object", f"memory-backend-ram,id=m0,size={half}M"),
        *("-object", f"memory-backend-ram,id=m1,size={half}M"),
        *("-numa", f"node,nodeid=0,cpus=0-{cpus - 1},memdev=m0"),
        *("-numa", "node,nodeid=1,memdev=m1"),
        *("-initrd", f"/dev/fd/{initrd}", "-append", " ".join((*_PARAMETERS, *parameters))),
        *("-device", "intel-iommu,intremap=on", "-device", "edu"),
        *("-drive", f"if=none,id=scratch,format=raw,file.locking=off,file=/dev/fd/{scratch}"),
        *("-device", "virtio-blk-pci,drive=scratch"),
        *("-chardev", "socket,id=result,fd=%0%", "-device", "virtio-serial-pci"),
        *("-device", "virtserialport,chardev=result,name=pageherd.result"),
        *("-chardev", "socket,id=slow,fd=%1%", "-serial", "chardev:slow"),
    ]


def _machine(accel: Accel, image: Image) -> list[str]:
    # with cmpxchg16b QEMU 7.2's TCG spoils the flags, and kernels from 6.12 on panic
    cpu = "max,cx16=off" if accel == "tcg" else "max"
    return [
        *("-accel", accel, "-cpu", cpu, "-machine", "q35,kernel-irqchip=split,mem-merge=off"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"),
        *("-serial", "stdio", "-kernel", str(image.bzimage)),
    ]


@contextlib.contextmanager
def _started(
    qemu: str, command: Sequence[str], files: Sequence[int]
) -> Iterator[tuple[subprocess.Popen[bytes], list[socket.socket]]]:
    """QEMU running, and our ends of two result ports; killed and waited for at the end.

    The first port is the virtio one.  The second is a serial line, for a kernel without virtio.
    """
    pairs = [socket.socketpair() for _ in range(2)]
    ours = [pair[0] for pair in pairs]
    numbers = [pair[1].fileno() for pair in pairs]
    words = [w.replace("%0%", str(numbers[0])).replace("%1%", str(numbers[1])) for w in command]
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid())]
    try:
        process = subprocess.Popen(
            [*launcher, qemu, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[*files, *numbers],
            start_new_session=True,  # Ctrl-C is for us
        )
    except OSError as error:
        for port in ours:
            port.close()
        raise EnvironmentFailed(f"cannot start {qemu}: {error.strerror}") from error
    finally:
        for _, theirs in pairs:
            theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr, *ours):
            if stream is not None:
                stream.close()


class _Limits(NamedTuple):
    """Seconds."""

    boot: float
    idle: float
    total: float

    def next(self, guest: _Guest, began: float) -> tuple[float, _End]:
        """What time is over next, and when."""
        if guest.ended_at is not None:
            first: tuple[float, _End] = (guest.ended_at + _END_SECONDS, "end")
        elif guest.started_at is None:
            first = (began + self.boot, "boot")
        else:
            first = (guest.last_line_at + self.idle, "idle")
        return min(first, (began + self.total, "total"))


def _listen(
    process: subprocess.Popen[bytes],
    ports: Sequence[socket.socket],
    guest: _Guest,
    began: float,
    limits: _Limits,
    on_wait: Callable[[], None] = lambda: None,
) -> _End:
    """Hear the guest out, until QEMU closes everything or a time is over: which it was."""
    assert process.stdout is not None
    assert process.stderr is not None
    streams = {
        process.stdout.fileno(): _Lines(guest.console_line),
        process.stderr.fileno(): _Lines(guest.qemu_line),
        **{port.fileno(): _Lines(guest.result_line) for port in ports},
    }
    with selectors.DefaultSelector() as selector:
        for number in streams:
            os.set_blocking(number, False)
            selector.register(number, selectors.EVENT_READ)
        while selector.get_map():
            limit, why = limits.next(guest, began)
            now = time.monotonic()
            if now >= limit:
                return why
            on_wait()
            for key, _ in selector.select(min(limit - now, _WAIT_SECONDS)):
                data = _read(key.fd)
                if data:
                    streams[key.fd].feed(data)
                elif data is not None:
                    selector.unregister(key.fd)
    streams[process.stdout.fileno()].finish()  # not the ports: half a result is none
    streams[process.stderr.fileno()].finish()
    process.wait()
    return "exit"


def _read(number: int) -> bytes | None:
    """Some bytes; none at the end; None if there are none yet."""
    try:
        return os.read(number, 1 << 18)
    except BlockingIOError:
        return None
    except ConnectionError:
        return b""


def _result(guest: _Guest, why: _End, code: int, accel: Accel, began: float) -> Result:
    status, reason = _how_it_ended(guest, why, code)
    return Result(
        status=status,
        exit_status=guest.exit_status,
        reason=reason,
        facts=guest.facts,
        complaints=tuple(guest.complaints),
        console_tail="\n".join(guest.console),
        accel=accel,
        boot_seconds=None if guest.started_at is None else guest.started_at - began,
        seconds=time.monotonic() - began,
        lines=guest.lines,
    )


def _how_it_ended(guest: _Guest, why: _End, code: int) -> tuple[Status, str]:
    """The status of a run, and a line that says why."""
    if guest.oops and guest.exit_status is None:
        return "oops", guest.oops
    if guest.panic:
        return "panic", guest.panic
    if guest.error:
        return "died", guest.error
    if guest.exit_status is not None:
        return "done", ""
    if why == "total":
        return "timeout", "the time for the whole run was over"
    if why in ("boot", "idle"):
        stuck = next((line for line in guest.complaints if _STUCK.search(line)), "")
        what = "the runner printed nothing for too long"
        if why == "boot":
            what = "the kernel printed nothing" if not guest.console else "the boot did not end"
        return "hang", f"{what}: {stuck}" if stuck else what
    own = (line for line in reversed(guest.console) if line.startswith(_OWN))
    said = next(own, "") or (guest.qemu[-1] if guest.qemu else "")
    return "died", said or f"QEMU ended (exit code {code}) before the runner did"


def _failed_to_start(qemu: str, code: int, guest: _Guest) -> EnvironmentFailed:
    said = "\n".join(guest.qemu) or "it said nothing"
    return EnvironmentFailed(f"{qemu} could not run the guest (exit code {code}): {said}")


def choose_accel(image: Image) -> Accel:
    """KVM if a guest really boots under it on this machine, else TCG, which is far slower."""
    return "tcg" if kvm_problem(image) else "kvm"


def kvm_problem(image: Image) -> str:
    """Why KVM cannot be used here; "" if it can.

    That /dev/kvm is there says little: nested virtualization may be off or half there.  So the
    image is booted without a root file system once; the answer is kept until the next boot.
    Raises `EnvironmentFailed` if QEMU is missing.
    """
    if not os.path.exists("/dev/kvm"):
        return "there is no /dev/kvm"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm may not be opened (add yourself to the group kvm)"
    qemu = find_qemu()
    note = user_cache() / f"kvm-problem-{_this_boot(qemu)}"
    with contextlib.suppress(OSError):
        return note.read_text()
    problem = _boot_under_kvm(qemu, image)
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False) as out:
            out.write(problem)
        os.replace(out.name, note)
    return problem


def _this_boot(qemu: str) -> str:
    """Changes when the machine is booted or QEMU is replaced."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        words = f"{boot}{qemu}{Path(qemu).stat().st_mtime_ns}"
        return hashlib.sha256(words.encode()).hexdigest()[:16]
    return "unknown"


def _boot_under_kvm(qemu: str, image: Image) -> str:
    """Boot until the kernel misses its root file system: what went wrong, "" if nothing did."""
    guest = _Guest(lambda line: None)
    command = [*_machine("kvm", image), "-m", "256", "-append", "console=ttyS0 panic=-1"]
    limits = _Limits(_PROBE_SECONDS, 1.0, _PROBE_SECONDS)
    with _started(qemu, command, []) as (process, ports):
        _listen(process, ports, guest, time.monotonic(), limits)
    if guest.panic:
        return ""
    return f"a guest does not boot under it: {guest.qemu[0] if guest.qemu else 'it hangs'}"
