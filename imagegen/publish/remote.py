"""What a registry tells of an image: its labels, its layers, and what is attached to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imagegen.errors import Lost, RegistryError
from imagegen.model.image import Layer
from imagegen.model.pushed import Pushed
from imagegen.model.report import Report
from imagegen.model.target import Target
from imagegen.net.registry import DOCKER_LIST, INDEX, Descriptor, Manifest, Repository
from imagegen.platforms import needed

REPORT = "application/vnd.imagegen.report.v1+json"
"""A report's media type; imagegen's own, as there is none for the outcome of tests."""

SBOM = "application/spdx+json"
"""SPDX in JSON, as registered with IANA."""

PROVENANCE = "application/vnd.in-toto+json"
"""An in-toto statement, as BuildKit's attestations have it."""

PLATFORM = {"os": "linux", "architecture": "amd64"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteImage:
    """An image as its registry serves it. ``top`` is what its tag points to: ``manifest`` itself,
    or an index that lists it.
    """

    top: Manifest
    manifest: Manifest
    labels: Mapping[str, str]
    layers: tuple[Layer, ...]
    created: str

    @property
    def descriptor(self) -> Descriptor:
        """The subject of what refers to it."""
        one = self.manifest
        return Descriptor(digest=one.digest, size=len(one.body), media_type=one.media_type)

    @property
    def promise(self) -> Mapping[str, Any]:
        """What the image says of itself; empty for one that imagegen has not made."""
        try:
            found = json.loads(self.labels.get("imagegen.target", ""))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def see(repository: Repository, ref: str) -> RemoteImage | None:
    """The image under a tag or a digest; None where there is none.

    Raises:
        Lost: the registry does not have its configuration any more.
        RegistryError: the registry does not answer properly, or has no amd64 image there.
    """
    top = repository.manifest(ref)
    if top is None:
        return None
    manifest = top
    if top.media_type in (INDEX, DOCKER_LIST):
        rows = top.row.get("manifests") or ()
        mine = [r for r in rows if PLATFORM.items() <= (r.get("platform") or {}).items()]
        inner = repository.manifest(str(mine[0]["digest"])) if mine else None
        if inner is None:
            raise RegistryError(f"{repository.location}:{ref} has no image for linux/amd64")
        manifest = inner
    try:
        row = manifest.row
        config = repository.parsed(repository.blob(row["config"]["digest"]))
        made = [one for one in config.get("history") or () if not one.get("empty_layer")]
        steps = [one.get("created_by", "") for one in made]
        if len(steps) != len(row["layers"]):
            steps = [""] * len(row["layers"])
        layers = tuple(
            Layer(digest=layer["digest"], compressed=int(layer["size"]), created_by=step)
            for layer, step in zip(row["layers"], steps, strict=True)
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise RegistryError(f"{repository.location}:{ref} is not an image: {error!r}") from error
    return RemoteImage(
        top=top,
        manifest=manifest,
        labels=(config.get("config") or {}).get("Labels") or {},
        layers=layers,
        created=str(config.get("created", "")),
    )


def passing(repository: Repository, digest: str) -> Report | None:
    """The report beside an image that lets it be published: the one of most, and then the newest;
    None where there is none.
    """
    return max(reports(repository, digest), key=worth, default=None)


def worth(one: Report) -> tuple[int, int, float]:
    """Which of several reports of one image says most."""
    return len(one.asked.levels), len(one.asked.required), one.at


def reports(repository: Repository, digest: str) -> list[Report]:
    """The reports beside an image that let it be published."""
    found = []
    for referrer in repository.referrers(digest):
        if referrer.artifact_type != REPORT:
            continue
        try:
            one = Report.parse(repository.attached(referrer))
        except (ValueError, Lost):  # of another version of imagegen, or gone
            continue
        if one.allows(digest, needed()):
            found.append(one)
    return found


def tags(target: Target, digest: str) -> tuple[str, str]:
    """The tag that never means anything else, and the target's tag, which moves."""
    return f"{target.tag}-{digest.removeprefix('sha256:')[:12]}", target.tag


def of(repository: Repository, target: Target, seen: RemoteImage, report: Report) -> Pushed:
    """The value of what was seen."""
    digest = seen.manifest.digest
    return Pushed(
        target=target,
        key=seen.labels.get("imagegen.key", ""),
        repository=repository.name,
        digest=digest,
        refs=tuple(f"{repository.name}:{tag}" for tag in tags(target, digest)),
        layers=seen.layers,
        report=report,
        needed=needed(),
        revision=seen.labels.get("org.opencontainers.image.revision", ""),
    )
