"""Guests: what is there in them, what comes out of them, and every way in which they can end.

These tests need QEMU, a C compiler, and kernels, which are fetched from Debian once; what is
missing is said and skipped.  The kernels stay in the user's cache.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from pageherd.errors import EnvironmentFailed, PageherdError
from pageherd.real import images, vm
from pageherd.real.compile import compile_static
from pageherd.real.images import Image

pytestmark = pytest.mark.vm

RUNNER = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/swap.h>
#include <unistd.h>

static void swap_on(const char *device)
{
    static char header[4096];
    unsigned *words = (unsigned *)(header + 1024);
    FILE *size = fopen("/sys/block/zram0/disksize", "w");
    if (size) {
        fputs("16777216", size);
        fclose(size);
    }
    words[0] = 1;                 /* version */
    words[1] = (8 << 20) / 4096 - 1; /* last page */
    memcpy(header + 4086, "SWAPSPACE2", 10);
    int fd = open(device, O_RDWR);
    int ok = fd >= 0 && write(fd, header, 4096) == 4096 && fsync(fd) == 0;
    close(fd);
    printf("swap %s %s\n", device, ok && swapon(device, 0) == 0 ? "on" : strerror(errno));
}

int main(int count, char **arguments)
{
    const char *what = count > 1 ? arguments[1] : "";
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (strcmp(what, "echo") == 0) {
        static char line[1 << 16];
        for (int i = 2; i < count; i++)
            printf("argument %s\n", arguments[i]);
        while (fgets(line, sizeof(line), stdin))
            fputs(line, stdout);
        fputs("on standard error\n", stderr);
        return 7;
    }
    if (strcmp(what, "devices") == 0) {
        unsigned long flags = 0;
        int fd = open("/proc/kpageflags", O_RDONLY);
        printf("kpageflags %d\n", (int)pread(fd, &flags, 8, 8 * 4096));
        printf("debugfs %d\n", access("/sys/kernel/debug/bdi", F_OK));
        printf("memory %d\n", access("/sys/fs/cgroup/memory.stat", F_OK));
        for (int i = 2; i < count; i++)
            swap_on(arguments[i]);
        int container = open("/dev/vfio/vfio", O_RDWR), group = -1;
        for (int i = 0; i < 64 && group < 0; i++) {
            char path[32];
            snprintf(path, sizeof(path), "/dev/vfio/%d", i);
            group = open(path, O_RDWR);
        }
        printf("vfio %s\n", container >= 0 && group >= 0 ? "there" : "missing");
    } else if (strcmp(what, "crash") == 0) {
        printf("the last words\n");
        int fd = open("/proc/sysrq-trigger", O_WRONLY);
        return write(fd, "c", 1) == 1;
    } else if (strcmp(what, "hang") == 0) {
        printf("before\n");
        for (;;)
            pause();
    } else if (strcmp(what, "talk") == 0) {
        for (;; usleep(100000))
            printf("still there\n");
    } else if (strcmp(what, "abort") == 0) {
        printf("half a line");
        fflush(stdout);
        abort();
    } else if (strcmp(what, "lines") == 0) {
        for (int i = 0; i < atoi(arguments[2]); i++)
            printf("line %d of many, each as long as a result may be: some 70 characters\n", i);
    }
    return 0;
}
"""


@cache
def problem() -> str:
    """Why no guest can be run here."""
    try:
        vm.find_qemu()
        compile_static(vm.SOURCES / "init.c")
    except PageherdError as error:
        return str(error)
    return ""


@cache
def found(name: str) -> Image | str:
    try:
        return images.find(name)
    except PageherdError as error:
        return f"no kernel {name}: {error}"


def image_or_skip(name: str) -> Image:
    if problem():
        pytest.skip(problem())
    image = found(name)
    if isinstance(image, str):
        pytest.skip(image)
    return image


@pytest.fixture(params=images.NAMES)
def image(request: pytest.FixtureRequest) -> Image:
    return image_or_skip(request.param)


@pytest.fixture
def any_image() -> Image:
    """The image that boots fastest."""
    return image_or_skip("debian-5.10")


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if problem():
        pytest.skip(problem())
    source = tmp_path_factory.mktemp("runner") / "runner.c"
    source.write_text(RUNNER)
    return compile_static(source)


def guests(word: str) -> list[int]:
    """The processes that have this word in their command."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and word.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def gone(word: str) -> bool:
    end = time.monotonic() + 10
    while guests(word) and time.monotonic() < end:
        time.sleep(0.05)
    return not guests(word)


# --- what is there


def test_a_guest_has_what_tests_need(image: Image, runner: Path) -> None:
    lines: list[str] = []
    swaps = ("/dev/zram0", "/dev/vda", "/dev/nullb0")
    result = vm.run(image, runner, ["devices", *swaps], on_line=lines.append)
    assert (result.status, result.exit_status, result.reason) == ("done", 0, "")
    assert lines == [
        "kpageflags 8",
        "debugfs 0",
        "memory 0",
        *(f"swap {device} on" for device in swaps),
        "vfio there",
    ]
    facts = result.facts
    assert facts["release"] == image.release
    assert facts["nodes"] == "0-1"
    assert facts["page_cluster"] == "0"
    assert "[madvise]" in facts["thp"]
    assert facts["modules_failed"] == facts["modules_missing"] == ""
    assert facts["vfio_group"].startswith("/dev/vfio/")
    for device in (*swaps, "/dev/nbd0", "/dev/loop0", "/dev/fuse", "/proc/kpageflags"):
        assert facts[f"has:{device}"] == "yes", device
    assert result.complaints == ()
    assert result.boot_seconds is not None
    assert result.boot_seconds < result.seconds


def test_arguments_input_and_output_go_through_unchanged(any_image: Image, runner: Path) -> None:
    text = "one\n\n\ttwo ; é \x01\n" + "x" * 60_000 + "\nthe end without a newline"
    lines: list[str] = []
    arguments = ["echo", "two words", "", "-n"]
    result = vm.run(any_image, runner, arguments, text.encode(), on_line=lines.append)
    assert lines == ["argument two words", "argument ", "argument -n", *text.split("\n")]
    assert (result.status, result.exit_status) == ("done", 7)
    assert result.lines == len(lines)
    assert "on standard error" in result.console_tail


def test_many_lines_come_fast(any_image: Image, runner: Path) -> None:
    count = 0

    def on_line(line: str) -> None:
        nonlocal count
        assert line.startswith(f"line {count} of many")
        count += 1

    result = vm.run(any_image, runner, ["lines", "50000"], on_line=on_line)
    assert (result.status, count) == ("done", 50000)
    assert result.boot_seconds is not None
    assert count / (result.seconds - result.boot_seconds) > 5000


def test_a_kernel_without_modules_has_a_slower_line(any_image: Image, runner: Path) -> None:
    lines: list[str] = []
    bare = replace(any_image, modules=None)
    result = vm.run(bare, runner, ["echo"], b"hello\n", on_line=lines.append)
    assert result.status == "done"
    assert lines == ["hello"]
    assert "virtio_console" in result.facts["modules_missing"]


# --- how it ends


@pytest.mark.parametrize("name", [images.NAMES[0], images.NAMES[-1]])
def test_lines_before_a_panic_are_kept(name: str, runner: Path) -> None:
    lines: list[str] = []
    result = vm.run(image_or_skip(name), runner, ["crash"], on_line=lines.append)
    assert lines == ["the last words"]
    assert result.status == "panic"
    assert result.reason == "Kernel panic - not syncing: sysrq triggered crash"
    assert result.exit_status is None
    assert "sysrq triggered crash" in result.console_tail
    assert result.complaints


def test_a_panic_at_boot(any_image: Image, runner: Path) -> None:
    result = vm.run(any_image, runner, parameters=["rdinit=/nonexistent"])
    assert result.status == "panic"
    assert "Unable to mount root fs" in result.reason
    assert result.boot_seconds is None


def test_a_runner_that_is_killed(any_image: Image, runner: Path) -> None:
    lines: list[str] = []
    result = vm.run(any_image, runner, ["abort"], on_line=lines.append)
    assert (result.status, result.exit_status) == ("done", -signal.SIGABRT)
    assert lines == ["half a line"]


def test_a_runner_that_hangs(any_image: Image, runner: Path) -> None:
    lines: list[str] = []
    result = vm.run(any_image, runner, ["hang"], on_line=lines.append, idle_timeout=2)
    assert lines == ["before"]
    assert result.status == "hang"
    assert result.reason == "the runner printed nothing for too long"


def test_a_runner_that_goes_on_forever(any_image: Image, runner: Path) -> None:
    result = vm.run(any_image, runner, ["talk"], total_timeout=12)
    assert result.status == "timeout"
    assert result.lines > 0


def test_a_qemu_that_is_killed(any_image: Image, runner: Path) -> None:
    word = f"x=qemu-killed-{os.getpid()}"

    def on_line(line: str) -> None:
        for number in guests(word):
            os.kill(number, signal.SIGKILL)

    result = vm.run(any_image, runner, ["talk"], on_line=on_line, parameters=[word])
    assert result.status == "died"
    assert result.reason == "QEMU ended (exit code -9) before the runner did"
    assert result.lines >= 1


def test_a_file_that_is_no_program(any_image: Image, tmp_path: Path) -> None:
    (tmp_path / "runner").write_bytes(b"no program")
    result = vm.run(any_image, tmp_path / "runner")
    assert result.status == "died"
    assert result.reason == "cannot start the runner: Exec format error"


def test_a_kernel_that_is_damaged(any_image: Image, runner: Path, tmp_path: Path) -> None:
    data = bytearray(any_image.bzimage.read_bytes())
    setup = (data[0x1F1] or 4) * 512 + 512
    data[setup + 512 :] = os.urandom(4096) * ((len(data) - setup - 512) // 4096)
    (tmp_path / "bzImage").write_bytes(data)
    broken = replace(any_image, bzimage=tmp_path / "bzImage")
    result = vm.run(broken, runner, accel="tcg", boot_timeout=5)
    assert result.status in ("hang", "died")
    assert result.reason
    assert result.boot_seconds is None


def test_an_image_that_is_no_kernel(any_image: Image, runner: Path, tmp_path: Path) -> None:
    (tmp_path / "bzImage").write_bytes(b"garbage" * 1000)
    broken = replace(any_image, bzimage=tmp_path / "bzImage")
    with pytest.raises(EnvironmentFailed, match="could not run the guest"):
        vm.run(broken, runner, accel="tcg", boot_timeout=10)


def test_too_much_input(any_image: Image, runner: Path) -> None:
    with pytest.raises(EnvironmentFailed, match="do not fit into a guest of 64 MiB"):
        vm.run(any_image, runner, programs=bytes(17 << 20), memory_mib=64)


def test_no_qemu(any_image: Image, runner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGEHERD_QEMU", "no-such-qemu")
    with pytest.raises(EnvironmentFailed, match="no program 'no-such-qemu'") as caught:
        vm.run(any_image, runner)
    assert "apt install qemu-system-x86" in str(caught.value)


def test_a_qemu_that_fails(
    any_image: Image, runner: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "qemu"
    fake.write_text("#!/bin/sh\necho 'Cannot allocate memory' >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PAGEHERD_QEMU", str(fake))
    with pytest.raises(EnvironmentFailed, match=r"exit code 3\): Cannot allocate memory"):
        vm.run(any_image, runner, accel="tcg")


# --- what the kernel says, with a program in QEMU's place that says it

FAKE = """
import os, re, sys, time
port = int(re.search(r"id=result,fd=([0-9]+)", " ".join(sys.argv))[1])
print({console!r}, flush=True)
os.write(port, {port!r})
time.sleep({seconds})
"""


START = b"\x1estart\na line\n"
NULL = "BUG: kernel NULL pointer dereference, address: 10"
OOPS = f"""[    7.1] {NULL}
[    7.2][  T61] Oops: 0002 [#1] PREEMPT SMP NOPTI
[    7.3] Kernel panic - not syncing: Fatal exception"""
BUG = """[    7.1] kernel BUG at mm/memory.c:1234!
[    7.2] invalid opcode: 0000 [#1] SMP"""
LOCKUP = "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [runner:61]"
BAD_PAGE = "[    7.1] BUG: Bad page state in process runner  pfn:01234"
WARNING = "[    7.1] WARNING: CPU: 0 PID: 61 at mm/gup.c:99 try_grab_folio+0x1/0x2"
SILENT = "the runner printed nothing for too long"


@pytest.mark.parametrize(
    ("console", "port", "status", "reason"),
    [
        (OOPS, START, "oops", NULL),
        (BUG, START + b"half a l", "oops", "kernel BUG at mm/memory.c:1234!"),
        (BAD_PAGE, START + b"\x1eexit 0\n", "done", ""),
        (f"[    7.1] {LOCKUP}", START, "hang", f"{SILENT}: {LOCKUP}"),
        (WARNING, START + b"half a l", "hang", SILENT),
    ],
    ids=["oops", "BUG", "bad page", "soft lockup", "warning"],
)
def test_what_the_kernel_complains_about(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    console: str,
    port: bytes,
    status: str,
    reason: str,
) -> None:
    if problem():
        pytest.skip(problem())
    fake = tmp_path / "qemu"
    script = FAKE.format(console=console, port=port, seconds=30 if status == "hang" else 0)
    fake.write_text(f"#!{sys.executable}\n{script}")
    fake.chmod(0o755)
    monkeypatch.setenv("PAGEHERD_QEMU", str(fake))
    lines: list[str] = []
    image = Image("none", "0", fake, None, "none", "")
    result = vm.run(image, fake, on_line=lines.append, accel="tcg", idle_timeout=1)
    assert (result.status, result.reason) == (status, reason)
    assert result.complaints
    assert result.complaints[0] in console
    assert lines == ["a line"], "half a line is none"


# --- nothing is left


def test_what_on_line_raises_ends_the_guest(any_image: Image, runner: Path) -> None:
    def on_line(line: str) -> None:
        raise ZeroDivisionError

    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(ZeroDivisionError):
        vm.run(any_image, runner, ["talk"], on_line=on_line, parameters=["x=raises-an-error"])
    assert gone("x=raises-an-error")
    assert set(os.listdir("/proc/self/fd")) == before


CHILD = """
import sys
from pathlib import Path
from pageherd.real import images, vm
image = images.find("debian-5.10")
vm.run(image, Path(sys.argv[1]), ["talk"], on_line=print, parameters=[sys.argv[2]])
"""


@contextlib.contextmanager
def child(runner: Path, word: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-u", "-c", CHILD, str(runner), word]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        assert p.stdout is not None
        assert p.stdout.readline() == "still there\n"
        yield p
        p.kill()


@pytest.mark.usefixtures("any_image")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_when_we_are_killed_the_guest_is_gone(runner: Path, number: signal.Signals) -> None:
    word = f"x=killed-by-{number.name}-{os.getpid()}"
    temporary = set(os.listdir("/tmp"))
    with child(runner, word) as process:
        assert len(guests(word)) == 2
        process.send_signal(number)
        process.wait(60)
    assert gone(word)
    assert not [n for n in set(os.listdir("/tmp")) - temporary if "pageherd" in n]


def test_two_at_once(any_image: Image, runner: Path) -> None:
    with child(runner, f"x=first-{os.getpid()}") as first:
        result = vm.run(any_image, runner, ["lines", "10"])
        assert (result.status, result.lines) == ("done", 10)
        assert first.poll() is None


# --- KVM


def test_kvm_is_used_only_where_it_works(any_image: Image, runner: Path) -> None:
    why_not = vm.kvm_problem(any_image)
    assert vm.choose_accel(any_image) == ("tcg" if why_not else "kvm")
    if why_not:
        pytest.skip(f"no KVM: {why_not}")
    result = vm.run(any_image, runner, ["lines", "3"], accel="kvm")
    assert (result.status, result.accel, result.lines) == ("done", "kvm", 3)


def test_the_answer_about_kvm_is_kept(
    any_image: Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm that may be opened")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []

    def boot(qemu: str, image: Image) -> str:
        asked.append(image)
        return "a guest does not boot under it: for a test"

    monkeypatch.setattr(vm, "_boot_under_kvm", boot)
    assert vm.choose_accel(any_image) == "tcg"
    assert vm.kvm_problem(any_image) == "a guest does not boot under it: for a test"
    assert len(asked) == 1
