"""Debian's archive: the newest kernel of a series, verified, fetched and unpacked.

Nothing that is fetched is believed before it is verified: a suite's `InRelease` carries a
signature by Debian's archive keys, and the digest of the index; the index carries the digests of
the packages.  So the mirror and the network need not be trusted, and plain HTTP will do.

A suite whose `Valid-Until` is over is used all the same, and said to be old: that field guards
against a mirror that hides newer packages, which matters to a system that is kept up to date, not
to a kernel of which the exact version is printed; and suites of past releases are not signed anew.

The formats that are read here (a stanza of an index, an `ar` archive, a version) need a few lines
each, fewer than the code to use a library that would have to be installed for them.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.client
import io
import lzma
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import total_ordering
from pathlib import Path
from typing import IO, Final, TypeAlias

from pageherd.errors import EnvironmentFailed

Progress: TypeAlias = Callable[[str], None]

_MIRROR: Final = "http://deb.debian.org"
_MIRROR_VARIABLE: Final = "PAGEHERD_DEBIAN_MIRROR"
_KEYRING_VARIABLE: Final = "PAGEHERD_DEBIAN_KEYRING"
_UNSIGNED_VARIABLE: Final = "PAGEHERD_DEBIAN_UNSIGNED"
_KEYRINGS: Final = Path("/usr/share/keyrings")
_KEY_CURE: Final = (
    "install gpgv and Debian's keys (apt install gpgv debian-archive-keyring), or name a file of"
    f" keys in {_KEYRING_VARIABLE}; {_UNSIGNED_VARIABLE}=1 goes without a signature: then whoever"
    " controls the mirror or the network chooses the kernel that the guest runs"
)
_MIRROR_CURE: Final = f"check the network and *_proxy, or name a mirror in {_MIRROR_VARIABLE}"
_SECONDS: Final = 30  # that a server may say nothing
_ATTEMPTS: Final = 3

# Where the kernels of a series are looked for; all are looked at and the newest one is taken.
_SUITES: Final = {
    "5.10": ("bullseye-security", "bullseye"),
    "6.1": ("bookworm-security", "bookworm"),
    "6.12": ("bookworm-security", "bookworm-backports"),
}
# Where any other series is looked for; the first suite that has it decides.
_OTHER_SUITES: Final = (
    "trixie-backports",
    "bookworm-security",
    "bookworm-backports",
    "trixie-security",
    "trixie",
    "sid",
    "bullseye-security",
)


@dataclass(frozen=True, slots=True)
class Package:
    """One entry of a suite's index."""

    name: str
    version: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """The packages that make up one image."""

    suite: str
    version: Version
    packages: tuple[Package, ...]

    @property
    def source(self) -> str:
        """Package, version and suite, for the reader."""
        return f"{self.packages[0].name} {self.version.text} from {self.suite}"


def suites_of(series: str) -> tuple[str, ...]:
    """Where the kernels of a series are looked for."""
    return _SUITES.get(series, _OTHER_SUITES)


def newest(series: str, progress: Progress) -> Kernel | None:
    """The newest kernel of a series (`6.1`) in the suites; None if there is none.

    Raises `EnvironmentFailed` if a suite cannot be fetched or verified.
    """
    best: Kernel | None = None
    for suite in suites_of(series):
        progress(f"debian-{series}: looking in {suite}")
        for kernel in kernels_in(read_index(suite, progress), suite, series):
            if best is None or best.version < kernel.version:
                best = kernel
        if best is not None and series not in _SUITES:
            break
    return best


def fetch(suite: str, package: Package, out: IO[bytes]) -> None:
    """Write a package to a file.  Raises `EnvironmentFailed` if it is not what was signed."""
    _download(f"{_root(suite)}/{package.file}", out, package.sha256)


def kernels_in(packages: Iterable[Package], suite: str, series: str) -> Iterator[Kernel]:
    """The cloud kernels of a series in an index: one package, or split in image and modules."""
    found = {p.name: p for p in packages}
    pattern = re.compile(rf"linux-image-({re.escape(series)}\.[^-]*(?:-[^-]+)?)-cloud-amd64")
    for name, package in found.items():
        match = pattern.fullmatch(name)
        if match is None:
            continue
        parts = [
            found.get(f"linux-{part}-{match[1]}-cloud-amd64")
            for part in ("binary", "modules", "base")
        ]
        split = tuple(p for p in parts if p is not None and p.version == package.version)
        yield Kernel(suite, Version(package.version), split or (package,))


def read_index(suite: str, progress: Progress) -> list[Package]:
    """The kernels' packages in a suite's index, which is verified from the signature on.

    Raises `EnvironmentFailed`.
    """
    root = f"{_root(suite)}/dists/{suite}"
    release = verified_release(_get(f"{root}/InRelease"), suite, progress)
    path = "main/binary-amd64/Packages.xz"
    digest = _digest_of(release, path)
    if digest is None:
        raise EnvironmentFailed(f"the index of {suite} lists no {path}", _MIRROR_CURE)
    by_hash = f"{root}/main/binary-amd64/by-hash/SHA256/{digest}"
    if "\nAcquire-By-Hash: yes" not in release:
        by_hash = f"{root}/{path}"  # which may change under our hands
    try:
        text = lzma.decompress(_get(by_hash, digest)).decode(errors="replace")
    except lzma.LZMAError as error:
        raise EnvironmentFailed(
            f"the index of {suite} is damaged: {error}", _MIRROR_CURE
        ) from error
    return list(_packages_in(text))


def _packages_in(text: str) -> Iterator[Package]:
    for start in re.finditer(r"^Package: (linux-(?:image|binary|modules|base)-\d.*)$", text, re.M):
        end = text.find("\n\n", start.start())
        entry = dict(
            re.findall(
                r"^([A-Za-z0-9-]+): (.*)$", text[start.start() : end if end > 0 else None], re.M
            )
        )
        with contextlib.suppress(KeyError, ValueError):
            yield Package(
                start[1], entry["Version"], entry["Filename"], int(entry["Size"]), entry["SHA256"]
            )


def _digest_of(release: str, path: str) -> str | None:
    """The SHA256 of a file in the text of a `Release` file."""
    section = release.partition("\nSHA256:")[2]
    match = re.search(rf"^ ([0-9a-f]{{64}}) +\d+ {re.escape(path)}$", section, re.M)
    return match[1] if match else None


def verified_release(signed: bytes, suite: str, progress: Progress) -> str:
    """The text of an `InRelease` file of this suite, if one of Debian's keys signed it.

    Raises `EnvironmentFailed` if not, or if it cannot be told, unless the user allowed that.
    """
    if os.environ.get(_UNSIGNED_VARIABLE) == "1":
        progress(f"{suite}: the signature is not checked, as {_UNSIGNED_VARIABLE} says")
        text = signed.decode(errors="replace")
    else:
        text = _signed_text(signed, suite)
    named = re.findall(r"^(?:Suite|Codename): (\S+)$", text, re.M)
    if suite not in named and not (suite == "sid" and "unstable" in named):
        raise EnvironmentFailed(
            f"the mirror sent the index of {' or '.join(named) or 'nothing'} for {suite}",
            _MIRROR_CURE,
        )
    until = re.search(r"^Valid-Until: (.+)$", text, re.M)
    if (
        until
        and email.utils.mktime_tz(email.utils.parsedate_tz(until[1]) or (0,) * 10) < time.time()
    ):
        progress(f"{suite}: the index was to be renewed by {until[1]}; using it all the same")
    return text


def cannot_verify() -> EnvironmentFailed | None:
    """What to say if Debian's signatures cannot be checked on this machine; None if they can."""
    gpgv = shutil.which("gpgv")
    if gpgv is not None and _keyrings():
        return None
    lacking = "the program gpgv" if gpgv is None else f"the keys {_KEYRINGS}/debian-archive-*"
    return EnvironmentFailed(f"without {lacking} Debian's signature cannot be checked", _KEY_CURE)


def _signed_text(signed: bytes, suite: str) -> str:
    lacking = cannot_verify()
    if lacking is not None:
        raise lacking
    gpgv, keyrings = shutil.which("gpgv") or "gpgv", _keyrings()
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text"
        command = [gpgv, "--homedir", folder, "--status-fd", "1", "--output", str(text)]
        for keyring in keyrings:
            command += ["--keyring", str(keyring)]
        (Path(folder) / "signed").write_bytes(signed)
        done = subprocess.run(
            [*command, str(Path(folder) / "signed")], capture_output=True, check=False, timeout=60
        )
        status = done.stdout.decode(errors="replace")
        # one good signature is enough: suites are signed by the keys of several releases
        if "[GNUPG:] VALIDSIG " not in status or "[GNUPG:] BADSIG " in status:
            said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise EnvironmentFailed(
                f"the index of {suite} is not signed by Debian: {said or 'no signature'}",
                "the download was damaged or tampered with, or the machine's keys are too old"
                f" (apt install debian-archive-keyring); {_MIRROR_CURE}",
            )
        return text.read_text(errors="replace")


def _keyrings() -> list[Path]:
    chosen = os.environ.get(_KEYRING_VARIABLE)
    if chosen:
        return [Path(chosen)] if Path(chosen).is_file() else []
    found = [p for p in sorted(_KEYRINGS.glob("debian-archive-*")) if p.suffix in (".gpg", ".pgp")]
    return [p for p in found if "removed" not in p.name]


def _root(suite: str) -> str:
    mirror = (os.environ.get(_MIRROR_VARIABLE) or _MIRROR).rstrip("/")
    return f"{mirror}/{'debian-security' if suite.endswith('-security') else 'debian'}"


# --- fetching


def _get(url: str, sha256: str | None = None) -> bytes:
    data = io.BytesIO()
    _download(url, data, sha256)
    return data.getvalue()


def _download(url: str, out: IO[bytes], sha256: str | None) -> None:
    """Fetch a file, in several attempts if the connection breaks or the bytes are wrong."""
    why = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(attempt)
        out.seek(0)
        out.truncate()
        try:
            digest = _copy(url, out)
        except urllib.error.HTTPError as error:
            why = f"the server answered {error.code} {error.reason}"
            if error.code < 500:
                break
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
            why = str(getattr(error, "reason", "") or error)
        except ConnectionError as error:
            why = error.strerror or str(error)
        except ValueError as error:  # no URL
            why = str(error)
            break
        else:
            if sha256 is None or digest == sha256:
                return
            why = "what came is not what Debian signed: its SHA256 is wrong"
    raise EnvironmentFailed(f"cannot fetch {url}: {why}", _MIRROR_CURE)


def _copy(url: str, out: IO[bytes]) -> str:
    digest = hashlib.sha256()
    request = urllib.request.Request(url, headers={"User-Agent": "pageherd"})
    opener = urllib.request.build_opener()  # which reads *_proxy
    with opener.open(request, timeout=_SECONDS) as answer:
        for block in iter(lambda: answer.read(1 << 18), b""):
            digest.update(block)
            out.write(block)
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
    return digest.hexdigest()


def unpack_deb(deb: Path, into: Path) -> None:
    """Unpack the files of a Debian package.

    Raises `EnvironmentFailed` if it is damaged or compressed in a way that Python cannot undo.
    """
    into.mkdir(exist_ok=True)
    try:
        with deb.open("rb") as file:
            name = _seek_member(file, "data.tar")
            if name not in ("data.tar", "data.tar.xz", "data.tar.gz", "data.tar.bz2"):
                raise EnvironmentFailed(f"{deb.name}: cannot unpack {name or 'it'}")
            with tarfile.open(fileobj=file, mode="r|*") as tar:
                for member in tar:
                    if member.isdir() or member.isreg():
                        tar.extract(member, into, filter="data")
    except (tarfile.TarError, lzma.LZMAError, EOFError, ValueError) as error:
        raise EnvironmentFailed(f"{deb.name} is damaged: {error}", _MIRROR_CURE) from error


def _seek_member(file: IO[bytes], prefix: str) -> str:
    """Go to the contents of a member of an `ar` archive; its name, "" if there is none."""
    if file.read(8) != b"!<arch>\n":
        raise ValueError("not a Debian package")
    while len(header := file.read(60)) == 60:
        name = header[:16].decode(errors="replace").strip().rstrip("/")
        if name.startswith(prefix):
            return name
        size = int(header[48:58])
        file.seek(size + size % 2, os.SEEK_CUR)
    return ""


@total_ordering
class Version:
    """A Debian version, in the order of Debian policy 5.6.12.

    >>> Version("7.3~rc1-1") < Version("7.3-1") < Version("7.3.4-1~bpo13+1") < Version("7.3.4-1")
    True
    >>> Version("6.12.9-1") < Version("6.12.117-1")
    True
    """

    def __init__(self, text: str) -> None:
        self.text = text
        epoch, colon, rest = text.partition(":")
        upstream, _, revision = (rest if colon else text).rpartition("-")
        if not upstream:
            upstream, revision = revision, "0"
        number = int(epoch) if colon and epoch.isdigit() else 0
        self._key = (number, _order(upstream), _order(revision))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key == other._key

    def __lt__(self, other: Version) -> bool:
        return self._key < other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _order(part: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Alternating text and number; `~` before the end, letters before other characters."""
    pairs = re.findall(r"([^0-9]*)([0-9]*)", part)
    return tuple(
        ((*(-1 if c == "~" else ord(c) + 256 * (not c.isalpha()) for c in text), 0), int(n or 0))
        for text, n in pairs
    )
