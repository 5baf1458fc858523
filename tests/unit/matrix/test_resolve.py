"""Resolution: laws over parts of the facts and of the axes, and the committed matrix's answers."""

from __future__ import annotations

import random
import re
import shutil
from dataclasses import fields
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from imagegen.build import bake
from imagegen.commands import files
from imagegen.compat.facts.rows import CudaFact
from imagegen.compat.facts.tables import Facts
from imagegen.compat.rules.table import RULES
from imagegen.compat.solver import Combination, judged
from imagegen.errors import FactsError, NothingSelected, StaleFiles
from imagegen.matrix import project, resolve
from imagegen.matrix.config import Axes, Exclude, Matrix
from imagegen.matrix.resolve import Candidate, LeftOut, Resolution
from imagegen.model.target import FlashAttn, Python, Target, minor
from imagegen.plan import dockerfile, image, pins
from imagegen.plan import recipe as recipe_
from tests.support.laws import for_all
from tests.support.values import FACTS, MATRIX, PROJECT, RESOLUTION


def minors(rows: tuple[Any, ...]) -> tuple[Version, ...]:
    """Each minor once: 2.9 and not 2.9.0 and 2.9.1, which would be the same targets."""
    return tuple(dict.fromkeys(Version(minor(row.version)) for row in rows))


OS = tuple(row.os.name for row in FACTS.os)
CUDA = minors(FACTS.cuda)
TORCH = minors(FACTS.torch)
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
    return MATRIX.model_copy(update={"build": (block,), "exclude": exclude, "alias": ()})


def versions(*words: str) -> tuple[Version, ...]:
    return tuple(map(Version, words))


WHOLE = resolve.resolve(FACTS, crossed())
BOLD = resolve.resolve(FACTS, crossed(), allow_unknown=True)
"""The same with what no fact confirms."""
LEFT_OUT = {row.id: row for row in WHOLE.left_out}


def ids(resolution: Resolution) -> list[str]:
    return [target.id for target in resolution.targets]


def some(
    values: tuple[Any, ...], least: int = 1, most: int | None = None
) -> st.SearchStrategy[tuple[Any, ...]]:
    lists = st.lists(st.sampled_from(values), min_size=least, max_size=most, unique=True)
    return lists.map(tuple)


axes = st.fixed_dictionaries(
    {
        "os": some(OS, most=2),
        "cuda": some(CUDA, most=3),
        "torch": some(TORCH, most=3),
        "profile": some(PROFILE),
    }
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
    """The facts, with fewer builds, Pythons and base images known."""

    def part(values: tuple[Any, ...], chance: random.Random) -> tuple[Any, ...]:
        return tuple(value for value in values if chance.random() < kept)

    kept = draw(st.sampled_from((0.2, 0.5, 0.8, 0.95)))
    chance = draw(st.randoms(use_true_random=False))
    torch = tuple(
        row.model_copy(
            update={
                "build": part(row.build, chance),
                "pythons": part(row.pythons, chance),
                "index_pythons": part(row.index_pythons, chance),
            }
        )
        for row in FACTS.torch
    )
    cuda = tuple(row.model_copy(update={"base": part(row.base, chance)}) for row in FACTS.cuda)
    return FACTS.model_copy(update={"torch": torch, "cuda": cuda})


# --- laws -----------------------------------------------------------------------------------------


@given(axes)
def test_a_part_of_the_axes_gives_a_part_of_the_targets(part: dict[str, Any]) -> None:
    found = resolve.resolve(FACTS, crossed(**part))
    assert set(found.targets) <= set(WHOLE.targets)
    assert all(row == LEFT_OUT[row.id] for row in found.left_out)


@given(parts_of_the_facts(), axes)
def test_a_part_of_the_facts_gives_a_part_of_the_targets(
    facts: Facts, part: dict[str, Any]
) -> None:
    """By id: with fewer facts about 2.9.1, 2.9.0 may take its place."""
    found, all_facts = (resolve.resolve(f, crossed(**part)) for f in (facts, FACTS))
    assert set(ids(found)) <= set(ids(all_facts))
    assert len(found.targets) + len(found.left_out) == len(list(product(*part.values())))


@given(axes, st.lists(excludes, max_size=4), excludes, st.booleans())
def test_another_exclude_never_adds_a_target(
    part: dict[str, Any], before: list[Exclude], another: Exclude, bold: bool
) -> None:
    with_it = crossed(**part, exclude=(*before, another))
    fewer = resolve.resolve(FACTS, with_it, allow_unknown=bold)
    more = resolve.resolve(FACTS, crossed(**part, exclude=tuple(before)), allow_unknown=bold)
    assert set(fewer.targets) <= set(more.targets)


@given(axes, st.lists(excludes, max_size=3), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_axes_does_not_matter(
    part: dict[str, Any], left_out: list[Exclude], chance: random.Random
) -> None:
    def shuffled(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(chance.sample(values, len(values)))

    rows: dict[str, Any] = {
        name: shuffled(getattr(FACTS, name)) for name in ("os", "flash_attn", "gpu")
    }
    for name, inner in (("torch", "build"), ("cuda", "base")):
        rows[name] = shuffled(
            tuple(
                row.model_copy(update={inner: shuffled(getattr(row, inner))})
                for row in getattr(FACTS, name)
            )
        )
    mixed = {name: shuffled(values) for name, values in part.items()}
    one = resolve.resolve(FACTS, crossed(**part, exclude=tuple(left_out)))
    other = resolve.resolve(
        FACTS.model_copy(update=rows), crossed(**mixed, exclude=shuffled(tuple(left_out)))
    )
    assert other.targets == one.targets
    # Texts may list what a release has in the order of its rows.
    assert [gist(row) for row in other.left_out] == [gist(row) for row in one.left_out]


def gist(row: LeftOut) -> tuple[str, bool, tuple[str, ...]]:
    return row.id, row.excluded, tuple(reason.code for reason in row.reasons)


@given(axes, st.lists(excludes, max_size=3), st.booleans())
def test_every_combination_is_a_target_or_has_a_reason(
    part: dict[str, Any], left_out: list[Exclude], bold: bool
) -> None:
    matrix = crossed(**part, exclude=tuple(left_out))
    found = resolve.resolve(FACTS, matrix, allow_unknown=bold)
    names = [*ids(found), *(row.id for row in found.left_out)]
    assert len(names) == len(set(names)) == len(list(product(*part.values())))
    for row in found.left_out:
        assert row.reasons
        assert all(reason.text.strip() and reason.source.strip() for reason in row.reasons)
        assert (row.reason, row.source) == (row.reasons[0].text, row.reasons[0].source)
        assert row.excluded == ([r.code for r in row.reasons] == ["excluded"])
        assert len({reason.severity for reason in row.reasons}) == 1
    assert list(found.targets) == sorted(found.targets)


@given(axes)
def test_blocks_can_be_split(part: dict[str, Any]) -> None:
    whole = resolve.resolve(FACTS, crossed(**part))
    blocks = tuple(Axes(**(part | {"os": (os,)})) for os in part["os"])
    matrix = MATRIX.model_copy(update={"build": blocks, "exclude": (), "alias": ()})
    split = resolve.resolve(FACTS, matrix)
    assert split.targets == whole.targets
    assert split.left_out == whole.left_out


@pytest.mark.parametrize("resolution", [RESOLUTION, WHOLE], ids=["committed", "everything"])
def test_every_target_passes_the_rules(resolution: Resolution) -> None:
    for candidate in resolution.combinations:
        found = judged(
            Combination(**{f.name: getattr(candidate, f.name) for f in fields(Combination)})
        )
        assert found.verdict in ("ok", "warn"), candidate.id
        assert found.reasons == candidate.reasons
        assert candidate.target().unverified == ()


WIDE = crossed(
    ("debian12", "ubuntu20.04", "ubuntu24.04", "ubuntu26.04"),
    versions("11.8", "12.6", "13.0", "13.5"),
    versions("2.4", "2.11", "2.15"),
    ("devel", "slim"),
)


@cache
def without(index: int) -> tuple[Resolution, ...]:
    """The committed matrix and a wide one, by all rules but one."""
    rules = [rule for i, rule in enumerate(RULES) if i != index]
    return tuple(resolve.resolve(FACTS, matrix, rules=rules) for matrix in (MATRIX, WIDE))


def codes(resolution: Resolution) -> dict[str, set[str]]:
    found = {row.id: {reason.code for reason in row.reasons} for row in resolution.left_out}
    return found | {id_: set() for id_ in ids(resolution)}


@pytest.mark.parametrize("at", [0, 1], ids=["committed", "wide"])
def test_a_reason_goes_when_its_rule_goes(at: int) -> None:
    whole = resolve.resolve(FACTS, (MATRIX, WIDE)[at])
    fewer = [codes(without(index)[at]) for index in range(len(RULES))]
    rows = [row for row in whole.left_out if not row.excluded]
    assert len(rows) > 50
    for row in rows:
        for reason in row.reasons:
            gone = [RULES[i] for i, one in enumerate(fewer) if reason.code not in one[row.id]]
            assert gone, f"{row.id}: no rule stands behind {reason.code}"
    assert len({reason.code for row in rows for reason in row.reasons}) >= (3, 8)[at]


def test_without_rules_everything_is_a_target() -> None:
    found = resolve.resolve(FACTS, WIDE, rules=())
    assert not found.left_out
    assert len(found.targets) == 4 * 4 * 3 * 2


# --- what no fact confirms ------------------------------------------------------------------------


def test_what_is_unverified_is_left_out_unless_it_is_allowed() -> None:
    before, bold = set(ids(WHOLE)), {candidate.id: candidate for candidate in BOLD.combinations}
    doubtful = {row.id: row for row in WHOLE.left_out if row.reasons[0].severity == "unverified"}
    assert len(doubtful) > 20
    assert set(bold) == before | set(doubtful)
    assert list(BOLD.left_out) == [row for row in WHOLE.left_out if row.id not in doubtful]
    assert {r.code for row in doubtful.values() for r in row.reasons} >= {
        "base-image-unknown",
        "toolkit-unknown",
        "torch-cuda-announced",
    }
    for id_, row in doubtful.items():
        target = bold[id_].target()
        assert target.unverified == tuple(reason.text for reason in row.reasons)
        assert target.unverified
        assert target.promise["unverified"] == list(target.unverified)
    for id_ in before:
        assert bold[id_].target().promise["unverified"] == []


def test_what_is_not_confirmed_is_said_in_a_sentence() -> None:
    row = next(row for row in WHOLE.left_out if row.reasons[0].code == "base-image-unknown")
    candidate = next(candidate for candidate in BOLD.combinations if candidate.id == row.id)
    assert "no list has an nvidia/cuda image" in candidate.target().unverified[0]


@pytest.mark.parametrize(
    ("table", "wanted", "names", "code"),
    [
        ("torch", "2.99", ("ubuntu24.04", "12.8", "2.99", "devel"), "torch-cuda"),
        ("torch", "2.99", ("ubuntu20.04", "12.6", "2.99", "devel"), "torch-python"),
        ("cuda", "12.6.9", ("ubuntu26.04", "12.6.9", "2.11", "devel"), "nvcc-gcc"),
    ],
)
def test_of_a_version_that_nobody_knows_nothing_is_impossible(
    table: str, wanted: str, names: tuple[str, ...], code: str
) -> None:
    os, cuda, torch, profile = names
    matrix = crossed((os,), versions(cuda), versions(torch), (profile,))
    (row,) = resolve.resolve(FACTS.assume(table, wanted), matrix).left_out
    (reason,) = (reason for reason in row.candidate.reasons if reason.code == code)
    assert reason.severity == "unverified"
    assert reason.source.startswith("a guess: taken to be like ")


@pytest.mark.parametrize(
    ("names", "tag"),
    [
        (("ubuntu24.04", "12.8.9", "devel"), "nvidia/cuda:12.8.9-cudnn-devel-ubuntu24.04"),
        (("ubuntu24.04", "12.8.9", "slim"), "nvidia/cuda:12.8.9-base-ubuntu24.04"),
        (("debian12", "12.8.9", "devel"), None),
    ],
)
def test_an_image_that_no_list_has_is_named_by_the_form_of_the_tags(
    names: tuple[str, ...], tag: str | None
) -> None:
    os, cuda, profile = names
    matrix = crossed((os,), versions(cuda), versions("2.8"), (profile,))
    found = resolve.resolve(FACTS.assume("cuda", cuda), matrix, allow_unknown=True)
    (candidate,) = [*found.combinations, *(row.candidate for row in found.left_out)]
    assert (candidate.base.tag if candidate.base else None) == tag
    assert not (candidate.base and candidate.base.digest)


def only(matrix: Matrix, *, bold: bool = False) -> LeftOut:
    found = resolve.resolve(FACTS, matrix, allow_unknown=bold)
    assert not found.targets
    (row,) = found.left_out
    return row


WISH = Exclude(reason="everything is excluded here")
DOUBTFUL = ("ubuntu24.04",), versions("13.0"), versions("2.15"), ("devel",)
FORBIDDEN = ("ubuntu24.04",), versions("13.0"), versions("2.8"), ("devel",)
GOOD = ("ubuntu24.04",), versions("13.0"), versions("2.11"), ("devel",)


@pytest.mark.parametrize("bold", [False, True])
def test_an_exclude_is_told_before_what_is_unverified(bold: bool) -> None:
    assert only(crossed(*DOUBTFUL)).reasons[0].severity == "unverified"
    row = only(crossed(*DOUBTFUL, exclude=(WISH,)), bold=bold)
    assert row.excluded
    assert [(r.code, r.text, r.source) for r in row.reasons] == [
        ("excluded", WISH.reason, "matrix.toml")
    ]


@pytest.mark.parametrize("bold", [False, True])
def test_an_exclude_is_told_after_what_is_impossible(bold: bool) -> None:
    row = only(crossed(*FORBIDDEN, exclude=(WISH,)), bold=bold)
    assert not row.excluded
    assert row.reasons[0].code == "torch-cuda"
    assert {reason.severity for reason in row.reasons} == {"impossible"}
    assert row.reasons == only(crossed(*FORBIDDEN)).reasons


def test_what_is_good_can_be_excluded() -> None:
    assert resolve.resolve(FACTS, crossed(*GOOD)).targets
    assert only(crossed(*GOOD, exclude=(WISH,))).excluded


# --- names ----------------------------------------------------------------------------------------


def every_target() -> list[Target]:
    """Of targets in both, once; WHOLE's order of patch releases may be another."""
    return [*dict.fromkeys([*RESOLUTION.targets, *WHOLE.targets])]


def test_ids_tags_and_bake_names_are_unique() -> None:
    for resolution in (RESOLUTION, WHOLE, BOLD):
        targets = resolution.targets
        for names in (
            [t.id for t in targets],
            [t.tag for t in targets],
            [bake.name(t) for t in targets],
        ):
            assert len(names) == len(set(names))


@for_all(every_target(), lambda target: target.id)
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
    """The facts with a CUDA 12.10 that torch 2.9 and 2.10 are built for, and its base images."""
    old = next(row for row in FACTS.cuda if str(row.version) == "12.9.1")
    base = tuple(b.model_copy(update={"tag": b.tag.replace("12.9.1", "12.10.0")}) for b in old.base)
    new = old.model_copy(update={"version": Version("12.10.0"), "base": base})
    torch = []
    for row in FACTS.torch:
        like = row.build_for(Version("12.9"))
        if minor(row.version) in ("2.9", "2.10") and like:
            built = like.model_copy(update={"cuda": Version("12.10")})
            row = row.model_copy(update={"build": (*row.build, built)})
        torch.append(row)
    return FACTS.model_copy(update={"cuda": (new, *FACTS.cuda), "torch": tuple(torch)})


def test_12_10_is_newer_than_12_9_and_2_10_than_2_9() -> None:
    matrix = crossed(
        ("ubuntu24.04",), versions("12.10", "12.9"), versions("2.10", "2.9"), ("devel",)
    )
    found = resolve.resolve(with_newer(), matrix)
    assert [(minor(t.cuda), minor(t.torch)) for t in found.targets] == [
        ("12.9", "2.9"),
        ("12.9", "2.10"),
        ("12.10", "2.9"),
        ("12.10", "2.10"),
    ]
    # As texts, 12.10 is older than 12.8, where the newest architectures begin.
    archs = {t.flash_attn.archs for t in found.targets if isinstance(t.flash_attn, FlashAttn)}
    assert archs == {(80, 90, 100, 120)}


def test_2_9_is_the_newest_2_9_and_never_2_10() -> None:
    old = next(row for row in FACTS.torch if str(row.version) == "2.9.1")
    newest = old.model_copy(update={"version": Version("2.9.10")})
    facts = FACTS.model_copy(update={"torch": (newest, *FACTS.torch)})
    matrix = crossed(("ubuntu24.04",), versions("12.8"), versions("2.9"), ("devel",))
    assert [str(t.torch) for t in resolve.resolve(facts, matrix).targets] == ["2.9.10"]
    assert [str(t.torch) for t in resolve.resolve(FACTS, matrix).targets] == ["2.9.1"]


def test_an_exact_version_is_taken_exactly() -> None:
    matrix = crossed(("ubuntu22.04",), versions("12.8.0"), versions("2.9.0"), ("devel",))
    (target,) = resolve.resolve(FACTS, matrix, allow_unknown=True).targets
    assert (str(target.cuda), str(target.torch)) == ("12.8.0", "2.9.0")


def test_what_is_left_out_is_sorted_by_version_too() -> None:
    matrix = crossed(("ubuntu24.04",), versions("13.0"), TORCH[::-1], ("devel",))
    found = resolve.resolve(FACTS, matrix)
    torches = [row.id.split("-")[2] for row in found.left_out]
    assert torches == [f"torch2.{i}" for i in (4, 5, 6, 7, 8, 15)]


def test_a_glibc_is_compared_as_a_version() -> None:
    """As texts, 2.9 is newer than 2.40."""

    def refused(facts: Facts) -> set[str]:
        matrix = crossed(torch=versions("2.5", "2.11"), profile=("devel",))
        rows = resolve.resolve(facts, matrix).left_out
        return {row.id for row in rows for reason in row.reasons if reason.code == "nvcc-glibc"}

    rows = tuple(row.model_copy(update={"glibc": Version("2.9")}) for row in FACTS.os)
    assert refused(FACTS)
    assert not refused(FACTS.model_copy(update={"os": rows}))


# --- which piece is taken -------------------------------------------------------------------------


def unpinned(row: CudaFact) -> CudaFact:
    base = tuple(one.model_copy(update={"digest": "", "witnesses": 0}) for one in row.base)
    return row.model_copy(update={"base": base})


def test_a_base_that_is_known_by_digest_goes_before_a_newer_one_that_is_not() -> None:
    devel = crossed(("ubuntu24.04",), versions("13.0"), versions("2.11"), ("devel",))
    (candidate,) = resolve.resolve(FACTS, devel).combinations
    assert candidate.base
    assert candidate.base.digest
    cuda = tuple(
        unpinned(row) if row.version == candidate.cuda.version else row for row in FACTS.cuda
    )
    (other,) = resolve.resolve(FACTS.model_copy(update={"cuda": cuda}), devel).combinations
    assert other.cuda.version < candidate.cuda.version
    assert other.base
    assert other.base.digest


def test_without_any_digest_the_newest_is_taken() -> None:
    facts = FACTS.model_copy(update={"cuda": tuple(map(unpinned, FACTS.cuda))})
    matrix = crossed(("ubuntu22.04",), versions("12.9"), versions("2.8"), ("devel",))
    (candidate,) = resolve.resolve(facts, matrix).combinations
    listed = [
        row.version
        for row in FACTS.cuda_like(Version("12.9"))
        if any(b.os == "ubuntu22.04" and b.kind == "devel" for b in row.base)
    ]
    assert candidate.cuda.version == max(listed)


def test_slim_takes_cuda_13_from_wheels_and_cuda_12_from_an_image() -> None:
    assert {candidate.from_wheels for candidate in WHOLE.combinations} == {True, False}
    for candidate in WHOLE.combinations:
        assert candidate.from_wheels == (
            candidate.kind == "slim" and candidate.cuda.version.major >= 13
        )
        assert (candidate.base is None) == candidate.from_wheels
        build = candidate.torch.build_for(candidate.index)
        assert build
        if candidate.from_wheels:
            assert candidate.target().cuda == build.toolkit
        if candidate.base:
            assert candidate.base.os == candidate.os.os.name
            assert candidate.base.kind == candidate.kind
            assert candidate.base.cuda == candidate.cuda.version


def test_the_matrix_takes_the_distributions_python_and_compiles_flash_attn_2() -> None:
    for candidate in WHOLE.combinations:
        assert candidate.python == candidate.os.python
        whole = candidate.selection is not None and candidate.selection.generation > 2
        assert candidate.origin == ("official" if whole else "source")
        assert candidate.host == "x86_64"
        assert candidate.index == Version(minor(candidate.cuda.version))


# --- the rules, seen from here --------------------------------------------------------------------


def reasons(facts: Facts, *names: str) -> dict[str, str]:
    """Why the one combination of (os, cuda, torch, profile) is left out: code -> text."""
    os, cuda, torch, profile = names
    matrix = crossed((os,), (Version(cuda),), (Version(torch),), (profile,))
    found = resolve.resolve(facts, matrix)
    assert not found.targets
    return {reason.code: reason.text for reason in found.left_out[0].reasons}


def changed(table: str, **values: Any) -> Facts:
    rows = tuple(row.model_copy(update=values) for row in getattr(FACTS, table))
    return FACTS.model_copy(update={table: rows})


@pytest.mark.parametrize(
    ("facts", "names", "code", "words"),
    [
        (
            FACTS,
            ("ubuntu24.04", "12.8", "2.6", "slim"),
            "torch-cuda",
            "torch 2.6.0 has no build for CUDA 12.8 on x86_64 (it has 11.8, 12.4, 12.6)",
        ),
        (
            changed("torch", pythons=(Python.parse("3.9"), Python.parse("3.13"))),
            ("ubuntu24.04", "13.0", "2.11", "slim"),
            "torch-python",
            "torch 2.11.0 has no wheel for Python 3.12 on x86_64 (it has 3.9, 3.13)",
        ),
        (
            FACTS,
            ("debian12", "12.8", "2.8", "devel"),
            "base-image",
            "there is no nvidia/cuda image of 12.8.2 for debian12: NVIDIA publishes none for "
            "debian",
        ),
        (
            changed("cuda", gcc_max=12),
            ("ubuntu24.04", "13.0", "2.11", "slim"),
            "nvcc-gcc",
            "nvcc 13.0 takes gcc up to 12; ubuntu24.04 has 13",
        ),
        (
            changed("cuda", glibc_max=Version("2.38")),
            ("ubuntu24.04", "13.0", "2.11", "slim"),
            "nvcc-glibc",
            "nvcc 13.0 compiles with glibc up to 2.38; ubuntu24.04 has 2.39",
        ),
        (
            changed("flash_attn", archs={90: Version("11.8")}),
            ("ubuntu24.04", "13.0", "2.11", "demo"),
            "flash-attn-archs",
            "flash-attn 2.8.3.post2 has no architecture 80 (it has 90)",
        ),
        (
            changed("flash_attn", archs={80: Version("13.10")}),
            ("ubuntu24.04", "13.0", "2.11", "demo"),
            "flash-attn-archs",
            "flash-attn 2.8.3.post2 for architecture 80 needs CUDA 13.10, not 13.0",
        ),
    ],
)
def test_an_impossible_combination_says_both_sides(
    facts: Facts, names: tuple[str, ...], code: str, words: str
) -> None:
    assert reasons(facts, *names)[code] == words


def test_every_reason_is_told_and_not_the_first() -> None:
    found = reasons(changed("cuda", gcc_max=12, glibc_max=Version("2.38")), *FULL)
    assert list(found) == ["nvcc-gcc", "nvcc-glibc"]


FULL = ("ubuntu24.04", "13.0", "2.11", "devel")


def test_an_excluded_one_says_the_matrix_reason() -> None:
    row = Exclude(reason="nobody wants it here", torch=versions("2.11"), profile=("slim",))
    found = resolve.resolve(FACTS, crossed(("ubuntu24.04",), exclude=(row,)))
    out = [r for r in found.left_out if r.excluded]
    assert out
    assert {(r.reason, r.source) for r in out} == {("nobody wants it here", "matrix.toml")}
    assert all("torch2.11" in r.id and r.id.endswith("-slim") for r in out)


def test_an_exclude_of_one_release_leaves_the_others() -> None:
    """Of 2.9 the block takes 2.9.1, which nobody excluded."""
    block = (("ubuntu24.04",), versions("12.8"), versions("2.9"), ("devel",))
    for torch, left in (("2.9.0", 1), ("2.9.1", 0), ("2.9", 0)):
        row = Exclude(reason="this one has a bug", torch=versions(torch))
        found = resolve.resolve(FACTS, crossed(*block, exclude=(row,)))
        assert len(found.targets) == left, torch


def test_a_target_that_two_blocks_declare_is_a_fault() -> None:
    block = MATRIX.build[0]
    with pytest.raises(FactsError, match="is declared twice by the build blocks"):
        resolve.resolve(FACTS, MATRIX.model_copy(update={"build": (block, block)}))


# --- faults of a matrix ---------------------------------------------------------------------------


def faults(matrix: Matrix, *, bold: bool = False) -> list[str]:
    found = resolve.resolve(FACTS, matrix, allow_unknown=bold)
    return list(resolve.faults(matrix, found))


def test_the_committed_matrix_has_no_fault() -> None:
    assert faults(MATRIX) == []


@pytest.mark.parametrize(
    ("axis", "matrix", "words", "rest"),
    [
        (
            "torch: 2.8",
            crossed(("ubuntu24.04",), versions("13.0"), versions("2.8", "2.11"), ("devel",)),
            "can never give a target (torch-cuda): ",
            "",
        ),
        (
            "os: debian12",
            crossed(("debian12", "ubuntu24.04"), versions("13.0"), versions("2.11"), ("devel",)),
            "can never give a target (base-image): ",
            "",
        ),
        (
            "cuda: 12.4",
            crossed(("ubuntu22.04",), versions("12.4", "12.8"), versions("2.8"), ("devel",)),
            "can never give a target (torch-cuda): ",
            "",
        ),
        (
            "profile: slim",
            crossed(("ubuntu24.04",), versions("13.2"), versions("2.14"), ("devel", "slim")),
            "gives no target that a fact confirms (toolkit-unknown): ",
            "; see --allow-unknown",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_that_can_never_be_a_target_is_a_fault(
    axis: str, matrix: Matrix, words: str, rest: str
) -> None:
    (row, *_) = resolve.resolve(FACTS, matrix).left_out
    assert faults(matrix) == [f"build.0.{axis} {words}{row.reason}{rest}"]


@pytest.mark.parametrize(
    ("axes", "words", "rest"),
    [
        (FORBIDDEN, "can never give a target (torch-cuda): ", ""),
        (
            DOUBTFUL,
            "gives no target that a fact confirms (torch-cuda-announced): ",
            "; see --allow-unknown",
        ),
    ],
    ids=["impossible", "unverified"],
)
def test_a_block_in_which_nothing_works_is_one_fault_and_not_four(
    axes: Any, words: str, rest: str
) -> None:
    assert faults(crossed(*axes)) == [f"build.0 {words}{only(crossed(*axes)).reason}{rest}"]


def test_of_a_block_that_is_impossible_in_part_the_other_reasons_are_told() -> None:
    """2.7 cannot be; of 2.15 no fact says: so it is not said that nothing ever can."""
    matrix = crossed(DOUBTFUL[0], DOUBTFUL[1], versions("2.7", "2.15"), ("devel",))
    (fault,) = faults(matrix)
    assert fault.startswith("build.0 gives no target that a fact confirms (torch-cuda, torch-cuda-")
    assert fault.endswith("; see --allow-unknown")
    assert [line.partition(" ")[0] for line in faults(matrix, bold=True)] == ["build.0.torch:"]


def test_a_block_that_is_excluded_is_no_fault() -> None:
    assert faults(crossed(*GOOD, exclude=(WISH,))) == []


def test_one_that_is_only_excluded_is_no_such_fault() -> None:
    row = Exclude(reason="not needed at the moment", profile=("devel",))
    matrix = crossed(
        ("ubuntu24.04",), versions("13.0"), versions("2.11"), ("devel", "slim"), (row,)
    )
    assert len(resolve.resolve(FACTS, matrix).targets) == 1
    assert faults(matrix) == []


def test_one_that_is_allowed_without_a_fact_is_none_either() -> None:
    matrix = crossed(("ubuntu24.04",), versions("13.2"), versions("2.14"), ("devel", "slim"))
    assert faults(matrix)
    assert faults(matrix, bold=True) == []


def test_the_place_is_that_of_the_block() -> None:
    good = Axes(os=GOOD[0], cuda=GOOD[1], torch=GOOD[2], profile=("devel",))
    bad = Axes(os=GOOD[0], cuda=GOOD[1], torch=versions("2.12", "2.7"), profile=("devel",))
    matrix = MATRIX.model_copy(update={"build": (good, bad), "exclude": (), "alias": ()})
    (fault,) = faults(matrix)
    assert fault.startswith("build.1.torch: 2.7 can never give a target (torch-cuda): ")


@pytest.mark.parametrize(
    "row",
    [
        Exclude(reason="there is no such combination", os=("debian13",)),
        Exclude(reason="there is no such combination", torch=versions("2.11"), profile=("demo",)),
        Exclude(reason="there is no such combination", torch=versions("2.11.1")),
        Exclude(reason="there is no such combination", torch=versions("2.8")),
    ],
    ids=["os", "profile", "release", "impossible"],
)
def test_an_exclude_that_excludes_nothing_is_a_fault(row: Exclude) -> None:
    used = Exclude(reason="devel is not wanted now", torch=versions("2.12"))
    matrix = crossed(
        ("ubuntu24.04",), versions("13.0"), versions("2.11", "2.12"), ("devel",), (used, row)
    )
    assert faults(matrix) == [NOTHING]


NOTHING = "exclude.1: there is nothing to exclude (there is no such combination)"


def test_one_that_excludes_only_what_is_impossible_is_a_fault() -> None:
    used = Exclude(reason="devel is not wanted now", torch=versions("2.12"))
    row = Exclude(reason="there is no such combination", torch=versions("2.8"))
    block = (("ubuntu24.04",), versions("13.0"), versions("2.8", "2.11", "2.12"), ("devel",))
    first, second = faults(crossed(*block, exclude=(used, row)))
    assert first.startswith("build.0.torch: 2.8 can never give a target")
    assert second == NOTHING


def test_one_that_excludes_what_no_fact_confirms_is_none() -> None:
    """With --allow-unknown it would be a target."""
    row = Exclude(reason="it was tried and is bad", torch=versions("2.15"))
    matrix = crossed(DOUBTFUL[0], DOUBTFUL[1], versions("2.11", "2.15"), ("devel",), (row,))
    assert faults(matrix) == faults(matrix, bold=True) == []


# --- the generations of flash-attention -----------------------------------------------------------

GENERATIONS = """
packages = ["transformers"]
[publish]
repository = "me/finetune"
[flash_attn.hopper]
generation = 3
version = "3.0.0"
[flash_attn.beta]
generation = 4
version = "4.0.0b36"
[profile.three]
kind = "slim"
flash_attn = "hopper"
about = "FlashAttention-3"
[profile.four]
kind = "slim"
flash_attn = "beta"
about = "FlashAttention-4"
[profile.none]
kind = "slim"
flash_attn = "none"
about = "no flash-attn"
[[build]]
os = ["debian12"]
cuda = ["13.0"]
torch = ["2.11"]
profile = ["three", "four", "none"]
[[build]]
os = ["ubuntu24.04"]
cuda = ["12.8"]
torch = ["2.11"]
profile = ["three", "four", "none"]
"""


@pytest.fixture
def generations(tmp_path: Path) -> project.Project:
    """A workspace with the generations 3 and 4 and none; debian12's torch is locked, as here."""
    file = tmp_path / "matrix.toml"
    file.write_text(GENERATIONS.replace('["transformers"]', repr([*MATRIX.packages])))
    for name in ("torch2.11.0-cu130-py3.11", "torch2.11.0-cu130-py3.12"):
        shutil.copytree(PROJECT.locks / name, tmp_path / "locks" / name)
    # the Python of ubuntu24.04 needs some torch of PyPI beside that of CUDA 12.8
    file.write_text(
        file.read_text()
        + '[[build]]\nos = ["ubuntu24.04"]\ncuda = ["13.0"]\ntorch = ["2.11"]\nprofile = ["none"]\n'
    )
    return project.load(file, allow_unknown=True)


def one(made: project.Project, select: str) -> tuple[recipe_.Recipe, str]:
    (candidate,) = made.resolution.select([select])
    recipe = recipe_.recipe(candidate, made)
    return recipe, dockerfile.files(recipe)[f"{recipe.target.id}/Dockerfile"]


def test_what_nobody_could_try_is_a_target_for_the_bold_only(generations: project.Project) -> None:
    file = generations.folder / "matrix.toml"
    with pytest.raises(FactsError, match=r"build\.0\.profile: three gives no target that a fact"):
        project.load(file)
    (candidate,) = generations.resolution.select(["debian12-*-three"])
    assert [reason.code for reason in candidate.reasons] == ["flash-attn-unproven"]
    assert any("nobody built or loaded it" in text for text in candidate.target().unverified)


def test_flash_attention_3_is_asked_of_torchs_index_by_version(
    generations: project.Project,
) -> None:
    recipe, text = one(generations, "debian12-*-three")
    assert recipe.target.promise["flash_attn"] == {
        "generation": 3, "package": "flash-attn-3", "version": "3.0.0",
    }  # fmt: skip
    assert "/build/with-network /build/index-install cu130 flash-attn-3==3.0.0\n" in text
    assert "flash_attn_wheel" not in text
    assert set(recipe.unlocked) == {"base", "flash_attn"}
    assert f"# ({recipe.unlocked['flash_attn']}.)" in text.splitlines()
    assert "#   Python packages by hash, flash-attn-3 by version" in text.splitlines()
    assert "build" not in recipe.locked
    (candidate,) = generations.resolution.select(["debian12-*-three"])
    assert pins.unlocked(candidate, generations) == ("base", "flash_attn")


def test_flash_attention_4_is_installed_by_hash_where_torch_is(
    generations: project.Project,
) -> None:
    recipe, text = one(generations, "debian12-*-four")
    assert "/build/with-network /build/pip-install /locks/flash_attn_4.txt\n" in text
    assert set(recipe.unlocked) == {"base"}
    assert "flash_attn_wheel" not in text
    recipe, text = one(generations, "ubuntu24.04-cuda12.8-*-four")
    wanted = 'torch-install cu128 \\\n        torch==2.11.0 "flash-attn-4==4.0.0b36"\n'
    assert wanted in text, "without the extra of CUDA 13, and with torch kept"
    assert {"torch", "flash_attn"} <= set(recipe.unlocked)
    assert "#   torch and flash-attn-4 by version, the applications by hash" in text.splitlines()


def test_without_flash_attn_there_is_none(generations: project.Project) -> None:
    recipe, text = one(generations, "debian12-*-none")
    assert recipe.target.promise["flash_attn"] is None
    assert recipe.target.id == "debian12-cuda13.0-torch2.11-py3.11-none"
    assert not re.search("flash.attn", text)
    assert "#   Python packages by hash" in text.splitlines()
    assert dockerfile.lock(recipe)["flash_attn"] is None


def test_a_lock_without_its_part_is_stale(generations: project.Project) -> None:
    (generations.locks / "torch2.11.0-cu130-py3.11/flash_attn_4.txt").unlink()
    with pytest.raises(StaleFiles, match=r"flash_attn_4\.txt: missing"):
        one(generations, "debian12-*-four")
    with pytest.raises(StaleFiles, match=r"flash_attn_4\.txt: missing"):
        files.check_locks(generations, [])
    assert one(generations, "debian12-*-none"), "which has nothing of it"


def test_a_key_is_of_the_files_that_are_used(generations: project.Project) -> None:
    def keys() -> list[str]:
        made = []
        for select in ("debian12-*-none", "debian12-*-four"):
            recipe, _ = one(generations, select)
            made.append(image.image(recipe, dockerfile.files(recipe), generations).key)
        return made

    before = keys()
    file = generations.locks / "torch2.11.0-cu130-py3.11/flash_attn_4.txt"
    file.write_text(file.read_text().replace("4.8.1", "4.8.2"))
    assert [old == new for old, new in zip(before, keys(), strict=True)] == [True, False]


BAD = """
packages = ["transformers"]
[publish]
repository = "me/finetune"
[flash_attn.full]
version = "2.8.3.post2"
[profile.devel]
kind = "devel"
flash_attn = "full"
about = "the whole toolkit"
[[build]]
os = ["ubuntu24.04", "debian12"]
cuda = ["13.0"]
torch = ["2.11", "2.8"]
profile = ["devel"]
[[exclude]]
reason = "nobody asked for it"
torch = ["2.10"]
[[alias]]
name = "latest"
select = "*-slim"
[[alias]]
name = "la test"
select = "*torch2.11*"
"""


def test_a_workspace_with_faults_does_not_load_and_all_are_told(tmp_path: Path) -> None:
    file = tmp_path / "matrix.toml"
    file.write_text(BAD)
    with pytest.raises(FactsError) as caught:
        project.load(file)
    assert caught.value.exit_code == 3
    lines = str(caught.value).splitlines()
    for line, words in zip(
        lines,
        (
            "build.0.os: debian12 can never give a target (base-image, torch-cuda): ",
            "build.0.torch: 2.8 can never give a target (torch-cuda): ",
            "exclude.0: there is nothing to exclude (nobody asked for it)",
            "alias.0: latest points to nothing",
            "alias.1: la test: 'la test' is not a tag",
        ),
        strict=True,
    ):
        assert line.startswith(f"{file}: {words}")


# --- the committed matrix -------------------------------------------------------------------------

CUDAS = ("12.6", "12.8", "12.9", "13.0", "13.2")
TORCHES = tuple(f"2.{i}" for i in range(6, 16))


def expected() -> list[tuple[str, str, str]]:
    """Every (Ubuntu LTS, CUDA, torch) that is built and has the distribution's Python."""
    rows = []
    for os, cuda, torch in product(("ubuntu22.04", "ubuntu24.04"), CUDAS, TORCHES):
        known, system = FACTS.torch_like(Version(torch)), FACTS.os_named(os)
        assert known, f"no facts about torch {torch}"
        assert system
        for fact in known:
            build = fact.build_for(Version(cuda))
            if build and not build.announced and system.python in fact.pythons:
                rows.append((os, cuda, torch))
                break
    return rows


@for_all(expected(), " ".join)
def test_the_matrix_covers_what_people_need(row: tuple[str, str, str]) -> None:
    os, cuda, torch = row
    start = f"{os}-cuda{cuda}-torch{torch}-"
    assert any(target.id.startswith(start) for target in RESOLUTION.targets)


def test_each_cuda_and_each_torch_is_there_for_some_target() -> None:
    targets = RESOLUTION.targets
    assert {minor(t.cuda) for t in targets} >= set(CUDAS)
    assert {minor(t.torch) for t in targets} >= set(TORCHES)
    assert {t.os.name for t in targets} >= {"debian12", "ubuntu22.04", "ubuntu24.04"}
    assert len(expected()) >= 55


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
        candidate
        for candidate in RESOLUTION.combinations
        if candidate.profile == "demo"
        or (candidate.profile == "slim" and minor(candidate.torch.version) == "2.13")
    )
    assert len(found) > 3


@given(some(tuple(ids(RESOLUTION))))
def test_ids_select_themselves(chosen: tuple[str, ...]) -> None:
    found: tuple[Candidate, ...] = RESOLUTION.select(chosen)
    assert {candidate.id for candidate in found} == set(chosen)


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
    assert RESOLUTION.left_out
    for row in RESOLUTION.left_out:
        assert refused(row.id).hint == f"{row.id} is left out: {row.reason}"
    hint = refused("ubuntu22.04-*-torch2.10-*-slim").hint
    assert "is left out: " in hint


def test_one_that_is_like_nothing_says_where_to_look() -> None:
    assert refused("zzzzzz").hint == "imagegen list shows every id"


def test_what_is_left_out_can_be_selected_by_globs() -> None:
    row = RESOLUTION.left_out[0]
    assert row.matches([row.id])
    assert row.matches(["nothing", row.id[:5] + "*"])
    assert not row.matches(["nothing"])
    assert not row.matches([])
