"""What this machine can run, found out by trying; and for what it cannot, the cure in a line.

No version number is believed: the runner tries every call on the kernel that is running, QEMU is
asked, KVM boots a guest, swap is turned on and off again.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pageherd.cache import user_cache
from pageherd.errors import EnvironmentFailed, PageherdError
from pageherd.machine.jit import compiled_before
from pageherd.real import debian, images, vm
from pageherd.real.compile import SOURCES, compile_static, find_compiler
from pageherd.real.host_swap import in_use, swap_devices
from pageherd.real.results import Probes, read
from pageherd.real.target import row_of

_SECONDS: Final = 30  # that a program which is asked may take
_AS_ROOT: Final = "run as root"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is there or not; without a cure where nothing needs to be done."""

    group: str
    what: str
    ok: bool
    detail: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class _Probe:
    """What a probe of the runner stands for, and what helps if it fails."""

    what: str
    cure: str


_PROBES: Final[Mapping[str, _Probe]] = MappingProxyType(
    {
        "pagemap": _Probe("frame numbers in /proc/PID/pagemap", _AS_ROOT),
        "kpagecount": _Probe("/proc/kpagecount", f"{_AS_ROOT}; CONFIG_PROC_PAGE_MONITOR"),
        "kpageflags": _Probe("/proc/kpageflags", f"{_AS_ROOT}; CONFIG_PROC_PAGE_MONITOR"),
        "pageout": _Probe("MADV_PAGEOUT", "Linux 5.4 or later with CONFIG_SWAP"),
        "populate": _Probe("MADV_POPULATE_READ, MADV_POPULATE_WRITE", "Linux 5.14 or later"),
        "soft-dirty": _Probe("soft-dirty bits", "CONFIG_MEM_SOFT_DIRTY; Debian's kernels have it"),
        "forced-writes": _Probe(
            "forced writes to /proc/PID/mem", "boot with proc_mem.force_override=always"
        ),
        "userfaultfd": _Probe(
            "write protection by userfaultfd", f"{_AS_ROOT}; Linux 5.7 or later, CONFIG_USERFAULTFD"
        ),
        "uffd-wp-bit": _Probe("bit 57 of /proc/PID/pagemap", "Linux 5.14 or later"),
        "tmpfile": _Probe("a file on a disk", "make /var/tmp or /tmp of a file system on a disk"),
        "dax": _Probe("a file on persistent memory", "use a VM, which has some"),
        "uffd-minor": _Probe("UFFDIO_CONTINUE of a memfd", f"{_AS_ROOT}; Linux 5.14"),
        "uffd-rwp": _Probe("tracking of all access by userfaultfd", f"{_AS_ROOT}; Linux 7.3"),
        "guard": _Probe("guard regions", "Linux 6.13 or later"),
        "droppable": _Probe("MAP_DROPPABLE", "Linux 6.11 or later"),
        "memory-failure": _Probe(
            "MADV_HWPOISON, MADV_SOFT_OFFLINE", "use a VM, whose kernel has CONFIG_MEMORY_FAILURE"
        ),
        "hugetlb": _Probe("huge pages of 2 MiB", f"{_AS_ROOT}; CONFIG_HUGETLBFS"),
        "thp-shmem": _Probe(
            "huge pages of a memfd", f"{_AS_ROOT}; CONFIG_TRANSPARENT_HUGEPAGE, debugfs mounted"
        ),
        "pipe": _Probe("vmsplice() into pipes", "raise fs.pipe-user-pages-soft"),
        "io_uring": _Probe("io_uring, registered buffers", "sysctl kernel.io_uring_disabled=0"),
        "nbd": _Probe("O_DIRECT reads held by nbd", f"{_AS_ROOT}; modprobe nbd; or use a VM"),
        "vfio": _Probe("VFIO with a device that copies", "use a VM: QEMU has such a device"),
        "cgroup-reclaim": _Probe("reclaim of a cgroup", f"{_AS_ROOT}; CONFIG_MEMCG"),
    }
)


def examine(*, online: bool = False) -> Iterator[Finding]:
    """Everything that can be told of this machine; `online`: also whether the archive answers."""
    yield from _model()
    yield from _common()
    yield from _vms(online)
    yield from _host()


def can_run(findings: list[Finding]) -> bool:
    """Whether tests can be run on a real kernel: the one that is running, or one in QEMU."""
    ok = {finding.what for finding in findings if finding.ok}
    return "C compiler" in ok and bool(ok & {"runner", "QEMU"})


def _model() -> Iterator[Finding]:
    group, folder = "the model", user_cache()
    place = next(p for p in (folder, *folder.parents) if p.exists())
    writable = os.access(place, os.W_OK)
    detail = str(folder) if writable else f"{folder} cannot be written: everything compiles anew"
    yield Finding(group, "cache", writable, detail, "" if writable else "set XDG_CACHE_HOME")
    compiled = "compiled" if compiled_before() else "compiles at first use, for a few minutes"
    yield Finding(group, "machine", True, compiled)


def _common() -> Iterator[Finding]:
    group = "real kernels"
    try:
        command = find_compiler()
        compile_static(SOURCES / "runner.c")
        compile_static(SOURCES / "init.c")
    except EnvironmentFailed as error:
        yield Finding(group, "C compiler", False, error.message.splitlines()[0], error.cure)
    else:
        yield Finding(group, "C compiler", True, f"{command[0]}, with a static C library")


# -- virtual machines ----------------------------------------------------------------------------


def _vms(online: bool) -> Iterator[Finding]:
    group = "kernels in QEMU"
    try:
        path = vm.find_qemu()
        version = _first_line([path, "--version"])
    except EnvironmentFailed as error:
        yield Finding(group, "QEMU", False, error.message, error.cure)
        path = ""
    else:
        yield Finding(group, "QEMU", True, version or path)
    found = [image for name in images.NAMES if (image := images.cached(name)) is not None]
    if path:
        yield _kvm(group, found)
    yield _keys(group)
    for name in images.NAMES:
        image = next((image for image in found if image.name == name), None)
        detail = f"{image.source}" if image else "not fetched yet"
        cure = "" if image else f"pageherd real --on {name} fetches it"
        yield Finding(group, name, image is not None, detail, cure)
    if online:
        yield _archive(group)


def _kvm(group: str, found: list[images.Image]) -> Finding:
    if not found:
        usable = os.access("/dev/kvm", os.R_OK | os.W_OK)
        detail = "/dev/kvm; tried at the first boot" if usable else "/dev/kvm cannot be used"
        return Finding(group, "KVM", usable, detail)
    problem = vm.kvm_problem(found[0])
    if not problem:
        return Finding(group, "KVM", True, "a guest boots under it")
    cure = "none needed: guests run under TCG, some times slower; boot on hardware for KVM"
    return Finding(group, "KVM", False, problem, cure)


def _keys(group: str) -> Finding:
    lacking = debian.cannot_verify()
    if lacking is None:
        return Finding(group, "Debian's keys", True, "gpgv and the archive's keys")
    return Finding(group, "Debian's keys", False, lacking.message, lacking.cure)


def _archive(group: str) -> Finding:
    suite = debian.suites_of("6.1")[0]
    try:
        count = len(debian.read_index(suite, lambda text: None))
    except PageherdError as error:
        cure = getattr(error, "cure", "")
        return Finding(group, "Debian's archive", False, str(error).splitlines()[0], cure)
    return Finding(group, "Debian's archive", True, f"{suite}: {count} kernel packages, verified")


# -- the kernel that is running ------------------------------------------------------------------


def _host() -> Iterator[Finding]:
    group, release = "this kernel", os.uname().release
    try:
        yield Finding(group, "release", True, f"{release}, judged as {row_of(release)}")
    except PageherdError as error:
        yield Finding(group, "release", False, str(error), "name the rules with --kernel")
    root = os.geteuid() == 0
    detail = "root" if root else "an ordinary user: no frame numbers, no swap"
    yield Finding(group, "rights", root, detail, "" if root else _AS_ROOT)
    try:
        probes = _probe()
    except EnvironmentFailed as error:
        yield Finding(group, "runner", False, error.message.splitlines()[0], error.cure)
        return
    yield Finding(group, "runner", True, "starts and tries everything")
    for name, probe in _PROBES.items():
        if name in probes.have:
            missing = _error(probes, name)
            yield Finding(
                group, probe.what, not missing, missing or "works", probe.cure if missing else ""
            )
    yield from _swap(group)
    yield from _memory(group)


def _probe(given: str = "") -> Probes:
    """What the runner finds on this kernel.

    Raises:
        EnvironmentFailed: it cannot be compiled, or does not run.
    """
    runner = compile_static(SOURCES / "runner.c")
    try:
        done = subprocess.run(
            [runner], input=given, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFailed(f"the runner does not run: {error}") from error
    if done.returncode:
        raise EnvironmentFailed(f"the runner ended with {done.returncode}: {done.stderr.strip()}")
    probes = Probes()
    for _ in read(iter(done.stdout.splitlines()), probes):
        pass
    return probes


def _error(probes: Probes, name: str) -> str:
    """The error in words; "" if there is none."""
    error = probes.have.get(name, errno.ENOSYS)
    return os.strerror(error) if error else ""


def _swap(group: str) -> Iterator[Finding]:
    """Turn each device on and off once."""
    cures = {
        "zram": "modprobe zram, or free one: swapoff /dev/zram0; zramctl --reset /dev/zram0",
        "disk": "put /var/tmp on a file system that can hold a swap file",
    }
    if os.geteuid() != 0:
        yield Finding(group, "swap", False, "only root may turn it on", f"{_AS_ROOT}, or use a VM")
        return
    try:
        with swap_devices(wait=1.0) as devices:
            for kind, cure in cures.items():
                path = devices.paths.get(kind)
                missing = _error(_probe(f"swap {path}\n"), "swap") if path else "none is idle"
                yield Finding(
                    group,
                    f"swap on {kind}",
                    not missing,
                    missing or str(path),
                    cure if missing else "",
                )
    except EnvironmentFailed as error:
        yield Finding(group, "swap", False, error.message, error.cure)
    others = ", ".join(str(path) for path in in_use())
    if others:
        yield Finding(group, "other swap", True, f"{others}; stays on, and is used last")


def _memory(group: str) -> Iterator[Finding]:
    thp = _chosen("/sys/kernel/mm/transparent_hugepage/enabled")
    yield Finding(
        group,
        "transparent huge pages",
        bool(thp),
        thp or "not in this kernel",
        "" if thp else "CONFIG_TRANSPARENT_HUGEPAGE",
    )
    ksm = Path("/sys/kernel/mm/ksm/run").exists()
    yield Finding(
        group, "KSM", ksm, "there" if ksm else "not in this kernel", "" if ksm else "CONFIG_KSM"
    )
    match = re.search(r"^HugePages_Free: +(\d+)", _text("/proc/meminfo"), re.MULTILINE)
    free = int(match[1]) if match else 0
    cure = "" if free else "sysctl vm.nr_hugepages=8"
    yield Finding(group, "huge pages", free > 0, f"{free} free", cure)
    gup = Path("/sys/kernel/debug/gup_test").exists()
    yield Finding(
        group,
        "gup_test",
        gup,
        "there" if gup else "not there",
        "" if gup else "CONFIG_GUP_TEST, debugfs mounted; no test needs it",
    )


def _chosen(path: str) -> str:
    """The word in brackets of a file that offers several."""
    match = re.search(r"\[(\w+)\]", _text(path))
    return match[1] if match else ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _first_line(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.partition("\n")[0].strip()
