"""Templates: only of what was pushed, by digest, and runnable on every driver that can run it."""

from __future__ import annotations

import json

import pytest
from packaging.version import Version

from imagegen import pods
from imagegen.model import Layer, Target

from .values import DIGEST, FACTS, RESOLUTION, pushed

EVERY = pytest.mark.parametrize("target", RESOLUTION.targets, ids=lambda t: t.id)


@EVERY
def test_runpod_is_told_every_driver_that_runs_the_image(target: Target) -> None:
    allowed = pods.runpod(pushed(target), FACTS)["allowedCudaVersions"]
    assert isinstance(allowed, list)
    floor = Version(f"{target.cuda.major}.0")
    assert {Version(text) for text in allowed} == {v for v in FACTS.driver_cuda if v >= floor}
    assert f"{target.cuda.major}.0" in allowed
    assert all(text.count(".") == 1 for text in allowed)


def test_a_driver_of_cuda_13_10_runs_what_one_of_13_9_runs() -> None:
    versions = (*FACTS.driver_cuda, Version("13.9"), Version("13.10"))
    facts = FACTS.model_copy(update={"driver_cuda": versions})
    allowed = pods.runpod(pushed(), facts)["allowedCudaVersions"]
    assert {"13.9", "13.10"} <= set(allowed)  # type: ignore[call-overload]
    assert "12.9" not in allowed  # type: ignore[operator]


@EVERY
def test_an_image_is_named_by_its_digest(target: Target) -> None:
    one = pushed(target)
    runpod, vast = (pods.template(platform, one, FACTS) for platform in pods.PLATFORMS)
    assert runpod["image"] == f"{one.refs[0]}@{DIGEST}"
    assert f"{vast['image']}:{vast['tag']}" == one.refs[0]
    assert DIGEST in str(vast["desc"])
    assert runpod["name"] == vast["name"] == target.id
    for template in (runpod, vast):
        assert json.loads(json.dumps(template)) == template


def test_a_repository_with_a_port_keeps_it() -> None:
    one = pushed(repository="localhost:5000/x", refs=("localhost:5000/x:tag", "localhost:5000/x:t"))
    vast = pods.vast(one)
    assert (vast["image"], vast["tag"]) == ("localhost:5000/x", "tag")


def test_the_keys_are_those_that_runpod_knows() -> None:
    assert set(pods.runpod(pushed(), FACTS)) == {
        *("name", "image", "category", "disk", "mounts", "ports", "env", "startSsh"),
        *("startJupyter", "allowedCudaVersions", "public", "serverless"),
    }


@EVERY
def test_vast_is_asked_for_a_gpu_and_a_driver_that_can(target: Target) -> None:
    vast = pods.vast(pushed(target))
    assert vast["extra_filters"] == {
        "cuda_max_good": {"gte": float(target.cuda.major)},
        "compute_cap": {"gte": min(target.flash_attn.archs) * 10},
    }
    assert vast["runtype"] == "ssh"
    assert "/opt/imagegen/start" in str(vast["onstart"])


def test_no_template_holds_a_login_and_none_is_public() -> None:
    runpod, vast = pods.runpod(pushed(), FACTS), pods.vast(pushed())
    assert not runpod["public"]
    assert vast["private"]
    assert {vast[f"docker_login_{name}"] for name in ("repo", "user", "pass")} == {""}
    assert runpod["env"] == {}


def test_a_disk_holds_the_layers_what_they_unpack_to_and_work() -> None:
    assert pods.disk(pushed()) == 3 + 7 + 30
    exact = Layer(digest="x", compressed=3 * 10**9, created_by="")
    assert pods.disk(pushed(layers=(exact,))) == 3 + 7 + 30
    more = Layer(digest="x", compressed=3 * 10**9 + 1, created_by="")
    assert pods.disk(pushed(layers=(more,))) == 3 + 7 + 31
    big = Layer(digest="x", compressed=40 * 10**9, created_by="")
    assert pods.vast(pushed())["recommended_disk_space"] == 60
    assert pods.vast(pushed(layers=(big,)))["recommended_disk_space"] == 77
    assert pods.runpod(pushed(), FACTS)["disk"] == 40
