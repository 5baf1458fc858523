"""What is used again: a report of the same bytes by the same checks, at the same levels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from imagegen.build.options import Options
from imagegen.commands import test
from imagegen.engine.docker import Docker
from imagegen.model.image import Built
from imagegen.model.report import Asked, Check, Level, Result
from imagegen.platforms import PLATFORMS, needed
from tests.support.values import DEMO, DIGEST, built, report

ALL = Asked(levels=needed())


class Checks:
    """Stands in for the checks: gives rows, and notes what was asked."""

    def __init__(self) -> None:
        self.statuses: tuple[Any, ...] = ("pass", "skip")
        self.asked: list[tuple[str, Asked, str, Mapping[str, object] | None, str]] = []

    def __call__(
        self,
        _engine: Docker,
        ref: str,
        asked: Asked,
        *,
        digest: str = "",
        promise: Mapping[str, object] | None = None,
    ) -> tuple[Check, ...]:
        self.asked.append((ref, asked, digest, promise))
        rows = report(*self.statuses).checks
        return tuple(replace(row, level=level) for level in asked.levels for row in rows)

    @property
    def levels(self) -> list[tuple[Level, ...]]:
        return [asked.levels for _, asked, *_ in self.asked]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where reports are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "imagegen/reports"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Checks:
    stand_in = Checks()
    monkeypatch.setattr(test, "examine", stand_in)
    return stand_in


def checked(
    *levels: Level, of: Built | None = None, again: bool = False, require: str = ""
) -> Result:
    engine, required = (
        cast(Docker, SimpleNamespace(version="Docker Engine 0")),
        frozenset({require} - {""}),
    )
    asked = Asked(levels=levels, required=required) if levels else ALL
    return test.tried(engine, of or built(), Options(asked=asked, again=again))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*"))


def test_a_report_of_the_same_bytes_is_used_again(folder: Path, tried: Checks) -> None:
    first, second = checked(), checked()
    assert tried.asked == [(built().image.ref, ALL, DIGEST, DEMO.promise)]
    assert (first.cached, first.name, first.report.digest) == ("", DEMO.id, DIGEST)
    # of each level one was skipped
    assert second.cached.startswith("already tested: 3 checks of these bytes on 2")
    assert "--again" in second.cached
    old, new = first.report, second.report
    assert (new.seconds, new.at) == (round(old.seconds, 1), int(old.at))
    same = replace(old, seconds=new.seconds, at=new.at)
    assert second == replace(first, cached=second.cached, report=same)
    digest = DIGEST.removeprefix("sha256:")
    assert names(folder) == [f"{digest}-{test.version()}-smoke-runpod-vast.json"]


def test_other_bytes_other_checks_and_again_are_checked(
    folder: Path, tried: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked()
    checked(of=built(digest="sha256:" + "e" * 64))
    assert len(tried.asked) == 2
    checked(again=True)
    assert len(tried.asked) == 3
    monkeypatch.setattr(test, "version", lambda: "00000000")
    assert checked().cached == ""
    assert len(tried.asked) == 4
    assert len(names(folder)) == 3


def test_a_report_covers_the_levels_that_it_has(folder: Path, tried: Checks) -> None:
    checked("smoke", "gpu", "runpod")
    for levels in (("smoke",), ("gpu",), ("runpod", "smoke"), ("gpu", "smoke", "runpod")):
        found = checked(*cast(tuple[Level, ...], levels))
        assert found.cached
        also = {"smoke"} if "gpu" in levels else set()  # one program brings both
        assert {row.level for row in found.report.checks} == {*levels} | also
    assert len(tried.asked) == 1
    assert checked().cached == "", "vast was not among them"
    assert tried.levels[-1] == ("smoke", "runpod", "vast")


def test_what_was_allowed_to_be_skipped_does_not_stand_for_what_was_required(
    folder: Path, tried: Checks
) -> None:
    checked("smoke", "gpu")
    assert checked("smoke", "gpu", require="gpu").cached == ""
    assert checked("smoke", "gpu", require="gpu").cached
    assert checked("smoke", "gpu").cached
    assert len(tried.asked) == 2


def test_a_failure_is_not_remembered(folder: Path, tried: Checks) -> None:
    tried.statuses = ("pass", "fail")
    assert not checked().report.passed
    assert names(folder) == []
    tried.statuses = ("pass",)
    assert checked().report.passed
    assert len(tried.asked) == 2


GOOD: dict[str, object] = {
    "name": "nvcc",
    "status": "pass",
    "detail": "",
    "seconds": 1.0,
    "guards": "",
}
WHOLE: dict[str, object] = {
    "levels": ["smoke", "runpod", "vast"], "required": [], "seconds": 1.0, "engine": "x",
    "at": "2026-11-22T11:40:00Z", "digest": DIGEST, "key": "k", "unpacked_bytes": 1,
    "imagegen": "0", "checks": [GOOD],
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "null", "[]", "3", '"text"', "{}", "\udcff"),
        *(json.dumps({k: v for k, v in WHOLE.items() if k != gone}) for gone in WHOLE),
        json.dumps(WHOLE | {"checks": 3}),
        json.dumps(WHOLE | {"checks": ["nvcc"]}),
        json.dumps(WHOLE | {"checks": [GOOD | {"of another version": "x"}]}),
        json.dumps(WHOLE | {"checks": [{"name": "nvcc"}]}),
        json.dumps(WHOLE | {"checks": [GOOD | {"status": "passed"}]}),
        json.dumps(WHOLE | {"at": "today"}),
        json.dumps(WHOLE | {"seconds": "long"}),
        json.dumps(WHOLE | {"seconds": None}),
        json.dumps(WHOLE | {"levels": None}),
    ],
)
def test_a_report_that_is_broken_or_of_another_version_is_none(
    folder: Path, tried: Checks, text: str
) -> None:
    checked()
    (name,) = names(folder)
    (folder / name).write_text(json.dumps(WHOLE))
    assert checked().cached, "as it should be"
    (folder / name).write_text(text, errors="surrogateescape")
    assert test.kept(folder, built(), ALL) is None
    assert checked().cached == ""
    assert checked().cached, "it was replaced by a good one"


def test_a_broken_one_with_a_gpu_does_not_hide_a_good_one_without(
    folder: Path, tried: Checks
) -> None:
    checked()
    (name,) = names(folder)
    (folder / name.replace("-smoke-", "-gpu-smoke-")).write_text("{")
    assert test.kept(folder, built(), ALL)


class Engine:
    """Has an image."""

    def pulled(self, _ref: str) -> str:
        return DIGEST


def test_an_image_that_nobody_built_here_is_held_to_what_it_says(
    folder: Path, tried: Checks
) -> None:
    asked = Asked(levels=("runpod",))
    engine = cast(Docker, Engine())
    (one,) = test.by_reference(engine, ["somebody/image:1"], asked)
    assert tried.asked == [("somebody/image:1", asked, DIGEST, None)]
    assert (one.name, one.report.digest, one.report.passed) == ("somebody/image:1", DIGEST, True)
    assert one.built is None


def test_an_image_of_others_is_tried_for_the_platforms_unless_levels_are_named(
    folder: Path, tried: Checks
) -> None:
    engine, ref = cast(Docker, Engine()), "somebody/image:1"
    test.by_reference(engine, [ref], Asked())
    test.by_reference(engine, [ref], Asked(required=frozenset({"gpu"})))
    test.by_reference(engine, [ref], Asked(levels=("smoke",)))
    assert tried.levels == [tuple(PLATFORMS), (*PLATFORMS, "gpu"), ("smoke",)]
