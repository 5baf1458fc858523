"""Tested -> Pushed: the image, a look at all of it, what is attached to it, and then the names."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from imagegen.errors import ImagegenError, Lost, RegistryError, UsageError
from imagegen.model.image import Image
from imagegen.model.pushed import Pushed
from imagegen.model.report import Report, Tested, moment
from imagegen.net.address import registry_host
from imagegen.net.registry import Descriptor, Refused, Repository
from imagegen.publish import remote
from imagegen.publish.remote import PROVENANCE, REPORT, SBOM, RemoteImage
from imagegen.publish.tags import age, move
from imagegen.util import parallel

if TYPE_CHECKING:
    from imagegen.engine.docker import Docker

log = logging.getLogger(__name__)


AT_ONCE = 3
"""Images that are sent at the same time: an engine sends several layers of each."""

PAUSES = (2.0, 8.0, 30.0)
"""Seconds before a push that broke off is taken up again; layers that arrived are not resent."""

LOOKS = (0.0, 1.0, 4.0)
"""Seconds before each look at what was attached: some registries list it a little later."""

PASSING = re.compile(
    r"toomanyrequests|too many requests|rate limit|\b(?:429|500|502|503|504)\b|connection re|EOF|"
    r"broken pipe|time-?out|timed out|closed network connection|server closed|connection lost|"
    r"blob (?:upload )?unknown|blob upload invalid|stream error|internal_error|no route to host|"
    r"network is unreachable|temporary failure|server misbehaving|tag does not exist|"
    r"\b(?:408|52[0-7])\b",
    re.IGNORECASE,
)
"""What an engine says of a registry whose fault may pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """A tested image on its way to a repository. ``aliases`` are further tags that it gets;
    ``sbom`` and ``provenance`` are JSON documents, empty where there is none.
    """

    tested: Tested
    repository: str
    aliases: tuple[str, ...] = ()
    sbom: bytes = b""
    provenance: bytes = b""

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.tested.name} to {self.repository}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PushResult:
    """What a push did: images that are there, and what kept the others from it, by name."""

    pushed: tuple[Pushed, ...]
    failed: Mapping[str, ImagegenError] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """An image that is whole in its repository, under its immutable tag; ``named`` says that it was
    just found under the target's tag, too.
    """

    repository: Repository
    pushed: Pushed
    seen: RemoteImage
    aliases: tuple[str, ...]
    named: bool = False


def push(
    engine: Docker,
    uploads: Sequence[Upload],
    *,
    published: Sequence[Published] = (),
    ca: str = "",
    move_back: bool = False,
) -> PushResult:
    """Push tested images; one that fails does not keep the others from it.

    Each image goes up under a tag that ends with its digest and never means anything else. It is
    read back, every layer is asked for, and its report is attached. When all images are there or
    have failed, the other tags are moved, the newest version last; ``published`` are images that
    were found in their repository, whose tags are moved likewise.

    Raises:
        UsageError: a repository names no registry.
    """
    for upload in uploads:
        named(upload.repository)
    jobs = [lambda upload=upload: deliver(engine, upload, ca=ca) for upload in uploads]
    outcomes = parallel.each(jobs, AT_ONCE)
    failed: dict[str, ImagegenError] = {}
    arrived = list(published)
    for upload, outcome in zip(uploads, outcomes, strict=True):
        if isinstance(outcome, Published):
            arrived.append(outcome)
        else:
            failed[upload.name] = outcome
            log.info(f"{upload.name} failed: {outcome}")
    done = point(arrived, move_back=move_back)
    return replace(done, failed={**failed, **done.failed})


def point(arrived: Sequence[Published], *, move_back: bool) -> PushResult:
    """Have the tags of images that are whole in their repository point to them, the newest last."""
    done: list[Pushed] = []
    failed: dict[str, ImagegenError] = {}
    for one in sorted(arrived, key=lambda one: age(one.pushed.target)):
        try:
            done.append(_named(one, move_back=move_back))
        except ImagegenError as error:
            failed[f"{one.pushed.target.id} to {one.pushed.repository}"] = error
            log.info(f"{one.pushed.target.id}: {error}")
    return PushResult(pushed=tuple(done), failed=failed)


def found(repository: Repository, image: Image, aliases: Sequence[str]) -> Published | None:
    """The image as it was published under its target's tag; None where that is another image, or
    one that no passing report is beside.

    Raises:
        RegistryError: the registry does not answer properly.
    """
    try:
        seen = remote.see(repository, image.target.tag)
    except Lost:
        return None
    if seen is None or seen.labels.get("imagegen.key") != image.key:
        return None
    if seen.top is not seen.manifest:  # an index of somebody's: more than what was tested
        return None
    if not all(repository.has(layer.digest) for layer in seen.layers):
        return None
    kept = remote.passing(repository, seen.manifest.digest)
    if kept is None:
        return None
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(kept.at))
    ref = f"{repository.name}:{remote.tags(image.target, kept.digest)[0]}"
    why = f"already published: {ref}, tested {at} (--force makes it anew)"
    pushed = replace(remote.of(repository, image.target, seen, kept), cached=why)
    return Published(
        repository=repository, pushed=pushed, seen=seen, aliases=tuple(aliases), named=True
    )


def named(repository: str) -> None:
    """Refuse a repository without a registry: docker would take it for one of Docker Hub's.

    Raises:
        UsageError: with the forms that do.
    """
    if not registry_host(repository):
        raise UsageError(
            f"{repository} names no registry",
            hint="--repository ghcr.io/me/finetune, or docker.io/me/finetune for Docker Hub",
        )


def deliver(engine: Docker, upload: Upload, *, ca: str = "") -> Published:
    """Have an image, whole and with its report, under its immutable tag.

    Raises:
        RegistryError: the registry failed, or has other bytes than were tested.
    """
    start = time.monotonic()
    built = upload.tested.built
    target, digest = built.image.target, built.digest
    repository = Repository(upload.repository, ca=ca)
    own = remote.tags(target, digest)[0]
    ref = f"{upload.repository}:{own}"
    try:
        sent = repository.digest(own) != digest
    except Refused:  # there may be no such repository before the first push: that decides
        sent = True
    if sent:
        log.info(f"pushing {ref}")
        _sent(engine, digest, upload.repository, own)
    try:
        seen = _read_back(repository, own, digest)
    except Lost as lost:
        log.info(f"{lost}; sending it again")
        sent = True
        _sent(engine, digest, upload.repository, own)
        seen = _read_back(repository, own, digest)
    _attach(repository, upload, seen.descriptor)
    report = remote.passing(repository, digest)
    if report is None:
        raise RegistryError(f"{ref}: the registry lost its report; no other tag was moved")
    log.info(f"{ref}: {digest}, as built and tested")
    pushed = replace(
        remote.of(repository, target, seen, report), sent=sent, seconds=time.monotonic() - start
    )
    return Published(repository=repository, pushed=pushed, seen=seen, aliases=upload.aliases)


def _attach(repository: Repository, upload: Upload, subject: Descriptor) -> None:
    """Have report, SBOM and provenance refer to the image, before it has a name that people use.

    Raises:
        Lost: the registry takes them and does not keep them.
    """
    kept = upload.tested.report
    report = kept.document(upload.tested.built.image.target.promise)
    about = {"org.opencontainers.image.created": moment(kept.at)}
    none: dict[str, str] = {}
    documents = (
        (REPORT, report, about),
        (SBOM, upload.sbom, none),
        (PROVENANCE, upload.provenance, none),
    )
    attached = _attached(repository, kept)
    for pause in LOOKS:
        todo = [one for one in documents if one[1] and one[0] not in attached]
        if not todo:
            return
        for one in todo:
            repository.attach(subject, *one)
        time.sleep(pause)
        attached = _attached(repository, kept)
    if any(one[1] and one[0] not in attached for one in documents):
        raise Lost(f"{upload.repository}: the registry lost what was attached to {subject.digest}")


def _attached(repository: Repository, mine: Report) -> set[str]:
    """Kinds of documents beside an image that are there to the last blob; a report only if it lets
    the image be published, and is of no less than ours.
    """
    rows = repository.referrers(mine.digest)
    kinds = {row.artifact_type for row in rows if repository.whole(row)}
    covered = any(one.covers(mine.asked) for one in remote.reports(repository, mine.digest))
    return kinds if covered else kinds - {REPORT}


def _sent(engine: Docker, digest: str, repository: str, tag: str) -> None:
    """The engine's push, taken up again where the registry's fault may pass."""
    for pause in (*PAUSES, None):
        try:
            engine.push(digest, repository, tag)
        except RegistryError as error:
            if pause is None or not PASSING.search(str(error)):
                raise
            log.info(f"{repository}:{tag}: {error}; again in {pause:.0f} s")
            time.sleep(pause)
        else:
            return


def _read_back(repository: Repository, tag: str, digest: str) -> RemoteImage:
    """What was pushed, as the registry serves it.

    Raises:
        Lost: the registry does not have all that it took.
        RegistryError: it has something else.
    """
    name = f"{repository.name}:{tag}"
    seen = remote.see(repository, tag)
    if seen is not None and seen.top.digest != digest:
        raise RegistryError(
            f"{name}: pushed {digest}, but the registry holds {seen.top.digest}",
            hint="something between here and the registry rewrites images",
        )
    layers = seen.layers if seen else ()
    missing = [layer.digest for layer in layers if not repository.has(layer.digest)]
    if seen is None or missing:
        what = ", ".join(missing) or "its manifest"
        raise Lost(
            f"{name}: the registry lost {what} after it took it",
            hint="look at the registry's storage; the next push sends what is missing",
        )
    return seen


def _named(one: Published, *, move_back: bool) -> Pushed:
    """Move the target's tag, then its aliases."""
    pushed, mine = one.pushed, age(one.pushed.target)
    moved, kept, names = [], [], []
    for tag in (*([] if one.named else [pushed.target.tag]), *one.aliases):
        outcome = move(one.repository, tag, one.seen.top, mine, move_back=move_back)
        if outcome.how == "kept":
            kept.append(outcome.why)
        elif tag != pushed.target.tag:
            names.append(f"{pushed.repository}:{tag}")
        if outcome.how == "moved":
            moved.append(tag)
    cached = pushed.cached
    if cached and moved:
        cached = f"{cached}; {', '.join(moved)} moved to it"
    return replace(
        pushed, aliases=tuple(names), moved=tuple(moved), kept=tuple(kept), cached=cached
    )
