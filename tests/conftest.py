"""Which tests may reach outside, and the engine for those that do.

A test that asks for an engine's fixture, or is marked ``engine``, gets a real engine or is skipped;
with ``--engine required`` (the default where CI is set) it is an error instead. Any other test that
opens a socket fails, and so does one that starts a process without being marked ``process``. One
that is marked ``loopback`` starts processes and has servers of its own at 127.0.0.1.

Further fixtures of the engine tests are in tests/engine/conftest.py.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from itertools import chain

import pytest
from hypothesis import HealthCheck, settings

from imagegen.engine.docker import Docker
from imagegen.errors import EngineError
from tests.support.logs import listening

ENGINE_FIXTURES = frozenset({"engine", "registry", "base", "demo"})

PROCESS = frozenset(
    {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
)
NETWORK = frozenset(
    {
        *("socket.__new__", "socket.bind", "socket.connect", "socket.sendto", "socket.sendmsg"),
        *("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"),
    }
)

ENGINE_FILES = (
    # One process builds the demo, and goes on with what is made of it.
    ("test_demo", "test_wheels"),
    # Beside it, what waits for registries and package hosts more than for a core.
    ("test_doctor_in_a_container",),
    ("test_push_faults",),
    ("test_push", "test_push_checker", "test_faulty"),
    ("test_registries", "test_wheel_store"),
    ("test_witness",),
    ("test_contract_vast",),
    ("test_pod",),
    ("test_contract_runpod", "test_rival"),
    ("test_browser", "test_size"),  # the browser's image goes with the last of them
    ("test_network",),
)
"""Files of tests/engine in the order in which they begin; those of a row share a process."""

# The cores are shared with compilers: a law that holds slowly still holds.
settings.register_profile(
    "imagegen",
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("imagegen")


# --- the options and markers ----------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine",
        choices=("auto", "required"),
        default="required" if os.environ.get("CI") else "auto",
        help="without a container engine: skip the tests that need one (auto), or fail (required)",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the engine, and run the quick tests first; or beside the long ones, which then
    begin at once.
    """
    for item in items:
        asked = {*getattr(item, "fixturenames", ())}
        if call := getattr(item, "callspec", None):
            asked -= call.params.keys()  # values of the test's own, whatever they are called
        if ENGINE_FIXTURES & asked:
            item.add_marker("engine")
    several = "PYTEST_XDIST_WORKER" in os.environ
    place = {name: number for number, name in enumerate(chain(*ENGINE_FILES))}

    def order(item: pytest.Item) -> tuple[bool, int]:
        late = (item.get_closest_marker("engine") is not None) != several
        return late, place.get(item.path.stem, len(place)) if several else 0

    items.sort(key=order)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With ``-n`` a process has whole rows of ``ENGINE_FILES``; of other tests, one at a time."""
    from xdist.scheduler import LoadScopeScheduling

    row = {name: files[0] for files in ENGINE_FILES for name in files}

    class Rows(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path, _, _ = nodeid.partition("::")
            folder, _, file = path.rpartition("/")
            name = file.removesuffix(".py")
            return row.get(name, name) if folder == "tests/engine" else nodeid

    config.option.loadscopereorder = False
    return Rows(config, log)


# --- the guard ------------------------------------------------------------------------------------

_refused: frozenset[str] = frozenset()
_loopback = False


def _guard(event: str, args: tuple[object, ...]) -> None:
    """Python reports every process and every socket here, whoever asks for it and however."""
    if not _refused or event not in _refused:  # globals are None as the interpreter ends
        return
    if event == "socket.__new__" and args[1] == socket.AF_UNIX:
        return  # a socketpair, as asyncio makes one; connecting it to a path is an event of its own
    if _loopback and _stays_here(event, args):
        return
    # Not an Exception, so that no `except Exception` on the way makes the test pass.
    mark = "process" if event in PROCESS else "engine"
    pytest.fail(f"a unit test reached outside: {event} {args[:2]}; is it to be marked {mark}?")


def _stays_here(event: str, args: tuple[object, ...]) -> bool:
    if event == "socket.__new__":
        return True  # where it leads is an event of its own
    if event in ("socket.getaddrinfo", "socket.gethostbyaddr"):
        return args[0] in ("127.0.0.1", "localhost")
    address = args[1] if event in ("socket.bind", "socket.connect") else None
    return isinstance(address, tuple) and address[0] == "127.0.0.1"


sys.addaudithook(_guard)


@pytest.fixture(autouse=True)
def no_outside_world(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold a test to what its marker allows; one that is marked ``engine`` has an engine."""
    global _loopback, _refused
    if request.node.get_closest_marker("engine"):
        request.getfixturevalue("engine")
        yield
        return
    loopback = request.node.get_closest_marker("loopback") is not None
    processes = loopback or request.node.get_closest_marker("process")
    before = _refused, _loopback
    _refused = (PROCESS | NETWORK) - (PROCESS if processes else frozenset())
    _loopback = loopback
    try:
        yield
    finally:
        _refused, _loopback = before


# --- what is logged -------------------------------------------------------------------------------


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """The lines that a person watching would see, as they come."""
    with listening() as lines:
        yield lines


# --- the engine -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def engine(pytestconfig: pytest.Config) -> Iterator[Docker]:
    """The engine of this machine."""
    try:
        docker = Docker.connect()
    except EngineError as error:
        why = str(error)
    else:
        with contextlib.closing(docker):
            yield docker
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # docker-py leaves its socket open
        gc.collect()
    if pytestconfig.getoption("engine") == "required":
        pytest.fail(f"no engine, and --engine is required: {why}", pytrace=False)
    pytest.skip(f"no engine: {why}")
