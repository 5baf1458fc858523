"""Wheel stores where they are folders, and what all of them share."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from imagegen.errors import UsageError, WheelError
from imagegen.net import http_errors, settings
from imagegen.wheels import download, oci
from imagegen.wheels.download import fetched
from imagegen.wheels.entry import StoreEntry, read
from imagegen.wheels.store import Store, open_store

NAME = (
    "flash_attn-2.8.3.post2+cu130torch2.11cxx11abitrue.sm80.hdim128.bf16"
    "-cp311-cp311-linux_x86_64.whl"
)
OTHER = "flash_attn-2.8.3.post2+cu128torch2.10-cp312-cp312-linux_x86_64.whl"
SECRET = "hunter2"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    file = folder / NAME
    file.write_bytes(os.urandom(300_000))
    return file


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()} - {".lock"}


# --- what an entry can be -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "x", "../x.whl", "a/b.whl", ".x.whl", "x y.whl", "x.whl\n", "x.whl.json", "é.whl"]
)
def test_a_name_that_is_no_wheels_goes_nowhere(name: str, store: Store, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with pytest.raises(WheelError, match="not the file name of a wheel"):
        store.find(name)
    with pytest.raises(ValueError, match="not the file name of a wheel"):
        StoreEntry(name=name, sha256="0" * 64, size=1)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        json.dumps({"name": NAME, "sha256": "0" * 63, "bytes": 1}).encode(),
        json.dumps({"name": NAME, "sha256": "A" * 64, "bytes": 1}).encode(),
        json.dumps({"name": NAME, "sha256": 7, "bytes": 1}).encode(),
        json.dumps({"name": NAME, "sha256": "0" * 64, "bytes": "1"}).encode(),
        json.dumps({"name": NAME, "sha256": "0" * 64, "bytes": True}).encode(),
        json.dumps({"name": NAME, "sha256": "0" * 64, "bytes": 0}).encode(),
        json.dumps({"name": OTHER, "sha256": "0" * 64, "bytes": 1}).encode(),
    ],
)
def test_a_side_file_that_tells_nothing_is_an_error(text: bytes) -> None:
    with pytest.raises(WheelError, match=r"PLACE is (not a description|about another wheel)"):
        read(text, NAME, "PLACE")


def test_a_side_file_tells_what_was_described() -> None:
    entry = StoreEntry(name=NAME, sha256="0" * 64, size=5)
    assert read(entry.described().encode(), NAME, "") == entry
    assert json.loads(entry.described()) == {"name": NAME, "sha256": "0" * 64, "bytes": 5}


# --- where a store can be -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("/a/b", "/a/b"),
        ("file:///a/b%20c", "/a/b c"),
        ("file://localhost/a", "/a"),
        ("https://x.example/w/", "https://x.example/w"),
        (f"https://me:{SECRET}@x.example:8443/w", "https://x.example:8443/w"),
        ("HTTPS://x.example", "https://x.example"),
        ("http://127.0.0.1:80/w", "http://127.0.0.1:80/w"),
        ("oci://x.example:5000/a/b-c", "oci://x.example:5000/a/b-c"),
        ("oci://[::1]:5000/a/", "oci://[::1]:5000/a"),
    ],
)
def test_a_store_is_named_without_its_login(location: str, shown: str) -> None:
    assert open_store(location).location == shown


def test_what_goes_into_images_comes_over_tls() -> None:
    with pytest.raises(UsageError, match="needs https"):
        open_store(f"http://me:{SECRET}@x.example/w")


def test_a_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("./w").location == str(tmp_path / "w")


@pytest.mark.parametrize(
    "location",
    [
        "",
        "wheels",
        "x.example/wheels",
        "ftp://x.example/w",
        "file://other.example/w",
        f"https://me:{SECRET}@x.example/w?sig={SECRET}",
        "https://x.example/w#part",
        "https:///w",
        "http://x.example:99999/w",
        "http://[::1/w",
        "oci://x.example",
        "oci://x.example/a:tag",
        "oci://x.example/A",
        f"oci://me:{SECRET}@x.example/a",
        f"s3://me:{SECRET}@x.example/a",
    ],
)
def test_what_is_no_store_is_refused_without_its_login(location: str) -> None:
    with pytest.raises(UsageError) as refused:
        open_store(location)
    assert SECRET not in f"{refused.value} {refused.value.hint}"


def test_a_missing_ca_bundle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert settings.bundle("") is True
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path))
    assert settings.bundle("") == str(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", __file__)
    assert settings.bundle("") == __file__
    with pytest.raises(UsageError, match=r"none\.pem is not there"):
        open_store("https://x.example/w", ca=str(tmp_path / "none.pem"))


# --- tags -----------------------------------------------------------------------------------------


@given(st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.+!-]{0,180}\.whl\Z"))
def test_every_name_has_a_tag(name: str) -> None:
    assert len(oci.tag(name)) <= 128
    assert oci.TAG.fullmatch(oci.tag(name))


def test_a_tag_can_be_read_and_is_one_names() -> None:
    assert oci.tag(NAME).startswith("flash_attn-2.8.3.post2_cu130torch2.11cxx11abitrue.sm80.hdim")
    assert oci.tag("a+b.whl") != oci.tag("a_b.whl")


# --- a folder -------------------------------------------------------------------------------------


def test_what_is_put_is_found_listed_and_fetched(store: Store, wheel: Path, tmp_path: Path) -> None:
    entry = store.put(wheel)
    assert entry == StoreEntry.of(wheel) == store.find(NAME)
    assert store.entries() == (entry,)
    assert store.find(OTHER) is None
    got = store.fetch(entry, tmp_path / "here")
    assert got == tmp_path / "here" / NAME
    assert got.read_bytes() == wheel.read_bytes()
    assert files(tmp_path / "here") == {NAME}
    assert files(tmp_path / "store") == {NAME, f"{NAME}.json"}


def test_a_store_that_is_no_folder_is_no_empty_store(store: Store) -> None:
    for ask in (lambda: store.find(NAME), store.entries):
        with pytest.raises(WheelError, match="is not a folder"):
            ask()


def test_the_same_bytes_are_put_once(
    store: Store, wheel: Path, tmp_path: Path, logged: list[str]
) -> None:
    store.put(wheel)
    before = (tmp_path / "store" / NAME).stat()
    store.put(wheel)
    assert (tmp_path / "store" / NAME).stat().st_ino == before.st_ino
    assert logged == [
        f"{NAME} was put into {store.location}",
        f"{NAME} is in {store.location} already",
    ]


def test_a_name_has_one_content_unless_it_is_replaced(store: Store, wheel: Path) -> None:
    first = store.put(wheel)
    wheel.write_bytes(b"another build")
    with pytest.raises(WheelError, match="holds other bytes") as refused:
        store.put(wheel)
    assert first.sha256 in str(refused.value)
    assert store.find(NAME) == first
    assert store.put(wheel, replace=True) == store.find(NAME) != first


def test_a_broken_entry_is_healed_by_putting_it_again(
    store: Store, wheel: Path, tmp_path: Path
) -> None:
    entry = store.put(wheel)
    (tmp_path / "store" / NAME).write_bytes(b"cut")
    with pytest.raises(WheelError, match="not what it should be"):
        store.fetch(entry, tmp_path / "here")
    assert files(tmp_path / "here") == set()
    store.put(wheel)
    store.fetch(entry, tmp_path / "here")
    (tmp_path / "store" / f"{NAME}.json").write_text("nonsense")
    for ask in (lambda: store.find(NAME), store.entries, lambda: store.put(wheel)):
        with pytest.raises(WheelError, match="not a description of a wheel"):
            ask()
    store.put(wheel, replace=True)
    assert store.find(NAME) == entry


def test_without_its_side_file_a_wheel_is_not_there(
    store: Store, wheel: Path, tmp_path: Path
) -> None:
    store.put(wheel)
    (tmp_path / "store" / f"{NAME}.json").unlink()
    assert store.find(NAME) is None
    assert store.entries() == ()


def test_a_folder_that_cannot_be_one(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WheelError, match="Not a directory"):
        open_store(str(tmp_path / "file/store")).put(wheel)


def test_a_file_that_is_not_there_cannot_be_put(store: Store, tmp_path: Path) -> None:
    with pytest.raises(WheelError, match="No such file"):
        store.put(tmp_path / NAME)


# --- landing --------------------------------------------------------------------------------------


def test_what_is_there_is_used_again(wheel: Path, tmp_path: Path, logged: list[str]) -> None:
    def never(_: BufferedRandom) -> None:
        pytest.fail("it was fetched again")

    assert fetched(StoreEntry.of(wheel), wheel.parent, never) == wheel
    assert logged == [f"{NAME} is in {wheel.parent} already"]


def test_other_bytes_that_are_there_give_way(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"old")
    entry = StoreEntry.of(wheel)
    fetched(entry, tmp_path, lambda part: part.write(wheel.read_bytes()))  # type: ignore[arg-type, return-value]
    assert entry.is_in(tmp_path / NAME)


def part_of(folder: Path) -> Path:
    (part,) = folder.glob(".*.part")
    return part


@pytest.mark.parametrize("left", ["beginning", "garbage", "too much"])
def test_an_interrupted_fetch_is_taken_up(left: str, wheel: Path, tmp_path: Path) -> None:
    entry, whole, here = StoreEntry.of(wheel), wheel.read_bytes(), tmp_path / "here"
    begun: list[int] = []

    def interrupted(part: BufferedRandom) -> None:
        part.write({"beginning": whole[:9], "garbage": b"?" * 9, "too much": whole * 2}[left])
        raise KeyboardInterrupt

    def rest(part: BufferedRandom) -> None:
        begun.append(part.tell())
        part.write(whole[part.tell() :])

    with pytest.raises(KeyboardInterrupt):
        fetched(entry, here, interrupted)
    assert files(here) == {part_of(here).name}
    fetched(entry, here, rest)
    assert begun == {"beginning": [9], "garbage": [9, 0], "too much": [0]}[left]
    assert files(here) == {NAME}
    assert entry.is_in(here / NAME)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_in_bytes(code: int, wheel: Path, tmp_path: Path) -> None:
    def full(part: BufferedRandom) -> None:
        part.write(b"x" * 70_000)
        raise OSError(code, os.strerror(code))

    with pytest.raises(WheelError, match=r"is full: 300,000 bytes are needed, [\d,]+ are free"):
        fetched(StoreEntry.of(wheel), tmp_path / "here", full)
    assert files(tmp_path / "here") == set()


# --- words ----------------------------------------------------------------------------------------


def test_no_reason_repeats_an_url() -> None:
    url = f"https://me:{SECRET}@x.example/w?sig={SECRET}"
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    kinds = (requests.ConnectionError, requests.Timeout, requests.exceptions.SSLError)
    for kind in (*kinds, requests.exceptions.InvalidURL, requests.TooManyRedirects):
        assert SECRET not in http_errors.reason(kind(f"Max retries exceeded with url: {url}"))
        assert http_errors.reason(kind(url, refused)) == "Connection refused"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("", 0), ("soon", 0), ("-3", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
def test_how_long_to_wait(text: str, seconds: float) -> None:
    response = requests.Response()
    response.headers["Retry-After"] = text
    assert http_errors.retry_after(response) == seconds


# --- processes ------------------------------------------------------------------------------------

PUT = """
import logging, sys; from pathlib import Path; from imagegen.wheels.store import open_store
logging.basicConfig(level=logging.INFO, format="%(message)s")
open_store(sys.argv[1]).put(Path(sys.argv[2]))
"""


def putting(store: Path, wheel: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PUT, store, wheel],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.process
def test_two_processes_put_the_same(wheel: Path, tmp_path: Path) -> None:
    """Both are held at the lock, so that they really meet."""
    with wheel.open("r+b") as file:
        file.truncate(30_000_000)
    folder = tmp_path / "store"
    folder.mkdir()
    with download.locked(folder / ".lock"):
        both = [putting(folder, wheel) for _ in range(2)]
        for one in both:
            assert one.stdout and "waiting" in one.stdout.readline()
    ends = [one.communicate(timeout=60)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], ends
    assert sorted("already" in end for end in ends) == [False, True]
    assert files(folder) == {NAME, f"{NAME}.json"}
    assert open_store(str(folder)).find(NAME) == StoreEntry.of(wheel)


@pytest.mark.process
def test_a_put_that_is_killed_leaves_nothing_that_counts(wheel: Path, tmp_path: Path) -> None:
    with wheel.open("r+b") as file:
        file.truncate(400_000_000)  # sparse here; written there, so that there is a middle
    folder = tmp_path / "store"
    one = putting(folder, wheel)
    while not (folder.is_dir() and any(folder.glob(".*.new"))):
        assert one.poll() is None, one.communicate()[0]
        time.sleep(0.001)
    one.send_signal(signal.SIGKILL)
    one.communicate()
    assert not {NAME, f"{NAME}.json"} & files(folder)
    store = open_store(str(folder))
    assert store.find(NAME) is None
    with wheel.open("r+b") as file:
        file.truncate(300_000)
    store.put(wheel)
    assert files(folder) == {NAME, f"{NAME}.json"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.process
def test_a_disk_that_fills_up_keeps_what_was_whole(
    small_disk: Path, wheel: Path, tmp_path: Path
) -> None:
    big = wheel.with_name(OTHER)
    big.write_bytes(os.urandom(2_000_000))
    full, source = open_store(str(small_disk)), open_store(str(tmp_path / "store"))
    full.put(wheel)
    words = r"is full: 2,000,000 bytes are needed, \d{3},\d{3} are free"
    with pytest.raises(WheelError, match=words):
        full.put(big)
    with pytest.raises(WheelError, match=words):
        source.fetch(source.put(big), small_disk)
    assert files(small_disk) == {NAME, f"{NAME}.json"}
    assert full.entries() == (StoreEntry.of(wheel),)
