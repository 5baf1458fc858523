"""A look at a repository by plain HTTP, without a line of what pushed to it.

Every tag must name a whole image: its manifest, configuration and layers are fetched and hashed. A
report must stand beside it that passed on these very bytes. The fallback tags of the distribution
specification (1.1), which list what refers to an image, must name whole documents. No tag may be
gone or name an older image than before.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
from packaging.version import Version

REPORT = "application/vnd.imagegen.report.v1+json"
LEVELS = frozenset({"smoke", "runpod", "vast"})
FALLBACK = re.compile(r"sha256-([0-9a-f]{64})")
KINDS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)

Rank = tuple[tuple[Version, ...], int]
"""How new an image is: by what it says of itself, then by when it was made."""


SMALL = 100_000
"""Bytes of a blob that is kept for a second question; a larger one is only known to be whole."""


class Fault(Exception):
    """Something that must not be so; ``what`` is the digest or tag that it is about."""

    def __init__(self, words: str, what: str) -> None:
        super().__init__(words)
        self.what = what


class Unreported(Fault):
    """A whole image without a report beside it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What was found: the digest under each tag that is as it must be, and what is wrong."""

    tags: Mapping[str, str]
    early: tuple[str, ...]
    """Tags that never move and name a whole image whose report is not there yet: a report refers to
    its image, and goes after it."""
    violations: tuple[str, ...]
    count: int
    """Tags that were looked at."""


@dataclass
class Checker:
    """One repository of the registry at ``host``."""

    host: str
    name: str
    made: dict[str, int] = field(default_factory=dict)
    """Of images of one version, by digest: which was made when."""
    moving: frozenset[str] = frozenset()
    lost: set[str] = field(default_factory=set)
    """What the registry itself threw away, digests and tags. A tag that never moves may name it
    until the next push; a tag that was moved since may not, unless it is the tag that is lost."""

    def __post_init__(self) -> None:
        self._web = requests.Session()
        self._whole: dict[str, bytes] = {}
        self._ranks: dict[str, Rank] = {}
        self._at: dict[str, str] = {}

    def look(self, before: Mapping[str, str] | None = None) -> Look:
        """Read every tag; ``before`` is what an earlier look found."""
        self._whole.clear()
        self._at.clear()
        tags: dict[str, str] = {}
        wrong: dict[str, str] = {}
        early: list[str] = []
        listed = self._tags()
        for tag in listed:
            try:
                tags[tag] = self._tag(tag)
            except Unreported as fault:
                early += [] if tag in self.moving else [tag]
                wrong[tag] = str(fault) if tag in self.moving else ""
            except Fault as fault:
                stayed = tag in self._at and (before or {}).get(tag) == self._at[tag]
                spared = stayed or tag not in self.moving or fault.what == tag
                known = fault.what in self.lost and spared
                wrong[tag] = "" if known else str(fault)
        for tag, digest in (before or {}).items():
            if tag not in wrong and not FALLBACK.fullmatch(tag):
                wrong[tag] = self._backwards(digest, tags.get(tag))
        told = tuple(f"{tag}: {words}" for tag, words in wrong.items() if words)
        return Look(tags=tags, early=tuple(early), violations=told, count=len(listed))

    def _backwards(self, before: str, now: str | None) -> str:
        if now is None:
            return "it is gone"
        if self._ranks[now] < self._ranks[before]:
            return f"it was {before[:19]} and is {now[:19]}, which is older"
        return ""

    def _tags(self) -> list[str]:
        answer = self._get("tags/list?n=10000")
        if answer.status_code == 404:
            return []
        answer.raise_for_status()
        return sorted(answer.json().get("tags") or [])

    def _tag(self, tag: str) -> str:
        """Look at all that a tag names; returns its digest."""
        digest, row = self._manifest(tag)
        self._at[tag] = digest
        listed = [one["digest"] for one in row.get("manifests", [])]
        if FALLBACK.fullmatch(tag):
            for one in listed:
                self._document(one)
            return digest
        for image in listed or [digest]:
            self._image(image)
            self._tested(image)
        self._ranks[digest] = self._ranks[(listed or [digest])[0]]
        return digest

    def _manifest(self, ref: str) -> tuple[str, dict[str, Any]]:
        answer = self._get(f"manifests/{ref}")
        if answer.status_code != 200:
            raise Fault(f"its manifest {ref} is not there: HTTP {answer.status_code}", ref)
        said = answer.headers.get("Docker-Content-Digest", "")
        digest = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        if digest != said or (":" in ref and digest != ref):
            raise Fault(f"its manifest is {digest}, and the registry says {said} ({ref})", ref)
        return digest, answer.json()

    def _image(self, digest: str) -> None:
        """All bytes of an image, and how new it says it is."""
        _, row = self._manifest(digest)
        config = json.loads(self._blob(row["config"]))
        for layer in row["layers"]:
            self._blob(layer)
        labels = config.get("config", {}).get("Labels") or {}
        promise = json.loads(labels.get("imagegen.target", "{}"))
        words = [promise.get("torch"), promise.get("cuda"), promise.get("os", {}).get("version")]
        age = tuple(Version(word) for word in words if word)
        self._ranks[digest] = (age, self.made.get(digest, 0))

    def _blob(self, row: Mapping[str, Any]) -> bytes:
        """Fetch and hash a blob, once; a large one comes back empty the second time."""
        digest, size = row["digest"], row["size"]
        if digest in self._whole:
            return self._whole[digest]
        answer = self._get(f"blobs/{digest}")
        if answer.status_code != 200:
            raise Fault(f"the blob {digest} is not there: HTTP {answer.status_code}", digest)
        found, body = f"sha256:{hashlib.sha256(answer.content).hexdigest()}", answer.content
        if found != digest or len(body) != size:
            words = f"the blob {digest} of {size} bytes is {found} of {len(body)}"
            raise Fault(words, digest)
        self._whole[digest] = body if len(body) < SMALL else b""
        return body

    def _document(self, digest: str) -> bytes:
        """What a referrer brings: its configuration too must be there."""
        _, row = self._manifest(digest)
        self._blob(row["config"])
        return b"".join([self._blob(layer) for layer in row["layers"]])

    def _tested(self, image: str) -> None:
        """Find a report that passed on these very bytes."""
        fallback = image.replace(":", "-")
        answer = self._get(f"referrers/{image}")
        if answer.status_code == 404:
            answer = self._get(f"manifests/{fallback}")
        rows = answer.json().get("manifests", []) if answer.status_code == 200 else []
        why: Fault = Unreported(f"{image[:19]} has no report beside it", fallback)
        for row in rows:
            if row.get("artifactType") != REPORT:
                continue
            try:
                words = _failed(self._document(row["digest"]), image)
            except Fault as fault:
                why = fault
                continue
            if not words:
                return
            why = Fault(words, row["digest"])
        raise why

    def _get(self, path: str) -> requests.Response:
        """Asked anew each time, by nobody's cache."""
        url = f"http://{self.host}/v2/{self.name}/{path}"
        return self._web.get(url, headers={"Accept": ", ".join(KINDS)}, timeout=60)


def _failed(body: bytes, image: str) -> str:
    """Why a report is none that lets these bytes be published."""
    try:
        row = json.loads(body)
        about, checks = row["digest"], [(one["level"], one["status"]) for one in row["checks"]]
    except (ValueError, KeyError, TypeError):
        return f"the report of {image[:19]} cannot be read"
    if about != image:
        return f"the report of {image[:19]} is about {about[:19]}"
    passed = {level for level, status in checks if status == "pass"}
    if not passed >= LEVELS or any(status not in ("pass", "skip") for _, status in checks):
        return f"the report of {image[:19]} did not pass"
    return ""
