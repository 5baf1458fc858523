"""How each distribution gets an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How one distribution is served. ``release``, ``release_version`` and ``home`` are set where
    its own engine is too old: the later release to take it from, and the one whose archive also
    holds that. ``client`` is empty where the client comes with the engine's package; there the
    plugins depend on the engine too.
    """

    engine: tuple[str, ...]
    client: tuple[str, ...]
    buildx: str
    compose: str
    daemon: str
    release: str = ""
    release_version: str = ""
    home: str = ""


DEBIAN = Recipe(
    engine=("docker.io", "containerd"),
    client=("docker-cli",),
    buildx="docker-buildx",
    compose="docker-compose",
    daemon="/usr/sbin/dockerd",
)
UBUNTU = Recipe(
    engine=("docker.io",),
    client=(),
    buildx="docker-buildx",
    compose="docker-compose-v2",
    daemon="/usr/bin/dockerd",
)
RECIPES: Mapping[tuple[str, str], Recipe] = {
    # bookworm has engine 20.10 and no buildx
    ("debian", "12"): replace(DEBIAN, release="trixie", release_version="13", home="bookworm"),
    ("debian", "13"): DEBIAN,
    ("ubuntu", "22.04"): UBUNTU,
    ("ubuntu", "24.04"): UBUNTU,
}
ELSEWHERE: Mapping[str, str] = {
    "alpine": "apk add docker docker-cli-buildx docker-cli-compose",
    "arch": "pacman -S docker docker-buildx docker-compose",
    "fedora": "dnf install moby-engine docker-buildx docker-compose",
}
"""For a person to paste, where doctor itself does not act: nobody has tried these with it."""
