"""Files on their way: one that is sent tells how far it is, one that is fetched can begin again."""

from __future__ import annotations

import io
import logging
import time
from io import BufferedRandom
from pathlib import Path

log = logging.getLogger(__name__)

TELL = 3.0
"""Seconds between two lines about a transfer."""


class SentFile(io.FileIO):
    """A file that says how much of it was read, as it is sent."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._size, self._told = path.stat().st_size, time.monotonic()

    def read(self, size: int | None = -1) -> bytes:
        if time.monotonic() - self._told > TELL:
            self._told = time.monotonic()
            log.info(f"sent {self.tell() / 1e6:,.0f} of {self._size / 1e6:,.0f} MB")
        return super().read(-1 if size is None else size) or b""


def restart(file: BufferedRandom) -> None:
    """Empty a file that is open for appending."""
    file.seek(0)  # or tell() goes on from where it was
    file.truncate()
