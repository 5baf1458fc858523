"""The recipe of flash-attn's wheels, run by an interpreter: this machine's, or an image's."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imagegen import machine, plan, proc
from imagegen.errors import BuildError, FactsError, UsageError, WheelError
from imagegen.facts import Facts, FlashAttnFact
from imagegen.image.wheel.flash_attn_wheel.selection import PRESETS, Selection
from imagegen.proc import Say

MODULE = "flash_attn_wheel"


def verify(
    wheel: Path, say: Say, *, python: str = sys.executable, level: str = "load", image: str = ""
) -> dict[str, object]:
    """Check a wheel with an interpreter of this machine, or with the one of an image.

    Raises:
        WheelError: it is not what it says.
    """
    if not wheel.is_file():
        raise WheelError(f"{wheel}: no such file")
    if image:
        code, lines = _in_container(image, wheel, level)
    else:
        words = ["verify", str(wheel.absolute()), "--level", level]
        code, lines = _recipe(python, *words, say=_nobody)
    if code:
        raise WheelError("\n".join(lines[-3:]) or f"{wheel.name}: exit {code}")
    say(f"{wheel.name}: as promised")
    found: dict[str, object] = json.loads(lines[-1])
    return found


def _in_container(image: str, wheel: Path, level: str) -> tuple[int, list[str]]:
    """The recipe's verdict by the interpreter and the torch of an image."""
    from imagegen.engine import Docker

    with contextlib.closing(Docker.connect()) as engine:
        ran = engine.run(
            image,
            ["python", "-m", MODULE, "verify", f"/wheels/{wheel.name}", "--level", level],
            timeout=600,
            env={"PYTHONPATH": "/recipe"},
            mounts={plan.context_image() / "wheel": "/recipe", wheel.absolute().parent: "/wheels"},
        )
    return ran.code, (ran.out if ran.code == 0 else ran.err or ran.out).strip().splitlines()


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Which wheel to build on this machine, as it was typed; empty for what is usual."""

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
            raise UsageError(str(error)) from error

    def _mine(self, facts: Facts) -> tuple[int, ...]:
        known = self.release(facts).archs
        cards = machine.read(facts).gpus
        return tuple(sorted({max(a for a in known if card.runs((a,))) for card in cards}))


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
    say: Say,
) -> dict[str, object]:
    """Run the recipe on this machine, with the torch and the nvcc that ``python`` finds.

    Raises:
        BuildError: it failed.
    """
    selection, release = asked.selection(facts), asked.release(facts)
    parts: list[str | Path] = [given.absolute(), "--no-compile"] if given else []
    sdist = sdist or _fetched(release, python, work, say)
    words: list[str | Path] = [
        *("build", sdist.absolute(), "--work", work.absolute(), "--out", to.absolute()),
        *("--archs", _list(selection.archs), "--head-dims", _list(selection.head_dims)),
        *("--dtypes", _list(selection.dtypes), "--features", _list(selection.features)),
        *(["--jobs", str(jobs)] if jobs else []),
        *(["--shard", shard] if shard else []),
        *(["--given", *parts] if given else []),
    ]
    code, lines = _recipe(python, *words, say=say)
    if code:
        raise BuildError("\n".join(lines[-20:]) or f"the recipe exited {code}")
    found: dict[str, object] = json.loads(lines[-1])
    return found


def _fetched(release: FlashAttnFact, python: str, work: Path, say: Say) -> Path:
    """flash-attn's source, by its hash."""
    work.mkdir(parents=True, exist_ok=True)
    script = plan.context_image() / "wheel" / "fetch-sdist"
    words = (script, str(release.version), release.sha256, work)
    code, lines = proc.stream(*words, say=say, doing="fetching", env={"PYTHON": python})
    if code:
        raise BuildError("\n".join(lines[-10:]), hint="--sdist FILE names one that is here")
    return work / f"flash_attn-{release.version}.tar.gz"


def _recipe(python: str, *words: str | Path, say: Say) -> tuple[int, list[str]]:
    folder = plan.context_image() / "wheel"
    path = os.pathsep.join(filter(None, [os.fspath(folder), os.environ.get("PYTHONPATH")]))
    return proc.stream(
        python, "-m", MODULE, *words, say=say, doing="at work", env={"PYTHONPATH": path}
    )


def _nobody(_line: str) -> None:
    """Hears what only matters when it fails."""


def _list(values: Sequence[object]) -> str:
    return ",".join(map(str, values))
