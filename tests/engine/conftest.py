"""What the engine tests stand on: a base made here, real registries, tiny images."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from imagegen.build import bake, base, images
from imagegen.build.base import Base
from imagegen.build.options import Options
from imagegen.commands.demo import demo_target
from imagegen.engine.docker import Docker
from imagegen.matrix.project import Project, load
from imagegen.model.image import Built, Compression, Image
from imagegen.model.report import Check, Report, Tested
from imagegen.model.target import Target
from imagegen.net import settings
from imagegen.platforms import needed
from imagegen.publish.local_registry import server
from imagegen.util import files
from tests.engine.stand_ins import browser
from tests.support import tiny_image

ROOT = Path(__file__).parents[2]
MATRIX = ROOT / "dockerfiles/matrix.toml"
NETWORK = settings.Network(ca=os.environ.get("SSL_CERT_FILE", ""))


@pytest.fixture(scope="session")
def project() -> Project:
    return load(MATRIX)


@pytest.fixture(scope="session", autouse=True)
def own_reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No report of an earlier session: what is tested is tested now. Bases stay where they are."""
    home = files.cache()
    folder = tmp_path_factory.mktemp("cache") / "imagegen"
    folder.mkdir()
    (home / "base").mkdir(parents=True, exist_ok=True)
    (folder / "base").symlink_to(home / "base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder.parent))
        yield


@pytest.fixture(scope="session")
def local_base(engine: Docker, project: Project) -> Base:
    """The base of this machine's distribution, bootstrapped or from the cache, and loaded."""
    here, _ = base.host_os(Path("/etc/os-release").read_text())
    os_ = next((row.os for row in project.facts.os if row.os.name == here), None)
    if os_ is None:
        pytest.skip(f"{here} is not a distribution that imagegen bootstraps")
    made = base.bootstrap(os_, files.cache())
    engine.load(made.archive, made.reference, made.digest)
    return made


@pytest.fixture(scope="session")
def demo_id(project: Project) -> str:
    return demo_target(project, Path("/etc/os-release").read_text()).id


@pytest.fixture(scope="session")
def demo(engine: Docker, local_base: Base, project: Project, demo_id: str) -> Built:
    """The demo target, really built; in seconds where the engine's build cache has it."""
    options = Options(network=NETWORK, base="bootstrap")
    (built,), _ = images.build(engine, images.plan(project, [demo_id], options), options)
    return built


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(ROOT / "tests/docker-compose.yml")


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    return f"imagegen-test-{os.getpid()}"


@pytest.fixture(scope="session")
def docker_setup(engine: Docker, local_base: Base) -> list[str]:
    os.environ["IMAGEGEN_TEST_REGISTRY"] = server.build(engine, local_base, NETWORK)
    return ["up --detach --wait"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    return ["down --volumes --timeout 1"]


def _answering(docker_services: object, name: str, status: int) -> str:
    host = f"127.0.0.1:{docker_services.port_for(name, 5000)}"  # type: ignore[attr-defined]

    def answers() -> bool:
        try:
            return requests.get(f"http://{host}/v2/", timeout=5).status_code == status
        except requests.ConnectionError:
            return False

    docker_services.wait_until_responsive(answers, timeout=30, pause=0.1)  # type: ignore[attr-defined]
    return host


@pytest.fixture(scope="session")
def open_registry(docker_services: object) -> str:
    """host:port of a registry that anyone may push to."""
    return _answering(docker_services, "open", 200)


@pytest.fixture(scope="session")
def locked_registry(docker_services: object) -> str:
    """host:port of a registry that asks for a login."""
    return _answering(docker_services, "locked", 401)


@pytest.fixture(scope="session")
def small_image(engine: Docker, local_base: Base) -> str:
    """The small image that keeps both platforms' contracts."""
    return tiny_image.build(engine, local_base.reference, NETWORK)


@pytest.fixture(scope="session")
def chromium(engine: Docker, local_base: Base) -> Iterator[str]:
    """The image of the browser and of the proxy."""
    if "debian" not in local_base.reference:
        pytest.skip("Chromium is a package of Debian; Ubuntu has it as a snap only")
    name = "imagegen-test/browser:1"
    target = {
        "context": browser.__path__[0],
        "contexts": {
            "base": f"docker-image://{local_base.reference}",
            "image": str(files.context_image()),
        },
        "secret": bake.secrets(NETWORK),
        "output": [f"type=image,name={name},unpack=true"],
        "attest": ["type=provenance,disabled=true"],
    }
    engine.bake({"target": {"default": target}}, bake.environment(NETWORK.secrets))
    yield name
    engine.remove(name)


@pytest.fixture
def broken_image(
    request: pytest.FixtureRequest, engine: Docker, small_image: str
) -> Iterator[Callable[[str, str], str]]:
    """A copy of the small image with one thing broken: ``broken_image("what", "RUN ...")``."""
    made: list[str] = []
    whose = request.path.stem.rpartition("_")[2]  # another process breaks its own

    def make(what: str, lines: str) -> str:
        made.append(tiny_image.broken(engine, small_image, f"{whose}-{what}", lines, NETWORK))
        return made[-1]

    yield make
    for name in made:
        engine.remove(name)


TinyImage = Callable[..., Tested]


@pytest.fixture
def tiny(engine: Docker, local_base: Base, project: Project, tmp_path: Path) -> Iterator[TinyImage]:
    """Makes images of a few megabytes with a report that passed: to push, not to run."""
    made: list[str] = []

    def make(
        megabytes: int = 1,
        target: Target | None = None,
        labels: dict[str, str] | None = None,
        compression: Compression = "zstd",
    ) -> Tested:
        target = target or project.resolution.targets[-1]  # not the demo's
        key = secrets.token_hex(32)
        image = Image(
            target=target,
            context=tmp_path,
            base="scratch",
            base_override="",
            labels={"imagegen.key": key, "imagegen.target": json.dumps(target.promise)}
            if labels is None
            else labels,
            key=key,
            compression=compression,
        )
        (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY noise /\n")
        (tmp_path / "noise").write_bytes(os.urandom(megabytes * 1_000_000))
        row = bake.document([image], tmp_path)["target"][bake.name(target)]  # type: ignore[index]
        engine.bake({"target": {"default": row | {"dockerfile": "Dockerfile"}}})
        made.append(image.ref)
        local = engine.local(image.ref)
        assert local is not None
        built = Built(image=image, digest=local.digest, unpacked=0, seconds=0.0, cached="")
        checks = [Check(name="x", status="pass", detail="", seconds=0.0, level=x) for x in needed()]
        return Tested(built=built, report=Report.of(built, tuple(checks), 0.0), needed=needed())

    yield make
    for ref in made:
        engine.remove(ref)
