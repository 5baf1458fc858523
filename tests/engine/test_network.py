"""Closed networks: every setting reaches the build, none stays in the image, faults say why."""

from __future__ import annotations

import base64
import json
import shutil
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from imagegen.build import bake, base
from imagegen.build.base import Base
from imagegen.engine.docker import Docker
from imagegen.errors import BuildError
from imagegen.matrix.project import Project
from imagegen.model.image import Built, Image
from imagegen.net import settings
from imagegen.plan import dockerfile, pins
from imagegen.plan import recipe as plan
from imagegen.plan.image import image
from imagegen.util import files, process
from tests.engine.conftest import NETWORK, ROOT
from tests.engine.stand_ins.servers import Answer, index, mirror, served

# The stand-in servers' TLS sockets are closed when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

UBUNTU = "ubuntu24.04-cuda13.0-torch2.11-py3.12-demo"
DEVEL = "ubuntu24.04-cuda12.9-torch2.9-py3.12-devel"
SLIM_12 = "ubuntu24.04-cuda12.9-torch2.9-py3.12-slim"


@pytest.fixture(scope="module")
def gateway(engine: Docker) -> str:
    """This machine's address as build steps see it."""
    (row,) = json.loads(process.run("docker", "network", "inspect", "bridge", timeout=30))
    return str(row["IPAM"]["Config"][0]["Gateway"])


@pytest.fixture(scope="module")
def tools(project: Project, demo_id: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels of a lock's tools.txt, fetched by hash with this machine's own settings."""
    (target,) = project.resolution.select([demo_id])
    lock = pins.lock_name(target.torch.version, target.cuda.version, target.python.version)
    wheels = tmp_path_factory.mktemp("wheels")
    subprocess.run(
        [
            *(sys.executable, "-m", "uv", "run", "--no-project", "--with", "pip", "python"),
            *("-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
            *("--dest", wheels, "-r", project.locks / lock / "tools.txt"),
        ],
        check=True,
    )
    return wheels


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA, gateway: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(gateway).configure_cert(context)
    return context


def an_image(project: Project, id_: str, override: str = "") -> Image:
    (target,) = project.resolution.select([id_])
    recipe = plan.recipe(target, project)
    rendered = dockerfile.files(recipe)
    assert not dockerfile.drift(project.folder, rendered)
    return image(recipe, rendered, project, base_override=override)


def bake_stage(
    engine: Docker,
    image: Image,
    network: settings.Network,
    stage: str,
    name: str,
    *,
    anew: tuple[str, ...] = (),
) -> None:
    """Build the committed Dockerfile up to ``stage`` and keep it as ``name``."""
    document = bake.document([image], files.context_image(), network)
    target = document["target"][bake.name(image.target)]  # type: ignore[index]
    target |= {
        "target": stage,
        "output": [f"type=image,name={name},unpack=true"],
        "no-cache-filter": list(anew),
    }
    engine.bake(document, bake.environment(network.secrets))


def archives() -> dict[str, str]:
    """The distribution's archives that this machine uses: first part of the path -> URL."""
    rows = process.run("apt-get", "indextargets", "--format", base.INDEX_TARGETS, timeout=60)
    urls = {row.split("|")[0] for row in rows.splitlines()}
    return {url.rstrip("/").rpartition("/")[2]: url for url in urls}


@pytest.fixture
def kept(engine: Docker) -> Iterator[str]:
    name = "imagegen-test/stage:1"
    yield name
    engine.remove(name)


def test_every_setting_reaches_the_build_and_none_stays_in_it(
    engine: Docker,
    local_base: Base,
    open_registry: str,
    project: Project,
    gateway: str,
    tools: Path,
    authority: trustme.CA,
    tls: ssl.SSLContext,
    tmp_path: Path,
    kept: str,
) -> None:
    """A base from a registry, apt from a mirror, pip from an index behind a private CA."""
    image = an_image(project, "debian12*-demo")
    repository, _, tag = image.base.rpartition(":")
    assert "@" not in tag, "a pinned base cannot be stood in for through a registry"
    engine.push(local_base.digest, f"{open_registry}/{repository}", tag)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with (
        served(gateway, mirror(archives()), tls) as apt,
        served(gateway, index(tools), tls) as pypi,
    ):
        network = settings.Network(
            ca=str(bundle),
            pypi_index=f"{pypi.url}/simple/",
            apt_mirror=apt.url,
            registry=open_registry,
        )
        bake_stage(engine, image, network, "tools", kept, anew=("system", "tools"))
    assert any(path.endswith(".deb") for path in apt.asked)
    assert any(path.startswith("/files/uv-") for path in pypi.asked)

    traces = [pypi.url, apt.url, bundle.read_text().splitlines()[1]]
    history = process.run("docker", "history", "--no-trunc", kept, timeout=60)
    config = process.run("docker", "image", "inspect", kept, timeout=60)
    look = "cd /; for d in etc opt root tmp usr var run; do grep -rlF -e {} /$d; done; true"
    for trace in traces:
        assert trace not in history + config
        found = engine.run(kept, ["sh", "-c", look.format(f"'{trace}'")], timeout=300)
        assert found.out.strip() == ""


def test_without_its_ca_the_index_is_refused_with_a_hint(
    engine: Docker,
    local_base: Base,
    project: Project,
    gateway: str,
    tools: Path,
    tls: ssl.SSLContext,
    kept: str,
) -> None:
    image = an_image(project, "debian12*-demo", local_base.reference)
    with served(gateway, index(tools), tls) as pypi, pytest.raises(BuildError) as failed:
        network = settings.Network(pypi_index=f"{pypi.url}/simple/")
        bake_stage(engine, image, network, "tools", kept, anew=("tools",))
    assert "--ca FILE" in failed.value.hint
    assert engine.local(kept) is None


def no_such_page(path: str) -> Answer:
    return 404


def broken(tools: Path) -> object:
    whole = index(tools)
    return lambda path: None if path.startswith("/files/") else whole(path)


@pytest.mark.parametrize("fault", ["404", "drops"])
def test_an_index_that_does_not_deliver(
    engine: Docker,
    local_base: Base,
    project: Project,
    gateway: str,
    tools: Path,
    fault: str,
    kept: str,
) -> None:
    image = an_image(project, "debian12*-demo", local_base.reference)
    answer = no_such_page if fault == "404" else broken(tools)
    with (
        served(gateway, answer) as pypi,  # type: ignore[arg-type]
        pytest.raises(BuildError) as failed,
    ):
        url = f"{pypi.url}/simple/"
        bake_stage(engine, image, settings.Network(pypi_index=url), "tools", kept, anew=("tools",))
    assert "--pypi-index" in failed.value.hint
    assert pypi.asked
    assert engine.local(kept) is None


# --- the Ubuntu Dockerfiles' own text -------------------------------------------------------------


def test_the_ubuntu_text_builds_whole_on_a_stand_in(
    engine: Docker, local_base: Base, demo: Built, project: Project, tmp_path: Path
) -> None:
    """FROM ubuntu:24.04 swapped for this machine's base: every line runs, to the last COPY.

    The stand-in's Python is another one, so the lock for it stands in for the Dockerfile's own.
    """
    image = an_image(project, UBUNTU, local_base.reference)
    locks = project.locks
    there, here = (
        pins.lock_name(target.torch, target.cuda, target.python)
        for target in (image.target, demo.image.target)
    )
    shutil.copytree(ROOT / "dockerfiles" / UBUNTU, tmp_path / UBUNTU)
    shutil.copytree(locks / here, tmp_path / "locks" / there)
    image = replace(image, context=tmp_path)
    document = bake.document([image], files.context_image(), NETWORK)
    engine.bake(document, bake.environment(NETWORK.secrets))
    try:
        built = engine.local(image.ref)
        assert built is not None
        load = "import torch, flash_attn_2_cuda; print(torch.__version__)"
        show = f"nvcc --version && python -c '{load}'"
        ran = engine.run(image.ref, ["bash", "-c", show], timeout=120)
        assert "release 13.0" in ran.out
        assert "2.11.0" in ran.out
        shown = engine.run(image.ref, ["printenv", "NVIDIA_REQUIRE_CUDA"], timeout=60)
        assert shown.out == "cuda>=13.0"
    finally:
        engine.remove(image.ref)


@pytest.fixture
def stand_in(
    request: pytest.FixtureRequest, engine: Docker, local_base: Base, tmp_path: Path
) -> Iterator[str]:
    """A base with an apt source of its own that has NVIDIA's three packages, empty ones."""
    name = "imagegen-test/nvidia:1"
    build = "; ".join(
        f"mkdir -p /p/{p}/DEBIAN && printf 'Package: {p}\\nVersion: 12.9\\nArchitecture: all\\n"
        f"Maintainer: test <t@example.com>\\nDescription: stand-in\\n' > /p/{p}/DEBIAN/control"
        f" && mkdir -p /p/{p}/usr/local/cuda/include && touch /p/{p}/usr/local/cuda/include/{p}.h"
        f" && dpkg-deb -b /p/{p} /repo >/dev/null"
        for p in ("cuda-nvcc-12-9", "cuda-cudart-dev-12-9", "cuda-nvrtc-dev-12-9")
    )
    packages = (
        'for f in /repo/*.deb; do dpkg-deb -f "$f"; echo "Filename: ./${f##*/}";'
        ' echo "Size: $(stat -c %s "$f")";'
        ' echo "SHA256: $(sha256sum "$f" | cut -d" " -f1)"; echo; done'
    )
    (tmp_path / "Dockerfile").write_text(
        f"FROM {local_base.reference}\n"
        f"RUN mkdir -p /repo /usr/local/cuda/include; {build}; ({packages}) > /repo/Packages\n"
        "RUN echo 'deb [trusted=yes] file:/repo ./' > /etc/apt/sources.list.d/cuda.list\n"
    )
    engine.bake(
        {
            "target": {
                "default": {
                    "context": str(tmp_path),
                    "output": [f"type=image,name={name},unpack=true"],
                    "attest": ["type=provenance,disabled=true"],
                }
            }
        }
    )
    yield name
    engine.remove(name)


def fake_wheel(folder: Path, name: str, version: str) -> None:
    """A wheel that says it is ``name``; the CUDA libraries' wheels have headers like NVIDIA's."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", f"__version__ = {version!r}\n")
        wheel.writestr("nvidia/cublas/include/cublas_v2.h", "// stand-in\n")
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize("id_", [DEVEL, SLIM_12])
def test_the_text_of_cuda_12_builds_as_far_as_torch_with_stand_ins(
    engine: Docker,
    project: Project,
    stand_in: str,
    gateway: str,
    tmp_path_factory: pytest.TempPathFactory,
    kept: str,
    id_: str,
) -> None:
    """NVIDIA's base, NVIDIA's apt repository and PyTorch's index, each stood in for."""
    wheels = tmp_path_factory.mktemp("torch")
    fake_wheel(wheels, "torch", "2.9.1+cu129")
    fake_wheel(wheels, "torchvision", "0.24.1+cu129")
    with served(gateway, lambda path: index(wheels)(path.removeprefix("/cu129"))) as torch:
        network = replace(NETWORK, torch_index=f"{torch.url}/{{backend}}/simple/")
        bake_stage(
            engine, an_image(project, id_, stand_in), network, "torch", kept, anew=("torch",)
        )
    assert any("/cu129/simple/torch/" in path for path in torch.asked)
    show = "python -c 'import torch; print(torch.__version__)'; ls /usr/local/cuda/include"
    ran = engine.run(kept, ["bash", "-c", show], timeout=60)
    assert "2.9.1+cu129" in ran.out
    assert "cublas_v2.h" in ran.out
    assert ("cuda-nvcc-12-9.h" in ran.out) == (id_ == SLIM_12)


def test_a_login_in_an_index_url_is_not_in_the_output(
    engine: Docker,
    local_base: Base,
    project: Project,
    gateway: str,
    kept: str,
    logged: list[str],
) -> None:
    secret = base64.b16encode(b"password").decode()
    image = an_image(project, "debian12*-demo", local_base.reference)
    with served(gateway, no_such_page) as pypi, pytest.raises(BuildError) as failed:
        url = pypi.url.replace("http://", f"http://user:{secret}@") + "/simple/"
        bake_stage(engine, image, settings.Network(pypi_index=url), "tools", kept, anew=("tools",))
    assert any("tools" in line for line in logged), "what the build says is logged"
    assert secret not in "\n".join((*logged, str(failed.value)))
