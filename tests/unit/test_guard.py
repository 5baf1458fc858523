"""The guard of tests/conftest.py: what a unit test cannot do, and what a missing engine is."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.values import ROOT

REACHES: dict[str, Callable[[], object]] = {
    "run": lambda: subprocess.run(["true"], check=False),
    "system": lambda: os.system("true"),
    "fork": lambda: os.fork() or os._exit(0),
    "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "asyncio": lambda: asyncio.run(asyncio.create_subprocess_exec("true")),
}
CONNECTS: dict[str, Callable[[], object]] = {
    "tcp": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "ipv6": lambda: socket.socket(socket.AF_INET6),
    "name": lambda: socket.getaddrinfo("localhost", 80),
}


@pytest.mark.parametrize("name", [*REACHES, *CONNECTS])
def test_a_unit_test_cannot_reach_outside(name: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="a unit test reached outside"):
        (REACHES | CONNECTS)[name]()


def test_nor_the_engine_by_its_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, pytest.raises(pytest.fail.Exception):
        one.connect(str(tmp_path / "docker.sock"))


def test_what_only_talks_to_itself_is_fine() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(b"x")
        assert other.recv(1) == b"x"
    assert asyncio.run(asyncio.sleep(0, "slept")) == "slept"


@pytest.mark.process
@pytest.mark.parametrize("name", CONNECTS)
def test_a_test_of_processes_has_no_network_either(name: str) -> None:
    subprocess.run(["true"], check=True)
    with pytest.raises(pytest.fail.Exception):
        CONNECTS[name]()


@pytest.mark.loopback
def test_a_test_with_servers_of_its_own_stays_on_this_machine() -> None:
    subprocess.run(["true"], check=True)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname()), server.accept()[0]:
            pass
    with socket.socket() as outside:
        for reach in (
            lambda: outside.connect(("192.0.2.1", 9)),
            lambda: outside.bind(("0.0.0.0", 0)),
            lambda: socket.getaddrinfo("registry.example", 80),
        ):
            with pytest.raises(pytest.fail.Exception):
                reach()


# --- without an engine ----------------------------------------------------------------------------

SAMPLE = """
import pytest
def test_asks(engine): pass
@pytest.mark.engine
def test_is_marked(): pass
def test_plain(): pass
@pytest.fixture
def registry(): return 1
def test_derived(registry, request): assert request.node.get_closest_marker("engine")
"""


def without_engine(folder: Path, *words: str, ci: str = "") -> tuple[int, str]:
    """pytest over SAMPLE under tests/conftest.py, on a machine without engine."""
    shutil.copy(ROOT / "tests/conftest.py", folder)
    (folder / "test_sample.py").write_text(SAMPLE)
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--rootdir={folder}"]
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "PYTEST_ADDOPTS")}
    environment |= {"DOCKER_HOST": f"unix://{folder}/none.sock", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*argv, "-c", str(ROOT / "pyproject.toml"), *words, str(folder)],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment | ({"CI": ci} if ci else {}),
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.process
def test_a_missing_engine_is_a_skip_at_home(tmp_path: Path) -> None:
    code, text = without_engine(tmp_path)
    assert code == 0, text
    assert "1 passed, 3 skipped" in text
    assert "no engine: no container engine answers" in text


@pytest.mark.process
@pytest.mark.parametrize(("words", "ci"), [(("--engine", "required"), ""), ((), "true")])
def test_a_missing_engine_is_an_error_where_it_is_required(
    tmp_path: Path, words: tuple[str, ...], ci: str
) -> None:
    code, text = without_engine(tmp_path, *words, ci=ci)
    assert code == 1, text
    assert "1 passed, 3 errors" in text
    assert "no engine, and --engine is required" in text


@pytest.mark.process
def test_ci_can_do_without_when_told(tmp_path: Path) -> None:
    code, text = without_engine(tmp_path, "--engine", "auto", ci="true")
    assert code == 0, text
    assert "3 skipped" in text
