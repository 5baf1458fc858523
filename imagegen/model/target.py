"""What an image is to hold: exact versions on every axis. Frozen, without I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from packaging.version import Version

Kind = Literal["devel", "slim"]
"""``devel`` stands on an nvidia/cuda cudnn-devel image; ``slim`` holds nvcc and one copy of the
CUDA libraries."""

Host = Literal["x86_64", "aarch64"]
"""The CPU architecture of the machine that a container runs on."""

Origin = Literal["official", "third-party", "source"]
"""Where flash-attn comes from: its makers' wheel, somebody else's, or a compilation."""

_WORD = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
HOST = r"[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?"
REPOSITORY = rf"(?:{HOST}/)?{_WORD}(?:/{_WORD})*"
"""A repository's name: no tag, no digest, no scheme."""


def driver_text(driver: Version) -> str:
    """As NVIDIA writes it: ``580.65.06``, of which a Version drops the zero."""
    return ".".join([str(driver.major), *(f"{part:02}" for part in driver.release[1:])])


def minor(version: Version) -> str:
    """``13.0`` of 13.0.2."""
    return f"{version.major}.{version.minor}"


def cuda_word(version: Version) -> str:
    """PyTorch's word for a CUDA version: ``cu130`` of 13.0.2."""
    return f"cu{version.major}{version.minor}"


@dataclass(frozen=True, order=True, slots=True)
class Python:
    """A Python minor: ``3.13``, or ``3.13t``, its free-threaded build, which takes other wheels."""

    version: Version
    free_threaded: bool = False

    @classmethod
    def parse(cls, text: str) -> Python:
        """The value of ``3.13`` or ``3.13t``.

        Raises:
            ValueError: the text is neither.
        """
        found = re.fullmatch(r"(\d+\.\d+)(t?)", text)
        if not found:
            raise ValueError(f"{text!r} is not a Python such as 3.12, or 3.13t")
        return cls(Version(found[1]), bool(found[2]))

    @property
    def tag(self) -> str:
        """As in wheels' names: ``cp313t``."""
        return f"cp{self.version.major}{self.version.minor}{'t' * self.free_threaded}"

    def __str__(self) -> str:
        """``3.13t``."""
        return f"{minor(self.version)}{'t' * self.free_threaded}"


@dataclass(frozen=True, kw_only=True, order=True, slots=True)
class Os:
    """A distribution's release: ``ubuntu`` 24.04, ``debian`` 12."""

    distribution: str
    version: Version

    @property
    def name(self) -> str:
        """As it is spelled in ids and in matrix.toml: ``ubuntu24.04``."""
        release = str(self.version)
        if self.distribution == "ubuntu":  # a Version drops the zero of 24.04
            release = f"{self.version.major}.{self.version.minor:02d}"
        return f"{self.distribution}{release}"


@dataclass(frozen=True, kw_only=True, order=True, slots=True)
class FlashAttn:
    """flash-attn 2 and the kernels compiled into it.

    ``archs`` are compute capabilities times ten (80 is 8.0); ``features`` are those of
    imagegen/image/wheel/flash_attn_wheel/selection.py.
    """

    version: Version
    archs: tuple[int, ...]
    head_dims: tuple[int, ...]
    dtypes: tuple[str, ...]
    features: tuple[str, ...]

    @property
    def promise(self) -> dict[str, object]:
        """What an image with it says of it; JSON values only."""
        return {
            "generation": 2,
            "version": str(self.version),
            "archs": list(self.archs),
            "head_dims": list(self.head_dims),
            "dtypes": list(self.dtypes),
            "features": list(self.features),
        }


@dataclass(frozen=True, kw_only=True, order=True, slots=True)
class FlashAttnPackage:
    """FlashAttention-3 or -4: a package that is installed as it is, with all that it has.

    ``requirement`` is what an installer is asked for; ``gpus`` and ``trains_on`` are the majors of
    the compute capabilities that it has a forward, and a backward pass for.
    """

    generation: int
    package: str
    version: Version
    requirement: str
    gpus: tuple[int, ...]
    trains_on: tuple[int, ...]

    @property
    def promise(self) -> dict[str, object]:
        """What an image with it says of it; JSON values only."""
        return {
            "generation": self.generation,
            "package": self.package,
            "version": str(self.version),
        }


@dataclass(frozen=True, kw_only=True, order=True, slots=True)
class Target:
    """One image that can be built: exact versions on every axis."""

    os: Os
    cuda: Version
    torch: Version
    python: Version
    profile: str
    kind: Kind
    flash_attn: FlashAttn | FlashAttnPackage | None
    torchvision: Version
    packages: tuple[str, ...]
    driver: Version
    """The oldest driver that runs this CUDA's major."""
    archs: tuple[int, ...]
    """What torch has machine code for: compute capabilities times ten."""
    unverified: tuple[str, ...] = ()
    """What no fact confirms about it: empty unless unknown versions were allowed."""

    @property
    def id(self) -> str:
        """The one place where a target's name is spelled; nothing parses it back."""
        return (
            f"{self.os.name}-cuda{minor(self.cuda)}-torch{minor(self.torch)}"
            f"-py{minor(self.python)}-{self.profile}"
        )

    @property
    def tag(self) -> str:
        """The image tag.

        It carries the CUDA version in both forms that the platforms read: ``cu1302`` (RunPod's
        smoke test wants four digits) and ``cuda-13.0`` (vast.ai's automatic choice).
        """
        digits = f"{self.cuda.major}{self.cuda.minor}{self.cuda.micro}"
        return (
            f"torch{self.torch}-cu{digits}-cuda-{minor(self.cuda)}-py{minor(self.python)}"
            f"-{self.os.name}-{self.profile}"
        )

    @property
    def promise(self) -> dict[str, object]:
        """What the image says of itself and is tested against; JSON values only."""
        return {
            "id": self.id,
            "os": {
                "id": self.os.distribution,
                "version": self.os.name.removeprefix(self.os.distribution),
            },
            "cuda": str(self.cuda),
            "torch": str(self.torch),
            "torch_cuda": minor(self.cuda),
            "torchvision": str(self.torchvision),
            "python": minor(self.python),
            "driver": driver_text(self.driver),
            "archs": list(self.archs),
            "profile": self.profile,
            "kind": self.kind,
            "flash_attn": self.flash_attn.promise if self.flash_attn else None,
            "packages": list(self.packages),
            "unverified": list(self.unverified),
        }
