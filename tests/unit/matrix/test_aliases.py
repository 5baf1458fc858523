"""Moving tags: each points to exactly one target, or the workspace does not load."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from packaging.version import Version

from imagegen.matrix.aliases import TAG, computed
from imagegen.matrix.config import Alias
from imagegen.model.target import Target, minor
from tests.support.values import DEMO, MATRIX, PROJECT, RESOLUTION


def target(torch: str, cuda: str = "13.0.2", **values: Any) -> Target:
    return replace(DEMO, torch=Version(torch), cuda=Version(cuda), **values)


SOME = [
    target("2.9.1", "12.10.0"),
    target("2.10.0", "12.9.1"),
    target("2.10.0", "12.10.0"),
    target("2.10.0", "12.9.1", profile="slim"),
]


def faults(*rows: Alias, of: list[Target] | None = None) -> list[str]:
    _, lines = computed(rows, SOME if of is None else of)
    assert lines
    return lines


def alias(name: str, select: str = "*", *, newest: bool = False) -> Alias:
    return Alias(name=name, select=select, newest=newest)


# --- where one points to --------------------------------------------------------------------------


def test_the_newest_is_the_newest_by_version_and_not_as_a_text() -> None:
    """As texts, 2.9 is newer than 2.10, and 12.9 than 12.10."""
    found, lines = computed([alias("latest", "*-demo", newest=True)], SOME)
    assert lines == []
    assert found == {"latest": SOME[2].id}


def test_torch_goes_before_cuda() -> None:
    rows = [target("2.10.0", "12.6.3"), target("2.9.1", "13.0.2")]
    for order in (rows, rows[::-1]):
        assert computed([alias("latest", newest=True)], order) == ({"latest": rows[0].id}, [])


def test_the_newest_patch_is_taken() -> None:
    """As texts, 2.9.9 is newer than 2.9.10."""
    other = replace(DEMO.os, distribution="ubuntu", version=Version("24.04"))
    rows = [target("2.9.10", os=other), target("2.9.9")]
    assert computed([alias("latest", newest=True)], rows)[0] == {"latest": rows[0].id}


def test_each_placeholder_is_the_targets_own() -> None:
    found, lines = computed([alias("{os}_{cuda}_{torch}_{python}_{profile}")], SOME)
    assert lines == []
    assert found == {
        f"debian12_{minor(t.cuda)}_{minor(t.torch)}_3.11_{t.profile}": t.id for t in SOME
    }


def test_a_group_for_each_name_and_the_newest_of_each() -> None:
    found, lines = computed([alias("torch{torch}", "*-demo", newest=True)], SOME)
    assert lines == []
    assert found == {"torch2.9": SOME[0].id, "torch2.10": SOME[2].id}


def test_without_aliases_there_are_none() -> None:
    assert computed([], SOME) == ({}, [])


# --- faults ---------------------------------------------------------------------------------------


def test_one_that_points_to_nothing() -> None:
    assert faults(alias("latest", "*-devel", newest=True)) == [
        "alias.0: latest points to nothing: no target matches '*-devel'"
    ]
    assert faults(alias("latest"), of=[]) == [
        "alias.0: latest points to nothing: no target matches '*'"
    ]


def test_one_that_points_to_two() -> None:
    assert faults(alias("torch{torch}", "*-demo")) == [
        f"alias.0: torch{{torch}} points to 2 targets: torch2.10 is {SOME[1].id} and {SOME[2].id}"
    ]
    assert faults(alias("latest")) == [
        f"alias.0: latest points to 4 targets: latest is {SOME[0].id} and {SOME[1].id}"
    ]


def test_the_newest_of_two_profiles_is_two() -> None:
    rows = [SOME[1], SOME[3]]
    assert faults(alias("latest", newest=True), of=rows) == [
        f"alias.0: latest points to 2 targets: latest is {rows[0].id} and {rows[1].id}"
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("x{ubuntu}", "x{}", "x{0}", "x{", "x}", "x{torch:zzz}", "x{torch!x}"),
        *("x{torch.digits}", "x{torch[minor]}"),
    ],
)
def test_one_with_a_bad_placeholder(name: str) -> None:
    found, lines = computed([alias(name)], SOME)
    assert found == {}
    (line,) = lines
    assert line.startswith(f"alias.0: {name}: no such placeholder: ")


@pytest.mark.parametrize(
    "name", ["la test", ".latest", "-x", "a/b", "a:b", "ü", "{os}+x", "x" * 129]
)
def test_one_that_is_not_a_tag(name: str) -> None:
    (line,) = faults(alias(name), of=[DEMO])
    written = name.replace("{os}", "debian12")
    assert line == f"alias.0: {name}: {written!r} is not a tag"


@pytest.mark.parametrize("name", ["latest", "_x", "2.11", "A-b_c.d", "x" * 128])
def test_one_that_is(name: str) -> None:
    assert computed([alias(name)], [DEMO]) == ({name: DEMO.id}, [])


def test_one_that_is_the_name_of_a_targets_own_tag() -> None:
    other = target("2.9.1")
    assert faults(alias(other.tag, DEMO.id), of=[DEMO, other]) == [
        f"alias.0: {other.tag}: {other.tag} is taken"
    ]


def test_one_that_is_the_name_of_another() -> None:
    rows = [alias("latest", SOME[0].id), alias("{profile}", SOME[0].id), alias("demo", SOME[2].id)]
    found, lines = computed(rows, SOME)
    assert lines == ["alias.2: demo: demo is taken"]
    assert found == {"latest": SOME[0].id, "demo": SOME[0].id}, "the first one has it"


def test_all_faults_are_told_at_once_and_the_good_ones_are_kept() -> None:
    rows = [alias("a", "nothing"), alias("b"), alias("c{d}"), alias("e!", SOME[0].id)]
    found, lines = computed([*rows, alias("good", SOME[0].id)], SOME)
    assert [line.split(":")[0] for line in lines] == [f"alias.{i}" for i in range(4)]
    assert found == {"good": SOME[0].id}


# --- the committed ones ---------------------------------------------------------------------------


def test_each_committed_alias_is_one_existing_target() -> None:
    targets = {t.id: t for t in RESOLUTION.targets}
    found, lines = computed(MATRIX.alias, RESOLUTION.targets)
    assert lines == []
    assert found == PROJECT.aliases
    assert set(found.values()) <= set(targets)
    assert all(TAG.fullmatch(name) for name in found)
    assert not set(found) & {t.tag for t in targets.values()}


def test_latest_is_the_newest_slim_target() -> None:
    slim = [t for t in RESOLUTION.targets if t.profile == "slim"]
    newest = max(slim, key=lambda t: (t.torch, t.cuda))
    assert PROJECT.aliases["latest"] == newest.id
    assert PROJECT.aliases[f"torch{minor(newest.torch)}"] == newest.id
    assert PROJECT.aliases[f"torch{minor(newest.torch)}-cuda-{minor(newest.cuda)}"] == newest.id


def test_every_slim_target_has_an_alias_with_its_cuda() -> None:
    for target in RESOLUTION.targets:
        if target.profile == "slim":
            assert (
                PROJECT.aliases[f"torch{minor(target.torch)}-cuda-{minor(target.cuda)}"]
                == target.id
            )
    assert PROJECT.aliases["torch2.10"] != PROJECT.aliases["torch2.9"]
