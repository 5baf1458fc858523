"""A wheel of flash-attn, or a part of its kernels, compiled on this machine by the recipe."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imagegen.compat.facts.rows import FlashAttnFact
from imagegen.compat.facts.tables import Facts
from imagegen.errors import BuildError, EngineError, FactsError, UsageError
from imagegen.image.wheel.flash_attn_wheel.selection import PRESETS, Part, Selection
from imagegen.matrix import nvidia_smi
from imagegen.util import files, process
from imagegen.wheels.supply import cost
from imagegen.wheels.verify import described, recipe, verify

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which wheel to compile on this machine, as it was typed; empty for what is usual."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Compilation:
    """A wheel, or a ``shard`` of its kernels such as 2/4, that is to be compiled on this machine.

    ``python`` is the interpreter that has torch, ``sdist`` flash-attn's source if it need not be
    fetched, ``work`` where compiled kernels are kept. ``prebuilt`` holds what shards compiled: then
    it is linked, and no kernel is compiled.
    """

    wanted: Wanted
    sdist: Path | None = None
    python: str = "python3"
    work: Path
    to: Path | None = None
    shard: str = ""
    prebuilt: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the wheel or the objects go."""
        return self.to or Path("shards" if self.shard else "wheels")


def compile_wheel(compilation: Compilation, facts: Facts, jobs: int) -> dict[str, object]:
    """Run the recipe on this machine, with ``jobs`` threads of nvcc at once, 0 for what fits it.

    Returns:
        What the recipe says of the wheel, or of the objects of a shard.

    Raises:
        UsageError: flash-attn has no such kernels, or the interpreter no torch.
        BuildError: it failed.
    """
    selection, release = compilation.wanted.selection(facts), compilation.wanted.release(facts)
    count = part(compilation.shard).count if compilation.shard else 1
    python, prebuilt = compilation.python, compilation.prebuilt
    _must_have_torch(python)
    if not prebuilt:
        log.info(f"flash-attn {release.version}: {cost(selection, jobs, count)}")
    sdist = compilation.sdist or _fetched(release, python, compilation.work)
    words: list[str | Path] = [
        *("build", sdist.absolute(), "--work", compilation.work.absolute()),
        *("--out", compilation.folder.absolute(), "--archs", _list(selection.archs)),
        *("--head-dims", _list(selection.head_dims), "--dtypes", _list(selection.dtypes)),
        *("--features", _list(selection.features)),
        *(["--jobs", str(jobs)] if jobs else []),
        *(["--shard", compilation.shard] if compilation.shard else []),
    ]
    if prebuilt:
        words += ["--given", prebuilt.absolute(), "--no-compile"]
    code, lines = recipe(python, *words)
    if code:
        raise BuildError("\n".join(lines[-20:]) or f"the recipe exited {code}")
    found: dict[str, object] = json.loads(lines[-1])
    if "wheel" in found:
        verify(described(compilation.folder / str(found["wheel"])), python=python)
    return found


def part(shard: str) -> Part:
    """The part of the kernels that ``--shard`` names.

    Raises:
        UsageError: it names none.
    """
    try:
        return Part.parse(shard)
    except ValueError as error:
        raise UsageError(f"--shard: {error}") from error


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
