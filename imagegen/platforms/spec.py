"""A template as it should be, and what the caller decides about it: values, the same for every
platform, made only of what is in a registry.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from imagegen.model.pushed import Pushed

GB = 10**9
WORKING_SPACE = 30
"""GB of disk beside the image: a model's weights, a data set, a few checkpoints."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What the caller decides about a template: ``registry`` is the id of a registry's login."""

    prefix: str = ""
    public: bool = False
    registry: str = ""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A template as it should be.

    ``requests`` is all that would be sent, by request. ``body`` is the POST that makes it;
    ``readme`` and ``labels``, by port, are what the platform takes by another request.
    """

    platform: str
    target: str
    name: str
    image: str
    compressed: int
    unpacked: int
    body: Mapping[str, object]
    requests: Mapping[str, object]
    readme: str = ""
    labels: tuple[tuple[int, str], ...] = ()

    @classmethod
    def of(cls, platform: str, pushed: Pushed, body: Mapping[str, object], **more: Any) -> Spec:
        """Of a pushed image; ``more`` are further fields."""
        return cls(
            platform=platform,
            target=pushed.target.id,
            name=str(body["name"]),
            image=pushed.pinned,
            compressed=pushed.compressed,
            unpacked=pushed.unpacked,
            body=body,
            **more,
        )

    @cached_property
    def content(self) -> str:
        """A sha256 over all that is sent."""
        return hashed([self.body, self.readme, self.labels])


def hashed(value: object) -> str:
    """A sha256 over a value of JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def disk(pushed: Pushed) -> int:
    """GB that a pod needs: the layers as pulled, the file system they unpack to, and room."""
    return math.ceil((pushed.compressed + pushed.unpacked) / GB) + WORKING_SPACE
