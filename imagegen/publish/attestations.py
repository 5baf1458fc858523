"""What goes with an image into a registry: what is in it (SBOM), and how it was built (provenance).

Both are made once for the same bytes, and kept.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.build import bake
from imagegen.errors import EngineError
from imagegen.inventory import contents, sbom
from imagegen.model.image import Built
from imagegen.util.files import replaced

if TYPE_CHECKING:
    from imagegen.engine.docker import Docker

log = logging.getLogger(__name__)

OWN_ARGUMENTS = frozenset({"REGISTRY", "FLASH_ATTN_SHARD"})
"""The build arguments of our Dockerfiles."""


def bill(engine: Docker, built: Built, folder: Path) -> bytes:
    """The image's SBOM: SPDX 2.3, as JSON.

    Raises:
        EngineError: the image cannot be looked into.
    """

    def made() -> bytes:
        found = contents.of(engine, built.digest)
        target, now = built.image.target, datetime.now(UTC)
        document = sbom.spdx(found, name=target.tag, digest=built.digest, created=now)
        return json.dumps(document, indent=1).encode()

    return _kept(folder / f"{built.digest.removeprefix('sha256:')}.spdx.json", made)


def provenance(engine: Docker, built: Built, folder: Path) -> bytes:
    """BuildKit's statement on how the image was built; empty where there is none, which is said."""
    name, attested = built.image.target.id, bake.attested(built.image)

    def made() -> bytes:
        if engine.local(attested) is None:
            return b""
        log.info(f"{name}: reading its provenance out of the engine")
        return engine.statement(attested, built.digest)

    try:
        found = _kept(folder / f"{built.digest.removeprefix('sha256:')}.intoto.json", made)
        if not found:
            log.info(f"{name}: no provenance: not built by this engine's own BuildKit, or long ago")
        return _public(found)
    except EngineError as error:
        log.info(f"{name}: no provenance: {error}")
        return b""
    finally:
        with suppress(EngineError):  # it takes no space that the image does not
            engine.remove(attested)


def _public(statement: bytes) -> bytes:
    """A statement that may be published.

    Raises:
        EngineError: it tells of this machine: buildx makes build arguments of the proxies in
            docker's configuration, logins and all, and BuildKit writes them down.
    """
    # Wherever a version of the schema keeps them: SLSA 1 has another place than 0.2.
    arguments = set(re.findall(r'"build-arg:([^"]+)"', statement.decode(errors="replace")))
    if private := arguments - OWN_ARGUMENTS:
        raise EngineError(f"it would publish {', '.join(sorted(private))} of this machine")
    if re.search(rb"://[^/\s\"@]+:[^/\s\"@]+@", statement):
        raise EngineError("it would publish a login")
    return statement


def _kept(file: Path, make: Callable[[], bytes]) -> bytes:
    """The file's bytes, made unless it is there; nothing is kept of nothing."""
    if file.is_file() and (body := file.read_bytes()):
        return body
    body = make()
    if body:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replaced(file) as new:
            new.write_bytes(body)
    return body
