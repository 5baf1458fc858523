"""How far it is from a command to the process that it starts: each frame is a stop for a reader."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import docker.errors
import pytest

from imagegen.build import base, images
from imagegen.engine.docker import Docker
from imagegen.model.image import Built
from tests.support.values import DEMO, DIGEST, ROOT, image

Stops = list[str]


def stops(command: str) -> Stops:
    """The functions of imagegen that are being called, from ``command`` on."""
    found: Stops = []
    frame = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if ROOT / "imagegen" in file.parents and frame.f_code.co_name != "<listcomp>":
            found.insert(0, f"{file.relative_to(ROOT / 'imagegen')}:{frame.f_code.co_name}")
        frame = frame.f_back
    return found[found.index(command) :]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Docker:
    """The real one's way of starting things, without an engine behind it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def gone(*_: Any, **__: Any) -> NoReturn:
        raise docker.errors.NotFound("gone")

    made = Docker(
        SimpleNamespace(containers=SimpleNamespace(), api=SimpleNamespace(remove_container=gone))
    )
    monkeypatch.setattr(Docker, "connect", lambda: made)
    monkeypatch.setattr(Docker, "need_disk", lambda *_: None)
    monkeypatch.setattr(Docker, "local", lambda *_: None)
    return made


@pytest.mark.usefixtures("engine")
def test_a_build_is_six_calls_from_its_process(line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Stops] = []

    def popen(*_: Any, **__: Any) -> NoReturn:
        seen.append(stops("cli/images.py:build"))
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "Popen", popen)
    assert line("build", "ubuntu24.04-cuda13.0-torch2.11-*-slim", "--repository", "me/x") == 5
    assert len(seen) == 1
    assert len(seen[0]) <= 6, seen[0]
    assert seen[0][-1].startswith("util/process.py:")


def test_trying_an_image_is_eight_calls_from_its_container(
    engine: Docker, line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Stops] = []

    def create(*_: Any, **__: Any) -> NoReturn:
        seen.append(stops("cli/images.py:test"))
        raise docker.errors.APIError("no")

    engine._client.containers.create = create
    there = Built(image=image(), digest=DIGEST, unpacked=0, seconds=0.0, cached="built before")
    monkeypatch.setattr(Docker, "local", lambda *_: True)
    monkeypatch.setattr(images, "_built", lambda *_, **__: there)
    monkeypatch.setattr(Docker, "config", lambda *_: {"Config": {"Labels": {}}, "Size": 0})
    words = ("test", DEMO.id, "--base", "bootstrap", "--repository", "me/x", "--level", "smoke")
    monkeypatch.setattr(base, "known_digest", lambda *_: DIGEST)
    assert line(*words) == 7
    assert seen
    assert max(map(len, seen)) <= 8, max(seen, key=len)
    assert all(one[-1].startswith("engine/container.py:") for one in seen)
