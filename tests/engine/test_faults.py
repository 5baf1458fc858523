"""What people see when something is wrong: one message, the next step, an exit code, no traces."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagegen.build.base import Base
from imagegen.engine.docker import Docker
from imagegen.errors import EngineError
from imagegen.matrix.project import Project, load
from imagegen.model.image import Built
from imagegen.util import process
from tests.engine.conftest import MATRIX, ROOT


def imagegen(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command line, as it is typed."""
    return subprocess.run(
        [sys.executable, "-m", "imagegen", *words],
        env={**os.environ, **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def names(id_: str) -> set[str]:
    """The names of a target's images in the engine's store, and every image without a name.

    Not those of all targets: other tests make images meanwhile.
    """
    (candidate,) = load(MATRIX).resolution.select([id_])
    tag = candidate.target().tag
    form = "{{.Repository}}:{{.Tag}} {{.ID}}"
    listed = process.run("docker", "images", "--all", "--no-trunc", "--format", form, timeout=60)
    return {row for row in listed.splitlines() if tag in row or "<none>" in row}


@pytest.mark.engine
def test_no_engine(tmp_path: Path) -> None:
    done = imagegen("build", DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert done.returncode == 5
    assert f"no container engine answers at unix://{tmp_path}/none.sock" in done.stderr
    assert "imagegen doctor" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def old_engine(tmp_path: Path) -> Iterator[str]:
    """Something that answers like Debian 12's own engine, 20.10."""
    body = {"ApiVersion": "1.41", "Version": "20.10.24+dfsg1", "DriverStatus": []}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Api-Version", "1.41")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_HEAD = do_GET

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *words: object) -> None:
            pass

    path = tmp_path / "old.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"unix://{path}"
        server.shutdown()


@pytest.mark.engine
def test_an_engine_that_is_too_old_names_both_versions(old_engine: str) -> None:
    done = imagegen("build", DOCKER_HOST=old_engine)
    assert done.returncode == 5
    assert "20.10.24" in done.stderr
    assert "24.0" in done.stderr


def test_a_full_disk_is_said_before_the_build(engine: Docker) -> None:
    with pytest.raises(EngineError, match=r"1000000000 GB are needed under .*, \d+ GB are free"):
        engine.need_disk(10**18)


def test_a_base_that_cannot_be_pulled(engine: Docker) -> None:
    target = "ubuntu24.04-cuda13.0-torch2.11-py3.12-demo"
    before = names(target)
    done = imagegen("build", target, "--registry", "127.0.0.1:9")
    assert done.returncode == 6
    assert "127.0.0.1:9/library/ubuntu:24.04" in done.stderr
    assert "hint: the base image could not be pulled: --registry" in done.stderr
    assert names(target) == before


def test_a_base_that_cannot_be_bootstrapped(engine: Docker, local_base: Base) -> None:
    done = imagegen("build", "ubuntu24.04-cuda12.8-torch2.8-py3.12-devel", "--base", "bootstrap")
    assert done.returncode == 2
    assert "stands on nvidia/cuda:12.8.1" in done.stderr


def test_a_builder_that_does_not_exist(engine: Docker) -> None:
    done = imagegen("build", "debian12*-demo", "--builder", "nobody")
    assert done.returncode == 6
    assert "nobody" in done.stderr


def test_the_template_of_an_image_that_was_not_pushed(engine: Docker, open_registry: str) -> None:
    name, repository = "ubuntu24.04-cuda13.0-torch2.13-py3.12-slim", f"{open_registry}/none/none"
    done = imagegen("template", "runpod", name, "--repository", repository)
    assert done.returncode == 8
    assert f"imagegen push {name} --repository {repository}" in done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_nothing(
    engine: Docker,
    demo: Built,
    project: Project,
    demo_id: str,
    tmp_path: Path,
    stop: signal.Signals,
) -> None:
    """Interrupted in the middle of a step that would take for ever; the steps before are cached."""
    target = demo.image.target
    folder = tmp_path / "dockerfiles"
    (folder / target.id).mkdir(parents=True)
    (folder / "matrix.toml").write_text(MATRIX.read_text())
    shutil.copytree(ROOT / "dockerfiles/locks", folder / "locks")
    matrix = ["--matrix", str(folder / "matrix.toml")]
    assert imagegen("render", target.id, *matrix).returncode == 0
    before = names(target.id)
    mark = f"sleep 54{stop:03d}"
    dockerfile = folder / target.id / "Dockerfile"
    # What is on disk must be what the matrix says: so the never-ending step is in the template.
    script = (
        "import imagegen.plan.dockerfile as r; real = r.files\n"
        "def slow(x):\n"
        f"    return {{k: v + 'RUN {mark}\\n' * k.endswith('file') for k, v in real(x).items()}}\n"
        "r.files = slow\n"
        "import sys; from imagegen.__main__ import main; sys.argv[0] = 'imagegen'; main()"
    )
    dockerfile.write_text(dockerfile.read_text() + f"RUN {mark}\n")
    run = subprocess.Popen(
        [
            *(sys.executable, "-c", script, "build", target.id, *matrix, "--base", "bootstrap"),
        ],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # where buildx is told to find what to build
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert run.stdout
    until = time.monotonic() + 280
    heard = []
    for line in run.stdout:
        heard.append(line)
        assert time.monotonic() < until, "the build never reached the step"
        if mark in line and "RUN" in line:
            assert _processes(f"{tmp_path}/.*bake.json")
            break
    else:
        pytest.fail(f"the build ended by itself: {run.wait()} {heard[-5:]}")
    began = time.monotonic()
    run.send_signal(stop)
    rest = run.communicate(timeout=60)[0]
    assert run.returncode == 130, rest
    assert "interrupted" in rest
    assert time.monotonic() - began < 30
    assert names(target.id) == before
    assert not _processes(mark), "the step still runs"
    assert not _processes(f"{tmp_path}/.*bake.json"), "buildx still runs"


def _processes(words: str) -> set[str]:
    """Process ids and command lines in which the pattern ``words`` is found."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if re.search(words, line) and "python" not in line:
            found.add(f"{path.parent.name} {line}")
    return found
