"""The facts: complete, sourced, of one mind, and refused as a whole where they are not."""

from __future__ import annotations

import copy
import re
import tomllib
from collections import Counter
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from imagegen.compat.facts import crosscheck, files
from imagegen.compat.facts.rows import Fact, FlashAttnFact, GpuFact, TorchBuild, exact, gpu_key
from imagegen.compat.facts.tables import Facts
from imagegen.compat.facts.toml import checked, nearest, parse_toml
from imagegen.compat.rules.reason import where
from imagegen.errors import FactsError
from imagegen.model.target import Os, Python, minor
from tests.support.laws import for_all
from tests.support.values import FACTS

TABLES = ("torch", "cuda", "base", "os", "flash_attn", "gpu")
ROWS: list[tuple[str, Fact]] = [
    (f"{table}.{i}", row) for table in TABLES for i, row in enumerate(getattr(FACTS, table))
]


def read() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in (resources.files("imagegen") / "data").iterdir():
        found |= tomllib.loads(file.read_text())
    return found


WRITTEN = read()


def tables() -> dict[str, Any]:
    """The facts as they are written, for a test to change."""
    return copy.deepcopy(WRITTEN)


def row(data: dict[str, Any], table: str, **key: str) -> dict[str, Any]:
    """The one row with these values."""
    (found,) = (r for r in data[table] if all(r.get(name) == key[name] for name in key))
    assert isinstance(found, dict)
    return found


def torch(version: str) -> Any:
    (found,) = (r for r in FACTS.torch if str(r.version) == version)
    return found


def refused(data: object) -> list[str]:
    with pytest.raises(FactsError) as caught:
        checked(Facts, data, "imagegen/data")
    assert caught.value.exit_code == 3
    return str(caught.value).splitlines()


# --- complete -------------------------------------------------------------------------------------

TORCHES = (
    *("2.4.0", "2.4.1", "2.5.0", "2.5.1", "2.6.0", "2.7.0", "2.7.1", "2.8.0", "2.9.0", "2.9.1"),
    *("2.10.0", "2.11.0", "2.12.0", "2.12.1", "2.13.0", "2.14.0", "2.14.1", "2.15.0"),
)
CUDAS = (
    *("11.8.0", "12.0.0", "12.0.1", "12.1.0", "12.1.1", "12.2.0", "12.2.1", "12.2.2"),
    *("12.3.0", "12.3.1", "12.3.2", "12.4.0", "12.4.1", "12.5.0", "12.5.1", "12.6.0", "12.6.1"),
    *("12.6.2", "12.6.3", "12.8.0", "12.8.1", "12.8.2", "12.9.0", "12.9.1", "12.9.2", "13.0.0"),
    *("13.0.1", "13.0.2", "13.0.3", "13.1.0", "13.1.1", "13.1.2", "13.2.0", "13.2.1", "13.2.2"),
    *("13.3.0", "13.3.1", "13.4.1", "13.4.2", "13.4.3", "13.5.0"),
)
GPUS = {
    "T4": 75,
    "V100": 70,
    "RTX 2080 Ti": 75,
    "RTX 3090": 86,
    "RTX 4090": 89,
    "RTX 5090": 120,
    "A10": 86,
    "A40": 86,
    "A100": 80,
    "L4": 89,
    "L40S": 89,
    "H100": 90,
    "H200": 90,
    "B200": 100,
    "RTX PRO 6000": 120,
}


def test_every_torch_is_there() -> None:
    assert [str(row.version) for row in sorted(FACTS.torch, key=lambda r: r.version)] == [*TORCHES]
    assert sorted({row.version.minor for row in FACTS.torch}) == list(range(4, 16))
    for fact in FACTS.torch:
        assert fact.pythons, fact.version
        assert fact.build, fact.version
        assert fact.triton, fact.version
        assert fact.released < fact.checked, fact.version


def test_every_cuda_is_there() -> None:
    assert [str(row.version) for row in sorted(FACTS.cuda, key=lambda r: r.version)] == [*CUDAS]
    reported = [minor(version) for version in FACTS.driver_cuda]
    assert reported == list(dict.fromkeys(minor(Version(word)) for word in CUDAS))


def test_every_distribution_is_there() -> None:
    assert {row.os.name: str(row.python) for row in FACTS.os} == {
        "ubuntu20.04": "3.8",
        "ubuntu22.04": "3.10",
        "ubuntu24.04": "3.12",
        "ubuntu26.04": "3.14",
        "debian12": "3.11",
        "debian13": "3.13",
    }
    assert sorted(row.rank for row in FACTS.os) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", GPUS)
def test_every_card_is_there_however_it_is_spelled(name: str) -> None:
    fact = FACTS.gpu_named(name)
    assert fact
    assert fact.capability == GPUS[name]
    assert fact.memory
    for word in (name.lower(), name.replace(" ", "_"), f"NVIDIA {name}", name.replace(" ", "-")):
        assert FACTS.gpu_named(word) == fact, word


def test_what_nvidia_smi_and_the_platforms_call_a_card_is_known() -> None:
    for word, name in {
        "NVIDIA GeForce RTX 4090": "RTX 4090",
        "Tesla T4": "T4",
        "Tesla V100-SXM2-16GB": "V100",
        "NVIDIA A100-SXM4-80GB": "A100",
        "NVIDIA A100 80GB PCIe": "A100",
        "NVIDIA H100 80GB HBM3": "H100",
        "4090": "RTX 4090",
    }.items():
        fact = FACTS.gpu_named(word)
        assert fact, word
        assert fact.name == name


@pytest.mark.parametrize("word", ["", "4090 Ti Super Ultra", "0", "Ti", "Radeon", "RTX", "D"])
def test_a_card_that_is_none_or_could_be_two_is_not_guessed(word: str) -> None:
    assert FACTS.gpu_named(word) is None


@for_all(ROWS, lambda row: row[0])
def test_every_row_says_where_it_was_read_and_when(row: tuple[str, Fact]) -> None:
    _, fact = row
    assert fact.source.strip()
    assert date(2026, 1, 1) < fact.checked <= date.today()
    assert fact.assumed == "", "what comes with imagegen is known"


def test_third_party_wheels_have_one_source_and_date() -> None:
    assert FACTS.third_party_source.strip()
    assert date(2026, 1, 1) < FACTS.third_party_checked <= date.today()
    assert len(FACTS.third_party) > 200
    for fact in FACTS.flash_attn:
        assert fact.third_party == tuple(
            wheel for wheel in FACTS.third_party if wheel.version == fact.version
        )
    assert sum(len(fact.third_party) for fact in FACTS.flash_attn) == len(FACTS.third_party)


def test_each_image_is_beside_its_toolkit() -> None:
    assert sum(len(fact.base) for fact in FACTS.cuda) == len(FACTS.base) > 50
    for fact in FACTS.cuda:
        assert fact.base == tuple(base for base in FACTS.base if base.cuda == fact.version)


# --- known truths ---------------------------------------------------------------------------------


@for_all(TORCHES, str)
def test_the_abi_changed_in_2_7_and_for_cuda_12_6_in_2_6(version: str) -> None:
    found = {str(build.cuda): build.abi for build in torch(version).build}
    if version == "2.6.0":
        assert found == {"11.8": False, "12.4": False, "12.6": True}
    else:
        assert set(found.values()) == {Version(version) >= Version("2.7")}


def test_torchaudio_stops_at_2_11() -> None:
    for fact in FACTS.torch:
        last = min(fact.version, Version("2.11.0"))
        assert fact.torchaudio == last, fact.version


def test_the_cuda_on_pypi_goes_up_in_steps() -> None:
    steps = {
        "12.1": ("2.4.0", "2.4.1"),
        "12.4": ("2.5.0", "2.5.1", "2.6.0"),
        "12.6": ("2.7.0", "2.7.1"),
        "12.8": ("2.8.0", "2.9.0", "2.9.1", "2.10.0"),
        "13.0": ("2.11.0", "2.12.0", "2.12.1", "2.13.0", "2.14.0", "2.14.1"),
        "13.2": ("2.15.0",),
    }
    for cuda, versions in steps.items():
        for version in versions:
            assert str(torch(version).pypi_cuda) == cuda, version
    assert sum(map(len, steps.values())) == len(FACTS.torch)


def test_a_cuda_13_build_on_pypi_pins_a_toolkit_of_its_minor() -> None:
    seen = 0
    for fact in FACTS.torch:
        if fact.pypi_cuda >= Version("13"):
            build = fact.build_for(fact.pypi_cuda)
            assert build
            assert build.toolkit, fact.version
            assert minor(build.toolkit) == minor(fact.pypi_cuda)
            seen += 1
    assert seen >= 7


def test_the_headers_of_torch_2_14_need_cxx_20() -> None:
    assert {str(f.version): f.cxx for f in FACTS.torch if f.cxx != 17} == {
        "2.14.0": 20,
        "2.14.1": 20,
        "2.15.0": 20,
    }


def test_what_only_the_index_of_pytorch_has_is_not_said_to_be_on_pypi() -> None:
    for fact in FACTS.torch:
        assert not set(fact.pythons) & set(fact.index_pythons), fact.version
        assert set(fact.pypi_hosts) <= {"x86_64", "aarch64"}
        for build in fact.build:
            assert "x86_64" in build.hosts


# --- digests --------------------------------------------------------------------------------------


def test_a_digest_has_two_witnesses_and_is_of_one_tag() -> None:
    pinned = [*FACTS.base, *FACTS.os]
    for one in pinned:
        assert re.fullmatch(r"(sha256:[0-9a-f]{64})?", one.digest), one.tag
        assert (one.witnesses >= 2) if one.digest else (one.witnesses == 0), one.tag
    known = [one.digest for one in pinned if one.digest]
    assert len(known) > 10
    assert len(set(known)) == len(known), "one digest under two tags"
    assert all(re.fullmatch(r"[0-9a-f]{64}", fact.sha256) for fact in FACTS.flash_attn)
    assert len({fact.sha256 for fact in FACTS.flash_attn}) == len(FACTS.flash_attn)


def test_the_tag_of_an_image_says_what_it_is() -> None:
    for base in FACTS.base:
        what = "base" if base.kind == "slim" else "cudnn[89]?-devel"
        pattern = rf"nvidia/cuda:{re.escape(str(base.cuda))}-{what}-{re.escape(base.os)}"
        assert re.fullmatch(pattern, base.tag), base.tag
    for one in FACTS.os:
        release = one.os.name.removeprefix(one.distribution)
        assert re.fullmatch(rf"library/{one.distribution}:{re.escape(release)}(-slim)?", one.tag)


def test_an_image_is_in_the_range_that_its_distribution_has() -> None:
    for base in FACTS.base:
        system = FACTS.os_named(base.os)
        assert system
        assert system.images_from, base.tag
        assert base.cuda >= system.images_from, base.tag
        assert system.images_before is None or base.cuda < system.images_before, base.tag


# --- form -----------------------------------------------------------------------------------------


def test_a_row_without_source_or_date_does_not_load() -> None:
    data = tables()
    del data["torch"][0]["source"]
    del data["cuda"][1]["checked"]
    del data["gpu"][2]["source"]
    data["base"][3]["source"] = ""
    assert sorted(refused(data)) == [
        "imagegen/data: base.3.source: String should have at least 3 characters",
        "imagegen/data: cuda.1.checked: Field required",
        "imagegen/data: gpu.2.source: Field required",
        "imagegen/data: torch.0.source: Field required",
    ]


def test_every_fault_is_named_at_once_with_its_place_and_the_nearest_key() -> None:
    data = tables()
    data["torch"][2]["pythns"] = data["torch"][2].pop("pythons")
    data["torch"][3]["build"][1]["arch"] = data["torch"][3]["build"][1].pop("archs")
    data["cuda"][0]["version"] = "twelve"
    data["base"][0]["digset"] = "sha256:0"
    data["base"][1]["digest"] = "sha256:0"
    data["os"][0]["gcc"] = "eleven"
    data["gpu"][0]["brand"] = "gforce"
    data["torch"][4]["pythons"] = ["3.x"]
    data["flash_atn"] = []
    faults = refused(data)
    for line in (
        "torch.2.pythons: Field required",
        "unknown key torch.2.pythns; did you mean 'pythons'?",
        "torch.3.build.1.archs: Field required",
        "unknown key torch.3.build.1.arch; did you mean 'archs'?",
        "cuda.0.version: 'twelve' is not a version",
        "unknown key base.0.digset; did you mean 'digest'?",
        "gpu.0.brand: unknown value 'gforce'; did you mean 'geforce'?",
        "torch.4.pythons.0: '3.x' is not a Python such as 3.12, or 3.13t",
        "unknown key flash_atn; did you mean 'flash_attn'?",
    ):
        assert f"imagegen/data: {line}" in faults
    for start in ("os.0.gcc: ", "base.1.digest: "):
        assert any(fault.startswith(f"imagegen/data: {start}") for fault in faults)
    assert len(faults) == 11


def test_a_file_that_is_not_toml_is_named() -> None:
    with pytest.raises(FactsError, match=r"^torch\.toml: .*line 1"):
        parse_toml("version = 2.6.0", "torch.toml")


def test_versions_are_versions_and_not_texts() -> None:
    data = tables()
    for version in ("2.13.9", "2.13.10"):
        data["torch"].append(data["torch"][-1] | {"version": version})
    for version in ("12.10.0", "12.10.1"):
        data["cuda"].append(data["cuda"][0] | {"version": version})
    found = checked(Facts, data, "x")
    newest = found.torch_like(Version("2.13"))
    assert [str(row.version) for row in newest] == ["2.13.10", "2.13.9", "2.13.0"]
    toolkit = found.cuda_like(Version("12.10"))
    assert [str(row.version) for row in toolkit] == ["12.10.1", "12.10.0"]
    assert [str(r.version) for r in found.cuda_like(Version("12.1"))] == ["12.1.1", "12.1.0"]
    assert not found.torch_like(Version("2.1"))
    assert found.indexes == tuple(sorted(found.indexes, reverse=True))


@pytest.mark.parametrize(
    ("version", "wanted", "same"),
    [
        ("2.9.1", "2.9", True),
        ("2.9.1", "2.9.1", True),
        ("2.9.1", "2.9.0", False),
        ("2.10.0", "2.1", False),
        ("2.10.0", "2.10", True),
        ("2.8.3.post2", "2.8.3.post2", True),
        ("2.8.3.post2", "2.8.3.post1", False),
        ("2.8.3.post2", "2.8.3", False),
        ("2.8.3.post2", "2.8", True),
        ("12.8.1", "12", True),
    ],
)
def test_a_minor_means_all_its_releases_and_a_release_itself(
    version: str, wanted: str, same: bool
) -> None:
    assert exact(Version(version), Version(wanted)) == same


@pytest.mark.parametrize(
    ("distribution", "version", "name"),
    [
        ("ubuntu", "22.04", "ubuntu22.04"),
        ("ubuntu", "24.10", "ubuntu24.10"),
        ("debian", "12", "debian12"),
    ],
)
def test_a_release_is_spelled_as_people_spell_it(
    distribution: str, version: str, name: str
) -> None:
    assert Os(distribution=distribution, version=Version(version)).name == name


@for_all(FACTS.gpu, lambda fact: fact.name)
def test_a_card_is_known_from_the_driver_of_its_first_toolkit(fact: GpuFact) -> None:
    first = {86: "455", 89: "520", 90: "520", 100: "570", 120: "570", 103: "575", 121: "575"}
    if fact.capability in first:
        assert str(fact.driver) == first[fact.capability]
    elif fact.capability < 80:
        assert fact.driver is None


def test_a_guess_is_said_wherever_its_source_is() -> None:
    for name in ("H800", "L20", "RTX 5090 D"):
        fact = FACTS.gpu_named(name)
        assert fact
        assert fact.guess
        assert where(fact) == f"{fact.source} ({fact.checked}, a guess)"
    known = FACTS.gpu_named("RTX 4090")
    assert known
    assert where(known) == f"{known.source} ({known.checked})"


def test_a_release_says_the_oldest_python_that_it_takes() -> None:
    data = tables()
    del data["flash_attn"][0]["python_min"]
    assert refused(data) == ["imagegen/data: flash_attn.0.python_min: Field required"]


def test_a_lookup_of_something_unknown_is_none() -> None:
    assert FACTS.os_named("ubuntu4.10") is None
    assert FACTS.gpu_named("Voodoo") is None
    assert FACTS.torch_like(Version("1.0")) == ()
    assert FACTS.cuda_like(Version("12.7")) == ()
    assert FACTS.flash_attn_like(Version("1.0")) == ()


def test_pythons_and_indexes_are_those_of_all_torches() -> None:
    assert list(map(str, FACTS.pythons)) == [
        *("3.12", "3.11", "3.10", "3.13", "3.14", "3.9", "3.15", "3.8", "3.14t", "3.13t", "3.15t"),
    ]
    assert [minor(index) for index in FACTS.indexes] == [
        *("13.2", "13.0", "12.9", "12.8", "12.6", "12.4", "12.1", "11.8"),
    ]


def test_near_words_are_offered_and_far_ones_listed() -> None:
    assert nearest("oss", ["os", "cuda"]) == "; did you mean 'os'?"
    assert nearest("zzz", ["os", "cuda"]) == "; known: cuda, os"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("NVIDIA A100 80GB PCIe", "a100"),
        ("RTX_4090", "rtx4090"),
        ("NVIDIA", ""),
    ],
)
def test_a_card_is_compared_by_letters_and_digits(name: str, key: str) -> None:
    assert gpu_key(name) == key


# --- what the tables must say of one another ------------------------------------------------------


def contradictions(data: object) -> list[str]:
    return list(crosscheck.faults(checked(Facts, data, "x")))


def build(data: dict[str, Any], version: str, cuda: str) -> dict[str, Any]:
    (found,) = (b for b in row(data, "torch", version=version)["build"] if b["cuda"] == cuda)
    assert isinstance(found, dict)
    return found


def third(**changes: str) -> dict[str, Any]:
    return {**WRITTEN["third_party"][0], **changes}


def test_the_committed_tables_contradict_nothing() -> None:
    assert contradictions(tables()) == []


def _twice(table: str, **key: str) -> Any:
    return lambda data: data[table].append(dict(row(data, table, **key)))


def _again(table: str, spelled: str, **key: str) -> Any:
    return lambda data: data[table].append(row(data, table, **key) | {"version": spelled})


def _set(table: str, values: dict[str, Any], **key: str) -> Any:
    return lambda data: row(data, table, **key).update(values)


EMPTY: dict[str, list[Any]] = {"wheel": [], "wheel_archs": []}
BASE = "nvidia/cuda:12.8.1-base-ubuntu24.04"


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        # the same row twice
        (_twice("torch", version="2.8.0"), ["torch: 2.8.0 is listed 2 times"]),
        (_twice("cuda", version="12.8.1"), ["cuda: 12.8.1 is listed 2 times"]),
        (_twice("flash_attn", version="2.8.3"), ["flash_attn: 2.8.3 is listed 2 times"]),
        (
            _twice("os", distribution="ubuntu", version="24.04"),
            ["os: ubuntu24.04 is listed 2 times"],
        ),
        (
            _twice("base", tag=BASE),
            [
                f"base: {BASE} is listed 2 times",
                "base: ubuntu24.04 12.8.1 slim is listed 2 times",
            ],
        ),
        (
            lambda data: data["base"].append({**row(data, "base", tag=BASE), "tag": "x/y:z"}),
            ["base: ubuntu24.04 12.8.1 slim is listed 2 times"],
        ),
        (
            lambda data: data["gpu"].append({**data["gpu"][0], "name": "NVIDIA p-100", "also": []}),
            ["gpu: p100 is listed 2 times"],
        ),
        (
            _set("gpu", {"also": ["GeForce RTX 4090"]}, name="RTX 5090"),
            ["gpu: rtx4090 is listed 2 times"],
        ),
        # the same row, spelled in another way
        (_again("torch", "2.8", version="2.8.0"), ["torch: 2.8.0 is listed 2 times"]),
        (_again("cuda", "12.8", version="12.8.0"), ["cuda: 12.8.0 is listed 2 times"]),
        # torch
        (
            _set("torch", {"pypi_cuda": "12.4"}, version="2.11.0"),
            ["torch 2.11.0: pypi_cuda 12.4 is not among its builds"],
        ),
        (
            lambda data: row(data, "torch", version="2.11.0")["build"].append(
                dict(build(data, "2.11.0", "12.8"))
            ),
            ["torch 2.11.0.build: 12.8 is listed 2 times"],
        ),
        (
            _set("torch", {"checked": date(2026, 3, 22)}, version="2.11.0"),
            ["torch 2.11.0: checked 2026-03-22, before it was released"],
        ),
        (
            lambda data: build(data, "2.8.0", "12.6").update(cuda="12.7"),
            ["torch 2.8.0.build 12.7: no such toolkit in cuda"],
        ),
        (
            lambda data: build(data, "2.8.0", "12.6").update(archs=[80, 120, 100]),
            ["torch 2.8.0.build 12.6: archs [100, 120] are beyond what that toolkit makes"],
        ),
        (
            lambda data: build(data, "2.8.0", "12.6").update(archs_aarch64=[120]),
            ["torch 2.8.0.build 12.6: archs [120] are beyond what that toolkit makes"],
        ),
        (
            lambda data: build(data, "2.11.0", "13.0").update(toolkit="13.1.0"),
            ["torch 2.11.0.build 13.0: toolkit 13.1.0 is of another CUDA"],
        ),
        (
            lambda data: build(data, "2.11.0", "13.0").update(toolkit="13.0.9"),
            ["torch 2.11.0.build 13.0: no toolkit 13.0.9 in cuda"],
        ),
        # cuda
        (
            _set("cuda", {"gcc_max": 12}, version="12.4.1"),
            ["cuda 12.4.1: gcc_max 12 is below that of 12.4.0"],
        ),
        (
            _set("cuda", {"driver_floor": "525.60.12"}, version="12.0.1"),
            ["cuda 12.0.1: driver_floor is below that of 12.0.0"],
        ),
        (
            _set("cuda", {"driver": "535.54.02"}, version="12.2.1"),
            ["cuda 12.2.1: driver 535.54.2 is older than that of 12.2.0"],
        ),
        (
            _set("cuda", {"driver": "449.1"}, version="11.8.0"),
            ["cuda 11.8.0: driver 449.1 is below its driver_floor"],
        ),
        (
            lambda data: row(data, "cuda", version="12.8.1").update(
                base=[dict(row(data, "base", tag=BASE))]
            ),
            ["cuda 12.8.1: its images belong in tables [[base]]"],
        ),
        # flash-attn
        (
            lambda data: row(data, "flash_attn", version="2.8.3").update(third_party=[third()]),
            ["flash_attn 2.8.3: third-party wheels belong in third_party"],
        ),
        *(
            (
                _set("flash_attn", {name: value}, version="2.8.3"),
                ["flash_attn 2.8.3: wheel, wheel_archs and glibc go together"],
            )
            for name, value in EMPTY.items()
        ),
        (
            lambda data: row(data, "flash_attn", version="2.8.3").pop("glibc"),
            ["flash_attn 2.8.3: wheel, wheel_archs and glibc go together"],
        ),
        (
            lambda data: row(data, "flash_attn", version="2.8.3")["wheel"][0].update(torch="2.3"),
            ["flash_attn 2.8.3.wheel: no torch 2.3 in torch"],
        ),
        (
            lambda data: row(data, "flash_attn", version="2.8.3")["wheel"][0].update(nvcc="12.9.9"),
            ["flash_attn 2.8.3.wheel: no toolkit 12.9.9 in cuda"],
        ),
        (
            lambda data: row(data, "flash_attn", version="2.8.3")["wheel"][0].update(
                nvcc="13.0.0", tag="cu12"
            ),
            ["flash_attn 2.8.3.wheel: cu12 is not of nvcc 13.0.0"],
        ),
        (
            lambda data: data["third_party"].append(third(version="2.9.9")),
            ["third_party 2.9.9+torch2.4: no flash_attn 2.9.9"],
        ),
        (
            lambda data: data["third_party"].append(third(torch="2.3")),
            ["third_party 2.6.3+torch2.3: no torch 2.3 in torch"],
        ),
        (
            lambda data: data["third_party"].append(third(nvcc="12.8")),
            ["third_party 2.6.3+torch2.4: nvcc 12.8 for a torch of CUDA 11.8"],
        ),
        # images
        (
            _set("base", {"cuda": "12.8.9"}, tag=BASE),
            [f"base {BASE}: no toolkit 12.8.9 in cuda"],
        ),
        (_set("base", {"os": "ubuntu4.10"}, tag=BASE), [f"base {BASE}: no ubuntu4.10 in os"]),
        (
            _set("base", {"witnesses": 0}, tag=BASE),
            [
                f"{BASE}: a digest has witnesses, and only a digest",
                f"{BASE}: a digest needs two public files that name it",
            ],
        ),
        (
            _set("base", {"witnesses": 1}, tag=BASE),
            [f"{BASE}: a digest needs two public files that name it"],
        ),
        (
            _set("base", {"digest": ""}, tag=BASE),
            [f"{BASE}: a digest has witnesses, and only a digest"],
        ),
        (
            _set("os", {"witnesses": 1}, distribution="ubuntu", version="24.04"),
            ["library/ubuntu:24.04: a digest needs two public files that name it"],
        ),
    ],
)
def test_a_contradiction_is_told_with_its_row(change: Any, faults: list[str]) -> None:
    data = tables()
    change(data)
    assert contradictions(data) == faults


def test_every_contradiction_is_told_at_once_and_the_facts_do_not_load() -> None:
    data = tables()
    row(data, "torch", version="2.11.0")["pypi_cuda"] = "12.4"
    row(data, "cuda", version="12.4.1")["gcc_max"] = 12
    row(data, "flash_attn", version="2.8.3")["wheel"] = []
    row(data, "base", tag=BASE)["witnesses"] = 1
    with pytest.raises(FactsError) as caught:
        files._assembled(data, "place")
    assert caught.value.exit_code == 3
    lines = str(caught.value).splitlines()
    assert [line.split()[1] for line in lines] == ["torch", "cuda", "flash_attn", f"{BASE}:"]
    assert all(line.startswith("place: ") for line in lines)


# --- a user's own facts ---------------------------------------------------------------------------

SOURCE = 'source = "measured here"\nchecked = 2026-11-21\n'
NEW_TORCH = (
    """
[[torch]]
version = "2.16.0"
released = 2026-11-20
pythons = ["3.12"]
pypi_cuda = "13.2"
pypi_hosts = ["x86_64"]
torchvision = "0.30.0"
torchaudio = "2.11.0"
triton = "==4.0.0"
cxx = 20
build = [{ cuda = "13.2", hosts = ["x86_64"], abi = true, archs = [80, 90], toolkit = "13.2.2" }]
"""
    + SOURCE
)


def own(folder: Path, text: str) -> Facts:
    file = folder / "own.toml"
    file.write_text(text)
    return files.load(file)


def own_faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(FactsError) as caught:
        own(folder, text)
    assert caught.value.exit_code == 3
    lines = str(caught.value).splitlines()
    start = f"{folder / 'own.toml'}: "
    assert all(line.startswith(start) for line in lines), lines
    return [line.removeprefix(start) for line in lines]


def test_a_row_is_added(tmp_path: Path) -> None:
    found = own(tmp_path, NEW_TORCH)
    assert set(found.torch) - set(FACTS.torch) == set(found.torch_like(Version("2.16")))
    assert len(found.torch) == len(FACTS.torch) + 1
    assert found.model_copy(update={"torch": FACTS.torch}) == FACTS
    (fact,) = found.torch_like(Version("2.16"))
    assert fact.pythons == (Python.parse("3.12"),)
    assert fact.source == "measured here"


def test_one_key_of_a_row_is_changed_and_the_others_stay(tmp_path: Path) -> None:
    found = own(tmp_path, '[[gpu]]\nname = "RTX 4090"\nmemory = [48]\n')
    before, after = FACTS.gpu_named("RTX 4090"), found.gpu_named("RTX 4090")
    assert before
    source = f"your own facts, over: {before.source}"
    assert after == before.model_copy(update={"memory": (48,), "source": source})
    assert [g for g in found.gpu if g != after] == [g for g in FACTS.gpu if g != before]
    assert FACTS.gpu_named("RTX 4090") == before, "the facts that come with it stay as they are"


def test_a_row_of_every_table_is_found_by_what_names_it(tmp_path: Path) -> None:
    text = f"""
[[torch]]
version = "2.15.0"
pythons = ["3.12"]
[[cuda]]
version = "13.5.0"
driver = "640.10"
[[os]]
distribution = "ubuntu"
version = "24.04"
gcc = 14
[[flash_attn]]
version = "2.8.3.post2"
torch_max = "2.16"
[[base]]
tag = "{BASE}"
digest = "sha256:{"1" * 64}"
[[gpu]]
name = "T4"
capability = 80
"""
    found = own(tmp_path, text)
    for table in TABLES:
        assert len(getattr(found, table)) == len(getattr(FACTS, table)), table
        changed = [row for row in getattr(found, table) if row not in getattr(FACTS, table)]
        assert len(changed) == (2 if table == "cuda" else 1), table  # a toolkit holds the image
    system, toolkit = found.os_named("ubuntu24.04"), found.cuda_like(Version("12.8.1"))[0]
    assert system
    assert system.gcc == 14
    base = toolkit.base_for(system, "slim")
    assert base, "an image is beside its toolkit, also when it is a user's"
    assert base.digest == "sha256:" + "1" * 64


def test_a_toolkit_with_its_image_is_added(tmp_path: Path) -> None:
    text = f"""
[[cuda]]
version = "13.6.0"
driver = "650.10"
driver_floor = "580.65.06"
gcc_max = 16
archs = [80, 90]
{SOURCE}
[[base]]
tag = "registry.example/cuda:13.6.0-devel"
cuda = "13.6.0"
os = "ubuntu24.04"
kind = "devel"
{SOURCE}
"""
    found = own(tmp_path, text)
    (fact,) = found.cuda_like(Version("13.6"))
    assert [base.tag for base in fact.base] == ["registry.example/cuda:13.6.0-devel"]
    assert found.driver_cuda == (*FACTS.driver_cuda, Version("13.6")), "and a driver reports it"


def test_what_a_driver_reports_is_no_table(tmp_path: Path) -> None:
    (fault,) = own_faults(tmp_path, 'driver_cuda = ["13.6"]\n')
    assert fault.startswith("unknown key driver_cuda")


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ('[[torch]]\nversion = "2.9"\ncxx = 20\n', "torch"),
        ('[[cuda]]\nversion = "12.8"\ngcc_max = 14\n', "cuda"),
        ('[[os]]\ndistribution = "ubuntu"\nversion = "24.4"\ngcc = 14\n', "os"),
        ('[[gpu]]\nname = "NVIDIA GeForce rtx_4090"\nmemory = [48]\n', "gpu"),
    ],
)
def test_a_row_is_found_however_its_name_is_spelled(tmp_path: Path, text: str, table: str) -> None:
    found = own(tmp_path, text)
    before, after = getattr(FACTS, table), getattr(found, table)
    assert len(after) == len(before)
    assert sum(row not in before for row in after) == 1


def test_a_row_that_is_changed_says_who_changed_it(tmp_path: Path) -> None:
    text = '[[torch]]\nversion = "2.9.1"\ncxx = 20\n'
    before = torch("2.9.1")
    (fact,) = own(tmp_path, text).torch_like(Version("2.9.1"))
    assert fact.source == f"your own facts, over: {before.source}"
    (fact,) = own(tmp_path, text + SOURCE).torch_like(Version("2.9.1"))
    assert fact.source == "measured here"


def test_wheels_of_others_are_added_and_replace_none(tmp_path: Path) -> None:
    wheel = """
[[third_party]]
version = "2.8.3"
torch = "2.15"
nvcc = "13.2"
torch_cuda = "13.2"
host = "x86_64"
pythons = ["3.12"]
abi = true
archs = [80, 90]
glibc = "2.34"
platform = "linux_x86_64"
release = "v9"
"""
    found = own(tmp_path, wheel)
    assert found.third_party[: len(FACTS.third_party)] == FACTS.third_party
    (new,) = found.third_party[len(FACTS.third_party) :]
    assert new.release == "v9"
    (fact,) = found.flash_attn_like(Version("2.8.3"))
    assert isinstance(fact, FlashAttnFact)
    assert new in fact.third_party
    assert fact.torch_max == Version("2.15"), "who could, has shown that it compiles"


def test_a_typo_in_a_users_row_names_the_file_and_the_nearest_key(tmp_path: Path) -> None:
    text = NEW_TORCH.replace("pythons", "pythns").replace('"2.16.0"', '"2.sixteen"')
    found = own_faults(tmp_path, text + "[[gpus]]\n")
    assert any(re.fullmatch(r"torch\.\d+\.pythons: Field required", line) for line in found)
    assert any(
        re.fullmatch(r"unknown key torch\.\d+\.pythns; did you mean 'pythons'\?", line)
        for line in found
    )
    assert any(line.endswith("'2.sixteen' is not a version") for line in found)
    assert "unknown key gpus; did you mean 'gpu'?" in found
    assert len(found) == 4


def test_a_users_row_without_source_is_refused(tmp_path: Path) -> None:
    found = own_faults(tmp_path, NEW_TORCH.replace(SOURCE, ""))
    assert [line.split(": ")[1] for line in found] == ["Field required"] * 2


def test_a_users_row_that_contradicts_the_others_is_refused(tmp_path: Path) -> None:
    text = NEW_TORCH.replace("archs = [80, 90]", "archs = [80, 999]")
    assert own_faults(tmp_path, text + '[[cuda]]\nversion = "12.4.1"\ngcc_max = 12\n') == [
        "torch 2.16.0.build 13.2: archs [999] are beyond what that toolkit makes",
        "cuda 12.4.1: gcc_max 12 is below that of 12.4.0",
    ]


@pytest.mark.parametrize("text", ["torch = 3\n", "[torch]\nversion = 1\n", "torch = [3]\n"])
def test_a_table_of_another_form_is_a_fault_and_no_crash(tmp_path: Path, text: str) -> None:
    assert all(line.startswith("torch") for line in own_faults(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FactsError, match="No such file") as caught:
        files.load(tmp_path / "own.toml")
    assert str(caught.value).startswith(f"{tmp_path / 'own.toml'}: cannot be read")
    assert caught.value.exit_code == 3


def test_a_file_that_is_not_text_or_not_toml_is_named(tmp_path: Path) -> None:
    assert "line 1" in own_faults(tmp_path, "version = 2.6.0")[0]
    (tmp_path / "own.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(FactsError, match="cannot be read"):
        files.load(tmp_path / "own.toml")


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert own(tmp_path, "") == FACTS == files.load()


# --- versions that nobody knows yet ---------------------------------------------------------------


def test_an_unknown_torch_is_taken_to_be_like_the_newest() -> None:
    found = FACTS.assume("torch", "2.99")
    assert found.torch[: len(FACTS.torch)] == FACTS.torch
    (fact,) = found.torch_like(Version("2.99"))
    newest = torch("2.15.0")
    assert fact.assumed == "2.15.0"
    assert fact == newest.model_copy(update={"version": Version("2.99"), "assumed": "2.15.0"})


@pytest.mark.parametrize(
    ("table", "wanted", "like"),
    [
        ("torch", "2.10.5", "2.10.0"),
        ("torch", "2.9.2", "2.9.1"),
        ("cuda", "12.7", "12.6.3"),
        ("cuda", "13.10", "13.5.0"),
        ("flash_attn", "2.8.4", "2.8.3.post2"),
    ],
)
def test_it_is_like_the_nearest_older_one_by_version(table: str, wanted: str, like: str) -> None:
    found = [row for row in getattr(FACTS.assume(table, wanted), table) if row.assumed]
    assert [(str(row.version), row.assumed) for row in found] == [(wanted, like)]


def test_an_unknown_toolkit_has_no_image() -> None:
    (fact,) = FACTS.assume("cuda", "12.6.9").cuda_like(Version("12.6.9"))
    assert fact.assumed == "12.6.3"
    assert FACTS.cuda_like(Version("12.6.3"))[0].base
    assert fact.base == ()


def test_what_was_assumed_is_no_ground_for_another_assumption() -> None:
    found = FACTS.assume("torch", "2.98").assume("torch", "2.99")
    assert [row.assumed for row in found.torch if row.assumed] == ["2.15.0", "2.15.0"]


@pytest.mark.parametrize(
    ("table", "wanted"), [("torch", "2.3"), ("cuda", "11.7"), ("flash_attn", "2.0.0")]
)
def test_what_is_older_than_everything_known_is_refused(table: str, wanted: str) -> None:
    with pytest.raises(FactsError) as caught:
        FACTS.assume(table, wanted)
    assert str(caught.value) == f"{table} {wanted} is older than every version that is known"


def test_a_later_beta_is_taken_to_be_like_the_known_one() -> None:
    found = FACTS.assume("flash_attn", "4.0.0b40")
    assert [row.assumed for row in found.flash_attn_package if row.assumed] == ["4.0.0b36"]
    assert found.flash_attn == FACTS.flash_attn


@pytest.mark.parametrize(("table", "wanted"), [("torch", "3.0"), ("flash_attn", "5.0.0")])
def test_of_another_major_release_nothing_is_assumed(table: str, wanted: str) -> None:
    with pytest.raises(FactsError) as caught:
        FACTS.assume(table, wanted)
    assert str(caught.value) == f"{table} {wanted}: nothing is known about its major release"


def test_another_major_of_cuda_is_assumed() -> None:
    assert [row.assumed for row in FACTS.assume("cuda", "14.0").cuda if row.assumed] == ["13.5.0"]


def test_an_unknown_flash_attn_has_no_hash_and_no_wheel() -> None:
    (like,) = FACTS.flash_attn_like(Version("2.8.3"))
    assert isinstance(like, FlashAttnFact)
    assert like.sha256
    assert like.wheel
    assert like.third_party
    facts = FACTS.model_copy(update={"flash_attn": (like,)})
    (fact,) = facts.assume("flash_attn", "2.8.4").flash_attn_like(Version("2.8.4"))
    assert isinstance(fact, FlashAttnFact)
    assert fact.assumed == "2.8.3"
    assert (fact.sha256, fact.wheel, fact.wheel_archs, fact.third_party) == ("", (), (), ())
    assert fact.glibc is None
    assert (fact.archs, fact.python_min) == (like.archs, like.python_min)


def test_what_is_no_version_is_refused() -> None:
    with pytest.raises(FactsError, match="'newest' is not a version"):
        FACTS.assume("torch", "newest")


# --- small ones -----------------------------------------------------------------------------------


def test_a_build_is_found_by_its_cuda() -> None:
    found = torch("2.6.0").build_for(Version("12.6"))
    assert isinstance(found, TorchBuild)
    assert torch("2.6.0").build_for(Version("12.8")) is None


def test_a_release_can_have_other_pythons_on_arm() -> None:
    assert Python.parse("3.13") in torch("2.5.1").wheels_for("x86_64")
    assert Python.parse("3.13") not in torch("2.5.1").wheels_for("aarch64")
    assert torch("2.11.0").wheels_for("aarch64") == torch("2.11.0").pythons


@pytest.mark.parametrize(
    ("capability", "archs", "runs"),
    [
        (86, (80,), True),
        (80, (86,), False),
        (90, (80,), False),
        (120, (100,), False),
        (121, (120,), True),
        (75, (), False),
    ],
)
def test_machine_code_runs_from_its_minor_on(
    capability: int, archs: tuple[int, ...], runs: bool
) -> None:
    card = FACTS.gpu[0].model_copy(update={"capability": capability})
    assert card.runs(archs) == runs


def test_nothing_is_counted_twice_where_it_should_be_once() -> None:
    for fact in FACTS.torch:
        counts = Counter(minor(build.cuda) for build in fact.build)
        assert max(counts.values()) == 1, fact.version
    for toolkit in FACTS.cuda:
        assert len(set(toolkit.archs)) == len(toolkit.archs), toolkit.version
