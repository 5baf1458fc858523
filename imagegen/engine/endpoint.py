"""Where the engine is, and whether it can do what imagegen needs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from imagegen.doctor import model
from imagegen.errors import EngineError
from imagegen.util import process


def endpoint() -> str:
    """Where the docker command would go: DOCKER_HOST, else the current context's endpoint."""
    if host := os.environ.get("DOCKER_HOST"):
        return host
    with contextlib.suppress(EngineError):
        template = "{{.Endpoints.docker.Host}}"
        return process.run("docker", "context", "inspect", "--format", template, timeout=10).strip()
    return "unix:///var/run/docker.sock"


def usable(info: Mapping[str, Any], version: str) -> None:
    """What an engine says of itself (``/info``, and its version) is enough.

    Raises:
        EngineError: it is too old, or lacks the containerd image store.
    """
    if (model.version(version) or model.MIN_ENGINE) < model.MIN_ENGINE:
        raise EngineError(
            f"Docker Engine {version} is too old: {model.MIN_ENGINE} or later is needed",
            hint="imagegen doctor shows the commands that bring a newer one",
        )
    if ["driver-type", "io.containerd.snapshotter.v1"] not in (info.get("DriverStatus") or []):
        raise EngineError(
            "the engine does not use the containerd image store, without which the tested "
            "bytes are not the pushed bytes",
            hint="imagegen doctor shows the setting; it changes nothing of an engine that runs",
        )
