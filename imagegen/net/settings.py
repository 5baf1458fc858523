"""How a network is reached: whom to trust, and which mirrors take the place of public servers."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path

from imagegen.errors import UsageError
from imagegen.model.target import HOST


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """Settings for closed and company networks. None of them ends up in a layer or in a key.

    ``ca`` is a file with a CA bundle; ``registry`` replaces docker.io for base images; the others
    are URLs, ``torch_index`` with ``{backend}`` where cu128 and the like belong.
    """

    ca: str = ""
    pypi_index: str = ""
    torch_index: str = ""
    apt_mirror: str = ""
    registry: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is built.

        Raises:
            UsageError: the CA bundle is not a PEM file, or a URL is none.
        """
        if self.ca:
            path = Path(self.ca)
            if not path.is_file():
                raise UsageError(f"{self.ca}: no such file", hint="--ca FILE, or SSL_CERT_FILE")
            if b"BEGIN CERTIFICATE" not in path.read_bytes():
                raise UsageError(
                    f"{self.ca} is not a CA bundle in PEM form",
                    hint="give --ca FILE, or unset SSL_CERT_FILE",
                )
        if "," in self.ca:
            raise UsageError(f"--ca {self.ca}: buildx takes no comma in the path of a secret")
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name.endswith(("index", "mirror")) and value and "://" not in value:
                # The value may hold a password: it is not repeated.
                raise UsageError(f"--{item.name.replace('_', '-')}: not a URL")
        if self.registry and not re.fullmatch(rf"{HOST}(?:/[a-z0-9._/-]+)?", self.registry):
            raise UsageError(
                f"--registry: {self.registry} is not a registry",
                hint="give host, host:port or host/path, without a scheme",
            )

    @property
    def secrets(self) -> dict[str, str]:
        """BuildKit secrets by id; the values of all but ``ca`` are texts, not files."""
        names = ("pypi_index", "torch_index", "apt_mirror")
        return {name: value for name in names if (value := getattr(self, name))}


def bundle(ca: str) -> str | bool:
    """The CA bundle to trust: the one given, or that of the environment, or the built-in one.

    Raises:
        UsageError: it is not there.
    """
    # requests itself knows all of these but SSL_CERT_FILE, which Python and pip know.
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    found = ca or next((value for name in names if (value := os.environ.get(name))), "")
    if found and not Path(found).exists():
        raise UsageError(f"the CA bundle {found} is not there")
    return found or True
