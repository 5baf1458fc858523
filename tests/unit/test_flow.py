"""What is used again: reports of the same bytes by the same checks; and what the demo remembers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from imagegen import checks, demo, flow, matrix, resolve
from imagegen.engine import Docker
from imagegen.errors import UsageError
from imagegen.model import Built, Report

from .values import DEMO, DIGEST, FACTS, MATRIX, SETUP, built, report


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "imagegen"


class Smoke:
    """Stands in for the checks: gives a report, and counts."""

    def __init__(self, *statuses: Any) -> None:
        self.statuses, self.levels = statuses or ("pass", "skip"), list[bool]()

    def __call__(self, _engine: Docker, of: Built, _say: object, *, gpu: bool) -> Report:
        self.levels.append(gpu)
        return report(*self.statuses, of=of)


@pytest.fixture
def smoke(monkeypatch: pytest.MonkeyPatch) -> Smoke:
    stand_in = Smoke()
    monkeypatch.setattr(checks, "smoke", stand_in)
    return stand_in


def checked(of: Built | None = None, **options: Any) -> Report:
    engine = cast(Docker, None)
    return flow.checked(engine, of or built(), flow.Options(**options), lambda _: None)


def files(cache: Path) -> list[str]:
    return sorted(file.name for file in (cache / "reports").glob("*"))


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "me/finetune", "ghcr.io/me/x", "localhost:5000/a/b"])
def test_a_repository_is_taken(name: str) -> None:
    assert flow.Options(repository=name).repository == name


@pytest.mark.parametrize(
    "name",
    [
        "ghcr.io/me/x:latest",
        "ghcr.io/me/x@sha256:0",
        "https://registry.example/x",
        "me/X",
        "/x",
        " ",
    ],
)
def test_what_is_no_repository_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is not the name of a repository") as caught:
        flow.Options(repository=name)
    assert "without tag" in caught.value.hint


# --- reports --------------------------------------------------------------------------------------


def test_a_report_of_the_same_bytes_is_used_again(cache: Path, smoke: Smoke) -> None:
    first, second = checked(), checked()
    assert smoke.levels == [False]
    assert first.cached == ""
    assert second.cached.startswith(
        "already tested: 1 checks of these bytes on 2"
    )  # one was skipped
    assert "--again" in second.cached
    assert second == replace(first, cached=second.cached)
    digest = DIGEST.removeprefix("sha256:")
    assert files(cache) == [f"{digest}-cpu-{checks.version()}.json"]


def test_other_bytes_other_checks_and_again_are_checked(
    cache: Path, smoke: Smoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked()
    checked(built(digest="sha256:" + "e" * 64))
    assert len(smoke.levels) == 2
    checked(again=True)
    assert len(smoke.levels) == 3
    monkeypatch.setattr(checks, "version", lambda: "00000000")
    assert checked().cached == ""
    assert len(smoke.levels) == 4
    assert len(files(cache)) == 3


def test_a_report_with_a_gpu_covers_both_levels(cache: Path, smoke: Smoke) -> None:
    checked(gpu=True)
    assert checked(gpu=True).cached
    assert checked(gpu=False).cached
    assert smoke.levels == [True]
    assert flow._old_report(built(), gpu=False)
    assert [name.split("-")[1] for name in files(cache)] == ["gpu"]


def test_a_report_without_a_gpu_does_not_cover_one(smoke: Smoke) -> None:
    checked(gpu=False)
    assert flow._old_report(built(), gpu=True) is None
    assert checked(gpu=True).cached == ""
    assert smoke.levels == [False, True]


def test_a_failure_is_not_remembered(cache: Path, smoke: Smoke) -> None:
    smoke.statuses = ("pass", "fail")
    assert not checked().passed
    assert files(cache) == []
    smoke.statuses = ("pass",)
    assert checked().passed
    assert len(smoke.levels) == 2


GOOD = {"name": "nvcc", "status": "pass", "detail": "", "seconds": 1.0, "guards": ""}


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "null", "[]", "3", '"text"', "{}", "\udcff"),
        json.dumps({"seconds": 1.0, "at": 1.0}),
        json.dumps({"seconds": 1.0, "at": 1.0, "checks": 3}),
        json.dumps({"seconds": 1.0, "at": 1.0, "checks": ["nvcc"]}),
        json.dumps({"seconds": 1.0, "at": 1.0, "checks": [GOOD | {"level": "cpu"}]}),
        json.dumps({"seconds": 1.0, "at": 1.0, "checks": [{"name": "nvcc"}]}),
        json.dumps({"seconds": 1.0, "at": "today", "checks": [GOOD]}),
        json.dumps({"seconds": "long", "at": 1.0, "checks": [GOOD]}),
        json.dumps({"seconds": None, "at": 1.0, "checks": [GOOD]}),
    ],
)
def test_a_report_that_is_broken_or_of_another_version_is_none(smoke: Smoke, text: str) -> None:
    checked()
    file = flow._report_file(built(), gpu=False)
    file.write_text(text, errors="surrogateescape")
    assert flow._old_report(built(), gpu=False) is None
    assert checked().cached == ""
    assert checked().cached, "it was replaced by a good one"


def test_a_broken_one_with_a_gpu_does_not_hide_a_good_one_without(smoke: Smoke) -> None:
    checked()
    flow._report_file(built(), gpu=True).write_text("{")
    assert flow._old_report(built(), gpu=False)


def test_a_file_changes_only_when_its_writing_ends_well(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text("before")
    with pytest.raises(KeyboardInterrupt), flow._replaced(file) as new:
        new.write_text("ha")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert file.read_text() == "before"
    with flow._replaced(file) as new:
        new.write_text("after")
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert file.read_text() == "after"


# --- the demo -------------------------------------------------------------------------------------


def test_what_undoes_an_installation_is_remembered_with_the_newest_first(cache: Path) -> None:
    file = cache / "undo"
    assert demo.remembered(file, ()) == ()
    assert not file.exists()
    assert demo.remembered(file, ("apt-get purge a", "rm b")) == ("apt-get purge a", "rm b")
    assert demo.remembered(file, ()) == ("apt-get purge a", "rm b")
    assert demo.remembered(file, ("rm c",)) == ("rm c", "apt-get purge a", "rm b")
    assert demo.remembered(file, ()) == ("rm c", "apt-get purge a", "rm b")


@pytest.mark.parametrize(
    ("id_", "version", "os"),
    [
        ("debian", "12", "debian12"),
        ("ubuntu", "22.04", "ubuntu22.04"),
        ("ubuntu", "24.04", "ubuntu24.04"),
    ],
)
def test_the_demo_is_of_this_machines_distribution(id_: str, version: str, os: str) -> None:
    it = demo.demo_target(SETUP, f'PRETTY_NAME="x"\nID={id_}\nVERSION_ID="{version}"\n')
    assert it.os.os.name == os
    assert it.profile == DEMO.profile


def test_a_matrix_without_a_demo_for_it_says_which_ones_there_are() -> None:
    blocks = tuple(
        block.model_copy(update={"os": ("ubuntu24.04",)})
        for block in MATRIX.build
        if "demo" in block.profile
    )
    fewer: matrix.Matrix = MATRIX.model_copy(update={"build": blocks, "exclude": ()})
    setup = replace(SETUP, resolution=resolve.resolve(FACTS, fewer))
    with pytest.raises(UsageError, match="has none for debian12") as caught:
        demo.demo_target(setup, 'ID=debian\nVERSION_ID="12"\n')
    assert caught.value.hint.startswith("it runs on ubuntu24.04;")


@pytest.mark.parametrize(
    "text",
    ['ID=fedora\nVERSION_ID="42"\n', 'ID=debian\nVERSION_ID="99"\n', "ID=arch\n", ""],
)
def test_a_distribution_that_nothing_is_known_of_is_a_matter_of_usage(text: str) -> None:
    with pytest.raises(UsageError):
        demo.demo_target(SETUP, text)
