"""What a store says about one wheel."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from imagegen.errors import WheelError

NAME = re.compile(r"\w[\w.+!-]*\.whl", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreEntry:
    """A wheel: its file name, the hash of its bytes in hexadecimal, and how many they are.

    Raises:
        ValueError: one of them cannot be true; the name, for one, becomes a path.
    """

    name: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is not the file name of a wheel")
        if not SHA256.fullmatch(self.sha256):
            raise ValueError(f"{self.sha256!r} is not a sha256")
        if type(self.size) is not int or self.size <= 0:
            raise ValueError(f"{self.size!r} is not a size")

    @classmethod
    def of(cls, wheel: Path) -> Self:
        """Describe a file.

        Raises:
            WheelError: it cannot be read, or is no wheel by its name.
        """
        try:
            with wheel.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                return cls(name=wheel.name, sha256=sha256, size=file.tell())
        except OSError as error:
            raise WheelError(f"{wheel}: {error.strerror}") from error
        except ValueError as error:
            raise WheelError(f"{wheel}: {error}") from error

    def is_in(self, file: Path) -> bool:
        """Whether ``file`` is there and holds this wheel."""
        if not file.is_file() or file.stat().st_size != self.size:
            return False
        with file.open("rb") as wheel:
            return hashlib.file_digest(wheel, "sha256").hexdigest() == self.sha256

    def described(self) -> str:
        """The text of the side file that stands beside the wheel in a folder or on a web server."""
        row = {"name": self.name, "sha256": self.sha256, "bytes": self.size}
        return json.dumps(row, indent=1) + "\n"


def side(name: str) -> str:
    """The name of a wheel's side file. It is written last: without it the wheel is not there."""
    return f"{name}.json"


def checked(name: str) -> str:
    """``name``, if it can be a wheel's.

    Raises:
        WheelError: it cannot.
    """
    if not NAME.fullmatch(name):
        raise WheelError(f"{name!r} is not the file name of a wheel")
    return name


def read(text: bytes, name: str, place: str) -> StoreEntry:
    """What the side file at ``place`` says about the wheel ``name``.

    Raises:
        WheelError: it says nothing that can be used, or is about another wheel.
    """
    hint = "put the wheel there again, replacing what is there"
    try:
        row = json.loads(text)
        entry = StoreEntry(name=row["name"], sha256=row["sha256"], size=row["bytes"])
    except (ValueError, KeyError, TypeError) as error:
        raise WheelError(
            f"{place} is not a description of a wheel: {type(error).__name__}: {error}", hint=hint
        ) from error
    if entry.name != name:
        raise WheelError(f"{place} is about another wheel, {entry.name}", hint=hint)
    return entry


def is_stored(stored: StoreEntry | None, entry: StoreEntry, location: str) -> bool:
    """Whether the store at ``location``, which has ``stored`` under that name, has this wheel.

    Raises:
        WheelError: it has other bytes; a name does not mean two things.
    """
    if stored is None or stored == entry:
        return stored is not None
    raise WheelError(
        f"{location} holds other bytes as {entry.name}: sha256 {stored.sha256} "
        f"({stored.size:,} bytes) there, {entry.sha256} ({entry.size:,} bytes) here",
        hint="a wheel's name promises one content: give this build a name of its own, or replace "
        "the other on purpose",
    )


def read_back(stored: StoreEntry | None, entry: StoreEntry, location: str) -> None:
    """Whatever a store answers to an upload: it has the wheel when it says so itself.

    Raises:
        WheelError: it has not, or has what another process put there at the same time.
    """
    if not is_stored(stored, entry, location):
        raise WheelError(f"{location} took {entry.name} and does not have it")
