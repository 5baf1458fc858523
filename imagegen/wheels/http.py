"""Wheels on a web server, each with a side file that tells its hash."""

from __future__ import annotations

import logging
from functools import partial
from io import BufferedRandom
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from imagegen.errors import UsageError, WheelError
from imagegen.net.address import is_here
from imagegen.net.http import Web
from imagegen.net.transfer import SentFile
from imagegen.wheels.download import STORE, fetched
from imagegen.wheels.entry import StoreEntry, checked, is_stored, read, read_back, side

log = logging.getLogger(__name__)

WRITTEN = frozenset({200, 201, 204})


class HttpStore:
    """Wheels below one address; putting needs a server that takes PUT, as WebDAV ones do."""

    def __init__(self, address: str, *, ca: str = "") -> None:
        """``address`` may hold ``user:password@``; what is shown never does.

        Raises:
            UsageError: it is not the address of a folder.
        """
        try:
            parts = urlsplit(address)
            fit = parts.hostname and parts.port != 0 and not (parts.query or parts.fragment)
        except ValueError:  # a port that is no number, a bracket that is not closed
            fit = False
        if not fit:
            raise UsageError(
                "a wheel store on a web server is https://host.example/folder, without ? and #",
                hint="a login is netrc's, or user:password@ before the host, quoted as in URLs",
            )
        if parts.scheme == "http" and not is_here(parts.hostname or ""):
            # The hash comes from the same place: without TLS anybody on the way picks the wheel.
            raise UsageError(
                "a wheel store on another machine needs https: what it serves goes into images"
            )
        host = parts.netloc.rpartition("@")[2]
        self.location = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
        auth = None
        if parts.username is not None:
            auth = (unquote(parts.username), unquote(parts.password or ""))
        self._web = Web(self.location, STORE, ca=ca, auth=auth)

    def find(self, name: str) -> StoreEntry | None:
        for url in self._urls(side(checked(name))):
            if (text := self._web.text(url)) is not None:
                return read(text, name, url)
        return None

    def fetch(self, entry: StoreEntry, folder: Path) -> Path:
        def pour(part: BufferedRandom) -> None:
            if not any(self._web.download(url, part, entry.size) for url in self._urls(entry.name)):
                raise WheelError(
                    f"{self.location} has {side(entry.name)}, but not the wheel itself"
                )

        return fetched(entry, folder, pour)

    def put(self, wheel: Path, *, replace: bool = False) -> StoreEntry:
        """As the store's; a reader may meet the new wheel and the old hash while it is replaced."""
        entry = StoreEntry.of(wheel)
        if not replace and is_stored(self.find(entry.name), entry, self.location):
            log.info(f"{entry.name} is in {self.location} already")
            return entry
        url, url_of_side = self._urls(entry.name)[0], self._urls(side(entry.name))[0]
        with self._web.ask("PUT", url, body=partial(SentFile, wheel), ok=WRITTEN):
            pass
        with self._web.ask("PUT", url_of_side, body=entry.described().encode, ok=WRITTEN):
            pass
        read_back(self.find(entry.name), entry, self.location)  # some answer 200 to everything
        log.info(f"{entry.name} was put into {self.location}")
        return entry

    def entries(self) -> tuple[StoreEntry, ...]:
        raise WheelError(
            f"{self.location} cannot be listed: a web server has no list of its files",
            hint="ask for a wheel by its name, or list a folder or a registry",
        )

    def _urls(self, file: str) -> tuple[str, ...]:
        """``+`` quoted, since some servers take it for a space; and as it is, for those that do
        not decode.
        """
        quoted = f"{self.location}/{quote(file, safe='')}"
        plain = f"{self.location}/{quote(file, safe='+')}"
        return (quoted,) if quoted == plain else (quoted, plain)
