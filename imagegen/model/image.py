"""What is built of a target, and what lies in an engine after it. Frozen, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imagegen.model.target import Target

Compression = Literal["zstd", "gzip"]
"""How layers are stored and sent; gzip for hosts that cannot read zstd."""


COMPRESSION_LEVEL: Mapping[Compression, int] = {"zstd": 3, "gzip": 6}
"""zstd: level 15 takes five to ten times as long for 5 to 10 % fewer bytes. gzip: its default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel:
    """A wheel by its file name, the sha256 of its bytes, and how many they are."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """A target and everything that decides its bytes.

    ``context`` is the folder that its Dockerfile lies below. ``base`` is the exact text of the FROM
    line after its arguments are filled in, ``base_override`` a local image in its place, and
    ``base_digest`` the digest of that one; ``key`` is a sha256 over the rendered files, the files
    that are copied in, the base in use, ``compression``, the labels that say what is inside, and
    ``wheel``, a flash-attn wheel from a store. ``budget_gb`` is what it may take compressed, in
    GB of 10^9 bytes. ``notes`` say where flash-attn comes from.
    """

    target: Target
    context: Path
    base: str
    base_override: str
    base_digest: str = ""
    labels: Mapping[str, str]
    key: str
    compression: Compression = "zstd"
    wheel: Wheel | None = None
    budget_gb: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        """The local name, wherever it is pushed: with the key, so that no two images share one."""
        return f"imagegen/built:{self.target.tag}-{self.key[:12]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One layer: bytes as stored and sent, the instruction that made it, and the bytes that it
    unpacks to where they are known.
    """

    digest: str
    compressed: int
    created_by: str
    unpacked: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """An image in the engine's store, under ``image.ref``; ``unpacked`` in bytes."""

    image: Image
    digest: str
    unpacked: int
    seconds: float
    cached: str
    """Why nothing was built, or empty when it was."""
