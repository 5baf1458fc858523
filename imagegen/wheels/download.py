"""Files that come whole or not at all, whoever else writes the same and whatever breaks off."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path

from imagegen.errors import WheelError
from imagegen.net.http_errors import Kind
from imagegen.net.transfer import restart
from imagegen.wheels.entry import StoreEntry

log = logging.getLogger(__name__)

Fill = Callable[[BufferedRandom], None]
"""Completes a file that may hold a beginning already; it is open for appending."""


def fetched(entry: StoreEntry, folder: Path, fill: Fill) -> Path:
    """Have ``entry`` in ``folder``, of which ``fill`` gets the bytes; checked by size and hash.

    The bytes are gathered in a hidden ``.part`` file, which only an interrupted run leaves behind:
    the next one for the same bytes takes it up. Runs for the same bytes wait for one another.

    Raises:
        WheelError: other bytes came, or the folder is full or cannot be written.
    """
    target = folder / entry.name
    with disk(folder, entry.size):
        if entry.is_in(target):
            log.info(f"{entry.name} is in {folder} already")
            return target
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{entry.name}.{entry.sha256[:16]}.part"
        with locked(part) as file, _removed_on_failure(part, file):
            if not entry.is_in(target):  # the one that was waited for got it
                _filled(file, entry, fill)
                part.replace(target)
    return target


def check(file: BufferedRandom, entry: StoreEntry) -> None:
    """Compare all of an open file with what it should be.

    Raises:
        WheelError: it is something else.
    """
    file.flush()
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()
    if (size := file.tell()) != entry.size or found != entry.sha256:
        raise WheelError(
            f"{entry.name} is not what it should be: sha256 {entry.sha256} ({entry.size:,} bytes) "
            f"was promised, {found} ({size:,} bytes) came",
            hint="nothing of it was kept; the store, or something on the way, changes it",
        )


@contextmanager
def locked(path: Path) -> Iterator[BufferedRandom]:
    """The file at ``path``, open for appending, for one process at a time."""
    while True:
        with path.open("ab+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info(f"another process is at {path.name}: waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is(path, file):  # else it was renamed or removed by the one that was waited for
                yield file
                return


@contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """Word what goes wrong with files while ``size`` bytes are written to ``folder``.

    Raises:
        WheelError: the folder is full, with the bytes needed and free; or cannot be used.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = next(place for place in (folder, *folder.parents) if place.exists())
            free = shutil.disk_usage(place).free
            raise WheelError(
                f"{folder} is full: {size:,} bytes are needed, {free:,} are free",
                hint="nothing half-written is left there; make room and run the command again",
            ) from error
        raise WheelError(f"{error.filename or folder}: {error.strerror or error}") from error


@contextmanager
def _removed_on_failure(path: Path, file: BufferedRandom) -> Iterator[None]:
    """Remove the file unless it was renamed, or the run interrupted."""
    try:
        yield
    except Exception:
        _remove(path, file)
        raise
    _remove(path, file)


def _remove(path: Path, file: BufferedRandom) -> None:
    if _is(path, file):
        path.unlink()


def _is(path: Path, file: BufferedRandom) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False


def _filled(file: BufferedRandom, entry: StoreEntry, fill: Fill) -> None:
    """Fill the file; should what an earlier run left be wrong, a second time from nothing."""
    resumed = 0 < file.seek(0, os.SEEK_END) <= entry.size
    if not resumed:
        restart(file)
    fill(file)
    try:
        check(file, entry)
    except WheelError:
        if not resumed:
            raise
        restart(file)
        fill(file)
        check(file, entry)


class BadRequest(WheelError):
    """The server calls what was sent wrong."""


STORE = Kind(
    name="the wheel store",
    error=WheelError,
    login="netrc or user:password@ in its address; for a registry, docker login",
    read_only="put wheels where it gets its files from, or give a login that may write",
    bad_request=BadRequest,
)
