"""Bases of images: made before a build, planned with, and refused where they changed meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest

from imagegen.build import base, images
from imagegen.build.base import Base
from imagegen.build.options import Options
from imagegen.commands import build
from imagegen.engine.docker import Docker
from imagegen.errors import EngineError, UsageError
from imagegen.model.target import Os
from imagegen.util.files import cache
from tests.support.values import DEMO, PROJECT

BOOTSTRAP = Options(base="bootstrap", repositories=("me/finetune",))
OLD, NEW = "sha256:" + "1" * 64, "sha256:" + "2" * 64


class Engine:
    """Notes which bases are loaded."""

    def __init__(self) -> None:
        self.loaded: list[tuple[str, str]] = []

    def load(self, _archive: Path, reference: str, digest: str) -> None:
        self.loaded.append((reference, digest))


def keep(digest: str) -> None:
    """A base in the cache."""
    folder = cache() / "base"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "debian12.oci.tar").touch()
    (folder / "debian12.json").write_text(json.dumps({"digest": digest}))


@pytest.fixture(autouse=True)
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Bootstraps that were asked for, and whether anew; each that is needed makes ``NEW``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked: list[bool] = []

    def bootstrap(os: Os, folder: Path, *, fresh: bool = False) -> Base:
        asked.append(fresh)
        if fresh or not base.known_digest(os, folder):
            keep(NEW)
        return base.stored(os, folder)

    monkeypatch.setattr(base, "bootstrap", bootstrap)
    return asked


def test_a_base_that_is_there_is_planned_with_once() -> None:
    keep(OLD)
    planned = images.plan(PROJECT, [DEMO.id], BOOTSTRAP)
    assert [one.base_digest for one in planned] == [OLD]
    assert images.on_bases(PROJECT, planned, BOOTSTRAP) == planned
    engine = Engine()
    images.load(cast(Docker, engine), planned, BOOTSTRAP)
    assert engine.loaded == [("imagegen/base:debian12", OLD)]


def test_a_base_that_is_not_there_is_made_and_then_in_the_key() -> None:
    planned = images.plan(PROJECT, [DEMO.id], BOOTSTRAP)
    assert [one.base_digest for one in planned] == [""]
    (again,) = images.on_bases(PROJECT, planned, BOOTSTRAP)
    assert again.base_digest == NEW
    assert again.key != planned[0].key
    assert again.labels["org.opencontainers.image.base.digest"] == NEW


def test_a_fresh_base_is_made_anew_and_planned_with(made: list[bool]) -> None:
    keep(OLD)
    options = Options(base="bootstrap", fresh_base=True)
    (image,) = images.on_bases(PROJECT, images.plan(PROJECT, [DEMO.id], options), options)
    assert image.base_digest == NEW
    assert made == [True]


def test_a_base_that_changed_since_it_was_planned_with_is_refused() -> None:
    keep(OLD)
    planned = images.plan(PROJECT, [DEMO.id], BOOTSTRAP)
    keep(NEW)
    engine = Engine()
    with pytest.raises(EngineError, match="the base of debian12 is another one") as refused:
        images.load(cast(Docker, engine), planned, BOOTSTRAP)
    assert "run the command again" in refused.value.hint
    assert not engine.loaded


def test_a_base_that_is_pulled_is_not_made(made: list[bool]) -> None:
    planned = images.plan(PROJECT, [DEMO.id], Options())
    assert images.on_bases(PROJECT, planned, Options()) == planned
    assert not made


def test_nothing_is_made_before_what_is_cheap_was_asked(made: list[bool]) -> None:
    def no_engine() -> NoReturn:
        raise EngineError("no engine answers")

    with pytest.raises(EngineError, match="no engine answers"):
        build.build(PROJECT, no_engine, [DEMO.id], BOOTSTRAP)
    ubuntu: Any = next(one.id for one in PROJECT.resolution.targets if one.kind == "devel")
    with pytest.raises(UsageError, match="which cannot be bootstrapped"):
        build.build(PROJECT, no_engine, [ubuntu], BOOTSTRAP)
    assert not made
