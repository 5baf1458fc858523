"""All facts as one value: a table for each kind of row, and how a row is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import Any, TypeVar

from packaging.version import InvalidVersion, Version
from pydantic import Field

from imagegen.compat.facts.rows import (
    BaseFact,
    CudaFact,
    FlashAttnFact,
    FlashAttnPackageFact,
    FlashAttnRelease,
    GpuFact,
    OsFact,
    Strict,
    ThirdPartyWheel,
    TorchFact,
    exact,
    gpu_key,
)
from imagegen.errors import FactsError
from imagegen.model.target import Python, minor

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
