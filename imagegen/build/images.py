"""Targets -> images, planned once for a command; images -> what an engine has of them."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.build import bake, base
from imagegen.build.options import Options
from imagegen.compat.sources import Sourced
from imagegen.errors import BuildError, EngineError, StaleFiles, UsageError
from imagegen.inventory import layers
from imagegen.matrix.project import Project
from imagegen.matrix.resolve import Candidate
from imagegen.model.image import Built, Image, Wheel
from imagegen.model.target import Target
from imagegen.plan import dockerfile
from imagegen.plan import image as plan_image
from imagegen.plan import recipe as plan_recipe
from imagegen.util import process
from imagegen.util.files import cache, context_image
from imagegen.wheels.entry import StoreEntry
from imagegen.wheels.store import open_store
from imagegen.wheels.supply import Supply, expected

if TYPE_CHECKING:
    from imagegen.engine.docker import Docker

log = logging.getLogger(__name__)

DISK_FIRST, DISK_NEXT = 25 * 10**9, 14 * 10**9
"""Bytes that building takes: the layers, their unpacked copies, the build's own stages; a further
target shares some. Measured for the demo target: see benchmarks/."""


# --- planning: no engine is asked -----------------------------------------------------------------


def plan(project: Project, select: Sequence[str], options: Options) -> tuple[Image, ...]:
    """The images of the selected targets. A wheel store is asked here, once.

    A bootstrapped base that is not there yet has no digest: see ``on_bases``.

    Raises:
        StaleFiles: a Dockerfile on disk is not what the matrix renders to.
        UsageError: a target stands on a base that cannot be bootstrapped, as it is wanted.
        WheelError: the store does not answer, or no source of flash-attn is left.
    """
    images = []
    wheels, revision = supply(project, options), source_revision(project.folder)
    for candidate in project.resolution.select(select):
        stored, sourced = wheels.of(candidate)
        recipe = plan_recipe.recipe(candidate, project)
        rendered = dockerfile.files(recipe)
        if stale := dockerfile.drift(project.folder, rendered):
            raise StaleFiles(f"{stale[0]} is not what the matrix says", hint="imagegen render")
        override, digest = _base(candidate) if options.base == "bootstrap" else ("", "")
        images.append(
            plan_image.image(
                recipe,
                rendered,
                project,
                compression=options.compression,
                revision=revision,
                base_override=override,
                base_digest=digest,
                wheel=Wheel(**asdict(stored)) if stored else None,
                notes=_notes(recipe.target, sourced, options.jobs),
            )
        )
    return tuple(images)


def on_bases(project: Project, images: Sequence[Image], options: Options) -> tuple[Image, ...]:
    """The images on bases that are there. Bases that are not, or are wanted anew, are bootstrapped,
    and what stands on them is planned again, since a base's digest is in the key.

    Raises:
        EngineError: this machine cannot make a base.
    """
    if options.base != "bootstrap":
        return tuple(images)
    for os in {image.target.os for image in images}:
        base.bootstrap(os, cache(), fresh=options.fresh_base)
    if not options.fresh_base and all(image.base_digest for image in images):
        return tuple(images)
    return plan(project, [image.target.id for image in images], options)


def _base(candidate: Candidate) -> tuple[str, str]:
    """The local name of a target's bootstrapped base, and its digest if it was made."""
    if candidate.base:
        raise UsageError(
            f"{candidate.id} stands on {candidate.base.tag}, which cannot be bootstrapped",
            hint="--registry names a mirror of docker.io",
        )
    os = candidate.os.os
    return base.reference(os), base.known_digest(os, cache())


def supply(project: Project, options: Options) -> Supply:
    """Where flash-attn's wheels come from."""
    return Supply(
        pins=project.pins,
        store=open_store(options.wheels, ca=options.network.ca) if options.wheels else None,
        no_source=options.no_source,
    )


def source_revision(folder: Path) -> str:
    """The commit that a folder is at, with ``-dirty`` for changes; empty where there is no git."""
    argv = ("git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    with contextlib.suppress(EngineError):
        return process.run(*argv, timeout=30).strip()
    return ""


def _notes(target: Target, sourced: Sourced | None, jobs: int) -> tuple[str, ...]:
    """Where flash-attn comes from, place by place, and what it costs to compile."""
    places = tuple(map(str, sourced.steps)) if sourced else ()
    return places if sourced and sourced.taken != "source" else (*places, expected(target, jobs))


# --- building -------------------------------------------------------------------------------------


def build(
    engine: Docker, images: Sequence[Image], options: Options
) -> tuple[tuple[Built, ...], dict[str, BuildError]]:
    """Build images; those whose key the engine already has are done.

    Returns:
        Those that are there and, with ``keep_going``, the errors by target id.

    Raises:
        BuildError: without ``keep_going``, the first; or what was built is larger than its budget.
    """
    stored = set() if options.force else {one.key for one in images if engine.local(one.ref)}
    missing = [image for image in images if image.key not in stored]
    engine.need_disk(DISK_FIRST * bool(missing) + DISK_NEXT * max(0, len(missing) - 1))
    for image in missing:
        for line in image.notes:
            log.info(f"{image.target.id}: {line}")
    load(engine, missing, options)
    seconds: dict[str, float] = {}
    failed: dict[str, BuildError] = {}
    for group in [[one] for one in missing] if options.keep_going else [missing] * bool(missing):
        start = time.monotonic()
        try:
            engine.bake(document(group, options), environment(options), builder=options.builder)
            seconds |= {image.key: time.monotonic() - start for image in group}
            _attest(engine, group, options)
        except BuildError as error:
            if not options.keep_going:
                raise
            failed[group[0].target.id] = error
            log.info(f"{group[0].target.id} failed; going on")
    built = tuple(
        _built(engine, image, seconds.get(image.key, 0.0), cached=image.key in stored)
        for image in images
        if image.target.id not in failed
    )
    return tuple(one for one in built if _fits(engine, one, options, failed)), failed


def bake_one(engine: Docker, image: Image, options: Options, compiling: bake.Compiling) -> float:
    """Build the stage of an image that ``compiling`` is about; returns seconds."""
    start = time.monotonic()
    load(engine, [image], options)
    definition = document([image], options, compiling)
    engine.bake(definition, environment(options, compiling), builder=options.builder)
    return time.monotonic() - start


def load(engine: Docker, images: Sequence[Image], options: Options) -> None:
    """Have what the builds of images stand on: bootstrapped bases in the engine, and the wheels
    that a store has for them.

    Raises:
        EngineError: a base is not the one that was planned with. WheelError: the store fails.
    """
    planned = {image.target.os: image.base_digest for image in images if image.base_override}
    for os, digest in planned.items():
        made = base.stored(os, cache())
        if made.digest != digest:
            raise EngineError(
                f"the base of {os.name} is another one than when this build was planned",
                hint="another run has made it anew: run the command again",
            )
        engine.load(made.archive, made.reference, made.digest)
    store = open_store(options.wheels, ca=options.network.ca) if options.wheels else None
    for image in images:
        if image.wheel and store:
            folder = wheel_folder(image.wheel)
            folder.mkdir(parents=True, exist_ok=True)
            store.fetch(StoreEntry(**asdict(image.wheel)), folder)


def wheel_folder(wheel: Wheel) -> Path:
    """Where a store's wheel is kept, with nothing else beside it."""
    return cache() / "wheels" / wheel.sha256


def document(
    images: Sequence[Image],
    options: Options,
    compiling: bake.Compiling | None = None,
    *,
    attest: bool = False,
) -> dict[str, object]:
    """The bake definition of the images: what ``build`` hands to buildx and ``--print`` shows."""
    prebuilt = {image.key: wheel_folder(image.wheel) for image in images if image.wheel}
    return bake.document(
        images,
        context_image(),
        options.network,
        compiling or bake.Compiling(prebuilt=prebuilt, jobs=options.jobs),
        load=bool(options.builder),
        attest=attest,
    )


def environment(options: Options, compiling: bake.Compiling | None = None) -> dict[str, str]:
    """The variables that carry a build's BuildKit secrets."""
    compiling = compiling or bake.Compiling(jobs=options.jobs)
    return bake.environment(options.network.secrets | compiling.secrets)


def _attest(engine: Docker, group: Sequence[Image], options: Options) -> None:
    """Have the provenance of what was just built beside it; an image without is none the worse."""
    if options.builder:  # another builder cannot bring an index into the engine
        return
    try:
        engine.bake(document(group, options, attest=True), environment(options))
    except BuildError as error:
        log.info(f"no provenance: {error}")


def _built(engine: Docker, image: Image, seconds: float, *, cached: bool) -> Built:
    local = engine.local(image.ref)
    if local is None or local.labels.get("imagegen.key") != image.key:
        raise EngineError(f"the engine does not have {image.ref} after its build")
    why = f"already built: same files, locks and base (key {image.key[:12]})" if cached else ""
    return Built(
        image=image,
        digest=local.digest,
        unpacked=engine.unpacked(image.ref),
        seconds=seconds,
        cached=why,
    )


def _fits(engine: Docker, built: Built, options: Options, failed: dict[str, BuildError]) -> bool:
    """Whether an image is within its profile's budget; to keep going, ``failed`` says why not.

    Raises:
        BuildError: it is not, and nothing else is to be built.
    """
    try:
        layers.within(engine, built, cache() / "sizes")
    except BuildError as error:
        if not options.keep_going:
            raise
        failed[built.image.target.id] = error
        return False
    return True
