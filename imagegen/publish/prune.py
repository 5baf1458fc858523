"""What a repository could lose: old images that nothing points to, and what is beside them."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from imagegen.errors import RegistryError
from imagegen.net.registry import DOCKER_LIST, FALLBACK, INDEX, Descriptor, Repository
from imagegen.publish.remote import PROVENANCE, REPORT, SBOM, see

log = logging.getLogger(__name__)

OWN = re.compile(r"(?P<target>.+)-(?P<digest>[0-9a-f]{12})")
"""The tag that never means anything else."""

SIGNATURE = re.compile(r"sha256-(?P<digest>[0-9a-f]{64})\.(?:sig|att|sbom)")
"""cosign's tags, where it does not use referrers."""

DAY = 86400.0
CREATED = "org.opencontainers.image.created"


@dataclass(frozen=True, kw_only=True, slots=True)
class Old:
    """An image, or what was attached to one that is gone: ``digest`` is that of its manifest.

    ``size`` is the sum of its layers in bytes, of which others may share some; ``age`` in days.
    ``keeps`` says why it has to stay; empty for what could go.
    """

    tag: str
    digest: str
    size: int
    age: float
    keeps: str
    attached: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneResult:
    """What could go and what not, what went, and what could not be deleted, by name."""

    found: tuple[Old, ...]
    gone: tuple[Old, ...]
    failed: Mapping[str, RegistryError]


def plan(
    repository: Repository,
    *,
    now: float,
    older: float,
    used: Collection[str],
) -> tuple[Old, ...]:
    """Every image with a tag of its own, and whether it could go: older than ``older`` days, no
    other tag on it, not in ``used`` (digests that templates name), not signed.

    ``now`` is in seconds since 1970.

    Raises:
        RegistryError: the registry does not answer properly.
    """
    tags = sorted(repository.tags())
    log.info(f"{repository.name}: {len(tags)} tags")
    at = _pointed(repository, tags)
    signed = {f"sha256:{m['digest']}" for tag in tags if (m := SIGNATURE.fullmatch(tag))}
    found: list[Old] = []
    for tag, digests in at.items():
        digest, match = digests[0] if digests else "", OWN.fullmatch(tag)
        if not match or not digest.startswith(f"sha256:{match['digest']}"):
            continue
        others = [name for name, pointed in at.items() if digest in pointed and name != tag]
        try:
            one = _judged(repository, tag, digest, others, now, older, used, signed)
        except RegistryError as error:  # one that is broken does not keep the others
            why = f"cannot be read: {error}"
            one = Old(tag=tag, digest=digest, size=0, age=0.0, keeps=why)
        found += [one] if one else []
    return (*found, *_orphans(repository, tags, used, signed))


def remove(
    repository: Repository,
    old: Sequence[Old],
) -> tuple[tuple[Old, ...], dict[str, RegistryError]]:
    """Delete what could go, the image before what was attached to it; returns what is gone, and
    why others could not be deleted, by tag.

    A tag that came to point to one of them since the plan was made keeps it.
    """
    gone: list[Old] = []
    failed: dict[str, RegistryError] = {}
    for one in old:
        if one.keeps:
            continue
        try:
            if _removed(repository, one):
                gone.append(one)
        except RegistryError as error:
            failed[f"{repository.name}:{one.tag}"] = error
            log.info(f"{one.tag} stays: {error}")
    return tuple(gone), failed


def _removed(repository: Repository, one: Old) -> bool:
    """Delete one, after a last look."""
    if FALLBACK.fullmatch(one.tag):
        if repository.manifest(one.tag.replace("-", ":", 1)) is not None:
            log.info(f"{one.tag} stays: its image is there")
            return False
    elif other := next(
        (
            tag
            for tag, digests in _pointed(repository, list(repository.tags())).items()
            if one.digest in digests and tag != one.tag
        ),
        "",
    ):
        log.info(f"{one.tag} stays: {other} points to it by now")
        return False
    repository.delete(one.digest)
    try:
        for digest in one.attached:
            repository.delete(digest)
        if listed := repository.digest(one.digest.replace(":", "-")):
            repository.delete(listed)
    except RegistryError as error:
        log.info(f"{one.tag} is deleted, but not all that was attached to it: {error}")
    else:
        log.info(f"{one.tag} is deleted")
    return True


def _pointed(repository: Repository, tags: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The digest that each tag points to, then those that it lists if it is an index."""
    found = {}
    for tag in tags:
        if FALLBACK.fullmatch(tag):
            continue
        if OWN.fullmatch(tag):
            found[tag] = tuple(filter(None, [repository.digest(tag)]))
        elif manifest := repository.manifest(tag):
            index = manifest.media_type in (INDEX, DOCKER_LIST)
            rows = manifest.row.get("manifests") or () if index else ()
            found[tag] = (manifest.digest, *(str(row.get("digest")) for row in rows))
    return found


def _judged(
    repository: Repository,
    tag: str,
    digest: str,
    others: Sequence[str],
    now: float,
    older: float,
    used: Collection[str],
    signed: Collection[str],
) -> Old | None:
    """An image with a tag of its own; None for one that is not imagegen's, or gone meanwhile.

    Raises:
        RegistryError: it cannot be read.
    """
    seen = see(repository, tag)
    if seen is None or not seen.promise:
        return None
    referrers = repository.referrers(digest)
    # It may have been made long before it was tested and pushed: the youngest date counts.
    dates = [(one.annotations or {}).get(CREATED, "") for one in referrers]
    age = (now - max(map(_seconds, [seen.created, *filter(None, dates)]))) / DAY
    return Old(
        tag=tag,
        digest=digest,
        size=sum(layer.compressed for layer in seen.layers),
        age=age,
        keeps=_keeps(digest, others, referrers, age, older, used, signed),
        attached=tuple(one.digest for one in referrers),
    )


def _keeps(
    digest: str,
    others: Sequence[str],
    referrers: Sequence[Descriptor],
    age: float,
    older: float,
    used: Collection[str],
    signed: Collection[str],
) -> str:
    foreign = {one.artifact_type for one in referrers} - {REPORT, SBOM, PROVENANCE}
    if others:
        return f"{', '.join(others)} points to it"
    if digest in used:
        return "a template names it"
    if digest in signed or foreign:
        return f"signed, or else attached to: {', '.join(sorted(foreign)) or 'by its tag'}"
    if age < older:
        return f"{max(age, 0):.0f} days old"
    return ""


def _orphans(
    repository: Repository, tags: Sequence[str], used: Collection[str], signed: Collection[str]
) -> list[Old]:
    """Lists of what was attached to images that are gone: an interrupted run leaves them."""
    found = []
    for tag in filter(FALLBACK.fullmatch, tags):
        subject = tag.replace("-", ":", 1)
        if repository.manifest(subject) is not None or not (listed := repository.digest(tag)):
            continue
        referrers = repository.referrers(subject)
        keeps = _keeps(subject, (), referrers, 0.0, 0.0, used, signed)
        attached = tuple(one.digest for one in referrers)
        found.append(Old(tag=tag, digest=listed, size=0, age=0.0, keeps=keeps, attached=attached))
    return found


def _seconds(date: str) -> float:
    """A date as seconds since 1970; its writer's clock is taken at its word.

    Raises:
        RegistryError: it is none.
    """
    try:
        return datetime.fromisoformat(date).timestamp()
    except ValueError as error:
        raise RegistryError(f"{date!r} is not a date") from error
