"""Options of the command line are fields of groups; those of a build reach it by their names."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from imagegen.build.options import Options
from imagegen.cli.options import (
    BuildOptions,
    CheckOptions,
    ImageOptions,
    Level,
    MirrorOptions,
    Needed,
    NetworkOptions,
    PublishedOptions,
    StoreOptions,
    build_options,
    grouped,
)
from imagegen.errors import UsageError
from imagegen.net.settings import Network
from imagegen.platforms import PLATFORMS

# --- a group --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Place:
    """A group."""

    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where.", envvar="PLACE")] = Path(
        "."
    )


@dataclass(frozen=True, kw_only=True)
class Manner(Place):
    """A group that has another one's fields, too."""

    how: Annotated[Literal["fast", "well"], typer.Option("--manner", help="How.")] = "well"
    names: Annotated[list[str] | None, typer.Option("--name", help="Who.")] = None


@pytest.fixture
def app() -> tuple[typer.Typer, list[object]]:
    """A program with one command, and what the command got."""
    program, got = typer.Typer(), list[object]()

    @program.command()
    @grouped
    def act(
        *,
        what: Annotated[str, typer.Argument(help="What.")],
        manner: Manner,
        loud: Annotated[bool, typer.Option("--loud", help="Loudly.")] = False,
    ) -> None:
        """Do it."""
        got.extend((what, manner, loud))

    return program, got


def test_a_command_gets_groups_as_values(app: tuple[typer.Typer, list[object]]) -> None:
    program, got = app
    words = ["it", "--manner", "fast", "--name", "a", "--name", "b", "--loud"]
    done = CliRunner().invoke(program, words, env={"PLACE": "/there"})
    assert done.exit_code == 0, done.output
    assert got == ["it", Manner(folder=Path("/there"), how="fast", names=["a", "b"]), True]


def test_a_field_that_is_not_given_has_its_default(app: tuple[typer.Typer, list[object]]) -> None:
    program, got = app
    assert CliRunner().invoke(program, ["it"]).exit_code == 0
    assert got == ["it", Manner(), False]


def test_the_help_has_the_fields_in_the_place_of_their_group(
    app: tuple[typer.Typer, list[object]],
) -> None:
    text = CliRunner().invoke(app[0], ["--help"], env={"COLUMNS": "200"}).output
    assert "Do it." in text
    places = [text.index(word) for word in ("--folder", "--manner", "--name", "--loud")]
    assert places == sorted(places)
    for word in ("FOLDER", "Where.", "PLACE", "fast", "well"):
        assert word in text
    assert CliRunner().invoke(app[0], ["it", "--manner", "slowly"]).exit_code == 2


# --- a build --------------------------------------------------------------------------------------

GROUPS = (StoreOptions, ImageOptions, PublishedOptions, BuildOptions)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_a_group_of_a_build_says_nothing_where_nothing_is_typed(
    group: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAX_JOBS", raising=False)
    assert build_options(group()) == Options()


def test_every_option_of_a_build_has_its_name_there() -> None:
    names = {field.name for group in GROUPS for field in fields(group)}
    assert names <= {field.name for field in fields(Options)}
    network = {field.name for field in fields(NetworkOptions)}
    assert network == {field.name for field in fields(Network)}


def test_what_is_typed_reaches_the_build() -> None:
    making = BuildOptions(
        base="bootstrap", compression="gzip", wheels="./w", jobs=3, no_source=True, force=True,
        repositories=["a.example/x", "b.example/x", "a.example/x"], builder="b", fresh_base=True,
    )  # fmt: skip
    network = MirrorOptions(apt_mirror="https://m.example", registry="r.example")
    assert build_options(making, network=network, keep_going=True) == Options(
        base="bootstrap", compression="gzip", wheels="./w", jobs=3, no_source=True, force=True,
        repositories=("a.example/x", "b.example/x"), builder="b", fresh_base=True, keep_going=True,
        network=Network(apt_mirror="https://m.example", registry="r.example"),
    )  # fmt: skip


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="--repository: A/B is not"):
        build_options(PublishedOptions(repositories=["A/B"]))
    with pytest.raises(UsageError, match="--pypi-index: not a URL"):
        NetworkOptions(pypi_index="somewhere").settings()


@pytest.mark.parametrize(("others", "jobs"), [("4", 4), ("many", 0), ("", 0)])
def test_what_is_set_for_every_other_build_counts_where_nothing_is_typed(
    monkeypatch: pytest.MonkeyPatch, others: str, jobs: int
) -> None:
    monkeypatch.setenv("MAX_JOBS", others)
    assert build_options().jobs == jobs
    assert build_options(BuildOptions(jobs=2)).jobs == 2


def test_levels() -> None:
    assert CheckOptions().asked().levels == ()  # all that need no GPU
    assert [*Level] == ["smoke", "gpu", *PLATFORMS]
    asked = CheckOptions(require=[Needed.gpu]).asked([Level.smoke, Level.smoke])
    assert (asked.levels, asked.required) == (("smoke", "gpu"), {"gpu"})
