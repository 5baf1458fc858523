"""The bootstrapped base: its sources, and an archive that is the same twice."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import time
from pathlib import Path

import pytest
from packaging.version import Version

from imagegen.build import base
from imagegen.errors import EngineError
from imagegen.model.target import Os

DEBIAN = """\
http://deb.example.com/debian|bookworm|main|Packages
http://deb.example.com/debian|bookworm|main|Translations
http://deb.example.com/debian|bookworm-updates|main|Packages
http://deb.example.com/debian-security|bookworm-security|main|Packages
http://deb.example.com/debian-security|bookworm-security|main|Packages
http://deb.example.com/debian|bookworm-backports|main|Packages
http://other.example.com/repo|stable|main|Packages
"""
UBUNTU = """\
http://archive.example.com/ubuntu|noble|main|Packages
http://archive.example.com/ubuntu|noble|universe|Packages
http://archive.example.com/ubuntu|noble|restricted|DEP-11
http://archive.example.com/ubuntu|noble-updates|main|Packages
http://archive.example.com/ubuntu|noble-updates|universe|Packages
http://security.example.com/ubuntu|noble-security|main|Packages
"""
OS_RELEASE = """\
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
VERSION_ID="12"
VERSION_CODENAME=bookworm

ID=debian
"""
CONFIG = {"Cmd": ["bash"]}


def test_sources_of_debian() -> None:
    assert base.sources("bookworm", DEBIAN) == (
        "deb http://deb.example.com/debian bookworm main",
        "deb http://deb.example.com/debian bookworm-updates main",
        "deb http://deb.example.com/debian-security bookworm-security main",
    )


def test_sources_of_ubuntu_keep_their_components() -> None:
    assert base.sources("noble", UBUNTU) == (
        "deb http://archive.example.com/ubuntu noble main universe",
        "deb http://archive.example.com/ubuntu noble-updates main universe",
        "deb http://security.example.com/ubuntu noble-security main",
    )


@pytest.mark.parametrize(("codename", "text"), [("trixie", DEBIAN), ("noble", ""), ("", UBUNTU)])
def test_a_release_without_a_source_says_what_to_do(codename: str, text: str) -> None:
    with pytest.raises(EngineError, match=f"no source for {codename}") as caught:
        base.sources(codename, text)
    assert "apt-get update" in caught.value.hint


def test_updates_alone_are_no_release() -> None:
    with pytest.raises(EngineError):
        base.sources("noble", "http://archive.example.com/ubuntu|noble-updates|main|Packages")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (OS_RELEASE, ("debian12", "bookworm")),
        ("ID=ubuntu\nVERSION_ID='24.04'\nVERSION_CODENAME=noble\n", ("ubuntu24.04", "noble")),
        ("ID=arch\n", ("arch", "")),
        ("# nothing\n", ("unknown", "")),
    ],
)
def test_which_machine_this_is(text: str, found: tuple[str, str]) -> None:
    assert base.host_os(text) == found


def test_another_distribution_is_not_bootstrapped(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="own apt, and this is") as caught:
        base.bootstrap(Os(distribution="slackware", version=Version("15")), tmp_path)
    assert "--base pull" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


# --- the archive ----------------------------------------------------------------------------------


def rootfs(folder: Path, content: bytes = b"hello\n") -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "rootfs.tar"
    with tarfile.open(file, "w") as tar:
        info = tarfile.TarInfo("etc/motd")
        info.size, info.mtime = len(content), 1_700_000_000
        tar.addfile(info, io.BytesIO(content))
    return file


def archive(folder: Path, content: bytes = b"hello\n", reference: str = "x/base:one") -> str:
    return base.oci_archive(rootfs(folder, content), folder / "oci.tar", CONFIG, reference)


def blobs(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def test_the_same_content_is_the_same_archive_at_another_time_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = archive(tmp_path / "one")
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.5)
    two = archive(tmp_path / "two")
    assert one == two
    assert (tmp_path / "one/oci.tar").read_bytes() == (tmp_path / "two/oci.tar").read_bytes()


def test_another_content_is_another_digest(tmp_path: Path) -> None:
    assert archive(tmp_path / "one") != archive(tmp_path / "two", b"other\n")


def test_another_configuration_is_another_digest(tmp_path: Path) -> None:
    one = archive(tmp_path / "one")
    two = base.oci_archive(rootfs(tmp_path), tmp_path / "oci.tar", {"Cmd": ["sh"]}, "x/base:one")
    assert one != two


def test_the_archive_is_an_oci_image_whose_digests_are_true(tmp_path: Path) -> None:
    digest = archive(tmp_path, b"content\n", "imagegen/base:debian12")
    found = blobs(tmp_path / "oci.tar")
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(found["index.json"])["manifests"]
    assert entry["digest"] == digest
    assert entry["annotations"] == {
        "io.containerd.image.name": "docker.io/imagegen/base:debian12",
        "org.opencontainers.image.ref.name": "debian12",
    }
    for name, blob in found.items():
        if name.startswith("blobs/sha256/"):
            assert name.rpartition("/")[2] == hashlib.sha256(blob).hexdigest()

    def content_of(row: dict[str, object]) -> bytes:
        content = found[f"blobs/sha256/{str(row['digest']).removeprefix('sha256:')}"]
        assert row["size"] == len(content)
        return content

    manifest = json.loads(content_of(entry))
    config = json.loads(content_of(manifest["config"]))
    (layer,) = manifest["layers"]
    plain = gzip.decompress(content_of(layer))
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(plain).hexdigest()}"]
    assert plain == rootfs(tmp_path, b"content\n").read_bytes()
    assert config["config"] == CONFIG


def test_the_digest_of_a_base_is_known_once_it_is_made(tmp_path: Path) -> None:
    os = Os(distribution="debian", version=Version("12"))
    assert base.known_digest(os, tmp_path) == ""
    (tmp_path / "base").mkdir()
    (tmp_path / "base/debian12.json").write_text('{"digest": "sha256:1"}')
    assert base.known_digest(os, tmp_path) == "", "a note without its archive is none"
    with pytest.raises(EngineError, match="there is no base of debian12"):
        base.stored(os, tmp_path)
    (tmp_path / "base/debian12.oci.tar").touch()
    assert base.known_digest(os, tmp_path) == "sha256:1"
    assert base.reference(os) == "imagegen/base:debian12"


def test_a_base_that_is_there_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    """No process may start here: the second bootstrap reads the first one's archive."""
    os = Os(distribution="debian", version=Version("12"))
    monkeypatch.setattr(base, "host_os", lambda _text: ("debian12", "bookworm"))
    made: list[str] = []

    def mmdebstrap(codename: str, file: Path) -> None:
        made.append(codename)
        file.write_bytes(rootfs(tmp_path / "source").read_bytes())

    monkeypatch.setattr(base, "_mmdebstrap", mmdebstrap)
    one = base.bootstrap(os, tmp_path)
    two = base.bootstrap(os, tmp_path)
    assert one == two
    assert made == ["bookworm"]
    assert "--fresh-base" in logged[-1]
    three = base.bootstrap(os, tmp_path, fresh=True)
    assert made == ["bookworm"] * 2
    assert three.digest == one.digest
    assert one.archive.is_file()
    assert base.known_digest(os, tmp_path) == one.digest


def test_a_bootstrap_that_breaks_off_leaves_no_base_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os = Os(distribution="debian", version=Version("12"))
    monkeypatch.setattr(base, "host_os", lambda _text: ("debian12", "bookworm"))

    def broken(*_arguments: object) -> None:
        raise EngineError("mmdebstrap exited 1")

    monkeypatch.setattr(base, "_mmdebstrap", broken)
    with pytest.raises(EngineError):
        base.bootstrap(os, tmp_path)
    assert base.known_digest(os, tmp_path) == ""
    assert [p.name for p in (tmp_path / "base").iterdir()] == ["debian12.lock"]
