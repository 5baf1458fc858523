"""What registries are asked, and what they tell: keys, referrers, what could be deleted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from imagegen.build import images as planned
from imagegen.build.options import Options
from imagegen.commands import build, published, push, test
from imagegen.engine.docker import Docker
from imagegen.errors import RegistryError, UsageError
from imagegen.matrix.project import Project
from imagegen.model.image import Image
from imagegen.model.report import Asked
from imagegen.net.registry import INDEX, MANIFEST, Descriptor, Repository, digest_of
from imagegen.publish import inspect, prune, remote
from tests.engine.conftest import ROOT
from tests.engine.stand_ins import oci_registry
from tests.engine.stand_ins.oci_registry import Registry
from tests.support.published import put

pytestmark = pytest.mark.engine  # sockets, and no engine

SUBJECT = Descriptor(digest="sha256:" + "5" * 64, size=7, media_type=MANIFEST)


@pytest.fixture(params=[True, False], ids=["referrers", "fallback"])
def registry(request: pytest.FixtureRequest) -> Iterator[Registry]:
    with oci_registry.served(knows_referrers=request.param) as served:
        yield served


@pytest.fixture
def repository(registry: Registry) -> Repository:
    return Repository(f"{registry.host}/me/finetune")


@pytest.fixture(scope="module")
def images(project: Project) -> tuple[Image, ...]:
    """The first targets that stand on published images."""
    ids = [one.id for one in project.resolution.targets if one.os.distribution == "ubuntu"][:20]
    return planned.plan(project, ids, Options())


def never() -> Docker:
    raise AssertionError("no engine is needed for that")


def imagegen(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "imagegen", *words],
        env=os.environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- referrers ------------------------------------------------------------------------------------


def test_what_is_attached_is_found_whichever_way_the_registry_lists_it(
    registry: Registry, repository: Repository
) -> None:
    assert repository.referrers(SUBJECT.digest) == ()
    one = repository.attach(SUBJECT, "application/x+json", b'{"a": 1}', {"made": "today"})
    two = repository.attach(SUBJECT, "application/y+json", b"{}", {})
    found = {referrer.artifact_type: referrer for referrer in repository.referrers(SUBJECT.digest)}
    assert {referrer.digest for referrer in found.values()} == {one.digest, two.digest}
    assert found["application/x+json"].annotations == {"made": "today"}
    assert repository.attached(found["application/x+json"]) == b'{"a": 1}'
    fallback = SUBJECT.digest.replace(":", "-")
    assert (("me/finetune", fallback) in registry.tags) is not registry.knows_referrers


def test_the_same_document_is_attached_once(registry: Registry, repository: Repository) -> None:
    made = {repository.attach(SUBJECT, "application/x+json", b"{}", {}).digest for _ in range(3)}
    assert len(made) == 1
    assert len(repository.referrers(SUBJECT.digest)) == 1


def test_two_who_attach_at_the_same_time_both_stay(
    registry: Registry, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fallback tag has no conditional write: what another wrote over ours is seen."""
    real, wrote = Repository.put, []
    other = Descriptor(digest="sha256:" + "7" * 64, size=1, media_type=MANIFEST)

    def put(self: Repository, ref: str, body: bytes, media_type: str) -> object:
        answer = real(self, ref, body, media_type)
        if ref.startswith("sha256-") and not wrote:
            wrote.append(ref)
            index = json.dumps({"schemaVersion": 2, "manifests": [other.row]}).encode()
            real(self, ref, index, media_type)
        return answer

    monkeypatch.setattr(Repository, "put", put)
    made = repository.attach(SUBJECT, "application/x+json", b"{}", {})
    found = {referrer.digest for referrer in repository.referrers(SUBJECT.digest)}
    assert made.digest in found
    assert (other.digest in found) is bool(wrote)
    assert bool(wrote) is not registry.knows_referrers


@pytest.mark.parametrize("status", [400, 405, 406, 501])
def test_a_registry_without_that_call_may_say_so_in_many_ways(
    registry: Registry, repository: Repository, status: int
) -> None:
    registry.knows_referrers, registry.no_such_call = False, status
    made = repository.attach(SUBJECT, "application/x+json", b"{}", {})
    assert [referrer.digest for referrer in repository.referrers(SUBJECT.digest)] == [made.digest]


def test_a_registry_that_says_that_it_lists_and_does_not_is_seen_through(
    registry: Registry, repository: Repository
) -> None:
    registry.knows_referrers, registry.claims = False, True
    made = repository.attach(SUBJECT, "application/x+json", b"{}", {})
    assert [referrer.digest for referrer in repository.referrers(SUBJECT.digest)] == [made.digest]


def test_an_answer_that_breaks_off_is_asked_for_again(
    registry: Registry, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagegen.net.http.PAUSES", (0.0, 0.0))
    repository.put("x", b'{"schemaVersion": 2}', MANIFEST)
    registry.cut = 1
    assert repository.manifest("x")
    registry.cut = 9
    with pytest.raises(RegistryError, match=r"broke off|was cut"):
        repository.manifest("x")


def test_an_upload_whose_answer_is_lost_is_no_failure(
    registry: Registry, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagegen.net.http.PAUSES", (0.0, 0.0))
    registry.lose_answers = 1
    body = b"some blob"
    repository.send(digest_of(body), lambda: body)
    assert repository.blob(digest_of(body)) == body


def test_words_of_a_refused_login_are_told(registry: Registry, repository: Repository) -> None:
    registry.refuses = "token of \u202e[2K nobody"
    with pytest.raises(RegistryError, match=r"refused the login: HTTP 401 .*token of \?") as failed:
        repository.manifest("x")
    assert "\u202e" not in str(failed.value)


def test_what_a_registry_says_of_its_refusal_is_told(
    registry: Registry, repository: Repository
) -> None:
    with pytest.raises(RegistryError, match=r"HTTP 400 .*\(lacks sha256:"):
        body = json.dumps({"config": {"digest": "sha256:1"}, "layers": []}).encode()
        repository.put("x", body, MANIFEST)


# --- a registry that does not do as it should -----------------------------------------------------


def test_other_bytes_than_the_digest_says_are_refused(
    registry: Registry, repository: Repository
) -> None:
    body = b'{"schemaVersion": 2}'
    repository.put("x", body, MANIFEST)
    digest = digest_of(body)
    registry.manifests["me/finetune", digest] = (MANIFEST, b'{"schemaVersion": 3}')
    with pytest.raises(RegistryError, match=r"serves sha256:.* as sha256:"):
        repository.manifest(digest)
    registry.blobs["me/finetune", digest] = b"{}"
    with pytest.raises(RegistryError, match="serves other bytes"):
        repository.blob(digest)


def test_every_page_of_tags_is_read(registry: Registry, repository: Repository) -> None:
    registry.page = 3
    names = [f"t{i}" for i in range(8)]
    for name in names:
        repository.put(name, b'{"schemaVersion": 2}', MANIFEST)
    assert list(repository.tags()) == names


# --- what is published is left alone --------------------------------------------------------------


def test_what_is_published_is_neither_built_nor_sent_again(
    registry: Registry, repository: Repository, project: Project, images: tuple[Image, ...]
) -> None:
    for image in images:
        put(repository, image)
    registry.asked.clear()
    options = Options(repositories=(repository.name,))
    ids = [image.target.id for image in images]
    done = push.push(project, never, ids, options)
    assert {one.target.id for one in done.pushed} == {*ids}
    assert len(ids) == 20
    assert not done.failed
    assert not any(one.sent for one in done.pushed)
    assert all("already published" in one.cached for one in done.pushed)
    writes = [request for request in registry.asked if request.startswith(("PUT", "POST", "PATCH"))]
    wanted = {tag for tag, id_ in project.aliases.items() if id_ in ids}
    assert {request.rpartition("/")[2] for request in writes} == wanted, (
        "aliases that were not there yet"
    )
    registry.asked.clear()
    push.push(project, never, ids, options)
    assert not [
        request for request in registry.asked if request.startswith(("PUT", "POST", "PATCH"))
    ]


def test_build_and_test_take_what_is_published(
    repository: Repository, project: Project, images: tuple[Image, ...]
) -> None:
    put(repository, images[0])
    options, ids = Options(repositories=(repository.name,)), [images[0].target.id]
    (built,) = build.build(project, never, ids, options)
    assert "already published" in built.cached
    (tested,) = test.test(project, never, ids, options)
    assert tested.report.passed
    assert {check.level for check in tested.report.checks} == {"smoke", "runpod", "vast"}
    (template,) = published.published(project, ids, options)
    assert template.digest == tested.report.digest


@pytest.mark.parametrize(
    "how", ["force", "untested", "another key", "not there", "a layer is lost", "an index"]
)
def test_what_is_not_published_is_made(
    registry: Registry,
    repository: Repository,
    project: Project,
    images: tuple[Image, ...],
    how: str,
) -> None:
    image = images[0]
    if how != "not there":
        key = {"imagegen.key": "0" * 64} if how == "another key" else {}
        other = replace(image, labels={**image.labels, **key})
        digest = put(repository, other, tested=how != "untested")
        held = repository.manifest(digest)
        assert held
        if how == "a layer is lost":
            del registry.blobs["me/finetune", held.row["layers"][0]["digest"]]
        if how == "an index":
            row = {"digest": digest, "platform": remote.PLATFORM, "size": 1}
            index = json.dumps({"schemaVersion": 2, "manifests": [row]}).encode()
            repository.put(image.target.tag, index, INDEX)
    options = Options(repositories=(repository.name,), force=how == "force")
    for command in (build.build, test.test, push.push):
        with pytest.raises(AssertionError, match="no engine is needed"):
            command(project, never, [image.target.id], options)
    if how != "force":
        with pytest.raises(RegistryError, match=r"is not published in .* as it is now"):
            published.published(project, [image.target.id], options)


def test_other_checks_than_those_of_the_report_are_run(
    repository: Repository, project: Project, images: tuple[Image, ...]
) -> None:
    put(repository, images[0], suite="of another version")
    options, ids = Options(repositories=(repository.name,)), [images[0].target.id]
    with pytest.raises(AssertionError, match="no engine is needed"):
        test.test(project, never, ids, options)
    assert not push.push(project, never, ids, options).failed, "it passed when it was pushed"


@pytest.mark.parametrize("more", [{"again": True}, {"asked": Asked(required=frozenset({"gpu"}))}])
def test_who_asks_for_more_than_was_tested_gets_it_tested(
    repository: Repository, project: Project, images: tuple[Image, ...], more: dict[str, Any]
) -> None:
    put(repository, images[0])
    options = Options(repositories=(repository.name,), **more)
    with pytest.raises(AssertionError, match="no engine is needed"):
        push.push(project, never, [images[0].target.id], options)


def test_an_image_that_one_of_two_registries_lacks_is_made(
    project: Project, repository: Repository, images: tuple[Image, ...]
) -> None:
    put(repository, images[0])
    both = (repository.name, f"{repository.name}-other")
    with pytest.raises(AssertionError, match="no engine is needed"):
        push.push(project, never, [images[0].target.id], Options(repositories=both))


def test_a_registry_that_is_down_is_said_before_anything_is_built(
    project: Project, images: tuple[Image, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagegen.net.http.PAUSES", ())
    options = Options(repositories=("127.0.0.1:9/me/x",))
    with pytest.raises(RegistryError, match="9/me/x cannot be used"):
        push.push(project, never, [images[0].target.id], options)


# --- inspect --------------------------------------------------------------------------------------


def test_inspect_tells_what_is_inside_and_what_is_attached(
    repository: Repository, images: tuple[Image, ...]
) -> None:
    image = images[0]
    digest = put(repository, image, ["latest"])
    seen = remote.see(repository, "latest")
    assert seen
    bill = b'{"spdxVersion": "SPDX-2.3", "packages": [{}, {}]}'
    repository.attach(seen.descriptor, remote.SBOM, bill, {})
    repository.attach(seen.descriptor, "application/vnd.example.signature", b"{}", {})
    done = imagegen("inspect", f"{repository.name}:latest")
    assert done.returncode == 0, done.stderr
    target = image.target
    inside = (digest, target.id, f"torch {target.torch}", "driver", image.key)
    beside = ("3 checks passed", "SPDX-2.3, 2 packages", "application/vnd.example.signature")
    for words in (*inside, *beside):
        assert words in done.stdout
    row = json.loads(imagegen("inspect", f"{repository.name}@{digest}", "--format", "json").stdout)
    assert row["passed"] is True
    assert row["target"] == image.target.promise
    assert {attached["kind"] for attached in row["attached"]} >= {"report", "sbom"}
    assert imagegen("inspect", f"{repository.name}:latest", "--show", "sbom").stdout.strip() == (
        bill.decode()
    )


def test_inspect_of_what_is_not_there(repository: Repository) -> None:
    with pytest.raises(RegistryError, match="is not there"):
        inspect.inspect(f"{repository.name}:none")
    for ref in ("finetune", "me/finetune:x", "ghcr.io/me/x:y z"):
        with pytest.raises(UsageError, match="is not an image of a registry"):
            inspect.inspect(ref)


# --- prune ----------------------------------------------------------------------------------------

DAY = 86400.0
MADE = 1767323045.0  # 2026-01-02T03:04:05Z


def versions(repository: Repository, image: Image, count: int) -> list[str]:
    """Images that followed one another under the target's tag."""
    keys = (replace(image, key=f"{i:064x}") for i in range(count))
    return [put(repository, one) for one in keys]


def plan(repository: Repository, days: float = 100, used: tuple[str, ...] = ()) -> dict[str, str]:
    """Why each image stays, by digest."""
    old = prune.plan(repository, now=MADE + days * DAY, older=30, used=used)
    return {one.digest: one.keeps for one in old}


def test_what_nothing_points_to_could_go(repository: Repository, images: tuple[Image, ...]) -> None:
    first, second, third, last = versions(repository, images[0], 4)
    seen = remote.see(repository, second)
    assert seen
    repository.attach(seen.descriptor, "application/vnd.dev.cosign.artifact.sig.v1+json", b"{}", {})
    found = plan(repository, used=(third,))
    assert found[first] == ""
    assert "cosign" in found[second]
    assert found[third] == "a template names it"
    assert found[last] == f"{images[0].target.tag} points to it"
    assert set(plan(repository, days=10).values()) >= {"10 days old"}


def test_an_index_keeps_what_it_lists(repository: Repository, images: tuple[Image, ...]) -> None:
    first, _ = versions(repository, images[0], 2)
    held = repository.manifest(first)
    assert held
    row = {"mediaType": MANIFEST, "digest": first, "size": len(held.body)}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [row]}).encode()
    old = prune.plan(repository, now=MADE + 999 * DAY, older=30, used=())
    repository.put("multi", index, INDEX)
    assert not prune.remove(repository, old)[0], "it came after the plan"
    assert plan(repository, days=999)[first] == "multi points to it"


def test_what_was_tested_lately_is_new(repository: Repository, images: tuple[Image, ...]) -> None:
    """Its layers may have been made long before."""
    first, _ = versions(repository, images[0], 2)
    seen = remote.see(repository, first)
    assert seen
    tested = {"org.opencontainers.image.created": "2026-03-30T00:00:00Z"}
    repository.attach(seen.descriptor, remote.REPORT, b"{}", tested)
    assert plan(repository, days=100)[first].endswith("days old")


def test_a_broken_image_does_not_keep_the_others(
    registry: Registry, repository: Repository, images: tuple[Image, ...]
) -> None:
    first, second, _ = versions(repository, images[0], 3)
    held = repository.manifest(second)
    assert held
    del registry.blobs["me/finetune", held.row["config"]["digest"]]
    found = plan(repository)
    assert found[first] == ""
    assert found[second].startswith("cannot be read")


def test_what_others_attached_to_an_image_that_is_gone_stays(
    registry: Registry, repository: Repository, images: tuple[Image, ...]
) -> None:
    first, _ = versions(repository, images[0], 2)
    seen = remote.see(repository, first)
    assert seen
    repository.attach(seen.descriptor, "application/vnd.example.signature", b"{}", {})
    repository.delete(first)
    old = prune.plan(repository, now=MADE + 99 * DAY, older=30, used=())
    prune.remove(repository, old)
    assert len(repository.referrers(first)) == 2


def test_what_is_deleted_takes_what_was_attached_and_nothing_else(
    registry: Registry, repository: Repository, images: tuple[Image, ...]
) -> None:
    first, last = versions(repository, images[0], 2)
    other = put(repository, images[1])
    old = prune.plan(repository, now=MADE + 99 * DAY, older=30, used=())
    assert [one.digest for one in prune.remove(repository, old)[0]] == [first]
    assert repository.manifest(first) is None
    assert repository.referrers(first) == ()
    for digest in (last, other):
        assert remote.passing(repository, digest)
    assert first.replace(":", "-") not in {tag for _, tag in registry.tags}
    again = prune.plan(repository, now=MADE + 99 * DAY, older=30, used=())
    assert not prune.remove(repository, again)[0]


def test_a_tag_that_came_meanwhile_keeps_its_image(
    repository: Repository, images: tuple[Image, ...]
) -> None:
    first, _ = versions(repository, images[0], 2)
    old = prune.plan(repository, now=MADE + 99 * DAY, older=30, used=())
    held = repository.manifest(first)
    assert held
    repository.put("release", held.body, held.media_type)
    assert not prune.remove(repository, old)[0]
    assert repository.manifest(first)


def test_what_an_interrupted_run_left_goes_the_next_time(
    registry: Registry, repository: Repository, images: tuple[Image, ...]
) -> None:
    first, _ = versions(repository, images[0], 2)
    left = {one.digest for one in repository.referrers(first)}
    repository.delete(first)
    old = prune.plan(repository, now=MADE + 99 * DAY, older=30, used=())
    prune.remove(repository, old)
    if not registry.knows_referrers:  # else the registry's own collection takes them
        assert not any(repository.manifest(digest) for digest in left)
        assert first.replace(":", "-") not in {tag for _, tag in registry.tags}


def test_a_registry_that_deletes_nothing_is_told(
    registry: Registry, repository: Repository, images: tuple[Image, ...]
) -> None:
    first, _ = versions(repository, images[0], 2)
    registry.deletes = False
    words = ["prune", "--registry", "--repository", repository.name, "--older-than", "1"]
    done = imagegen(*words, "--apply")
    assert done.returncode == 8
    assert "deletes nothing" in done.stderr
    assert "0 of 2" in done.stdout
    assert not [line for line in done.stdout.splitlines() if line.startswith("deleted")]
    assert repository.manifest(first)


def test_prune_says_first_and_deletes_on_demand(
    open_registry: str, images: tuple[Image, ...]
) -> None:
    """Against the distribution's registry, by the command line."""
    repository = Repository(f"{open_registry}/imagegen-test/prune-{os.getpid()}")
    first, last = versions(repository, images[0], 2)
    words = ["prune", "--registry", "--repository", repository.name, "--older-than", "1"]
    dry = imagegen(*words)
    assert dry.returncode == 0, dry.stderr
    assert "can be deleted" in dry.stdout
    assert repository.manifest(first)
    done = imagegen(*words, "--apply", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert [row["digest"] for row in json.loads(done.stdout) if row["deleted"]] == [first]
    assert repository.manifest(first) is None
    assert repository.manifest(last)
    assert imagegen("prune").returncode == 2
