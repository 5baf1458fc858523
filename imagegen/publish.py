"""Tested -> Pushed: push, read back from the registry, and only then move the name."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from imagegen.errors import RegistryError
from imagegen.model import Image, Pushed, Tested
from imagegen.proc import Say

if TYPE_CHECKING:
    from imagegen.engine import Docker


def push(engine: Docker, tested: Tested, repository: str, say: Say) -> Pushed:
    """Push the tested bytes under a tag of their own, compare, then point the target's tag to them.

    The first tag ends with the image's key and never means anything else. Where the registry
    already has the digest under a name, that name is left alone.

    Raises:
        RegistryError: the registry failed, or has other bytes than were tested. No name moved.
    """
    start = time.monotonic()
    built = tested.report.built
    image, digest = built.image, built.digest
    moved, sent = [], False
    for tag in _tags(image):
        ref = f"{repository}:{tag}"
        before = engine.remote_digest(ref)
        if before == digest:
            say(f"{ref}: already there")
            continue
        say(f"pushing {ref}")
        sent = True
        engine.push(image.ref, repository, tag, say)
        read = engine.remote_digest(ref)
        if read != digest:
            raise RegistryError(
                f"{ref}: pushed {digest}, but the registry holds {read}",
                hint="something between here and the registry rewrites images",
            )
        say(f"{ref}: {digest}, as built and tested")
        if before:
            moved.append(tag)
    found = find(engine, tested, repository)
    return replace(found, moved=tuple(moved), sent=sent, seconds=time.monotonic() - start)


def find(engine: Docker, tested: Tested, repository: str) -> Pushed:
    """The tested image as the registry has it under the tag of its own.

    Raises:
        RegistryError: it is not there, or there are other bytes.
    """
    built = tested.report.built
    tags = _tags(built.image)
    ref = f"{repository}:{tags[0]}"
    manifest = engine.manifest(ref)
    if manifest.digest != built.digest:
        raise RegistryError(f"{ref} is {manifest.digest}, not the tested {built.digest}")
    return Pushed(
        tested=tested,
        repository=repository,
        digest=built.digest,
        refs=tuple(f"{repository}:{tag}" for tag in tags),
        moved=(),
        sent=False,
        layers=manifest.layers,
        seconds=0.0,
    )


def _tags(image: Image) -> tuple[str, str]:
    """The tag that never means anything else, and the target's tag, which moves."""
    return f"{image.target.tag}-{image.key[:12]}", image.target.tag
