"""What of a target is pinned: by a lock beside the matrix, by a digest, or by its version only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from packaging.version import Version

from imagegen.compat.facts.rows import FlashAttnPackageFact
from imagegen.errors import FactsError, StaleFiles
from imagegen.matrix.project import Project
from imagegen.matrix.resolve import Candidate, Resolution, lockable
from imagegen.model.target import Target, cuda_word, minor

TOOLKIT_EXTRAS = "nvcc,nvvm,crt,cudart,cccl,curand"
"""All of them must be named: ``nvcc`` alone brings the newest nvvm and crt, which do not fit; and
curand, whose header extensions include, torch 2.15 no longer asks for."""

ASKED = "requirements.in"
"""The file of a lock that holds what was asked for, so that a package added later is noticed."""

PARTS = ("tools", "nvcc", "cuda", "torch", "build", "apps")
"""The files of a lock, one for each install step of a Dockerfile."""

PACKAGE = "flash_attn_4"
"""The file of a lock for FlashAttention-4 and what it asks for: only where a target has it."""


def for_the_torch(target: Target) -> tuple[str, ...]:
    """torch and its partner, exactly."""
    return (f"torch=={target.torch}", f"torchvision=={target.torchvision}")


def asked(target: Target) -> tuple[str, ...]:
    """What a lock for the target is asked for."""
    return (*for_the_torch(target), *sorted(target.packages))


def lock_name(torch: Version, cuda: Version, python: Version) -> str:
    """The folder of a lock: ``torch2.11.0-cu130-py3.11``."""
    return f"torch{torch}-{cuda_word(cuda)}-py{minor(python)}"


def lock_of(candidate: Candidate) -> str:
    """The folder of its lock, which may not be there."""
    return lock_name(candidate.torch.version, candidate.cuda.version, candidate.python.version)


def package(candidate: Candidate) -> str:
    """What its lock is asked for in the part ``PACKAGE``; empty for nothing."""
    found = candidate.flash_attn
    if isinstance(found, FlashAttnPackageFact) and found.on_pypi and lockable(candidate):
        return found.requirement(candidate.index)
    return ""


def packages(resolution: Resolution) -> dict[str, str]:
    """The folder of each lock that has a part ``PACKAGE`` -> what that is asked for.

    Raises:
        FactsError: two targets of one lock ask for different releases.
    """
    found: dict[str, str] = {}
    for candidate in resolution.combinations:
        wanted, name = package(candidate), lock_of(candidate)
        if wanted and found.setdefault(name, wanted) != wanted:
            raise FactsError(f"{name}: one lock holds {wanted} or {found[name]}")
    return found


def unlocked(candidate: Candidate, project: Project) -> tuple[str, ...]:
    """What of the target is named by version or tag only: base, torch, flash_attn, or nothing."""
    base, own = candidate.base or candidate.os, (project.locks / lock_of(candidate)).is_dir()
    by_version = {
        "base": not base.digest,
        "torch": not own,
        "flash_attn": flash_attn_from(candidate, own=own) in ("pypi", "index"),
    }
    return tuple(what for what, is_so in by_version.items() if is_so)


def flash_attn_from(
    candidate: Candidate, *, own: bool
) -> Literal["source", "lock", "pypi", "index", "nowhere"]:
    """Where flash-attn comes from: its source for generation 2; for the others the lock, PyPI by
    version, or PyTorch's own index. ``own`` is whether the target has a lock of its own.
    """
    if not isinstance(candidate.flash_attn, FlashAttnPackageFact):
        return "source" if candidate.flash_attn else "nowhere"
    if not candidate.flash_attn.on_pypi:
        return "index"
    return "lock" if own else "pypi"


def why_unlocked(candidate: Candidate, what: str) -> str:
    """Why ``what``, one of those that ``unlocked`` names, is not pinned."""
    if what == "base":
        return "no digest of it is named by two public files, and no registry was asked"
    if what == "flash_attn" and isinstance(candidate.flash_attn, FlashAttnPackageFact):
        name = f"{candidate.flash_attn.name} {candidate.flash_attn.version}"
        if not candidate.flash_attn.on_pypi:
            return f"{name} is on PyTorch's own index, and not on PyPI"
        return f"{name} is locked together with torch only"
    if lockable(candidate) or candidate.torch.assumed:
        return "there is no lock of it here; imagegen lock makes one of what is on PyPI"
    torch = f"torch {candidate.torch.version} for CUDA {candidate.index}"
    return f"{torch} is on PyTorch's own index, and not on PyPI"


def locked(locks: Path, own: str, tools: str, flash_attn: str) -> dict[str, tuple[str, str]]:
    """Install step -> its lock file and that file's sha256; the target's own lock where it is.

    Raises:
        StaleFiles: the lock has no part for FlashAttention-4.
    """
    steps = [part for part in PARTS if own or part in ("tools", "build", "apps")]
    if flash_attn != "source":
        steps.remove("build")
    if flash_attn == "lock":
        steps.append(PACKAGE)
    files = {part: locks / (own or tools) / f"{part}.txt" for part in steps}
    if flash_attn == "lock" and not files[PACKAGE].is_file():
        raise StaleFiles(f"{files[PACKAGE]}: missing", hint="imagegen lock")
    return {part: (f"locks/{own or tools}/{part}.txt", _sha256(f)) for part, f in files.items()}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def tools_lock(target: Target, project: Project) -> str:
    """The lock of the target, or else of the newest torch for the same Python.

    Raises:
        FactsError: there is none. StaleFiles: it was made for other packages.
    """
    every = project.resolution.combinations
    same = [candidate for candidate in every if candidate.python.version == target.python]
    same.sort(key=lambda one: (one.torch.version == target.torch, one.torch.version), reverse=True)
    again = f"imagegen lock --matrix {project.folder / 'matrix.toml'} '*py{minor(target.python)}*'"
    for candidate in same:
        name = lock_of(candidate)
        if (file := project.locks / name / ASKED).is_file():
            missing = set(target.packages) ^ set(file.read_text().split("\n")[2:-1])
            if missing:
                raise StaleFiles(
                    f"{file} and the matrix differ in {', '.join(sorted(missing))}", hint=again
                )
            return name
    raise FactsError(
        f"{target.id}: no lock for Python {minor(target.python)} in {project.locks}; one torch "
        "of that Python must be on PyPI (--excluded shows which are left out)",
        hint=again,
    )
