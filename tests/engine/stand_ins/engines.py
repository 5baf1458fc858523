"""Another container engine on this machine: to be killed, or to have never seen an image.

It has a containerd, a bridge, folders and sockets of its own and sets no firewall rules, so that
the engine that everything else runs on does not notice it. Its containers reach no network.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE = 60.0
"""Seconds that the engine may take to answer after its start, or to end."""

CONTAINERD = """\
version = 2
root = "{folder}/data/containerd"
state = "{folder}/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{folder}/containerd.sock"
"""

# A containerd of our own: dockerd would take the distribution's if that runs, and share the first
# engine's containers and images with it.
ADDRESS = "198.51.100.1/24"
"""Of the bridge: addresses for documentation (RFC 5737) hide nobody's."""

# A bridge of its own: with --bridge=none dockerd removes docker0, whosever it is.
DOCKERD = (
    *("dockerd", "--config-file={folder}/daemon.json", "--containerd={folder}/containerd.sock"),
    *("--host=unix://{folder}/docker.sock", "--pidfile={folder}/docker.pid"),
    *("--data-root={folder}/data/docker", "--exec-root={folder}/run/docker"),
    *("--bridge={bridge}", "--iptables=false", "--ip6tables=false"),
    *("--ip-masq=false", "--ip-forward=false"),
)


class Engine:
    """A dockerd and its containerd below ``folder``; killed and started again, the data stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"unix://{folder}/docker.sock"
        self.bridge = f"igtest{secrets.token_hex(4)}"
        self._running: list[subprocess.Popen[bytes]] = []
        (folder / "daemon.json").write_text(
            json.dumps({"features": {"containerd-snapshotter": True}})
        )
        (folder / "containerd.toml").write_text(CONTAINERD.format(folder=folder))

    @property
    def pids(self) -> tuple[int, ...]:
        """Of dockerd and containerd, while they run; each leads a process group of its own."""
        return tuple(child.pid for child in self._running)

    def start(self) -> None:
        """Start both and wait until the engine answers.

        Raises:
            RuntimeError: it did not, with the end of its log.
        """
        self._begin("containerd", "--config", f"{self.folder}/containerd.toml")
        self._wait(lambda: (self.folder / "containerd.sock").is_socket())
        self._begin(*(word.format(folder=self.folder, bridge=self.bridge) for word in DOCKERD))
        self._wait(self.answers)

    def answers(self) -> bool:
        """Whether a client gets an answer."""
        # By hand: docker-py leaves its socket open where nobody answers.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(5)
            wire.connect(self.host.removeprefix("unix://"))
            wire.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in wire.recv(100)
        return False

    def kill9(self) -> None:
        """Both die at once, as when the machine loses its power, but the disk keeps what it has."""
        self._end(signal.SIGKILL)
        (self.folder / "containerd.sock").unlink(missing_ok=True)

    def stop(self) -> None:
        """Both end in order, dockerd first; whatever does not end is killed."""
        self._end(signal.SIGTERM)

    def _begin(self, *argv: str) -> None:
        with (self.folder / "log").open("ab") as log:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")},
            )
        self._running.insert(0, child)

    def _wait(self, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not ready():
            ended = any(child.poll() is not None for child in self._running)
            if ended or time.monotonic() > until:
                log = (self.folder / "log").read_text(errors="replace").splitlines()
                self.kill9()
                raise RuntimeError("the second engine did not start:\n" + "\n".join(log[-20:]))
            time.sleep(0.05)

    def _end(self, how: signal.Signals) -> None:
        for child in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, how)
            if how is not signal.SIGKILL:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(PATIENCE)
        for child in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait(PATIENCE)
        self._running.clear()


@contextmanager
def second_engine() -> Iterator[Engine]:
    """An engine that has never seen an image, running; nothing of it is left after the block.

    There is one at a time on a machine, as its bridge has a fixed address: another waits.

    Skips where this machine has no dockerd that this user may start; where CI is set, that is an
    error.
    """
    missing = [name for name in ("dockerd", "containerd", "ip") if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        why = f"no {' and no '.join(missing)} here" if missing else "an engine needs root"
        if os.environ.get("CI"):
            pytest.fail(f"no second engine: {why}", pytrace=False)
        pytest.skip(f"no second engine: {why}")
    # Not below pytest's own folder: a socket's path may have 107 characters.
    with Path(tempfile.gettempdir(), "imagegen-engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = Path(tempfile.mkdtemp(prefix="imagegen-engine-"))
        engine = Engine(folder)
        subprocess.run(["ip", "link", "add", engine.bridge, "type", "bridge"], check=True)
        try:
            subprocess.run(["ip", "address", "add", ADDRESS, "dev", engine.bridge], check=True)
            engine.start()
            yield engine
        finally:
            engine.stop()
            subprocess.run(["ip", "link", "delete", engine.bridge], check=True)
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove the folder with what a killed engine left mounted in it."""
    rows = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in reversed([row for row in rows if row.startswith(f"{folder}/")]):
        subprocess.run(["umount", "--lazy", place], check=True)
    shutil.rmtree(folder)
