"""What makes registries fail, tried by itself: a fault that does not happen proves nothing."""

from __future__ import annotations

import email.utils
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from imagegen.build.base import Base
from imagegen.engine.docker import Docker
from imagegen.publish.local_registry import server as packaged
from tests.engine.conftest import NETWORK
from tests.engine.stand_ins.engines import second_engine
from tests.engine.stand_ins.faulty import Asked, Proxy, Rule, Tokens, faulty
from tests.engine.stand_ins.registries import Registry, docker, registry

pytestmark = pytest.mark.engine  # sockets

BODY = bytes(range(256)) * 1000
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture(scope="module")
def real(engine: Docker, local_base: Base) -> Iterator[Registry]:
    with registry(packaged.build(engine, local_base, NETWORK)) as one:
        yield one


@pytest.fixture
def proxy(real: Registry) -> Iterator[Proxy]:
    with faulty(real.host, seed=1) as one:
        yield one


def put(host: str, name: str, body: bytes = BODY, **how: object) -> requests.Response:
    """Send a blob as docker does: ask for a place, then send it all there."""
    begun = requests.post(f"http://{host}/v2/{name}/blobs/uploads/", timeout=30)
    assert begun.headers["Location"].startswith(f"http://{host}/v2/{name}/blobs/uploads/")
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    place = f"{begun.headers['Location']}&digest={digest}"
    return requests.put(place, data=how.get("data", body), timeout=30)


def get(host: str, name: str, digest: str = DIGEST) -> requests.Response:
    return requests.get(f"http://{host}/v2/{name}/blobs/{digest}", timeout=30)


def pieces() -> Iterator[bytes]:
    """The body in chunks, whose number of bytes nobody is told before."""
    for start in range(0, len(BODY), 7000):
        yield BODY[start : start + 7000]


def test_without_a_rule_everything_passes_as_it_is(proxy: Proxy) -> None:
    for name, data in (("clean/whole", BODY), ("clean/chunked", pieces())):
        proxy.asked.clear()
        assert put(proxy.host, name, data=data).status_code == 201
        assert get(proxy.host, name).content == BODY
        assert requests.head(f"http://{proxy.host}/v2/{name}/blobs/{DIGEST}", timeout=9).ok
        assert get(proxy.upstream, name).content == BODY
        assert [status for _, _, status in proxy.asked] == [202, 201, 200, 200]


def test_a_rule_hits_the_requests_that_it_is_about(real: Registry, proxy: Proxy) -> None:
    rule = Rule(method="GET", path="/v2/$", nth=2, times=2, status=500)
    proxy.rules.append(rule)
    url = f"http://{proxy.host}/v2/"
    assert requests.head(url, timeout=9).status_code == 200
    assert [requests.get(url, timeout=9).status_code for _ in range(5)] == [200, 500, 500, 200, 200]
    assert (rule.seen, rule.hits) == (5, 2)

    def statuses(seed: int) -> list[int]:
        with faulty(real.host, seed=seed) as one:
            one.rules.append(Rule(chance=0.5, status=503))
            return [
                requests.get(f"http://{one.host}/v2/", timeout=9).status_code for _ in range(20)
            ]

    assert statuses(7) == statuses(7) != statuses(8)
    assert set(statuses(7)) == {200, 503}


def test_a_429_says_when_to_come_back_by_its_own_clock(proxy: Proxy) -> None:
    proxy.clock = skew = -86_400.0
    proxy.rules.append(Rule(nth=1, times=1, status=429, retry_after=5, as_date=True))
    proxy.rules.append(Rule(nth=2, times=1, status=429, retry_after=5))
    proxy.rules.append(Rule(nth=3, times=1, status=429))
    dated, counted, silent, fine = (
        requests.get(f"http://{proxy.host}/v2/", timeout=9) for _ in range(4)
    )
    says, again, said = (
        email.utils.parsedate_to_datetime(answer.headers[name]).timestamp()
        for answer, name in ((dated, "Date"), (dated, "Retry-After"), (fine, "Date"))
    )
    assert again - says == pytest.approx(5, abs=1)
    assert says - time.time() == pytest.approx(skew, abs=2)
    assert said - time.time() == pytest.approx(skew, abs=2)
    assert counted.headers["Retry-After"] == "5"
    assert "Retry-After" not in silent.headers
    assert fine.status_code == 200


def test_what_is_cut_does_not_arrive(proxy: Proxy) -> None:
    proxy.rules.append(Rule(method="PUT", times=1, cut_request=100_000))
    with pytest.raises(requests.ConnectionError):
        put(proxy.host, "cut")
    assert get(proxy.upstream, "cut").status_code == 404
    assert put(proxy.host, "cut").status_code == 201
    proxy.rules.append(Rule(method="GET", times=1, cut_response=1000))
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        get(proxy.host, "cut")
    assert get(proxy.host, "cut").content == BODY
    assert [rule.hits for rule in proxy.rules] == [1, 1]


def test_late_and_slow(proxy: Proxy) -> None:
    proxy.rules.append(Rule(method="POST", delay=0.3))
    proxy.rules.append(Rule(method="PUT", bandwidth=len(BODY)))
    start = time.monotonic()
    assert put(proxy.host, "slow").status_code == 201
    assert 1.3 <= time.monotonic() - start < 10


def test_a_swallowed_blob_and_a_swallowed_manifest(proxy: Proxy) -> None:
    proxy.rules.append(Rule(method="PUT", times=2, swallow=True))
    said = put(proxy.host, "swallowed")
    assert (said.status_code, said.headers["Docker-Content-Digest"]) == (201, DIGEST)
    url = f"http://{proxy.host}/v2/swallowed/manifests/latest"
    said = requests.put(url, data=b"{}", timeout=9)
    digest = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
    assert (said.status_code, said.headers["Docker-Content-Digest"]) == (201, digest)
    assert get(proxy.host, "swallowed").status_code == 404
    assert requests.get(url, timeout=9).status_code == 404


def test_what_is_done_before_a_request_and_after_its_answer(proxy: Proxy, real: Registry) -> None:
    """A blob that was not there before; taken, and then lost."""
    before: list[int] = []
    lost: list[str] = []

    def lose(asked: Asked) -> None:
        lost.append(asked.digest)
        real.lose(asked.digest)

    proxy.rules.append(
        Rule(method="PUT", before=lambda _: before.append(get(real.host, "lost").status_code))
    )
    proxy.rules.append(Rule(method="PUT", path="/uploads/", times=1, after=lose))
    body = b"lost" * 1000
    assert put(proxy.host, "lost", body).status_code == 201
    assert before == [404]
    assert lost == [f"sha256:{hashlib.sha256(body).hexdigest()}"]
    assert get(proxy.host, "lost", lost[0]).status_code == 404
    assert put(proxy.host, "lost", body).status_code == 201
    assert get(proxy.host, "lost", lost[0]).content == body


def test_a_login_that_expires_after_some_requests(real: Registry) -> None:
    tokens = Tokens("user", "secret", lives=2)
    with faulty(real.host, tokens=tokens) as proxy:
        url = f"http://{proxy.host}/v2/"
        refused = requests.get(url, timeout=9)
        assert refused.status_code == 401
        realm = refused.headers["WWW-Authenticate"].split('"')[1]
        assert requests.get(realm, auth=("user", "secre"), timeout=9).status_code == 401
        assert requests.post(realm, timeout=9).status_code == 405
        token = requests.get(realm, auth=("user", "secret"), timeout=9).json()["token"]
        bearers = ({"Authorization": f"Bearer {word}"} for word in ("", token, token, token))
        answers = [requests.get(url, headers=bearer, timeout=9).status_code for bearer in bearers]
        assert answers == [401, 200, 200, 401]
        assert (tokens.given, tokens.expired) == (1, 1)


def test_a_registry_that_is_killed_is_a_cut_connection(proxy: Proxy, real: Registry) -> None:
    put(proxy.host, "killed")
    real.kill9()
    with pytest.raises(requests.ConnectionError):
        get(proxy.host, "killed")
    real.start()
    assert get(proxy.host, "killed").content == BODY


def test_a_full_disk(engine: Docker, local_base: Base) -> None:
    with registry(packaged.build(engine, local_base, NETWORK), disk=20_000_000) as small:
        small.fill(leave=100_000)
        assert put(small.host, "full").status_code == 500
        small.free()
        assert put(small.host, "full").status_code == 201
        assert get(small.host, "full").content == BODY


def test_an_engine_that_is_killed_goes_on_with_its_images(engine: Docker, tmp_path: Path) -> None:
    """And the first engine's network is what it was."""
    before = routes("docker0")
    with second_engine() as other:
        archive = tmp_path / "layer.tar"
        archive.write_bytes(b"\0" * 10_240)
        host = ("--host", other.host)
        docker(*host, "import", str(archive), "made/here:1")
        assert docker("images", "--quiet", "made/here") == "", "it is the first engine"
        other.kill9()
        assert not other.answers()
        other.start()
        assert "made/here" in docker(*host, "images")
    assert not other.folder.exists()
    assert routes("docker0") == before
    assert not routes(other.bridge)
    assert engine.local("made/here:1") is None


def routes(bridge: str) -> list[str]:
    """This machine's routes over a bridge; other tests have networks of their own meanwhile."""
    rows = Path("/proc/net/route").read_text().splitlines()
    return [row for row in rows if row.startswith(f"{bridge}\t")]
