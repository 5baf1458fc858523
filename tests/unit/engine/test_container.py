"""One way to make a container: what the engine is asked for, and that nothing of it stays."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import docker
import docker.errors
import pytest

from imagegen.engine.container import OWN, Start, started
from imagegen.engine.docker import Docker
from imagegen.errors import EngineError


class Container:
    """Prints this, then ends."""

    def __init__(self, out: Callable[[], Iterator[bytes]]) -> None:
        self.out, self.killed = out, False

    def start(self) -> None: ...

    def logs(self, *, stdout: bool = True, **_: bool) -> object:
        return self.out() if stdout else b"\xffwarning"

    def wait(self) -> dict[str, int]:
        return {"StatusCode": 137 if self.killed else 3}

    def kill(self) -> None:
        self.killed = True


class Client:
    """An engine that writes down what it is asked for."""

    def __init__(self, out: Callable[[], Iterator[bytes]] = lambda: iter(())) -> None:
        self.container, self.failure = Container(out), ""
        self.asked: dict[str, Any] = {}
        self.words: Any = None
        self.removed: list[str] = []
        self.containers = self.api = self

    def create(self, _ref: str, command: list[str] | None, **asked: Any) -> Container:
        self.words, self.asked = command, asked
        if self.failure:
            raise docker.errors.APIError(self.failure)
        return self.container

    def remove_container(self, name: str, **_: bool) -> None:
        self.removed.append(name)

    def remove_volume(self, name: str) -> None:
        self.removed.append(f"volume {name}")


def engine(client: Client) -> Docker:
    return Docker(cast(docker.DockerClient, client))


def test_a_command_is_run_in_the_image_as_it_is() -> None:
    client = Client()
    engine(client).run("x", ["nvcc", "--version"], timeout=9, env={"A": "b"})
    assert client.words == ["nvcc", "--version"]
    asked = client.asked
    assert asked["entrypoint"] is asked["user"] is asked["shm_size"] is None
    assert asked["network"] == "bridge"
    assert asked["environment"] == {"A": "b"}
    assert asked["labels"] == {OWN: "check"}
    assert client.removed == [asked["name"]]


def test_alone_it_has_no_network_and_no_start_of_its_own() -> None:
    client = Client()
    engine(client).run("x", ["python3", "-I"], timeout=9, alone=True)
    assert client.words is None
    assert client.asked["entrypoint"] == ["python3", "-I"]
    assert (client.asked["network"], client.asked["user"]) == ("none", "0")


def test_gpus_bring_shared_memory_and_mounts_are_for_reading() -> None:
    client = Client()
    engine(client).run("x", ["true"], timeout=9, gpus=True, mounts={Path("/here"): "/there"})
    assert client.asked["shm_size"] == "1g"
    assert client.asked["device_requests"][0]["Capabilities"] == [["gpu"]]
    (mount,) = client.asked["mounts"]
    assert mount == {"Target": "/there", "Source": "/here", "Type": "bind", "ReadOnly": True}


def test_lines_come_as_they_are_printed_and_whole() -> None:
    heard: list[str] = []
    client = Client(lambda: iter([b"one\ntw", b"o\nthr\xff", b"ee"]))
    ran = engine(client).run("x", ["true"], timeout=9, on_line=heard.append)
    assert heard == ["one", "two", "thr\ufffdee"]
    assert (ran.code, ran.out, ran.err) == (3, "one\ntwo\nthr\ufffdee", "\ufffdwarning")


def test_one_that_runs_too_long_is_killed_and_gone() -> None:
    def slow() -> Iterator[bytes]:
        while not client.container.killed:
            time.sleep(0.01)
            yield b"."

    client = Client(slow)
    with pytest.raises(EngineError, match=r"^sleep 60 in x ran past 0 s$"):
        engine(client).run("x", ["sleep", "60"], timeout=0.1)
    assert client.removed == [client.asked["name"]]


@pytest.mark.parametrize("volume", ["none", "empty"])
def test_whatever_fails_container_and_volume_are_gone(volume: Any) -> None:
    client = Client()
    with pytest.raises(ZeroDivisionError), started(cast(Any, client), "x", Start(volume=volume)):
        raise ZeroDivisionError
    name = client.asked["name"]
    assert client.removed == [name, f"volume {name}"][: 1 if volume == "none" else 2]
    client.failure, client.removed = "no room", []
    with (
        pytest.raises(EngineError, match="starting x: no room"),
        started(cast(Any, client), "x", Start(volume=volume)),
    ):
        pytest.fail("it was started")
    assert client.removed[0] == client.asked["name"]
