"""Images as registries hold them: read back, and followed on their way there."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import docker.errors

from imagegen import proc
from imagegen.errors import EngineError, RegistryError
from imagegen.model import Layer
from imagegen.proc import Say


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """An image as a registry holds it."""

    digest: str
    layers: tuple[Layer, ...]


def manifest(ref: str) -> Manifest:
    """The manifest of ``ref`` as its registry serves it; the digest is of those bytes.

    Raises:
        RegistryError: the registry did not answer or has no such image.
    """
    try:
        raw = proc.run("docker", "buildx", "imagetools", "inspect", "--raw", ref, timeout=120)
        config = json.loads(
            proc.run(
                *("docker", "buildx", "imagetools", "inspect", ref),
                *("--format", "{{json .Image}}"),
                timeout=120,
            )
        )
    except EngineError as error:
        raise RegistryError(f"{ref} could not be read back: {error}") from error
    made = [row for row in config.get("history", []) if not row.get("empty_layer")]
    layers = json.loads(raw)["layers"]
    steps = [row.get("created_by", "") for row in made] if len(made) == len(layers) else []
    return Manifest(
        digest=f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}",
        layers=tuple(
            Layer(
                digest=row["digest"],
                compressed=row["size"],
                created_by=steps[i] if steps else "",
            )
            for i, row in enumerate(layers)
        ),
    )


def follow(events: Iterator[Mapping[str, Any]], say: Say) -> None:
    """Say how much of a push is done, every few seconds; docker-py returns normally on failure.

    Raises:
        docker.errors.APIError: the engine reported an error in the stream.
    """
    sent: dict[str, int] = {}
    total: dict[str, int] = {}
    last = time.monotonic()
    for event in events:
        if words := event.get("error"):
            raise docker.errors.APIError(words, explanation=words)
        detail, layer = event.get("progressDetail") or {}, str(event.get("id", ""))
        if detail.get("total"):
            sent[layer], total[layer] = detail.get("current", 0), detail["total"]
        if time.monotonic() - last > 3 and total:
            last = time.monotonic()
            say(f"pushed {sum(sent.values()) / 1e6:,.0f} of {sum(total.values()) / 1e6:,.0f} MB")
