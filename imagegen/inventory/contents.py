"""What is inside an image, asked of the image itself: packages, folders, what is there twice."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from imagegen.errors import EngineError
from imagegen.inventory.sizes import plain

if TYPE_CHECKING:
    from imagegen.engine.docker import Docker

PATIENCE = 300.0
"""Seconds for the look inside; 6 GB in 47,000 files took 2 s on two cores."""

FileKind = Literal["cuda", "torch", "python", "apt", "other"]
"""What files belong to: NVIDIA's libraries, torch and Triton, further Python packages and their
environment, the distribution's packages, and what is left."""

Bytes = Annotated[int, Field(ge=0)]
Words = Annotated[str, AfterValidator(plain)]
"""Names come from the image, and may hold what a terminal would obey."""
STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class Release:
    """A distribution's release as os-release(5) spells it: ``debian``, ``12``."""

    id: Words
    version: Words


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class Dpkg:
    """A package of the distribution; ``bytes`` are its Installed-Size, which dpkg rounds to kB."""

    name: Words
    version: Words
    arch: Words
    bytes: Bytes
    source: Words


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class PythonPackage:
    """A Python package; ``bytes`` are its files' by RECORD, None where it has none.

    ``expression`` is its License-Expression, an SPDX expression (PEP 639); ``license`` whatever
    else it says of its licence.
    """

    name: Words
    version: Words
    location: Words
    bytes: Bytes | None
    license: Words
    expression: Words


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class Node:
    """A folder or a file; what is too small to be shown is a child named ``(other)``."""

    name: Words
    bytes: Bytes
    kind: FileKind
    children: tuple[Node, ...]


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class Copies:
    """The same bytes at several paths that are no hard links of one another."""

    bytes: Bytes
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    paths: Annotated[tuple[Words, ...], Field(min_length=2)]

    @property
    def spare(self) -> int:
        """Bytes that one copy would save."""
        return self.bytes * (len(self.paths) - 1)


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class LibraryFile:
    """One file of several that have a name in common."""

    path: Words
    bytes: Bytes


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class Versions:
    """A library of one name and major number at several paths, with different bytes."""

    soname: Words
    places: Annotated[tuple[LibraryFile, ...], Field(min_length=2)]


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class Inventory:
    """All of it. ``bytes`` are the lengths of ``files`` files, hard links counted once."""

    os: Release
    files: int
    bytes: Bytes
    kinds: dict[FileKind, Bytes]
    dpkg: tuple[Dpkg, ...]
    python: tuple[PythonPackage, ...]
    tree: Node
    copies: tuple[Copies, ...]
    versions: tuple[Versions, ...]


def of(engine: Docker, ref: str) -> Inventory:
    """What the image ``ref`` holds. It is run without network and without its own start.

    Raises:
        EngineError: it has no python3 of 3.10 or later, or gave no answer that can be read.
    """
    script = (resources.files("imagegen.inventory") / "inside.py").read_text(encoding="utf-8")
    ran = engine.run(ref, ["python3", "-I", "-c", script], alone=True, timeout=PATIENCE)
    if ran.code:
        last = (ran.err.strip().splitlines() or ["nothing"])[-1]
        raise EngineError(f"looking into {ref}: its python3 exited {ran.code}: {last}")
    return parsed(ran.out, ref)


def parsed(text: str, ref: str) -> Inventory:
    """The inventory as ``inside.py`` prints it.

    Raises:
        EngineError: it is anything else; with the first faults and their places.
    """
    try:
        return TypeAdapter(Inventory).validate_json(text)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3]]
        raise EngineError(f"looking into {ref}: {'; '.join(faults)}") from error
