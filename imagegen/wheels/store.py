"""Where wheels are kept: a folder, a web server, or a repository of a registry."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from imagegen.errors import UsageError
from imagegen.wheels.directory import DirectoryStore
from imagegen.wheels.download import disk
from imagegen.wheels.entry import StoreEntry
from imagegen.wheels.http import HttpStore
from imagegen.wheels.oci import OciStore


class Store(Protocol):
    """A place that holds wheels by their file names, each name with one content.

    Every method raises WheelError for what goes wrong.
    """

    location: str
    """How people call it; a login that was in its address is not in here."""

    def find(self, name: str) -> StoreEntry | None:
        """What the store holds as ``name``; None only where the store itself says nothing."""

    def fetch(self, entry: StoreEntry, folder: Path) -> Path:
        """Have the wheel in ``folder``, its size and hash compared; what is there is used again."""

    def put(self, wheel: Path, *, replace: bool = False) -> StoreEntry:
        """Have the store hold a file. The same bytes are not sent twice.

        Other bytes under the same name are an error, unless ``replace`` says to overwrite them, or
        a description that cannot be read.
        """

    def entries(self) -> tuple[StoreEntry, ...]:
        """All wheels of the store, by name; a web server cannot tell."""


def open_store(location: str, *, ca: str = "", make: bool = False) -> Store:
    """The store at ``location``; nothing is asked of it yet.

    ``make`` is for who is going to put something there: a folder that is not there is made.
    ``ca`` is a CA bundle for servers; without it, REQUESTS_CA_BUNDLE and SSL_CERT_FILE count.

    Raises:
        UsageError: there is no such kind of place, or its address cannot be right.
    """
    scheme = location.partition("://")[0].lower() if "://" in location else ""
    if scheme in ("http", "https"):
        return HttpStore(location, ca=ca)
    if scheme == "oci":
        return OciStore(location, ca=ca)
    if scheme == "file":
        parts = urlsplit(location)
        if parts.netloc in ("", "localhost") and parts.path.startswith("/"):
            return _folder(Path(unquote(parts.path)), make=make)
    elif not scheme and (
        location.startswith(("/", "./", "../", "~/")) or (location and Path(location).is_dir())
    ):
        return _folder(Path(location).expanduser().absolute(), make=make)
    shown = location.rpartition("@")[2]
    raise UsageError(
        f"{shown!r} is not a place for wheels",
        hint="/folder, ./folder, https://host.example/folder or oci://host.example/repository",
    )


def _folder(path: Path, *, make: bool) -> DirectoryStore:
    if make:
        with disk(path, 0):
            path.mkdir(parents=True, exist_ok=True)
    return DirectoryStore(path)
