"""The layers of images that are here, read once: an archive of some GB for a few numbers."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.errors import BuildError, EngineError
from imagegen.inventory import sizes
from imagegen.inventory.sizes import Sized
from imagegen.model.image import Built, Layer
from imagegen.util.files import replaced

if TYPE_CHECKING:
    from imagegen.engine.docker import Docker

log = logging.getLogger(__name__)


def sized(engine: Docker, name: str, ref: str, folder: Path) -> Sized:
    """The local image ``ref`` under ``name``; what was read is kept in ``folder`` by digest.

    Raises:
        EngineError: it is not here, or the engine gave no whole archive of it.
    """
    local = engine.local(ref)
    if local is None:
        raise EngineError(f"{ref} is not in this engine's store")
    file = folder / f"{local.digest.removeprefix('sha256:')}.json"
    layers = kept(file)
    if layers is None:
        log.info(f"{name}: reading its layers out of the engine")
        layers = engine.stored(local.digest)
        keep(file, layers)
    return Sized(name=name, digest=local.digest, layers=layers)


def kept(file: Path) -> tuple[Layer, ...] | None:
    """The layers that ``file`` tells of; None where it tells of none, or is of another version."""
    with suppress(OSError, ValueError, TypeError):
        return tuple(Layer(**row) for row in json.loads(file.read_text()))
    return None


def keep(file: Path, layers: Sequence[Layer]) -> None:
    """Keep what was read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replaced(file) as new:
        new.write_text(json.dumps([asdict(layer) for layer in layers]))


def within(engine: Docker, built: Built, folder: Path) -> None:
    """An image is within the budget of its profile, if that has one.

    Raises:
        BuildError: naming the size, the budget and the largest layers.
    """
    image, budget = built.image, built.image.budget_gb
    # The engine's own figure is all blobs of the image: what is within the budget by it needs no
    # reading. (Seen of engine 26.1: 2,921,621,057 for layers of 2,921,612,147 bytes.)
    if budget is None or int(engine.config(image.ref)["Size"]) <= budget * sizes.GB:
        return
    if fault := sizes.over(sized(engine, image.target.id, image.ref, folder), budget):
        raise BuildError(
            fault,
            hint="imagegen size TARGET shows what is in it; or raise budget_gb of its profile in "
            "matrix.toml",
        )
