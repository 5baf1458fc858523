"""What came of an image's checks, and the one that passed them.

An image that did not pass has no way to become ``Tested``, and only what is ``Tested`` is pushed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from imagegen import __version__
from imagegen.errors import ChecksFailed
from imagegen.model.image import Built

Status = Literal["pass", "fail", "skip"]


Level = str
"""One of ``INSIDE``, or a platform's name: its contract, tried from outside."""

INSIDE: tuple[Level, ...] = ("smoke", "gpu")
"""smoke: nvcc, torch, flash-attn, packages, in the image and without a GPU; gpu: the kernels of it
all on a card."""

UNREPORTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, and of it what is no UTF-8 either."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Which levels to run, all that need no GPU if none is named; ``required`` is what no check may
    be skipped for want of: gpu.
    """

    levels: tuple[Level, ...] = ()
    required: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """What is required is run."""
        if self.levels and "gpu" in self.required and "gpu" not in self.levels:
            object.__setattr__(self, "levels", (*self.levels, "gpu"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One check's outcome; ``guards`` names the bug or platform fact that it guards against."""

    level: Level = "smoke"
    name: str
    status: Status
    detail: str
    seconds: float
    guards: str = ""
    needs: str = ""
    """What it cannot do without: a ``gpu``, or nothing."""

    def __post_init__(self) -> None:
        """Words of an image under test may hold anything, and no report holds everything."""
        for at in ("name", "detail", "guards"):
            object.__setattr__(self, at, UNREPORTABLE.sub("\ufffd", getattr(self, at)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What came of the checks of one image, as it is kept: on the machine that ran them, and beside
    the image in a registry. Skipped is not passed.

    ``key`` is the image's, empty for one that was not built here; ``unpacked`` in bytes; ``at`` is
    when the checks ended, in seconds since 1970; ``engine`` the engine that ran them, ``version``
    imagegen's, and ``suite`` a hash of those of them that are not in the image.
    """

    digest: str
    checks: tuple[Check, ...]
    seconds: float
    asked: Asked = field(default_factory=Asked)
    key: str = ""
    unpacked: int = 0
    at: float = 0.0
    engine: str = ""
    version: str = __version__
    suite: str = ""

    @classmethod
    def of(cls, built: Built, checks: tuple[Check, ...], seconds: float, **more: Any) -> Report:
        """Of what was built; ``more`` are further fields."""
        return cls(
            digest=built.digest,
            key=built.image.key,
            unpacked=built.unpacked,
            checks=checks,
            seconds=seconds,
            **more,
        )

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

    def allows(self, digest: str, needed: tuple[Level, ...]) -> bool:
        """Whether these bytes may have a public name: they passed all that a push asks for."""
        return digest == self.digest and self.passed and {*needed} <= self.levels

    def covers(self, asked: Asked) -> bool:
        """Whether it is of all that is asked for now."""
        return {*asked.levels} <= {*self.asked.levels} and asked.required <= self.asked.required

    def document(self, target: Mapping[str, object]) -> bytes:
        """It as JSON, with what the image promises; the same bytes for the same report."""
        row = {
            "imagegen": self.version,
            "digest": self.digest,
            "key": self.key,
            "target": dict(target),
            "at": moment(self.at),
            "engine": self.engine,
            "suite": self.suite,
            "seconds": round(self.seconds, 1),
            "unpacked_bytes": self.unpacked,
            "levels": list(self.asked.levels),
            "required": sorted(self.asked.required),
            "checks": [asdict(check) for check in self.checks],
        }
        return json.dumps(row, indent=1, sort_keys=True).encode()

    @classmethod
    def parse(cls, body: bytes) -> Report:
        """The report of a document.

        Raises:
            ValueError: it is none, or of another version of imagegen.
        """
        try:
            row = json.loads(body)
            return cls(
                digest=str(row["digest"]),
                key=str(row["key"]),
                checks=tuple(_check(check) for check in row["checks"]),
                asked=Asked(levels=tuple(row["levels"]), required=frozenset(row["required"])),
                seconds=float(row["seconds"]),
                at=datetime.fromisoformat(row["at"]).timestamp(),
                engine=str(row["engine"]),
                unpacked=int(row["unpacked_bytes"]),
                version=str(row["imagegen"]),
                suite=str(row.get("suite", "")),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no report of a test: {error!r}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A report and what it is of, by the name that the person who asked uses: a target's id, or an
    image's reference. ``built`` is the image where it was built here; ``cached`` says why nothing
    was run.
    """

    name: str
    report: Report
    built: Built | None = None
    cached: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tested:
    """An image that passed its checks: the only thing that can be pushed. ``needed`` are the levels
    that a push asks for.
    """

    built: Built
    report: Report
    needed: tuple[Level, ...]

    def __post_init__(self) -> None:
        """Refuse a report that did not pass, or that is not of all that a push asks for.

        Raises:
            ChecksFailed: naming the checks that failed, or the levels that did not run.
            ValueError: ``needed`` is less than any push asks for.
        """
        ask_enough(self.needed)
        if self.report.digest != self.built.digest:
            raise ChecksFailed(f"{self.name}: the report is of other bytes, {self.report.digest}")
        if not self.report.passed:
            raise ChecksFailed(
                f"{self.name} did not pass:\n{self.report.failures()}",
                hint="the image is kept for a look: docker run --rm -it "
                f"{self.built.image.ref} bash",
            )
        if lack := [level for level in self.needed if level not in self.report.levels]:
            raise ChecksFailed(
                f"{self.name} was not tried for {' and '.join(lack)}",
                hint=f"imagegen test {self.name}",
            )

    @property
    def name(self) -> str:
        """The target's id."""
        return self.built.image.target.id


def ask_enough(needed: tuple[Level, ...]) -> None:
    """What a push asks for is what is inside, and at least one platform's contract.

    Raises:
        ValueError: it is less.
    """
    if "smoke" not in needed or not {*needed} - {*INSIDE}:
        raise ValueError(f"a push asks for smoke and the platforms' contracts, not for {needed}")


def moment(seconds: float) -> str:
    """``2026-11-22T11:40:00Z`` of seconds since 1970."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def _check(row: Mapping[str, Any]) -> Check:
    check = Check(**row)
    if check.status not in ("pass", "fail", "skip"):  # a word that is none of them is no pass
        raise ValueError(f"a check that ended as {check.status!r}")
    return check
