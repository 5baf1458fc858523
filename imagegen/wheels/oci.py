"""Wheels in an OCI repository, an artifact each."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from functools import partial
from io import BufferedRandom
from pathlib import Path
from typing import Any

from imagegen.errors import UsageError, WheelError
from imagegen.net.registry import EMPTY, MANIFEST, NOTHING, Repository, digest_of
from imagegen.net.transfer import SentFile
from imagegen.wheels.download import STORE, BadRequest, fetched
from imagegen.wheels.entry import StoreEntry, checked, is_stored, read_back

log = logging.getLogger(__name__)

ARTIFACT = "application/vnd.imagegen.wheel.v1"
LAYER = "application/vnd.pypa.wheel"
"""Nobody registered a media type for wheels; this one is imagegen's own choice."""

TITLE = "org.opencontainers.image.title"

AGAIN = 1.0
"""Seconds until a refusal that may be another client's doing is asked about again."""

# A part of a repository's name, as the specification has it.
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
ADDRESS = re.compile(
    r"oci://(?P<host>[a-zA-Z0-9.-]+|\[[0-9a-f:]+\])(?P<port>:\d+)?"
    rf"/(?P<repository>{_PART}(?:/{_PART})*)/?"
)
TAG = re.compile(r"\w[\w.-]*-[0-9a-f]{16}", re.ASCII)
"""What ``tag`` makes. Other tags of the repository are not looked at."""


def tag(name: str) -> str:
    """A wheel's tag: its name as far as tags allow, and a hash of the name.

    A tag has no ``+`` and at most 128 characters.
    """
    readable = re.sub(r"[^\w.-]", "_", name.removesuffix(".whl"), flags=re.ASCII)[:111]
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


class OciStore:
    """Wheels in one repository of a registry; logins are those of ``docker login``."""

    def __init__(self, address: str, *, ca: str = "") -> None:
        """``address`` is ``oci://HOST/REPOSITORY``; plain HTTP is spoken to this machine only.

        Raises:
            UsageError: it is not such an address.
        """
        parts = ADDRESS.fullmatch(address)
        if parts is None:
            raise UsageError(
                "a wheel store in a registry is oci://HOST/REPOSITORY, without a tag",
                hint="docker login HOST keeps the login for it",
            )
        host = f"{parts['host']}{parts['port'] or ''}"
        self.location = f"oci://{host}/{parts['repository']}"
        self._in = Repository(
            f"{host}/{parts['repository']}", kind=STORE, location=self.location, ca=ca
        )

    def find(self, name: str) -> StoreEntry | None:
        at = tag(checked(name))
        row = self._at(at)
        entry = self._entry(at, row) if row is not None else None
        if entry and entry.name != name:
            raise WheelError(f"{self.location}:{at} is another wheel, {entry.name}")
        return entry

    def fetch(self, entry: StoreEntry, folder: Path) -> Path:
        url = self._in.blob_url(f"sha256:{entry.sha256}")

        def pour(part: BufferedRandom) -> None:
            if not self._in.web.download(url, part, entry.size):
                raise WheelError(f"{self.location} tells of {entry.name}, but does not have it")

        return fetched(entry, folder, pour)

    def put(self, wheel: Path, *, replace: bool = False) -> StoreEntry:
        entry = StoreEntry.of(wheel)
        if not replace and is_stored(self.find(entry.name), entry, self.location):
            log.info(f"{entry.name} is in {self.location} already")
            return entry
        try:
            self._send(wheel, entry)
        except BadRequest as refusal:
            # Seen of CNCF Distribution 2.8, once in about eight times that two clients put the same
            # wheel at once. A guess: it reads what the other is just writing.
            log.info(f"{refusal}; once more")
            time.sleep(AGAIN)
            self._send(wheel, entry)
        log.info(f"{entry.name} was put into {self.location}")
        return entry

    def _send(self, wheel: Path, entry: StoreEntry) -> None:
        self._in.send(f"sha256:{entry.sha256}", partial(SentFile, wheel))
        self._in.send(digest_of(NOTHING), lambda: NOTHING)
        # The manifest is what makes the wheel be there.
        self._in.put(tag(entry.name), _manifest(entry), MANIFEST)
        read_back(self.find(entry.name), entry, self.location)

    def entries(self) -> tuple[StoreEntry, ...]:
        found: list[StoreEntry] = []
        for at in filter(TAG.fullmatch, self._in.tags()):
            row = self._at(at)
            if row and row.get("artifactType") == ARTIFACT:
                found.append(self._entry(at, row))
        return tuple(sorted(found, key=lambda entry: entry.name))

    def _at(self, tag: str) -> dict[str, Any] | None:
        """The manifest at ``tag``; None where there is none."""
        manifest = self._in.manifest(tag)
        return manifest.row if manifest else None

    def _entry(self, tag: str, row: dict[str, Any]) -> StoreEntry:
        """What a manifest says.

        Raises:
            WheelError: it is not about a wheel.
        """
        try:
            (layer,) = row["layers"]
            return StoreEntry(
                name=layer["annotations"][TITLE],
                sha256=layer["digest"].removeprefix("sha256:"),
                size=layer["size"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WheelError(f"{self.location}:{tag} is not an artifact of a wheel") from error


def _manifest(entry: StoreEntry) -> bytes:
    """The same bytes for the same wheel, so that putting it twice is putting it once."""
    row = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": {
            "mediaType": EMPTY,
            "digest": digest_of(NOTHING),
            "size": len(NOTHING),
        },
        "layers": [
            {
                "mediaType": LAYER,
                "digest": f"sha256:{entry.sha256}",
                "size": entry.size,
                "annotations": {TITLE: entry.name},
            }
        ],
    }
    return json.dumps(row, sort_keys=True).encode()
