"""What is made of a target, step by step. Frozen, without I/O.

    Image -> Built -> Report -> Tested -> Pushed

Each step takes only what the step before it made: an image that did not pass its checks has no
way to become ``Pushed``, and only a ``Pushed`` image has templates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from imagegen.errors import ChecksFailed
from imagegen.model.target import Target

Status = Literal["pass", "fail", "skip"]

Compression = Literal["zstd", "gzip"]
"""How layers are stored and sent; gzip for hosts that cannot read zstd."""

COMPRESSION_LEVEL: Mapping[Compression, int] = {"zstd": 3, "gzip": 6}
"""zstd: level 15 takes five to ten times as long for 5 to 10 % fewer bytes. gzip: its default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """A target and everything that decides its bytes.

    ``base`` is the exact text of the FROM line after its arguments are filled in; ``key`` is a
    sha256 over the rendered files, the files that are copied in, the base in use, ``compression``,
    the labels that say what is inside, and ``given``, the sha256 of a flash-attn wheel from a
    store. ``notes`` say where flash-attn comes from.
    """

    target: Target
    base: str
    base_override: str
    labels: Mapping[str, str]
    key: str
    compression: Compression = "zstd"
    given: str = ""
    notes: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        """The local name, wherever it is pushed: with the key, so that no two images share one."""
        return f"imagegen/built:{self.target.tag}-{self.key[:12]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One layer: bytes as stored and sent, the instruction that made it, and the bytes that it
    unpacks to where they are known.
    """

    digest: str
    compressed: int
    created_by: str
    unpacked: int | None = None


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
        for at in ("name", "detail", "guards"):
            object.__setattr__(self, at, UNREPORTABLE.sub("\ufffd", getattr(self, at)))


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

    @property
    def levels(self) -> set[Level]:
        """The levels of which a check ran. Skipped is not passed."""
        return {check.level for check in self.checks if check.status != "skip"}

    def failures(self) -> str:
        """A line for each check that failed, or that none ran."""
        failed = [check for check in self.checks if check.status == "fail"]
        return "\n".join(f"  {c.name}: {c.detail}" for c in failed) or "  no check ran"


@dataclass(frozen=True, kw_only=True, slots=True)
class Report(Outcome):
    """The outcome for an image that was built here.

    ``at`` is when its checks ended, in seconds since 1970; ``engine`` the engine that ran them, and
    ``suite`` a hash of those of them that are not in the image.
    """

    built: Built
    asked: Asked = field(default_factory=Asked)
    at: float = 0.0
    engine: str = ""
    suite: str = ""

    @classmethod
    def of(
        cls,
        built: Built,
        checks: tuple[Check, ...],
        seconds: float,
        cached: str = "",
        *,
        asked: Asked | None = None,
        at: float = 0.0,
        engine: str = "",
        suite: str = "",
    ) -> Report:
        """Under the target's id and the digest of what was built."""
        return cls(
            name=built.image.target.id,
            digest=built.digest,
            checks=checks,
            seconds=seconds,
            cached=cached,
            built=built,
            asked=asked or Asked(),
            at=at,
            engine=engine,
            suite=suite,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A report as it is kept: on the machine that ran it, and beside the image in a registry.

    ``key`` is the image's, ``unpacked`` in bytes, ``at`` in seconds since 1970, ``version``
    imagegen's, ``suite`` a hash of the checks.
    """

    digest: str
    key: str
    checks: tuple[Check, ...]
    asked: Asked
    seconds: float
    at: float
    engine: str
    unpacked: int
    version: str
    suite: str = ""

    def allows(self, digest: str) -> bool:
        """Whether these bytes may have a public name: they passed all that a push asks for."""
        outcome = Outcome(name="", digest=self.digest, checks=self.checks, seconds=self.seconds)
        return digest == self.digest and outcome.passed and {*CPU} <= outcome.levels

    def covers(self, asked: Asked) -> bool:
        """Whether it is of all that is asked for now."""
        return {*asked.levels} <= {*self.asked.levels} and asked.required <= self.asked.required


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
        if lack := [level for level in CPU if level not in self.report.levels]:
            raise ChecksFailed(
                f"{self.report.name} was not tried for {' and '.join(lack)}",
                hint=f"imagegen test {self.report.name}",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """A tested image in a registry, as that registry tells of it.

    ``refs`` are the names it can be pulled by: the one that never means anything else, then the
    target's own; ``aliases`` other names that point to it. ``moved`` are the tags that pointed
    elsewhere before, ``kept`` why a tag was left where it is. ``sent`` is false when the registry
    already had all of it; ``cached`` then says why nothing was done.
    """

    target: Target
    key: str
    repository: str
    digest: str
    refs: tuple[str, ...]
    layers: tuple[Layer, ...]
    record: Record
    revision: str = ""
    aliases: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    sent: bool = False
    seconds: float = 0.0
    cached: str = ""

    def __post_init__(self) -> None:
        """Refuse what no passing report is beside.

        Raises:
            ChecksFailed: the report is not of these bytes, or did not pass.
        """
        if not self.record.allows(self.digest):
            raise ChecksFailed(
                f"{self.refs[0]} has no report that passed", hint=f"imagegen push {self.target.id}"
            )

    @property
    def unpacked(self) -> int:
        """Bytes of its file system, the sum over the layers."""
        return self.record.unpacked

    @property
    def compressed(self) -> int:
        """Bytes to pull on a host that has none of the layers."""
        return sum(layer.compressed for layer in self.layers)

    @property
    def pinned(self) -> str:
        """``repository:tag@sha256:…``: what a template should name."""
        return f"{self.refs[0]}@{self.digest}"
