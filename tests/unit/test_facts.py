"""The facts: complete, sourced, and refused as a whole where they are wrong."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from datetime import date
from importlib import resources
from typing import Any

import pytest
from packaging.version import Version

from imagegen.errors import FactsError
from imagegen.facts import Facts, Sourced, checked, nearest, parse_toml
from imagegen.model import Os, minor

from .values import FACTS

ROWS: list[tuple[str, Sourced]] = [
    (f"{table}.{i}", row)
    for table in ("torch", "cuda", "os", "flash_attn")
    for i, row in enumerate(getattr(FACTS, table))
]


def tables() -> dict[str, Any]:
    """The facts as they are written, for a test to change."""
    found: dict[str, Any] = {}
    for file in (resources.files("imagegen") / "data").iterdir():
        found |= tomllib.loads(file.read_text())
    return found


def refused(data: object) -> list[str]:
    with pytest.raises(FactsError) as caught:
        checked(Facts, data, "imagegen/data")
    assert caught.value.exit_code == 3
    return str(caught.value).splitlines()


@pytest.mark.parametrize(("place", "row"), ROWS, ids=[place for place, _ in ROWS])
def test_every_row_says_where_it_was_read_and_when(place: str, row: Sourced) -> None:
    assert row.source.strip(), place
    assert isinstance(row.checked, date)


def test_a_row_without_source_or_date_does_not_load() -> None:
    data = tables()
    del data["torch"][0]["source"]
    del data["cuda"][1]["checked"]
    assert refused(data) == [
        "imagegen/data: torch.0.source: Field required",
        "imagegen/data: cuda.1.checked: Field required",
    ]


def test_every_fault_is_named_at_once_with_its_place_and_the_nearest_key() -> None:
    data = tables()
    data["torch"][2]["pythns"] = data["torch"][2].pop("pythons")
    data["cuda"][0]["version"] = "twelve"
    data["cuda"][3]["base"][0]["digset"] = "sha256:0"
    data["os"][0]["gcc"] = "eleven"
    data["flash_atn"] = []
    faults = refused(data)
    assert "imagegen/data: torch.2.pythons: Field required" in faults
    assert "imagegen/data: unknown key torch.2.pythns; did you mean 'pythons'?" in faults
    assert "imagegen/data: cuda.0.version: 'twelve' is not a version" in faults
    assert "imagegen/data: unknown key cuda.3.base.0.digset; did you mean 'digest'?" in faults
    assert any(fault.startswith("imagegen/data: os.0.gcc: ") for fault in faults)
    assert "imagegen/data: unknown key flash_atn; did you mean 'flash_attn'?" in faults
    assert len(faults) == 6


def test_a_file_that_is_not_toml_is_named() -> None:
    with pytest.raises(FactsError, match=r"^torch\.toml: .*line 1"):
        parse_toml("version = 2.6.0", "torch.toml")


def test_versions_are_versions_and_not_texts() -> None:
    data = tables()
    for version in ("2.13.9", "2.13.10"):
        data["torch"].append(data["torch"][-1] | {"version": version})
    for version in ("12.10.0", "12.10.1"):
        data["cuda"].append(data["cuda"][0] | {"version": version})
    facts = checked(Facts, data, "x")
    newest = facts.torch_minor(Version("2.13"))
    assert newest is not None
    assert str(newest.version) == "2.13.10"
    toolkit = facts.cuda_minor(Version("12.10"))
    assert toolkit is not None
    assert str(toolkit.version) == "12.10.1"
    assert max(facts.torch, key=lambda row: row.version).version == Version("2.13.10")
    assert facts.cuda_minor(Version("12.1")) is None
    assert facts.torch_minor(Version("2.1")) is None


def test_one_row_for_each_minor_and_one_base_for_each_system_and_kind() -> None:
    for rows in (FACTS.torch, FACTS.cuda):
        counts = Counter(minor(row.version) for row in rows)
        assert max(counts.values()) == 1, counts
    for row in FACTS.cuda:
        bases = Counter((base.os, base.kind) for base in row.base)
        assert max(bases.values()) == 1, (row.version, bases)


def test_digests_are_digests() -> None:
    bases = [(base.tag, base.digest) for row in FACTS.cuda for base in row.base]
    for tag, digest in [*bases, *((row.tag, row.digest) for row in FACTS.os)]:
        assert re.fullmatch(r"(sha256:[0-9a-f]{64})?", digest), tag
    assert all(digest for _, digest in bases)
    known = [digest for _, digest in bases]
    assert len(set(known)) == len(known), "one digest under two tags"
    assert all(re.fullmatch(r"[0-9a-f]{64}", row.sha256) for row in FACTS.flash_attn)


def test_a_base_is_of_the_cuda_and_the_system_that_it_is_listed_under() -> None:
    systems = {row.os.name for row in FACTS.os}
    for row in FACTS.cuda:
        for base in row.base:
            assert base.os in systems
            what = "cudnn-devel" if base.kind == "devel" else "base"
            assert base.tag == f"nvidia/cuda:{row.version}-{what}-{base.os}"


def test_what_drivers_report_is_sorted_and_covers_every_toolkit() -> None:
    assert list(FACTS.driver_cuda) == sorted(set(FACTS.driver_cuda))
    assert {minor(row.version) for row in FACTS.cuda} <= set(map(minor, FACTS.driver_cuda))


def test_a_cuda_13_build_on_pypi_pins_a_toolkit_of_its_minor() -> None:
    for row in FACTS.torch:
        if row.pypi_cuda >= Version("13"):
            assert row.toolkit, row.version
            assert minor(row.toolkit) == minor(row.pypi_cuda)
        assert row.pypi_cuda in row.cuda or row.version < Version("2.7"), row.version


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


def test_a_lookup_of_something_unknown_is_none() -> None:
    assert FACTS.os_named("ubuntu4.10") is None
    assert FACTS.flash_attn_version(Version("1.0")) is None


def test_near_words_are_offered_and_far_ones_listed() -> None:
    assert nearest("oss", ["os", "cuda"]) == "; did you mean 'os'?"
    assert nearest("zzz", ["os", "cuda"]) == "; known: cuda, os"
