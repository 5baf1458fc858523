"""What registries already have of the images of a command."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from imagegen.build import images
from imagegen.build.options import Options
from imagegen.errors import ImagegenError, RegistryError
from imagegen.matrix.project import Project
from imagegen.model.image import Image
from imagegen.model.pushed import Pushed
from imagegen.net.address import registry_host
from imagegen.net.registry import Refused, Repository
from imagegen.publish import push
from imagegen.publish.push import Published
from imagegen.util import parallel

if TYPE_CHECKING:
    from imagegen.engine.docker import Docker

log = logging.getLogger(__name__)

ASKED_AT_ONCE = 24
"""Images that registries are asked for at the same time."""

Connect = Callable[[], "Docker"]

Found = dict[tuple[str, str], Published]
"""What is in a registry, by image key and repository."""


def published(project: Project, select: Sequence[str], options: Options) -> tuple[Pushed, ...]:
    """The selected targets as the first repository has them: a template names one image. No engine
    is asked.

    Raises:
        RegistryError: one is not there as it is now, with the command that makes it so.
    """
    (repository, *others) = repositories(project, options)
    push.named(repository)
    if others:
        log.info(f"of {len(others) + 1} repositories the first is used: {repository}")
    packing = options.compression
    packed = f" --compression {packing}" * (packing != Options().compression)
    chosen = images.plan(project, select, options)
    found = find(project, chosen, (repository,), options)
    for image in chosen:
        if (image.key, repository) not in found:
            raise RegistryError(
                f"{image.target.id} is not published in {repository} as it is now",
                hint=f"imagegen push {image.target.id} --repository {repository}{packed}",
            )
    return tuple(found[image.key, repository].pushed for image in chosen)


def reusable(
    project: Project, chosen: Sequence[Image], options: Options, suite: str = ""
) -> dict[str, Pushed]:
    """What every repository has, by target id, with a report by the checks ``suite`` if that is
    named; nothing where none names a registry, or one does not answer: then it is made here.
    """
    names = repositories(project, options)
    if options.force or options.fresh_base or not all(map(registry_host, names)):
        return {}
    try:
        found = find(project, chosen, names, options)
    except RegistryError as error:
        log.info(f"{error}: so nothing is taken to be published")
        return {}
    pushed = {}
    for image in chosen:
        mine = [found.get((image.key, name)) for name in names]
        if all(mine) and mine[0] and suite in ("", mine[0].pushed.report.suite):
            pushed[image.target.id] = mine[0].pushed
            log.info(f"{image.target.id}: {mine[0].pushed.cached}")
    return pushed


def find(
    project: Project, chosen: Sequence[Image], names: Sequence[str], options: Options
) -> Found:
    """Ask the registries for the images.

    Raises:
        RegistryError: one does not answer. (One that refuses to talk of a repository may have none
            of that name yet: the push itself decides.)
    """

    def ask(image: Image, name: str) -> Published | None:
        try:
            repository = Repository(name, ca=options.network.ca)
            return push.found(repository, image, aliases(project, image.target.id))
        except Refused:
            return None

    pairs = [(image, name) for image in chosen for name in names]
    answers = parallel.each([partial(ask, *pair) for pair in pairs], ASKED_AT_ONCE)
    found: Found = {}
    for (image, name), answer in zip(pairs, answers, strict=True):
        if isinstance(answer, ImagegenError):
            raise answer
        if answer:
            found[image.key, name] = answer
    return found


def repositories(project: Project, options: Options) -> tuple[str, ...]:
    """Where images go: as the command line says, or else the matrix."""
    return options.repositories or (project.matrix.publish.repository,)


def aliases(project: Project, target_id: str) -> tuple[str, ...]:
    """The moving tags that point to a target."""
    return tuple(sorted(tag for tag, id_ in project.aliases.items() if id_ == target_id))
