"""Archives are what cpio makes of them; modules come after those that they need."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pageherd.errors import EnvironmentFailed
from pageherd.real.initramfs import (
    Archive,
    Modules,
    find_modules,
    module_needs,
    pack_base,
    pack_run,
    read_module,
)

Entry = tuple[int, bytes]


def unpacked(archive: bytes) -> dict[str, Entry]:
    """Mode and bytes of everything in archives that stand one after the other."""
    found: dict[str, Entry] = {}
    at = 0
    while at < len(archive):
        if archive[at] == 0:
            at += 4
            continue
        assert archive[at : at + 6] == b"070701"
        words = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = words[1], words[6], words[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        begin = (at + 110 + name_size + 3) & ~3
        if name != "TRAILER!!!":
            assert name not in found
            found[name] = (mode, archive[begin : begin + size])
        at = (begin + size + 3) & ~3
    return found


def elf(*info: bytes) -> bytes:
    """The smallest object file with a section .modinfo."""
    names = b"\0.modinfo\0.shstrtab\0"
    modinfo = b"\0".join(info) + b"\0"
    body = modinfo + names
    table = 64 + len(body)

    def section(name: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, offset, size, 0, 0, 1, 0)

    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2)
    sections = [
        section(0, 0, 0),
        section(1, 64, len(modinfo)),
        section(10, 64 + len(modinfo), len(names)),
    ]
    return head + body + b"".join(sections)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A modules folder: vfio_pci needs vfio and irqbypass; brd is packed; fuse is built in."""
    folder = tmp_path / "6.1.0-test"
    pci = folder / "kernel/drivers/vfio/pci"
    pci.mkdir(parents=True)
    pci.joinpath("vfio-pci.ko").write_bytes(elf(b"license=GPL", b"depends=vfio,irqbypass"))
    folder.joinpath("kernel/vfio.ko.xz").write_bytes(lzma.compress(elf(b"depends=")))
    folder.joinpath("kernel/irqbypass.ko.gz").write_bytes(gzip.compress(elf(b"depends=vfio")))
    folder.joinpath("kernel/brd.ko.bz2").write_bytes(bz2.compress(elf(b"depends=")))
    folder.joinpath("modules.builtin").write_text("kernel/fs/fuse/fuse.ko\n")
    return folder


def test_folders_files_devices_and_order() -> None:
    archive = Archive()
    archive.add("/a/b/c", b"12345", program=True)
    archive.add("a/b/d", b"")
    archive.add_device("dev/console", 5, 1)
    packed = archive.pack()
    assert len(packed) % 4 == 0
    found = unpacked(packed)
    assert list(found) == ["a", "a/b", "a/b/c", "a/b/d", "dev", "dev/console"]
    assert found["a/b/c"] == (0o100755, b"12345")
    assert found["a/b/d"] == (0o100644, b"")
    assert found["a"][0] == 0o040755
    assert found["dev/console"][0] == 0o020600


@pytest.mark.skipif(not shutil.which("cpio"), reason="no program cpio")
def test_cpio_reads_it(tmp_path: Path) -> None:
    archive = Archive()
    archive.add("x/y", b"some bytes")
    archive.add("z", bytes(4097))
    done = subprocess.run(
        ["cpio", "-idm"], input=archive.pack(), cwd=tmp_path, capture_output=True, check=True
    )
    assert b"error" not in done.stderr
    assert (tmp_path / "x/y").read_bytes() == b"some bytes"
    assert (tmp_path / "z").read_bytes() == bytes(4097)


def test_base_and_run_stand_one_after_the_other() -> None:
    both = pack_base(b"init!", Modules()) + pack_run(b"run!", ["-n", "two words", ""], b"in\n")
    found = unpacked(both)
    assert found["init"] == (0o100755, b"init!")
    assert found["runner"] == (0o100755, b"run!")
    assert found["arguments"][1] == b"-n\0two words\0\0"
    assert found["programs"][1] == b"in\n"
    assert found["modules.list"][1] == b""


def test_modules_come_after_those_that_they_need(release: Path) -> None:
    modules = find_modules(release, ["vfio-pci", "brd", "fuse", "nbd", "vfio"])
    assert [m.name for m in modules.order] == ["vfio", "irqbypass", "vfio_pci", "brd"]
    assert modules.builtin == ("fuse",)
    assert modules.missing == ("nbd",)
    found = unpacked(pack_base(b"", modules, {"brd": "rd_nr=1 rd_size=4"}))
    assert found["modules.list"][1].splitlines() == [
        b"vfio /modules/vfio.ko",
        b"irqbypass /modules/irqbypass.ko",
        b"vfio_pci /modules/vfio_pci.ko",
        b"brd /modules/brd.ko rd_nr=1 rd_size=4",
    ]
    assert found["modules/brd.ko"][1].startswith(b"\x7fELF")


def test_without_a_folder_all_are_missing() -> None:
    assert find_modules(None, ["a", "b"]) == Modules(missing=("a", "b"))


@pytest.mark.parametrize(
    "data",
    [b"", b"no elf", elf(b"depends=")[:70], b"\x7fELF\x02\x01" + b"\xff" * 90],
    ids=["empty", "garbage", "truncated", "wild"],
)
def test_what_is_no_module(data: bytes) -> None:
    with pytest.raises(EnvironmentFailed, match=r"x\.ko is not a kernel module"):
        module_needs(data, Path("x.ko"))


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".xz", lzma.compress), (".gz", gzip.compress), (".bz2", bz2.compress)]
)
def test_a_damaged_module(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"brd.ko{suffix}"
    path.write_bytes(pack(b"x" * 1000)[:20])
    with pytest.raises(EnvironmentFailed, match="cannot read the kernel module"):
        read_module(path)


@pytest.mark.skipif(not shutil.which("zstd"), reason="no program zstd")
def test_zstd(tmp_path: Path) -> None:
    plain = tmp_path / "brd.ko"
    plain.write_bytes(elf(b"depends="))
    subprocess.run(["zstd", "-q", str(plain)], check=True)
    assert read_module(tmp_path / "brd.ko.zst") == plain.read_bytes()
    (tmp_path / "bad.ko.zst").write_bytes(b"nothing like it")
    with pytest.raises(EnvironmentFailed, match="cannot read the kernel module"):
        read_module(tmp_path / "bad.ko.zst")


def test_zstd_without_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brd.ko.zst").write_bytes(b"")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EnvironmentFailed, match=r"no program 'zstd'\n +install zstd"):
        read_module(tmp_path / "brd.ko.zst")
