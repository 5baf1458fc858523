"""One repository of a registry: its manifests, blobs, tags, and what refers to what.

The few calls of the OCI distribution specification (1.1) that are needed. The oras package was read
(0.2.43) and not taken: it reads a blob into memory to send it, sets no time-out anywhere, compares
no hash of what it fetches, and waits 131 s before it tells of a fault.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import requests

from imagegen.errors import Lost, RegistryError
from imagegen.net.address import is_here
from imagegen.net.http import Body, Web
from imagegen.net.http_errors import Kind
from imagegen.net.registry_login import Login

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPT = {"Accept": ", ".join((MANIFEST, INDEX, DOCKER, DOCKER_LIST))}
EMPTY = "application/vnd.oci.empty.v1+json"
NOTHING = b"{}"

CREATED = frozenset({201})
ATTEMPTS = 5
"""Times that a fallback tag is written, when others write it at the same time."""

FALLBACK = re.compile(r"sha256-[0-9a-f]{64}")
"""The tag that lists the referrers of a digest where a registry has no call for that."""


class Refused(RegistryError):
    """The registry refused the login, or asked for one."""


REGISTRY = Kind(
    name="the registry's repository",
    error=RegistryError,
    login="docker login keeps the login for it",
    read_only="take a repository that the login may write to",
    refused=Refused,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A manifest or an index as its registry serves it; the digest is of these bytes."""

    digest: str
    media_type: str
    body: bytes

    @property
    def row(self) -> dict[str, Any]:
        """The document."""
        return dict(json.loads(self.body))


@dataclass(frozen=True, kw_only=True, slots=True)
class Descriptor:
    """What a manifest says about a blob or another manifest; the size is in bytes."""

    digest: str
    size: int
    media_type: str
    artifact_type: str = ""
    annotations: Mapping[str, str] | None = None

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> Descriptor:
        """The value of a descriptor's JSON.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        return cls(
            digest=str(row["digest"]),
            size=int(row["size"]),
            media_type=str(row.get("mediaType", "")),
            artifact_type=str(row.get("artifactType", "")),
            annotations=row.get("annotations") or {},
        )

    @property
    def row(self) -> dict[str, object]:
        """As JSON values."""
        found: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        return found | ({"annotations": dict(self.annotations)} if self.annotations else {})


def digest_of(body: bytes) -> str:
    """The digest by which a registry knows these bytes."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


class Repository:
    """One repository; logins are those of ``docker login``. One thread at a time."""

    def __init__(
        self,
        name: str,
        *,
        kind: Kind = REGISTRY,
        location: str = "",
        ca: str = "",
    ) -> None:
        """``name`` is ``HOST[:PORT]/PATH``; plain HTTP is spoken to this machine only.

        ``location`` is how messages call it, where that is not its name.
        """
        host, _, path = name.partition("/")
        self.name, self.location = name, location or name
        if host == "docker.io" and "/" not in path:
            path = f"library/{path}"  # what Docker Hub calls its own images
        scheme = "http" if is_here(urlsplit(f"//{host}").hostname or "") else "https"
        served = f"registry-1.{host}" if host == "docker.io" else host  # the API of Docker Hub
        base = f"{scheme}://{served}/v2"
        self._url = f"{base}/{path}"
        login = Login(host, base, self.location, kind, ca=ca)
        self.web = Web(self.location, kind, ca=ca, auth=login, renew=login.renew)

    # --- manifests --------------------------------------------------------------------------------

    def manifest(self, ref: str) -> Manifest | None:
        """What is there under a tag or a digest; None where nothing is.

        Raises:
            RegistryError: the registry does not answer properly, or serves other bytes.
        """
        url = f"{self._url}/manifests/{ref}"
        answer, body = self.web.read(url, headers=ACCEPT, ok=frozenset({200, 404}))
        if answer.status_code == 404:
            return None
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        digest = digest_of(body)
        if ref.startswith("sha256:") and ref != digest:
            raise self.web.kind.error(f"{self.location} serves {digest} as {ref}")
        self.parsed(body)
        return Manifest(digest=digest, media_type=kind, body=body)

    def digest(self, tag: str) -> str | None:
        """The digest under a tag as the registry says it; None where there is none."""
        url = f"{self._url}/manifests/{tag}"
        with self.web.ask("HEAD", url, headers=ACCEPT, ok=frozenset({200, 404})) as answer:
            if answer.status_code == 404:
                return None
            said = str(answer.headers.get("Docker-Content-Digest", ""))
        if said:
            return said
        manifest = self.manifest(tag)  # the header is a SHOULD
        return manifest.digest if manifest else None

    def put(self, ref: str, body: bytes, media_type: str) -> requests.Response:
        """Have ``ref``, a tag or the digest, be this manifest; returns the answer, closed."""
        url, headers = f"{self._url}/manifests/{ref}", {"Content-Type": media_type}
        with self.web.ask("PUT", url, headers=headers, body=lambda: body, ok=CREATED) as answer:
            return answer

    def delete(self, digest: str) -> None:
        """Remove a manifest and every tag that points to it; one that is not there is no error.

        Raises:
            RegistryError: the registry does not do that, or not for this login.
        """
        url = f"{self._url}/manifests/{digest}"
        with self.web.ask("DELETE", url, ok=frozenset({202, 404, 405})) as answer:
            if answer.status_code == 405:
                raise self.web.kind.error(
                    f"{self.location} deletes nothing",
                    hint="a registry's own settings allow it; Docker Hub and GHCR delete on their "
                    "own pages only",
                )

    def tags(self) -> Iterator[str]:
        """Every tag. A repository that nothing was put into yet has none."""
        url = f"{self._url}/tags/list"
        while url:
            answer, body = self.web.read(url, ok=frozenset({200, 404}))
            found = {} if answer.status_code == 404 else self.parsed(body)
            more = answer.links.get("next", {}).get("url", "")
            yield from found.get("tags") or ()
            url = more and urljoin(url, more)

    # --- blobs ------------------------------------------------------------------------------------

    def blob_url(self, digest: str) -> str:
        """Where a blob is."""
        return f"{self._url}/blobs/{digest}"

    def has(self, digest: str) -> bool:
        """Whether a blob is there."""
        with self.web.ask("HEAD", self.blob_url(digest), ok=frozenset({200, 404})) as answer:
            return answer.status_code == 200

    def blob(self, digest: str) -> bytes:
        """A small blob, its hash compared.

        Raises:
            Lost: it is not there.
            RegistryError: it is long, or is another.
        """
        body = self.web.text(self.blob_url(digest))
        if body is None:
            raise Lost(f"{self.location} does not have the blob {digest}")
        if digest_of(body) != digest:
            raise self.web.kind.error(f"{self.location} serves other bytes as {digest}")
        return body

    def send(self, digest: str, body: Body) -> None:
        """Have a blob in the repository; its registry compares the hash."""
        if self.has(digest):
            return
        try:
            self._upload(digest, body)
        except Refused:
            raise
        except self.web.kind.error:
            # The answer to an upload may be lost, and a second one to its place is a mistake.
            if not self.has(digest):
                self._upload(digest, body)

    def _upload(self, digest: str, body: Body) -> None:
        url = f"{self._url}/blobs/uploads/"
        with self.web.ask("POST", url, ok=frozenset({202})) as answer:
            place = urljoin(url, answer.headers.get("Location", ""))
        place += ("&" if "?" in place else "?") + urlencode({"digest": digest})
        headers = {"Content-Type": "application/octet-stream"}
        with self.web.ask("PUT", place, headers=headers, body=body, ok=CREATED):
            pass

    # --- referrers --------------------------------------------------------------------------------

    def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        """What refers to a manifest, by the registry's own call or by the fallback tag."""
        listed = self._listed(digest)
        rows = self._fallback(digest) if listed is None else listed
        try:
            return tuple(map(Descriptor.parse, rows))
        except (KeyError, TypeError, ValueError) as error:
            raise self.web.kind.error(
                f"{self.location}: its referrers of {digest} cannot be read"
            ) from error

    def attach(
        self, subject: Descriptor, kind: str, body: bytes, annotations: Mapping[str, str]
    ) -> Descriptor:
        """Have a document of media type ``kind`` refer to ``subject``, which need not be there yet.

        Raises:
            RegistryError: it was refused, or others wrote the list of referrers all the time.
        """
        self.send(digest_of(NOTHING), lambda: NOTHING)
        self.send(digest_of(body), lambda: body)
        document = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": kind,
                "config": {"mediaType": EMPTY, "digest": digest_of(NOTHING), "size": len(NOTHING)},
                "layers": [{"mediaType": kind, "digest": digest_of(body), "size": len(body)}],
                "subject": subject.row,
                "annotations": dict(annotations),
            },
            sort_keys=True,
        ).encode()
        made = Descriptor(
            digest=digest_of(document),
            size=len(document),
            media_type=MANIFEST,
            artifact_type=kind,
            annotations=annotations,
        )
        self.put(made.digest, document, MANIFEST)
        # Some that say so by OCI-Subject do not list what refers to a manifest: they are asked.
        if self._listed(subject.digest) is None:
            self._list_in_fallback(subject.digest, made)
        return made

    def whole(self, referrer: Descriptor) -> bool:
        """Whether a referrer and all that it names is there."""
        manifest = self.manifest(referrer.digest)
        named = (manifest.row.get("config"), *manifest.row.get("layers", ())) if manifest else ()
        return manifest is not None and all(self.has(str(row["digest"])) for row in named if row)

    def attached(self, referrer: Descriptor) -> bytes:
        """The document that a referrer is about.

        Raises:
            Lost: it is not there.
            RegistryError: it has not one layer.
        """
        manifest = self.manifest(referrer.digest)
        if manifest is None:
            raise Lost(f"{self.location} does not have {referrer.digest}")
        try:
            (layer,) = manifest.row["layers"]
            digest = str(layer["digest"])
        except (KeyError, TypeError, ValueError) as error:
            raise self.web.kind.error(
                f"{self.location}: {referrer.digest} is not a single document"
            ) from error
        return self.blob(digest)

    def _listed(self, digest: str) -> list[Mapping[str, Any]] | None:
        """The registry's own list of what refers to a manifest; None from one that has no such
        call: it may say so with any of these statuses, or answer with something else.
        """
        url, rows = f"{self._url}/referrers/{digest}", list[Mapping[str, Any]]()
        while url:
            answer, body = self.web.read(url, ok=frozenset({200, 400, 404, 405, 406, 501}))
            try:
                row = json.loads(body) if answer.status_code == 200 else {}
                rows += row["manifests"] or []
            except (ValueError, KeyError, TypeError):
                return None
            more = answer.links.get("next", {}).get("url", "")
            url = more and urljoin(url, more)
        return rows

    def _fallback(self, digest: str) -> Sequence[Mapping[str, Any]]:
        manifest = self.manifest(digest.replace(":", "-"))
        if manifest is None or manifest.media_type != INDEX:
            return ()
        return manifest.row.get("manifests") or ()

    def _list_in_fallback(self, subject: str, made: Descriptor) -> None:
        """Add a row to the fallback tag. There is no conditional write: so it is read back."""
        for _ in range(ATTEMPTS):
            rows = [row for row in self._fallback(subject) if row.get("digest") != made.digest]
            index = {
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": sorted([*rows, made.row], key=lambda row: str(row["digest"])),
            }
            body = json.dumps(index, sort_keys=True).encode()
            self.put(subject.replace(":", "-"), body, INDEX)
            if any(row.get("digest") == made.digest for row in self._fallback(subject)):
                return
        raise self.web.kind.error(
            f"{self.location}: what was listed as attached to {subject} is not there",
            hint="run the command again; if it stays so, this registry cannot hold what is "
            "attached to an image",
        )

    def parsed(self, text: bytes) -> dict[str, Any]:
        """A JSON object that the registry answered.

        Raises:
            RegistryError: it is none.
        """
        try:
            row = json.loads(text)
        except ValueError as error:
            raise self.web.kind.error(
                f"{self.location} does not answer as a registry: no JSON"
            ) from error
        if not isinstance(row, dict):
            raise self.web.kind.error(
                f"{self.location} does not answer as a registry: no JSON object"
            )
        return row
