"""The facts as values: one model for each table of imagegen/data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import cached_property
from typing import Annotated, Literal

from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf

from imagegen.model.target import Host, Kind, Os, Python


def _version(value: object) -> object:
    try:
        return Version(value) if isinstance(value, str) else value
    except InvalidVersion as error:
        raise ValueError(f"{value!r} is not a version") from error


def _python(value: object) -> object:
    return Python.parse(value) if isinstance(value, str) else value


Ver = Annotated[InstanceOf[Version], BeforeValidator(_version)]
Py = Annotated[InstanceOf[Python], BeforeValidator(_python)]


class Strict(BaseModel):
    """A table of a TOML file: frozen, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Fact(Strict):
    """A fact: where it was read and when.

    ``assumed`` says what a version that nobody knows yet is taken to be like; empty for a fact.
    """

    source: str = Field(min_length=3)
    checked: date
    assumed: str = ""


class TorchBuild(Strict):
    """One PyTorch release for one CUDA: what its wheel index holds.

    ``archs`` are compute capabilities times ten; ``read`` says that they were listed from the
    wheel. ``toolkit`` is the cuda-toolkit release that a CUDA 13 wheel asks for. The driver
    ``driver_of_minor`` came with this CUDA.
    """

    cuda: Ver
    hosts: tuple[Host, ...] = Field(min_length=1)
    abi: bool
    archs: tuple[int, ...] = Field(min_length=1)
    archs_aarch64: tuple[int, ...] = ()
    read: bool = False
    toolkit: Ver | None = None
    announced: bool = False
    driver_of_minor: Ver | None = None


class TorchFact(Fact):
    """One PyTorch release on Linux.

    ``pypi_cuda`` is the CUDA of the plain PyPI wheel, on the hosts ``pypi_hosts``; ``cxx`` the C++
    standard that its headers need (17 or 20).
    """

    version: Ver
    released: date
    pythons: tuple[Py, ...]
    pythons_aarch64: tuple[Py, ...] | None = None
    index_pythons: tuple[Py, ...] = ()
    pypi_cuda: Ver
    pypi_hosts: tuple[Host, ...]
    torchvision: Ver
    torchvision_pythons: tuple[Py, ...] | None = None
    torchaudio: Ver
    triton: str
    cxx: Literal[17, 20]
    build: tuple[TorchBuild, ...] = Field(min_length=1)

    def build_for(self, cuda: Version) -> TorchBuild | None:
        """The build for that CUDA (major.minor)."""
        return next((build for build in self.build if build.cuda == cuda), None)

    def wheels_for(self, host: Host) -> tuple[Python, ...]:
        """The Pythons that PyPI has wheels for."""
        other = self.pythons_aarch64 if host == "aarch64" else None
        return self.pythons if other is None else other


class ImageFact(Fact):
    """An image, and its digest where at least two public files name it."""

    tag: str
    digest: str = Field("", pattern=r"^(sha256:[0-9a-f]{64})?$")
    witnesses: int = 0


class BaseFact(ImageFact):
    """An nvidia/cuda image: for which toolkit, distribution and kind of image."""

    cuda: Ver
    os: str
    kind: Kind


class CudaFact(Fact):
    """A CUDA toolkit: the drivers it runs with, the limits of nvcc, and what ptxas makes.

    ``driver`` came with it (``driver_branch`` where only the branch is known), ``driver_floor`` is
    the oldest that minor-version compatibility takes; ``glibc_max`` is None without a known limit.
    ``base`` are the nvidia/cuda images that carry it, ``driver_of_minor`` the driver that came with
    the first release of its minor: from it on a driver reports that CUDA, whatever the patch.
    """

    version: Ver
    driver: Ver | None = None
    driver_branch: Ver | None = None
    driver_floor: Ver
    gcc_max: int
    glibc_max: Ver | None = None
    archs: tuple[int, ...] = Field(min_length=1)
    driver_of_minor: Ver | None = None
    base: tuple[BaseFact, ...] = ()

    def base_for(self, os: OsFact, kind: Kind) -> BaseFact | None:
        """The image that is known for that distribution."""
        name = os.os.name
        return next((row for row in self.base if row.os == name and row.kind == kind), None)


class OsFact(ImageFact):
    """A distribution's release and what it ships.

    There are nvidia/cuda images for it from the toolkit ``images_from`` on and below
    ``images_before``; none at all where ``images_from`` is None. ``rank`` orders the answers to a
    question that leaves the distribution open. ``lacks`` are packages that others have, and
    ``codename`` is what people and apt call the release.
    """

    distribution: str
    version: Ver
    codename: str = ""
    python: Py
    gcc: int
    glibc: Ver
    rank: int
    lacks: tuple[str, ...] = ()
    images_from: Ver | None = None
    images_before: Ver | None = None

    @cached_property
    def os(self) -> Os:
        """The release as a value."""
        return Os(distribution=self.distribution, version=self.version)


class Wheel(Strict):
    """flash-attn wheels that its makers published: one row for all Pythons.

    ``tag`` is the CUDA word of the file name; ``nvcc`` the compiler, where known; ``development``
    means built with a torch before its release; ``named`` is the version in the file name;
    ``misnamed`` are ABIs that a file is named for without having them, ``seen`` where people met
    it.
    """

    torch: Ver
    tag: str = Field(pattern="^cu[0-9]+$")
    nvcc: Ver | None = None
    host: Host
    pythons: tuple[Py, ...] = Field(min_length=1)
    abi: tuple[bool, ...] = (False, True)
    development: bool = False
    named: str = ""
    misnamed: tuple[bool, ...] = ()
    seen: str = ""

    @cached_property
    def cuda_major(self) -> int:
        """12 of ``cu12`` and of ``cu123``."""
        return int(self.tag[2:4])


class ThirdPartyWheel(Strict):
    """flash-attn wheels that somebody else published. ``torch_cuda`` is the CUDA of the torch that
    they were built with.
    """

    version: Ver
    torch: Ver
    nvcc: Ver
    torch_cuda: Ver
    host: Host
    pythons: tuple[Py, ...] = Field(min_length=1)
    abi: bool
    archs: tuple[int, ...]
    glibc: Ver
    platform: str
    release: str


class FlashAttnRelease(Fact):
    """A release of flash-attention, of whichever generation."""

    version: Ver


class FlashAttnPackageFact(FlashAttnRelease):
    """A release of FlashAttention-3 or -4: a package beside flash-attn 2, never compiled here.

    ``name`` is its distribution, ``cuda13_extra`` what to ask it for beside a torch of CUDA 13.
    ``cuda`` are the CUDA builds of torch that it is recorded for, 13 for every 13.x. ``gpus`` and
    ``trains_on`` are majors of compute capabilities: where it runs forward, and where backward too.
    ``unproven`` says why nothing confirms it, ``shares`` what of flash-attn 2 is in it as well.
    """

    generation: Literal[3, 4]
    name: str
    cuda13_extra: str = ""
    pythons: tuple[Py, ...] = Field(min_length=1)
    torch_min: Ver
    cuda: tuple[Ver, ...] = Field(min_length=1)
    gpus: tuple[int, ...] = Field(min_length=1)
    trains_on: tuple[int, ...] = Field(min_length=1)
    on_pypi: bool
    unproven: str = ""
    shares: str = ""

    def requirement(self, index: Version) -> str:
        """What to ask an installer for beside a torch of that CUDA."""
        extra = f"[{self.cuda13_extra}]" if self.cuda13_extra and index.major >= 13 else ""
        return f"{self.name}{extra}=={self.version}"


class FlashAttnFact(FlashAttnRelease):
    """A flash-attn 2 release.

    ``archs`` maps what setup.py can compile (compute capability times ten) to the oldest CUDA for
    it; ``torch_max`` is the newest torch minor that it is known to compile with; ``cuda13_tag`` the
    CUDA word that its setup.py looks for under a CUDA 13 torch.
    """

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    python_min: Py
    archs: Mapping[int, Ver]
    kernel_files: int
    torch_max: Ver
    cuda13_tag: str
    wheel_archs: tuple[int, ...] = ()
    glibc: Ver | None = None
    wheels_unknown_to: Ver | None = None
    wheels_unknown_pythons: tuple[Py, ...] = ()
    wheel: tuple[Wheel, ...] = ()
    third_party: tuple[ThirdPartyWheel, ...] = ()
    third_party_source: str = ""

    @cached_property
    def third_party_for(self) -> Mapping[tuple[int, int, Host], list[ThirdPartyWheel]]:
        """Its third-party wheels by torch's minor and machine: there are hundreds."""
        found: dict[tuple[int, int, Host], list[ThirdPartyWheel]] = {}
        for row in self.third_party:
            found.setdefault((row.torch.major, row.torch.minor, row.host), []).append(row)
        return found

    def able(self, cuda: Version) -> tuple[int, ...]:
        """The architectures that it can be compiled for with that nvcc."""
        return tuple(sorted(arch for arch, oldest in self.archs.items() if cuda >= oldest))


class GpuFact(Fact):
    """A graphics card: ``capability`` is the compute capability times ten, ``memory`` in GB, every
    variant; ``driver`` the first driver branch that knows the card, where CUDA's floor is lower.

    ``guess`` marks a row without a source that was read.
    """

    name: str
    also: tuple[str, ...] = ()
    capability: int
    memory: tuple[int, ...]
    brand: Literal["geforce", "quadro", "tesla"]
    host: Host = "x86_64"
    driver: Ver | None = None
    guess: bool = False

    @cached_property
    def keys(self) -> frozenset[str]:
        """Its names as they are compared."""
        return frozenset(map(gpu_key, (self.name, *self.also)))

    def runs(self, archs: tuple[int, ...]) -> bool:
        """Whether it runs machine code for one of the architectures: the same major, a minor that
        is not above its own. PTX, which could be compiled for it, is not counted on.
        """
        mine = divmod(self.capability, 10)
        return any(divmod(arch, 10)[0] == mine[0] and arch % 10 <= mine[1] for arch in archs)


def gpu_key(name: str) -> str:
    """A card's name without vendor, product line, memory, case and separators: ``rtx4090``.

    >>> gpu_key("NVIDIA GeForce RTX 4090") == gpu_key("RTX_4090")
    True
    """
    words = re.findall(r"[a-z0-9]+", name.lower())
    said = re.compile(
        "nvidia|geforce|tesla|sxm[0-9]?|pcie|[0-9]+gb|[0-9]+x"
    )  # the memory is no other card
    return "".join(word for word in words if not said.fullmatch(word))


def exact(version: Version, wanted: Version) -> bool:
    """Whether ``version`` is what was asked for: ``2.9`` means every 2.9.x, ``2.9.1`` only itself.

    >>> exact(Version("12.8.1"), Version("12.8")), exact(Version("12.8.1"), Version("12.8.0"))
    (True, False)
    """
    if wanted.is_prerelease or wanted.post is not None or wanted.local:
        return version == wanted
    release = wanted.release
    return (len(release) < 3 and version.release[: len(release)] == release) or version == wanted
