"""Kernel images: Debian's, fetched once and kept, or any bzImage of the user's own.

An image is kept in the user's cache as `images/NAME/VERSION/`, complete or not at all, and used
from then on without the network.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pageherd.cache import user_cache
from pageherd.errors import EnvironmentFailed, PageherdError
from pageherd.real import debian
from pageherd.real.debian import Progress, Version

NAMES: Final = ("debian-5.10", "debian-6.1", "debian-6.12", "debian-7.3")
_CACHE_CURE: Final = "make room, or set XDG_CACHE_HOME to a folder that can be written"


class ImageError(PageherdError):
    """A name that stands for no image, or a file that is no kernel."""


@dataclass(frozen=True, slots=True)
class Image:
    """A kernel that can be booted."""

    name: str  # `debian-6.1`, or the path that was given
    release: str  # as `uname -r` will say
    bzimage: Path
    modules: Path | None  # the folder `lib/modules/RELEASE`
    source: str  # package, version and suite; or the path
    sha256: str  # of the bzImage


def find(
    name: str,
    progress: Progress | None = None,
    *,
    modules: Path | None = None,
    refresh: bool = False,
) -> Image:
    """The image of a name (`debian-6.1`), fetched if need be, or of the path of a bzImage.

    One that has been fetched is used again without the network; `refresh` looks whether there is a
    newer one, and says so and goes on if that fails.  `modules` is for a bzImage of one's own: a
    `lib/modules/RELEASE` folder or one above it; without it, one beside the bzImage is taken.

    Raises `ImageError` for a name or file that will not do, `EnvironmentFailed` if it cannot be
    fetched, verified or stored.
    """
    series = re.fullmatch(r"debian-(\d+\.\d+)", name)
    if series and not Path(name).is_file():
        return _find_debian(name, series[1], progress or (lambda text: None), refresh)
    return _find_own(name, modules)


def cached(name: str) -> Image | None:
    """The newest image of this name that the cache has, without any fetching."""
    try:
        folders = [f for f in (_folder() / name).iterdir() if (f / "image.json").is_file()]
    except OSError:
        return None
    for folder in sorted(folders, key=lambda f: Version(f.name), reverse=True):
        with contextlib.suppress(OSError, ValueError, KeyError):
            known = json.loads((folder / "image.json").read_text())
            bzimage = folder / "vmlinuz"
            if _sha256(bzimage) == known["sha256"]:
                return Image(
                    name=name,
                    release=known["release"],
                    bzimage=bzimage,
                    modules=folder / "modules",
                    source=known["source"],
                    sha256=known["sha256"],
                )
    return None


def _folder() -> Path:
    return user_cache() / "images"


# --- a bzImage of the user's own


def _find_own(name: str, modules: Path | None) -> Image:
    path = Path(name)
    if not path.is_file():
        if os.sep not in name and (not name or not path.exists()):
            raise ImageError(
                f"'{name}' is neither an image nor a file; images are {', '.join(NAMES)},"
                " debian-X.Y for another series, or the path of a bzImage"
            )
        raise ImageError(f"{name}: there is no such file")
    path = path.resolve()
    release = kernel_release(path)
    if modules is not None:
        found = _modules_in(modules, release)
        if found is None:
            raise ImageError(f"{modules}: there are no modules of {release} in this folder")
    else:
        found = _modules_beside(path, release)
    return Image(name, release, path, found, str(path), _sha256(path))


def kernel_release(path: Path) -> str:
    """The release (`uname -r`) that the head of an x86 bzImage tells.

    Raises `ImageError` if the file is no such image.
    """
    try:
        with path.open("rb") as file:
            head = file.read(0x10000)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    if len(head) < 0x300 or head[0x1FE:0x200] != b"\x55\xaa" or head[0x202:0x206] != b"HdrS":
        kind = "an uncompressed kernel (vmlinux)" if head[:4] == b"\x7fELF" else "no Linux kernel"
        raise ImageError(
            f"{path} is {kind}: a bzImage for x86 is needed, arch/x86/boot/bzImage in a build"
        )
    (at,) = struct.unpack_from("<H", head, 0x20E)
    text = head[at + 0x200 :].partition(b"\0")[0].decode(errors="replace") if at else ""
    return text.split()[0] if text.split() else "unknown"


def _modules_in(folder: Path, release: str) -> Path | None:
    """The `lib/modules/RELEASE` folder that this folder is, or holds."""
    for below in ("", release, f"modules/{release}", f"lib/modules/{release}", "modules"):
        candidate = folder / below
        if (candidate / "kernel").is_dir():
            return candidate.resolve()
    return None


def _modules_beside(path: Path, release: str) -> Path | None:
    folder = path.parent
    if folder == Path("/boot"):
        return _modules_in(Path("/lib/modules"), release)
    if (folder / "kernel").is_dir() and folder.name == release:
        return folder  # /lib/modules/RELEASE/vmlinuz
    found = _modules_in(folder / "modules", release) or _modules_in(folder / "lib/modules", release)
    if found is None and folder.name == "boot":
        found = _modules_in(folder.parent / "lib/modules", release)
    return found


# --- Debian's


def _find_debian(name: str, series: str, progress: Progress, refresh: bool) -> Image:
    known = cached(name)
    if known is not None and not refresh:
        return known
    _make_folder(_folder())
    with _only_one(_folder() / f"{name}.lock", name, progress):
        known = cached(name)  # another run may have fetched it meanwhile
        if known is not None and not refresh:
            return known
        try:
            return _fetch(name, series, progress)
        except EnvironmentFailed as error:
            if known is None:
                raise
            progress(f"{name}: cannot look for a newer one ({error.message}): using {known.source}")
            return known


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFailed(
            f"cannot write to the cache {folder}: {error.strerror}", _CACHE_CURE
        ) from error


@contextlib.contextmanager
def _only_one(lock: Path, name: str, progress: Progress) -> Iterator[None]:
    """Whoever comes second waits for the first; a lock of a dead process is none."""
    try:
        file = lock.open("w")
    except OSError as error:
        raise EnvironmentFailed(
            f"cannot write to the cache {lock.parent}: {error.strerror}", _CACHE_CURE
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"{name}: another run is fetching it: waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(name: str, series: str, progress: Progress) -> Image:
    """The newest image of a series, from the archive or, if it is the same, from the cache."""
    kernel = debian.newest(series, progress)
    if kernel is None:
        raise ImageError(
            f"there is no kernel {name} in Debian's suites ({', '.join(debian.suites_of(series))});"
            f" known are {', '.join(NAMES)}"
        )
    final = _folder() / name / kernel.version.text
    known = cached(name)
    if known is not None and known.bzimage.parent == final:
        return known
    with _scratch_folder() as scratch:
        for package in kernel.packages:
            progress(f"{name}: fetching {package.file} ({package.size / 1e6:.0f} MB)")
            deb = scratch / "package.deb"
            with deb.open("wb") as out:
                debian.fetch(kernel.suite, package, out)
            debian.unpack_deb(deb, scratch / "root")
            deb.unlink()
        made = _arrange(scratch, kernel)
        final.parent.mkdir(exist_ok=True)
        shutil.rmtree(final, ignore_errors=True)  # damaged, or it would have been known
        made.replace(final)
    image = cached(name)
    if image is None:
        raise EnvironmentFailed(f"the cache {final} cannot be read back", _CACHE_CURE)
    return image


@contextlib.contextmanager
def _scratch_folder() -> Iterator[Path]:
    """A folder in the cache that is gone at the end, and errors of the disk made clear."""
    try:
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=_folder()) as scratch:
            yield Path(scratch)
    except OSError as error:
        raise EnvironmentFailed(
            f"cannot write to the cache {_folder()}: {error.strerror or error}", _CACHE_CURE
        ) from error


def _arrange(scratch: Path, kernel: debian.Kernel) -> Path:
    """What is kept of the unpacked packages: `vmlinuz`, `modules` and `image.json`."""
    root, made = scratch / "root", scratch / "image"
    made.mkdir()
    vmlinuz = next((p for p in sorted(root.rglob("vmlinuz*")) if p.is_file()), None)
    modules = next((p.parent for p in sorted(root.rglob("kernel")) if _is_modules(p)), None)
    if vmlinuz is None or modules is None:
        raise EnvironmentFailed(f"{kernel.source} has no kernel or no modules in it")
    release = kernel_release(vmlinuz)
    vmlinuz.replace(made / "vmlinuz")
    modules.replace(made / "modules")
    about = {"release": release, "source": kernel.source, "sha256": _sha256(made / "vmlinuz")}
    (made / "image.json").write_text(json.dumps(about, indent=1) + "\n")
    return made


def _is_modules(folder: Path) -> bool:
    return folder.is_dir() and folder.parent.parent.name == "modules"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
