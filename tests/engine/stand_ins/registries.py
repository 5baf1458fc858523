"""A real registry that can be killed, filled up, or robbed of a blob, and goes on with its data."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from imagegen.publish.local_registry.server import PORT, free_port
from imagegen.util import process

DATA = "/var/lib/registry"
BLOBS = f"{DATA}/docker/registry/v2/blobs/sha256"
REPOSITORIES = f"{DATA}/docker/registry/v2/repositories"
PATIENCE = 30.0
"""Seconds that a registry may take to answer after its start."""

FILL = f"""\
free=$(df --block-size=1 --output=avail {DATA} | tail -n 1)
fallocate --length $((free - $1)) {DATA}/filler
"""


class Registry:
    """A registry in a container of the engine; ``host`` is its host:port, the same for good."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.host = name, f"127.0.0.1:{port}"

    def kill9(self) -> None:
        """The process dies at once; what the kernel has of its files stays."""
        docker("kill", "--signal=KILL", self.name)

    def start(self) -> None:
        """Start it again on the same data, and wait until it answers."""
        docker("start", self.name)
        self.wait()

    def wait(self) -> None:
        """Until it answers.

        Raises:
            TimeoutError: it does not.
        """
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                requests.get(f"http://{self.host}/v2/", timeout=5)
                return
            except requests.ConnectionError:
                time.sleep(0.02)
        raise TimeoutError(f"the registry {self.name} does not answer")

    def fill(self, leave: int) -> None:
        """Use up the disk but for ``leave`` bytes, for a registry with a limited one."""
        docker("exec", self.name, "sh", "-euc", FILL, "sh", str(leave))

    def free(self) -> None:
        """Give back what ``fill`` took."""
        docker("exec", self.name, "rm", "--force", f"{DATA}/filler")

    def lose(self, digest: str) -> None:
        """Remove the bytes of a blob or a manifest from the storage; what names it still does."""
        _, _, sha = digest.partition(":")
        docker("exec", self.name, "rm", "--recursive", f"{BLOBS}/{sha[:2]}/{sha}")

    def emptied(self) -> list[str]:
        """Files of the storage that a write without space, or a kill, left without a byte.

        CNCF Distribution 2.8 empties a file before it writes it anew. It takes an empty manifest
        for one that it has, and never writes it again: only its operator can help.
        """
        names = ["-path", "*/blobs/*/data", "-o", "-path", "*/link"]
        words = ["find", DATA, "-type", "f", "-size", "0", "(", *names, ")"]
        return docker("exec", self.name, *words).splitlines()

    def naming(self, digest: str) -> list[str]:
        """The files of tags that name a digest, in every repository."""
        words = ["grep", "--recursive", "--files-with-matches", "--include=link", digest]
        rows = docker("exec", self.name, "sh", "-c", '"$@" || true', "sh", *words, REPOSITORIES)
        return [row for row in rows.splitlines() if row.endswith("/current/link")]

    def remove(self, files: list[str]) -> None:
        """What its operator does about these files."""
        docker("exec", self.name, "rm", "--force", *files)


@contextmanager
def registry(image: str, *, disk: int = 0) -> Iterator[Registry]:
    """A registry of ``image``, empty, gone with its data after the block.

    ``disk`` limits it to so many bytes, in memory: such a one forgets everything when it is killed.
    """
    one = Registry(f"imagegen-faults-{secrets.token_hex(4)}", free_port())
    port = f"{one.host}:{PORT}"
    limit = [f"--tmpfs={DATA}:size={disk}"] if disk else []
    docker("run", "--detach", f"--name={one.name}", f"--publish={port}", *limit, image)
    try:
        one.wait()
        yield one
    finally:
        docker("rm", "--force", "--volumes", one.name)


def docker(*words: str) -> str:
    """The command that people type, of the first engine."""
    return process.run("docker", *words, timeout=60).strip()
