"""How to build, test and push: settings that a command line gives, and no matrix."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from imagegen.errors import UsageError
from imagegen.model.image import Compression
from imagegen.model.report import Asked
from imagegen.model.target import REPOSITORY
from imagegen.net import settings

BaseFrom = Literal["pull", "bootstrap"]
"""Where a base image comes from: a registry, or this machine's own packages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How to build: settings that do not decide what is in an image."""

    network: settings.Network = field(default_factory=settings.Network)
    base: BaseFrom = "pull"
    fresh_base: bool = False
    builder: str = ""
    keep_going: bool = False
    asked: Asked = field(default_factory=Asked)
    again: bool = False
    force: bool = False
    repositories: tuple[str, ...] = ()
    compression: Compression = "zstd"
    move_back: bool = False
    wheels: str = ""
    jobs: int = 0
    no_source: bool = False

    def __post_init__(self) -> None:
        """Refuse a repository that is none.

        Raises:
            UsageError: it has a tag, a digest, a scheme or capitals.
        """
        for repository in self.repositories:
            if not re.fullmatch(REPOSITORY, repository):
                raise UsageError(
                    f"--repository: {repository} is not the name of a repository",
                    hint="host/name in small letters, without tag: ghcr.io/me/finetune",
                )
