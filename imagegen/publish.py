"""Tested -> Pushed: push, read back from the registry, and only then move the names."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from imagegen.errors import RegistryError, UsageError
from imagegen.model import Pushed, Tested
from imagegen.proc import Say

if TYPE_CHECKING:
    from imagegen.engine import Docker


def push(engine: Docker, images: Sequence[tuple[Tested, str]], say: Say) -> tuple[Pushed, ...]:
    """Push tested images, each to its repository, by the digest that was tested.

    First every image goes up under a tag that ends with its digest and never means anything else,
    and is compared. Only when all are there, the targets' own tags are pointed to them. A name that
    has the digest already is left alone.

    Raises:
        RegistryError: the registry failed, or has other bytes than were tested; the message says
            which of the targets' tags were moved before, if any.
        UsageError: a repository names no registry.
    """
    for _, repository in images:
        named(repository)
    start = time.monotonic()
    sent = [_upload(engine, one, f"{to}:{_tags(one)[0]}", say) for one, to in images]
    found = [find(engine, one, to) for one, to in images]
    done: list[Pushed] = []
    for (one, to), up, held in zip(images, sent, found, strict=True):
        ref = f"{to}:{_tags(one)[1]}"
        try:
            before = _there(engine, ref)
            moved = _upload(engine, one, ref, say)
        except RegistryError as error:
            names = ", ".join(pushed.refs[1] for pushed in done) or "none"
            raise RegistryError(f"{error} (tags moved before: {names})", hint=error.hint) from error
        again = (_tags(one)[1],) if moved and before else ()
        seconds = time.monotonic() - start
        done.append(replace(held, moved=again, sent=up or moved, seconds=seconds))
    return tuple(done)


def named(repository: str) -> None:
    """Refuse a repository without a registry: docker would take it for one of Docker Hub's.

    Raises:
        UsageError: with the forms that do.
    """
    host, slash, _ = repository.partition("/")
    if not slash or not (set(".:") & set(host) or host == "localhost"):
        raise UsageError(
            f"{repository} names no registry to push to",
            hint="--repository ghcr.io/me/finetune, or docker.io/me/finetune for Docker Hub",
        )


def _upload(engine: Docker, tested: Tested, ref: str, say: Say) -> bool:
    """Have ``ref`` be the tested digest in its registry; returns whether it was not already."""
    digest = tested.report.built.digest
    if _there(engine, ref) == digest:
        say(f"{ref}: already there")
        return False
    say(f"pushing {ref}")
    repository, _, tag = ref.rpartition(":")
    engine.push(digest, repository, tag, say)
    read = engine.remote_digest(ref)
    if read != digest:
        raise RegistryError(
            f"{ref}: pushed {digest}, but the registry holds {read}",
            hint="something between here and the registry rewrites images",
        )
    say(f"{ref}: {digest}, as built and tested")
    return True


def _there(engine: Docker, ref: str) -> str | None:
    """The digest under ``ref`` before a push. Registries refuse to talk of a repository that the
    first push would create, so a refusal here says nothing: the push itself decides.
    """
    try:
        return engine.remote_digest(ref)
    except RegistryError:
        return None


def find(engine: Docker, tested: Tested, repository: str) -> Pushed:
    """The tested image as the registry has it under the tag of its own.

    Raises:
        RegistryError: it is not there, or there are other bytes.
    """
    digest = tested.report.built.digest
    tags = _tags(tested)
    ref = f"{repository}:{tags[0]}"
    manifest = engine.manifest(ref)
    if manifest.digest != digest:
        raise RegistryError(f"{ref} is {manifest.digest}, not the tested {digest}")
    return Pushed(
        tested=tested,
        repository=repository,
        digest=digest,
        refs=tuple(f"{repository}:{tag}" for tag in tags),
        moved=(),
        sent=False,
        layers=manifest.layers,
        seconds=0.0,
    )


def _tags(tested: Tested) -> tuple[str, str]:
    """The tag that never means anything else, and the target's tag, which moves."""
    built = tested.report.built
    own = built.digest.removeprefix("sha256:")[:12]
    return f"{built.image.target.tag}-{own}", built.image.target.tag
