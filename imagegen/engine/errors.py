"""What goes wrong with an engine, a registry or a build, as errors of our own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import docker
import docker.errors
import requests.exceptions
import urllib3.exceptions

from imagegen.errors import BuildError, EngineError, RegistryError
from imagegen.net.address import registry_host

FOREIGN = (
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,  # what docker-py's streams raise
    OSError,
)
"""What talking to an engine can raise."""

DENIED = ("unauthorized", "denied", "no basic auth", "authentication required")

HINTS = (
    (
        "unknown command: docker buildx|is not a docker command|unknown flag: --progress",
        "docker has no buildx: imagegen doctor --fix installs it",
    ),
    (
        "failed to resolve source metadata",
        "the base image could not be pulled: --registry names a mirror of docker.io, "
        "--base bootstrap makes the base from this machine's own packages",
    ),
    ("no space left", "the disk is full: docker system df shows what takes the space"),
    (
        "certificate.verif|UnknownIssuer|self.signed|unable to get local issuer",
        "behind a proxy that opens TLS, give its CA bundle: --ca FILE",
    ),
    (
        "do not match the hashes|hash mismatch|hash sum mismatch",
        "an index broke off or served other bytes than the lock names: run the command again, and "
        "if it stays so do not use that index (--pypi-index names another)",
    ),
    (
        "no matching distribution|404 |connection|incomplete|timed? ?out|"
        "failed to (download|fetch)|could not resolve|error sending request",
        "an index did not deliver: run the command again, or name a mirror "
        "(--pypi-index, --torch-index, --apt-mirror)",
    ),
)
"""What a failed build's output says -> what to do. The first that matches counts."""


def reason(error: BaseException) -> str:
    """The innermost words of a chain of wrapped errors."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) or type(error).__name__


def explanation(error: BaseException) -> str:
    """The engine's own words where there are any."""
    if isinstance(error, docker.errors.APIError):
        return str(error.explanation or error)
    return reason(error)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """The exceptions of docker-py and of what it stands on, as ours."""
    try:
        yield
    except FOREIGN as error:
        words = explanation(error)
        no_gpu = "could not select device driver" in words
        hint = "this engine has no NVIDIA runtime: run GPU checks on a GPU machine" * no_gpu
        raise EngineError(f"{doing}: {words}", hint=hint) from error


@contextmanager
def registry_errors(ref: str) -> Iterator[None]:
    """The same, while a registry is spoken to through the engine."""
    host = registry_host(ref) or "docker.io"
    try:
        yield
    except FOREIGN as error:
        words = explanation(error)
        if any(word in words.lower() for word in DENIED):
            raise RegistryError(
                f"{host} refused the login for {ref}: {words}", hint=f"docker login {host}"
            ) from error
        raise RegistryError(
            f"{ref}: {words}",
            hint=f"is the registry at {host} up? {ref} was not moved; run the command again",
        ) from error


def build_error(last: Sequence[str]) -> BuildError:
    """The part of a failed build's output that says why: the failed step's, and the last errors.

    BuildKit repeats the step's end between two rules, then quotes the Dockerfile, then sums up.
    """
    rules = [i for i, line in enumerate(last) if line == "------"]
    step = last[rules[-2] + 1 : rules[-1]] if len(rules) > 1 else []
    errors = [line for line in last[-5:] if line.startswith("ERROR: ")]
    said = [line[:500] for line in (*step[-40:], *(errors or last[-5:]))]
    text = "\n".join(said)
    hint = next((hint for words, hint in HINTS if re.search(words, text, re.IGNORECASE)), "")
    return BuildError(f"the build failed\n{text}", hint=hint)
