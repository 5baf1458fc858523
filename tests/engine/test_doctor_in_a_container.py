"""doctor on the machine that it is for: Debian 12 with Python, root and nothing else.

The machine is a privileged container of a root file system bootstrapped here, so the engine that
doctor installs and starts is a real one, with a network and a data directory of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import imagegen
from imagegen.errors import EngineError
from imagegen.util.process import run

pytestmark = pytest.mark.engine

FIX = """
import dataclasses, json, logging
from imagegen.doctor import fix
logging.basicConfig(level=logging.INFO, format="%(message)s")
fixed = fix.fix()
print(json.dumps(dataclasses.asdict(fixed)))
"""
EXAMINE = """
import dataclasses, json
from imagegen.doctor import probe
print(json.dumps({f.name: dataclasses.asdict(f) for f in probe.examine()}))
"""
REFUSED = """
import json, logging
from imagegen import errors
from imagegen.doctor import fix
logging.basicConfig(level=logging.INFO, format="%(message)s")
try:
    fix.fix()
except errors.EngineError as error:
    print(json.dumps([str(error), error.hint]))
"""
OWN = (
    "/etc/imagegen",
    "/etc/apt/sources.list.d/imagegen.sources",
    "/etc/apt/preferences.d/imagegen",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A container that stands for a machine."""

    name: str

    def run(self, *argv: str, user: str = "root") -> str:
        return run("docker", "exec", "--user", user, self.name, *argv, timeout=300)

    def python(self, code: str, user: str = "root") -> str:
        return self.run("python3", "-c", code, user=user)

    def examine(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.python(EXAMINE))
        return found

    def fix(self) -> dict[str, list[str]]:
        fixed: dict[str, list[str]] = json.loads(self.python(FIX))
        return fixed

    def refused(self, user: str = "root") -> tuple[str, str]:
        """The message and the hint of the error that ``fix`` raises."""
        message, hint = json.loads(self.python(REFUSED, user=user))
        return message, hint

    def packages(self) -> dict[str, str]:
        """Name -> version of each installed package."""
        lines = self.run("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n")
        rows = (line.split() for line in lines.splitlines())
        return {name: version for name, version, status in rows if status == "installed"}

    def there(self, *paths: str) -> list[str]:
        return self.run(
            "sh", "-c", 'for p; do [ ! -e "$p" ] || echo "$p"; done', "sh", *paths
        ).split()

    def driver(self) -> str:
        status = json.loads(self.run("docker", "info", "--format", "{{json .DriverStatus}}"))
        return str(dict(status).get("driver-type"))


@pytest.fixture(scope="module")
def bare_debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image of Debian 12 with apt and Python; no engine here is a skip, in CI a failure."""
    try:
        run("docker", "info", timeout=20)
        if os.geteuid() or shutil.which("mmdebstrap") is None:
            raise EngineError("mmdebstrap, run as root, is needed")
    except EngineError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    tar, ref = (
        tmp_path_factory.mktemp("base") / "base.tar",
        f"imagegen-doctor:{uuid.uuid4().hex[:12]}",
    )
    python = "--include=python3-minimal,python3-packaging"
    run("mmdebstrap", "--variant=apt", python, "bookworm", tar, timeout=300)
    run("docker", "import", tar, ref, timeout=120)
    tar.unlink()
    try:
        yield ref
    finally:
        run("docker", "image", "rm", "--force", ref, timeout=60)


@pytest.fixture
def machine(bare_debian: str) -> Iterator[Machine]:
    with _machine(bare_debian) as machine:
        yield machine


@dataclass(frozen=True, kw_only=True, slots=True)
class Mended:
    """A machine after ``fix``, and what it was before."""

    machine: Machine
    found: dict[str, Any]
    before: dict[str, str]
    did: list[str]
    undo: list[str]


@pytest.fixture(scope="module")
def mended(bare_debian: str) -> Iterator[Mended]:
    with _machine(bare_debian) as machine:
        found, before = machine.examine(), machine.packages()
        yield Mended(machine=machine, found=found, before=before, **machine.fix())


@contextmanager
def _machine(ref: str) -> Iterator[Machine]:
    name = f"imagegen-doctor-{uuid.uuid4().hex[:12]}"
    source = Path(imagegen.__file__).parents[1]
    # /var/lib on a volume: an overlay, which the engine inside needs, does not stack on an overlay
    options = ("--privileged", "--init", "--volume=/var/lib", f"--volume={source}:/src:ro")
    env = ("--env=PYTHONPATH=/src", "--env=PYTHONDONTWRITEBYTECODE=1")
    command = ("--detach", f"--name={name}", *options, *env, ref, "sleep", "infinity")
    run("docker", "run", *command, timeout=60)
    try:
        yield Machine(name=name)
    finally:
        run("docker", "rm", "--force", "--volumes", name, timeout=60)


def test_it_finds_no_engine_and_says_so(mended: Mended) -> None:
    assert not mended.found["engine"]["ok"]
    assert "none answers" in mended.found["engine"]["detail"]
    assert {"docker client", "buildx"} <= {n for n, f in mended.found.items() if not f["ok"]}


def test_the_engine_answers_and_keeps_images_in_containerd(mended: Mended) -> None:
    found = mended.machine.examine()
    assert not [n for n, f in found.items() if f["fix"] and n not in ("disk", "memory")], found
    assert mended.machine.driver() == "io.containerd.snapshotter.v1"
    assert mended.machine.there("/etc/docker/daemon.json") == []


def test_the_engine_runs_a_build(mended: Mended) -> None:
    """A layer made of nothing but the machine's own static files: no registry is asked."""
    dockerfile = "FROM scratch\\nCOPY hostname /hostname\\n"
    build = f"printf '{dockerfile}' | docker buildx build --quiet --tag t:1 --file - /etc"
    assert mended.machine.run("sh", "-c", build).startswith("sha256:")


def test_nothing_else_moved(mended: Mended) -> None:
    after = mended.machine.packages()
    assert {name: after.get(name) for name in mended.before} == mended.before
    assert {"docker.io", "docker-buildx", "docker-compose", "mmdebstrap"} <= set(after)
    upgrade = mended.machine.run("apt-get", "--simulate", "dist-upgrade")
    assert "0 upgraded, 0 newly installed" in upgrade


def test_a_second_run_does_nothing(mended: Mended) -> None:
    assert mended.machine.fix() == {"did": [], "undo": []}


def test_an_engine_that_does_not_start_says_why(mended: Mended) -> None:
    """And the next run, with the cause gone, starts it and installs nothing anew."""
    machine, theirs = mended.machine, "/etc/docker/daemon.json"
    machine.run("sh", "-ec", mended.undo[0])
    machine.run(
        "sh", "-c", f"""mkdir -p /etc/docker && echo '{{"data-root": "/proc/x"}}' > {theirs}"""
    )
    message, hint = machine.refused()
    assert "does not answer: it ended" in message
    assert "/proc/x" in message
    assert "rm -f /etc/imagegen/daemon.json" in hint
    machine.run("rm", theirs)
    did = machine.fix()["did"]
    assert [line.split()[0] for line in did] == ["set", "start"]
    assert machine.driver() == "io.containerd.snapshotter.v1"


def test_the_printed_undo_undoes_it(mended: Mended) -> None:
    """Uses the machine up: the last of the tests that share it."""
    mended.machine.run("sh", "-exc", "\n".join(mended.undo))
    assert mended.machine.packages() == mended.before
    data = ("/var/lib/docker", "/var/lib/containerd", "/var/run/docker.pid")
    assert mended.machine.there(*OWN, *data) == []
    assert not mended.machine.examine()["engine"]["ok"]


def test_what_it_prints_without_root_works_when_pasted(machine: Machine) -> None:
    theirs = '{"debug": true, "storage-driver": "vfs"}'
    machine.run("sh", "-c", f"mkdir /etc/docker && echo '{theirs}' > /etc/docker/daemon.json")
    _, hint = machine.refused(user="nobody")
    assert machine.there(*OWN) == []
    wait = "timeout 60 sh -c 'until docker info > /dev/null 2>&1; do sleep 0.2; done'"
    machine.run("sh", "-exc", "\n".join((*hint.splitlines()[1:], wait)))
    assert machine.driver() == "io.containerd.snapshotter.v1"
    assert machine.run("docker", "info", "--format", "{{.Debug}}").strip() == "true"
    assert machine.run("cat", "/etc/docker/daemon.json").strip() == theirs
    assert machine.fix() == {"did": [], "undo": []}
