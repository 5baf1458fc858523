"""Images on their way into registries: what is there already, what is made and sent, what it tells.

The registry is asked first: an image that is there under its key, with a report that passed, is
neither built nor tested nor sent again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen import checks, flow, papers, parallel, publish, testing
from imagegen.errors import ImagegenError, RegistryError, UsageError
from imagegen.flow import Options, Setup
from imagegen.model import Asked, Built, Image, Outcome, Pushed, Tested
from imagegen.oci.repository import Refused, Repository
from imagegen.pods import ONSTART
from imagegen.proc import Say
from imagegen.publish import Arrived, Parcel, Publication, pruning
from imagegen.publish.pruning import Old, Pruned

if TYPE_CHECKING:
    from imagegen.engine import Docker

ASKED_AT_ONCE = 24
"""Images that registries are asked for at the same time."""

Connect = Callable[[], "Docker"]
Found = dict[tuple[str, str], Arrived]
"""What is in a registry, by image key and repository."""


def build(
    it: Setup, connect: Connect, select: Sequence[str], options: Options, say: Say
) -> tuple[Built | Pushed, ...]:
    """Build the selected targets, but for those that are published under their key.

    Raises:
        BuildError: what failed; with ``keep_going``, after everything else was built.
    """
    there = _published(it, select, options, say)
    if not (missing := _left(it, select, there)):
        return tuple(there.values())
    made = flow.build(it, connect(), missing, options, say)
    return (*there.values(), *made)


def test(
    it: Setup, connect: Connect, select: Sequence[str], options: Options, say: Say
) -> tuple[Outcome, ...]:
    """Build and check the selected targets, but for those that are published under their key.

    What is published passed the checks of a push; whoever asks for others, or has other ones, gets
    them run here.
    """
    plain = options.asked == Asked() and not options.again
    suite = checks.version(ONSTART)
    there = _published(it, select, options, say, suite) if plain else {}
    if not (missing := _left(it, select, there)):
        return tuple(map(_outcome, there.values()))
    tested = flow.test(it, connect(), missing, options, say)
    return (*map(_outcome, there.values()), *tested)


def tested(
    it: Callable[[], Setup],
    connect: Connect,
    select: Sequence[str],
    refs: Sequence[str],
    options: Options,
    say: Say,
) -> tuple[Outcome, ...]:
    """The outcome for targets, or for images by reference; the matrix is for targets only.

    Raises:
        UsageError: both.
    """
    if select and refs:
        raise UsageError("name targets, or images by --image, not both")
    if not refs:
        return test(it(), connect, select, options, say)
    return testing.examined(connect(), refs, options.asked, say)


def push(
    it: Setup, connect: Connect, select: Sequence[str], options: Options, say: Say
) -> Publication:
    """Build, test and push, each target on its own: one that fails keeps no other from it.

    Raises:
        UsageError: a repository names no registry. RegistryError: a registry is not there.
    """
    repositories = _repositories(it, options)
    for repository in repositories:
        publish.named(repository)  # said before hours of building, not after
    chosen = flow.images(it, None, select, options, say)
    anew = options.force or options.again or options.fresh_base
    found = {} if anew else _found(it, chosen, repositories, options, say)
    asked = options.asked
    found = {at: one for at, one in found.items() if one.pushed.record.covers(asked)}
    missing = [
        image.target.id
        for image in chosen
        if any((image.key, repository) not in found for repository in repositories)
    ]
    there = tuple(found.values())
    for one in there:
        say(f"{one.pushed.target.id}: {one.pushed.cached}")
    if not missing:
        return publish.point(there, say, back=options.move_back)
    engine = connect()
    tested, failed = _tested(it, engine, missing, options, say)
    beside: dict[str, tuple[bytes, bytes]] = {}
    for passed in tested:
        try:
            beside[passed.report.digest] = _papers(engine, passed, say)
        except ImagegenError as error:
            failed[passed.report.name] = error
            say(f"{passed.report.name}: {error}")
    parcels = [
        Parcel(
            tested=one,
            repository=repository,
            aliases=_aliases(it, one.report.name),
            sbom=beside[one.report.digest][0],
            provenance=beside[one.report.digest][1],
        )
        for one in tested
        for repository in repositories
        if one.report.digest in beside and (one.report.built.image.key, repository) not in found
    ]
    network, back = options.network, options.move_back
    done = publish.push(engine, parcels, say, there=there, ca=network.ca, back=back)
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


def published(it: Setup, select: Sequence[str], options: Options, say: Say) -> tuple[Pushed, ...]:
    """The selected targets as the first repository has them: a template names one image. No engine
    is asked.

    Raises:
        RegistryError: one is not there as it is now, with the command that makes it so.
    """
    (repository, *others) = _repositories(it, options)
    publish.named(repository)
    if others:
        say(f"of {len(others) + 1} repositories the first is used: {repository}")
    packing = options.compression
    packed = f" --compression {packing}" * (packing != Options().compression)
    chosen = flow.images(it, None, select, options, say)
    found = _found(it, chosen, (repository,), options, say)
    for image in chosen:
        if (image.key, repository) not in found:
            raise RegistryError(
                f"{image.target.id} is not published in {repository} as it is now",
                hint=f"imagegen push {image.target.id} --repository {repository}{packed}",
            )
    return tuple(found[image.key, repository].pushed for image in chosen)


LEDGER = "templates.json"
"""The ledger of templates, beside the matrix."""


def prune(
    it: Setup,
    repositories: Sequence[str],
    say: Say,
    *,
    ca: str = "",
    older: float,
    ledger: Path | None,
    apply: bool,
) -> Pruned:
    """What could be deleted in the repositories, and what was.

    Raises:
        UsageError: a repository names no registry, or the ledger is not there.
        RegistryError: a registry does not answer.
    """
    names = repositories or (it.workspace.matrix.publish.repository,)
    for name in names:
        publish.named(name)
    used = _used(it, ledger, say)
    found: list[Old] = []
    gone: list[Old] = []
    failed: dict[str, RegistryError] = {}
    for name in names:
        repository = Repository(name, ca=ca, say=say)
        mine = pruning.plan(repository, now=time.time(), older=older, used=used, say=say)
        found += mine
        if apply:
            went, why = pruning.remove(repository, mine, say)
            gone += went
            failed |= why
    return Pruned(found=tuple(found), gone=tuple(gone), failed=failed)


def deleted(done: Pruned) -> None:
    """All that was to go is gone.

    Raises:
        RegistryError: naming what could not be deleted.
    """
    if done.failed:
        first = next(iter(done.failed.values()))
        words = "\n".join(f"{name}: {error}" for name, error in done.failed.items())
        raise RegistryError(f"not deleted:\n{words}", hint=first.hint)


def _used(it: Setup, ledger: Path | None, say: Say) -> set[str]:
    """The digests that the ledger of templates names, whatever it says of them."""
    file = ledger or it.workspace.folder / LEDGER
    if file.is_file():
        return set(re.findall(r"sha256:[0-9a-f]{64}", file.read_text()))
    if ledger:
        raise UsageError(f"{ledger}: there is no such file")
    say(f"no ledger at {file}: no template is known to use any of these")
    return set()


def _repositories(it: Setup, options: Options) -> tuple[str, ...]:
    return options.repositories or (it.workspace.matrix.publish.repository,)


def _aliases(it: Setup, target_id: str) -> tuple[str, ...]:
    return tuple(sorted(tag for tag, id_ in it.aliases.items() if id_ == target_id))


def _published(
    it: Setup, select: Sequence[str], options: Options, say: Say, suite: str = ""
) -> dict[str, Pushed]:
    """What every repository has, by target id, with a report by the checks ``suite`` if that is
    named; nothing where none names a registry, or one does not answer: then it is made here.
    """
    repositories = _repositories(it, options)
    if options.force or options.fresh_base or not all(map(publish.names_registry, repositories)):
        return {}
    chosen = flow.images(it, None, select, options, say)
    try:
        found = _found(it, chosen, repositories, options, say)
    except RegistryError as error:
        say(f"{error}: so nothing is taken to be published")
        return {}
    there = {}
    for image in chosen:
        mine = [found.get((image.key, repository)) for repository in repositories]
        if all(mine) and mine[0] and suite in ("", mine[0].pushed.record.suite):
            there[image.target.id] = mine[0].pushed
            say(f"{image.target.id}: {mine[0].pushed.cached}")
    return there


def _left(it: Setup, select: Sequence[str], there: dict[str, Pushed]) -> list[str]:
    ids = [combination.id for combination in it.resolution.select(select)]
    return [id_ for id_ in ids if id_ not in there]


def _found(
    it: Setup,
    chosen: Sequence[Image],
    repositories: Sequence[str],
    options: Options,
    say: Say,
) -> Found:
    """Ask the registries for the images.

    Raises:
        RegistryError: one does not answer. (One that refuses to talk of a repository may have none
            of that name yet: the push itself decides.)
    """
    ca = options.network.ca

    def ask(image: Image, name: str) -> Arrived | None:
        try:
            repository = Repository(name, ca=ca, say=say)
            return publish.found(repository, image, _aliases(it, image.target.id))
        except Refused:
            return None

    pairs = [(image, repository) for image in chosen for repository in repositories]
    answers = parallel.each([partial(ask, *pair) for pair in pairs], ASKED_AT_ONCE)
    found: Found = {}
    for (image, repository), answer in zip(pairs, answers, strict=True):
        if isinstance(answer, ImagegenError):
            raise answer
        if answer:
            found[image.key, repository] = answer
    return found


def _tested(
    it: Setup, engine: Docker, ids: Sequence[str], options: Options, say: Say
) -> tuple[list[Tested], dict[str, ImagegenError]]:
    """Build and test, and keep going: what passed, and why the others did not, by target id."""
    chosen = flow.images(it, engine, ids, options, say)
    going = replace(options, keep_going=True)
    made, errors = flow.build_images(it, engine, chosen, going, say)
    failed: dict[str, ImagegenError] = dict(errors)
    tested = []
    for built in made:
        try:
            tested.append(Tested(report=flow.checked(engine, built, options, say)))
        except ImagegenError as error:
            failed[built.image.target.id] = error
            say(str(error))
    return tested, failed


def _papers(engine: Docker, one: Tested, say: Say) -> tuple[bytes, bytes]:
    """SBOM and provenance of what was tested."""
    kept, built = flow.cache() / "papers", one.report.built
    return papers.bill(engine, built, kept), papers.provenance(engine, built, kept, say)


def _outcome(pushed: Pushed) -> Outcome:
    """The checks that a published image passed."""
    return Outcome(
        name=pushed.target.id,
        digest=pushed.digest,
        checks=pushed.record.checks,
        seconds=pushed.record.seconds,
        cached=pushed.cached,
    )
