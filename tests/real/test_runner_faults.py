"""What goes wrong while tests run on real kernels: one clear message, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pageherd.cli.main import main
from pageherd.errors import PageherdError
from pageherd.real import host_swap, images, target, vm
from pageherd.real.compile import SOURCES, compile_static

TEST = "cow-vmsplice-child-unmap"
VM = "debian-5.10"
GONE_SECONDS = 2.0

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may turn swap on")


def compiler_problem() -> str:
    try:
        compile_static(SOURCES / "runner.c")
    except PageherdError as error:
        return str(error)
    return ""


needs_compiler = pytest.mark.skipif(bool(compiler_problem()), reason=compiler_problem())


@pytest.fixture(scope="module")
def guest() -> str:
    """The name of a kernel that can be booted here."""
    try:
        vm.find_qemu()
        images.find(VM)
    except PageherdError as error:
        pytest.skip(str(error))
    return VM


class Command:
    """The command line in a process of its own, whose descendants bear a mark."""

    def __init__(self, *words: str, **environment: str) -> None:
        self.mark = f"PAGEHERD_TEST_MARK={uuid.uuid4()}".encode()
        name, _, value = self.mark.decode().partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pageherd", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment | {name: value},
        )

    def started(self, word: str) -> list[int]:
        """Its descendants whose command has this word."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and int(entry.name) != self.process.pid:
                    ours = self.mark in (entry / "environ").read_bytes()
                    if ours and word.encode() in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
        return found

    def wait_for(self, word: str, seconds: float = 300.0) -> list[int]:
        """Wait until it has started something."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            if found := self.started(word):
                return found
            time.sleep(0.02)
        raise AssertionError(f"no {word}: {self.end()}")

    def end(self) -> tuple[int, str, str]:
        """Its exit code, and what it printed."""
        out, err = self.process.communicate(timeout=240)
        return self.process.returncode, out, err

    def left(self) -> list[int]:
        """What is still there of it after a while."""
        until = time.monotonic() + GONE_SECONDS
        while self.started("") and time.monotonic() < until:
            time.sleep(0.02)
        return self.started("")


def ours() -> list[Path]:
    """What the machine swaps on that is pageherd's."""
    return [path for path in host_swap.in_use() if path == host_swap.FILE]


@contextlib.contextmanager
def no_other_run() -> Iterator[None]:
    """Hold the lock that runs on the host take, so that what is seen is nobody else's."""
    with host_swap.swap_devices():
        yield


def swap_is_off() -> bool:
    """Whether no swap of a run is on while none is running."""
    if os.geteuid():
        return True
    with Path("/proc/swaps").open("rb") as lock:
        host_swap._wait_for(lock.fileno(), 120)
        return not ours()


def conform(on: str) -> Command:
    return Command("conform", "--on", on, "--programs", "100000", "--seed", "7")


# -- the environment lacks something ---------------------------------------------------------------


def test_no_compiler() -> None:
    command = Command("real", TEST, CC="no-such-compiler")
    code, out, err = command.end()
    assert (code, out) == (4, "")
    assert "there is no compiler 'no-such-compiler', which CC names" in err
    assert "Traceback" not in err


@pytest.mark.vm
def test_no_qemu(guest: str) -> None:
    code, out, err = Command("real", TEST, "--on", guest, PAGEHERD_QEMU="no-such-qemu").end()
    assert (code, out) == (4, "")
    assert "there is no program 'no-such-qemu'" in err
    assert "Traceback" not in err


@needs_compiler
@needs_root
def test_a_full_disk(tmp_path: Path) -> None:
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("this user may not mount a tmpfs")
    try:
        command = Command("real", TEST, XDG_CACHE_HOME=str(tmp_path), TMPDIR=str(tmp_path))
        code, _, err = command.end()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert code == 4, err
    assert "No space left on device" in err
    assert "Traceback" not in err


# -- the kernel fails ------------------------------------------------------------------------------


def qemu_with(folder: Path, script: str) -> str:
    """A program in QEMU's place."""
    fake = folder / "qemu"
    fake.write_text(script)
    fake.chmod(0o755)
    return str(fake)


@pytest.mark.vm
@needs_compiler
def test_a_kernel_that_panics_at_boot(guest: str, tmp_path: Path) -> None:
    real = vm.find_qemu()
    script = f'#!/bin/bash\nexec {real} "${{@/panic=-1/panic=-1 rdinit=/nowhere}}"\n'
    command = Command("real", TEST, "--on", guest, PAGEHERD_QEMU=qemu_with(tmp_path, script))
    code, out, err = command.end()
    assert (code, out) == (4, "")
    assert f"nothing came from {guest}: Kernel panic - not syncing" in err
    assert len(err.splitlines()) < 25
    assert not command.left()


FAKE = """\
#!{python}
import os, re, sys, time
port = int(re.search(r"id=result,fd=([0-9]+)", " ".join(sys.argv))[1])
os.write(port, b"\\x1estart\\nrelease 5.10.0\\nhave pagemap 0\\nprogram {test}\\n")
time.sleep(600)
"""


@pytest.mark.vm
@needs_compiler
def test_a_kernel_that_hangs_in_a_test(
    guest: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake = FAKE.format(python=sys.executable, test=TEST)
    monkeypatch.setenv("PAGEHERD_QEMU", qemu_with(tmp_path, fake))
    monkeypatch.setattr(vm, "choose_accel", lambda image: "tcg")
    monkeypatch.setattr(target, "IDLE_SECONDS", 1.0)
    assert main(["real", TEST, "--on", guest]) == 4
    out = capsys.readouterr().out
    assert f"{TEST}: the runner printed nothing for too long" in out


PROGRAM = """\
swap none
program first 1 1 {repeat} 0 1
thread 0 0
step 0 0 mmap 0 0 0
step 0 0 write 0 0 1
step 0 0 write 0 0 2
run
program second 1 1 1 0 1
thread 0 0
step 0 0 mmap 0 0 0
run
"""


def children(process: int) -> list[int]:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        return [int(word) for word in words]
    return []


@needs_compiler
def test_a_step_that_never_returns(tmp_path: Path) -> None:
    given = tmp_path / "programs"
    given.write_text(PROGRAM.format(repeat=1_000_000))
    stopped: set[int] = set()
    with given.open() as programs, (tmp_path / "out").open("w") as out:
        runner = subprocess.Popen(
            [compile_static(SOURCES / "runner.c")], stdin=programs, stdout=out
        )
        until = time.monotonic() + 60
        while runner.poll() is None and time.monotonic() < until:
            for child in children(runner.pid)[:1]:  # one between two steps may be killed at once
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGSTOP)
                    stopped.add(child)
                    time.sleep(3)
                if Path(f"/proc/{child}").exists():
                    runner.wait(60)
            time.sleep(0.01)
        assert runner.wait(10) == 0
    with (tmp_path / "out").open("rb") as file:
        file.seek(-200, os.SEEK_END)
        text = file.read().decode()
    assert "\nhang " in text
    assert text.endswith("end\nprogram second\nstep 0 0 0\nend\n")
    assert not any(Path(f"/proc/{number}").exists() for number in stopped)


# -- signals ---------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "pageherd: interrupted\n"),
        (signal.SIGTERM, 143, "pageherd: terminated\n"),
    ],
)
def test_a_run_on_the_host_is_stopped(number: int, code: int, said: str) -> None:
    command = conform("host")
    command.wait_for("runner-")
    time.sleep(0.5)
    command.process.send_signal(number)
    assert command.end() == (code, "", said)
    assert not command.left()
    assert swap_is_off()


@pytest.mark.vm
@needs_compiler
@pytest.mark.parametrize(
    ("number", "code", "pause"),
    [(signal.SIGINT, 130, 0.5), (signal.SIGINT, 130, 12.0), (signal.SIGTERM, 143, 0.5)],
)
def test_a_run_in_a_guest_is_stopped(guest: str, number: int, code: int, pause: float) -> None:
    command = conform(guest)
    command.wait_for("qemu")
    time.sleep(pause)  # while it boots; later
    command.process.send_signal(number)
    began = time.monotonic()
    assert command.end()[0] == code
    assert time.monotonic() - began < 15
    assert not command.left()


@needs_compiler
def test_a_run_on_the_host_is_killed() -> None:
    command = conform("host")
    command.wait_for("runner-")
    time.sleep(0.5)
    command.process.kill()
    command.end()
    assert not command.left(), "the runner notices"
    assert swap_is_off()
    with no_other_run():
        pass
    assert os.geteuid() or not host_swap.FILE.exists(), "the next run removes the file"


@pytest.mark.vm
@needs_compiler
def test_a_run_in_a_guest_is_killed(guest: str) -> None:
    command = conform(guest)
    command.wait_for("-accel")
    time.sleep(1)
    command.process.kill()
    command.end()
    assert not command.left()


@needs_compiler
def test_a_runner_is_killed() -> None:
    command = conform("host")
    until = time.monotonic() + 60
    while command.process.poll() is None and time.monotonic() < until:
        for number in command.started("runner-"):  # the one found may be at its end: kill the next
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.05)
    code, out, err = command.end()
    assert (code, out) == (4, ""), err
    assert "host: the runner was killed (SIGKILL)" in err
    assert not command.left()
    assert swap_is_off()


@needs_compiler
@needs_root
def test_runner_and_command_are_killed() -> None:
    command = conform("host")
    command.wait_for("runner-")
    until = time.monotonic() + 30
    while not ours() and time.monotonic() < until:
        time.sleep(0.01)
    command.process.send_signal(signal.SIGSTOP)
    for number in command.started("runner-"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    command.process.kill()
    command.end()
    assert not command.left()
    with no_other_run():
        assert not ours(), "the next run turns it off"
    assert not host_swap.FILE.exists()


# -- others ----------------------------------------------------------------------------------------


@needs_compiler
def test_two_runs_at_once() -> None:
    runs = [Command("conform", "--programs", "100", "--seed", str(n)) for n in (1000, 2000)]
    for run in runs:
        code, out, err = run.end()
        assert (code, err) == (0, ""), out
        assert "no divergence" in out
        assert not run.left()
    assert swap_is_off()


@needs_compiler
@needs_root
def test_swap_of_others_stays() -> None:
    if shutil.which("mkswap") is None:
        pytest.skip("no mkswap")
    file = Path(f"/var/tmp/others-{os.getpid()}.swap")
    file.touch(0o600)
    try:
        with file.open("wb") as out:
            os.posix_fallocate(out.fileno(), 0, 1 << 20)
        with no_other_run():
            subprocess.run(["mkswap", "-q", file], check=True)
            if subprocess.run(["swapon", file], capture_output=True, check=False).returncode:
                pytest.skip("no swap on this file system")
        assert Command("real", "swap-in-own-page/base-swap").end()[0] == 0
        assert file in host_swap.in_use()
    finally:
        subprocess.run(["swapoff", file], capture_output=True, check=False)
        file.unlink()
