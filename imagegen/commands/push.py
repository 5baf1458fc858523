"""Images on their way into registries: what is there already, what is made and sent, what it tells.

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
from imagegen.commands.published import Connect, _aliases, _found, _repositories
from imagegen.errors import ImagegenError
from imagegen.matrix.project import Project
from imagegen.model.report import Tested
from imagegen.publish import attestations
from imagegen.publish import push as push_
from imagegen.publish.push import Parcel, Publication
from imagegen.util import files

if TYPE_CHECKING:
    from imagegen.engine.docker import Docker

log = logging.getLogger(__name__)


def push(
    project: Project, connect: Connect, select: Sequence[str], options: Options
) -> Publication:
    """Build, test and push, each target on its own: one that fails keeps no other from it.

    Raises:
        UsageError: a repository names no registry. RegistryError: a registry is not there.
    """
    repositories = _repositories(project, options)
    for repository in repositories:
        push_.named(repository)  # said before hours of building, not after
    chosen = images.images(project, None, select, options)
    anew = options.force or options.again or options.fresh_base
    found = {} if anew else _found(project, chosen, repositories, options)
    asked = options.asked
    found = {at: one for at, one in found.items() if one.pushed.record.covers(asked)}
    missing = [
        image.target.id
        for image in chosen
        if any((image.key, repository) not in found for repository in repositories)
    ]
    there = tuple(found.values())
    for one in there:
        log.info(f"{one.pushed.target.id}: {one.pushed.cached}")
    if not missing:
        return push_.point(there, back=options.move_back)
    engine = connect()
    tested, failed = _tested(project, engine, missing, options)
    beside: dict[str, tuple[bytes, bytes]] = {}
    for passed in tested:
        try:
            beside[passed.report.digest] = _papers(engine, passed)
        except ImagegenError as error:
            failed[passed.report.name] = error
            log.info(f"{passed.report.name}: {error}")
    parcels = [
        Parcel(
            tested=one,
            repository=repository,
            aliases=_aliases(project, one.report.name),
            sbom=beside[one.report.digest][0],
            provenance=beside[one.report.digest][1],
        )
        for one in tested
        for repository in repositories
        if one.report.digest in beside and (one.report.built.image.key, repository) not in found
    ]
    network, back = options.network, options.move_back
    done = push_.push(engine, parcels, there=there, ca=network.ca, back=back)
    return replace(done, failed={**failed, **done.failed})


def delivered(done: Publication) -> None:
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
    project: Project,
    engine: Docker,
    ids: Sequence[str],
    options: Options,
) -> tuple[list[Tested], dict[str, ImagegenError]]:
    """Build and test, and keep going: what passed, and why the others did not, by target id."""
    chosen = images.images(project, engine, ids, options)
    going = replace(options, keep_going=True)
    made, errors = images.build_images(project, engine, chosen, going)
    failed: dict[str, ImagegenError] = dict(errors)
    tested = []
    for built in made:
        try:
            tested.append(Tested(report=images.checked(engine, built, options)))
        except ImagegenError as error:
            failed[built.image.target.id] = error
            log.info(str(error))
    return tested, failed


def _papers(engine: Docker, one: Tested) -> tuple[bytes, bytes]:
    """SBOM and provenance of what was tested."""
    kept, built = files.cache() / "papers", one.report.built
    return attestations.bill(engine, built, kept), attestations.provenance(engine, built, kept)
