"""A registry on this machine: Debian's and Ubuntu's docker-registry in a container."""

from __future__ import annotations

import logging
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.build import bake
from imagegen.build.base import Base
from imagegen.errors import EngineError, RegistryError
from imagegen.net import settings
from imagegen.util.files import context_image

if TYPE_CHECKING:
    from imagegen.engine.docker import Docker

log = logging.getLogger(__name__)

NAME = "imagegen-registry"
PORT = 5000
"""Inside the container; outside, a free port of 127.0.0.1 is taken once and kept."""

PATIENCE = 30.0


def image(base: Base) -> str:
    """The local name of the registry's image."""
    return f"imagegen/registry:{base.reference.rpartition(':')[2]}"


def build(engine: Docker, base: Base, network: settings.Network) -> str:
    """Build the registry's image on a bootstrapped base; returns its local name."""
    name = image(base)
    local = engine.local(name)
    if local is None or local.labels.get("imagegen.base") != base.digest:
        log.info(f"building {name}")
        engine.bake(_document(name, base, network), bake.environment(network.secrets))
    return name


def start(engine: Docker, base: Base, network: settings.Network) -> str:
    """Have the registry run; returns ``127.0.0.1:PORT``. What it holds stays in a volume.

    Raises:
        RegistryError: it did not answer in time.
    """
    name = build(engine, base, network)
    port = engine.service_port(NAME, PORT)
    if port is None:  # none, or not running
        port = free_port()
        engine.service(NAME, name, port=PORT, host_port=port, volume=NAME)
        log.info(f"registry {NAME} at 127.0.0.1:{port} (docker rm -f {NAME} removes it)")
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            # Through the engine: it is the engine that must reach the registry, wherever it runs.
            engine.remote_digest(f"127.0.0.1:{port}/imagegen/none:none")
            return f"127.0.0.1:{port}"
        except (RegistryError, EngineError):
            time.sleep(0.2)
    raise RegistryError(
        f"the registry at 127.0.0.1:{port} does not answer", hint=f"docker logs {NAME}"
    )


def _document(name: str, base: Base, network: settings.Network) -> dict[str, object]:
    return {
        "target": {
            "default": {
                "context": str(Path(__file__).parent),
                "contexts": {"image": str(context_image())},
                "args": {"BASE": base.reference},
                "labels": {"imagegen.base": base.digest},
                "secret": bake.secrets(network),
                "output": [f"type=image,name={name},unpack=true"],
                "attest": ["type=provenance,disabled=true"],
            }
        }
    }


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
