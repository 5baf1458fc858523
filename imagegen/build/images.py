"""The short pipelines behind the commands: each is the one way through, up to its last step."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.build import bake
from imagegen.build.base import bootstrap, known_digest, reference
from imagegen.build.options import Options
from imagegen.compat.sources import Sourced
from imagegen.errors import (
    BuildError,
    ChecksFailed,
    EngineError,
    StaleFiles,
    UsageError,
)
from imagegen.matrix import resolve
from imagegen.matrix.project import Project
from imagegen.model.image import Built, Image
from imagegen.model.report import Outcome, Report
from imagegen.model.target import Os, Target
from imagegen.plan import dockerfile
from imagegen.plan import image as image_
from imagegen.plan import recipe as recipe_
from imagegen.util import files, process
from imagegen.util.files import cache

if TYPE_CHECKING:
    from imagegen.engine.docker import Docker
    from imagegen.wheels.supply import Supply

log = logging.getLogger(__name__)


DISK_FIRST, DISK_NEXT = 25 * 10**9, 14 * 10**9
"""Bytes that building takes: the layers, their unpacked copies, the build's own stages; a further
target shares some. Measured for the demo target: see benchmarks/."""


# --- build, test, push ----------------------------------------------------------------------------


def images(
    project: Project,
    engine: Docker | None,
    select: Sequence[str],
    options: Options,
) -> tuple[Image, ...]:
    """The images of the selected targets. With an engine, bootstrapped bases are made and loaded.

    Raises:
        StaleFiles: a Dockerfile on disk is not what the matrix renders to.
    """
    made = []
    wheels, revision = supply(project, options), source_revision(project.folder)
    bases: dict[Os, tuple[str, str]] = {}
    for combination in project.resolution.select(select):
        held, where = wheels.of(combination)
        recipe = recipe_.recipe(combination, project)
        rendered = dockerfile.files(recipe)
        if stale := dockerfile.drift(project.folder, rendered):
            raise StaleFiles(f"{stale[0]} is not what the matrix says", hint="imagegen render")
        override = digest = ""
        if options.base == "bootstrap":
            os_ = combination.os.os
            if combination.base or os_ not in bases:
                bases[os_] = _bootstrapped(combination, engine, options)
            override, digest = bases[os_]
        image = image_.image(
            recipe,
            rendered,
            project,
            compression=options.compression,
            revision=revision,
            base_override=override,
            base_digest=digest,
            given=held.sha256 if held else "",
            notes=_notes(recipe.target, where, options.jobs),
        )
        if held and engine and not engine.local(image.ref):
            wheels.fetch(held)
        made.append(image)
    return tuple(made)


def source_revision(folder: Path) -> str:
    """The commit that a folder is at, with ``-dirty`` for changes; empty where there is no git."""
    argv = ("git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    with contextlib.suppress(EngineError):
        return process.run(*argv, timeout=30).strip()
    return ""


def _notes(target: Target, where: Sourced | None, jobs: int) -> tuple[str, ...]:
    """Where flash-attn comes from, place by place, and what it costs to compile."""
    from imagegen.wheels.supply import expected

    places = tuple(map(str, where.steps)) if where else ()
    return places if where and where.taken != "source" else (*places, expected(target, jobs))


def _bootstrapped(
    combination: resolve.Candidate,
    engine: Docker | None,
    options: Options,
) -> tuple[str, str]:
    if combination.base:
        raise UsageError(
            f"{combination.id} stands on {combination.base.tag}, which cannot be bootstrapped",
            hint="--registry names a mirror of docker.io",
        )
    os_ = combination.os.os
    if engine is None:
        return reference(os_), known_digest(os_, cache())
    made = bootstrap(os_, cache(), fresh=options.fresh_base)
    engine.load(made.archive, made.reference, made.digest)
    return made.reference, made.digest


def document(
    project: Project,
    chosen: Sequence[Image],
    options: Options,
    compiling: bake.Compiling | None = None,
    *,
    attest: bool = False,
) -> dict[str, object]:
    """The bake definition of the images: what ``build`` hands to buildx and ``--print`` shows."""
    given = {image.key: cache() / "wheels" / image.given for image in chosen if image.given}
    return bake.document(
        chosen,
        project.folder.absolute(),
        files.context_image(),
        options.network,
        compiling or bake.Compiling(prebuilt=given, jobs=options.jobs),
        load=bool(options.builder),
        attest=attest,
    )


def baked(
    project: Project,
    engine: Docker,
    group: Sequence[Image],
    options: Options,
    compiling: bake.Compiling | None = None,
) -> float:
    """Run bake for the images once; returns seconds."""
    start = time.monotonic()
    texts = _texts(options, compiling)
    engine.bake(document(project, group, options, compiling), texts, builder=options.builder)
    return time.monotonic() - start


def _texts(options: Options, compiling: bake.Compiling | None = None) -> dict[str, str]:
    compiling = compiling or bake.Compiling(jobs=options.jobs)
    return bake.environment(options.network.secrets | compiling.secrets)


def supply(project: Project, options: Options) -> Supply:
    """Where flash-attn's wheels come from."""
    from imagegen.wheels.store import open_store
    from imagegen.wheels.supply import Supply

    return Supply(
        folder=cache() / "wheels",
        pins=project.pins,
        store=open_store(options.wheels, ca=options.network.ca) if options.wheels else None,
        no_source=options.no_source,
    )


def build(
    project: Project, engine: Docker, select: Sequence[str], options: Options
) -> tuple[Built, ...]:
    """Build the selected targets; those whose key the engine already has are done.

    Raises:
        BuildError: what failed; with ``keep_going``, after everything else was built; or what
            was built and is larger than its budget.
    """
    chosen = images(project, engine, select, options)
    made, failed = build_images(project, engine, chosen, options)
    if failed:
        words = "\n\n".join(f"{name}: {error}" for name, error in failed.items())
        raise BuildError(f"{len(failed)} of {len(chosen)} failed\n{words}")
    return made


def build_images(
    project: Project,
    engine: Docker,
    chosen: Sequence[Image],
    options: Options,
) -> tuple[tuple[Built, ...], dict[str, BuildError]]:
    """Build images; returns those that are there, and with ``keep_going`` the errors by target id.

    Raises:
        BuildError: without ``keep_going``, the first.
    """
    held = set() if options.force else {one.key for one in chosen if engine.local(one.ref)}
    todo = [image for image in chosen if image.key not in held]
    engine.need_disk(DISK_FIRST * bool(todo) + DISK_NEXT * max(0, len(todo) - 1))
    for image in todo:
        for line in image.notes:
            log.info(f"{image.target.id}: {line}")
    seconds, failed = _bake(project, engine, todo, options)
    made = tuple(
        _built(engine, image, seconds.get(image.key, 0.0), cached=image.key in held)
        for image in chosen
        if image.target.id not in failed
    )
    kept = tuple(one for one in made if _fits(project, engine, one, options, failed))
    return kept, failed


def _fits(
    project: Project,
    engine: Docker,
    built: Built,
    options: Options,
    failed: dict[str, BuildError],
) -> bool:
    """Whether an image is within its profile's budget; to keep going, ``failed`` says why not.

    Raises:
        BuildError: it is not, and nothing else is to be built.
    """
    from imagegen.inventory import layers

    target = built.image.target
    budget = project.matrix.profile[target.profile].budget_gb
    try:
        if budget:
            layers.within(engine, (built,), {target.profile: budget}, cache() / "sizes")
    except BuildError as error:
        if not options.keep_going:
            raise
        failed[target.id] = error
        return False
    return True


def _bake(
    project: Project,
    engine: Docker,
    todo: Sequence[Image],
    options: Options,
) -> tuple[dict[str, float], dict[str, BuildError]]:
    """Seconds by image key, in one run of bake; to keep going one for each image, and what failed
    by target id.
    """
    groups = [[image] for image in todo] if options.keep_going else [list(todo)] if todo else []
    seconds: dict[str, float] = {}
    failed: dict[str, BuildError] = {}
    for group in groups:
        try:
            spent = baked(project, engine, group, options)
            _attest(project, engine, group, options)
        except BuildError as error:
            if not options.keep_going:
                raise
            failed[group[0].target.id] = error
            log.info(f"{group[0].target.id} failed; going on")
        else:
            seconds |= {image.key: spent for image in group}
    return seconds, failed


def _attest(project: Project, engine: Docker, group: Sequence[Image], options: Options) -> None:
    """Have the provenance of what was just built beside it; an image without is none the worse."""
    if options.builder:  # another builder cannot bring an index into the engine
        return
    try:
        engine.bake(document(project, group, options, attest=True), _texts(options))
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


def test(
    project: Project, engine: Docker, select: Sequence[str], options: Options
) -> tuple[Report, ...]:
    """Build, then check every image; a report of the same bytes is used again."""
    return tuple(
        checked(engine, built, options) for built in build(project, engine, select, options)
    )


def checked(engine: Docker, built: Built, options: Options) -> Report:
    """The report of a built image: the one that these bytes already have, or a new one."""
    from imagegen.commands import test as test_

    kept = cache() / "reports"
    again = options.again or options.force
    return test_.checked(engine, built, options.asked, kept, again=again)


def passed(outcomes: Sequence[Outcome]) -> None:
    """Every image passed.

    Raises:
        ChecksFailed: naming, of all that did not, what failed.
    """
    failed = [one for one in outcomes if not one.passed]
    if failed:
        reports = (f"{one.name} did not pass:\n{one.failures()}" for one in failed)
        raise ChecksFailed("\n".join(reports), hint=f"for a look: {_look(failed[0])}")


def _look(one: Outcome) -> str:
    ref = one.built.image.ref if isinstance(one, Report) else one.name
    return f"docker run --rm -it {ref} bash"
