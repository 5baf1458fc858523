"""What a repository could lose: old images that nothing points to, and what is beside them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from imagegen.errors import RegistryError
from imagegen.oci.repository import FALLBACK, Descriptor, Repository
from imagegen.proc import Say
from imagegen.publish.finding import PROVENANCE, REPORT, SBOM, Seen, see

OWN = re.compile(r"(?P<target>.+)-(?P<digest>[0-9a-f]{12})")
"""The tag that never means anything else."""

SIGNATURE = re.compile(r"sha256-(?P<digest>[0-9a-f]{64})\.(?:sig|att|sbom)")
"""cosign's tags, where it does not use referrers."""

DAY = 86400.0


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


def plan(
    repository: Repository, *, now: float, older: float, used: Collection[str], say: Say
) -> tuple[Old, ...]:
    """Every image with a tag of its own, and whether it could go: older than ``older`` days, no
    other tag on it, not in ``used`` (digests that templates name), not signed.

    ``now`` is in seconds since 1970.

    Raises:
        RegistryError: the registry does not answer properly.
    """
    tags = sorted(repository.tags())
    say(f"{repository.name}: {len(tags)} tags")
    at = {tag: repository.digest(tag) or "" for tag in tags if not FALLBACK.fullmatch(tag)}
    signed = {f"sha256:{m['digest']}" for tag in tags if (m := SIGNATURE.fullmatch(tag))}
    found: list[Old] = []
    for tag, digest in at.items():
        match = OWN.fullmatch(tag)
        if not match or not digest.startswith(f"sha256:{match['digest']}"):
            continue
        seen = see(repository, tag)
        if seen is None or not seen.promise:  # gone meanwhile, or not imagegen's
            continue
        others = [name for name, there in at.items() if there == digest and name != tag]
        referrers = repository.referrers(digest)
        age = (now - _seconds(seen)) / DAY
        keeps = _keeps(digest, others, referrers, age, older, used, signed)
        found.append(
            Old(
                tag=tag,
                digest=digest,
                size=sum(layer.compressed for layer in seen.layers),
                age=age,
                keeps=keeps,
                attached=tuple(one.digest for one in referrers),
            )
        )
    return (*found, *_orphans(repository, tags))


def remove(repository: Repository, old: Sequence[Old], say: Say) -> tuple[Old, ...]:
    """Delete what could go, the image before what was attached to it; returns what is gone.

    A tag that came to point to one of them since the plan was made keeps it.

    Raises:
        RegistryError: the registry does not delete.
    """
    gone = []
    for one in old:
        if one.keeps:
            continue
        if any(
            repository.digest(tag) == one.digest
            for tag in repository.tags()
            if tag != one.tag and not FALLBACK.fullmatch(tag)
        ):
            say(f"{one.tag} stays: another tag points to it by now")
            continue
        repository.delete(one.digest)
        for digest in one.attached:
            repository.delete(digest)
        listed = repository.digest(one.digest.replace(":", "-"))
        if listed:
            repository.delete(listed)
        say(f"{one.tag} is gone")
        gone.append(one)
    return tuple(gone)


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


def _orphans(repository: Repository, tags: Sequence[str]) -> list[Old]:
    """Lists of what was attached to images that are gone: an interrupted run leaves them."""
    found = []
    for tag in filter(FALLBACK.fullmatch, tags):
        subject = tag.replace("-", ":", 1)
        if repository.manifest(subject) is not None:
            continue
        listed = repository.digest(tag)
        attached = tuple(one.digest for one in repository.referrers(subject))
        if listed:
            found.append(Old(tag=tag, digest=listed, size=0, age=0.0, keeps="", attached=attached))
    return found


def _seconds(seen: Seen) -> float:
    """When the image was made; its builder's clock is taken at its word.

    Raises:
        RegistryError: it does not say.
    """
    try:
        return datetime.fromisoformat(seen.created).timestamp()
    except ValueError as error:
        raise RegistryError(f"{seen.manifest.digest} does not say when it was made") from error
