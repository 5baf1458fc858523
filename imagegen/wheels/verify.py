"""Whether wheels are what their names promise, by an interpreter of this machine or of an image."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from imagegen.errors import UsageError, WheelError
from imagegen.util import files, process
from imagegen.wheels.entry import StoreEntry, read, side

log = logging.getLogger(__name__)

MODULE = "flash_attn_wheel"

Depth = Literal["contents", "kernels", "load"]
"""How far a wheel is checked: the file, its kernels by cuobjdump, whether it loads beside torch."""

SAID: Mapping[Depth, str] = {
    "contents": "whole, its kernels not looked at",
    "kernels": "as promised, not loaded",
    "load": "as promised",
}
"""What is known of a wheel after each depth."""

Faults = Mapping[str, str]
"""Wheel -> what is wrong with it."""


def described(wheel: Path) -> Path:
    """A wheel with its description beside it, so that its folder is a store."""
    wheel.with_name(side(wheel.name)).write_text(StoreEntry.of(wheel).described())
    return wheel


def verify_all(
    wheels: Sequence[Path],
    *,
    python: str = sys.executable,
    level: Depth = "load",
    image: str = "",
    sha256: str = "",
) -> tuple[list[dict[str, object]], Faults]:
    """Check every wheel: what those are that are right, and what is wrong with the others."""
    if sha256 and len(wheels) > 1:
        raise UsageError("--sha256 is the hash of one file")
    found: list[dict[str, object]] = []
    faults: dict[str, str] = {}
    for wheel in wheels:
        try:
            one = verify(wheel, python=python, level=level, image=image, sha256=sha256)
            found.append(one)
        except WheelError as error:
            faults[str(wheel)] = str(error)
    return found, faults


def no_faults(faults: Faults) -> None:
    """Nothing was wrong.

    Raises:
        WheelError: with every fault.
    """
    if faults:
        raise WheelError("\n".join(faults.values()))


def verify(
    wheel: Path,
    *,
    python: str = sys.executable,
    level: Depth = "load",
    image: str = "",
    sha256: str = "",
) -> dict[str, object]:
    """Check a wheel with an interpreter of this machine, or with the one of an image.

    Its hash is compared with ``sha256``, or with the description that a store keeps beside it.

    Raises:
        WheelError: it is not what it says.
    """
    if not wheel.is_file():
        raise WheelError(f"{wheel}: no such file")
    told = wheel.with_name(side(wheel.name))
    if not sha256 and told.is_file():
        sha256 = read(told.read_bytes(), wheel.name, str(told)).sha256
    words = ["--level", level, *(["--sha256", sha256] if sha256 else [])]
    if image:
        code, lines = _in_container(image, wheel, words)
    else:
        code, lines = recipe(python, "verify", wheel.absolute(), *words, on_line=log.debug)
    if code:
        raise WheelError("\n".join(lines[-3:]) or f"{wheel.name}: exit {code}")
    log.info(f"{wheel.name}: {SAID[level]}")
    found: dict[str, object] = json.loads(lines[-1])
    return found


def _in_container(image: str, wheel: Path, words: Sequence[str]) -> tuple[int, list[str]]:
    """The recipe's verdict by the interpreter and the torch of an image."""
    from imagegen.engine.docker import Docker

    with contextlib.closing(Docker.connect()) as engine:
        ran = engine.run(
            image,
            ["python", "-m", MODULE, "verify", f"/wheels/{wheel.name}", *words],
            timeout=600,
            env={"PYTHONPATH": "/recipe"},
            mounts={files.context_image() / "wheel": "/recipe", wheel.absolute().parent: "/wheels"},
        )
    return ran.code, (ran.out if ran.code == 0 else ran.err or ran.out).strip().splitlines()


def recipe(
    python: str, *words: str | Path, on_line: Callable[[str], None] = log.info
) -> tuple[int, list[str]]:
    """Run the recipe's command line with an interpreter; ``on_line`` gets each line as it comes.

    Returns:
        The exit status and the last lines of the output.
    """
    folder = files.context_image() / "wheel"
    path = os.pathsep.join(filter(None, [os.fspath(folder), os.environ.get("PYTHONPATH")]))
    return process.stream(
        *(python, "-m", MODULE, *words),
        doing="at work",
        env={"PYTHONPATH": path},
        on_line=on_line,
    )
