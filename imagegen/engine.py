"""The container engine: the only place that speaks to Docker, by docker-py and by buildx."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import docker.models.containers
import docker.models.networks
import requests.exceptions

from imagegen import bake, doctor, proc
from imagegen.errors import BuildError, EngineError, RegistryError
from imagegen.model import Layer
from imagegen.proc import Say

OWN = "imagegen.run"
"""Label of every container, network and volume made here, so that strays can be found."""

DENIED = ("unauthorized", "denied", "no basic auth", "authentication required")
NOT_THERE = ("not found", "manifest unknown", "name unknown")

HINTS = (
    (
        "failed to resolve source metadata",
        "the base image could not be pulled: --registry names a mirror of docker.io, "
        "--base bootstrap makes the base from this machine's own packages",
    ),
    ("no space left", "the disk is full: docker system df shows what takes the space"),
    (
        "certificate.verify|UnknownIssuer|self.signed|unable to get local issuer",
        "behind a proxy that opens TLS, give its CA bundle: --ca FILE",
    ),
    (
        "do not match the hashes|hash mismatch|hash sum mismatch",
        "an index broke off or served other bytes than the lock names: run the command again, and "
        "if it stays so do not use that index (--pypi-index names another)",
    ),
    (
        "no matching distribution|404 |not found|connection|incomplete|timed? ?out|"
        "failed to (download|fetch)|could not resolve|error sending request",
        "an index did not deliver: run the command again, or name a mirror "
        "(--pypi-index, --torch-index, --apt-mirror)",
    ),
)
"""What a failed build's output says -> what to do. The first that matches counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """A container's run: exit status, standard output, standard error."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Local:
    """An image in the engine's store; ``size`` in bytes as the engine counts it."""

    digest: str
    size: int
    labels: Mapping[str, str]
    env: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """An image as a registry holds it."""

    digest: str
    layers: tuple[Layer, ...]


class Docker:
    """An engine that answers and can do what imagegen needs."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client

    @classmethod
    def connect(cls) -> Docker:
        """The engine of DOCKER_HOST, of the current docker context, or of the default socket.

        Raises:
            EngineError: none answers, it is too old, or it lacks the containerd image store.
        """
        client = None
        try:
            client = docker.DockerClient(base_url=_endpoint(), timeout=120)
            info, version = client.info(), client.version()["Version"]
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise EngineError(
                "no container engine answers",
                hint="imagegen doctor says what is missing, imagegen doctor --fix installs it",
            ) from error
        if (doctor.version(version) or doctor.MIN_ENGINE) < doctor.MIN_ENGINE:
            raise EngineError(
                f"Docker Engine {version} is too old: {doctor.MIN_ENGINE} or later is needed",
                hint="imagegen doctor shows the commands that bring a newer one",
            )
        if ["driver-type", "io.containerd.snapshotter.v1"] not in (info.get("DriverStatus") or []):
            raise EngineError(
                "the engine does not use the containerd image store, without which the tested "
                "bytes are not the pushed bytes",
                hint="imagegen doctor shows the setting; it changes nothing of an engine that runs",
            )
        return cls(client)

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    # --- images -----------------------------------------------------------------------------------

    def local(self, ref: str) -> Local | None:
        """The image ``ref`` in the engine's store."""
        with _translated(f"looking at {ref}"):
            try:
                attrs = self._client.images.get(ref).attrs
            except docker.errors.ImageNotFound:
                return None
        config = attrs["Config"]
        return Local(
            digest=attrs["Id"],
            size=attrs["Size"],
            labels=config.get("Labels") or {},
            env=tuple(config.get("Env") or ()),
        )

    def load(self, archive: Path, ref: str, digest: str) -> None:
        """Load the OCI archive unless ``ref`` already is that digest.

        Raises:
            EngineError: what was loaded has another digest.
        """
        held = self.local(ref)
        if held is None or held.digest != digest:
            with _translated(f"loading {archive}"), archive.open("rb") as file:
                self._client.images.load(file)
            held = self.local(ref)
        if held is None or held.digest != digest:
            raise EngineError(f"{archive} loaded as {held and held.digest}, expected {digest}")

    def bake(
        self,
        document: Mapping[str, object],
        secrets: Mapping[str, str],
        say: Say,
        *,
        builder: str = "",
    ) -> dict[str, str]:
        """Build every target of a bake definition; returns digest by bake target name.

        Raises:
            BuildError: with the step that failed and the end of its output.
        """
        with tempfile.TemporaryDirectory() as work:
            definition, metadata = Path(work) / "bake.json", Path(work) / "metadata.json"
            definition.write_text(json.dumps(document))
            code, last = proc.stream(
                *("docker", "buildx", "bake", "--progress=plain"),
                *(("--builder", builder) if builder else ()),
                *("--file", definition, "--metadata-file", metadata),
                say=say,
                doing="building",
                env={bake.secret_variable(name): value for name, value in secrets.items()}
                | {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"},
            )
            if code:
                raise _build_error(last)
            return dict(bake.digests(json.loads(metadata.read_text())).digests)

    def remove(self, ref: str) -> None:
        """Remove the local name ``ref``, and the image when it was its last."""
        with _translated(f"removing {ref}"), contextlib.suppress(docker.errors.ImageNotFound):
            self._client.images.remove(ref, force=True)

    def need_disk(self, needed: int) -> None:
        """Refuse to begin a build that cannot end. An engine on another machine is not asked.

        Raises:
            EngineError: fewer than ``needed`` bytes are free where the engine keeps images.
        """
        with _translated("asking the engine"):
            root = Path(self._client.info()["DockerRootDir"])
        if root.is_dir() and (free := shutil.disk_usage(root).free) < needed:
            raise EngineError(
                f"{needed / 1e9:.0f} GB are needed under {root}, {free / 1e9:.0f} GB are free",
                hint="docker system df shows what takes the space, docker system prune frees it",
            )

    def unpacked(self, ref: str) -> int:
        """Bytes of the file system of ``ref``, the sum over its layers."""
        with _translated(f"history of {ref}"):
            return sum(row["Size"] for row in self._client.images.get(ref).history())

    # --- containers -------------------------------------------------------------------------------

    def run(
        self,
        ref: str,
        argv: Sequence[str],
        *,
        say: Say | None = None,
        timeout: float,
        env: Mapping[str, str] | None = None,
        network: str = "",
        gpus: bool = False,
    ) -> Ran:
        """Run ``argv`` in a new container and remove it.

        ``say`` hears each line of standard output as it comes.

        Raises:
            EngineError: it ran past ``timeout`` seconds, or the engine refused.
        """
        with self.container(ref, argv, env=env, network=network, gpus=gpus, start=False) as box:
            out: list[str] = []
            with _translated(f"running {argv[0]} in {ref}"), _limit(box, timeout) as over:
                box.start()
                for line in _lines(box.logs(stdout=True, stderr=False, stream=True, follow=True)):
                    out.append(line)
                    if say:
                        say(line)
                code = box.wait(timeout=60)["StatusCode"]
                err = box.logs(stdout=False, stderr=True).decode(errors="replace")
            if over.is_set():
                raise EngineError(f"{' '.join(argv[:3])} in {ref} ran past {timeout:.0f} s")
        return Ran(code=code, out="\n".join(out), err=err)

    @contextmanager
    def container(
        self,
        ref: str,
        argv: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        network: str = "",
        alias: str = "",
        gpus: bool = False,
        start: bool = True,
    ) -> Iterator[docker.models.containers.Container]:
        """A container that is gone when the block ends, however it ends."""
        gpu = [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])] if gpus else None
        with _translated(f"starting {ref}"):
            box = self._client.containers.create(
                ref,
                list(argv) or None,
                environment=dict(env or {}),
                network=network or None,
                networking_config=(
                    {network: self._client.api.create_endpoint_config(aliases=[alias])}
                    if alias
                    else None
                ),
                device_requests=gpu,
                labels={OWN: "check"},
            )
        try:
            if start:
                with _translated(f"starting {ref}"):
                    box.start()
            yield box
        finally:
            with contextlib.suppress(docker.errors.NotFound):
                box.remove(force=True, v=True)

    @contextmanager
    def network(self, name: str) -> Iterator[str]:
        """A bridge network that is gone when the block ends; yields its name."""
        with _translated("creating a network"):
            net = self._client.networks.create(name, labels={OWN: "check"})
        try:
            yield name
        finally:
            with contextlib.suppress(docker.errors.NotFound):
                net.remove()

    def service(self, name: str, ref: str, *, port: int, host_port: int, volume: str) -> None:
        """Have a container ``name`` run for good, its ``port`` on 127.0.0.1:``host_port``."""
        with _translated(f"starting {name}"):
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
        """The port of 127.0.0.1 that a running container's ``port`` is published on."""
        with _translated(f"looking at {name}"):
            try:
                box = self._client.containers.get(name)
            except docker.errors.NotFound:
                return None
            if box.status != "running":
                box.start()
                box.reload()
            bound = (box.attrs["NetworkSettings"]["Ports"] or {}).get(f"{port}/tcp")
        return int(bound[0]["HostPort"]) if bound else None

    # --- registries -------------------------------------------------------------------------------

    def push(self, ref: str, repository: str, tag: str, say: Say) -> None:
        """Push the local image ``ref`` as ``repository:tag``; the local name is removed again.

        Raises:
            RegistryError: it is down, refused the login, or broke off.
        """
        name = f"{repository}:{tag}"
        with _registry_errors(name):
            self._client.images.get(ref).tag(repository, tag)
            try:
                _follow_push(self._client.api.push(repository, tag, stream=True, decode=True), say)
            finally:
                with contextlib.suppress(docker.errors.APIError):
                    self._client.images.remove(name, noprune=True)

    def remote_digest(self, ref: str) -> str | None:
        """The digest that a registry has under ``ref``; None where it has none.

        Raises:
            RegistryError: the registry did not answer or refused the login.
        """
        with _registry_errors(ref):
            try:
                return str(self._client.images.get_registry_data(ref).id)
            except docker.errors.APIError as error:
                if any(words in str(error.explanation).lower() for words in NOT_THERE):
                    return None
                raise

    def manifest(self, ref: str) -> Manifest:
        """The manifest of ``ref`` as its registry serves it; the digest is of those bytes.

        Raises:
            RegistryError: the registry did not answer or has no such image.
        """
        try:
            raw = proc.run("docker", "buildx", "imagetools", "inspect", "--raw", ref, timeout=120)
            config = json.loads(
                proc.run(
                    *("docker", "buildx", "imagetools", "inspect", ref),
                    *("--format", "{{json .Image}}"),
                    timeout=120,
                )
            )
        except EngineError as error:
            raise RegistryError(f"{ref} could not be read back: {error}") from error
        made = [row for row in config.get("history", []) if not row.get("empty_layer")]
        layers = json.loads(raw)["layers"]
        steps = [row.get("created_by", "") for row in made] if len(made) == len(layers) else []
        return Manifest(
            digest=f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}",
            layers=tuple(
                Layer(
                    digest=row["digest"],
                    compressed=row["size"],
                    created_by=steps[i] if steps else "",
                )
                for i, row in enumerate(layers)
            ),
        )


@contextmanager
def _limit(box: docker.models.containers.Container, seconds: float) -> Iterator[threading.Event]:
    """Kill the container after ``seconds``; the event says whether that happened."""
    over = threading.Event()

    def end() -> None:
        over.set()
        with contextlib.suppress(docker.errors.APIError):
            box.kill()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield over
    finally:
        timer.cancel()


def _endpoint() -> str:
    """Where the docker command would go: DOCKER_HOST, else the current context's endpoint."""
    if host := os.environ.get("DOCKER_HOST"):
        return host
    with contextlib.suppress(EngineError):
        template = "{{.Endpoints.docker.Host}}"
        return proc.run("docker", "context", "inspect", "--format", template, timeout=10).strip()
    return "unix:///var/run/docker.sock"


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    """docker-py's and requests' exceptions as ours, in one place."""
    try:
        yield
    except docker.errors.APIError as error:
        words = str(error.explanation or error)
        no_gpu = "could not select device driver" in words
        hint = "this engine has no NVIDIA runtime: run GPU checks on a GPU machine" * no_gpu
        raise EngineError(f"{doing}: {words}", hint=hint) from error
    except requests.exceptions.RequestException as error:
        # wait(timeout=) raises requests' ConnectionError when the time is over
        raise EngineError(f"{doing}: the engine did not answer in time") from error


@contextmanager
def _registry_errors(ref: str) -> Iterator[None]:
    host = ref.split("/")[0]
    try:
        yield
    except docker.errors.APIError as error:
        words = str(error.explanation or error)
        if any(word in words.lower() for word in DENIED):
            raise RegistryError(
                f"{host} refused the login for {ref}: {words}", hint=f"docker login {host}"
            ) from error
        raise RegistryError(
            f"{ref}: {words}",
            hint=f"is the registry at {host} up? Nothing was moved; run the command again",
        ) from error
    except requests.exceptions.RequestException as error:
        raise RegistryError(f"{ref}: the engine did not answer") from error


def _follow_push(events: Iterator[Mapping[str, Any]], say: Say) -> None:
    """Say how much of a push is done, every few seconds; docker-py returns normally on failure.

    Raises:
        docker.errors.APIError: the engine reported an error in the stream.
    """
    sent: dict[str, int] = {}
    total: dict[str, int] = {}
    last = time.monotonic()
    for event in events:
        if words := event.get("error"):
            raise docker.errors.APIError(words, explanation=words)
        detail, layer = event.get("progressDetail") or {}, str(event.get("id", ""))
        if detail.get("total"):
            sent[layer], total[layer] = detail.get("current", 0), detail["total"]
        if time.monotonic() - last > 3 and total:
            last = time.monotonic()
            say(f"pushed {sum(sent.values()) / 1e6:,.0f} of {sum(total.values()) / 1e6:,.0f} MB")


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def _build_error(last: Sequence[str]) -> BuildError:
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
