"""The look at a registry that the fault runs rest on: it finds what is planted, of every kind."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import pytest
import requests

from imagegen.build.base import Base
from imagegen.engine.docker import Docker
from imagegen.matrix.project import Project
from imagegen.model.image import Image
from imagegen.model.target import Target
from imagegen.net.registry import Descriptor, Repository
from imagegen.publish.local_registry import server as packaged
from tests.engine.conftest import NETWORK, ROOT
from tests.engine.stand_ins.registries import BLOBS, Registry, docker, registry
from tests.faults.checker import REPORT, Checker
from tests.support.published import put

Place = tuple[Repository, Checker]
PASSED = [{"level": level, "status": "pass"} for level in ("smoke", "runpod", "vast")]


@pytest.fixture(scope="module")
def real(engine: Docker, local_base: Base) -> Iterator[Registry]:
    with registry(packaged.build(engine, local_base, NETWORK)) as one:
        yield one


@pytest.fixture
def place(real: Registry) -> Place:
    """An empty repository, and who looks at it."""
    name = f"checked/{secrets.token_hex(4)}"
    return Repository(f"{real.host}/{name}"), Checker(real.host, name, moving=frozenset({"latest"}))


@pytest.fixture
def target(project: Project) -> Target:
    return min(project.resolution.targets, key=lambda one: one.torch)


def image(target: Target) -> Image:
    key = secrets.token_hex(32)
    labels = {"imagegen.key": key, "imagegen.target": json.dumps(target.promise)}
    return Image(target=target, context=ROOT, base="", base_override="", labels=labels, key=key)


def row_of(place: Place, ref: str) -> dict[str, object]:
    held = place[0].manifest(ref)
    assert held
    return held.row


def test_a_whole_and_tested_image_is_as_it_must_be(place: Place, target: Target) -> None:
    assert place[1].look().count == 0
    digest = put(place[0], image(target), ["latest"])
    look = place[1].look()
    assert not look.violations
    assert look.tags["latest"] == digest
    assert look.count == 4  # its own, the target's, the alias, and the list of what refers to it
    assert not place[1].look(look.tags).violations


@pytest.mark.parametrize(
    ("what", "how"),
    [("manifest", "gone"), ("config", "other bytes"), ("layer", "fewer bytes")],
)
def test_what_an_image_consists_of(
    place: Place, target: Target, real: Registry, what: str, how: str
) -> None:
    digest = put(place[0], image(target), ["latest"])
    row = row_of(place, digest)
    lost = {"manifest": digest, "config": row["config"]["digest"]}.get(what)  # type: ignore[index]
    spoil(real, lost or row["layers"][0]["digest"], how)  # type: ignore[index]
    found = place[1].look().violations
    assert {line.partition(":")[0] for line in found} >= {"latest", target.tag}
    assert all("sha256:" in line or "is not there" in line for line in found)


def spoil(real: Registry, digest: str, how: str) -> None:
    if how == "gone":
        real.lose(digest)
        return
    sha = digest.removeprefix("sha256:")
    other = 'sed -i "s/[a-f0-9]/z/" "$1"' if how == "other bytes" else 'truncate -s -1 "$1"'
    docker("exec", real.name, "sh", "-euc", other, "sh", f"{BLOBS}/{sha[:2]}/{sha}/data")


def test_an_image_that_nobody_tested(place: Place, target: Target) -> None:
    """Under its own tag it may be early; under a moving tag it must not be."""
    digest = put(place[0], image(target), ["latest"], tested=False)
    look = place[1].look()
    assert look.violations == (f"latest: {digest[:19]} has no report beside it",)
    assert set(look.early) == {target.tag, f"{target.tag}-{digest[7:19]}"}


SKIPPED = {"level": "vast", "status": "skip"}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"checks": [*PASSED, {"level": "smoke", "status": "fail"}]}, "did not pass"),
        ({"checks": [*PASSED[:2], SKIPPED]}, "did not pass"),
        ({"checks": [*PASSED, {"level": "gpu", "status": "maybe"}]}, "did not pass"),
        ({"digest": f"sha256:{'0' * 64}"}, "is about sha256:0000"),
        ({"checks": None}, "cannot be read"),
    ],
    ids=["failed", "a level was skipped", "an unknown word", "of another image", "no report"],
)
def test_a_report_that_lets_nothing_be_published(
    place: Place, target: Target, changed: dict[str, object], says: str
) -> None:
    digest = put(place[0], image(target), ["latest"], tested=False)
    held = place[0].manifest(digest)
    assert held
    subject = Descriptor(digest=digest, size=len(held.body), media_type=held.media_type)
    passed = {"digest": digest, "checks": PASSED}
    place[0].attach(subject, REPORT, json.dumps(passed | changed).encode(), {})
    look = place[1].look()
    assert len(look.violations) == 3  # own tag, the target's and the alias
    assert all(says in line for line in look.violations)
    place[0].attach(subject, REPORT, json.dumps(passed).encode(), {})
    assert not place[1].look().violations


@pytest.mark.parametrize("what", ["manifest", "document"])
def test_what_is_attached_and_gone(place: Place, target: Target, real: Registry, what: str) -> None:
    digest = put(place[0], image(target), ["latest"])
    (report,) = place[0].referrers(digest)
    document = row_of(place, report.digest)["layers"][0]["digest"]  # type: ignore[index]
    real.lose(report.digest if what == "manifest" else document)
    found = {line.partition(":")[0] for line in place[1].look().violations}
    assert {"latest", target.tag, digest.replace(":", "-")} <= found


def test_a_tag_that_went_back(place: Place, project: Project) -> None:
    """To an older version, or to an earlier build of the same; or that is gone."""
    repository, checker = place
    ages = sorted(project.resolution.targets, key=lambda one: one.torch)
    earlier, build, older = (image(ages[number]) for number in (-1, -1, 0))
    first = put(repository, earlier)
    second = put(repository, build, ["latest"])
    checker.made.update({first: 1, second: 2})
    before = {"latest": checker.look().tags["latest"]}
    for digest in (first, put(repository, older)):
        held = repository.manifest(digest)
        assert held
        repository.put("latest", held.body, held.media_type)
        (line,) = checker.look(before).violations
        assert line.startswith("latest: it was ")
        assert line.endswith("which is older")
    url = f"http://{checker.host}/v2/{checker.name}/manifests"
    requests.delete(f"{url}/{digest}", timeout=9).raise_for_status()
    assert "latest: it is gone" in checker.look(before).violations


def test_what_the_registry_itself_lost_is_no_fault_of_a_push_until_the_next(
    place: Place, target: Target, real: Registry
) -> None:
    """Unless a tag was moved to it meanwhile."""
    repository, checker = place
    checker.moving = frozenset({"latest", target.tag})
    put(repository, image(target), ["latest"])
    second = put(repository, image(target))  # and the target's tag is moved to it
    before = checker.look().tags
    lost = row_of(place, second)["layers"][0]["digest"]  # type: ignore[index]
    held = repository.manifest(second)
    assert held
    repository.put("latest", held.body, held.media_type)
    real.lose(lost)
    assert len(checker.look(before).violations) == 3
    checker.lost.add(lost)
    (line,) = checker.look(before).violations
    assert line.startswith("latest: ")
