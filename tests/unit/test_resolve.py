"""Resolution: laws over parts of the facts and of the axes, and the committed matrix's answers."""

from __future__ import annotations

import random
import re
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from imagegen import bake
from imagegen.errors import FactsError, NothingSelected
from imagegen.facts import Facts
from imagegen.matrix import Axes, Exclude, Matrix
from imagegen.model import Target, minor
from imagegen.resolve import Combination, Resolution, resolve

from .values import FACTS, MATRIX, RESOLUTION

OS = tuple(row.os.name for row in FACTS.os)
CUDA = tuple(Version(minor(row.version)) for row in FACTS.cuda)
TORCH = tuple(Version(minor(row.version)) for row in FACTS.torch)
PROFILE = tuple(MATRIX.profile)
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
RUNPOD = re.compile(r"\bcu(?:da)?(\d{2})(\d)(\d)\b")
"""What RunPod's smoke test reads the CUDA version from."""


def crossed(
    os: tuple[str, ...] = OS,
    cuda: tuple[Version, ...] = CUDA,
    torch: tuple[Version, ...] = TORCH,
    profile: tuple[str, ...] = PROFILE,
    exclude: tuple[Exclude, ...] = (),
) -> Matrix:
    block = Axes(os=os, cuda=cuda, torch=torch, profile=profile)
    return MATRIX.model_copy(update={"build": (block,), "exclude": exclude})


WHOLE = resolve(FACTS, crossed())


def ids(resolution: Resolution) -> list[str]:
    return [target.id for target in resolution.targets]


def some(values: tuple[Any, ...], least: int = 1) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(values), min_size=least, unique=True).map(tuple)


axes = st.fixed_dictionaries(
    {"os": some(OS), "cuda": some(CUDA), "torch": some(TORCH), "profile": some(PROFILE)}
)
excludes = st.builds(
    Exclude,
    reason=st.just("a law is tested with it"),
    os=some(OS, 0),
    cuda=some(CUDA, 0),
    torch=some(TORCH, 0),
    profile=some(PROFILE, 0),
)


@st.composite
def parts_of_the_facts(draw: st.DrawFn) -> Facts:
    """The facts, with fewer builds, Pythons, base images and architectures known."""
    torch = tuple(
        row.model_copy(
            update={"cuda": draw(some(row.cuda, 0)), "pythons": draw(some(row.pythons, 0))}
        )
        for row in FACTS.torch
    )
    cuda = tuple(row.model_copy(update={"base": draw(some(row.base, 0))}) for row in FACTS.cuda)
    return FACTS.model_copy(update={"torch": torch, "cuda": cuda})


# --- laws -----------------------------------------------------------------------------------------


@given(axes)
def test_a_part_of_the_axes_gives_a_part_of_the_targets(part: dict[str, Any]) -> None:
    assert set(resolve(FACTS, crossed(**part)).targets) <= set(WHOLE.targets)


@given(parts_of_the_facts())
def test_a_part_of_the_facts_gives_a_part_of_the_targets(facts: Facts) -> None:
    found = resolve(facts, crossed())
    assert set(found.targets) <= set(WHOLE.targets)
    assert len(found.targets) + len(found.left_out) == len(WHOLE.targets) + len(WHOLE.left_out)


@given(axes, st.lists(excludes, max_size=4), excludes)
def test_another_exclude_never_adds_a_target(
    part: dict[str, Any], before: list[Exclude], another: Exclude
) -> None:
    fewer = resolve(FACTS, crossed(**part, exclude=(*before, another)))
    more = resolve(FACTS, crossed(**part, exclude=tuple(before)))
    assert set(fewer.targets) <= set(more.targets)


@given(axes, st.lists(excludes, max_size=3), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_axes_does_not_matter(
    part: dict[str, Any], left_out: list[Exclude], chance: random.Random
) -> None:
    def shuffled(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(chance.sample(values, len(values)))

    rows = {name: shuffled(getattr(FACTS, name)) for name in ("torch", "cuda", "os", "flash_attn")}
    mixed = {name: shuffled(values) for name, values in part.items()}
    one = resolve(FACTS, crossed(**part, exclude=tuple(left_out)))
    other = resolve(
        FACTS.model_copy(update=rows), crossed(**mixed, exclude=shuffled(tuple(left_out)))
    )
    assert other.targets == one.targets
    assert [row.id for row in other.left_out] == [row.id for row in one.left_out]


@given(axes, st.lists(excludes, max_size=3))
def test_every_combination_is_a_target_or_has_a_reason(
    part: dict[str, Any], left_out: list[Exclude]
) -> None:
    found = resolve(FACTS, crossed(**part, exclude=tuple(left_out)))
    names = [*ids(found), *(row.id for row in found.left_out)]
    assert len(names) == len(set(names)) == len(list(product(*part.values())))
    assert all(row.reason.strip() and row.source.strip() for row in found.left_out)
    assert list(found.targets) == sorted(found.targets)


@given(axes)
def test_blocks_can_be_split(part: dict[str, Any]) -> None:
    whole = resolve(FACTS, crossed(**part))
    blocks = tuple(Axes(**(part | {"os": (os,)})) for os in part["os"])
    split = resolve(FACTS, MATRIX.model_copy(update={"build": blocks, "exclude": ()}))
    assert split.targets == whole.targets
    assert split.left_out == whole.left_out


# --- names ----------------------------------------------------------------------------------------


def every_target() -> list[Target]:
    return [*dict.fromkeys([*RESOLUTION.targets, *WHOLE.targets])]


def test_ids_tags_and_bake_names_are_unique() -> None:
    for resolution in (RESOLUTION, WHOLE):
        targets = resolution.targets
        for names in (
            [t.id for t in targets],
            [t.tag for t in targets],
            [bake.name(t) for t in targets],
        ):
            assert len(names) == len(set(names))


@pytest.mark.parametrize("target", every_target(), ids=lambda t: t.id)
def test_a_tag_is_valid_and_says_its_cuda_twice(target: Target) -> None:
    for tag in (target.tag, f"{target.tag}-{'0' * 12}"):
        assert TAG.fullmatch(tag)
        assert len(tag) <= 128
        found = RUNPOD.search(tag)
        assert found, tag
        assert f"{found[1]}.{found[2]}.{found[3]}" == str(target.cuda)
        assert re.search(r"(?<![a-z0-9])cuda-" + re.escape(minor(target.cuda)) + r"(?!\d)", tag)
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*", target.id), "it is a folder's name, too"


# --- versions are no texts ------------------------------------------------------------------------


def with_newer() -> Facts:
    """The facts with a CUDA 12.10 that torch 2.10 and 2.13 are built for, and its base images."""
    old = next(row for row in FACTS.cuda if minor(row.version) == "12.9")
    base = tuple(b.model_copy(update={"tag": b.tag.replace("12.9.1", "12.10.0")}) for b in old.base)
    new = old.model_copy(update={"version": Version("12.10.0"), "base": base})
    torch = tuple(
        row.model_copy(update={"cuda": (*row.cuda, Version("12.10"))})
        if minor(row.version) in ("2.9", "2.10")
        else row
        for row in FACTS.torch
    )
    return FACTS.model_copy(update={"cuda": (new, *FACTS.cuda), "torch": torch})


def test_12_10_is_newer_than_12_9_and_2_10_than_2_9() -> None:
    cuda = (Version("12.10"), Version("12.9"))
    torch = (Version("2.10"), Version("2.9"))
    found = resolve(with_newer(), crossed(("ubuntu24.04",), cuda, torch, ("devel",)))
    assert [(minor(t.cuda), minor(t.torch)) for t in found.targets] == [
        ("12.9", "2.9"),
        ("12.9", "2.10"),
        ("12.10", "2.9"),
        ("12.10", "2.10"),
    ]
    # As texts, 12.10 is older than 12.8, where the newest architectures begin.
    assert {t.flash_attn.archs for t in found.targets} == {(80, 90, 100, 120)}


def test_what_is_left_out_is_sorted_by_version_too() -> None:
    found = resolve(FACTS, crossed(("ubuntu24.04",), (Version("13.0"),), TORCH, ("devel",)))
    assert [row.id.split("-")[2] for row in found.left_out] == ["torch2.6", "torch2.7", "torch2.8"]


def test_a_glibc_is_compared_as_a_version() -> None:
    rows = tuple(row.model_copy(update={"glibc": Version("2.9")}) for row in FACTS.os)
    found = resolve(FACTS.model_copy(update={"os": rows}), crossed())
    assert set(found.targets) == set(WHOLE.targets)


# --- the rules ------------------------------------------------------------------------------------


def reason(facts: Facts, *names: str) -> str:
    """Why the one combination of (os, cuda, torch, profile) is left out."""
    os, cuda, torch, profile = names
    found = resolve(facts, crossed((os,), (Version(cuda),), (Version(torch),), (profile,)))
    assert not found.targets
    return found.left_out[0].reason


def changed(table: str, **values: Any) -> Facts:
    rows = tuple(row.model_copy(update=values) for row in getattr(FACTS, table))
    return FACTS.model_copy(update={table: rows})


@pytest.mark.parametrize(
    ("facts", "names", "words"),
    [
        (
            FACTS,
            ("ubuntu24.04", "12.8", "2.6", "slim"),
            "torch 2.6.0 has no build for CUDA 12.8 (has 11.8, 12.4, 12.6)",
        ),
        (
            changed("torch", pythons=(Version("3.9"), Version("3.13"))),
            ("ubuntu24.04", "13.0", "2.11", "slim"),
            "torch 2.11.0 has no wheel for Python 3.12",
        ),
        (
            FACTS,
            ("debian12", "12.8", "2.8", "devel"),
            "no nvidia/cuda base image known for CUDA 12.8.1, devel, debian12",
        ),
        (
            changed("cuda", gcc_max=12),
            ("ubuntu24.04", "13.0", "2.11", "slim"),
            "nvcc 13.0 takes gcc up to 12, not 13",
        ),
        (
            changed("cuda", glibc_max=Version("2.38")),
            ("ubuntu24.04", "13.0", "2.11", "slim"),
            "nvcc 13.0 compiles with glibc up to 2.38, not 2.39",
        ),
        (
            changed("flash_attn", archs={90: Version("11.8")}),
            ("ubuntu24.04", "13.0", "2.11", "demo"),
            "flash-attn 2.8.3.post2 has no architecture 80 (has 90)",
        ),
        (
            changed("flash_attn", archs={80: Version("13.10")}),
            ("ubuntu24.04", "13.0", "2.11", "demo"),
            "architecture 80 needs CUDA 13.10, not 13.0",
        ),
    ],
)
def test_an_impossible_combination_says_both_sides(
    facts: Facts, names: tuple[str, ...], words: str
) -> None:
    assert reason(facts, *names) == words


def test_an_excluded_one_says_the_matrix_reason() -> None:
    row = Exclude(reason="nobody wants it here", torch=(Version("2.11"),), profile=("slim",))
    found = resolve(FACTS, crossed(("ubuntu24.04",), exclude=(row,)))
    out = [r for r in found.left_out if r.source == "matrix.toml"]
    assert out
    assert {r.reason for r in out} == {"nobody wants it here"}
    assert all("torch2.11" in r.id and r.id.endswith("-slim") for r in out)


def test_a_fact_is_told_before_a_wish() -> None:
    row = Exclude(reason="everything is excluded")
    found = resolve(FACTS, crossed(("ubuntu24.04",), exclude=(row,)))
    assert not found.targets
    assert any("has no build for CUDA" in r.reason for r in found.left_out)


def test_a_target_that_two_blocks_declare_is_a_fault() -> None:
    block = MATRIX.build[0]
    with pytest.raises(FactsError, match="is declared by two build blocks"):
        resolve(FACTS, MATRIX.model_copy(update={"build": (block, block)}))


def test_slim_takes_cuda_13_from_wheels_and_cuda_12_from_an_image() -> None:
    for it in WHOLE.combinations:
        assert it.wheels == (it.kind == "slim" and it.cuda.version.major >= 13)
        assert (it.base is None) == it.wheels
        if it.wheels and it.torch.toolkit:
            assert it.target().cuda == it.torch.toolkit


# --- the committed matrix -------------------------------------------------------------------------


def expected() -> list[tuple[str, str, str]]:
    """Every (Ubuntu LTS, CUDA, torch) that the facts allow."""
    rows = []
    for os, cuda, torch in product(
        ("ubuntu22.04", "ubuntu24.04"),
        ("12.6", "12.8", "12.9", "13.0"),
        ("2.6", "2.7", "2.8", "2.9", "2.10", "2.11", "2.12", "2.13"),
    ):
        fact = FACTS.torch_minor(Version(torch))
        assert fact, f"no facts about torch {torch}"
        if cuda in map(minor, fact.cuda):
            rows.append((os, cuda, torch))
    return rows


@pytest.mark.parametrize(("os", "cuda", "torch"), expected())
def test_the_matrix_covers_what_people_need(os: str, cuda: str, torch: str) -> None:
    start = f"{os}-cuda{cuda}-torch{torch}-"
    assert any(target.id.startswith(start) for target in RESOLUTION.targets)


def test_each_cuda_and_each_torch_is_there_for_some_target() -> None:
    targets = RESOLUTION.targets
    assert {minor(t.cuda) for t in targets} >= {"12.6", "12.8", "12.9", "13.0"}
    assert {minor(t.torch) for t in targets} >= {f"2.{i}" for i in range(6, 14)}
    assert len(expected()) >= 40


# --- SELECT ---------------------------------------------------------------------------------------


def refused(pattern: str) -> NothingSelected:
    with pytest.raises(NothingSelected) as caught:
        RESOLUTION.select(["*", pattern])
    assert repr(pattern) in str(caught.value)
    assert caught.value.exit_code == 4
    return caught.value


def test_nothing_given_selects_everything() -> None:
    assert RESOLUTION.select(()) == RESOLUTION.combinations


def test_globs_are_joined_and_the_order_stays() -> None:
    found = RESOLUTION.select(["*-demo", "*torch2.13*-slim", "*-demo"])
    assert found == tuple(
        it
        for it in RESOLUTION.combinations
        if it.profile == "demo" or (it.profile == "slim" and minor(it.torch.version) == "2.13")
    )
    assert len(found) > 3


@given(some(tuple(ids(RESOLUTION))))
def test_ids_select_themselves(chosen: tuple[str, ...]) -> None:
    found: tuple[Combination, ...] = RESOLUTION.select(chosen)
    assert {it.id for it in found} == set(chosen)


def near(pattern: str) -> list[str]:
    hint = refused(pattern).hint
    assert hint.startswith("near: ")
    return hint.removeprefix("near: ").split(", ")


def test_an_unknown_one_gives_the_nearest_ids() -> None:
    wanted = RESOLUTION.targets[-1].id
    found = near(wanted.replace("torch", "troch"))
    assert found[0] == wanted
    assert len(found) <= 3
    assert set(found) <= set(ids(RESOLUTION))


def test_a_part_of_an_id_without_stars_gives_ids_that_hold_it() -> None:
    assert near("py3.11-demo") == [id_ for id_ in ids(RESOLUTION) if "py3.11-demo" in id_]
    assert all("cuda12.9" in id_ for id_ in near("cuda12.9"))


def test_one_that_is_left_out_says_why() -> None:
    for row in RESOLUTION.left_out:
        assert refused(row.id).hint == f"{row.id} is left out: {row.reason}"
    hint = refused("ubuntu22.04-*-torch2.10-*-slim").hint
    assert "is left out: " in hint


def test_one_that_is_like_nothing_says_where_to_look() -> None:
    assert refused("zzzzzz").hint == "imagegen list shows every id"
