"""What is used again: reports of the same bytes by the same checks; and what the demo remembers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from imagegen.build import options
from imagegen.commands import demo
from imagegen.errors import UsageError
from imagegen.matrix import config, resolve
from tests.support.values import DEMO, FACTS, MATRIX, PROJECT


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "imagegen"


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["me/finetune", "ghcr.io/me/x", "localhost:5000/a/b"])
def test_a_repository_is_taken(name: str) -> None:
    assert options.Options(repositories=(name,)).repositories == (name,)


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
        options.Options(repositories=("ghcr.io/me/x", name))
    assert "without tag" in caught.value.hint


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
    target = demo.demo_target(PROJECT, f'PRETTY_NAME="x"\nID={id_}\nVERSION_ID="{version}"\n')
    assert target.os.os.name == os
    assert target.profile == DEMO.profile


def test_a_matrix_without_a_demo_for_it_says_which_ones_there_are() -> None:
    blocks = tuple(
        block.model_copy(update={"os": ("ubuntu24.04",)})
        for block in MATRIX.build
        if "demo" in block.profile
    )
    fewer: config.Matrix = MATRIX.model_copy(update={"build": blocks, "exclude": ()})
    setup = replace(PROJECT, resolution=resolve.resolve(FACTS, fewer))
    with pytest.raises(UsageError, match="has none for debian12") as caught:
        demo.demo_target(setup, 'ID=debian\nVERSION_ID="12"\n')
    assert caught.value.hint.startswith("it runs on ubuntu24.04;")


@pytest.mark.parametrize(
    "text",
    ['ID=fedora\nVERSION_ID="42"\n', 'ID=debian\nVERSION_ID="99"\n', "ID=arch\n", ""],
)
def test_a_distribution_that_nothing_is_known_of_is_a_matter_of_usage(text: str) -> None:
    with pytest.raises(UsageError):
        demo.demo_target(PROJECT, text)
