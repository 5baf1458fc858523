"""Pushed -> the templates that make it a pod: pure, and only for what is in a registry."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

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
    """A template as it should be: ``body`` is what is POSTed, the rest what the ledger remembers.

    ``readme`` and ``labels`` are what RunPod takes by GraphQL alone; vast.ai's are in the body.
    """

    platform: str
    target: str
    name: str
    image: str
    compressed: int
    unpacked: int
    body: Mapping[str, object]
    readme: str = ""
    labels: tuple[tuple[int, str], ...] = ()

    @cached_property
    def content(self) -> str:
        """A sha256 over all that is sent."""
        return _hash([self.body, self.readme, self.labels])

    @property
    def second(self) -> dict[str, object]:
        """What only GraphQL takes, in SaveTemplateInput's words; empty for vast.ai."""
        if self.platform != "runpod":
            return {}
        ports = [{"port": str(port), "name": name} for port, name in self.labels]
        return {"readme": self.readme, "portsConfig": ports}

    @property
    def shown(self) -> dict[str, object]:
        """What would be sent, request by request."""
        if self.platform == "runpod":
            return {"POST /v2/templates": self.body, "saveTemplate": self.second}
        return {"POST /api/v0/template/": self.body}


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def disk(pushed: Pushed) -> int:
    """GB that a pod needs: the layers as pulled, the file system they unpack to, and room."""
    return math.ceil((pushed.compressed + pushed.unpacked) / GB) + WORKING_SPACE
