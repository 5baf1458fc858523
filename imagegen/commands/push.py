"""`imagegen push`: what is published already is left as it is; the rest is built, tested and sent.

The registry is asked first: an image that is there under its key, with a report that passed, is
neither built nor tested nor sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from imagegen.build import images
from imagegen.build.options import Options
from imagegen.commands import published
from imagegen.commands.published import Connect, Found
from imagegen.commands.test import levels_of, tried
from imagegen.errors import ImagegenError
from imagegen.matrix.project import Project
from imagegen.model.image import Image
from imagegen.model.report import Tested
from imagegen.platforms import needed
from imagegen.publish import attestations
from imagegen.publish import push as publish
from imagegen.publish.push import PushResult, Upload
from imagegen.util.files import cache

if TYPE_CHECKING:
    from imagegen.engine.docker import Docker

log = logging.getLogger(__name__)


def push(project: Project, connect: Connect, select: Sequence[str], options: Options) -> PushResult:
    """Build, test and push, each target on its own: one that fails keeps no other from it.

    Raises:
        UsageError: a repository names no registry. RegistryError: a registry is not there.
    """
    names = published.repositories(project, options)
    for name in names:
        publish.named(name)  # said before hours of building, not after
    chosen = images.plan(project, select, options)
    found = _reusable(project, chosen, names, options)
    reused = tuple(found.values())
    for found_one in reused:
        log.info(f"{found_one.pushed.target.id}: {found_one.pushed.cached}")
    missing = [one for one in chosen if any((one.key, name) not in found for name in names)]
    if not missing:
        return publish.point(reused, move_back=options.move_back)
    engine = connect()
    uploads: list[Upload] = []
    tested, failed = _tested(engine, images.on_bases(project, missing, options), options)
    for one in tested:
        try:
            sbom, provenance = attestations_of(engine, one)
        except ImagegenError as error:
            failed[one.name] = error
            log.info(f"{one.name}: {error}")
            continue
        uploads += [
            Upload(
                tested=one,
                repository=name,
                aliases=published.aliases(project, one.name),
                sbom=sbom,
                provenance=provenance,
            )
            for name in names
            if (one.built.image.key, name) not in found
        ]
    ca, move_back = options.network.ca, options.move_back
    done = publish.push(engine, uploads, published=reused, ca=ca, move_back=move_back)
    return replace(done, failed={**failed, **done.failed})


def _reusable(
    project: Project, chosen: Sequence[Image], names: Sequence[str], options: Options
) -> Found:
    """What the repositories have that need not be made: with a report of all that is asked for."""
    if options.force or options.again or options.fresh_base:
        return {}
    found, asked = published.find(project, chosen, names, options), levels_of(options.asked)
    return {at: one for at, one in found.items() if one.pushed.report.covers(asked)}


def delivered(done: PushResult) -> None:
    """Everything that was selected is published.

    Raises:
        ImagegenError: of the first failure's class; the message names all of them.
    """
    if not done.failed:
        return
    first = next(iter(done.failed.values()))
    words = "\n".join(f"{name}: {error}" for name, error in done.failed.items())
    total = len(done.failed) + len(done.pushed)
    count = f"{len(done.failed)} of {total} were not published; the others are\n" * (total > 1)
    raise type(first)(f"{count}{words}", hint=first.hint)


def _tested(
    engine: Docker, chosen: Sequence[Image], options: Options
) -> tuple[list[Tested], dict[str, ImagegenError]]:
    """Build and test, and keep going: what passed, and why the others did not, by target id."""
    made, errors = images.build(engine, chosen, replace(options, keep_going=True))
    failed: dict[str, ImagegenError] = dict(errors)
    tested = []
    for built in made:
        try:
            report = tried(engine, built, options).report
            tested.append(Tested(built=built, report=report, needed=needed()))
        except ImagegenError as error:
            failed[built.image.target.id] = error
            log.info(str(error))
    return tested, failed


def attestations_of(engine: Docker, one: Tested) -> tuple[bytes, bytes]:
    """SBOM and provenance of what was tested."""
    folder, built = cache() / "attestations", one.built
    return attestations.bill(engine, built, folder), attestations.provenance(engine, built, folder)
