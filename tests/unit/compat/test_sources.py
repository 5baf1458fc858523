"""Where flash-attn comes from: the order of the places, and why each other is skipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import parse_wheel_filename

from imagegen.compat import sources
from imagegen.compat.facts.rows import FlashAttnFact
from imagegen.compat.sources import Pinned, Policy, Sourced
from imagegen.image.wheel.flash_attn_wheel.selection import (
    DTYPES,
    FEATURES,
    HEAD_DIMS,
    Label,
    Selection,
)
from imagegen.matrix import config, resolve
from imagegen.matrix.resolve import Candidate
from imagegen.model.target import FlashAttn, cuda_word, minor
from tests.support.values import FACTS, RESOLUTION
from tests.support.wheel_recipe import part

ORDER = ["store", "official", "third-party", "source"]
STORE = "oci://registry.example/wheels"
OFFICIAL = "flash_attn-2.8.3+cu12torch2.8cxx11abiTRUE-cp312-cp312-linux_x86_64.whl"
THEIRS = (
    "flash_attn-2.8.3+cu128torch2.8-cp312-cp312-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl"
)
OPEN = Policy(third_party=True)


def made(torch: str = "2.8", cuda: str = "12.8", **kernels: Any) -> Candidate:
    """A target of Ubuntu 24.04 with flash-attn 2.8.3, of which two makers published wheels."""
    axes = {"os": ["ubuntu24.04"], "cuda": [cuda], "torch": [torch], "profile": ["slim"]}
    wanted = config.Matrix.model_validate(
        {
            "packages": ["transformers"],
            "publish": {"repository": "me/finetune"},
            "flash_attn": {"one": {"version": "2.8.3", **kernels}},
            "profile": {"slim": {"kind": "slim", "flash_attn": "one", "about": "small"}},
            "build": [axes],
        }
    )
    (found,) = resolve.resolve(FACTS, wanted).combinations
    return found


FITTING = made()
"""A target that wheels of both kinds fit."""

COMMITTED = (
    candidate
    for candidate in RESOLUTION.combinations
    if isinstance(candidate.target().flash_attn, FlashAttn)
)
TARGETS = [FITTING, made("2.10"), made("2.11", "13.0"), *list(COMMITTED)[::9]]


def kernels(candidate: Candidate) -> Selection:
    found = candidate.target().flash_attn
    assert isinstance(found, FlashAttn)
    return sources.selection(found)


def pins(*names: str) -> dict[str, Pinned]:
    return {n: Pinned(name=n, url=f"https://x.example/{n}", sha256="0" * 64) for n in names}


BOTH = pins(OFFICIAL, THEIRS)


def sourced(
    candidate: Candidate = FITTING,
    policy: Policy | None = None,
    known: Mapping[str, Pinned] = {},
    **asked: Any,
) -> Sourced:
    assert candidate.selection
    return sources.sourced(
        candidate, kernels(candidate), policy or candidate.selection.policy, known, **asked
    )


def why(found: Sourced, place: str) -> str:
    (step,) = [step for step in found.steps if step.place == place]
    assert not step.taken
    return step.why


# --- the order ------------------------------------------------------------------------------------


def test_each_place_is_taken_where_all_before_it_have_nothing() -> None:
    taken = [
        sourced(FITTING, OPEN, BOTH, store=STORE, stored=True),
        sourced(FITTING, OPEN, BOTH, store=STORE, stored=False),
        sourced(FITTING, OPEN, pins(THEIRS), store=STORE, stored=False),
        sourced(FITTING, OPEN, store=STORE, stored=False),
    ]
    assert [found.taken for found in taken] == ORDER
    wheels = [found.wheel.name if found.wheel else None for found in taken]
    assert wheels == [None, OFFICIAL, THEIRS, None]


@given(
    policy=st.builds(
        Policy,
        source=st.sampled_from(["allowed", "forbidden", "required"]),
        third_party=st.booleans(),
    ),
    known=st.sets(st.sampled_from([OFFICIAL, THEIRS])),
    stored=st.sampled_from([None, False, True]),
    no_source=st.booleans(),
    candidate=st.sampled_from([*TARGETS, made(archs=[80])]),
)
def test_one_place_is_taken_or_none_and_every_other_says_why(
    policy: Policy, known: set[str], stored: bool | None, no_source: bool, candidate: Candidate
) -> None:
    found = sourced(
        candidate, policy, pins(*known), store=STORE, stored=stored, no_source=no_source
    )
    assert [step.place for step in found.steps] == ORDER
    assert all(step.why for step in found.steps)
    assert sum(step.taken for step in found.steps) == bool(found.taken)
    assert (found.taken in ("official", "third-party")) == bool(found.wheel)
    after = ORDER[ORDER.index(found.taken) + 1 :] if found.taken else []
    for step in found.steps:
        assert ("skipped" in str(step)) == (not step.taken)
        if step.place in after:  # what comes later was not wanting
            assert step.why == "not needed" or step.place != "source"
        elif not step.taken:
            assert step.why != "not needed"


def test_nothing_is_left() -> None:
    found = sourced(FITTING, Policy(source="forbidden"), store=STORE, stored=False)
    assert found.taken is None
    assert not found.wheel
    assert why(found, "source") == 'the matrix (source = "forbidden") forbids it'


# --- the store ------------------------------------------------------------------------------------


def test_a_store_that_was_not_asked_is_named_as_an_option() -> None:
    assert why(sourced(), "store") == "none is named (--wheels LOCATION)"


def test_a_store_without_the_wheel_is_named_with_it() -> None:
    name = sources.own_name(FITTING, kernels(FITTING))
    assert why(sourced(store=STORE, stored=False), "store") == f"{STORE} has no {name}"
    (step, *others) = sourced(store=STORE, stored=True).steps
    assert str(step) == f"own wheel store: {name} from {STORE}"
    assert why(sourced(store=STORE, stored=True, known=BOTH), "official") == "not needed"
    assert not any(other.taken for other in others)


# --- what others published ------------------------------------------------------------------------


def test_what_fits_is_taken_by_its_hash_only() -> None:
    found = sourced()
    assert why(found, "official").startswith(f"no hash of {OFFICIAL} is recorded")
    assert sourced(known=BOTH).wheel == BOTH[OFFICIAL]


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (made("2.11", "13.0"), "has no official wheel for torch 2.11, Python 3.12"),
        (made("2.10"), "is for CUDA 13: under a torch of CUDA 12.8"),
        (made("2.6", "12.6"), "architectures 80, 90, 100, 120, which are not the target's"),
        (made(archs=[80, 90]), "architectures 80, 90, 100, 120, which are not the target's"),
        (made(head_dims=[64]), "the target selects kernels"),
        (made(dtypes=["bf16"]), "the target selects kernels"),
        (made(preset="inference"), "the target selects kernels"),
    ],
    ids=["no wheel", "CUDA", "all archs", "archs", "head_dims", "dtypes", "preset"],
)
def test_a_wheel_that_does_not_fit_is_skipped(candidate: Candidate, reason: str) -> None:
    name, _ = sources.published(FACTS, candidate, "official")
    found = sourced(candidate, known=pins(*filter(None, [name])))
    assert reason in why(found, "official")
    assert found.taken == "source"


def test_a_wheel_of_the_other_abi_is_skipped() -> None:
    # The wheels for torch 2.6 that are named for the old ABI hold the new one.
    (build,) = [row for row in FITTING.torch.build if row.cuda == FITTING.index]
    other = build.model_copy(update={"abi": False})
    rows = tuple(other if row is build else row for row in FITTING.torch.build)
    assert isinstance(FITTING.flash_attn, FlashAttnFact)
    release = FITTING.flash_attn.model_copy(
        update={
            "wheel": tuple(w.model_copy(update={"abi": (True,)}) for w in FITTING.flash_attn.wheel)
        }
    )
    torch = FITTING.torch.model_copy(update={"build": rows})
    candidate = replace(FITTING, torch=torch, flash_attn=release)
    reason = why(sourced(candidate, known=BOTH), "official")
    assert "has no wheel without the C++11 ABI" in reason
    assert "cxx11abifalse" in sources.own_name(candidate, kernels(candidate))


def test_third_parties_are_asked_for_by_name_and_by_hash() -> None:
    assert "third_party = true" in why(sourced(known=pins(THEIRS)), "third-party")
    assert why(sourced(FITTING, OPEN), "third-party").startswith(f"no hash of {THEIRS} is recorded")
    assert sourced(FITTING, OPEN, pins(THEIRS)).wheel == BOTH[THEIRS]
    assert why(sourced(FITTING, OPEN, BOTH), "third-party") == "not needed"


def test_every_kernel_and_every_architecture_is_the_same_in_any_order() -> None:
    for archs in permutations((80, 90, 100, 120)):
        candidate = made(archs=archs, dtypes=["bf16", "fp16"], head_dims=HEAD_DIMS[::-1])
        assert sourced(candidate, known=BOTH).taken == "official"


# --- the source -----------------------------------------------------------------------------------


def test_a_source_build_says_what_it_costs() -> None:
    (*_, step) = sourced(made(archs=[80, 90], preset="llama")).steps
    assert step.taken
    assert step.why == "12 kernel files for 2 architectures, about 0.4 CPU-hours"


def test_no_source_forbids_what_the_matrix_allows_and_nothing_else() -> None:
    found = sourced(no_source=True)
    assert found.taken is None
    assert why(found, "source") == "--no-source forbids it"
    assert sourced(known=BOTH, no_source=True).taken == "official"
    assert sourced(store=STORE, stored=True, no_source=True).taken == "store"


def test_a_matrix_that_wants_it_compiled_takes_nobodys_wheel() -> None:
    required = Policy(source="required", third_party=True)
    found = sourced(FITTING, required, BOTH)
    assert found.taken == "source"
    for place in ("official", "third-party"):
        assert 'source = "required"' in why(found, place)
    assert sourced(FITTING, required, BOTH, no_source=True).taken is None


# --- the name -------------------------------------------------------------------------------------


@given(
    archs=part((80, 90, 100, 120)).flatmap(st.permutations),
    head_dims=part(HEAD_DIMS).flatmap(st.permutations),
    dtypes=part(tuple(DTYPES)).flatmap(st.permutations),
    features=part(tuple(FEATURES), 0).flatmap(st.permutations),
    candidate=st.sampled_from(TARGETS),
)
def test_a_wheels_name_is_one_and_says_what_is_in_it(
    archs: list[int],
    head_dims: list[int],
    dtypes: list[str],
    features: list[str],
    candidate: Candidate,
) -> None:
    """In whichever order the matrix names kernels: the recipe has one order."""
    chosen = FlashAttn(
        version=FITTING.flash_attn.version,  # type: ignore[union-attr]
        archs=tuple(archs),
        head_dims=tuple(head_dims),
        dtypes=tuple(dtypes),
        features=tuple(features),
    )
    kernels = sources.selection(chosen)
    project, version, build, tags = parse_wheel_filename(sources.own_name(candidate, kernels))
    assert (project, version.public, build) == ("flash-attn", str(candidate.flash_attn.version), ())  # type: ignore[union-attr]
    cp = candidate.python.tag
    assert {str(tag) for tag in tags} == {f"{cp}-{cp}-linux_{candidate.host}"}
    assert version.local
    label = Label.read(version.local)
    assert (label.torch, label.cuda) == (minor(candidate.torch.version), cuda_word(candidate.index))
    assert sorted(label.selection.archs) == sorted(archs)
    assert set(label.selection.head_dims) == set(head_dims)
    assert set(label.selection.dtypes) == set(dtypes)
    assert set(label.selection.features) == set(features)
    assert label.selection == kernels


def test_kernels_named_twice_are_there_once() -> None:
    once = made(head_dims=[64], dtypes=["bf16"], features=[])
    twice = made(head_dims=[64, 64], dtypes=["bf16", "bf16"], features=[])
    assert sources.own_name(twice, kernels(twice)) == sources.own_name(once, kernels(once))
