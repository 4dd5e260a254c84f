"""Images: an archive on the loopback that looks like Debian's, and whatever can go wrong."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import lzma
import os
import shutil
import struct
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pageherd.errors import EnvironmentFailed
from pageherd.real import debian, images
from pageherd.real.debian import Version
from pageherd.real.images import ImageError, find

OLD = "6.1.9-1"
NEW = "6.1.10-1"
PAST = "Mon, 01 Jan 2024 00:00:00 UTC"


def bzimage(release: str) -> bytes:
    """The head of a bzImage of this release."""
    head = bytearray(0x400)
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x100)
    head[0x300:0x300] = release.encode() + b" (someone@somewhere) #1\0"
    return bytes(head)


def deb(files: dict[str, bytes], kind: str = "xz") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=f"w:{kind}") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    out = b"!<arch>\n"
    for name, content in (
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", b"odd"),
        (f"data.tar.{kind}", data.getvalue()),
    ):
        out += f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    return out


def one_package(release: str) -> dict[str, bytes]:
    return {
        f"boot/vmlinuz-{release}": bzimage(release),
        f"lib/modules/{release}/kernel/drivers/brd.ko": b"a module",
        f"lib/modules/{release}/modules.builtin": b"kernel/fs/fuse/fuse.ko\n",
    }


@dataclass
class Fake:
    """An archive: what it serves, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    entries: dict[str, list[str]] = field(default_factory=dict)
    spoil: Callable[[str, bytes], bytes] = lambda path, data: data

    def add(self, suite: str, name: str, version: str, data: bytes) -> None:
        path = f"pool/{name}_{version}.deb"
        area = "debian-security" if suite.endswith("-security") else "debian"
        self.files[f"/{area}/{path}"] = data
        self.entries.setdefault(suite, []).append(
            f"Package: {name}\nVersion: {version}\nDescription: a kernel\n of some sort\n"
            f"Filename: {path}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        )

    def publish(
        self, suite: str, *, extra: str = "", sign: Callable[[bytes], bytes] = bytes
    ) -> None:
        area = "debian-security" if suite.endswith("-security") else "debian"
        entries = ["Package: linux-doc\nVersion: 6.1\n", *self.entries.get(suite, [])]
        index = lzma.compress("\n".join(entries).encode())
        digest = hashlib.sha256(index).hexdigest()
        root = f"/{area}/dists/{suite}"
        self.files[f"{root}/main/binary-amd64/by-hash/SHA256/{digest}"] = index
        release = (
            f"Origin: Debian\nSuite: oldstable\nCodename: {suite}\nAcquire-By-Hash: yes\n{extra}"
            f"MD5Sum:\n {'0' * 32} 1 main/binary-amd64/Packages.xz\n"
            f"SHA256:\n {digest} {len(index)} main/binary-amd64/Packages.xz\n"
        )
        self.files[f"{root}/InRelease"] = sign(release.encode())

    def debs_asked(self) -> list[str]:
        return [path for path in self.asked if path.endswith(".deb")]


@pytest.fixture
def fake() -> Iterator[Fake]:
    archive = Fake()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = "/" + self.path.partition("://")[2].partition("/")[2]
            path = self.path if self.path.startswith("/") else path
            archive.asked.append(self.path)
            data = archive.files.get(path)
            if data is None:
                self.send_error(404)
                return
            sent = archive.spoil(path, data)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    archive.url = f"http://127.0.0.1:{server.server_port}"
    yield archive
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "PAGEHERD_DEBIAN_KEYRING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return tmp_path / "cache/pageherd/images"


@pytest.fixture
def unsigned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGEHERD_DEBIAN_UNSIGNED", "1")


@pytest.fixture
def mirror(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Two kernels of 6.1 in one suite, an older one in the other; things that are none."""
    monkeypatch.setenv("PAGEHERD_DEBIAN_MIRROR", fake.url + "/")
    for version in (OLD, NEW):
        name = f"linux-image-{version}-cloud-amd64"
        fake.add("bookworm-security", name, version, deb(one_package(f"{version}-cloud-amd64")))
    fake.add("bookworm-security", f"linux-image-{NEW}-cloud-amd64-unsigned", "6.1.99-1", b"x")
    fake.add("bookworm-security", f"linux-image-{NEW}-rt-amd64", "6.1.99-1", b"x")
    fake.add("bookworm-security", "linux-image-6.12.1-cloud-amd64", "6.12.1-1", b"x")
    fake.add("bookworm", "linux-image-6.1.8-cloud-amd64", "6.1.8-1", b"x")
    for suite in ("bookworm-security", "bookworm"):
        fake.publish(suite)
    return fake


@pytest.mark.usefixtures("unsigned")
def test_the_newest_is_fetched_once_and_kept(mirror: Fake, cache: Path) -> None:
    said: list[str] = []
    image = find("debian-6.1", said.append)
    assert image.name == "debian-6.1"
    assert image.release == f"{NEW}-cloud-amd64"
    assert image.bzimage == cache / "debian-6.1" / NEW / "vmlinuz"
    assert image.source == f"linux-image-{NEW}-cloud-amd64 {NEW} from bookworm-security"
    assert image.sha256 == hashlib.sha256(image.bzimage.read_bytes()).hexdigest()
    assert image.modules is not None
    assert (image.modules / "kernel/drivers/brd.ko").read_bytes() == b"a module"
    assert (image.modules / "modules.builtin").is_file()
    assert len(mirror.debs_asked()) == 1
    assert any("signature is not checked" in line for line in said)
    assert any(f"fetching pool/linux-image-{NEW}" in line for line in said)
    assert sorted(p.name for p in cache.iterdir()) == ["debian-6.1", "debian-6.1.lock"]

    mirror.asked.clear()
    assert find("debian-6.1") == image
    assert mirror.asked == []


@pytest.mark.usefixtures("unsigned")
def test_refresh_fetches_what_is_newer_and_only_that(mirror: Fake) -> None:
    first = find("debian-6.1")
    mirror.asked.clear()
    assert find("debian-6.1", refresh=True) == first
    assert mirror.asked
    assert mirror.debs_asked() == []
    data = deb(one_package("6.1.11-cloud-amd64"), "gz")
    mirror.add("bookworm", "linux-image-6.1.11-cloud-amd64", "6.1.11-1", data)
    mirror.publish("bookworm")
    assert find("debian-6.1", refresh=True).release == "6.1.11-cloud-amd64"
    assert images.cached("debian-6.1") == find("debian-6.1")


@pytest.mark.usefixtures("unsigned")
def test_refresh_without_a_network_says_so_and_goes_on(
    mirror: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = find("debian-6.1")
    monkeypatch.setenv("PAGEHERD_DEBIAN_MIRROR", "http://127.0.0.1:9")
    said: list[str] = []
    assert find("debian-6.1", said.append, refresh=True) == first
    assert "cannot look for a newer one" in said[-1]
    assert f"using {first.source}" in said[-1]


@pytest.mark.usefixtures("unsigned")
def test_a_kernel_in_several_packages(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGEHERD_DEBIAN_MIRROR", fake.url)
    release = "7.3.4+deb13-cloud-amd64"
    root = f"usr/lib/modules/{release}"
    for part, files in {
        "image": {},
        "binary": {f"{root}/vmlinuz": bzimage(release)},
        "modules": {f"{root}/kernel/brd.ko.xz": b"packed"},
        "base": {f"{root}/modules.builtin": b"x"},
    }.items():
        fake.add("trixie-backports", f"linux-{part}-{release}", "7.3.4-1~bpo13+1", deb(files))
    fake.publish("trixie-backports")
    image = find("debian-7.3")
    assert image.release == release
    assert image.modules is not None
    assert sorted(p.name for p in image.modules.iterdir()) == ["kernel", "modules.builtin"]
    assert len(fake.debs_asked()) == 3


@pytest.mark.usefixtures("unsigned")
def test_a_proxy_is_used(mirror: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", mirror.url)
    monkeypatch.setenv("PAGEHERD_DEBIAN_MIRROR", "http://mirror.example")
    assert find("debian-6.1").release.startswith("6.1.10")
    assert all(path.startswith("http://mirror.example/") for path in mirror.asked)


@pytest.mark.usefixtures("unsigned")
def test_two_at_once_fetch_once(mirror: Fake) -> None:
    found: list[images.Image] = []
    threads = [threading.Thread(target=lambda: found.append(find("debian-6.1"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(mirror.debs_asked()) == 1


@pytest.mark.usefixtures("unsigned")
def test_a_damaged_cache_is_fetched_again(mirror: Fake) -> None:
    image = find("debian-6.1")
    image.bzimage.write_bytes(bzimage("6.1.666"))
    assert images.cached("debian-6.1") is None
    assert find("debian-6.1") == image
    (image.bzimage.parent / "image.json").write_text("{")
    assert find("debian-6.1") == image
    assert len(mirror.debs_asked()) == 3


@pytest.mark.usefixtures("unsigned")
def test_an_index_that_is_too_old_is_used_and_said(mirror: Fake) -> None:
    mirror.publish("bookworm-security", extra=f"Valid-Until: {PAST}\n")
    said: list[str] = []
    find("debian-6.1", said.append)
    assert any(f"to be renewed by {PAST}" in line for line in said)


@pytest.mark.usefixtures("unsigned")
@pytest.mark.parametrize(
    ("what", "spoil", "message"),
    [
        (".deb", lambda data: data[:-1] + b"!", "its SHA256 is wrong"),
        (".deb", lambda data: data[:100], "IncompleteRead|more expected"),
        ("by-hash", lambda data: data[:-1] + b"!", "its SHA256 is wrong"),
        ("InRelease", lambda data: data.replace(b"bookworm", b"bookwork"), "sent the index of"),
        ("InRelease", lambda data: data.replace(b"SHA256", b"SHA999"), "lists no main/binary"),
        ("InRelease", lambda data: b"\xff" * len(data), "sent the index of nothing"),
    ],
)
def test_what_is_not_as_it_should_be_is_refused(
    mirror: Fake, cache: Path, what: str, spoil: Callable[[bytes], bytes], message: str
) -> None:
    mirror.spoil = lambda path, data: spoil(data) if what in path else data
    with pytest.raises(EnvironmentFailed, match=message):
        find("debian-6.1")
    assert images.cached("debian-6.1") is None
    assert [p.name for p in cache.iterdir()] == ["debian-6.1.lock"]


@pytest.mark.usefixtures("unsigned")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no package", "damaged: not a Debian package"),
        (b"!<arch>\n", "cannot unpack it"),
        (deb(one_package("6.1.10"))[:-200], "damaged"),
        (deb({"usr/share/doc/x": b""}), "no kernel or no modules"),
        (deb({"../../escaped": b"x"}), "damaged"),
        (gzip.compress(b""), "not a Debian package"),
    ],
    ids=["garbage", "empty", "truncated", "no kernel", "a way out", "gzip"],
)
def test_packages_that_will_not_do(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, cache: Path, data: bytes, message: str
) -> None:
    monkeypatch.setenv("PAGEHERD_DEBIAN_MIRROR", fake.url)
    fake.add("bookworm-security", "linux-image-6.1.0-1-cloud-amd64", "6.1.1-1", data)
    for suite in ("bookworm-security", "bookworm"):
        fake.publish(suite)
    with pytest.raises(EnvironmentFailed, match=message):
        find("debian-6.1")
    assert [p.name for p in cache.iterdir()] == ["debian-6.1.lock"]
    assert not (cache.parent / "escaped").exists()


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGEHERD_DEBIAN_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(EnvironmentFailed, match=r"cannot fetch http://127\.0\.0\.1:9/") as caught:
        find("debian-6.1")
    assert "PAGEHERD_DEBIAN_MIRROR" in str(caught.value)


def test_a_mirror_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGEHERD_DEBIAN_MIRROR", "nonsense")
    with pytest.raises(EnvironmentFailed, match=r"cannot fetch nonsense/.*unknown url type"):
        find("debian-6.1")


def test_a_mirror_that_has_no_such_suite(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGEHERD_DEBIAN_MIRROR", fake.url)
    with pytest.raises(EnvironmentFailed, match="the server answered 404"):
        find("debian-6.1")
    assert len(fake.asked) == 1, "asking again is no use"


@pytest.mark.usefixtures("unsigned")
def test_a_series_that_no_suite_has(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGEHERD_DEBIAN_MIRROR", fake.url)
    for suite in debian.suites_of("2.6"):
        fake.publish(suite)
    with pytest.raises(ImageError, match=r"no kernel debian-2\.6 in Debian's suites .*debian-6\.1"):
        find("debian-2.6")


@pytest.mark.usefixtures("unsigned")
def test_a_full_disk(mirror: Fake, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def full(deb: Path, into: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(debian, "unpack_deb", full)
    with pytest.raises(EnvironmentFailed, match=r"No space left on device(.|\n)*XDG_CACHE_HOME"):
        find("debian-6.1")
    assert [p.name for p in cache.iterdir()] == ["debian-6.1.lock"]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(EnvironmentFailed, match=r"cannot write to the cache"):
        find("debian-6.1")


# --- signatures


def test_without_gpgv_it_refuses(mirror: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EnvironmentFailed, match="without the program gpgv") as caught:
        find("debian-6.1")
    assert "apt install gpgv debian-archive-keyring" in str(caught.value)
    assert "PAGEHERD_DEBIAN_UNSIGNED=1" in str(caught.value)


@pytest.mark.skipif(not shutil.which("gpgv"), reason="no program gpgv")
class TestSigned:
    def test_without_keys_it_refuses(self, mirror: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PAGEHERD_DEBIAN_KEYRING", "/nonexistent")
        with pytest.raises(EnvironmentFailed, match="without the keys"):
            find("debian-6.1")

    @pytest.fixture
    def keys(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], bytes]:
        """A key of our own, as if it were Debian's: how to sign with it."""
        if not shutil.which("gpg"):
            pytest.skip("no program gpg to sign with")
        home = tmp_path / "gnupg"
        home.mkdir(mode=0o700)
        gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
        make = [*gpg, "--quick-gen-key", "tester", "ed25519", "sign", "never"]
        if subprocess.run(make, capture_output=True, check=False).returncode:
            pytest.skip("gpg cannot make a key here")
        ring = tmp_path / "ring.gpg"
        subprocess.run([*gpg, "--output", str(ring), "--export"], check=True)
        monkeypatch.setenv("PAGEHERD_DEBIAN_KEYRING", str(ring))

        def sign(data: bytes) -> bytes:
            return subprocess.run(
                [*gpg, "--clearsign"], input=data, capture_output=True, check=True
            ).stdout

        return sign

    def test_a_good_signature(self, mirror: Fake, keys: Callable[[bytes], bytes]) -> None:
        for suite in ("bookworm-security", "bookworm"):
            mirror.publish(suite, sign=keys)
        said: list[str] = []
        assert find("debian-6.1", said.append).release.startswith("6.1.10")
        assert not any("not checked" in line for line in said)

    def test_text_outside_the_signature_does_not_count(
        self, mirror: Fake, keys: Callable[[bytes], bytes]
    ) -> None:
        other = f"SHA256:\n {'0' * 64} 1 main/binary-amd64/Packages.xz\n".encode()
        for suite in ("bookworm-security", "bookworm"):
            mirror.publish(suite, sign=lambda data: other + keys(data) + other)
        assert find("debian-6.1").release.startswith("6.1.10")

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda data: data.replace(b"Origin: Debian", b"Origin: Dubian"),
            lambda data: data.replace(b"-----BEGIN PGP", b"-----BEGIN XYZ"),
            lambda data: b"",
        ],
        ids=["changed", "no signature", "empty"],
    )
    def test_what_is_not_signed_is_refused(
        self,
        mirror: Fake,
        keys: Callable[[bytes], bytes],
        spoil: Callable[[bytes], bytes],
    ) -> None:
        mirror.publish("bookworm-security", sign=lambda data: spoil(keys(data)))
        with pytest.raises(EnvironmentFailed, match="not signed by Debian"):
            find("debian-6.1")
        assert mirror.debs_asked() == []

    def test_a_key_that_is_not_debians(
        self, mirror: Fake, keys: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        debians = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
        if not debians.exists():
            pytest.skip("no keys of Debian")
        monkeypatch.setenv("PAGEHERD_DEBIAN_KEYRING", str(debians))
        mirror.publish("bookworm-security", sign=keys)
        with pytest.raises(EnvironmentFailed, match=r"not signed by Debian: .*No public key"):
            find("debian-6.1")


# --- an image of one's own


def test_a_bzimage_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "bzImage"
    path.write_bytes(bzimage("6.99.0-mine"))
    image = find(str(path))
    assert image.release == "6.99.0-mine"
    assert image.modules is None
    (tmp_path / "modules/6.99.0-mine/kernel").mkdir(parents=True)
    assert find(str(path)).modules == tmp_path / "modules/6.99.0-mine"
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "lib/modules/6.99.0-mine/kernel").mkdir(parents=True)
    assert find(str(path), modules=elsewhere).modules == elsewhere / "lib/modules/6.99.0-mine"
    with pytest.raises(ImageError, match=r"no modules of 6\.99\.0-mine in this folder"):
        find(str(path), modules=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no Linux kernel"),
        (b"garbage" * 1000, "is no Linux kernel"),
        (b"\x7fELF" + bytes(2000), "is an uncompressed kernel"),
        (bzimage("x")[:0x250], "is no Linux kernel"),
    ],
    ids=["empty", "garbage", "vmlinux", "truncated"],
)
def test_a_file_that_is_no_kernel(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message):
        find(str(path))


@pytest.mark.parametrize("name", ["debian-six", "debian", "ubuntu", ""])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(ImageError, match=r"neither an image nor a file.*debian-5\.10"):
        find(name)


def test_a_path_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there is no such file"):
        find(str(tmp_path / "bzImage"))
    with pytest.raises(ImageError, match="there is no such file"):
        find(str(tmp_path))


def test_versions_are_in_debians_order() -> None:
    ordered = [
        "5.10.9-1",
        "5.10.127-1",
        "5.10.127-2~bpo10+1",
        "5.10.127-2",
        "5.10.127-2+b1",
        "6.1~rc3-1~exp1",
        "6.1-1",
        "6.1.0-1",
        "6.1.0-1a",
        "6.1.0-1+b",
        "1:0.1-1",
    ]
    shuffled = ordered[::2] + ordered[1::2]
    assert sorted(shuffled, key=Version) == ordered
    assert Version("6.1") == Version("6.1-0")


@pytest.mark.skipif(not shutil.which("dpkg"), reason="no program dpkg")
def test_versions_are_in_dpkgs_order() -> None:
    some = ["1", "1-1", "1~", "1a", "1+", "1.0", "01", "1-1~", "1-01", "2:1", "0:1-1", "1a1", "1ab"]
    for a in some:
        for b in some:
            less = subprocess.run(["dpkg", "--compare-versions", a, "lt", b], check=False)
            assert (Version(a) < Version(b)) == (less.returncode == 0), (a, b)
