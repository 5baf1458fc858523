"""Which kernels a wheel holds, what it is called, and how its compilation is cut into parts."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from imagegen.image.wheel.flash_attn_wheel.__main__ import words
from imagegen.image.wheel.flash_attn_wheel.selection import (
    DTYPES,
    FEATURES,
    HEAD_DIMS,
    KERNELS,
    LINKING,
    PRESETS,
    Label,
    Part,
    Selection,
    foretold,
    heaviest_first,
    kernel,
    shards,
    weight,
)
from tests.support.wheel_recipe import DEMO, FOLDER, FULL, LLAMA, preset, selections

# --- what can be selected -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"head_dims": (128, 160)}, r"head_dims: \[160\] not in"),
        ({"dtypes": ("fp8", "bf16")}, r"dtypes: \['fp8'\] not in"),
        ({"features": ("dropuot",)}, r"features: \['dropuot'\] not in"),
        ({"archs": ()}, "archs: empty"),
        ({"head_dims": ()}, "head_dims: empty"),
        ({"dtypes": ()}, "dtypes: empty"),
    ],
)
def test_what_cannot_be_built_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(FULL, **values)


@pytest.mark.parametrize("dim", HEAD_DIMS)
def test_no_head_dimension_needs_a_feature(dim: int) -> None:
    assert Selection((80,), (dim,), features=()).features == ()
    assert Selection((80,), (dim,), features=("backward",)).has(f"flash_bwd_hdim{dim}_bf16_sm80.cu")


def test_there_are_72_kernels_and_all_is_all() -> None:
    assert len(set(KERNELS)) == 72
    assert FULL.kernels == KERNELS


@pytest.mark.parametrize(
    ("name", "kernels", "features"),
    [
        ("full", 72, set(FEATURES)),
        ("llama", 12, {"backward"}),
        ("gpt2", 12, {"dropout", "backward"}),
        ("inference", 48, {"alibi", "softcap", "local", "uneven_k"}),
    ],
)
def test_what_a_preset_holds(name: str, kernels: int, features: set[str]) -> None:
    assert len(preset(name).kernels) == kernels
    assert set(preset(name).features) == features
    dims = {"llama": (128,), "gpt2": (64,)}.get(name, HEAD_DIMS)
    assert preset(name).head_dims == dims


def test_every_preset_was_looked_at() -> None:
    assert set(PRESETS) == {"full", "llama", "gpt2", "inference"}


def test_six_kernels_train_a_llama_and_four_run_it() -> None:
    assert len(LLAMA.kernels) == 6
    assert all("hdim128_bf16" in name for name in LLAMA.kernels)
    assert len(replace(LLAMA, features=()).kernels) == 4


def test_a_file_without_kernel_is_always_there() -> None:
    assert LLAMA.has("csrc/flash_attn/flash_api.cpp")
    assert LLAMA.has("csrc/flash_attn/src/flash_fwd_kernel.h")


@given(selections())
def test_how_many_kernels_a_selection_holds(selection: Selection) -> None:
    kinds = 3 if "backward" in selection.features else 2
    held = len(selection.kernels)
    assert held == len(selection.head_dims) * len(selection.dtypes) * 2 * kinds
    assert held == sum(selection.has(f"csrc/flash_attn/src/{name}") for name in KERNELS)


def test_words_are_in_order_without_repeats() -> None:
    assert words(int, HEAD_DIMS)("128,64,128") == (64, 128)
    assert words(int, range(200))("120,80") == (80, 120)
    assert words(str, DTYPES)("bf16,fp16") == ("fp16", "bf16")
    assert words(str, FEATURES)("") == ()
    assert words(str, DTYPES)("fp8") == ("fp8",)  # Selection refuses it by name
    with pytest.raises(ValueError, match="x"):
        words(int, HEAD_DIMS)("x")


# --- names ----------------------------------------------------------------------------------------


@given(
    selections(),
    st.sampled_from(["2.6", "2.11", "2.15"]),
    st.sampled_from(["12.6", "13.0"]),
    st.booleans(),
)
def test_a_version_says_everything_and_is_read_again(
    selection: Selection, torch: str, cuda: str, abi: bool
) -> None:
    local = selection.local_version(torch, cuda, abi)
    assert Label.read(local) == Label(torch, f"cu{cuda.replace('.', '')}", abi, selection)


@given(selections(), st.booleans())
def test_a_local_version_is_one(selection: Selection, abi: bool) -> None:
    local = selection.local_version("2.11", "13.0", abi)
    version = Version(f"2.8.3.post2+{local}")
    assert version.local == local, "it is its own normal form, as a wheel's name has it"
    assert version.public == "2.8.3.post2"
    name = f"flash_attn-2.8.3.post2+{local}-cp311-cp311-linux_x86_64.whl"
    assert parse_wheel_filename(name)[1] == version


@pytest.mark.parametrize(
    "local",
    [
        "",
        "cu12torch2.8cxx11abiTRUE",  # upstream's
        "cu12torch2.8cxx11abitrue",
        "cu130torch2.11cxx11abitrue",
        "cu130torch2.11cxx11abitrue.hdim128",
        "cu130torch2.11cxx11abitrue.sm80.hdim100",
        "cu130torch2.11cxx11abitrue.sm80.nopain",
        "cu130torch2.11cxx11abitrue.sm80.hopper",
        "cu130torch2.11cxx11abitrue.sm80.fp8",
        "cu130torch2.11cxx11abitrue.sm",
        "cu130torch2.11cxx11abitrue.bf16.sm80",
        "cu130torch2.11cxx11abitrue.sm80.fp16.bf16",
        "torch2.11.sm80",
    ],
)
def test_a_version_of_somebody_else_promises_nothing(local: str) -> None:
    with pytest.raises(ValueError, match=r"of this recipe|archs: empty|not in|invalid literal"):
        Label.read(local)


def parts(values: Sequence[Any], least: int = 1) -> list[tuple[Any, ...]]:
    return [p for n in range(least, len(values) + 1) for p in combinations(values, n)]


def test_two_selections_never_share_a_version() -> None:
    every = [
        Selection(archs, dims, dtypes, features)
        for archs in ((80,), (90,), (80, 90))
        for dims, dtypes in product(parts(HEAD_DIMS), parts(tuple(DTYPES)))
        for features in parts(tuple(FEATURES), 0)
    ]
    names = {selection.local_version("2.11", "13.0", True) for selection in every}
    assert len(names) == len(every) > 20_000


def test_torch_cuda_and_abi_tell_wheels_apart() -> None:
    names = {
        FULL.local_version(torch, cuda, abi)
        for torch in ("2.1", "2.11", "2.10")
        for cuda in ("12.1", "12.10", "13.0")
        for abi in (True, False)
    }
    assert len(names) == 18
    assert FULL.local_version("2.11", "13.0", True) == "cu130torch2.11cxx11abitrue.sm80"


def test_the_demos_version_says_what_is_inside() -> None:
    assert LLAMA.local_version("2.11", "13.0", True) == DEMO
    assert Label.read(DEMO) == Label("2.11", "cu130", True, LLAMA)


def empty_wheel(folder: Path, selection: Selection) -> Path:
    """A wheel without a module, for any interpreter, whose version is that of ``selection``."""
    version = f"2.8.3.post2+{selection.local_version('2.11', '13.0', True)}"
    info = f"flash_attn-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: flash_attn\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    file = folder / f"flash_attn-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
        archive.writestr(f"{info}/RECORD", record)
    return file


PIP = ("pip", "install", "--disable-pip-version-check", "--no-cache-dir")


@pytest.mark.process
@pytest.mark.parametrize("selection", [FULL, LLAMA, replace(preset("gpt2"), archs=(80, 90, 120))])
@pytest.mark.parametrize("tool", [("uv", "pip", "install", "--no-cache"), PIP])
def test_installers_take_such_a_name(
    tool: tuple[str, ...], selection: Selection, tmp_path: Path
) -> None:
    """pip and uv compare the version in the name with that in the metadata, each in its way."""
    if tool[0] == "pip":
        try:
            subprocess.run(["pip", "--version"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no pip here")
    file, target = empty_wheel(tmp_path, selection), tmp_path / "target"
    options = ["--no-index", "--no-deps", "--target", target, file]
    done = subprocess.run([*tool, *options], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (info,) = target.glob("*.dist-info")
    local = selection.local_version("2.11", "13.0", True)
    assert f"Version: 2.8.3.post2+{local}\n" in (info / "METADATA").read_text()


# --- shards ---------------------------------------------------------------------------------------


@given(selections())
def test_every_kernel_costs_something(selection: Selection) -> None:
    assert all(weight(name, selection) > 0 for name in selection.kernels)


@pytest.mark.parametrize(
    ("kind", "lean", "dropout", "every"),
    [("fwd", 50, 80, 182), ("fwd_split", 63, 63, 332), ("bwd", 70, 98, 255)],
)
def test_what_was_measured_is_what_is_foretold(
    kind: str, lean: float, dropout: float, every: float
) -> None:
    """For head dimension 128, without optional features, with one and with all of them."""
    name = kernel(kind, 128, "bf16", False)
    for features, seconds in (((), lean), (("dropout",), dropout), (FEATURES, every)):
        assert weight(name, replace(LLAMA, features=tuple(features))) == pytest.approx(
            seconds, 0.01
        )


@pytest.mark.parametrize(("kind", "times"), [("fwd", 1.5), ("fwd_split", 1.8), ("bwd", 1.4)])
def test_windows_cost_in_files_that_are_not_causal(kind: str, times: float) -> None:
    windows = replace(LLAMA, features=("local", "backward"))
    open_, causal = (kernel(kind, 128, "bf16", flag) for flag in (False, True))
    assert weight(open_, windows) == pytest.approx(times * weight(open_, LLAMA))
    assert weight(causal, windows) == weight(causal, LLAMA) == weight(open_, LLAMA)
    assert heaviest_first([causal, open_], windows) == [open_, causal]


@given(selections(), st.sampled_from(list(FEATURES)))
def test_no_feature_makes_a_file_cheaper(selection: Selection, feature: str) -> None:
    more = replace(selection, features=tuple({*selection.features, feature}))
    assert all(weight(name, more) >= weight(name, selection) for name in selection.kernels)


def test_large_heads_take_longer() -> None:
    every = [weight(kernel("fwd", dim, "bf16", True), FULL) for dim in (128, 192, 256)]
    assert every == [pytest.approx(every[0] * times) for times in (1, 1.2, 1.4)]


def test_the_demo_is_foretold() -> None:
    """Six files of 366 seconds, and the link: on two cores, on one, in two parts, on many."""
    assert foretold(LLAMA, 2) == pytest.approx((366 / 3600, 183 + LINKING))
    assert foretold(LLAMA, 1) == pytest.approx((366 / 3600, 366 + LINKING))
    assert foretold(LLAMA, 1, 2) == pytest.approx((183 / 3600, 183 + LINKING))
    assert foretold(LLAMA, 64) == pytest.approx((366 / 3600, 70 + LINKING)), "the longest file"
    assert foretold(LLAMA, 2, 6) == pytest.approx((61 / 3600, 70 + LINKING))


def test_a_full_build_takes_hours() -> None:
    hours, seconds = foretold(FULL, 1)
    assert 2 < hours < 8, "what people report of an architecture"
    assert seconds == pytest.approx(3600 * hours + LINKING)


@given(selections(), st.integers(1, 200), st.integers(1, 8))
def test_more_of_a_machine_is_never_slower(selection: Selection, slots: int, count: int) -> None:
    hours, seconds = foretold(selection, slots, count)
    assert foretold(selection, slots + 1, count)[1] <= seconds
    assert foretold(selection, slots, count + 1)[1] <= seconds
    longest = max(weight(name, selection) for name in selection.kernels)
    assert seconds >= longest + LINKING
    assert seconds * slots >= 3600 * hours
    assert foretold(selection, slots)[0] == pytest.approx(count * hours)


@given(selections())
def test_every_architecture_costs_as_much(selection: Selection) -> None:
    one = foretold(replace(selection, archs=(80,)), 4)[0]
    assert foretold(selection, 4)[0] == pytest.approx(len(selection.archs) * one)


@given(selections(), st.data())
def test_shards_are_a_balanced_partition(selection: Selection, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(selection.kernels)))
    found = shards(selection, count)
    assert len(found) == count and all(found)
    assert sorted(name for one in found for name in one) == sorted(selection.kernels)
    loads = [sum(weight(name, selection) for name in one) for one in found]
    most = max(weight(name, selection) for name in selection.kernels)
    assert max(loads) <= min(loads) + most + 1e-6


@pytest.mark.parametrize("count", [2, 3, 4, 6, 8])
def test_the_shards_of_a_full_build_end_together(count: int) -> None:
    loads = [sum(weight(name, FULL) for name in one) for one in shards(FULL, count)]
    assert max(loads) < 1.01 * min(loads)


@pytest.mark.parametrize("count", [-1, 0, 7])
def test_no_shard_is_empty(count: int) -> None:
    with pytest.raises(ValueError, match=f"6 kernel files cannot make {count} shards"):
        shards(LLAMA, count)


@given(selections())
def test_the_heaviest_are_first_and_none_is_lost(selection: Selection) -> None:
    found = heaviest_first(selection.kernels[::-1], selection)
    assert found == heaviest_first(selection.kernels, selection)
    assert sorted(found) == sorted(selection.kernels)
    weights = [weight(name, selection) for name in found]
    assert weights == sorted(weights, reverse=True)


@pytest.mark.process
def test_every_machine_cuts_the_same_shards() -> None:
    """Each job of a matrix cuts for itself: what two cut differently, nobody would compile."""
    command = [sys.executable, "-m", "flash_attn_wheel", "plan", "--archs", "90,80", "--shards"]
    found = {
        subprocess.run(
            [*command, "7"],
            check=True,
            capture_output=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.fspath(FOLDER)},
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(found) == 1


@pytest.mark.parametrize("text", ["", "2", "0/4", "5/4", "a/b", "-1/4", "1/", "1/0", "01/4"])
def test_a_shard_that_there_is_not(text: str) -> None:
    with pytest.raises(ValueError, match="not a shard such as 2/4"):
        Part.parse(text)


def test_a_shard_is_one_of_several() -> None:
    assert Part.parse("2/4") == Part(2, 4)
    assert str(Part.parse("4/4")) == "4/4"
