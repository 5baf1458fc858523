"""One question, one answer: what is near, what is not known, where the pieces come from."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version
from typer.testing import CliRunner

from imagegen.cli import app
from imagegen.compat import query, why
from imagegen.compat.facts.rows import CudaFact, FlashAttnFact, exact
from imagegen.compat.pieces import Piece, pieces
from imagegen.compat.query import CHANGES, OPTIONS, Question, assuming, everything, narrowed
from imagegen.compat.solver import AXES, COST, Combination, best, first_fine, judged
from imagegen.compat.why import MACHINE, MOST, Answer, Near
from imagegen.errors import FactsError, ImagegenError, UsageError
from imagegen.model.target import minor
from tests.support.values import FACTS

WORKING: tuple[dict[str, str], ...] = (
    {
        "os": "ubuntu24.04", "cuda": "12.8", "torch": "2.8", "index": "cu128", "python": "3.12",
        "flash_attn": "2.8.3", "origin": "official", "host": "x86_64", "gpu": "RTX 4090",
        "driver": "580.95.05", "memory": "16",
    },
    {
        "os": "debian12", "cuda": "13.0", "torch": "2.11", "index": "cu130", "python": "3.11",
        "flash_attn": "2.8.3.post2", "origin": "source", "host": "x86_64", "gpu": "H100",
        "driver": "595", "memory": "16",
    },
    {
        "os": "ubuntu22.04", "cuda": "12.1", "torch": "2.5.1", "index": "cu121", "python": "3.10",
        "flash_attn": "2.7.4.post1", "origin": "official", "host": "x86_64", "gpu": "A100",
        "driver": "550.54.15", "memory": "16",
    },
)  # fmt: skip
VALUES: Mapping[str, tuple[str, ...]] = {
    "os": tuple(row.os.name for row in FACTS.os),
    "cuda": tuple(str(row.version) for row in FACTS.cuda),
    "torch": tuple(minor(row.version) for row in FACTS.torch),
    "index": tuple(f"cu{index.major}{index.minor}" for index in FACTS.indexes),
    "python": tuple(map(str, FACTS.pythons)),
    "flash_attn": ("none", *(str(row.version) for row in FACTS.flash_attn_releases)),
    "origin": ("official", "third-party", "source"),
    "host": ("x86_64", "aarch64"),
    "gpu": tuple(row.name for row in FACTS.gpu),
    "driver": ("470.86", "525", "550.54.15", "570", "575.57.08", "580.95.05", "595"),
    "memory": ("4", "5", "16"),
}

OPEN = ("os", "origin", "host", "gpu", "driver", "memory")
"""What a question may leave open without a long search."""


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """Something that works, with some of its values changed and some left open."""
    values = dict(draw(st.sampled_from(WORKING)))
    for axis in draw(st.lists(st.sampled_from(CHANGES), unique=True, min_size=1, max_size=3)):
        values[axis] = draw(st.sampled_from(VALUES[axis]))
    for axis in draw(st.lists(st.sampled_from(OPEN), unique=True, max_size=3)):
        values.pop(axis)
    if values["flash_attn"] == "none":
        values.pop("origin", "")
    return Question(**values)


@cache
def ask(**values: str) -> Answer:
    return why.answer(FACTS, Question(**values))


def codes(found: Answer) -> list[str]:
    return [reason.code for reason in found.found.reasons]


def holds(axis: str, word: str, combination: Combination) -> bool:
    """Whether the combination has what was asked for on that axis."""
    value = getattr(combination, axis)
    if axis == "gpu":
        return bool(value == FACTS.gpu_named(word))
    if axis == "driver":
        return bool(value == Version(word))
    if axis in ("torch", "cuda", "flash_attn") and word != "none" and value is not None:
        return exact(value.version, Version(word))
    return combination.spelled[axis] == word


def fixed(combination: Combination) -> Question:
    """The question that leaves nothing open."""
    words = {axis: word for axis, word in combination.spelled.items() if axis in OPTIONS}
    return Question(**{a: w for a, w in words.items() if w != "none" or a == "flash_attn"})


# --- what is near ---------------------------------------------------------------------------------


@settings(max_examples=30)
@given(questions())
def test_what_is_near_works_and_keeps_the_rest_of_the_question(question: Question) -> None:
    found = why.answer(FACTS, question)
    assert found.question == question
    for axis in question.axes:
        assert holds(axis, getattr(question, axis), found.found.combination)
    if found.found.fine:
        assert found.near == ()
    assert len(found.near) <= MOST
    sizes = [len(near.changed) for near in found.near]
    assert sizes == sorted(sizes)
    sets = [set(near.changed) for near in found.near]
    assert all(len(MACHINE & one) < 2 for one in sets), "that is just another machine"
    assert not any(a <= b for a in sets for b in sets if a is not b)
    for near in found.near:
        check(question, near)


def check(question: Question, near: Near) -> None:
    combination = near.found.combination
    assert near.found == judged(combination)
    assert near.found.verdict in ("ok", "warn")
    again = why.answer(FACTS, fixed(combination))
    assert again.found.verdict in ("ok", "warn")
    assert again.near == ()
    differ = {
        axis for axis in question.axes if not holds(axis, getattr(question, axis), combination)
    }
    changed = dict(near.changed)
    if "flash_attn" not in question.axes:  # a card without kernels still trains, without it
        assert changed.pop("flash_attn", ("any", "none")) == ("any", "none")
    assert set(changed) == differ
    assert near.changed
    for axis, (old, new) in changed.items():
        assert old == getattr(question, axis)
        assert new == combination.spelled[axis]


@settings(max_examples=20)
@given(questions())
def test_one_change_is_named_wherever_one_is_enough(question: Question) -> None:
    found = why.answer(FACTS, question)
    if found.found.fine:
        return
    domains = narrowed(FACTS, question)
    likely: set[str] = set()
    possible: set[str] = set()
    for axis in question.axes:
        if axis in ("driver", "memory"):  # of which there is no end
            continue
        values = [value for value in every(axis) if value not in domains[axis]]
        if axis == "python":  # the free-threaded build is for who asked for one
            free = domains[axis][0].free_threaded
            values = [value for value in values if value.free_threaded == free]
        far = [value for value in values if release(axis, value) != release(axis, domains[axis][0])]
        for chosen, fine in ((far, likely), (values, possible)):
            if chosen and first_fine(dict(domains) | {axis: chosen}, [axis]):
                fine.add(axis)
    named = {axis for near in found.near for axis in near.changed if len(near.changed) == 1}
    named &= set(question.axes)
    assert named - {"driver", "memory"} <= possible
    if len(found.near) < MOST:
        assert likely <= named


def every(axis: str) -> list[Any]:
    return list(FACTS.gpu if axis == "gpu" else everything(FACTS)[axis])


def release(axis: str, value: Any) -> Any:
    """Its minor, where it is a version of torch or of CUDA."""
    return minor(value.version) if axis in ("torch", "cuda") else value


@settings(max_examples=20)
@given(questions())
def test_the_command_of_what_is_near_asks_for_it(question: Question) -> None:
    axis_of = {option: axis for axis, option in OPTIONS.items()} | {"--debian": "os"}
    for near in why.answer(FACTS, question).near:
        program, command, *words = shlex.split(near.command)
        assert (program, command) == ("imagegen", "why")
        values = {}
        for option, word in zip(words[::2], words[1::2], strict=True):
            axis = axis_of[option]
            values[axis] = option.removeprefix("--") + word if axis == "os" else word
        assert set(values) == {*question.axes, *near.changed}
        assert why.answer(FACTS, Question(**values)).found == near.found


def test_the_nearest_value_is_one_step_away() -> None:
    found = ask(
        os="ubuntu24.04", cuda="12.8", torch="2.11", index="cu128", python="3.12",
        flash_attn="2.8.3", origin="official",
    )  # fmt: skip
    assert found.found.verdict == "impossible"
    assert codes(found)[0] == "flash-attn-wheel"
    one = {axis: new for near in found.near for axis, (_, new) in near.changed.items()}
    assert one["origin"] == "source"
    assert one["torch"] == "2.9.1", "2.10 has no wheel for CUDA 12 either"
    found = ask(cuda="13.0", torch="2.8", python="3.12")
    assert [dict(near.changed) for near in found.near] == [
        {"cuda": ("13.0", "12.9.2")},
        {"torch": ("2.8", "2.9.1")},
    ]


def test_a_driver_is_only_replaced_by_a_newer_one_and_memory_by_enough() -> None:
    old = ask(cuda="13.0", driver="570", torch="2.11", index="cu130", python="3.12")
    assert codes(old)[0] == "driver"
    (near,) = [near for near in old.near if set(near.changed) == {"driver"}]
    assert near.changed["driver"] == ("570", "580.65.06")
    found = ask(flash_attn="2.8.3.post2", origin="source", torch="2.11", memory="4")
    assert codes(found) == ["memory"]
    (near,) = [near for near in found.near if "memory" in near.changed]
    assert near.changed == {"memory": ("4", "5")}


def test_software_is_changed_before_machines() -> None:
    assert CHANGES[-2:] == ("host", "gpu")
    assert set(CHANGES) == set(OPTIONS) == {axis for axis in AXES if axis not in ("kind", "archs")}
    found = ask(gpu="T4", flash_attn="2.8.3", origin="official", torch="2.8", index="cu128")
    assert [dict(near.changed) for near in found.near] == [{"gpu": ("T4", "A30")}]


def test_a_card_without_kernels_still_trains_without_flash_attn() -> None:
    found = ask(gpu="T4", torch="2.8")
    assert codes(found) == ["flash-attn-gpu"]
    assert dict(found.near[0].changed) == {"flash_attn": ("any", "none")}
    assert found.near[0].command == "imagegen why --torch 2.8 --gpu T4 --flash-attn none"
    asked = ask(gpu="T4", torch="2.8", flash_attn="2.8.3")
    assert all("flash_attn" not in near.changed for near in asked.near), "who asked wants one"
    other = ask(torch="2.8", cuda="13.0")
    assert all("flash_attn" not in near.changed for near in other.near)


def test_at_most_one_thing_about_the_machine_changes() -> None:
    found = ask(
        cuda="13.0", torch="2.11", flash_attn="2.8.3.post2", origin="source", driver="525",
        memory="4",
    )  # fmt: skip
    assert {"memory", "driver"} <= set(codes(found))
    changed = [set(near.changed) for near in found.near]
    assert changed
    assert {"memory", "driver"} not in changed


def test_a_free_threaded_python_is_offered_only_to_who_asked_for_one() -> None:
    for python, free in (("3.8", False), ("3.12t", True)):
        found = ask(python=python, torch="2.9", flash_attn="none")
        (near,) = [near for near in found.near if set(near.changed) == {"python"}]
        assert near.changed["python"][1].endswith("t") == free


def test_a_driver_to_know_about_does_not_choose_an_older_torch() -> None:
    free, bound = ask(gpu="RTX 4090"), ask(gpu="RTX 4090", driver="550")
    newest = minor(free.found.combination.torch.version)
    assert minor(bound.found.combination.torch.version) == newest
    assert bound.found.verdict == "warn"
    assert set(codes(bound)) <= {"driver-minor", "container-gate"}
    least = best(narrowed(FACTS, Question(gpu="RTX 4090", driver="550")))
    assert least
    assert least.combination.torch.version < bound.found.combination.torch.version


@pytest.mark.parametrize("values", WORKING, ids=lambda values: values["os"])
def test_what_works_has_nothing_near(values: dict[str, str]) -> None:
    found = ask(**values)
    assert found.found.fine
    assert found.near == ()


def test_what_nobody_verified_has_something_near_that_is_known() -> None:
    found = ask(
        os="ubuntu24.04", cuda="12.8", torch="2.9", index="cu128", flash_attn="2.7.3",
        origin="source",
    )  # fmt: skip
    assert found.found.verdict == "unverified"
    assert codes(found)[0] == "flash-attn-untested"
    assert found.near
    assert all(near.found.fine for near in found.near)


# --- what is open ---------------------------------------------------------------------------------


def test_everything_is_every_value_the_preferred_first() -> None:
    values = everything(FACTS)
    assert set(values) == set(AXES)
    for axis, rows in (("torch", FACTS.torch), ("cuda", FACTS.cuda)):
        assert set(map(id, values[axis])) == set(map(id, rows))
        versions = [row.version for row in values[axis]]
        assert versions == sorted(versions, reverse=True)
    assert values["os"][0].os.name == "ubuntu24.04"
    assert len(values["os"]) == len(FACTS.os)
    assert "third-party" not in values["origin"], "only who asks for it gets it"
    assert values["host"][0] == "x86_64"


def test_an_open_axis_takes_the_value_that_works() -> None:
    assert ask(gpu="V100", flash_attn="none").found.verdict == "ok"
    assert ask(gpu="V100", flash_attn="none").found.combination.index == Version("12.6")
    assert ask(gpu="GH200").found.combination.host == "aarch64"
    assert ask(torch="2.5", python="3.12").found.combination.os.os.name == "ubuntu24.04"
    plain = ask(torch="2.7").found.combination
    assert plain.index == plain.torch.pypi_cuda, "the build on PyPI can be locked by hash"


def test_the_reasons_are_those_of_a_completion_with_the_fewest() -> None:
    found = ask(torch="2.12", index="cu128")
    assert found.found.verdict == "impossible"
    assert [r.code for r in found.found.reasons if r.severity == "impossible"] == ["torch-cuda"]
    assert sum(COST[r.severity] for r in found.found.reasons) < 2 * COST["impossible"]


def test_no_flash_attn_is_a_value() -> None:
    found = ask(flash_attn="none", gpu="T4").found
    assert found.combination.flash_attn is None
    assert found.verdict == "ok"
    assert ask(flash_attn="2.8.3", gpu="T4").found.verdict == "impossible"


@pytest.mark.parametrize(
    ("python", "torch", "verdict", "code"),
    [
        ("3.13t", "2.9", "warn", "python-distribution"),
        ("3.14t", "2.9", "warn", "python-distribution"),
        ("3.13t", "2.5", "impossible", "torch-python"),
        ("3.12t", "2.9", "impossible", "torch-python"),
        ("3.13t", "2.6", "unverified", "torch-python-index"),
        ("3.14t", "2.15", "warn", "python-distribution"),
    ],
)
def test_a_free_threaded_python_takes_wheels_of_its_own(
    python: str, torch: str, verdict: str, code: str
) -> None:
    found = ask(python=python, torch=torch, flash_attn="none")
    assert found.found.verdict == verdict
    assert code in codes(found)
    assert found.found.combination.python.free_threaded
    assert found.found.combination.spelled["python"] == python


# --- what is not known ----------------------------------------------------------------------------


def refused(kind: type[ImagegenError] = FactsError, **values: str) -> ImagegenError:
    with pytest.raises(kind) as caught:
        ask(**values)
    return caught.value


@pytest.mark.parametrize(
    ("axis", "word", "near"),
    [
        ("os", "ubuntu24.40", "ubuntu24.04"),
        ("os", "debian11", "debian12"),
        ("torch", "2.16", "2.15"),
        ("torch", "2.9.7", "2.9.1"),
        ("torch", "1.13", "2.4"),
        ("cuda", "12.7", "12.6"),
        ("cuda", "12.8.9", "12.8.2"),
        ("flash_attn", "2.9", "2.8"),
        ("index", "cu127", "cu126"),
        ("origin", "offical", "official"),
        ("host", "arch64", "aarch64"),
    ],
)
def test_a_value_that_no_fact_knows_is_refused_with_the_nearest(
    axis: str, word: str, near: str
) -> None:
    error = refused(FactsError, **{axis: word})
    assert error.exit_code == 3
    assert repr(word) in str(error)
    assert near in str(error).partition(word)[2]
    assert ("--allow-unknown" in error.hint) == (axis in ("torch", "cuda", "flash_attn"))


@pytest.mark.parametrize(
    ("axis", "word"),
    [
        ("torch", "new"),
        ("torch", "none"),
        ("cuda", "12.x"),
        ("cuda", "none"),
        ("driver", "newest"),
        ("driver", "12.8"),
        ("driver", "5700"),
        ("driver", "none"),
        ("python", "3"),
        ("memory", "8GB2"),
        ("memory", "GB"),
        ("memory", "-8"),
        ("memory", "8.5"),
        ("memory", "²"),
    ],
)
def test_a_value_of_no_such_form_is_a_matter_of_usage(axis: str, word: str) -> None:
    error = refused(UsageError, **{axis: word})
    assert error.exit_code == 2
    assert word in str(error)
    assert OPTIONS[axis] in str(error)


def test_a_cuda_version_is_not_taken_for_a_driver() -> None:
    error = refused(UsageError, driver="12.8")
    assert "is it a CUDA version?" in str(error)
    assert "nvidia-smi" in error.hint


def test_no_flash_attn_comes_from_nowhere() -> None:
    for origin in VALUES["origin"]:
        assert "--flash-attn-from" in str(refused(UsageError, flash_attn="none", origin=origin))


@pytest.mark.parametrize("word", ["4", "4.0", "4.0.0", "4.0.0b36"])
def test_a_beta_is_found_however_it_is_named(word: str) -> None:
    found = ask(flash_attn=word, torch="2.11", cuda="13.0").found
    assert found.combination.spelled["flash_attn"] == "4.0.0b36"
    assert found.combination.spelled["origin"] == "official"


def test_another_package_is_no_newer_flash_attn() -> None:
    """Who does not name a generation gets flash-attn 2, and so does who is told what is near."""
    assert ask(torch="2.11", gpu="H100").found.combination.spelled["flash_attn"] == "2.8.3.post2"
    found = ask(flash_attn="3", torch="2.11", gpu="B200")
    assert codes(found)[0] == "flash-attn-gpu"
    assert [near.changed for near in found.near] == [{"flash_attn": ("3", "2.8.3.post2")}]


@pytest.mark.parametrize(
    ("generation", "gpu", "code"),
    [
        ("3", "H100", "flash-attn-unproven"),
        ("3", "A100", "flash-attn-unproven"),
        ("3", "RTX 5090", "flash-attn-gpu"),
        ("3", "T4", "flash-attn-gpu"),
        ("4", "H100", ""),
        ("4", "RTX 5090", ""),
        ("4", "A100", "flash-attn-backward"),
        ("4", "RTX 4090", "flash-attn-backward"),
        ("4", "T4", "flash-attn-gpu"),
    ],
)
def test_the_generations_and_the_cards(generation: str, gpu: str, code: str) -> None:
    found = ask(flash_attn=generation, gpu=gpu, torch="2.11", cuda="13.0")
    known = {"flash-attn-beta", "flash-attn-cute"} if generation == "4" else {"flash-attn-unproven"}
    assert set(codes(found)) == known | ({code} if code else set())
    verdicts = {"flash-attn-gpu": "impossible", "flash-attn-unproven": "unverified"}
    assert found.found.verdict == verdicts.get(code, "warn")


@pytest.mark.parametrize(
    ("axis", "words", "value"),
    [
        ("memory", ("16", "16GB", "16 gb"), 16),
        ("host", ("x86_64", "amd64", "x86-64"), "x86_64"),
        ("host", ("aarch64", "arm64"), "aarch64"),
        ("driver", ("570", "R570", "r570"), Version("570")),
        ("driver", ("570.124.06", "570.124.6"), Version("570.124.6")),
        ("index", ("cu128", "12.8", "cu12.8", "CU128"), Version("12.8")),
    ],
)
def test_a_value_is_taken_as_people_write_it(
    axis: str, words: tuple[str, ...], value: object
) -> None:
    for word in words:
        assert narrowed(FACTS, Question(**{axis: word}))[axis] == (value,)


@pytest.mark.parametrize(
    ("axis", "word", "like"),
    [
        ("torch", "2.16", "2.15.0"),
        ("torch", "2.9.7", "2.9.1"),
        ("cuda", "13.9", "13.5.0"),
        ("cuda", "12.7", "12.6.3"),
        ("flash_attn", "2.9", "2.8.3.post2"),
    ],
)
def test_a_version_that_is_allowed_is_taken_to_be_like_the_one_before(
    axis: str, word: str, like: str
) -> None:
    found = why.answer(FACTS, Question(**{axis: word}), allow_unknown=True)
    assert found.found.verdict == "unverified"
    (reason,) = [r for r in found.found.reasons if r.code == "unknown-version"]
    assert word in reason.text
    assert like in reason.text
    assert found.found.combination.spelled[axis] == word
    assert refused(FactsError, **{axis: word}), "and nothing was learned for good"


def test_several_versions_can_be_allowed_at_once() -> None:
    asked = Question(torch="2.16", cuda="13.9", flash_attn="2.9", origin="source")
    found = why.answer(FACTS, asked, allow_unknown=True)
    assert codes(found).count("unknown-version") == 3
    assert found.found.verdict == "unverified"


def test_a_known_version_needs_no_allowance() -> None:
    asked = Question(torch="2.9", cuda="12.8", flash_attn="none")
    assert assuming(FACTS, asked) is FACTS
    assert why.answer(FACTS, asked, allow_unknown=True).found == why.answer(FACTS, asked).found


@pytest.mark.parametrize(
    ("axis", "word"), [("torch", "1.13"), ("cuda", "11.7"), ("flash_attn", "2.0")]
)
def test_a_version_before_all_is_refused_even_then(axis: str, word: str) -> None:
    with pytest.raises(FactsError, match="older than every") as caught:
        why.answer(FACTS, Question(**{axis: word}), allow_unknown=True)
    assert word in str(caught.value)
    assert caught.value.exit_code == 3


def test_only_versions_can_be_allowed() -> None:
    for axis, word in (("os", "ubuntu30.04"), ("gpu", "RTX 9090"), ("index", "cu150")):
        with pytest.raises(FactsError, match=word):
            why.answer(FACTS, Question(**{axis: word}), allow_unknown=True)


# --- cards ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("4090", "RTX 4090"),
        ("RTX_4090", "RTX 4090"),
        ("rtx-4090", "RTX 4090"),
        ("H100 80GB HBM3", "H100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("A100-SXM4-80GB", "A100"),
        ("Tesla T4", "T4"),
        ("t4", "T4"),
        ("RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("A6000", "RTX A6000"),
        ("1080 Ti", "GTX 1080 Ti"),
        ("GeForce RTX 5090", "RTX 5090"),
        ("H100 PCIe", "H100"),
        ("NVIDIA A100-PCIE-40GB", "A100"),
        ("Tesla V100-SXM2-16GB", "V100"),
    ],
)
def test_a_card_is_found_however_it_is_spelled(spelled: str, name: str) -> None:
    assert query.card(FACTS, spelled).name == name
    assert ask(gpu=spelled, flash_attn="none").found.combination.spelled["gpu"] == name


@pytest.mark.parametrize("spelled", ["6000", "NVIDIA", "0", "Ti", "RTX 9090", "80GB", "100"])
def test_a_card_that_may_be_several_or_none_is_refused(spelled: str) -> None:
    error = refused(gpu=spelled)
    assert error.exit_code == 3
    assert repr(spelled) in str(error)


def test_the_nearest_cards_are_named() -> None:
    assert "'RTX 4090'" in refused(gpu="RTX 4900").hint
    assert refused(gpu="---").hint == ""
    hint = refused(gpu="6000").hint
    assert all("6000" in name for name in hint.removeprefix("near: ").split(", "))
    assert {"'RTX A6000'", "'RTX 6000 Ada'"} <= set(hint.removeprefix("near: ").split(", "))


def test_every_name_of_every_card_is_found() -> None:
    for row in FACTS.gpu:
        for name in (row.name, *row.also):
            for spelled in (name, name.lower(), name.replace(" ", "_"), f"NVIDIA {name}"):
                assert query.card(FACTS, spelled) is row, spelled


# --- pieces ---------------------------------------------------------------------------------------


def parts(**values: str) -> dict[str, Piece]:
    found = ask(**values).found
    return pieces(FACTS, found.combination)


def test_the_pieces_of_an_official_wheel() -> None:
    found = parts(**WORKING[0])
    assert set(found) == {
        "base", "nvcc", "python", "torch", "torchvision", "torchaudio", "triton", "flash_attn",
    }  # fmt: skip
    assert all(piece["from"] for piece in found.values())
    name = "flash_attn-2.8.3+cu12torch2.8cxx11abiTRUE-cp312-cp312-linux_x86_64.whl"
    assert found["flash_attn"] == {
        "from": "the official wheel",
        "version": "2.8.3",
        "archs": [80, 90, 100, 120],
        "wheel": name,
        "url": FACTS.flash_attn_url.format(version="2.8.3", wheel=name),
    }
    assert found["torch"] == {"from": "PyPI", "version": "2.8.0", "cuda": "12.8"}
    assert found["python"] == {"from": "ubuntu24.04", "version": "3.12"}
    assert str(found["base"]["image"]).startswith("nvidia/cuda:12.8.")
    json.dumps(found)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (WORKING[2], "flash_attn-2.7.4.post1+cu12torch2.5cxx11abiFALSE-cp310-cp310"),
        (
            {"torch": "2.9", "index": "cu130", "python": "3.12", "flash_attn": "2.8.3.post1"},
            "v2.8.3.post1/flash_attn-2.8.3+cu13torch2.9cxx11abiTRUE-cp312-cp312",
        ),
        (
            {"torch": "2.4", "index": "cu118", "python": "3.10", "flash_attn": "2.6.3"},
            "flash_attn-2.6.3+cu118torch2.4cxx11abiFALSE-cp310-cp310",
        ),
    ],
    ids=["the old ABI", "named as another release", "an old tag"],
)
def test_the_name_of_an_official_wheel(values: dict[str, str], name: str) -> None:
    piece = parts(**(values | {"origin": "official"}))["flash_attn"]
    assert f"/{name}-linux_x86_64.whl" in str(piece["url"])
    assert str(piece["url"]).endswith(f"/{piece['wheel']}")


def test_the_name_of_a_wheel_on_arm() -> None:
    piece = parts(
        host="aarch64", torch="2.10", index="cu130", python="3.12", flash_attn="2.8.3",
        origin="official",
    )["flash_attn"]  # fmt: skip
    name = "flash_attn-2.8.3+cu13torch2.10cxx11abiTRUE-cp312-cp312-linux_aarch64.whl"
    assert piece["wheel"] == name


def test_the_pieces_of_a_third_partys_wheel() -> None:
    piece = parts(
        torch="2.10", index="cu130", python="3.13", flash_attn="2.8.3", origin="third-party"
    )["flash_attn"]
    wheel = str(piece["wheel"])
    assert piece["from"] == "a third party's wheel"
    assert wheel.startswith("flash_attn-2.8.3+cu130torch2.10-cp313-cp313-")
    assert wheel.endswith("x86_64.whl")
    assert str(piece["url"]).startswith(FACTS.third_party_url.partition("{")[0])
    assert str(piece["url"]).endswith(f"/{wheel}")
    missing = parts(torch="2.4", python="3.12", flash_attn="2.8.3.post2", origin="third-party")
    assert missing["flash_attn"]["from"] == "no third-party wheel is known"
    assert "wheel" not in missing["flash_attn"]


def test_the_pieces_of_a_compilation() -> None:
    piece = parts(**WORKING[1])["flash_attn"]
    release = FACTS.flash_attn_like(Version("2.8.3.post2"))[0]
    assert isinstance(release, FlashAttnFact)
    assert piece["from"] == "source"
    assert piece["sdist"] == "flash_attn-2.8.3.post2.tar.gz"
    assert piece["sha256"] == release.sha256
    assert piece["archs"] == [80, 90, 100, 120]
    assert piece["kernel_files"] == release.kernel_files == 72
    old = parts(os="ubuntu22.04", cuda="12.6", torch="2.8", flash_attn="2.8.3", origin="source")
    assert old["flash_attn"]["archs"] == [80, 90]
    assert parts(flash_attn="none")["flash_attn"] == {"from": "not in the image"}


@pytest.mark.parametrize(
    ("torch", "index", "host", "where"),
    [
        ("2.8", "cu128", "x86_64", "PyPI"),
        ("2.8", "cu126", "x86_64", "PyTorch's index cu126"),
        ("2.10", "cu128", "aarch64", "PyTorch's index cu128"),
        ("2.11", "cu130", "aarch64", "PyPI"),
        ("2.11", "cu128", "x86_64", "PyTorch's index cu128"),
    ],
)
def test_torch_is_on_pypi_for_one_cuda(torch: str, index: str, host: str, where: str) -> None:
    piece = parts(torch=torch, index=index, host=host, python="3.12")["torch"]
    assert piece["from"] == where
    assert f"cu{str(piece['cuda']).replace('.', '')}" == index


def test_where_nvcc_python_and_the_base_come_from() -> None:
    found = parts(**WORKING[1])
    assert found["nvcc"] == {
        "from": "wheels on PyPI, beside torch's CUDA libraries",
        "version": "13.0.2",
    }
    assert found["base"]["image"] == "library/debian:12-slim"
    assert "note" in found["base"], "no digest of it is known"
    assert found["python"]["from"] == "debian12"
    taken = parts(**(WORKING[0] | {"python": "3.11"}))
    assert taken["python"] == {"from": "elsewhere", "version": "3.11"}
    assert taken["nvcc"] == {"from": "NVIDIA's apt packages", "version": "12.8.1"}
    absent = parts(os="debian12", cuda="12.8", torch="2.8")
    assert absent["base"] == {"from": "none: NVIDIA publishes no images for debian"}
    unlisted = parts(os="ubuntu22.04", cuda="12.8.2", torch="2.8", flash_attn="none")["base"]
    assert unlisted["from"] == "an nvidia/cuda image that no list has"
    assert str(unlisted["image"]).startswith("nvidia/cuda:12.8.2-")
    ended = parts(torch="2.12")["torchaudio"]
    assert "none" in str(ended["from"])
    assert parts(torch="2.11")["torchaudio"] == {"from": "beside torch", "version": "2.11.0"}


def test_a_digest_is_given_where_it_is_known() -> None:
    known = next(row for row in FACTS.base if row.digest and row.kind == "devel")
    toolkit = facts_cuda(str(known.cuda))
    combination = ask(torch="2.8").found.combination
    values = {axis: getattr(combination, axis) for axis in AXES}
    os = FACTS.os_named(known.os)
    assert os
    made = Combination(**(values | {"cuda": toolkit, "os": os, "kind": "devel"}))
    assert pieces(FACTS, made)["base"] == {
        "from": "NVIDIA's image",
        "image": known.tag,
        "digest": known.digest,
        "witnesses": known.witnesses,
    }
    assert pieces(FACTS, made)["nvcc"]["from"] == "the base image"


def facts_cuda(version: str) -> CudaFact:
    return next(row for row in FACTS.cuda if str(row.version) == version)


# --- the command line -----------------------------------------------------------------------------


ENVIRONMENT = {
    "COLUMNS": "200",
    "NO_COLOR": "1",
    "IMAGEGEN_FACTS": None,
    "IMAGEGEN_ALLOW_UNKNOWN": None,
}


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app.app, ["why", *words], env=ENVIRONMENT)


IMPOSSIBLE = ("--ubuntu", "24.04", "--cuda", "13.0", "--torch", "2.8", "--python", "3.12")
FINE = ("--ubuntu", "24.04", "--cuda", "12.8", "--torch", "2.8", "--python", "3.12")
WARNS = ("--gpu", "RTX 4090", "--driver", "550.54.15", "--cuda", "12.8", "--torch", "2.8")
UNVERIFIED = ("--torch", "2.8", "--cuda", "12.8.2", "--ubuntu", "22.04", "--flash-attn", "none")


@pytest.mark.parametrize(
    ("words", "verdict", "status"),
    [
        (FINE, "ok", 0),
        (WARNS, "warn", 0),
        (UNVERIFIED, "unverified", 0),
        (IMPOSSIBLE, "impossible", 4),
    ],
)
def test_the_answer_as_json(words: tuple[str, ...], verdict: str, status: int) -> None:
    done = invoke(*words, "--format", "json")
    assert done.exit_code == status
    found = json.loads(done.stdout)
    keys = {"verdict", "combination", "reasons", "pieces", "flash_attn_places", "nearest"}
    assert set(found) == keys
    assert found["verdict"] == verdict
    places = ["store", "official", "third-party", "source"]
    two = str(found["combination"]["flash_attn"]).startswith("2.")
    assert [step["place"] for step in found["flash_attn_places"]] == (places if two else [])
    assert all(step["why"] for step in found["flash_attn_places"])
    assert set(found["combination"]) == {*OPTIONS, "kind"}
    assert bool(found["reasons"]) == (verdict != "ok")
    for reason in found["reasons"]:
        assert set(reason) == {"code", "severity", "stage", "text", "source"}
        assert all(reason.values())
    assert bool(found["nearest"]) == (verdict in ("impossible", "unverified"))
    for near in found["nearest"]:
        assert {"verdict", "changed", "combination", "reasons"} <= set(near)
        assert near["verdict"] in ("ok", "warn")
        for axis, change in near["changed"].items():
            assert change["to"] == near["combination"][axis]
            assert change["from"] in words
    assert all(piece["from"] for piece in found["pieces"].values())


@pytest.mark.parametrize(
    ("words", "verdict", "status"),
    [(FINE, "ok", 0), (WARNS, "warn", 0), (IMPOSSIBLE, "impossible", 4)],
)
def test_the_answer_as_text(words: tuple[str, ...], verdict: str, status: int) -> None:
    done = invoke(*words)
    assert done.exit_code == status
    text = done.stdout
    assert text.startswith(f"{verdict}: ")
    assert ("where the pieces come from:" in text) == (verdict != "impossible")
    assert ("nearest combinations that work:" in text) == (verdict == "impossible")
    assert ("    source: " in text) == (verdict != "ok")


def test_the_commands_that_are_named_work_when_typed() -> None:
    found = json.loads(invoke(*IMPOSSIBLE, "--format", "json").stdout)
    assert len(found["nearest"]) == 2
    for near in found["nearest"]:
        program, command, *words = shlex.split(near["command"])
        assert (program, command) == ("imagegen", "why")
        again = invoke(*words, "--format", "json")
        assert again.exit_code == 0
        assert json.loads(again.stdout)["combination"] == near["combination"]


def test_every_option_reaches_its_axis() -> None:
    words = {"os": "22.04"}
    asked = WORKING[2] | words
    line = [word for axis, value in asked.items() for word in (OPTIONS[axis], value)]
    found = json.loads(invoke(*line, "--format", "json").stdout)["combination"]
    expected = WORKING[2] | {"cuda": "12.1.1"}
    assert {axis: found[axis] for axis in expected} == expected
    debian = json.loads(invoke("--debian", "12", "--format", "json").stdout)
    assert debian["combination"]["os"] == "debian12"


def test_what_is_absent_is_null_in_json() -> None:
    found = json.loads(invoke("--flash-attn", "none", "--format", "json").stdout)["combination"]
    assert found["flash_attn"] is None
    assert found["gpu"] is found["driver"] is found["memory"] is None
    assert found["torch"]


def test_what_torch_calls_itself_names_its_index(
    line: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    done = invoke("--torch", "2.9.1+cu126", "--format", "json")
    found = json.loads(done.stdout)["combination"]
    assert (found["torch"], found["index"]) == ("2.9.1", "cu126")
    both = ("--torch", "2.9.1+cu126", "--torch-index")
    same = json.loads(invoke(*both, "cu126", "--format", "json").stdout)
    assert same["combination"]["index"] == "cu126"
    assert line("why", *both, "cu128") == 2
    assert "contradict" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--gpu", "RTX 9090"), 3),
        (("--torch-index", "cu127"), 3),
        (("--arch", "riscv64"), 3),
        (("--ubuntu", "24.40"), 3),
        (("--torch", "none"), 2),
        (("--cuda", "none"), 2),
        (("--driver", "12.8"), 2),
        (("--memory", "²"), 2),
        (("--flash-attn", "5"), 3),
        (("--flash-attn", "none", "--flash-attn-from", "official"), 2),
    ],
)
def test_what_is_not_known_is_3_and_what_has_no_such_form_is_2(
    words: tuple[str, ...], status: int, line: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert line("why", *words) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")


def test_two_distributions_are_a_matter_of_usage(
    line: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert line("why", "--ubuntu", "24.04", "--debian", "12") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "--ubuntu" in err
    assert "--debian" in err


def test_an_unknown_version_is_3_unless_it_is_allowed(
    line: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert line("why", "--torch", "2.16") == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "2.15" in err
    assert "hint: --allow-unknown" in err
    assert line("why", "--torch", "2.16", "--allow-unknown", "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "unverified"
    assert found["combination"]["torch"] == "2.16"
    assert "unknown-version" in [reason["code"] for reason in found["reasons"]]


def test_nothing_that_can_work_is_4(line: Any) -> None:
    assert line("why", *IMPOSSIBLE) == 4
    assert line("why", *UNVERIFIED) == 0


def test_a_users_own_facts_are_asked(tmp_path: Any) -> None:
    file = tmp_path / "mine.toml"
    row = 'name = "RTX 9090"\ncapability = 120\nmemory = [64]\nbrand = "geforce"\n'
    row += 'source = "a friend"\nchecked = 2026-11-21\n'
    file.write_text(f"[[gpu]]\n{row}")
    assert isinstance(invoke("--gpu", "9090").exception, FactsError)
    done = invoke("--gpu", "9090", "--facts", str(file), "--format", "json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["combination"]["gpu"] == "RTX 9090"


def test_best_of_the_narrowed_values_is_the_answer() -> None:
    question = Question(torch="2.9", cuda="12.8")
    assert why.answer(FACTS, question).found == best(narrowed(FACTS, question))
