"""The compatibility facts: those that come with imagegen (data/*.toml) and a user's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from packaging.version import InvalidVersion, Version
from pydantic import Field

from imagegen.errors import FactsError
from imagegen.facts import crosscheck
from imagegen.facts.reading import checked, nearest, parse_toml
from imagegen.facts.rows import (
    BaseFact,
    CudaFact,
    FlashAttnFact,
    FlashAttnPackageFact,
    FlashAttnRelease,
    GpuFact,
    OsFact,
    Sourced,
    Strict,
    ThirdPartyWheel,
    TorchFact,
    Ver,
    exact,
    gpu_key,
)
from imagegen.model import Python, minor

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

Row = TypeVar("Row", TorchFact, CudaFact, FlashAttnRelease)


class Facts(Strict):
    """All facts, one table of each kind."""

    torch: tuple[TorchFact, ...] = Field(min_length=1)
    cuda: tuple[CudaFact, ...] = Field(min_length=1)
    base: tuple[BaseFact, ...]
    os: tuple[OsFact, ...] = Field(min_length=1)
    flash_attn: tuple[FlashAttnFact, ...] = Field(min_length=1)
    flash_attn_package: tuple[FlashAttnPackageFact, ...]
    gpu: tuple[GpuFact, ...] = Field(min_length=1)
    flash_attn_url: str
    third_party_url: str
    third_party_source: str
    third_party_checked: date
    third_party: tuple[ThirdPartyWheel, ...] = ()

    def torch_like(self, wanted: Version) -> tuple[TorchFact, ...]:
        """The releases that ``2.9`` or ``2.9.1`` means, newest first."""
        return _like(self.torch, wanted)

    def cuda_like(self, wanted: Version) -> tuple[CudaFact, ...]:
        """The toolkits that ``12.8`` or ``12.8.1`` means, newest first."""
        return _like(self.cuda, wanted)

    def flash_attn_like(self, wanted: Version) -> tuple[FlashAttnRelease, ...]:
        """The releases that ``2.8``, ``2.8.3`` or ``4`` means, newest first.

        Some came out as a post-release or as a beta only: ``2.7.4`` is 2.7.4.post1 and ``4.0.0`` is
        4.0.0b36, where there is no other.
        """
        rows = self.flash_attn_releases
        near = [row for row in rows if row.version.base_version == str(wanted)]
        near.sort(key=lambda row: row.version, reverse=True)
        return _like(rows, wanted) or tuple(near)

    @property
    def flash_attn_releases(self) -> tuple[FlashAttnRelease, ...]:
        """Those of every generation."""
        return (*self.flash_attn, *self.flash_attn_package)

    def os_named(self, name: str) -> OsFact | None:
        """The release that is spelled ``name`` in ids."""
        return next((row for row in self.os if row.os.name == name), None)

    def gpu_named(self, name: str) -> GpuFact | None:
        """The card, however its name is spelled; of a GeForce the number is enough: ``4090``."""
        key = gpu_key(name)
        for row in self.gpu:
            if key in row.keys or (key[:4].isdecimal() and row.keys & {f"rtx{key}", f"gtx{key}"}):
                return row
        return None

    @property
    def driver_cuda(self) -> tuple[Version, ...]:
        """The CUDA (major.minor) that a driver can report: every minor release, oldest first."""
        return tuple(sorted({Version(minor(row.version)) for row in self.cuda}))

    @property
    def pythons(self) -> tuple[Python, ...]:
        """Every Python that some torch has a wheel for, those that most have first."""
        count = Counter(p for row in self.torch for p in (*row.pythons, *row.index_pythons))
        order = sorted(count, key=lambda p: (p.free_threaded, -count[p], -p.version.minor))
        return tuple(order)

    @property
    def indexes(self) -> tuple[Version, ...]:
        """The CUDA (major.minor) of every torch build, newest first."""
        return tuple(
            sorted({build.cuda for row in self.torch for build in row.build}, reverse=True)
        )

    def assume(self, table: str, wanted: str) -> Facts:
        """The facts with a row for a version that nobody knows yet: like the nearest older one.

        Raises:
            FactsError: it is not a version, or older than every known one.
        """
        try:
            version = Version(wanted)
        except InvalidVersion as error:
            raise FactsError(f"{wanted!r} is not a version") from error
        majors = {row.version.major for row in self.flash_attn_package}
        if table == "flash_attn" and version.major in majors:
            table = "flash_attn_package"  # the later generations have a table of their own
        rows: tuple[Any, ...] = getattr(self, table)
        older = [row for row in rows if row.version < version and not row.assumed]
        if not older:
            raise FactsError(f"{table} {wanted} is older than every version that is known")
        like = max(older, key=lambda row: row.version)
        if table != "cuda" and like.version.major != version.major:
            raise FactsError(f"{table} {wanted}: nothing is known about its major release")
        update: dict[str, Any] = {"version": version, "assumed": str(like.version)}
        # Another release's images, wheels and hash are none of its own.
        if table == "cuda":
            update["base"] = ()
        if table == "flash_attn":
            update |= {"sha256": "", "wheel": (), "wheel_archs": (), "glibc": None}
            update |= {"third_party": ()}
        return self.model_copy(update={table: (*rows, like.model_copy(update=update))})


def _like(rows: Iterable[Row], wanted: Version) -> tuple[Row, ...]:
    found = [row for row in rows if exact(row.version, wanted)]
    return tuple(sorted(found, key=lambda row: row.version, reverse=True))


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


__all__ = [
    "BaseFact",
    "CudaFact",
    "Facts",
    "FlashAttnFact",
    "FlashAttnPackageFact",
    "FlashAttnRelease",
    "GpuFact",
    "OsFact",
    "Sourced",
    "Strict",
    "TorchFact",
    "Ver",
    "checked",
    "load",
    "merged",
    "minor",
    "nearest",
    "parse_toml",
]
