"""Wheel stores that are asked over a network: servers that misbehave, and real registries."""

from __future__ import annotations

import base64
import json
import os
import secrets
import ssl
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
import requests
import trustme

from imagegen.errors import WheelError
from imagegen.net import http, registry
from imagegen.wheels import oci
from imagegen.wheels.entry import StoreEntry
from imagegen.wheels.http import HttpStore
from imagegen.wheels.oci import OciStore

pytestmark = pytest.mark.engine  # sockets

NAME = (
    "flash_attn-2.8.3.post2+cu130torch2.11cxx11abitrue.sm80.hdim128.bf16"
    "-cp311-cp311-linux_x86_64.whl"
)
SIDE = f"{NAME}.json"
SECRET = "hunter2"
BASIC = f"Basic {base64.b64encode(f'me:{SECRET}'.encode()).decode()}"


class Handler(BaseHTTPRequestHandler):
    """Keeps files by their decoded paths; ``shop.faults`` are taken first, one for each request."""

    protocol_version = "HTTP/1.1"
    shop: Shop

    def handle_any(self) -> None:
        shop, span = self.shop, self.headers.get("Range", "")
        shop.asked.append(f"{self.command} {self.path} {span}".strip())
        shop.logins.append(self.headers.get("Authorization", ""))
        fault = shop.faults.popleft() if shop.faults else shop.always
        if fault and fault(self):
            self.close_connection = True
            return
        name = (unquote(self.path) if shop.decodes else self.path).rpartition("/")[2]
        if self.command == "PUT":
            shop.files[name] = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(201)
        elif name not in shop.files:
            self.answer(404)
        elif span and shop.ranges:
            body = shop.files[name]
            start = int(span.removeprefix("bytes=").removesuffix("-"))
            where = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.answer(206, body[start:], {"Content-Range": where})
        else:
            self.answer(200, shop.files[name])

    do_GET = do_PUT = do_HEAD = do_POST = handle_any

    def answer(self, code: int, body: bytes = b"", headers: dict[str, str] | None = None) -> bool:
        self.send_response(code)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return True

    def log_message(self, *words: object) -> None:
        pass


Fault = Callable[[Handler], bool]


class Shop:
    """A web server with wheels, and how it misbehaves."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.logins: list[str] = []
        self.faults: deque[Fault | None] = deque()
        self.always: Fault | None = None
        self.ranges = self.decodes = True
        self.open = threading.Event()
        self._http = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Own", (Handler,), {"shop": self, "timeout": 20})
        )
        self._http.daemon_threads = True
        if tls:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.host = f"127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    def __enter__(self) -> Shop:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.open.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def stock(self, wheel: Path) -> StoreEntry:
        entry = StoreEntry.of(wheel)
        self.files |= {NAME: wheel.read_bytes(), SIDE: entry.described().encode()}
        return entry


def answers(code: int, **headers: str) -> Fault:
    return lambda at: at.answer(code, b"", {k.replace("_", "-"): v for k, v in headers.items()})


def cut(at: Handler) -> bool:
    """Half of what was asked for, and the connection is gone."""
    body = at.shop.files[NAME]
    start = int((at.headers.get("Range") or "bytes=0-")[6:-1])
    at.send_response(206 if start else 200)
    at.send_header("Content-Length", str(len(body) - start))
    at.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    at.end_headers()
    at.wfile.write(body[start : start + (len(body) - start) // 2])
    return True


def silent(at: Handler) -> bool:
    at.shop.open.wait(10)
    return True


def drips(at: Handler) -> bool:
    at.send_response(200)
    at.send_header("Content-Length", str(len(at.shop.files[NAME])))
    at.end_headers()
    while not at.shop.open.wait(0.05):
        at.wfile.write(b"x")
        at.wfile.flush()
    return True


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    file = folder / NAME
    file.write_bytes(os.urandom(3_000_000))
    return file


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PAUSES", (0.01, 0.01))


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as made:
        yield made


@pytest.fixture
def store(shop: Shop) -> HttpStore:
    return HttpStore(f"http://{shop.host}/a%20b/")


# --- a web server ---------------------------------------------------------------------------------


def test_put_find_fetch(shop: Shop, store: HttpStore, wheel: Path, here: Path) -> None:
    assert store.find(NAME) is None
    shop.asked.clear()
    entry = store.put(wheel)
    quoted = NAME.replace("+", "%2B")
    puts = [line for line in shop.asked if line.startswith("PUT")]
    assert puts == [f"PUT /a%20b/{quoted}", f"PUT /a%20b/{quoted}.json"]
    assert store.find(NAME) == entry == StoreEntry.of(wheel)
    assert store.fetch(entry, here).read_bytes() == wheel.read_bytes()
    assert [file.name for file in here.iterdir()] == [NAME]


def test_the_same_is_sent_once_and_other_bytes_never(
    shop: Shop, store: HttpStore, wheel: Path
) -> None:
    store.put(wheel)
    shop.asked.clear()
    store.put(wheel)
    wheel.write_bytes(b"another build")
    with pytest.raises(WheelError, match="holds other bytes"):
        store.put(wheel)
    assert not [line for line in shop.asked if line.startswith("PUT")]
    assert store.put(wheel, replace=True) == store.find(NAME)


def test_a_server_that_does_not_decode(
    shop: Shop, store: HttpStore, wheel: Path, here: Path
) -> None:
    entry = shop.stock(wheel)
    shop.decodes = False
    assert store.find(NAME) == entry
    assert entry.is_in(store.fetch(entry, here))


def test_a_web_server_cannot_be_listed(store: HttpStore) -> None:
    with pytest.raises(WheelError, match="cannot be listed"):
        store.entries()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_is_cut_goes_on(
    ranges: bool, shop: Shop, store: HttpStore, wheel: Path, here: Path
) -> None:
    entry = shop.stock(wheel)
    shop.ranges = ranges
    shop.faults.append(cut)
    assert entry.is_in(store.fetch(entry, here))
    assert [line.partition(" bytes=")[2] for line in shop.asked] == ["", "1500000-"]


def test_a_download_that_is_always_cut_ends_and_leaves_nothing(
    shop: Shop, store: HttpStore, wheel: Path, here: Path
) -> None:
    entry = shop.stock(wheel)
    shop.always = cut
    with pytest.raises(WheelError, match=r"connection was cut after 2,[\d,]+ of 3,000,000 bytes"):
        store.fetch(entry, here)
    assert len(shop.asked) <= 6
    assert not list(here.iterdir())


def test_a_download_that_starts_over_and_over_ends(
    shop: Shop, store: HttpStore, wheel: Path, here: Path
) -> None:
    """A cut that brings a megabyte is progress once, and none when it brings the same again."""
    entry = shop.stock(wheel)

    def same_half(at: Handler) -> bool:
        del at.headers["Range"]
        return cut(at)

    shop.always = same_half
    with pytest.raises(WheelError, match="was cut after 1,500,000 of 3,000,000 bytes"):
        store.fetch(entry, here)
    assert len(shop.asked) == 3


def test_wrong_bytes_are_not_kept(shop: Shop, store: HttpStore, wheel: Path, here: Path) -> None:
    entry = shop.stock(wheel)
    for body in (b"x" * entry.size, b"x" * (entry.size + 1)):
        shop.files[NAME] = body
        with pytest.raises(WheelError, match=r"(not what it should be|sends more than)"):
            store.fetch(entry, here)
        assert not list(here.iterdir())


def test_an_interrupted_download_is_taken_up(
    shop: Shop, store: HttpStore, wheel: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = shop.stock(wheel)

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(http, "TELL", 0.0)
        patch.setattr(http.log, "info", stop)
        store.fetch(entry, here)
    (part,) = here.iterdir()
    have = part.stat().st_size
    assert 0 < have < entry.size
    assert entry.is_in(store.fetch(entry, here))
    assert shop.asked[-1].endswith(f"bytes={have}-")
    assert [file.name for file in here.iterdir()] == [NAME]


def test_only_a_404_means_not_there(shop: Shop, store: HttpStore, wheel: Path) -> None:
    entry = shop.stock(wheel)
    for code in (204, 400, 401, 403, 410, 418, 500, 503):
        shop.always = answers(code)
        with pytest.raises(WheelError, match=f"HTTP {code}"):
            store.find(NAME)
    shop.always = answers(404)
    assert store.find(NAME) is None
    with pytest.raises(WheelError, match="but not the wheel itself"):
        store.fetch(entry, wheel.parent.parent / "there")


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_what_passes_is_waited_for(code: int, shop: Shop, store: HttpStore, wheel: Path) -> None:
    entry = shop.stock(wheel)
    shop.faults += [answers(code, Retry_After="0")] * 2
    assert store.find(NAME) == entry
    assert len(shop.asked) == 3


def test_a_put_is_tried_again_from_its_start(shop: Shop, store: HttpStore, wheel: Path) -> None:
    def taken_and_lost(at: Handler) -> bool:
        at.rfile.read(int(at.headers["Content-Length"]))
        return at.answer(503)

    shop.faults += [None, None, taken_and_lost]  # two look whether it is there
    assert store.put(wheel) == store.find(NAME)
    assert shop.files[NAME] == wheel.read_bytes()


def test_a_server_may_ask_for_a_minute_and_not_for_more(
    shop: Shop, store: HttpStore, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    entry = shop.stock(wheel)
    shop.faults.append(answers(429, Retry_After="60"))
    assert store.find(NAME) == entry
    shop.faults.append(answers(429, Retry_After="61"))
    with pytest.raises(WheelError, match="asks to come back in 61 s"):
        store.find(NAME)
    assert slept == [60]


def test_silence_has_an_end(
    shop: Shop, store: HttpStore, wheel: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "SILENCE", 0.2)
    entry = shop.stock(wheel)
    shop.always = silent
    for ask in (lambda: store.find(NAME), lambda: store.fetch(entry, here)):
        with pytest.raises(WheelError, match="no byte in time"):
            ask()
    assert not list(here.iterdir())


def test_slowness_has_an_end(
    shop: Shop, store: HttpStore, wheel: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "SLOW", (1000, 0.3))
    entry = shop.stock(wheel)
    shop.always = drips
    start = time.monotonic()
    with pytest.raises(WheelError, match=r"is too slow: \d+ bytes in 0 s"):
        store.fetch(entry, here)
    assert time.monotonic() - start < 5
    assert not list(here.iterdir())


@pytest.mark.parametrize("code", [403, 405])
def test_a_read_only_store(code: int, shop: Shop, store: HttpStore, wheel: Path) -> None:
    def read_only(at: Handler) -> bool:
        return at.command == "PUT" and at.answer(code)

    shop.always = read_only  # it answers before it has read the wheel, as servers do
    with pytest.raises(WheelError, match=f"is read-only: HTTP {code}"):
        store.put(wheel)


def test_an_upload_that_is_sent_elsewhere(shop: Shop, store: HttpStore, wheel: Path) -> None:
    def moved(at: Handler) -> bool:
        to = f"http://me:{SECRET}@x.example/up?sig={SECRET}"
        return at.command == "PUT" and at.answer(302, b"", {"Location": to})

    shop.always = moved
    with pytest.raises(WheelError, match=r"sends uploads on to x\.example/up: HTTP 302") as failed:
        store.put(wheel)
    assert SECRET not in str(failed.value)


def test_a_server_that_takes_everything_and_keeps_nothing(
    shop: Shop, store: HttpStore, wheel: Path
) -> None:
    def forgets(at: Handler) -> bool:
        return at.command == "PUT" and bool(
            at.rfile.read(int(at.headers["Content-Length"])) and at.answer(200)
        )

    shop.always = forgets
    with pytest.raises(WheelError, match="does not have it"):
        store.put(wheel)


def test_a_side_file_that_is_none(shop: Shop, store: HttpStore, wheel: Path) -> None:
    shop.files[SIDE] = b"<!DOCTYPE html>"
    with pytest.raises(WheelError, match="not a description of a wheel"):
        store.find(NAME)
    shop.files[SIDE] = b" " * (http.SMALL + 1)
    with pytest.raises(WheelError, match="sends more than"):
        store.find(NAME)


def test_nobody_there() -> None:
    with pytest.raises(WheelError, match="Connection refused") as failed:
        HttpStore("http://127.0.0.1:9/w").find(NAME)
    assert failed.value.hint


# --- logins and certificates ----------------------------------------------------------------------


def test_no_message_holds_the_login(
    shop: Shop, wheel: Path, here: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    monkeypatch.setattr(http, "SILENCE", 0.2)
    monkeypatch.setattr(http, "SLOW", (1000, 0.2))
    store = HttpStore(f"http://me:{SECRET}@{shop.host}/w")
    entry = shop.stock(wheel)
    other = wheel.with_name("x.whl")
    other.write_bytes(b"x")
    faults = (answers(401), answers(403), answers(500), answers(302, Location="/"), silent)
    said: list[str] = [store.location]
    for fault in (*faults, drips, cut):
        shop.always = fault
        for ask in (
            lambda: store.find(NAME),
            lambda: store.fetch(entry, here),
            lambda: store.put(other),
        ):
            with pytest.raises(WheelError) as failed:
                ask()
            said.append(f"{failed.value} {failed.value.hint}")
    assert logged, "what is tried again is said"
    assert not [words for words in (*said, *logged) if SECRET in words or BASIC[6:] in words]
    assert set(shop.logins) == {BASIC}


def test_the_login_of_netrc(
    shop: Shop, store: HttpStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    store.find(NAME)
    assert set(shop.logins) == {BASIC}


def test_whose_certificate_is_trusted(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    with Shop(tls=context) as shop:
        entry = shop.stock(wheel)
        url = f"https://{shop.host}/w"
        with pytest.raises(WheelError, match="its certificate is not trusted"):
            HttpStore(url).find(NAME)
        assert HttpStore(url, ca=str(tmp_path / "ca.pem")).find(NAME) == entry
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert HttpStore(url).find(NAME) == entry


# --- a full disk ----------------------------------------------------------------------------------


def test_a_disk_that_fills_up_in_a_download(
    shop: Shop, store: HttpStore, wheel: Path, here: Path
) -> None:
    entry = shop.stock(wheel)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(here)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount")
    try:
        words = r"is full: 3,000,000 bytes are needed, 1,0\d\d,\d{3} are free"
        with pytest.raises(WheelError, match=words):
            store.fetch(entry, here)
        assert not list(here.iterdir())
    finally:
        subprocess.run(["umount", here], check=True)


# --- a registry -----------------------------------------------------------------------------------


@pytest.fixture
def repository(open_registry: str) -> str:
    return f"{open_registry}/imagegen-test/wheels-{secrets.token_hex(4)}"


def test_a_registry_holds_wheels(repository: str, wheel: Path, here: Path) -> None:
    store = OciStore(f"oci://{repository}")
    assert store.location == f"oci://{repository}"
    assert store.find(NAME) is None
    assert store.entries() == ()
    entry = store.put(wheel)
    other = wheel.with_name("flash_attn-1-cp311-cp311-linux_x86_64.whl")
    other.write_bytes(b"other")
    second = store.put(other)
    assert entry == StoreEntry.of(wheel) == store.find(NAME)
    assert store.entries() == (second, entry)
    assert entry.is_in(store.fetch(entry, here))


def test_what_a_registry_is_told(repository: str, wheel: Path) -> None:
    entry = OciStore(f"oci://{repository}").put(wheel)
    host, _, path = repository.partition("/")
    url = f"http://{host}/v2/{path}/manifests/{oci.tag(NAME)}"
    row = requests.get(url, headers={"Accept": registry.MANIFEST}, timeout=10).json()
    assert row["artifactType"] == "application/vnd.imagegen.wheel.v1"
    (layer,) = row["layers"]
    assert layer["digest"] == f"sha256:{entry.sha256}"
    assert layer["annotations"] == {"org.opencontainers.image.title": NAME}


def test_a_registry_gets_the_same_once_and_other_bytes_never(
    repository: str, wheel: Path, logged: list[str]
) -> None:
    store = OciStore(f"oci://{repository}")
    first = store.put(wheel)
    store.put(wheel)
    assert logged == [
        f"{NAME} was put into {store.location}",
        f"{NAME} is in {store.location} already",
    ]
    wheel.write_bytes(b"another build")
    with pytest.raises(WheelError, match="holds other bytes"):
        store.put(wheel)
    assert store.find(NAME) == first
    assert store.put(wheel, replace=True) == store.find(NAME) != first


def test_a_registry_goes_on_where_a_fetch_was(repository: str, wheel: Path, here: Path) -> None:
    """The half is damaged, which shows that the registry was asked for the rest only."""
    store = OciStore(f"oci://{repository}")
    entry = store.put(wheel)
    part = here / f".{NAME}.{entry.sha256[:16]}.part"
    part.write_bytes(wheel.read_bytes()[:1_000_000])
    read: list[int] = []
    before = store._in.web._pour  # type: ignore[attr-defined]
    store._in.web._pour = lambda answer, *rest: (  # type: ignore[method-assign]
        read.append(answer.status_code),
        before(answer, *rest),
    )[1]
    assert entry.is_in(store.fetch(entry, here))
    assert read == [206]


def test_two_put_the_same_into_a_registry_at_once(repository: str, wheel: Path) -> None:
    """Many times over: a registry that reads what the other has half written calls it wrong."""
    faults: list[BaseException] = []

    def put(at: OciStore) -> None:
        try:
            at.put(wheel)
        except BaseException as error:
            faults.append(error)

    for number in range(12):
        place = f"oci://{repository}/{number}"
        both = [threading.Thread(target=put, args=(OciStore(place),)) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join(60)
        assert not faults
        assert OciStore(place).entries() == (StoreEntry.of(wheel),)


def test_other_tags_of_a_repository_are_let_be(repository: str, wheel: Path) -> None:
    store = OciStore(f"oci://{repository}")
    entry = store.put(wheel)
    host, _, path = repository.partition("/")
    url = f"http://{host}/v2/{path}/manifests"
    at = {"Accept": registry.MANIFEST}
    row = requests.get(f"{url}/{oci.tag(NAME)}", headers=at, timeout=10).json()
    row["artifactType"] = "application/vnd.example.other"
    for tag in ("latest", f"{'a' * 9}-{'0' * 16}"):
        kind = {"Content-Type": registry.MANIFEST}
        requests.put(f"{url}/{tag}", json.dumps(row), headers=kind, timeout=10).raise_for_status()
    assert store.entries() == (entry,)


def test_a_registry_that_is_down() -> None:
    with pytest.raises(WheelError, match=r"oci://127\.0\.0\.1:9/a/b .*Connection refused"):
        OciStore("oci://127.0.0.1:9/a/b").find(NAME)


def test_a_locked_registry(
    locked_registry: str, wheel: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    address = f"oci://{locked_registry}/imagegen-test/wheels-{secrets.token_hex(4)}"
    for login in ("", "user:wrong", "user:secret"):
        auth = base64.b64encode(login.encode()).decode()
        row = {"auths": {locked_registry: {"auth": auth}} if login else {}}
        (tmp_path / "config.json").write_text(json.dumps(row))
        store = OciStore(address)
        if login != "user:secret":
            with pytest.raises(WheelError, match="refused the login: HTTP 401") as failed:
                store.put(wheel)
            assert "wrong" not in f"{failed.value} {failed.value.hint}"
    entry = store.put(wheel)
    assert entry.is_in(OciStore(address).fetch(entry, here))


def test_a_registry_that_gives_tokens(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in, since the real ones here know passwords only; netrc is not what it gets."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login wrong password wrong\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    row = {"auths": {shop.host: {"auth": BASIC.removeprefix("Basic ")}}}
    (tmp_path / "config.json").write_text(json.dumps(row))
    asks = f'Bearer realm="http://{shop.host}/v2/token",service="s",scope="repository:a:pull,push"'

    def guarded(at: Handler) -> bool:
        if at.path.startswith("/v2/token"):
            good = at.headers["Authorization"] == BASIC
            return at.answer(200 if good else 401, b'{"token": "T1"}' if good else b"")
        if at.headers["Authorization"] == "Bearer T1":
            return at.answer(404)
        return at.answer(401, b"", {"WWW-Authenticate": asks})

    shop.always = guarded
    store = OciStore(f"oci://{shop.host}/a")
    assert store.find(NAME) is None
    assert shop.asked[1] == "GET /v2/token?service=s&scope=repository%3Aa%3Apull%2Cpush"
    assert shop.logins == ["", BASIC, "Bearer T1"]
    assert store.find(NAME) is None
    assert len(shop.asked) == 4  # the token is kept


def test_a_login_goes_to_no_other_server(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: Path
) -> None:
    """The blob is elsewhere, as with registries in front of a cloud's storage."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    row = {"auths": {shop.host: {"auth": BASIC.removeprefix("Basic ")}}}
    (tmp_path / "config.json").write_text(json.dumps(row))
    with Shop() as storage:
        entry = storage.stock(wheel)

        def sends_on(at: Handler) -> bool:
            if at.headers["Authorization"] != BASIC:
                return at.answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
            return at.answer(307, b"", {"Location": f"http://{storage.host}/{NAME}"})

        shop.always = sends_on
        store = OciStore(f"oci://{shop.host}/a")
        assert entry.is_in(store.fetch(entry, tmp_path / "there"))
        assert storage.logins == [""]
        assert BASIC in shop.logins
