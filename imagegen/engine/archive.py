"""The layers and the provenance of a local image, out of the archive that the engine makes of it.

The engine's API (1.45) tells an image's bytes as a whole and what each step unpacks to, not what
each layer takes in a registry; the archive holds the very blobs that a push sends.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Sequence
from typing import IO, Any, cast

from imagegen.errors import EngineError
from imagegen.model.image import Layer

SMALL = 4_000_000
"""Bytes up to which a blob may be a manifest or a configuration: what registries take of those."""


class _Reader:
    """Chunks as the file that tarfile reads a stream from."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end."""
        rest = self._rest or next(self._chunks, b"")
        self._rest = rest[size:]
        return rest[:size]


def layers(chunks: Iterable[bytes], steps: Sequence[int]) -> tuple[Layer, ...]:
    """The layers in the archive of one image (``docker save``), the oldest first.

    ``steps`` are the bytes that each step of its history unpacks to, the oldest first.

    Raises:
        EngineError: the archive breaks off, or is not laid out as OCI's.
    """
    try:
        sizes, small = _read(chunks)
        image = json.loads(small["manifest.json"])[0]
        config = json.loads(small[image["Config"]])
        return _named(image["Layers"], sizes, config.get("history") or [], steps)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise EngineError(f"the image's archive cannot be read: {error!r}") from error


def statement(chunks: Iterable[bytes], digest: str) -> bytes:
    """The in-toto statement in the archive of an index, about the image with ``digest``.

    Raises:
        EngineError: the archive breaks off, or has no statement about that image.
    """
    _, small = _read(chunks)
    for body in small.values():
        try:
            row = json.loads(body)
            hashes = [one["digest"].get("sha256") for one in row["subject"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if "predicateType" in row and digest.removeprefix("sha256:") in hashes:
            return body
    raise EngineError(f"there is no statement about {digest}: it was built again since")


def _read(chunks: Iterable[bytes]) -> tuple[dict[str, int], dict[str, bytes]]:
    """The size of every file in an archive, and the text of those that may be JSON.

    Raises:
        EngineError: the archive breaks off.
    """
    sizes: dict[str, int] = {}
    small: dict[str, bytes] = {}
    try:
        with tarfile.open(
            fileobj=cast(IO[bytes], _Reader(chunks)), mode="r|", bufsize=1 << 20
        ) as archive:
            for member in archive:
                if member.isfile():
                    sizes[member.name] = member.size
                    file = archive.extractfile(member) if member.size <= SMALL else None
                    head = file.read(1) if file else b""
                    if file and head in (b"{", b"["):
                        small[member.name] = head + file.read()
    except (tarfile.TarError, EOFError) as error:
        raise EngineError(f"the image's archive breaks off: {error}") from error
    return sizes, small


def _named(
    paths: Sequence[str],
    sizes: dict[str, int],
    history: Sequence[dict[str, Any]],
    steps: Sequence[int],
) -> tuple[Layer, ...]:
    """Each layer with the step that made it; without, where the history tells of other layers."""
    rows = list(zip(history, steps, strict=True)) if len(history) == len(steps) else []
    made: list[tuple[str, int | None]] = [
        (row.get("created_by", ""), size) for row, size in rows if not row.get("empty_layer")
    ]
    if len(made) != len(paths):
        made = [("", None)] * len(paths)
    return tuple(
        Layer(
            digest=f"sha256:{path.rpartition('/')[2]}",
            compressed=sizes[path],
            created_by=step,
            unpacked=size,
        )
        for path, (step, size) in zip(paths, made, strict=True)
    )
