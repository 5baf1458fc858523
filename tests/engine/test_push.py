"""Pushing to real registries: what is there afterwards, and what is there when it fails."""

from __future__ import annotations

import subprocess
import threading
import time

import pytest
import requests

from imagegen import model, publish
from imagegen.engine import Docker
from imagegen.errors import RegistryError

from .conftest import TinyImage

ACCEPT = {"Accept": "application/vnd.oci.image.manifest.v1+json"}


def push(engine: Docker, tested: model.Tested, repository: str) -> model.Pushed:
    (pushed,) = publish.push(engine, [(tested, repository)], print)
    return pushed


def read(host: str, repository: str, tag: str) -> requests.Response:
    """Ask the registry itself, past the engine and past buildx."""
    url = f"http://{host}/v2/{repository}/manifests/{tag}"
    return requests.get(url, headers=ACCEPT, timeout=10)


def test_what_is_pushed_is_what_was_tested(
    engine: Docker, open_registry: str, tiny: TinyImage
) -> None:
    tested = tiny()
    image = tested.report.built.image
    pushed = push(engine, tested, f"{open_registry}/{image.repository}")
    for ref in pushed.refs:
        answer = read(open_registry, image.repository, ref.rpartition(":")[2])
        assert answer.headers["Docker-Content-Digest"] == tested.report.built.digest
    layers = read(open_registry, image.repository, image.target.tag).json()["layers"]
    assert [row["mediaType"] for row in layers] == ["application/vnd.oci.image.layer.v1.tar+zstd"]
    assert pushed.compressed == sum(row["size"] for row in layers)
    assert pushed.sent
    assert not pushed.moved


def test_a_second_push_sends_nothing_and_leaves_no_local_name(
    engine: Docker, open_registry: str, tiny: TinyImage
) -> None:
    tested = tiny()
    repository = f"{open_registry}/{tested.report.built.image.repository}"
    first = push(engine, tested, repository)
    again = push(engine, tested, repository)
    assert not again.sent
    assert again.digest == first.digest
    assert not any(engine.local(ref) for ref in first.refs)


def test_a_newer_image_moves_the_tag_and_keeps_the_older_one(
    engine: Docker, open_registry: str, tiny: TinyImage
) -> None:
    old, new = tiny(), tiny()
    repository = f"{open_registry}/imagegen-test/moved"
    first = push(engine, old, repository)
    second = push(engine, new, repository)
    assert second.moved == (new.report.built.image.target.tag,)
    assert engine.remote_digest(first.refs[0]) == first.digest
    assert engine.remote_digest(first.refs[1]) == second.digest


def test_a_registry_that_is_down(engine: Docker, tiny: TinyImage) -> None:
    with pytest.raises(RegistryError) as failed:
        push(engine, tiny(), "127.0.0.1:9/nobody/home")
    assert "127.0.0.1:9" in str(failed.value)
    assert failed.value.hint


def test_a_registry_that_refuses_the_login(
    engine: Docker, locked_registry: str, tiny: TinyImage
) -> None:
    with pytest.raises(RegistryError, match="refused the login") as failed:
        push(engine, tiny(), f"{locked_registry}/imagegen-test/x")
    assert failed.value.hint == f"docker login {locked_registry}"


def test_a_registry_that_takes_the_login(
    engine: Docker,
    locked_registry: str,
    tiny: TinyImage,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path_factory.mktemp("docker")))
    login = ["docker", "login", locked_registry, "--username", "user", "--password-stdin"]
    subprocess.run(login, input=b"secret", check=True, capture_output=True)
    fresh = Docker.connect()  # reads the login
    tested = tiny()
    pushed = push(fresh, tested, f"{locked_registry}/imagegen-test/x")
    fresh.close()
    assert pushed.digest == tested.report.built.digest


def test_a_registry_that_dies_in_the_middle_moves_nothing(
    engine: Docker, tiny: TinyImage, open_registry: str
) -> None:
    """A proxy in front of the registry that closes for good once some megabytes went through."""
    tested = tiny(megabytes=40)
    image = tested.report.built.image
    with Cut(open_registry, after=8_000_000) as cut, pytest.raises(RegistryError) as failed:
        push(engine, tested, f"{cut.host}/{image.repository}")
    assert failed.value.hint
    assert cut.was_cut
    own = tested.report.built.digest.removeprefix("sha256:")[:12]
    for tag in (image.target.tag, f"{image.target.tag}-{own}"):
        assert read(open_registry, image.repository, tag).status_code == 404


class Cut:
    """A TCP proxy that stops for ever after ``after`` bytes towards the registry."""

    def __init__(self, target: str, after: int) -> None:
        import socket

        host, _, port = target.rpartition(":")
        self._target, self._left = (host, int(port)), after
        self._server = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.was_cut = False
        self._open: list[socket.socket] = []

    def __enter__(self) -> Cut:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def _close(self) -> None:
        import contextlib
        import socket

        for one in (self._server, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        import contextlib
        import socket

        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(self._target)
                self._open += [client, server]
                for source, sink, counted in ((client, server, True), (server, client, False)):
                    threading.Thread(
                        target=self._copy, args=(source, sink, counted), daemon=True
                    ).start()

    def _copy(self, source: object, sink: object, counted: bool) -> None:
        import contextlib

        with contextlib.suppress(OSError):
            while data := source.recv(65536):  # type: ignore[attr-defined]
                if counted:
                    self._left -= len(data)
                    if self._left < 0:
                        self.was_cut = True
                        self._close()
                        return
                sink.sendall(data)  # type: ignore[attr-defined]
            sink.close()  # type: ignore[attr-defined]


def test_the_image_stays_when_it_is_pushed_or_cannot_be(
    engine: Docker, open_registry: str, tiny: TinyImage
) -> None:
    """A push gives the image another name for a moment, and must not take its own away."""
    tested = tiny()
    ref, digest = tested.report.built.image.ref, tested.report.built.digest
    push(engine, tested, f"{open_registry}/imagegen-test/stays")
    with pytest.raises(RegistryError):
        push(engine, tested, "127.0.0.1:9/nobody/home")
    assert engine.local(ref).digest == digest  # type: ignore[union-attr]


def test_no_name_moves_unless_every_image_is_there(
    engine: Docker, open_registry: str, tiny: TinyImage
) -> None:
    good, other = tiny(), tiny()
    repository = f"{open_registry}/imagegen-test/together"
    with pytest.raises(RegistryError):
        publish.push(engine, [(good, repository), (other, "127.0.0.1:9/nobody/home")], print)
    tag = good.report.built.image.target.tag
    own = good.report.built.digest.removeprefix("sha256:")[:12]
    assert engine.remote_digest(f"{repository}:{tag}-{own}") == good.report.built.digest
    assert engine.remote_digest(f"{repository}:{tag}") is None


def test_bytes_that_changed_on_the_way_are_noticed(
    engine: Docker, open_registry: str, tiny: TinyImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested, other = tiny(), tiny()
    real = Docker.push

    def swapped(self: Docker, digest: str, repository: str, tag: str, say: object) -> None:
        real(self, other.report.built.digest, repository, tag, print)

    monkeypatch.setattr(Docker, "push", swapped)
    repository = f"{open_registry}/imagegen-test/swapped-{time.monotonic_ns()}"
    with pytest.raises(RegistryError, match=r"pushed sha256:.*but the registry holds sha256:"):
        push(engine, tested, repository)
    # the second name, the one that people pull, was never touched
    assert engine.remote_digest(f"{repository}:{tested.report.built.image.target.tag}") is None
