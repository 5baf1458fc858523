"""Where imagegen's own files are, and how files are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path


def cache() -> Path:
    """Where bases, reports, sizes and wheels are kept between runs."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "imagegen"


def context_image() -> Path:
    """The folder of the ``image`` build context: what imagegen puts into every image."""
    return Path(str(resources.files("imagegen"))) / "image"


@contextmanager
def replaced(file: Path) -> Iterator[Path]:
    """A path to write in place of ``file``, which changes as a whole when the block ends well.

    What was written is on the disk by then. The mode of the file stays, and a link stays one: what
    it points to is replaced. However the block ends, nothing is left beside the file; of several
    writers at once, the last one's file stays.

    Raises:
        OSError: the folder is not there or full; the file is what it was.
    """
    file = file.resolve()
    new = file.with_name(f".{file.name}.{secrets.token_hex(4)}.new")
    try:
        yield new
        with suppress(FileNotFoundError):
            new.chmod(file.stat().st_mode)
        with new.open("rb") as written:
            os.fsync(written.fileno())
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)
