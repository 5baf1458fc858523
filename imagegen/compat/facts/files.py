"""The files of the facts: those in imagegen/data, and a user's own file that is put over them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from imagegen.compat.facts import crosscheck
from imagegen.compat.facts.rows import (
    CudaFact,
    FlashAttnFact,
    gpu_key,
)
from imagegen.compat.facts.tables import Facts
from imagegen.compat.facts.toml import checked, parse_toml
from imagegen.errors import FactsError
from imagegen.model.target import minor

KEYS: Mapping[str, tuple[str, ...]] = {
    "torch": ("version",),
    "cuda": ("version",),
    "base": ("tag",),
    "os": ("distribution", "version"),
    "flash_attn": ("version",),
    "flash_attn_package": ("version",),
    "gpu": ("name",),
}
"""What names a row of each table, so that a user's row finds the one that it changes."""


def load(own: Path | None = None) -> Facts:
    """The facts in imagegen/data, with the rows of a user's own file added or put over them.

    Raises:
        FactsError: with every fault of every file.
    """
    return _with(own) if own else _built_in()


@cache
def _built_in() -> Facts:
    return _assembled(_tables(), "imagegen/data")


def _tables() -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for file in sorted((resources.files("imagegen") / "data").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".toml"):
            tables |= parse_toml(file.read_text(encoding="utf-8"), file.name)
    return tables


def _with(own: Path) -> Facts:
    try:
        text = own.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FactsError(f"{own}: cannot be read: {error}") from error
    return _assembled(merged(_tables(), parse_toml(text, str(own))), str(own))


def merged(tables: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Tables with a user's rows: one that is known is changed key by key, others are added."""
    found = dict(tables)
    for table, value in own.items():
        if not isinstance(value, list) or not isinstance(found.get(table), list):
            found[table] = value  # a single value, or a fault that the models tell
            continue
        rows, ours = list(found[table]), len(found[table])
        for row in value:
            key = _key(table, row)
            known = (
                i for i, r in enumerate(rows[:ours]) if key and all(key) and _key(table, r) == key
            )
            at = next(known, None)
            if at is None:
                rows.append(row)
            else:
                rows[at] = rows[at] | _owned(rows[at], row)
        found[table] = rows
    return found


def _owned(old: Mapping[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A user's keys of a row, with a source that says whose they are where they give none."""
    ours = {"source": f"your own facts, over: {old.get('source', '')}"}
    named = {"name": old["name"]} if "name" in old else {}  # a card keeps its name, however spelled
    return ours | new | named


def _key(table: str, row: object) -> tuple[object, ...]:
    """What names a row, however it is spelled: ``2.9`` is 2.9.0. Empty where rows have no name."""
    if table not in KEYS or not isinstance(row, dict):
        return ()
    return tuple(_normal(name, row.get(name)) for name in KEYS[table])


def _normal(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return Version(value) if name == "version" else gpu_key(value) if name == "name" else value
    except InvalidVersion:
        return value


def _assembled(tables: Mapping[str, Any], place: str) -> Facts:
    """The facts, cross-checked, with each image beside its toolkit and each wheel beside its
    release, so that a rule sees everything about the rows that it is given.
    """
    flat = checked(Facts, tables, place)
    faults = [f"{place}: {fault}" for fault in crosscheck.faults(flat)]
    if faults:
        raise FactsError("\n".join(faults))
    cuda = tuple(_with_images(row, flat) for row in flat.cuda)
    drivers = {minor(row.version): row.driver_of_minor for row in cuda}
    torch = tuple(
        row.model_copy(
            update={
                "build": tuple(
                    build.model_copy(update={"driver_of_minor": drivers.get(str(build.cuda))})
                    for build in row.build
                )
            }
        )
        for row in flat.torch
    )
    flash_attn = tuple(_with_third_party(row, flat) for row in flat.flash_attn)
    return flat.model_copy(update={"torch": torch, "cuda": cuda, "flash_attn": flash_attn})


def _with_images(row: CudaFact, flat: Facts) -> CudaFact:
    """A toolkit with its images, and the driver that its minor came with."""
    same = [other for other in flat.cuda if minor(other.version) == minor(row.version)]
    drivers = [other.driver or other.driver_branch for other in same]
    return row.model_copy(
        update={
            "base": tuple(base for base in flat.base if base.cuda == row.version),
            "driver_of_minor": min(filter(None, drivers), default=None),
        }
    )


def _with_third_party(row: FlashAttnFact, flat: Facts) -> FlashAttnFact:
    """A release with what others built of it: who could, has shown that it compiles."""
    wheels = tuple(wheel for wheel in flat.third_party if wheel.version == row.version)
    return row.model_copy(
        update={
            "third_party": wheels,
            "third_party_source": f"{flat.third_party_source} ({flat.third_party_checked})",
            "torch_max": max([row.torch_max, *(wheel.torch for wheel in wheels)]),
        }
    )
