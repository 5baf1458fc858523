"""flash-attn's wheels, really built, stored, checked and installed: what is taken from where."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import secrets
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imagegen.build import bake, images
from imagegen.build.options import Options
from imagegen.commands import files, wheels
from imagegen.engine.docker import Docker
from imagegen.errors import BuildError, WheelError
from imagegen.image.wheel.flash_attn_wheel.verify import FUNCTION
from imagegen.matrix.project import Project, load
from imagegen.model.image import Built
from imagegen.model.target import minor
from imagegen.plan import dockerfile as dockerfile_
from imagegen.plan import recipe
from imagegen.util import process
from imagegen.wheels import verify
from imagegen.wheels.entry import StoreEntry
from imagegen.wheels.store import open_store
from tests.engine.conftest import MATRIX, NETWORK, ROOT
from tests.engine.stand_ins.servers import Answer, served
from tests.engine.test_faults import names

OPTIONS = Options(network=NETWORK, base="bootstrap")


def imagegen(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line, as it is typed."""
    return subprocess.run(
        [sys.executable, "-m", "imagegen", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )


def steps(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The build steps that BuildKit ran or had."""
    return re.findall(r"#\d+ \[([\w-]+) +\d+/\d+\] RUN", done.stderr)


# --- wheels, altered ------------------------------------------------------------------------------

Change = Callable[[bytes], bytes]


def altered(
    wheel: Path,
    into: Path,
    *,
    version: Callable[[str], str] = lambda its: its,
    name: Callable[[str], str] = lambda its: its,
    change: Mapping[str, Change] = {},
    add: Mapping[str, bytes] = {},
    honest: bool = True,
) -> Path:
    """A copy of a wheel with another version in its metadata, another file name, other content.

    ``honest``: its RECORD tells the hashes of what is in it now.
    """
    its = wheel.name.split("-")[1]
    into.mkdir(parents=True, exist_ok=True)
    file = into / name(wheel.name.replace(its, version(its)))
    content = {}
    with zipfile.ZipFile(wheel) as archive:
        for path in archive.namelist():
            data = archive.read(path)
            for end, alter in change.items():
                data = alter(data) if path.endswith(end) else data
            if path.endswith(("METADATA", "RECORD")):
                data = data.replace(its.encode(), version(its).encode())
            content[path.replace(its, version(its))] = data
    content |= add
    (record,) = [path for path in content if path.endswith("/RECORD")]
    if honest:
        rows = io.StringIO()
        for path, data in content.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            row = [path, "", ""] if path == record else [path, f"sha256={digest}", len(data)]
            csv.writer(rows, lineterminator="\n").writerow(row)
        content[record] = rows.getvalue().encode()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in content.items():
            archive.writestr(path, data)
    return file


def another_abi(library: bytes) -> bytes:
    """The library asks for a constructor of torch's that only another C++ ABI would have."""
    return library.replace(
        b"SourceLocationENSt7__cxx1112basic", b"SourceLocationENSt7__cxx0312basic"
    )


# --- 1. a store -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(
    engine: Docker, demo: Built, demo_id: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A store with the demo's wheel, as `wheel build` puts it there."""
    folder = tmp_path_factory.mktemp("wheels") / "store"
    done = imagegen("wheel", "build", demo_id, "--base", "bootstrap", "--wheels", folder)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"{demo_id}: flash-attn 2.*from source, 6 kernel files for 1 ", done.stderr)
    assert re.search(rf"{demo_id}: built in \d+ s", done.stdout)
    return folder


@pytest.fixture(scope="module")
def wheel(store: Path) -> Path:
    (found,) = store.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def marked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose wheel has one more file than the compiled one; put there by `wheel push`."""
    folder = tmp_path_factory.mktemp("marked")
    own = altered(wheel, folder / "made", add={"flash_attn/marked.txt": b"from the store\n"})
    done = imagegen("wheel", "push", own, "--wheels", folder / "store")
    assert done.returncode == 0, done.stderr
    return folder / "store"


def test_a_wheel_that_the_store_has_is_not_built_again(store: Path, demo_id: str) -> None:
    before = {file: file.stat().st_mtime_ns for file in store.iterdir()}
    done = imagegen("wheel", "build", demo_id, "--base", "bootstrap", "--wheels", store)
    assert done.returncode == 0, done.stderr
    assert f"{store} has it already" in done.stdout
    assert not steps(done)
    assert {file: file.stat().st_mtime_ns for file in store.iterdir()} == before


def test_the_list_says_that_it_comes_from_the_store(store: Path, wheel: Path, demo_id: str) -> None:
    done = imagegen("wheel", "list", demo_id, "--wheels", store, "--format", "json")
    (row,) = json.loads(done.stdout)
    assert (row["from"], row["wheel"]) == ("store", wheel.name)
    assert row["held"] == {
        "name": wheel.name,
        "sha256": StoreEntry.of(wheel).sha256,
        "bytes": wheel.stat().st_size,
    }


def test_an_image_takes_its_wheel_from_the_store(
    engine: Docker, project: Project, demo: Built, demo_id: str, marked: Path
) -> None:
    """Also where nothing may be compiled; the compiled image stays what it is."""
    words = ("build", demo_id, "--base", "bootstrap", "--wheels", marked, "--no-source")
    done = imagegen(*words, "--format", "json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    try:
        assert "own wheel store: flash_attn-" in done.stderr
        assert "taking the wheel that was given" in done.stderr
        assert "kernel files" not in done.stderr
        assert row["ref"] != demo.image.ref
        show = "cd /opt/venv/lib/python*/site-packages; cat flash_attn/marked* flash_attn-*/RECORD"
        ran = engine.run(row["ref"], ["bash", "-c", show], timeout=60)
        (own,) = marked.glob("*.whl")
        with zipfile.ZipFile(own) as archive:
            (record,) = [name for name in archive.namelist() if name.endswith("/RECORD")]
            said = archive.read(record).decode().splitlines()
        assert ran.out.startswith("from the store\n")
        assert {line for line in said if ",sha256=" in line} <= {*ran.out.splitlines()}
        again = imagegen(*words)
        assert "already built" in again.stdout
    finally:
        engine.remove(row["ref"])


def test_nothing_is_compiled_where_that_is_forbidden(demo: Built, demo_id: str) -> None:
    done = imagegen("build", demo_id, "--base", "bootstrap", "--no-source", "--fresh-base")
    assert done.returncode == 11
    for place in ("own wheel store", "official wheel", "third party's wheel", "source"):
        assert f"  {place}: skipped, " in done.stderr
    assert "--no-source forbids it" in done.stderr
    assert not steps(done)
    assert "base debian" not in done.stderr, "it ended before the base was made"


# --- 2. wheels that are not what they say ---------------------------------------------------------


def test_a_wheel_is_verified_by_an_images_torch(demo: Built, wheel: Path) -> None:
    done = imagegen("wheel", "verify", wheel, "--image", demo.image.ref)
    assert done.returncode == 0, done.stderr
    assert StoreEntry.of(wheel).sha256 in done.stdout
    assert re.search(r"\d+ kernels for sm_80, as its name promises", done.stdout)
    assert "loads beside torch" in done.stdout


def truncated(wheel: Path, into: Path) -> Path:
    into.mkdir()
    (into / wheel.name).write_bytes(wheel.read_bytes()[:-100_000])
    return into / wheel.name


WRONG: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "named for another ABI": (
        lambda wheel, into: altered(wheel, into, version=lambda v: v.replace("true", "false")),
        r"it is for the C\+\+11 ABI of torch False, and here is True",
    ),
    "compiled for another ABI": (
        lambda wheel, into: altered(wheel, into, change={".so": another_abi}),
        r"it does not load beside torch 2\..*: undefined symbol: _ZN3c105Error\w+0312basic",
    ),
    "promises sm_90": (
        lambda wheel, into: altered(wheel, into, version=lambda v: v.replace("sm80", "sm80.sm90")),
        r"it has code for sm \[80\], and promises \[80, 90\]",
    ),
    "promises fp16": (
        lambda wheel, into: altered(wheel, into, version=lambda v: v.replace(".bf16", "")),
        r"for sm_80 it lacks bwd_hdim128_fp16, bwd_hdim128_fp16_causal, .* and \d more",
    ),
    "renamed": (
        lambda wheel, into: altered(wheel, into, name=lambda n: n.replace("torch2.1", "torch2.0")),
        r"its METADATA says version .*torch2\.1.*, its name .*torch2\.0",
    ),
    "another file in it": (
        lambda wheel, into: altered(
            wheel, into, change={"flash_attn/__init__.py": lambda b: b + b"#"}, honest=False
        ),
        "flash_attn/__init__.py in it has another hash than its RECORD says",
    ),
    "truncated": (truncated, "not a whole wheel"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wheel_that_is_not_what_it_says_is_refused(
    demo: Built, wheel: Path, tmp_path: Path, kind: str
) -> None:
    make, reason = WRONG[kind]
    wrong = make(wheel, tmp_path / "wrong")
    with pytest.raises(WheelError, match=reason) as failed:
        verify.verify(wrong, image=demo.image.ref)
    assert "Traceback" not in str(failed.value)
    assert failed.value.exit_code == 11


def test_a_build_refuses_what_a_store_has_wrongly(
    demo: Built, demo_id: str, wheel: Path, tmp_path: Path
) -> None:
    """Its name, its hashes and its metadata agree: only loading it shows the fault."""
    wrong = altered(wheel, tmp_path / "made", change={".so": another_abi})
    open_store(str(tmp_path / "store")).put(wrong)
    before = names(demo_id)
    done = imagegen("build", demo_id, "--base", "bootstrap", "--wheels", tmp_path / "store")
    assert done.returncode == 6
    assert "it does not load beside torch 2." in done.stderr
    assert "undefined symbol: _ZN3c105Error" in done.stderr
    assert "flash-attn" in steps(done)
    assert names(demo_id) == before


# --- 3. shards ------------------------------------------------------------------------------------


@pytest.fixture
def machines(engine: Docker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Builds as on another machine: what was compiled lies under another name, and is removed."""
    run, real = secrets.token_hex(4), dockerfile_.files

    def switch(machine: str) -> None:
        # BuildKit finds a step's result whatever the cache mount is called, but by its arguments.
        mount, stage = "id=imagegen-flash-attn", "FROM torch AS flash-attn\n"

        def rendered(its: recipe.Recipe) -> dict[str, str]:
            return {
                path: text.replace(mount, f"id=imagegen-test-{run}-{machine}").replace(
                    stage, f"{stage}ARG MACHINE={run}-{machine}\n"
                )
                for path, text in real(its).items()
            }

        monkeypatch.setattr(dockerfile_, "files", rendered)

    yield switch
    said = process.run(
        *("docker", "buildx", "du", "--verbose", "--filter", "type=exec.cachemount"), timeout=60
    )
    for block in said.split("\n\n"):
        if f'with id "/imagegen-test-{run}-' in block:
            id_ = re.search(r"^ID:\s+(\w+)", block, re.MULTILINE)
            assert id_
            process.run(
                "docker", "buildx", "prune", "--force", "--filter", f"id={id_[1]}", timeout=60
            )


def workspace(folder: Path, text: str, demo_id: str, facts: Path | None = None) -> Project:
    """A workspace of its own with another matrix, and the locks of the committed one."""
    shutil.copytree(ROOT / "dockerfiles/locks", folder / "locks")
    (folder / "matrix.toml").write_text(text)
    made = load(folder / "matrix.toml", facts)
    files.render_files(made, [demo_id], check=False)
    return made


def selecting(table: str) -> str:
    """The committed matrix with other kernels for the demo."""
    head = r'(\[flash_attn\.demo\]\nversion = "[^"]+"\n)'
    text, count = re.subn(rf"(?s){head}.*?\n\n", rf"\1{table}\n\n", MATRIX.read_text())
    assert count == 1
    return text


def functions(engine: Docker, ref: str, wheel: Path) -> list[str]:
    """The kernels in a wheel, as cuobjdump names them."""
    show = (
        "cd /tmp && python -m zipfile -e /wheels/*.whl . &&"
        ' "$(find /opt/venv -name cuobjdump | head -1)" --dump-resource-usage flash_attn_2_cuda*.so'
    )
    ran = engine.run(ref, ["bash", "-c", show], timeout=120, mounts={wheel.parent: "/wheels"})
    return sorted(line.strip() for line in ran.out.splitlines() if FUNCTION.search(line))


def test_shards_make_the_same_kernels_as_a_whole_build(
    engine: Docker,
    demo: Built,
    demo_id: str,
    tmp_path: Path,
    machines: Callable[[str], None],
    logged: list[str],
) -> None:
    """Four small kernel files, compiled by two machines and linked by a third, which compiles none.

    The first machine then builds all of them: those of the second it compiles itself.
    """
    text = selecting('archs = [80]\nhead_dims = [32]\ndtypes = ["bf16"]\nfeatures = []')
    machines("a")
    loaded = workspace(tmp_path / "dockerfiles", text, demo_id)

    def at(machine: str) -> None:
        machines(machine)
        files.render_files(loaded, [demo_id], check=False)

    cut = {shard.name: shard.kernels for shard in wheels.cut(loaded, [demo_id], 2)}
    for machine, name in (("a", "1/2"), ("b", "2/2")):
        at(machine)
        to = tmp_path / machine
        made = wheels.build_shard(loaded, engine, [demo_id], OPTIONS, name, to)
        assert {file.with_suffix(".cu").name for file in made} == {*cut[name]}
        assert not list(to.glob("*.whl"))

    at("c")
    together, store = tmp_path / "together", tmp_path / "store"
    shutil.copytree(tmp_path / "a/objects", together / "objects")
    options = Options(network=NETWORK, base="bootstrap", wheels=str(store))
    with pytest.raises(BuildError) as failed:
        wheels.build(loaded, engine, [demo_id], options, prebuilt=together)
    said = str(failed.value)
    assert "2 of 4 kernel files are not compiled, and this build may compile none" in said
    assert all(s.removeprefix("flash_").removesuffix("_sm80.cu") in said for s in cut["2/2"])
    assert not list(store.glob("*.whl"))

    shutil.copytree(tmp_path / "b/objects", together / "objects", dirs_exist_ok=True)
    (joined,) = wheels.build(loaded, engine, [demo_id], options, prebuilt=together)
    assert any("all 4 kernel files were compiled before" in line for line in logged)

    at("a")
    logged.clear()
    whole = Options(network=NETWORK, base="bootstrap", wheels=str(tmp_path / "whole"))
    wheels.build(loaded, engine, [demo_id], whole)
    assert any("2 kernel files compiled in" in line for line in logged)
    (other,) = (tmp_path / "whole").glob("*.whl")
    assert other.name == joined.entry.name

    mine = store / joined.entry.name
    verify.verify(mine, image=demo.image.ref)
    assert functions(engine, demo.image.ref, mine) == functions(engine, demo.image.ref, other) != []


# --- 4. what others published ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(engine: Docker) -> str:
    """This machine's address as build steps see it."""
    (row,) = json.loads(process.run("docker", "network", "inspect", "bridge", timeout=30))
    return str(row["IPAM"]["Config"][0]["Gateway"])


def unexported(loaded: Project, engine: Docker, demo_id: str) -> None:
    """Build every step of the demo and keep no image."""
    (image,) = images.plan(loaded, [demo_id], OPTIONS)
    document = images.document([image], OPTIONS)
    row = document["target"][bake.name(image.target)]  # type: ignore[index]
    row["output"] = ["type=cacheonly"]
    engine.bake(document, bake.environment(NETWORK.secrets))


def test_a_published_wheel_is_taken_by_the_hash_of_its_first_fetch(
    engine: Docker,
    demo: Built,
    demo_id: str,
    wheel: Path,
    gateway: str,
    tmp_path: Path,
    logged: list[str],
) -> None:
    """As its makers name theirs: the version in the metadata has no local part.

    Only a target with every kernel takes one, and this one holds six files of 72: it comes by its
    hash, and what it lacks is found before it is installed.
    """
    target = demo.image.target
    version, python = str(target.flash_attn.version), minor(target.python)  # type: ignore[union-attr]
    local = f"cu{target.cuda.major}torch{minor(target.torch)}cxx11abiTRUE"
    official = altered(
        wheel,
        tmp_path / "made",
        version=lambda its: its.partition("+")[0],
        name=lambda n: n.replace(f"{version}-", f"{version}+{local}-"),
    )
    body = official.read_bytes()

    def answer(path: str) -> Answer:
        return body if path == f"/v{version}/{official.name.replace('+', '%2B')}" else 404

    with served(gateway, answer) as server:
        facts = tmp_path / "facts.toml"
        facts.write_text(
            f'flash_attn_url = "{server.url}/v{{version}}/{{wheel}}"\n'
            f'[[flash_attn]]\nversion = "{version}"\nwheel_archs = [80]\nglibc = "2.32"\n'
            f'wheel = [{{ torch = "{minor(target.torch)}", tag = "cu{target.cuda.major}", '
            f'host = "x86_64", pythons = ["{python}"] }}]\n'
        )
        folder = tmp_path / "dockerfiles"
        text = selecting('archs = [80]\nsource = "forbidden"')
        loaded = workspace(folder, text, demo_id, facts)
        ours = ("--matrix", folder / "matrix.toml", "--facts", facts)
        dockerfile = folder / demo_id / "Dockerfile"
        assert "--no-source" in dockerfile.read_text()

        done = imagegen("build", demo_id, "--base", "bootstrap", *ours)
        assert done.returncode == 11
        assert f"no hash of {official.name} is recorded" in done.stderr
        done = imagegen("wheel", "list", demo_id, *ours)
        assert done.returncode == 0, done.stderr
        assert f"{demo_id}: not available" in done.stdout

        fetch = ("wheel", "fetch", demo_id, "--from", "official", "--to", tmp_path / "to", *ours)
        done = imagegen(*fetch)
        assert done.returncode == 0, done.stderr
        pinned = json.loads((folder / "locks/wheels.json").read_text())[official.name]
        assert pinned["sha256"] == hashlib.sha256(body).hexdigest()
        assert (tmp_path / "to" / official.name).read_bytes() == body

        assert imagegen("render", demo_id, "--check", *ours).returncode == 10
        assert imagegen("render", demo_id, *ours).returncode == 0
        assert f'--wheel "{pinned["url"]}" {pinned["sha256"]}' in dockerfile.read_text()

        server.asked.clear()
        before = names(demo_id)
        with pytest.raises(BuildError, match=r"for sm_80 it lacks \w+, .* and \d+ more"):
            unexported(loaded, engine, demo_id)
        assert any(f"flash-attn: fetching {official.name}" in line for line in logged)
        assert len(server.asked) == 1

        # Somebody replaces the file: a build notices, and so does who fetches it anew.
        body = altered(official, tmp_path / "other", add={"x.txt": b"other"}).read_bytes()
        with pytest.raises(BuildError, match="is another file than the one recorded"):
            unexported(loaded, engine, demo_id)
        assert names(demo_id) == before
        done = imagegen(*fetch)
        assert done.returncode == 11
        assert "another file than before" in done.stderr
        (kept,) = (tmp_path / "to").iterdir()
        assert hashlib.sha256(kept.read_bytes()).hexdigest() == pinned["sha256"]


# --- 5. two at once -------------------------------------------------------------------------------


def test_two_builds_of_one_wheel_at_once_leave_one(
    demo: Built, demo_id: str, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    words = ("wheel", "build", demo_id, "--base", "bootstrap", "--wheels", store)
    with ThreadPoolExecutor() as pool:
        both = [one.result() for one in [pool.submit(imagegen, *words) for _ in range(2)]]
    for done in both:
        assert done.returncode == 0, done.stderr
    (held,) = open_store(str(store)).entries()
    assert held.is_in(store / held.name)
    assert {file.name for file in store.iterdir()} == {held.name, f"{held.name}.json", ".lock"}
    assert all(held.sha256 in done.stdout for done in both)
