"""`imagegen prune`: what the repositories of a project could lose, and its removal."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path

from imagegen.errors import RegistryError, UsageError
from imagegen.matrix.project import Project
from imagegen.net.registry import Repository
from imagegen.publish.prune import Old, PruneResult, plan, remove
from imagegen.publish.push import named

log = logging.getLogger(__name__)


LEDGER = "templates.json"
"""The ledger of templates, beside the matrix."""


def prune(
    project: Project,
    repositories: Sequence[str],
    *,
    ca: str = "",
    older: float,
    ledger: Path | None,
    apply: bool,
) -> PruneResult:
    """What could be deleted in the repositories, and what was.

    Raises:
        UsageError: a repository names no registry, or the ledger is not there.
        RegistryError: a registry does not answer.
    """
    names = repositories or (project.matrix.publish.repository,)
    for name in names:
        named(name)
    used = _used(project, ledger)
    found: list[Old] = []
    gone: list[Old] = []
    failed: dict[str, RegistryError] = {}
    for name in names:
        repository = Repository(name, ca=ca)
        mine = plan(repository, now=time.time(), older=older, used=used)
        found += mine
        if apply:
            went, why = remove(repository, mine)
            gone += went
            failed |= why
    return PruneResult(found=tuple(found), gone=tuple(gone), failed=failed)


def deleted(done: PruneResult) -> None:
    """All that was to go is gone.

    Raises:
        RegistryError: naming what could not be deleted.
    """
    if done.failed:
        first = next(iter(done.failed.values()))
        words = "\n".join(f"{name}: {error}" for name, error in done.failed.items())
        raise RegistryError(f"not deleted:\n{words}", hint=first.hint)


def _used(project: Project, ledger: Path | None) -> set[str]:
    """The digests that the ledger of templates names, whatever it says of them."""
    file = ledger or project.folder / LEDGER
    if file.is_file():
        return set(re.findall(r"sha256:[0-9a-f]{64}", file.read_text()))
    if ledger:
        raise UsageError(f"{ledger}: there is no such file")
    log.info(f"no ledger at {file}: no template is known to use any of these")
    return set()
