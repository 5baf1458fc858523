"""Tags that move: only to what is whole and tested, never back, and never unseen.

The distribution specification has no conditional write: between the last look at a tag and its
write lies one request in which somebody else's write is lost. So a tag is looked at right before
it is written and read back after; what others wrote meanwhile is judged like what was there first.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from packaging.version import InvalidVersion, Version

from imagegen.errors import Lost, RegistryError
from imagegen.model.target import Target
from imagegen.net.registry import Manifest, Repository
from imagegen.publish.remote import see

log = logging.getLogger(__name__)

Age = tuple[Version, Version, str, Version]
"""torch, CUDA, and the distribution with its release: what makes one image newer than another."""

ATTEMPTS = 4
"""Times that a tag is written or judged when others write it at the same time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """What became of one tag: ``there`` already, ``made``, ``moved``, or ``kept`` and ``why``."""

    tag: str
    how: Literal["there", "made", "moved", "kept"]
    why: str = ""


def age(target: Target) -> Age:
    """How new a target is."""
    return target.torch, target.cuda, target.os.distribution, target.os.version


def newer(one: Age, other: Age) -> bool:
    """Whether one is newer; releases of two distributions say nothing of one another."""
    if one[:2] != other[:2]:
        return one[:2] > other[:2]
    return one[2] == other[2] and one[3] > other[3]


def age_of(promise: Mapping[str, Any]) -> Age | None:
    """The same of what an image says of itself; None for an image that is not imagegen's."""
    try:
        os = promise["os"]
        release = Version(os["version"])
        return Version(promise["torch"]), Version(promise["cuda"]), str(os["id"]), release
    except (KeyError, TypeError, InvalidVersion):
        return None


def move(repository: Repository, tag: str, to: Manifest, mine: Age, *, move_back: bool) -> Moved:
    """Have ``tag`` point to a manifest that is in the repository.

    ``move_back`` allows an older version than it points to now, and an image that imagegen has not
    made.

    Raises:
        RegistryError: the registry failed, or others write the tag all the time.
    """
    name = f"{repository.name}:{tag}"
    wrote = False
    for _ in range(ATTEMPTS):
        before = repository.digest(tag)
        if before == to.digest:
            return Moved(tag=tag, how="moved" if wrote else "there")
        why = _why_stay(repository, tag, mine, move_back=move_back, wrote=wrote) if before else ""
        if why:
            log.info(f"{name} stays: {why}")
            return Moved(tag=tag, how="kept", why=f"{tag} stays: {why}")
        if repository.digest(tag) != before:
            log.info(f"{name} was moved by somebody else: looking again")
            continue
        repository.put(tag, to.body, to.media_type)
        if repository.digest(tag) == to.digest:
            log.info(f"{name} -> {to.digest[:19]}" + (f", before {before[:19]}" if before else ""))
            return Moved(tag=tag, how="moved" if before else "made")
        wrote = True
    raise RegistryError(
        f"{name} is written by others all the time; it was left as it is",
        hint="run the command again when they are done",
    )


def _why_stay(repository: Repository, tag: str, mine: Age, *, move_back: bool, wrote: bool) -> str:
    """Why what is under the tag is not to be replaced; empty where it may.

    ``wrote`` says that ours was there a moment ago: then somebody else's of the same age was put
    there last, and counts.
    """
    try:
        seen = see(repository, tag)
    except Lost:  # nobody can pull that
        return ""
    if seen is None:
        return ""
    theirs = age_of(seen.promise)
    if wrote and theirs == mine:
        return "somebody else moved it in the same moment"
    if move_back:
        return ""
    if theirs is None:
        return "it is an image that imagegen has not made (--move-back replaces it)"
    if newer(theirs, mine):
        torch, cuda, *_ = theirs
        return f"it is torch {torch} with CUDA {cuda}, which is newer (--move-back replaces it)"
    return ""
