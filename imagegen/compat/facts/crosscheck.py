"""What the tables must say of one another: every contradiction, not the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from itertools import pairwise

from imagegen.compat.facts.tables import Facts
from imagegen.model.target import minor


def faults(facts: Facts) -> Iterator[str]:
    """Every contradiction, each with the row that it is in."""
    yield from _twice("torch", (row.version for row in facts.torch))
    yield from _twice("cuda", (row.version for row in facts.cuda))
    yield from _twice("flash_attn", (row.version for row in facts.flash_attn))
    yield from _twice("flash_attn_package", (row.version for row in facts.flash_attn_package))
    yield from _twice("os", (row.os.name for row in facts.os))
    yield from _twice("base", (row.tag for row in facts.base))
    yield from _twice("base", (f"{row.os} {row.cuda} {row.kind}" for row in facts.base))
    yield from _twice("gpu", (key for row in facts.gpu for key in row.keys))
    yield from _derived(facts)
    yield from _torch(facts)
    yield from _cuda(facts)
    yield from _flash_attn(facts)
    yield from _packages(facts)
    yield from _images(facts)


def _twice(table: str, names: Iterable[Hashable]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{table}: {name} is listed {count} times"


def _derived(facts: Facts) -> Iterator[str]:
    for table in ("torch", "cuda", "base", "os", "flash_attn", "flash_attn_package", "gpu"):
        for i, row in enumerate(getattr(facts, table)):
            for key in ("assumed", "driver_of_minor", "third_party_source"):
                if getattr(row, key, None):
                    yield f"{table}.{i}: {key} is computed, and cannot be set"


def _torch(facts: Facts) -> Iterator[str]:
    toolkits = {row.version for row in facts.cuda}
    minors = {minor(version) for version in toolkits}
    archs = {minor(row.version): set(row.archs) for row in facts.cuda}
    for row in facts.torch:
        place = f"torch {row.version}"
        if row.pypi_cuda not in [build.cuda for build in row.build]:
            yield f"{place}: pypi_cuda {row.pypi_cuda} is not among its builds"
        yield from _twice(f"{place}.build", (str(build.cuda) for build in row.build))
        if row.checked < row.released:
            yield f"{place}: checked {row.checked}, before it was released"
        for build in row.build:
            where = f"{place}.build {build.cuda}"
            if str(build.cuda) not in minors:
                yield f"{where}: no such toolkit in cuda"
                continue
            alien = {*build.archs, *build.archs_aarch64} - archs[str(build.cuda)]
            if alien:
                yield f"{where}: archs {sorted(alien)} are beyond what that toolkit makes"
            if build.toolkit and minor(build.toolkit) != str(build.cuda):
                yield f"{where}: toolkit {build.toolkit} is of another CUDA"
            if build.toolkit and build.toolkit not in toolkits:
                yield f"{where}: no toolkit {build.toolkit} in cuda"


def _cuda(facts: Facts) -> Iterator[str]:
    rows = sorted(facts.cuda, key=lambda row: row.version)
    for older, newer in pairwise(rows):
        place = f"cuda {newer.version}"
        if newer.gcc_max < older.gcc_max:
            yield f"{place}: gcc_max {newer.gcc_max} is below that of {older.version}"
        if newer.driver_floor < older.driver_floor:
            yield f"{place}: driver_floor is below that of {older.version}"
        if newer.driver and older.driver and newer.driver < older.driver:
            yield f"{place}: driver {newer.driver} is older than that of {older.version}"
    for row in rows:
        if row.driver and row.driver < row.driver_floor:
            yield f"cuda {row.version}: driver {row.driver} is below its driver_floor"
        if row.base:
            yield f"cuda {row.version}: its images belong in tables [[base]]"


def _flash_attn(facts: Facts) -> Iterator[str]:
    torches = {minor(row.version) for row in facts.torch}
    nvccs = {row.version for row in facts.cuda}
    for row in facts.flash_attn:
        place = f"flash_attn {row.version}"
        if bool(row.wheel) != bool(row.wheel_archs) or bool(row.wheel) != bool(row.glibc):
            yield f"{place}: wheel, wheel_archs and glibc go together"
        if row.third_party:
            yield f"{place}: third-party wheels belong in third_party"
        for wheel in row.wheel:
            if minor(wheel.torch) not in torches:
                yield f"{place}.wheel: no torch {wheel.torch} in torch"
            if wheel.nvcc and wheel.nvcc not in nvccs:
                yield f"{place}.wheel: no toolkit {wheel.nvcc} in cuda"
            if wheel.nvcc and wheel.nvcc.major != wheel.cuda_major:
                yield f"{place}.wheel: {wheel.tag} is not of nvcc {wheel.nvcc}"
    releases = {row.version for row in facts.flash_attn}
    for other in facts.third_party:
        place = f"third_party {other.version}+torch{other.torch}"
        if other.version not in releases:
            yield f"{place}: no flash_attn {other.version}"
        if minor(other.torch) not in torches:
            yield f"{place}: no torch {other.torch} in torch"
        if other.nvcc.major != other.torch_cuda.major:
            yield f"{place}: nvcc {other.nvcc} for a torch of CUDA {other.torch_cuda}"


def _packages(facts: Facts) -> Iterator[str]:
    torches = {minor(row.version) for row in facts.torch}
    for row in facts.flash_attn_package:
        place = f"flash_attn_package {row.version}"
        if row.version.major != row.generation:
            yield f"{place}: not a version of generation {row.generation}"
        if minor(row.torch_min) not in torches:
            yield f"{place}: no torch {row.torch_min} in torch"
        if alien := set(row.trains_on) - set(row.gpus):
            yield f"{place}: trains_on {sorted(alien)} without a forward pass in gpus"


def _images(facts: Facts) -> Iterator[str]:
    toolkits = {row.version for row in facts.cuda}
    systems = {row.os.name: row for row in facts.os}
    for row in facts.base:
        if row.cuda not in toolkits:
            yield f"base {row.tag}: no toolkit {row.cuda} in cuda"
        if row.os not in systems:
            yield f"base {row.tag}: no {row.os} in os"
    for pinned in (*facts.base, *facts.os):
        if bool(pinned.digest) != bool(pinned.witnesses):
            yield f"{pinned.tag}: a digest has witnesses, and only a digest"
        if pinned.digest and pinned.witnesses < 2:
            yield f"{pinned.tag}: a digest needs two public files that name it"
