"""The files of a project: rendered Dockerfiles and locks, written or compared."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imagegen.errors import StaleFiles
from imagegen.matrix import resolve
from imagegen.matrix.project import Project
from imagegen.net import settings
from imagegen.plan import dockerfile, lock, pins, recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """``files`` differed from the disk; ``strays`` are folders that have no target any more."""

    targets: int
    files: tuple[Path, ...]
    strays: tuple[Path, ...]


def render_files(project: Project, select: Sequence[str], *, check: bool) -> Rendered:
    """Write the files of the selected targets, or only compare.

    Raises:
        StaleFiles: with ``check``, when a file differs or a folder has no target any more.
    """
    chosen = project.resolution.select(select)
    rendered: dict[str, str] = {}
    for combination in chosen:
        rendered |= dockerfile.files(recipe.recipe(combination, project))
    folder = project.folder
    strays = dockerfile.strays(folder, (t.id for t in project.resolution.targets))
    changed = dockerfile.drift(folder, rendered) if check else dockerfile.write(folder, rendered)
    if check and (changed or strays):
        lines = [f"  {path} differs" for path in changed]
        lines += [f"  {path} has no target in the matrix" for path in strays]
        hints = ["imagegen render"] * bool(changed) + [f"rm -r {path}" for path in strays]
        raise StaleFiles("\n".join(["not what the matrix says:", *lines]), hint="; ".join(hints))
    return Rendered(targets=len(chosen), files=tuple(changed), strays=tuple(strays))


def lock_files(
    project: Project, select: Sequence[str], network: settings.Network
) -> tuple[Path, ...]:
    """Write the locks of the selected targets, one for each torch, CUDA and Python."""
    folders: dict[Path, resolve.Candidate] = {}
    packages = pins.packages(
        project.resolution
    )  # of every target: what is not selected stays locked
    for combination in project.resolution.select(select):
        name = pins.lock_of(combination)
        if resolve.lockable(combination):
            folders.setdefault(project.locks / name, combination)
        else:
            log.info(f"{name}: not on PyPI, so not locked here")
    for folder, combination in folders.items():
        target = combination.target(project.resolution.packages)
        build = combination.torch.build_for(combination.index)
        toolkit = build.toolkit if build else None
        lock.lock(target, toolkit, folder, network, packages.get(folder.name, ""))
    return tuple(folders)


def check_locks(project: Project, select: Sequence[str]) -> tuple[Path, ...]:
    """The locks that the selected targets use, each found whole and made for what is asked now.

    Raises:
        StaleFiles: with every fault of every lock.
    """
    asked: dict[Path, tuple[str, ...]] = {}
    for one in project.resolution.select(select):
        if resolve.lockable(one):
            folder = project.locks / pins.lock_of(one)
            asked[folder] = pins.asked(one.target(project.resolution.packages))
    packages = pins.packages(project.resolution)
    faults = [
        fault
        for folder, rows in asked.items()
        for fault in lock.faults(folder, rows, packages.get(folder.name, ""))
    ]
    if faults:
        raise StaleFiles("\n".join(faults), hint="imagegen lock")
    return tuple(asked)
