"""What images take, by target or by reference: their layers, and what is inside."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.build.images import plan
from imagegen.build.options import Options
from imagegen.errors import EngineError, UsageError
from imagegen.inventory import contents, layers, sizes
from imagegen.inventory.contents import Inventory
from imagegen.inventory.sizes import Sharing, Sized
from imagegen.matrix.project import Project
from imagegen.util import files

if TYPE_CHECKING:
    from imagegen.engine.docker import Docker

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """An image's layers and what is inside; ``unseen`` says why nobody could look there."""

    sized: Sized
    inventory: Inventory | None
    unseen: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measures:
    """The images that are here, what they share, and the targets asked for that are not here."""

    images: tuple[Measured, ...]
    sharing: Sharing
    missing: tuple[str, ...]


def measure(
    load: Callable[[], Project],
    connect: Callable[[], Docker],
    select: Sequence[str],
    refs: Sequence[str],
    options: Options,
) -> Measures:
    """Measure the selected targets, and images by reference; without either, every target here.

    A reference that is not here is pulled; a target is not built.

    Raises:
        EngineError: there is nothing to measure. RegistryError: a reference cannot be pulled.
    """
    engine = connect()
    here: list[tuple[str, str]] = []
    missing: list[str] = []
    if select or not refs:
        here, missing = _built(load(), engine, select, options)
    for ref in dict.fromkeys(refs):
        engine.pulled(ref)
        here.append((ref, ref))
    if not here:
        raise absent(missing)
    folder = files.cache() / "sizes"
    images = tuple(_measured(engine, name, ref, folder) for name, ref in here)
    return Measures(
        images=images,
        sharing=sizes.sharing([one.sized for one in images]),
        # without a selection the question was what is here
        missing=tuple(missing) if select else (),
    )


def _built(
    project: Project,
    engine: Docker,
    select: Sequence[str],
    options: Options,
) -> tuple[list[tuple[str, str]], list[str]]:
    """Name and reference of the selected targets that are built here, and the names of the rest."""
    here, missing = [], []
    for name in [one.id for one in project.resolution.select(select)]:
        try:
            (image,) = plan(project, [name], options)
        except UsageError:  # it cannot stand on that base, so nobody built it so
            if select:
                raise
            missing.append(name)
            continue
        if engine.local(image.ref):
            here.append((name, image.ref))
        else:
            missing.append(name)
    return here, missing


def _measured(engine: Docker, name: str, ref: str, folder: Path) -> Measured:
    sized = layers.sized(engine, name, ref, folder)
    log.info(f"{name}: looking inside")
    try:
        return Measured(sized=sized, inventory=contents.of(engine, ref))
    except EngineError as error:  # an image without Python has a size all the same
        return Measured(sized=sized, inventory=None, unseen=str(error))


def absent(missing: Sequence[str]) -> EngineError:
    """What to say of targets that are not built here."""
    names = ", ".join(missing[:3]) + f" and {len(missing) - 3} more" * (len(missing) > 3)
    return EngineError(
        f"not built here as {'it is' if len(missing) == 1 else 'they are'} now: {names}",
        hint=f"imagegen build {missing[0]}, with the --base, --wheels and --compression meant",
    )


def complete(found: Measures) -> None:
    """Everything that was asked for was measured.

    Raises:
        EngineError: naming the targets that are not built here.
    """
    if found.missing:
        raise absent(found.missing)
