"""What the name of a server or an image says of where it is."""

from __future__ import annotations

import ipaddress
from contextlib import suppress


def registry_host(name: str) -> str:
    """The registry that an image's or a repository's name begins with; empty if with none, which is
    one of Docker Hub's.
    """
    host, slash, _ = name.partition("/")
    return host if slash and (set(".:") & set(host) or host == "localhost") else ""


def is_here(host: str) -> bool:
    """Whether a server is on this machine: those have no TLS."""
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host == "localhost"
