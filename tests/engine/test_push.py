"""Pushing to real registries: what is there afterwards, and what is there when it fails."""

from __future__ import annotations

import gzip
import json
import subprocess
import threading
import time
from dataclasses import replace

import pytest
import requests
from packaging.version import Version

from imagegen.engine.docker import Docker
from imagegen.errors import RegistryError
from imagegen.model.pushed import Pushed
from imagegen.model.report import Tested
from imagegen.model.target import Target
from imagegen.net.registry import Repository
from imagegen.publish import push as push_
from imagegen.publish import remote, tags
from imagegen.publish.push import PushResult, Upload
from tests.engine.conftest import TinyImage

ACCEPT = {"Accept": "application/vnd.oci.image.manifest.v1+json"}


def publication(engine: Docker, *uploads: Upload, move_back: bool = False) -> PushResult:
    return push_.push(engine, uploads, move_back=move_back)


def push(engine: Docker, tested: Tested, repository: str, *aliases: str) -> Pushed:
    done = publication(engine, Upload(tested=tested, repository=repository, aliases=aliases))
    for error in done.failed.values():
        raise error
    (pushed,) = done.pushed
    return pushed


def read(host: str, repository: str, tag: str) -> requests.Response:
    """Ask the registry itself, past the engine and past imagegen's client."""
    url = f"http://{host}/v2/{repository}/manifests/{tag}"
    return requests.get(url, headers=ACCEPT, timeout=10)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    return f"imagegen-test/{time.monotonic_ns()}"


def tag_of(tested: Tested) -> str:
    return tested.built.image.target.tag


def own_tag(tested: Tested) -> str:
    return f"{tag_of(tested)}-{tested.report.digest.removeprefix('sha256:')[:12]}"


def test_what_is_pushed_is_what_was_tested(
    engine: Docker, open_registry: str, tiny: TinyImage, name: str
) -> None:
    tested = tiny()
    pushed = push(engine, tested, f"{open_registry}/{name}", "latest", "newest")
    assert [ref.rpartition(":")[2] for ref in pushed.refs] == [own_tag(tested), tag_of(tested)]
    assert pushed.aliases == tuple(f"{open_registry}/{name}:{tag}" for tag in ("latest", "newest"))
    for ref in (*pushed.refs, *pushed.aliases):
        answer = read(open_registry, name, ref.rpartition(":")[2])
        assert answer.headers["Docker-Content-Digest"] == tested.report.digest
    layers = read(open_registry, name, tag_of(tested)).json()["layers"]
    assert [row["mediaType"] for row in layers] == ["application/vnd.oci.image.layer.v1.tar+zstd"]
    assert pushed.compressed == sum(row["size"] for row in layers)
    assert pushed.sent
    assert not pushed.moved


def test_layers_may_be_gzip(engine: Docker, open_registry: str, tiny: TinyImage, name: str) -> None:
    tested = tiny(compression="gzip")
    push(engine, tested, f"{open_registry}/{name}")
    (layer,) = read(open_registry, name, tag_of(tested)).json()["layers"]
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    blob = requests.get(f"http://{open_registry}/v2/{name}/blobs/{layer['digest']}", timeout=10)
    assert b"ustar" in gzip.decompress(blob.content)[:512]


def test_what_is_attached_to_an_image_can_be_read_by_anybody(
    engine: Docker, open_registry: str, tiny: TinyImage, name: str
) -> None:
    tested = tiny()
    bill, built = b'{"spdxVersion": "SPDX-2.3"}', b'{"predicateType": "x"}'
    upload = Upload(
        tested=tested, repository=f"{open_registry}/{name}", sbom=bill, provenance=built
    )
    for _ in range(2):  # a second push attaches nothing twice
        assert not publication(engine, upload).failed
        fallback = tested.report.digest.replace(":", "-")
        rows = requests.get(
            f"http://{open_registry}/v2/{name}/manifests/{fallback}",
            headers={"Accept": "application/vnd.oci.image.index.v1+json"},
            timeout=10,
        ).json()["manifests"]
        kinds = {row["artifactType"]: row["digest"] for row in rows}
        assert len(rows) == len(kinds) == 3
    found = {}
    for kind, digest in kinds.items():
        manifest = read(open_registry, name, digest).json()
        assert manifest["subject"]["digest"] == tested.report.digest
        blob = f"http://{open_registry}/v2/{name}/blobs/{manifest['layers'][0]['digest']}"
        found[kind] = requests.get(blob, timeout=10).content
    assert found[remote.SBOM] == bill
    assert found[remote.PROVENANCE] == built
    report = json.loads(found[remote.REPORT])
    assert report["digest"] == tested.report.digest
    assert {row["status"] for row in report["checks"]} == {"pass"}


def test_a_second_push_sends_nothing_and_leaves_no_local_name(
    engine: Docker, open_registry: str, tiny: TinyImage, name: str
) -> None:
    tested = tiny()
    first = push(engine, tested, f"{open_registry}/{name}")
    again = push(engine, tested, f"{open_registry}/{name}")
    assert not again.sent
    assert again.digest == first.digest
    assert not any(engine.local(ref) for ref in first.refs)


def test_a_newer_image_moves_the_tag_and_keeps_the_older_one(
    engine: Docker, open_registry: str, tiny: TinyImage, name: str
) -> None:
    old, new = tiny(), tiny()
    first = push(engine, old, f"{open_registry}/{name}")
    second = push(engine, new, f"{open_registry}/{name}")
    assert second.moved == (tag_of(new),)
    for tag, digest in ((own_tag(old), first.digest), (tag_of(new), second.digest)):
        assert read(open_registry, name, tag).headers["Docker-Content-Digest"] == digest


def of_torch(target: Target, torch: str) -> Target:
    return replace(target, torch=Version(torch))


def test_an_alias_never_goes_back_to_an_older_version(
    engine: Docker, open_registry: str, tiny: TinyImage, name: str
) -> None:
    base = tiny().built.image.target
    newer, older = tiny(target=of_torch(base, "2.10.0")), tiny(target=of_torch(base, "2.9.1"))
    to = f"{open_registry}/{name}"
    push(engine, newer, to, "latest")
    kept = push(engine, older, to, "latest")
    assert kept.aliases == ()
    (why,) = kept.kept
    assert "latest stays: it is torch 2.10.0" in why
    assert "--move-back" in why
    at = read(open_registry, name, "latest").headers["Docker-Content-Digest"]
    assert at == newer.report.digest
    upload = Upload(tested=older, repository=to, aliases=("latest",))
    (back,) = publication(engine, upload, move_back=True).pushed
    assert back.moved == ("latest",)
    at = read(open_registry, name, "latest").headers["Docker-Content-Digest"]
    assert at == older.report.digest


def test_of_several_images_the_newest_is_named_last(
    engine: Docker,
    open_registry: str,
    tiny: TinyImage,
    name: str,
    logged: list[str],
) -> None:
    base = tiny().built.image.target
    ones = [tiny(target=of_torch(base, torch)) for torch in ("2.10.0", "2.8.0", "2.9.1")]
    to = f"{open_registry}/{name}"
    done = publication(
        engine, *(Upload(tested=one, repository=to, aliases=("latest",)) for one in ones)
    )
    assert [str(one.target.torch) for one in done.pushed] == ["2.8.0", "2.9.1", "2.10.0"]
    at = read(open_registry, name, "latest").headers["Docker-Content-Digest"]
    assert at == ones[0].report.digest
    arrived = [i for i, line in enumerate(logged) if line.endswith("as built and tested")]
    names = [i for i, line in enumerate(logged) if " -> sha256:" in line]
    assert max(arrived) < min(names), "all images are there before a name moves"


def test_an_image_of_somebody_else_keeps_its_tag(
    engine: Docker, open_registry: str, tiny: TinyImage, name: str
) -> None:
    tested, foreign = tiny(), tiny(labels={})
    ref = f"{open_registry}/{name}:latest"
    engine.push(foreign.report.digest, f"{open_registry}/{name}", "latest")
    kept = push(engine, tested, f"{open_registry}/{name}", "latest")
    assert "latest stays: it is an image that imagegen has not made" in kept.kept[0]
    assert engine.remote_digest(ref) == foreign.report.digest


def test_what_is_published_is_found_by_its_key(
    engine: Docker, open_registry: str, tiny: TinyImage, name: str
) -> None:
    tested, other = tiny(), tiny()
    repository = Repository(f"{open_registry}/{name}")
    image = tested.built.image
    assert push_.found(repository, image, ()) is None
    engine.push(tested.report.digest, f"{open_registry}/{name}", tag_of(tested))
    assert push_.found(repository, image, ()) is None, "there is no report beside it"
    push(engine, tested, f"{open_registry}/{name}", "latest")
    found = push_.found(repository, image, ("latest",))
    assert found is not None
    assert found.pushed.digest == tested.report.digest
    assert found.pushed.report.checks == tested.report.checks
    assert "already published" in found.pushed.cached
    assert push_.found(repository, other.built.image, ()) is None


def test_what_an_interruption_left_is_finished(
    engine: Docker, open_registry: str, tiny: TinyImage, name: str
) -> None:
    """The target's tag was moved, its alias not: the next push finds the image and moves it."""
    tested = tiny()
    push(engine, tested, f"{open_registry}/{name}")
    found = push_.found(Repository(f"{open_registry}/{name}"), tested.built.image, ("a",))
    assert found is not None
    (done,) = push_.point([found], move_back=False).pushed
    assert done.aliases == (f"{open_registry}/{name}:a",)
    assert read(open_registry, name, "a").headers["Docker-Content-Digest"] == done.digest


def test_a_tag_that_somebody_else_moves_in_between_is_looked_at_again(
    engine: Docker, open_registry: str, tiny: TinyImage, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our look at a tag and our write, a newer version gets there: it stays."""
    base = tiny().built.image.target
    mine, newer = tiny(target=of_torch(base, "2.9.1")), tiny(target=of_torch(base, "2.10.0"))
    to = f"{open_registry}/{name}"
    push(engine, mine, to)
    push(engine, newer, to)
    repository = Repository(to)
    seen, theirs = (remote.see(repository, own_tag(one)) for one in (mine, newer))
    assert seen and theirs
    real, looked = Repository.digest, []

    def digest(self: Repository, tag: str) -> str | None:
        looked.append(tag)
        found = real(self, tag)
        if len(looked) == 1:
            Repository(to).put("latest", theirs.top.body, theirs.top.media_type)
        return found

    monkeypatch.setattr(Repository, "digest", digest)
    age = tags.age(mine.built.image.target)
    moved = tags.move(repository, "latest", seen.top, age, move_back=False)
    assert moved.how == "kept"
    assert len(looked) >= 3
    at = read(open_registry, name, "latest").headers["Docker-Content-Digest"]
    assert at == newer.report.digest


def test_an_older_version_that_is_put_over_ours_is_put_right(
    engine: Docker, open_registry: str, tiny: TinyImage, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another push looked before ours wrote, and writes after: the newer version wins."""
    base = tiny().built.image.target
    older, mine = tiny(target=of_torch(base, "2.9.1")), tiny(target=of_torch(base, "2.10.0"))
    to = f"{open_registry}/{name}"
    push(engine, older, to)
    push(engine, mine, to)
    repository = Repository(to)
    theirs, seen = (remote.see(repository, own_tag(one)) for one in (older, mine))
    assert seen and theirs
    real, wrote = Repository.put, []

    def put(self: Repository, ref: str, body: bytes, media_type: str) -> requests.Response:
        answer = real(self, ref, body, media_type)
        if ref == "latest" and not wrote:
            wrote.append(ref)
            real(self, ref, theirs.top.body, theirs.top.media_type)
        return answer

    monkeypatch.setattr(Repository, "put", put)
    age = tags.age(mine.built.image.target)
    moved = tags.move(repository, "latest", seen.top, age, move_back=False)
    assert wrote
    assert moved.how in ("made", "moved")
    at = read(open_registry, name, "latest").headers["Docker-Content-Digest"]
    assert at == mine.report.digest


def test_one_registry_that_is_down_does_not_keep_another_from_it(
    engine: Docker, open_registry: str, tiny: TinyImage, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_, "PAUSES", ())
    one = tiny()
    there = Upload(tested=one, repository=f"{open_registry}/{name}")
    gone = Upload(tested=one, repository="127.0.0.1:9/nobody/home")
    done = publication(engine, gone, there)
    assert [pushed.repository for pushed in done.pushed] == [there.repository]
    (error,) = done.failed.values()
    assert isinstance(error, RegistryError)
    assert "127.0.0.1:9" in str(error)
    assert error.hint
    assert read(open_registry, name, tag_of(one)).ok


def test_a_registry_that_refuses_the_login(
    engine: Docker, locked_registry: str, tiny: TinyImage
) -> None:
    with pytest.raises(RegistryError, match="refused the login") as failed:
        push(engine, tiny(), f"{locked_registry}/imagegen-test/x")
    assert "docker login" in failed.value.hint


def test_a_registry_that_takes_the_login(
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
    pushed = push(fresh, tested, f"{locked_registry}/imagegen-test/x", "latest")
    fresh.close()
    assert pushed.digest == tested.report.digest
    assert pushed.aliases


def test_a_registry_that_dies_in_the_middle_moves_nothing(
    engine: Docker,
    tiny: TinyImage,
    open_registry: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy in front of the registry that closes for good once some megabytes went through."""
    monkeypatch.setattr(push_, "PAUSES", ())
    tested = tiny(megabytes=40)
    with Cut(open_registry, after=8_000_000) as cut, pytest.raises(RegistryError) as failed:
        push(engine, tested, f"{cut.host}/{name}")
    assert failed.value.hint
    assert cut.was_cut
    for tag in (tag_of(tested), own_tag(tested)):
        assert read(open_registry, name, tag).status_code == 404


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
    engine: Docker, open_registry: str, tiny: TinyImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push gives the image another name for a moment, and must not take its own away."""
    monkeypatch.setattr(push_, "PAUSES", ())
    tested = tiny()
    ref, digest = tested.built.image.ref, tested.built.digest
    push(engine, tested, f"{open_registry}/imagegen-test/stays")
    with pytest.raises(RegistryError):
        push(engine, tested, "127.0.0.1:9/nobody/home")
    assert engine.local(ref).digest == digest  # type: ignore[union-attr]


def test_bytes_that_changed_on_the_way_are_noticed(
    engine: Docker, open_registry: str, tiny: TinyImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested, other = tiny(), tiny()
    real = Docker.push

    def swapped(self: Docker, digest: str, repository: str, tag: str) -> None:
        real(self, other.built.digest, repository, tag)

    monkeypatch.setattr(Docker, "push", swapped)
    repository = f"{open_registry}/imagegen-test/swapped-{time.monotonic_ns()}"
    with pytest.raises(RegistryError, match=r"pushed sha256:.*but the registry holds sha256:"):
        push(engine, tested, repository)
    # the second name, the one that people pull, was never touched
    assert engine.remote_digest(f"{repository}:{tag_of(tested)}") is None
