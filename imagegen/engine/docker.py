"""The container engine: the only place that speaks to Docker, by docker-py and by buildx."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors

from imagegen.engine import container, endpoint, progress
from imagegen.engine.archive import layers, statement
from imagegen.engine.container import OWN, Box, Start
from imagegen.engine.errors import FOREIGN, build_error, reason, registry_errors, translated
from imagegen.errors import EngineError, RegistryError
from imagegen.model.image import Layer
from imagegen.util import process
from imagegen.util.process import Ran

NOT_THERE = ("not found", "manifest unknown", "name unknown")


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalImage:
    """An image in the engine's store."""

    digest: str
    labels: Mapping[str, str]


PATIENCE = 600
"""Seconds that the engine may take for an answer; a registry that is slow to answer it included."""


class Docker:
    """An engine that answers and can do what imagegen needs."""

    def __init__(self, client: docker.DockerClient, version: str = "") -> None:
        """``version`` is how the engine calls itself."""
        self._client, self.version = client, version

    @classmethod
    def connect(cls) -> Docker:
        """The engine of DOCKER_HOST, of the current docker context, or of the default socket.

        Raises:
            EngineError: none answers, it is too old, or it lacks the containerd image store.
        """
        where = endpoint.endpoint()
        try:
            if "DOCKER_HOST" in os.environ:  # and the TLS settings that go with it
                client = docker.from_env(timeout=10)
            else:
                client = docker.DockerClient(base_url=where, timeout=10)
            info, version = client.info(), client.version()["Version"]
        except FOREIGN as error:
            raise EngineError(
                f"no container engine answers at {where}: {reason(error)}",
                hint="imagegen doctor says what is wrong and what to do about it",
            ) from error
        try:
            endpoint.usable(info, version)
        except EngineError:
            client.close()
            raise
        client.api.timeout = PATIENCE
        return cls(client, f"Docker Engine {version}")

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    # --- images -----------------------------------------------------------------------------------

    def local(self, ref: str) -> LocalImage | None:
        """The image ``ref`` in the engine's store."""
        with translated(f"looking at {ref}"):
            try:
                attrs = self._client.images.get(ref).attrs
            except docker.errors.ImageNotFound:
                return None
        return LocalImage(digest=attrs["Id"], labels=attrs["Config"].get("Labels") or {})

    def pulled(self, ref: str) -> str:
        """The digest of ``ref``, which is pulled unless it is here.

        Raises:
            RegistryError: its registry did not answer, refused the login, or has no such image.
        """
        local = self.local(ref)
        if local is None:
            with registry_errors(ref):
                progress.follow(self._client.api.pull(ref, stream=True, decode=True))
            local = self.local(ref)
        if local is None:
            raise RegistryError(f"{ref} was pulled and is not here")
        return local.digest

    def load(self, archive: Path, ref: str, digest: str) -> None:
        """Load the OCI archive unless ``ref`` already is that digest.

        Raises:
            EngineError: what was loaded has another digest.
        """
        local = self.local(ref)
        if local is None or local.digest != digest:
            with translated(f"loading {archive}"), archive.open("rb") as file:
                self._client.images.load(file)
            local = self.local(ref)
        if local is None or local.digest != digest:
            raise EngineError(f"{archive} loaded as {local and local.digest}, expected {digest}")

    def bake(
        self,
        document: Mapping[str, object],
        environment: Mapping[str, str] | None = None,
        *,
        builder: str = "",
    ) -> None:
        """Build every target of a bake definition.

        ``environment`` is added to this process's own: the texts of secrets that it names.

        Raises:
            BuildError: with the step that failed and the end of its output.
        """
        with tempfile.TemporaryDirectory() as work:
            definition = Path(work) / "bake.json"
            definition.write_text(json.dumps(document))
            code, last = process.stream(
                *("docker", "buildx", "bake", "--progress=plain"),
                *(("--builder", builder) if builder else ()),
                *("--file", definition),
                doing="building",
                env={
                    **(environment or {}),
                    "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
                    # The definition is ours, and its files lie wherever imagegen and the CA do.
                    "BUILDX_BAKE_ENTITLEMENTS_FS": "0",
                },
            )
        if code:
            raise build_error(last)

    def remove(self, ref: str) -> None:
        """Remove the local name ``ref``, and the image when it was its last."""
        with translated(f"removing {ref}"), contextlib.suppress(docker.errors.ImageNotFound):
            self._client.images.remove(ref, force=True)

    def need_disk(self, needed: int) -> None:
        """Refuse to begin a build that cannot end. An engine on another machine is not asked.

        Raises:
            EngineError: fewer than ``needed`` bytes are free where the engine keeps images.
        """
        with translated("asking the engine"):
            root = Path(self._client.info()["DockerRootDir"])
        if root.is_dir() and (free := shutil.disk_usage(root).free) < needed:
            raise EngineError(
                f"{needed / 1e9:.0f} GB are needed under {root}, {free / 1e9:.0f} GB are free",
                hint="docker system df shows what takes the space, docker system prune frees it",
            )

    def unpacked(self, ref: str) -> int:
        """Bytes of the file system of ``ref``, the sum over its layers."""
        return sum(self.layers(ref))

    def layers(self, ref: str) -> tuple[int, ...]:
        """Bytes that each step of the local image ``ref`` unpacks to, the newest first."""
        with translated(f"history of {ref}"):
            return tuple(int(row["Size"]) for row in self._client.images.get(ref).history())

    def stored(self, ref: str) -> tuple[Layer, ...]:
        """The layers of the local image ``ref`` as a push sends them, the oldest first.

        Reads the whole image out of the engine: some 50 MB a second.

        Raises:
            EngineError: it is not here, or its archive breaks off.
        """
        with translated(f"reading the layers of {ref}"):
            chunks = self._client.images.get(ref).save(chunk_size=1 << 20)
            return layers(chunks, self.layers(ref)[::-1])

    def statement(self, ref: str, digest: str) -> bytes:
        """The in-toto statement about the image ``digest`` in the local index ``ref``.

        Reads the whole image out of the engine: some 50 MB a second.

        Raises:
            EngineError: it is not here, or there is no statement about that image.
        """
        with translated(f"reading the provenance of {digest}"):
            chunks = self._client.images.get(ref).save(chunk_size=1 << 20)
            return statement(chunks, digest)

    # --- containers -------------------------------------------------------------------------------

    def run(
        self,
        ref: str,
        argv: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        gpus: bool = False,
        mounts: Mapping[Path, str] | None = None,
        alone: bool = False,
        on_line: Callable[[str], None] | None = None,
    ) -> Ran:
        """Run ``argv`` in a new container and remove it.

        ``mounts`` are folders of the engine's machine, each with the path at which it can be read;
        ``on_line`` gets each line of standard output as it comes. ``alone`` is as root, without
        network, and with ``argv`` in place of the image's own entrypoint.

        Raises:
            EngineError: it ran past ``timeout`` seconds, or the engine refused.
        """
        words = tuple(argv)
        start = Start(
            command=() if alone else words,
            entrypoint=words if alone else (),
            env=env or {},
            gpus=gpus,
            mounts=mounts or {},
            network="none" if alone else "bridge",
            user="0" if alone else "",
            # Docker's 64 MB are too little for NCCL where GPUs share no other way.
            shm="1g" if gpus else "",
        )
        with self.container(ref, start) as box:
            return box.follow(f"{' '.join(words[:3])} in {ref}", timeout, on_line)

    def container(self, ref: str, start: Start) -> contextlib.AbstractContextManager[Box]:
        """A container of ``ref`` that is gone when the block ends, however it ends.

        Raises:
            EngineError: the engine refused.
        """
        return container.started(self._client, ref, start)

    def config(self, ref: str) -> Mapping[str, Any]:
        """What the engine says of the local image ``ref``: docker's ``image inspect``.

        Raises:
            EngineError: it is not here.
        """
        with translated(f"looking at {ref}"):
            return dict(self._client.images.get(ref).attrs)

    def history(self, ref: str) -> tuple[str, ...]:
        """What made each layer of the local image ``ref``, the oldest first."""
        with translated(f"history of {ref}"):
            rows = self._client.images.get(ref).history()
            return tuple(str(row["CreatedBy"]) for row in reversed(rows))

    def service(self, name: str, ref: str, *, port: int, host_port: int, volume: str) -> None:
        """Have a container ``name`` run for good, its ``port`` on 127.0.0.1:``host_port``."""
        with translated(f"starting {name}"):
            with contextlib.suppress(docker.errors.NotFound):
                self._client.containers.get(name).remove(force=True)
            self._client.containers.run(
                ref,
                name=name,
                detach=True,
                ports={f"{port}/tcp": ("127.0.0.1", host_port)},
                volumes={volume: {"bind": "/var/lib/registry", "mode": "rw"}},
                restart_policy={"Name": "always", "MaximumRetryCount": 0},
                labels={OWN: "registry"},
            )

    def service_port(self, name: str, port: int) -> int | None:
        """The port of 127.0.0.1 that a container's ``port`` is published on, if it is."""
        with translated(f"looking at {name}"):
            try:
                box = self._client.containers.get(name)
            except docker.errors.NotFound:
                return None
            bound = (box.attrs["NetworkSettings"]["Ports"] or {}).get(f"{port}/tcp")
        return int(bound[0]["HostPort"]) if bound else None

    # --- registries -------------------------------------------------------------------------------

    def push(self, digest: str, repository: str, tag: str) -> None:
        """Push the local image ``digest`` as ``repository:tag``; leaves no new local name behind.

        Raises:
            RegistryError: it is down, refused the login, or broke off.
        """
        name = f"{repository}:{tag}"
        with registry_errors(name):
            try:
                named = bool(self._client.images.get(name))
            except docker.errors.ImageNotFound:
                named = False
            self._client.api.reload_config()  # a login may have been renewed since we began
            self._client.images.get(digest).tag(repository, tag)
            try:
                progress.follow(self._client.api.push(repository, tag, stream=True, decode=True))
            finally:
                if not named:
                    with contextlib.suppress(*FOREIGN):
                        self._client.images.remove(name, noprune=True)

    def remote_digest(self, ref: str) -> str | None:
        """The digest that a registry has under ``ref``; None where it has none.

        Raises:
            RegistryError: the registry did not answer or refused the login.
        """
        with registry_errors(ref):
            try:
                return str(self._client.images.get_registry_data(ref).id)
            except docker.errors.APIError as error:
                if any(words in str(error.explanation).lower() for words in NOT_THERE):
                    return None
                raise
