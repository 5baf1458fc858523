"""Wheels in an OCI repository, an artifact each.

The oras package was read (0.2.43) and not taken: it reads a blob into memory to send it, sets no
time-out anywhere, compares no hash of what it fetches, cannot resume, and waits 131 s before it
tells of a fault. These are the few calls of the distribution specification (1.1) that are needed.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from functools import partial
from io import BufferedRandom
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

from imagegen.errors import UsageError, WheelError
from imagegen.proc import Say
from imagegen.wheels.entry import Entry, checked, other_bytes
from imagegen.wheels.landing import land
from imagegen.wheels.login import Login
from imagegen.wheels.web import BadRequest, Body, Upload, Web, is_here, small

ARTIFACT = "application/vnd.imagegen.wheel.v1"
LAYER = "application/vnd.pypa.wheel"
"""Nobody registered a media type for wheels; this one is imagegen's own choice."""

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
NOTHING = b"{}"
EMPTY = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"

AGAIN = 1.0
"""Seconds until a refusal that may be another client's doing is asked about again."""

CREATED = frozenset({201})

_PART = (
    r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"  # of a repository's name, as the specification has it
)
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
        scheme = "http" if is_here(parts["host"]) else "https"
        served = f"registry-1.{host}" if host == "docker.io" else host  # the API of Docker Hub
        self._base = f"{scheme}://{served}/v2"
        self._repository = f"{self._base}/{parts['repository']}"
        login = Login(host, self._base, self.location, ca=ca)
        self._web = Web(self.location, ca=ca, auth=login, renew=login.renew)

    def find(self, name: str) -> Entry | None:
        at = tag(checked(name))
        row = self._at(at)
        entry = self._entry(at, row) if row is not None else None
        if entry and entry.name != name:
            raise WheelError(f"{self.location}:{at} is another wheel, {entry.name}")
        return entry

    def fetch(self, entry: Entry, folder: Path, say: Say) -> Path:
        url = f"{self._repository}/blobs/sha256:{entry.sha256}"

        def pour(part: BufferedRandom) -> None:
            if not self._web.download(url, part, entry.size, say):
                raise WheelError(f"{self.location} tells of {entry.name}, but does not have it")

        return land(entry, folder, say, pour)

    def put(self, wheel: Path, say: Say, *, replace: bool = False) -> Entry:
        entry = Entry.of(wheel)
        held = None if replace else self.find(entry.name)
        if held == entry:
            say(f"{entry.name} is in {self.location} already")
            return entry
        if held:
            raise other_bytes(held, entry, self.location)
        try:
            self._give(wheel, entry, say)
        except BadRequest as refusal:
            # Seen of CNCF Distribution 2.8, once in about eight times that two clients put the same
            # wheel at once. A guess: it reads what the other is just writing.
            say(f"{refusal}; once more")
            time.sleep(AGAIN)
            self._give(wheel, entry, say)
        say(f"{entry.name} was put into {self.location}")
        return entry

    def _give(self, wheel: Path, entry: Entry, say: Say) -> None:
        self._send(entry.sha256, partial(Upload, wheel, say))
        self._send(hashlib.sha256(NOTHING).hexdigest(), lambda: NOTHING)
        self._tell(entry)

    def entries(self) -> tuple[Entry, ...]:
        found: list[Entry] = []
        url = f"{self._repository}/tags/list"
        while url:
            # 404: no such repository, since nothing was put there yet
            with self._web.ask("GET", url, ok=frozenset({200, 404})) as answer:
                listed = {} if answer.status_code == 404 else self._parsed(small(answer, url))
                more = answer.links.get("next", {}).get("url", "")
            for at in filter(TAG.fullmatch, listed.get("tags") or ()):
                row = self._at(at)
                if row and row.get("artifactType") == ARTIFACT:
                    found.append(self._entry(at, row))
            url = more and urljoin(url, more)
        return tuple(sorted(found, key=lambda entry: entry.name))

    def _at(self, tag: str) -> dict[str, Any] | None:
        """The manifest at ``tag``; None where there is none."""
        text = self._web.text(f"{self._repository}/manifests/{tag}", {"Accept": MANIFEST})
        return None if text is None else self._parsed(text)

    def _entry(self, tag: str, row: dict[str, Any]) -> Entry:
        """What a manifest says.

        Raises:
            WheelError: it is not about a wheel.
        """
        try:
            (layer,) = row["layers"]
            return Entry(
                name=layer["annotations"][TITLE],
                sha256=layer["digest"].removeprefix("sha256:"),
                size=layer["size"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WheelError(f"{self.location}:{tag} is not an artifact of a wheel") from error

    def _parsed(self, text: bytes) -> dict[str, Any]:
        try:
            row = json.loads(text)
        except ValueError as error:
            raise WheelError(f"{self.location} does not answer as a registry: no JSON") from error
        if not isinstance(row, dict):
            raise WheelError(f"{self.location} does not answer as a registry: no JSON object")
        return row

    def _send(self, sha256: str, body: Body) -> None:
        """Have a blob in the repository; its registry compares the hash."""
        url, digest = f"{self._repository}/blobs", f"sha256:{sha256}"
        with self._web.ask("HEAD", f"{url}/{digest}", ok=frozenset({200, 404})) as answer:
            if answer.status_code == 200:
                return
        with self._web.ask("POST", f"{url}/uploads/", ok=frozenset({202})) as answer:
            place = urljoin(url, answer.headers.get("Location", ""))
        place += ("&" if "?" in place else "?") + urlencode({"digest": digest})
        headers = {"Content-Type": "application/octet-stream"}
        with self._web.ask("PUT", place, headers=headers, body=body, ok=CREATED):
            pass

    def _tell(self, entry: Entry) -> None:
        """Put the manifest, which is what makes the wheel be there, and read it back.

        Raises:
            WheelError: another process put other bytes at the same time, and was last.
        """
        url, body = f"{self._repository}/manifests/{tag(entry.name)}", _manifest(entry)
        headers = {"Content-Type": MANIFEST}
        with self._web.ask("PUT", url, headers=headers, body=lambda: body, ok=CREATED):
            pass
        held = self.find(entry.name)
        if held is None:
            raise WheelError(f"{self.location} took {entry.name} and does not have it")
        if held != entry:
            raise other_bytes(held, entry, self.location)


def _manifest(entry: Entry) -> bytes:
    """The same bytes for the same wheel, so that putting it twice is putting it once."""
    row = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": {
            "mediaType": EMPTY,
            "digest": f"sha256:{hashlib.sha256(NOTHING).hexdigest()}",
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
