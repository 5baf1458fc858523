"""A folder of wheels, each with a side file that tells its hash."""

from __future__ import annotations

import logging
import shutil
from io import BufferedRandom
from pathlib import Path

from imagegen.errors import WheelError
from imagegen.net.transfer import restart
from imagegen.wheels.download import check, disk, fetched, locked
from imagegen.wheels.entry import StoreEntry, checked, is_stored, read, side

log = logging.getLogger(__name__)

LOCK = ".lock"
"""Held while something is put; it stays, empty."""

NEW = ".new"
"""How the hidden names of unfinished files end."""


class DirectoryStore:
    """Wheels in a folder, of this machine or of a file server that knows locks."""

    def __init__(self, folder: Path) -> None:
        self.location = str(folder)
        self._folder = folder

    def find(self, name: str) -> StoreEntry | None:
        self._must_exist()
        return self._read(checked(name))

    def fetch(self, entry: StoreEntry, folder: Path) -> Path:
        source = self._folder / entry.name

        def copy(part: BufferedRandom) -> None:
            restart(part)
            with source.open("rb") as file:
                shutil.copyfileobj(file, part, 1 << 20)

        return fetched(entry, folder, copy)

    def put(self, wheel: Path, *, replace: bool = False) -> StoreEntry:
        entry = StoreEntry.of(wheel)
        with disk(self._folder, entry.size):
            self._folder.mkdir(parents=True, exist_ok=True)
            with locked(self._folder / LOCK):
                if not replace:
                    is_stored(self._read(entry.name), entry, self.location)
                if entry.is_in(self._folder / entry.name) and self._tells(entry):
                    log.info(f"{entry.name} is in {self.location} already")
                else:
                    self._write(wheel, entry)
                    log.info(f"{entry.name} was put into {self.location}")
        return entry

    def entries(self) -> tuple[StoreEntry, ...]:
        self._must_exist()
        names = sorted(file.name.removesuffix(".json") for file in self._folder.glob("*.whl.json"))
        return tuple(entry for name in names if (entry := self._read(checked(name))))

    def _must_exist(self) -> None:
        if not self._folder.is_dir():
            raise WheelError(
                f"the wheel store {self.location} is not a folder",
                hint="the first wheel that is put there makes it; is the path right?",
            )

    def _read(self, name: str) -> StoreEntry | None:
        file = self._folder / side(name)
        with disk(self._folder, 0):
            return read(file.read_bytes(), name, str(file)) if file.exists() else None

    def _tells(self, entry: StoreEntry) -> bool:
        file = self._folder / side(entry.name)
        return file.is_file() and file.read_bytes() == entry.described().encode()

    def _write(self, wheel: Path, entry: StoreEntry) -> None:
        """Write both files under hidden names first, so that a full disk changes nothing."""
        for left in self._folder.glob(f".*{NEW}"):
            left.unlink()  # of a process that was killed: this one holds the lock
        target, told = self._folder / entry.name, self._folder / side(entry.name)
        new, new_told = (path.with_name(f".{path.name}{NEW}") for path in (target, told))
        try:
            with wheel.open("rb") as source, new.open("wb+") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                check(file, entry)
            new_told.write_text(entry.described())
            told.unlink(missing_ok=True)  # no moment at which it tells the hash of other bytes
            new.replace(target)
            new_told.replace(told)
        finally:
            new.unlink(missing_ok=True)
            new_told.unlink(missing_ok=True)
