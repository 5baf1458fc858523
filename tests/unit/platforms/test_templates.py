"""Templates: only of what was pushed, by digest, and runnable on every driver that can run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from packaging.version import Version

from imagegen.compat.facts.tables import Facts
from imagegen.model.image import Layer
from imagegen.model.pushed import Pushed
from imagegen.model.target import FlashAttn, Target, minor
from imagegen.platforms import PLATFORMS
from imagegen.platforms.spec import Wish, disk
from imagegen.platforms.vast.template import ONSTART
from tests.support.laws import for_all
from tests.support.values import DEMO, DIGEST, FACTS, RESOLUTION, pushed


def runpod(one: Pushed, facts: Facts = FACTS) -> dict[str, object]:
    return PLATFORMS["runpod"].template(one, facts, Wish())


def vast(one: Pushed) -> dict[str, object]:
    return PLATFORMS["vast"].template(one, FACTS, Wish())


EVERY = for_all(RESOLUTION.targets, lambda target: target.id)


@EVERY
def test_runpod_is_told_every_driver_that_runs_what_the_image_compiles(target: Target) -> None:
    allowed = runpod(pushed(target))["allowedCudaVersions"]
    assert isinstance(allowed, list)
    floor = Version(minor(target.cuda))
    assert {Version(text) for text in allowed} == {v for v in FACTS.driver_cuda if v >= floor}
    assert allowed[0] == minor(target.cuda)
    assert all(text.count(".") == 1 for text in allowed)


def test_a_driver_of_cuda_13_10_runs_what_one_of_13_9_runs() -> None:
    facts = FACTS.assume("cuda", "13.10.0").assume("cuda", "13.9.0")
    allowed = runpod(pushed(), facts)["allowedCudaVersions"]
    assert isinstance(allowed, list)
    assert allowed[-2:] == ["13.9", "13.10"]
    assert "12.9" not in allowed


@EVERY
def test_an_image_is_named_by_its_digest(target: Target) -> None:
    one = pushed(target)
    ours, theirs = runpod(one), vast(one)
    assert ours["image"] == f"{one.refs[0]}@{DIGEST}"
    assert f"{theirs['image']}:{theirs['tag']}" == one.refs[0]
    assert DIGEST in str(theirs["desc"])
    assert ours["name"] == theirs["name"] == target.id
    for template in (ours, theirs):
        assert json.loads(json.dumps(template)) == template


def test_a_repository_with_a_port_keeps_it() -> None:
    one = pushed(repository="localhost:5000/x", refs=("localhost:5000/x:tag", "localhost:5000/x:t"))
    body = vast(one)
    assert (body["image"], body["tag"]) == ("localhost:5000/x", "tag")


def test_the_keys_are_those_that_runpod_knows() -> None:
    assert set(runpod(pushed())) == {
        *("name", "image", "category", "disk", "mounts", "ports", "env", "startSsh"),
        *("startJupyter", "allowedCudaVersions", "public", "serverless"),
    }


@EVERY
def test_vast_is_asked_for_a_gpu_and_a_driver_that_can(target: Target) -> None:
    body = vast(pushed(target))
    filters: dict[str, object] = {
        "cuda_max_good": {"gte": float(minor(target.cuda))},
        "cpu_arch": {"eq": "amd64"},
    }
    if isinstance(target.flash_attn, FlashAttn):
        archs = target.flash_attn.archs
        filters["compute_cap"] = {"gte": archs[0] * 10, "lt": (archs[-1] // 10 + 1) * 100}
    elif target.flash_attn:  # generation 4, which on an A100 infers and does not train
        filters["compute_cap"] = {"gte": 900, "lt": 1300}
    assert body["extra_filters"] == filters
    assert body["runtype"] == "ssh"


def test_kernels_run_on_their_own_major_version_only() -> None:
    """The demo's kernels are for 8.0: they run on 8.6 and 8.9, and not on 9.0."""
    assert isinstance(DEMO.flash_attn, FlashAttn)
    assert DEMO.flash_attn.archs == (80,)
    limits = vast(pushed())["extra_filters"]["compute_cap"]  # type: ignore[index]
    assert limits == {"gte": 800, "lt": 900}
    assert all(limits["gte"] <= arch < limits["lt"] for arch in (800, 860, 890))
    assert not any(limits["gte"] <= arch < limits["lt"] for arch in (750, 900, 1200))


def test_what_runs_at_every_boot_is_the_image_s_own_start() -> None:
    text = str(vast(pushed())["onstart"])
    assert text == ONSTART
    assert len(text) <= 4096
    folder, start = [line for line in text.splitlines() if not line.startswith("#")]
    assert folder == "mkdir -p /workspace"
    assert start.startswith("/opt/imagegen/start <")  # no arguments: it returns


@pytest.mark.process
def test_what_runs_at_every_boot_returns_though_a_service_stays(tmp_path: Path) -> None:
    """Its caller may wait for the end of what it says; a service would hold that open."""
    text, log, workspace = ONSTART, tmp_path / "log", tmp_path / "workspace"
    start, service = tmp_path / "start", tmp_path / "service"
    for path, here in (
        ("/opt/imagegen/start", start),
        ("/var/log/imagegen.log", log),
        ("/workspace", workspace),
    ):
        assert text.count(path) == 1
        text = text.replace(path, str(here))
    start.write_text(f"#!/bin/sh\necho started with $#\nsleep 60 &\necho $! >>{service}\n")
    start.chmod(0o755)
    try:
        for _ in range(2):
            done = subprocess.run(
                ["bash", "-c", text], check=True, capture_output=True, text=True, timeout=10
            )
            assert (done.stdout, done.stderr) == ("", "")
            assert workspace.is_dir()
        assert log.read_text() == "started with 0\n" * 2
    finally:
        for pid in service.read_text().split():
            os.kill(int(pid), signal.SIGKILL)


def test_no_template_holds_a_login_and_none_is_public() -> None:
    ours, theirs = runpod(pushed()), vast(pushed())
    assert not ours["public"]
    assert theirs["private"]
    assert {theirs[f"docker_login_{name}"] for name in ("repo", "user", "pass")} == {""}
    assert ours["env"] == {"SSH_HOST_KEYS_DIR": "/workspace/.ssh-host-keys"}


def test_a_disk_holds_the_layers_what_they_unpack_to_and_work() -> None:
    assert disk(pushed()) == 3 + 7 + 30
    exact = Layer(digest="x", compressed=3 * 10**9, created_by="")
    assert disk(pushed(layers=(exact,))) == 3 + 7 + 30
    more = Layer(digest="x", compressed=3 * 10**9 + 1, created_by="")
    assert disk(pushed(layers=(more,))) == 3 + 7 + 31
    big = Layer(digest="x", compressed=40 * 10**9, created_by="")
    assert vast(pushed())["recommended_disk_space"] == 60
    assert vast(pushed(layers=(big,)))["recommended_disk_space"] == 77
    assert runpod(pushed())["disk"] == 40
