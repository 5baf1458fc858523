"""The values that travel from one step to the next. Frozen, without I/O.

    Target -> Image -> Built -> Report -> Pushed

Each step takes only what the step before it made: an image that did not pass its checks has no
way to become ``Pushed``, and only a ``Pushed`` image has templates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from packaging.version import Version

from imagegen.errors import ChecksFailed

Kind = Literal["devel", "slim"]
"""``devel`` stands on an nvidia/cuda cudnn-devel image; ``slim`` holds nvcc and one copy of the
CUDA libraries."""

Host = Literal["x86_64", "aarch64"]
"""The CPU architecture of the machine that a container runs on."""

Origin = Literal["official", "third-party", "source"]
"""Where flash-attn comes from: its makers' wheel, somebody else's, or a compilation."""

Status = Literal["pass", "fail", "skip"]

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

    ``requirement`` is what an installer is asked for; ``trains_on`` are the majors of the compute
    capabilities that it has a backward pass for.
    """

    generation: int
    package: str
    version: Version
    requirement: str
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """A target and everything that decides its bytes.

    ``base`` is the exact text of the FROM line after its arguments are filled in; ``key`` is a
    sha256 over the rendered files, the files that are copied in, the base in use, and ``given``,
    the sha256 of a flash-attn wheel from a store. ``notes`` say where flash-attn comes from.
    """

    target: Target
    base: str
    base_override: str
    repository: str
    labels: Mapping[str, str]
    key: str
    given: str = ""
    notes: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        """The local name, wherever it is pushed: with the key, so that no two images share one."""
        return f"imagegen/built:{self.target.tag}-{self.key[:12]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One layer: bytes as stored and sent, and the instruction that made it."""

    digest: str
    compressed: int
    created_by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """An image in the engine's store, under ``image.ref``; ``unpacked`` in bytes."""

    image: Image
    digest: str
    unpacked: int
    seconds: float
    cached: str
    """Why nothing was built, or empty when it was."""


Level = Literal["smoke", "gpu", "runpod", "vast"]
"""smoke: nvcc, torch, flash-attn, packages, in the image and without a GPU; gpu: the kernels of it
all on a card; runpod and vast: the platforms' contracts, from outside."""

LEVELS: tuple[Level, ...] = get_args(Level)
UNREPORTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, and of it what is no UTF-8 either."""
CPU: tuple[Level, ...] = ("smoke", "runpod", "vast")
"""What needs no GPU, and what an image must pass to be pushed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Which levels to run; ``required`` is what no check may be skipped for want of: gpu."""

    levels: tuple[Level, ...] = CPU
    required: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """What is required is run."""
        if "gpu" in self.required and "gpu" not in self.levels:
            object.__setattr__(self, "levels", (*self.levels, "gpu"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One check's outcome; ``guards`` names the bug or platform fact that it guards against."""

    name: str
    status: Status
    detail: str
    seconds: float
    guards: str = ""
    level: Level = "smoke"
    needs: str = ""
    """What it cannot do without: a ``gpu``, or nothing."""

    def __post_init__(self) -> None:
        """Words of an image under test may hold anything, and no report holds everything."""
        for field in ("name", "detail", "guards"):
            object.__setattr__(self, field, UNREPORTABLE.sub("\ufffd", getattr(self, field)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """All checks that ran on one image. Skipped is not passed.

    ``name`` is what the person who asked calls it: a target's id, or an image's reference.
    """

    name: str
    digest: str
    checks: tuple[Check, ...]
    seconds: float
    cached: str = ""

    @property
    def passed(self) -> bool:
        """Whether something was checked and nothing failed."""
        ran = [check for check in self.checks if check.status != "skip"]
        return bool(ran) and all(check.status == "pass" for check in ran)

    def failures(self) -> str:
        """A line for each check that failed, or that none ran."""
        failed = [check for check in self.checks if check.status == "fail"]
        return "\n".join(f"  {c.name}: {c.detail}" for c in failed) or "  no check ran"


@dataclass(frozen=True, kw_only=True, slots=True)
class Report(Outcome):
    """The outcome for an image that was built here."""

    built: Built

    @classmethod
    def of(
        cls, built: Built, checks: tuple[Check, ...], seconds: float, cached: str = ""
    ) -> Report:
        """Under the target's id and the digest of what was built."""
        name = built.image.target.id
        return cls(
            name=name,
            digest=built.digest,
            checks=checks,
            seconds=seconds,
            cached=cached,
            built=built,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Tested:
    """An image that passed its checks: the only thing that can be pushed."""

    report: Report

    def __post_init__(self) -> None:
        """Refuse a report that did not pass, or that is not of all that a push asks for.

        Raises:
            ChecksFailed: naming the checks that failed, or the levels that did not run.
        """
        if not self.report.passed:
            raise ChecksFailed(
                f"{self.report.name} did not pass:\n{self.report.failures()}",
                hint="the image is kept for a look: docker run --rm -it "
                f"{self.report.built.image.ref} bash",
            )
        if lack := [level for level in CPU if level not in {c.level for c in self.report.checks}]:
            raise ChecksFailed(
                f"{self.report.name} was not tried for {' and '.join(lack)}",
                hint=f"imagegen test {self.report.name}",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """A tested image in a registry, its digest read back from there.

    ``refs`` are the names it can be pulled by; ``moved`` are the tags that pointed
    elsewhere before; ``sent`` is false when the registry already had all of it.
    """

    tested: Tested
    repository: str
    digest: str
    refs: tuple[str, ...]
    moved: tuple[str, ...]
    sent: bool
    layers: tuple[Layer, ...]
    seconds: float

    @property
    def target(self) -> Target:
        """What the image is of."""
        return self.tested.report.built.image.target

    @property
    def key(self) -> str:
        """The image's key."""
        return self.tested.report.built.image.key

    @property
    def unpacked(self) -> int:
        """Bytes of its file system."""
        return self.tested.report.built.unpacked

    @property
    def compressed(self) -> int:
        """Bytes to pull on a host that has none of the layers."""
        return sum(layer.compressed for layer in self.layers)

    @property
    def pinned(self) -> str:
        """``repository:tag@sha256:…``: what a template should name."""
        return f"{self.refs[0]}@{self.digest}"
