"""The guest's first file system: cpio archives, and which kernel modules go into them.

The kernel unpacks any number of archives that stand one after the other.  So what depends only on
the kernel (/init and the modules) is packed once and kept, and each run adds a small archive.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from pageherd.errors import EnvironmentFailed

# What a guest can use, with parameters that keep it small.  Names as in `modinfo`, with `_`.
WANTED: Final[Mapping[str, str]] = {
    "virtio_pci": "",
    "virtio_console": "",
    "virtio_blk": "",
    "lzo": "",  # zram's compressors are asked for by name: no module depends on them
    "lzo_rle": "",
    "lz4": "",
    "zstd": "",
    "zram": "num_devices=1",
    "brd": "rd_nr=1 rd_size=65536",
    "nd_e820": "",  # what memmap= on the command line sets aside is a disk of persistent memory
    "nd_pmem": "",
    "null_blk": "nr_devices=0",
    "nbd": "nbds_max=1",
    "loop": "max_loop=1",
    "fuse": "",
    "vfio_iommu_type1": "",
    "vfio_pci": "",
}

_MAGIC: Final = b"070701"
_FOLDER: Final = 0o040755
_FILE: Final = 0o100644
_PROGRAM: Final = 0o100755
_DEVICE: Final = 0o020600


class Archive:
    """A cpio archive (the format "newc") that is built file by file; folders come by themselves."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._folders: set[str] = set()
        self._number = 0

    def add(self, path: str, data: bytes, *, program: bool = False) -> None:
        """Add a file at an absolute or relative path."""
        self._entry(path, _PROGRAM if program else _FILE, data)

    def add_folder(self, path: str) -> None:
        """Add a folder and those above it."""
        path = path.strip("/")
        if not path or path in self._folders:
            return
        self._folders.add(path)
        self._entry(path, _FOLDER, b"")

    def add_device(self, path: str, major: int, minor: int) -> None:
        """Add a character device."""
        self._entry(path, _DEVICE, b"", major, minor)

    def pack(self) -> bytes:
        """The archive with its end mark, padded so that another one may follow."""
        end = _header("TRAILER!!!", 0, 0, 0)
        packed = b"".join([*self._parts, end])
        return packed + bytes(-len(packed) % 512)

    def _entry(self, path: str, mode: int, data: bytes, major: int = 0, minor: int = 0) -> None:
        path = path.strip("/")
        self.add_folder(path.rpartition("/")[0])
        self._number += 1
        header = _header(path, self._number, mode, len(data), major, minor)
        self._parts += [header, data, bytes(-len(data) % 4)]


def _header(path: str, number: int, mode: int, size: int, major: int = 0, minor: int = 0) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if mode == _FOLDER else 1
    numbers = (number, mode, 0, 0, links, 0, size, 0, 0, major, minor, len(name), 0)
    header = _MAGIC + b"".join(b"%08x" % n for n in numbers) + name
    return header + bytes(-len(header) % 4)


class Module(NamedTuple):
    """A kernel module: its name with `_`, its uncompressed bytes, the modules it needs."""

    name: str
    data: bytes
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Modules:
    """Modules in the order in which they can be loaded, and the wanted ones that are not there."""

    order: tuple[Module, ...] = ()
    builtin: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def find_modules(folder: Path | None, wanted: Iterable[str] = WANTED) -> Modules:
    """The wanted modules below a `lib/modules/RELEASE` folder, each after those that it needs.

    What a module needs is read from the module itself: distributions make `modules.dep` only when
    a kernel is installed.  Without a folder everything is missing: the kernel may still have it
    built in.  Raises `EnvironmentFailed` if a module cannot be read.
    """
    if folder is None:
        return Modules(missing=tuple(wanted))
    found = _Finder(folder)
    for name in wanted:
        found.visit(name)
    return Modules(tuple(found.order), tuple(found.builtin), tuple(found.missing))


@dataclass
class _Finder:
    folder: Path
    order: list[Module] = field(default_factory=list)
    builtin: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.paths = {_name_of(path.name): path for path in sorted(self.folder.rglob("*.ko*"))}
        listed = self.folder / "modules.builtin"
        lines = listed.read_text().split() if listed.is_file() else []
        self.in_kernel = {_name_of(line.rpartition("/")[2]) for line in lines}
        self.seen: set[str] = set()

    def visit(self, name: str) -> None:
        name = name.replace("-", "_")
        if name in self.seen:
            return
        self.seen.add(name)
        path = self.paths.get(name)
        if path is None:
            (self.builtin if name in self.in_kernel else self.missing).append(name)
            return
        data = read_module(path)
        needs = module_needs(data, path)
        for other in needs:
            self.visit(other)
        self.order.append(Module(name, data, needs))


def _name_of(file_name: str) -> str:
    return file_name.partition(".ko")[0].replace("-", "_")


def read_module(path: Path) -> bytes:
    """The uncompressed bytes of a `.ko`, `.ko.xz`, `.ko.gz`, `.ko.bz2` or `.ko.zst` file.

    Raises `EnvironmentFailed` if it is damaged, or compressed in a way that nothing here can undo.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".xz":
            return lzma.decompress(data)
        if path.suffix == ".gz":
            return gzip.decompress(data)
        if path.suffix == ".bz2":
            return bz2.decompress(data)
        return _unzstd(path) if path.suffix == ".zst" else data
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise EnvironmentFailed(f"cannot read the kernel module {path}: {error}") from error


def _unzstd(path: Path) -> bytes:
    program = shutil.which("zstd")
    if program is None:
        raise EnvironmentFailed(
            f"the kernel module {path} is compressed with zstd, and there is no program 'zstd'",
            "install zstd",
        )
    done = subprocess.run(
        [program, "-dcq", "--", str(path)], capture_output=True, check=False, timeout=60
    )
    if done.returncode:
        raise OSError(done.stderr.decode(errors="replace").strip())
    return done.stdout


def module_needs(data: bytes, path: Path) -> tuple[str, ...]:
    """The names of the modules that a module depends on: `depends=` in its section `.modinfo`.

    Raises `EnvironmentFailed` if it is not a 64-bit little-endian ELF file.
    """
    try:
        words = _section(data, b".modinfo").split(b"\0")
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise EnvironmentFailed(f"{path} is not a kernel module") from error
    depends = next((w[8:] for w in words if w.startswith(b"depends=")), b"")
    return tuple(name.replace("-", "_") for name in depends.decode().split(",") if name)


def _section(data: bytes, wanted: bytes) -> bytes:
    """The bytes of one section of an ELF file; none if there is no such section."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", data, table + size * i) for i in range(count)]
    name_table = headers[names][4]
    for name, _, _, _, offset, length in headers:
        begin = name_table + name
        if data[begin : data.index(b"\0", begin)] == wanted:
            return data[offset : offset + length]
    return b""


def pack_base(init: bytes, modules: Modules, parameters: Mapping[str, str] = WANTED) -> bytes:
    """The archive that depends only on the kernel: /init, the modules and their order."""
    archive = Archive()
    for name in ("dev", "proc", "sys", "tmp"):
        archive.add_folder(name)
    archive.add_device("dev/console", 5, 1)
    archive.add("init", init, program=True)
    lines = []
    for module in modules.order:
        path = f"modules/{module.name}.ko"
        archive.add(path, module.data)
        lines.append(f"{module.name} /{path} {parameters.get(module.name, '')}".rstrip() + "\n")
    archive.add("modules.list", "".join(lines).encode())
    return archive.pack()


def pack_run(runner: bytes, arguments: Sequence[str], programs: bytes) -> bytes:
    """The archive of one run: the program to run, its arguments, its standard input."""
    archive = Archive()
    archive.add("runner", runner, program=True)
    archive.add("arguments", b"".join(a.encode() + b"\0" for a in arguments))
    archive.add("programs", programs)
    return archive.pack()
