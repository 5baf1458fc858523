"""The templates that were made, in one file beside the matrix: which of them is whose, and where
its link leads. It holds no secret and is meant to be committed.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from imagegen.errors import UsageError
from imagegen.util.files import replaced

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One template on one platform.

    ``content`` is the hash of what was sent, empty while a template is half-made, or where nobody
    knows; ``hash_id`` is vast.ai's own, by which its links call it. ``superseded`` is the day on
    which a newer one took its place, ``date`` the day on which it was made. Sizes in bytes.
    """

    platform: str
    target: str
    name: str
    id: str
    content: str
    image: str
    compressed: int
    unpacked: int
    link: str
    date: str
    hash_id: str = ""
    superseded: str = ""


class Ledger:
    """The file's entries; every change of them is on the disk when the call returns."""

    def __init__(self, path: Path) -> None:
        """Read the file, which need not be there.

        Raises:
            UsageError: it is not a ledger, or its folder is not there.
        """
        self.path = path
        self.entries: tuple[Entry, ...] = ()
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))["templates"]
            self.entries = tuple(_entry(row) for row in rows)
        except (FileNotFoundError, NotADirectoryError):
            _folder(path)
        except OSError as error:
            raise UsageError(
                f"{path}: the ledger of templates cannot be read: {error.strerror}",
                hint="--ledger names the file, such as dockerfiles/templates.json",
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path} is not a ledger of templates: {error}",
                hint="put back the one that was committed last: it knows which templates are yours",
            ) from error

    def of(self, platform: str, name: str) -> tuple[Entry, ...]:
        """The templates of that name, those that were superseded too."""
        return tuple(e for e in self.entries if (e.platform, e.name) == (platform, name))

    def current(self, platform: str, name: str) -> Entry | None:
        """The template of that name that was superseded by none."""
        return next((e for e in self.of(platform, name) if not e.superseded), None)

    def put(self, entry: Entry) -> None:
        """Add it, or let it take the place of what was known of that id."""
        self._write((*self._others(entry), entry))

    def only(self, entry: Entry) -> None:
        """Add it as the one of its name: whatever else had the name on that platform is gone."""
        name = (entry.platform, entry.name)
        rest = (e for e in self._others(entry) if (e.platform, e.name) != name)
        self._write((*rest, entry))

    def supersede(self, entry: Entry, day: str) -> None:
        """Add it as the one in use: every other of its name is superseded, and stays."""
        rest = (
            replace(e, superseded=e.superseded or day)
            if (e.platform, e.name) == (entry.platform, entry.name)
            else e
            for e in self._others(entry)
        )
        self._write((*rest, replace(entry, superseded="")))

    def drop(self, platform: str, id_: str) -> None:
        """Forget it."""
        self._write(tuple(e for e in self.entries if (e.platform, e.id) != (platform, id_)))

    def _others(self, entry: Entry) -> tuple[Entry, ...]:
        ours = (entry.platform, entry.id)
        return tuple(e for e in self.entries if (e.platform, e.id) != ours)

    def _write(self, entries: tuple[Entry, ...]) -> None:
        order = sorted(entries, key=lambda e: (e.platform, e.name, e.date, e.id))
        if tuple(order) == self.entries:
            return
        text = json.dumps({"templates": [asdict(e) for e in order]}, indent=2, sort_keys=True)
        with replaced(self.path) as new:
            new.write_text(text + "\n", encoding="utf-8")
        self.entries = tuple(order)


@contextmanager
def locked(path: Path) -> Iterator[Ledger]:
    """The ledger, for one process at a time: of two the second finds what the first made.

    Raises:
        UsageError: its folder is not there or cannot be written, or the file is not a ledger.
    """
    folder = _folder(path)
    if not os.access(folder, os.W_OK):
        raise UsageError(
            f"{folder} cannot be written: the ledger of templates belongs there",
            hint="--ledger names another file",
        )
    # The folder is locked, not the file, which is replaced at every change.
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info(f"another process is at the templates of {path.name}: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield Ledger(path)
    finally:
        os.close(handle)


def _folder(path: Path) -> Path:
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is not a folder: the ledger of templates belongs there",
            hint="make it, or let --ledger name another file",
        )
    return folder


def _entry(row: object) -> Entry:
    if not isinstance(row, dict):
        raise TypeError(f"{row!r} is not a template")
    kinds = {field.name: int if field.type == "int" else str for field in fields(Entry)}
    for name, value in row.items():
        if name not in kinds:
            raise ValueError(f"nobody knows what {name!r} is")
        if type(value) is not kinds[name]:
            raise ValueError(f"{name} is {value!r}")
    return Entry(**row)
