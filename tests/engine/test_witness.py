"""Other tools read what was pushed: skopeo, and an engine that never saw the build."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagegen.build import bake
from imagegen.build.base import Base
from imagegen.engine.docker import Docker
from imagegen.inventory import contents, sbom
from imagegen.matrix.project import Project
from imagegen.model.image import Built, Image
from imagegen.model.pushed import Pushed
from imagegen.model.report import Check, Report, Tested
from imagegen.platforms import needed
from imagegen.publish import push
from imagegen.publish.local_registry import server as packaged
from tests.engine.conftest import NETWORK
from tests.engine.stand_ins.engines import second_engine
from tests.engine.stand_ins.registries import docker, registry
from tests.support import tiny_image

ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
SPDX = "application/spdx+json"
REPORT = "application/vnd.imagegen.report.v1+json"
IN_TOTO = "application/vnd.in-toto+json"
STATEMENT = {"predicateType": "how it was made", "predicate": {"by": "a test"}}


@dataclass(frozen=True)
class Skopeo:
    """The command, of the distribution's package; plain HTTP, as the registry is on loopback."""

    repository: str

    def raw(self, ref: str) -> bytes:
        """A manifest's bytes, by tag or by digest."""
        between = "@" if ":" in ref else ":"
        where = f"docker://{self.repository}{between}{ref}"
        return self.run("inspect", "--raw", "--tls-verify=false", where)

    def copied(self, ref: str, folder: Path) -> None:
        """All of an image or artifact as an OCI layout."""
        between = "@" if ":" in ref else ":"
        where = f"docker://{self.repository}{between}{ref}"
        self.run(
            *("copy", "--quiet", "--preserve-digests", "--src-tls-verify=false"),
            *(where, f"oci:{folder}:it"),
        )

    def run(self, *words: str) -> bytes:
        return subprocess.run(["skopeo", *words], check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def pushed(
    engine: Docker,
    local_base: Base,
    small_image: str,
    project: Project,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pushed]:
    """The small image, baked and pushed as imagegen does, with its SBOM; its checks are not run."""
    wanted = ("debian12", "plain")
    target = next(t for t in project.resolution.targets if (t.os.name, t.profile) == wanted)
    key = secrets.token_hex(32)
    folder = tmp_path_factory.mktemp("witness")
    labels = {"imagegen.key": key}
    image = Image(target=target, context=folder, base="", base_override="", labels=labels, key=key)
    (folder / "Dockerfile").write_text(f"FROM {small_image}\nRUN echo more > /root/more\n")
    row = bake.document([image], folder)["target"][bake.name(target)]  # type: ignore[index]
    engine.bake({"target": {"default": row | {"dockerfile": "Dockerfile"}}})
    local = engine.local(image.ref)
    assert local
    built = Built(image=image, digest=local.digest, unpacked=0, seconds=0.0, cached="")
    checks = [
        Check(name="x", status="pass", detail="", seconds=0.0, level=level) for level in needed()
    ]
    tested = Tested(built=built, report=Report.of(built, tuple(checks), 0.0), needed=needed())
    found = contents.of(engine, image.ref)
    document = sbom.spdx(
        found, name=tiny_image.NAME, digest=local.digest, created=datetime.now(UTC)
    )
    with registry(packaged.build(engine, local_base, NETWORK)) as real:
        upload = push.Upload(
            tested=tested,
            repository=f"{real.host}/witness/small",
            aliases=("latest",),
            sbom=json.dumps(document).encode(),
            provenance=json.dumps(STATEMENT).encode(),
        )
        done = push.push(engine, [upload])
        assert not done.failed
        yield done.pushed[0]
    engine.remove(image.ref)


@pytest.fixture
def skopeo(pushed: Pushed) -> Skopeo:
    if not shutil.which("skopeo"):
        if os.environ.get("CI"):
            pytest.fail("no second witness: skopeo is not installed", pytrace=False)
        pytest.skip("no second witness: skopeo is not installed")
    return Skopeo(pushed.repository)


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def whole(layout: Path) -> dict[str, bytes]:
    """The blobs of an OCI layout by digest, each of them hashed."""
    files = list((layout / "blobs/sha256").iterdir())
    assert files
    found = {f"sha256:{file.name}": file.read_bytes() for file in files}
    assert all(digest_of(body) == digest for digest, body in found.items())
    return found


def test_another_tool_reads_the_same_digest_under_every_name(
    pushed: Pushed, skopeo: Skopeo
) -> None:
    names = [ref.rpartition(":")[2] for ref in (*pushed.refs, *pushed.aliases)]
    assert names[-1] == "latest"
    assert len(names) == 3
    assert {digest_of(skopeo.raw(name)) for name in names} == {pushed.digest}
    listed = json.loads(
        skopeo.run("list-tags", "--tls-verify=false", f"docker://{pushed.repository}")
    )
    assert {*names, pushed.digest.replace(":", "-")} == set(listed["Tags"])


def test_layers_are_zstd_and_all_there(pushed: Pushed, skopeo: Skopeo, tmp_path: Path) -> None:
    skopeo.copied(pushed.digest, tmp_path)
    blobs = whole(tmp_path)
    manifest = json.loads(blobs[pushed.digest])
    layers = manifest["layers"]
    assert {layer["mediaType"] for layer in layers} == {ZSTD}
    for layer in layers:
        body = blobs[layer["digest"]]
        assert len(body) == layer["size"]
        assert body[:4] == b"\x28\xb5\x2f\xfd"  # RFC 8878, 3.1.1
    config = json.loads(blobs[manifest["config"]["digest"]])
    assert len(config["rootfs"]["diff_ids"]) == len(layers)
    assert [layer.digest for layer in pushed.layers] == [layer["digest"] for layer in layers]


def test_what_refers_to_the_image_can_be_read(
    pushed: Pushed, skopeo: Skopeo, tmp_path: Path
) -> None:
    """By the fallback tag: Debian's registry has no call for referrers."""
    index = json.loads(skopeo.raw(pushed.digest.replace(":", "-")))
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    documents = {}
    for row in index["manifests"]:
        raw = skopeo.raw(row["digest"])
        assert (digest_of(raw), len(raw)) == (row["digest"], row["size"])
        manifest = json.loads(raw)
        assert manifest["subject"]["digest"] == pushed.digest
        assert manifest["subject"]["size"] == len(skopeo.raw(pushed.digest))
        folder = tmp_path / row["digest"].partition(":")[2]
        skopeo.copied(row["digest"], folder)
        (layer,) = manifest["layers"]
        documents[row["artifactType"]] = json.loads(whole(folder)[layer["digest"]])
    assert documents.keys() == {REPORT, SPDX, IN_TOTO}
    assert documents[REPORT]["digest"] == pushed.digest
    assert {check["level"] for check in documents[REPORT]["checks"]} == {*needed()}
    packages = documents[SPDX]["packages"]
    assert documents[SPDX]["spdxVersion"] == "SPDX-2.3"
    assert {"openssh-server", "jupyterlab"} <= {package["name"] for package in packages}
    assert documents[IN_TOTO] == STATEMENT


def test_an_engine_that_never_saw_the_build_runs_it_by_digest(pushed: Pushed) -> None:
    with second_engine() as other:
        host, ref = f"--host={other.host}", f"{pushed.repository}@{pushed.digest}"
        assert docker(host, "images", "--quiet") == ""
        docker(host, "pull", "--quiet", ref)
        assert docker(host, "image", "inspect", "--format={{.Id}}", ref) == pushed.digest
        said = docker(
            *(host, "run", "--rm", "--network=none", ref),
            *("bash", "-c", "nvcc --version && python -c 'import torch; print(torch.__version__)'"),
        )
        assert "release 13.0, V13.0.88" in said
        assert said.endswith("2.11.0+cu130")
