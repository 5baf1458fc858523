"""What this pod has, in one plain sentence; and where its GPU and this image do not fit together,
what to do about it: `python /opt/imagegen/about.py`. Standard library only, so that it is quick.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROMISE = Path("/etc/imagegen/target.json")
DEVICE = Path("/dev/nvidiactl")
CHOOSE = "on your own machine, imagegen pick --gpu NAME --driver VERSION names the images that fit"


@dataclass(frozen=True)
class Gpu:
    """One GPU as its driver names it; compute capability times ten."""

    name: str
    driver: str
    arch: int


def gpus() -> tuple[Gpu, ...]:
    """The GPUs that the driver shows here."""
    query = "--query-gpu=name,driver_version,compute_cap"
    argv = ["nvidia-smi", query, "--format=csv,noheader"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    rows = (re.fullmatch(r"(.+), ([\d.]+), (\d+)\.(\d)", line) for line in done.stdout.splitlines())
    return tuple(Gpu(row[1], row[2], int(row[3] + row[4])) for row in rows if row)


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that the driver runs; nvidia-smi's heading is renamed now and then."""
    found = ctypes.c_int()
    try:
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(found)):
            return None
    except (OSError, AttributeError):
        return None
    return found.value // 1000, found.value % 1000 // 10


def cuda_error() -> int:
    """What cuInit answers: 0, or 804 where the CUDA libraries are newer than the driver allows."""
    try:
        return int(ctypes.CDLL("libcuda.so.1").cuInit(0))
    except (OSError, AttributeError):
        return 0


def runs(arch: int, archs: Sequence[int]) -> bool:
    """Machine code runs on its own compute capability's major, from its minor on."""
    return any(arch // 10 == a // 10 and arch % 10 >= a % 10 for a in archs)


def torch_here() -> str:
    """The version of torch that is installed now, without what it was built for."""
    try:
        return importlib.metadata.version("torch").partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "none"


def flash_attn(has: Mapping[str, Any]) -> str:
    """flash-attn and its kernels."""
    flash = has.get("flash_attn")
    if not flash:
        return "no flash-attn"
    words = f"{flash.get('package', 'flash-attn')} {flash['version']}"
    if not flash.get("archs"):
        return words
    dims, archs = (", ".join(map(str, flash[key])) for key in ("head_dims", "archs"))
    dtypes = " and ".join(flash["dtypes"])
    return f"{words} (head dimensions {dims} in {dtypes}, for sm_{archs.replace(', ', ', sm_')})"


def sentence(has: Mapping[str, Any], found: Sequence[Gpu]) -> str:
    """What is here."""
    gpu = f"{len(found)} x {found[0].name} (driver {found[0].driver})" if found else "no GPU"
    words = (gpu, f"CUDA {has['cuda']}", f"torch {torch_here()}", flash_attn(has))
    return f"This pod has {', '.join(words)} and Python {has['python']}."


def replaced(has: Mapping[str, Any]) -> list[str]:
    """A torch that came after the image."""
    here, made = torch_here(), has["torch"]
    if here == made:
        return []
    return [
        f"The image was made with torch {made} for CUDA {has['torch_cuda']}, which its other "
        f"packages fit, and now has {here}: install the former again, or what fits the latter."
    ]


def advice(
    has: Mapping[str, Any],
    found: Sequence[Gpu],
    cuda: tuple[int, int] | None,
    *,
    error: int,
    device: bool,
) -> list[str]:
    """What of the machine does not fit, each with what to do about it."""
    if not found:
        return ["Its GPU does not answer: restart the pod, or take another machine."] * device
    needed = tuple(map(int, has["cuda"].split(".")))[:1]
    if cuda and cuda[:1] < needed:
        return [
            f"Its driver {found[0].driver} runs CUDA up to {cuda[0]}.{cuda[1]}, and this image "
            f"needs driver {has['driver']} or newer: take a machine whose CUDA version is "
            f"{needed[0]}.0 or higher (a filter of both platforms), or an image for an older CUDA "
            f"({CHOOSE})."
        ]
    if error in (803, 804):  # the driver and the libraries do not match: cuda.h, cudaError_enum
        return [
            f"CUDA does not start with its driver {found[0].driver} (error {error}): take a "
            f"machine whose CUDA version is {'.'.join(has['cuda'].split('.')[:2])} or higher, or "
            f"an image for an older CUDA ({CHOOSE})."
        ]
    if error:
        return [f"CUDA does not start (error {error}): restart the pod, or take another machine."]
    said = []
    for arch in sorted({gpu.arch for gpu in found}):
        capability = f"compute capability {arch // 10}.{arch % 10}"
        if has.get("archs") and not runs(arch, has["archs"]):
            said.append(f"torch has no kernels for its {capability}: {CHOOSE}.")
        flash = has.get("flash_attn") or {}
        if flash.get("archs") and not runs(arch, flash["archs"]):
            said.append(
                f"flash-attn has no kernels for its {capability}; attention without it works "
                f'(attn_implementation="sdpa"): {CHOOSE}.'
            )
    return said


def main() -> int:
    """Say it."""
    try:
        has = json.loads(PROMISE.read_text(encoding="utf-8"))
        device = DEVICE.exists() or shutil.which("nvidia-smi") is not None
        found = gpus() if device else ()
        cuda = driver_cuda() if found else None
        error = cuda_error() if found else 0
        lines = [sentence(has, found), *replaced(has)]
        lines += advice(has, found, cuda, error=error, device=device)
    except (OSError, ValueError, KeyError, IndexError) as error:
        lines = [f"{PROMISE} cannot be read: {error!r}"]
    print("\n".join(f"imagegen: {line}" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
