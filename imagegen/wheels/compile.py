"""The recipe of flash-attn's wheels, run by an interpreter: this machine's, or an image's."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imagegen.compat.facts.rows import FlashAttnFact
from imagegen.compat.facts.tables import Facts
from imagegen.errors import BuildError, EngineError, FactsError, UsageError
from imagegen.image.wheel.flash_attn_wheel.selection import PRESETS, Selection
from imagegen.matrix import nvidia_smi
from imagegen.util import files, process
from imagegen.wheels.supply import cost
from imagegen.wheels.verify import _recipe, described, verify

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which wheel to build on this machine, as it was typed; empty for what is usual.

    In the order of the command line's options.
    """

    version: str = ""
    archs: str = ""
    preset: str = "full"
    head_dims: str = ""
    dtypes: str = ""
    features: str | None = None

    def release(self, facts: Facts) -> FlashAttnFact:
        """The release: the newest without a version.

        Raises:
            FactsError: no fact knows it.
        """
        if not self.version:
            return max(facts.flash_attn, key=lambda row: row.version)
        known = {str(row.version): row for row in facts.flash_attn}
        if self.version not in known:
            raise FactsError(f"no fact about flash-attn {self.version!r}: {', '.join(known)}")
        return known[self.version]

    def selection(self, facts: Facts) -> Selection:
        """The kernels; the architectures of this machine's cards where none is named.

        Raises:
            UsageError: flash-attn has no such kernels.
        """
        try:
            archs = tuple(int(word) for word in self.archs.split(",") if word)
            own = {
                "head_dims": tuple(int(word) for word in self.head_dims.split(",") if word),
                "dtypes": tuple(filter(None, self.dtypes.split(","))),
            }
            chosen = dict(PRESETS[self.preset]) | {key: v for key, v in own.items() if v}
            if self.features is not None:
                chosen["features"] = tuple(filter(None, self.features.split(",")))
            return Selection(archs or self._mine(facts), **chosen)  # type: ignore[arg-type]
        except KeyError as error:
            raise UsageError(f"--preset {self.preset}: {', '.join(PRESETS)}") from error
        except ValueError as error:
            hint = (
                "--archs 80,90 and --head-dims 64,128: whole numbers, 90 for compute capability 9.0"
            )
            raise UsageError(str(error), hint=hint) from error

    def _mine(self, facts: Facts) -> tuple[int, ...]:
        try:
            cards = nvidia_smi.read(facts).gpus
        except UsageError as error:
            raise UsageError(f"which GPU? {error}", hint="--archs 80,90 names them") from error
        release = self.release(facts)
        mine = [max((a for a in release.archs if card.runs((a,))), default=0) for card in cards]
        if not any(mine):
            names = ", ".join(card.name for card in cards)
            raise UsageError(f"flash-attn {release.version} has no kernels for {names}")
        return tuple(sorted({*mine} - {0}))


def build_here(
    asked: Asked,
    facts: Facts,
    *,
    sdist: Path | None,
    python: str,
    work: Path,
    to: Path,
    jobs: int,
    shard: str,
    given: Path | None,
) -> dict[str, object]:
    """Run the recipe on this machine, with the torch and the nvcc that ``python`` finds.

    Raises:
        BuildError: it failed.
    """
    selection, release = asked.selection(facts), asked.release(facts)
    _must_have_torch(python)
    if not given:
        log.info(f"flash-attn {release.version}: {cost(selection, jobs, _count(shard))}")
    parts: list[str | Path] = [given.absolute(), "--no-compile"] if given else []
    sdist = sdist or _fetched(release, python, work)
    words: list[str | Path] = [
        *("build", sdist.absolute(), "--work", work.absolute(), "--out", to.absolute()),
        *("--archs", _list(selection.archs), "--head-dims", _list(selection.head_dims)),
        *("--dtypes", _list(selection.dtypes), "--features", _list(selection.features)),
        *(["--jobs", str(jobs)] if jobs else []),
        *(["--shard", shard] if shard else []),
        *(["--given", *parts] if given else []),
    ]
    code, lines = _recipe(python, *words)
    if code:
        raise BuildError("\n".join(lines[-20:]) or f"the recipe exited {code}")
    found: dict[str, object] = json.loads(lines[-1])
    if "wheel" in found:
        verify(described(to / str(found["wheel"])), python=python)
    return found


def _count(shard: str) -> int:
    """4 of ``2/4``; 1 without a shard.

    Raises:
        UsageError: it is no part of anything.
    """
    number, _, count = shard.partition("/")
    if not shard:
        return 1
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UsageError(f"--shard {shard}: give it as 2/4, the second of four parts")
    return int(count)


def _must_have_torch(python: str) -> None:
    """The interpreter has torch, which the wheel is compiled against.

    Raises:
        UsageError: it has not, or is none.
    """
    try:
        process.run(python, "-c", "import torch", timeout=120)
    except EngineError as error:
        raise UsageError(
            f"{python} has no torch to compile against: {str(error).splitlines()[-1]}",
            hint="--python PATH names the interpreter of an environment that has one",
        ) from error


def _fetched(release: FlashAttnFact, python: str, work: Path) -> Path:
    """flash-attn's source, by its hash."""
    work.mkdir(parents=True, exist_ok=True)
    script = files.context_image() / "wheel" / "fetch-sdist"
    words = (script, str(release.version), release.sha256, work)
    code, lines = process.stream(*words, doing="fetching", env={"PYTHON": python})
    if code:
        raise BuildError("\n".join(lines[-10:]), hint="--sdist FILE names one that is here")
    return work / f"flash_attn-{release.version}.tar.gz"


def _list(values: Sequence[object]) -> str:
    return ",".join(map(str, values))
