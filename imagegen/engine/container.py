"""A container: how it is started, what can be done with it, and its end."""

from __future__ import annotations

import contextlib
import io
import secrets
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import docker
import docker.errors
import docker.models.containers

from imagegen.engine.errors import FOREIGN, translated
from imagegen.errors import EngineError
from imagegen.util.process import Ran

OWN = "imagegen.run"
"""Label of every container that is made here, so that strays can be found."""

Volume = Literal["none", "empty", "read-only"]
"""What a platform mounts at /workspace: nothing, a fresh volume, or one that refuses writes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """How an image is started.

    ``command`` replaces CMD and ``entrypoint`` the ENTRYPOINT; ``ports`` are published on free
    ports of 127.0.0.1; ``files`` (path -> text, executable) are there before the start;
    ``mounts`` are folders of the engine's machine, each with the path at which it can be read;
    ``network`` is a network's name or ``none``; ``user`` is the image's own unless it is named;
    ``shm`` is the size of /dev/shm as Docker writes sizes, and Docker's own of 64 MB without.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[Path, str] = field(default_factory=dict)
    network: str = "bridge"
    volume: Volume = "none"
    gpus: bool = False
    user: str = ""
    shm: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """``restarts`` counts those that the engine made by itself; ``code`` is the exit status."""

    running: bool
    restarts: int
    code: int


class Box:
    """A container that was started."""

    host = "127.0.0.1"
    """Where its published ports are: on this machine, so the engine has to be here too."""

    def __init__(self, container: docker.models.containers.Container) -> None:
        self._container: Any = container
        self.began = time.monotonic()
        """When it was started last, by this machine's clock that only goes forward."""

    def port(self, port: int) -> int:
        """The port of ``host`` that ``port`` is published on; another one after a restart.

        Raises:
            EngineError: it is not published, or the container has ended.
        """
        bound = (self._attrs()["NetworkSettings"]["Ports"] or {}).get(f"{port}/tcp")
        if not bound:
            raise EngineError(f"port {port} of {self._container.name} is not published")
        return int(bound[0]["HostPort"])

    def state(self) -> State:
        """Whether it runs, and how it ended."""
        attrs = self._attrs()
        return State(
            running=bool(attrs["State"]["Running"]),
            restarts=int(attrs["RestartCount"]),
            code=int(attrs["State"]["ExitCode"]),
        )

    def run(self, *argv: str, env: Mapping[str, str] | None = None, tty: bool = False) -> Ran:
        """Run a command inside, as a platform would; a user comes by SSH."""
        with translated(f"running {argv[0]} in a container"):
            done = self._container.exec_run(
                list(argv), demux=not tty, environment=dict(env or {}), tty=tty
            )
        out, err = (done.output, b"") if tty else done.output
        return Ran(
            code=int(done.exit_code if done.exit_code is not None else -1),
            out=(out or b"").decode(errors="surrogateescape"),
            err=(err or b"").decode(errors="surrogateescape"),
        )

    def wait(self, timeout: float) -> Ran:
        """Its end, and what it printed.

        Raises:
            EngineError: it runs for longer than ``timeout`` seconds.
        """
        with translated(f"waiting {timeout:g} s for a container's end"):
            code = self._container.wait(timeout=timeout)["StatusCode"]
            out, err = (
                self._container.logs(stdout=out, stderr=not out).decode(errors="surrogateescape")
                for out in (True, False)
            )
        return Ran(code=int(code), out=out, err=err)

    def follow(
        self, what: str, timeout: float, on_line: Callable[[str], None] | None = None
    ) -> Ran:
        """The same, each line of its standard output handed to ``on_line`` as it comes.

        ``what`` it runs is for the error's text.

        Raises:
            EngineError: it ran past ``timeout`` seconds, and was killed.
        """
        out: list[str] = []
        with translated(f"running {what}"), self._limited(timeout) as over:
            stream = self._container.logs(stdout=True, stderr=False, stream=True, follow=True)
            for line in _lines(stream):
                out.append(line)
                if on_line:
                    on_line(line)
            code = self._container.wait()["StatusCode"]
            err = self._container.logs(stdout=False, stderr=True).decode(errors="replace")
        if over.is_set():
            raise EngineError(f"{what} ran past {timeout:.0f} s")
        return Ran(code=int(code), out="\n".join(out), err=err)

    def restart(self, grace: int = 10) -> None:
        """Stop it, with ``grace`` seconds until it is killed, and start it again."""
        with translated("restarting a container"):
            self._container.restart(timeout=grace)
        self.began = time.monotonic()

    def stop(self, grace: int = 10) -> float:
        """Stop it; returns the seconds that it took."""
        start = time.monotonic()
        with translated("stopping a container"):
            self._container.stop(timeout=grace)
        return time.monotonic() - start

    def logs(self, lines: int = 200) -> str:
        """The last lines that it printed, both streams."""
        with translated("reading a container's output"):
            return str(self._container.logs(tail=lines).decode(errors="replace"))

    @contextmanager
    def _limited(self, seconds: float) -> Iterator[threading.Event]:
        """Kill it after ``seconds``; the event says whether that happened."""
        over = threading.Event()

        def end() -> None:
            over.set()
            with contextlib.suppress(docker.errors.APIError):
                self._container.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield over
        finally:
            timer.cancel()

    def _attrs(self) -> dict[str, Any]:
        with translated("looking at a container"):
            self._container.reload()
        return dict(self._container.attrs)


@contextmanager
def started(client: docker.DockerClient, ref: str, start: Start) -> Iterator[Box]:
    """A container that is gone, with its volumes, when the block ends, however it ends.

    Raises:
        EngineError: the engine refused.
    """
    name = f"imagegen-{secrets.token_hex(6)}"  # known before it exists: nothing gets lost
    mounts = [
        docker.types.Mount(path, str(folder), type="bind", read_only=True)
        for folder, path in start.mounts.items()
    ]
    if start.volume != "none":
        # As a platform's own volume, it is not filled with what the image has there.
        how: Any = {"type": "volume", "read_only": start.volume == "read-only", "no_copy": True}
        mounts.append(docker.types.Mount("/workspace", name, **how))
    # An address without a port: any that is free. docker-py takes it, its types do not know.
    ports: Any = {f"{port}/tcp": (Box.host, None) for port in start.ports}
    gpus = [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])] if start.gpus else None
    try:
        with translated(f"starting {ref}"):
            container = client.containers.create(
                ref,
                list(start.command) or None,
                entrypoint=list(start.entrypoint) or None,
                name=name,
                environment=dict(start.env),
                network=start.network,
                ports=ports,
                mounts=mounts,
                device_requests=gpus,
                user=start.user or None,
                shm_size=start.shm or None,
                labels={OWN: "check"},
            )
            for path, text in start.files.items():
                container.put_archive("/", _archive(path, text))
            container.start()
        yield Box(container)
    finally:
        with contextlib.suppress(*FOREIGN):
            client.api.remove_container(name, force=True, v=True)
        if start.volume != "none":  # it was made for the container, but it has a name and stays
            with contextlib.suppress(*FOREIGN):
                client.api.remove_volume(name)


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def _archive(path: str, text: str) -> bytes:
    out, data = io.BytesIO(), text.encode()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.size, entry.mode = len(data), 0o755
        tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()
