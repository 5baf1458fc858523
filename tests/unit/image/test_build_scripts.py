"""The scripts of the build stages, each run with stand-ins for the commands that it calls.

A script runs as a copy whose absolute paths lie below a temporary folder: what it would do to an
image is done there.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.values import ROOT

pytestmark = pytest.mark.process

IMAGE = ROOT / "imagegen/image"
ABSOLUTE = re.compile(r"(?<![\w.}/:^*+])/(?=[a-z])[\w.*/-]*")
"""An absolute path; not the middle of one, of a URL, of a sed expression or of an expansion."""

UBUNTU = """\
Types: deb
URIs: http://archive.example.com/ubuntu/
Suites: noble noble-updates
Components: main universe
Signed-By: /usr/share/keyrings/archive.gpg

Types: deb
URIs: http://security.example.com/ubuntu
Suites: noble-security
"""
DEBIAN = """\
# deb http://deb.example.com/debian bookworm main
deb http://deb.example.com/debian bookworm main
deb [signed-by=/k.gpg]\thttps://deb.example.com/debian-security\tbookworm-security main
deb-src https://user@deb.example.com:8080/debian/ bookworm main
"""
OTHERS = """\
deb https://nvidia.example.com/compute/cuda/repos/ubuntu2404/x86_64/ /
deb https://ppa.example.com/deadsnakes/ppa/ubuntu noble main
deb https://download.example.com/linux/debian bookworm stable
"""


@dataclass(frozen=True)
class Stage:
    """A file system below ``root``, and stand-ins that note how they were called."""

    root: Path

    @property
    def calls(self) -> list[list[str]]:
        log = self.root / "calls"
        rows = log.read_text().split("\n") if log.exists() else []
        return [row.split("\x1f")[:-1] for row in rows if row]

    def file(self, path: str, text: str) -> Path:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def command(self, name: str, script: str = "") -> None:
        note = f"printf '%s\\037' {name} \"$@\" >> {self.root}/calls; echo >> {self.root}/calls"
        path = name if name.startswith("/") else f"/bin/{name}"
        self.file(path, f"#!/bin/sh\n{note}\n{script}\n").chmod(0o755)

    def relocated(self, script: Path) -> Path:
        """A copy that cannot touch the machine: every absolute path in it is below the root."""
        head, *lines = script.read_text().splitlines()
        assert head == "#!/bin/sh"
        body = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
        folders = "etc|opt|run|usr|var|wheels?|given|cache"
        body = re.sub(rf"(?<![\w.}}/:^*])/({folders})\b", rf"{self.root}/\1", body)
        for path in ABSOLUTE.findall(re.sub(r'"\$\w+"/', "x/", body)):
            assert path == "/dev/null" or path.startswith(f"{self.root}/"), path
        copy = self.file(f"scripts/{script.name}", f"{head}\n{body}\n")
        copy.chmod(0o755)
        return copy

    def run(
        self, name: str, *words: str | Path, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        (self.root / "tmp").mkdir(exist_ok=True)
        return subprocess.run(
            [self.relocated(IMAGE / name), *words],
            check=False,
            capture_output=True,
            text=True,
            env={
                "PATH": f"{self.root}/bin:{os.environ['PATH']}",
                "TMPDIR": f"{self.root}/tmp",
                **(env or {}),
            },
        )


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    for folder in ("bin", "etc", "opt", "run/secrets", "usr/local", "var"):
        (tmp_path / folder).mkdir(parents=True)
    return Stage(tmp_path)


# --- with-network ---------------------------------------------------------------------------------

SHOW = "env | grep -E '^(SSL_CERT|PIP_|CURL_|UV_|TORCH_)' | sort"


def network(stage: Stage, **secrets: str) -> dict[str, str]:
    for name, text in secrets.items():
        stage.file(f"/run/secrets/{name}", text)
    done = stage.run("build/with-network", "sh", "-c", SHOW)
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_without_secrets_nothing_is_set_but_what_every_step_needs(stage: Stage) -> None:
    found = network(stage)
    assert found.pop("TORCH_INDEX") == ""
    assert found.pop("PIP_NO_CACHE_DIR") == "1"
    assert found.pop("UV_PYTHON_DOWNLOADS") == "never"
    assert not {"SSL_CERT_FILE", "PIP_CERT", "CURL_CA_BUNDLE"} & set(found)
    assert not [name for name in found if name.endswith(("INDEX", "INDEX_URL", "HOST"))]


def test_secrets_are_exported_to_the_command(stage: Stage) -> None:
    found = network(
        stage,
        ca="-----BEGIN CERTIFICATE-----\n",
        pypi_index="https://me:pass@pypi.example.com/simple\r\n",
        torch_index="https://torch.example.com/{backend}\n",
    )
    ca = str(stage.root / "run/secrets/ca")
    assert {found[name] for name in ("SSL_CERT_FILE", "PIP_CERT", "CURL_CA_BUNDLE")} == {ca}
    assert found["UV_DEFAULT_INDEX"] == "https://me:pass@pypi.example.com/simple"
    assert found["PIP_INDEX_URL"] == "https://me:pass@pypi.example.com/simple"
    assert found["TORCH_INDEX"] == "https://torch.example.com/{backend}"


def test_an_empty_secret_is_none(stage: Stage) -> None:
    found = network(stage, ca="", pypi_index="", torch_index="")
    assert "SSL_CERT_FILE" not in found
    assert "UV_DEFAULT_INDEX" not in found


def test_the_command_decides_how_it_ends(stage: Stage) -> None:
    done = stage.run("build/with-network", "sh", "-c", 'printf "%s|" "$@"; exit 7', "x", "a b", "")
    assert done.returncode == 7
    assert done.stdout == "a b||"


def test_settings_leave_nothing_behind(stage: Stage) -> None:
    before = {p.relative_to(stage.root) for p in stage.root.rglob("*")}
    network(stage, ca="x", pypi_index="https://pypi.example.com")
    after = {p.relative_to(stage.root) for p in stage.root.rglob("*")}
    new = {str(p) for p in after - before if not str(p).startswith("run/secrets/")}
    assert new == {"scripts", "scripts/with-network", "tmp"}


# --- apt-install ----------------------------------------------------------------------------------


def sources(stage: Stage, mirror: str = "") -> dict[str, str]:
    """The sources that apt-get was given, by file, after an installation of two packages."""
    kept = stage.root / "given"
    stage.command(
        "apt-get",
        "for word; do case $word in Dir::Etc::sourceparts=*) parts=${word#*=};; esac; done\n"
        f'if [ -n "${{parts:-}}" ]; then rm -rf {kept}; cp -r "$parts" {kept}; fi',
    )
    if mirror:
        stage.file("/run/secrets/apt_mirror", mirror)
    done = stage.run("build/apt-install", "curl", "git")
    assert done.returncode == 0, done.stderr
    return {file.name: file.read_text() for file in kept.iterdir()}


def distribution(stage: Stage) -> dict[str, str]:
    files = {"ubuntu.sources": UBUNTU, "debian.list": DEBIAN, "others.list": OTHERS}
    for name, text in files.items():
        stage.file(f"/etc/apt/sources.list.d/{name}", text)
    return files


def test_without_a_mirror_the_sources_are_the_images_own(stage: Stage) -> None:
    assert sources_without_mirror(stage) == distribution(stage)


def sources_without_mirror(stage: Stage) -> dict[str, str]:
    distribution(stage)
    return sources(stage)


@pytest.mark.parametrize("slash", ["", "/", "\n"])
def test_a_mirror_takes_the_place_of_the_archives_host(stage: Stage, slash: str) -> None:
    distribution(stage)
    found = sources(stage, "https://mirror.example.com/apt" + slash)
    assert found["ubuntu.sources"] == UBUNTU.replace(
        "http://archive.example.com/", "https://mirror.example.com/apt/"
    ).replace("http://security.example.com/", "https://mirror.example.com/apt/")
    assert (
        found["debian.list"]
        == """\
# deb https://mirror.example.com/apt/debian bookworm main
deb https://mirror.example.com/apt/debian bookworm main
deb [signed-by=/k.gpg]\thttps://mirror.example.com/apt/debian-security\tbookworm-security main
deb-src https://mirror.example.com/apt/debian/ bookworm main
"""
    )


def test_other_sources_are_left_alone(stage: Stage) -> None:
    distribution(stage)
    assert sources(stage, "https://mirror.example.com")["others.list"] == OTHERS


def test_the_one_file_of_old_is_read_too(stage: Stage) -> None:
    stage.file("/etc/apt/sources.list", "deb http://deb.example.com/debian bookworm main\n")
    found = sources(stage, "https://mirror.example.com")
    assert found == {"main.list": "deb https://mirror.example.com/debian bookworm main\n"}


def test_the_images_own_sources_stay_as_they_were(stage: Stage) -> None:
    files = distribution(stage)
    sources(stage, "https://mirror.example.com")
    for name, text in files.items():
        assert (stage.root / "etc/apt/sources.list.d" / name).read_text() == text


def test_apt_updates_installs_and_cleans(stage: Stage) -> None:
    sources_without_mirror(stage)
    update, install, clean = stage.calls
    assert update[-1] == "update"
    assert "APT::Update::Error-Mode=any" in update, "an index that is missing is an error"
    assert install[-5:] == ["install", "-y", "--no-install-recommends", "curl", "git"]
    assert "Dir::Etc::sourcelist=/dev/null" in install
    assert clean == ["apt-get", "clean"]
    assert not any("CAInfo" in word for call in stage.calls for word in call)


def test_apt_is_given_the_ca(stage: Stage) -> None:
    ca = stage.file("/run/secrets/ca", "-----BEGIN CERTIFICATE-----\n")
    sources_without_mirror(stage)
    for call in stage.calls[:2]:
        assert f"Acquire::https::CAInfo={ca}" in call


def test_nothing_is_left_of_an_installation(stage: Stage) -> None:
    left = [
        *("/var/lib/apt/lists/x_InRelease", "/var/cache/debconf/config.dat-old"),
        *("/var/log/apt/history.log", "/var/log/dpkg.log"),
        *("/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_rsa_key.pub"),
    ]
    stays = ["/var/lib/dpkg/status", "/etc/ssh/sshd_config", "/var/log/other.log"]
    for path in (*left, *stays):
        stage.file(path, "x")
    distribution(stage)
    sources(stage, "https://mirror.example.com")
    assert not [path for path in left if (stage.root / path.lstrip("/")).exists()]
    assert all((stage.root / path.lstrip("/")).exists() for path in stays)
    assert not list((stage.root / "tmp").iterdir())


@pytest.mark.parametrize("fails", ["update", "install"])
def test_an_apt_that_fails_fails_the_step_and_leaves_no_copy(stage: Stage, fails: str) -> None:
    distribution(stage)
    stage.command("apt-get", f'for word; do [ "$word" != {fails} ] || exit 100; done')
    assert stage.run("build/apt-install", "curl").returncode == 100
    assert not list((stage.root / "tmp").iterdir())
    assert stage.calls[-1].count(fails) == 1


# --- cuda-links -----------------------------------------------------------------------------------


def links(stage: Stage, **files: str) -> Path:
    """Run cuda-links over a site-packages; returns /usr/local/cuda."""
    site = stage.root / "opt/venv/lib/python3.12/site-packages"
    site.mkdir(parents=True)
    stage.command("/opt/venv/bin/python", f"echo {site}")
    stage.command("ldconfig")
    for path, text in files.items():
        stage.file(f"/opt/venv/lib/python3.12/site-packages/nvidia/{path}", text)
    done = stage.run("build/cuda-links", site)
    assert done.returncode == 0, done.stderr
    conf = stage.root / "etc/ld.so.conf.d/imagegen-cuda.conf"
    assert conf.read_text() == f"{stage.root}/usr/local/cuda/lib64\n"
    assert ["ldconfig"] in stage.calls
    return stage.root / "usr/local/cuda"


CUDA_13 = {
    "cu13/bin/nvcc": "nvcc",
    "cu13/include/cuda.h": "",
    "cu13/lib/libcudart.so.13": "cudart",
    "cu13/lib/libcublas.so.13.1.0.3": "cublas",
    "cu13/lib/libnvrtc-builtins.so.13.0": "builtins",
    "cu13/lib/libcudart_static.a": "",
}


@pytest.fixture
def linker(stage: Stage) -> Stage:
    (stage.root / "etc/ld.so.conf.d").mkdir()
    return stage


def test_cuda_13_wheels_become_a_toolkit(linker: Stage) -> None:
    cuda = links(linker, **CUDA_13)
    assert (cuda / "bin/nvcc").read_text() == "nvcc"
    assert (cuda / "lib64/libcudart.so").read_text() == "cudart"
    assert (cuda / "lib64/libcublas.so").read_text() == "cublas"
    assert (cuda / "lib64/libnvrtc-builtins.so").read_text() == "builtins"
    assert (cuda / "lib64/libcudart.so").readlink() == Path("libcudart.so.13")
    assert not (cuda / "lib64/libcudart_static.so").exists()


def test_making_the_toolkit_again_changes_nothing(linker: Stage) -> None:
    cuda = links(linker, **CUDA_13)
    before = sorted((p, p.is_symlink()) for p in cuda.resolve().rglob("*"))
    site = linker.root / "opt/venv/lib/python3.12/site-packages"
    assert linker.run("build/cuda-links", site).returncode == 0
    assert sorted((p, p.is_symlink()) for p in cuda.resolve().rglob("*")) == before
    assert (cuda / "bin/nvcc").read_text() == "nvcc"


def test_cuda_12_headers_join_the_toolkit_that_is_there(linker: Stage) -> None:
    linker.file("/usr/local/cuda/include/cuda.h", "of the toolkit")
    linker.file("/usr/local/cuda/bin/nvcc", "nvcc")
    cuda = links(
        linker,
        **{
            "cublas/include/cublas_v2.h": "cublas",
            "cuda_runtime/include/cuda.h": "of the wheel",
            "cusparse/include/cusparse.h": "cusparse",
        },
    )
    assert (cuda / "include/cublas_v2.h").read_text() == "cublas"
    assert (cuda / "include/cusparse.h").read_text() == "cusparse"
    assert (cuda / "include/cuda.h").read_text() == "of the toolkit"
    assert (cuda / "bin/nvcc").read_text() == "nvcc"


def test_the_toolkit_of_a_devel_image_keeps_its_nvcc(linker: Stage) -> None:
    """nvidia/cuda's /usr/local/cuda is a link to the toolkit; CUDA 13 wheels come without nvcc."""
    linker.file("/usr/local/cuda-13.0/bin/nvcc", "nvcc").chmod(0o755)
    linker.file("/usr/local/cuda-13.0/include/cuda.h", "")
    (linker.root / "usr/local/cuda").symlink_to("cuda-13.0")
    wheels = {path: text for path, text in CUDA_13.items() if path != "cu13/bin/nvcc"}
    cuda = links(linker, **wheels)
    assert (cuda / "bin/nvcc").is_file()


# --- pip-install, torch-install, torch-constraints, fetch-sdist -----------------------------------


def test_locks_are_installed_by_hash_and_nothing_more(stage: Stage) -> None:
    stage.command("uv")
    assert stage.run("build/pip-install", "/locks/a.txt", "/locks/b c.txt").returncode == 0
    (call,) = stage.calls
    assert call[-4:] == ["-r", "/locks/a.txt", "-r", "/locks/b c.txt"]
    assert {"--no-deps", "--require-hashes", "--no-cache"} <= set(call)


def test_torch_comes_from_its_own_index(stage: Stage) -> None:
    stage.command("uv")
    assert stage.run("build/torch-install", "cu128", "torch==2.9.1", "einops").returncode == 0
    (call,) = stage.calls
    assert call[-4:] == ["--torch-backend", "cu128", "torch==2.9.1", "einops"]


def test_torch_comes_from_an_index_of_ones_own(stage: Stage) -> None:
    stage.command("uv")
    index = {"TORCH_INDEX": "https://torch.example.com/whl/{backend}?a&b"}
    assert stage.run("build/torch-install", "cu126", "torch==2.9.1", env=index).returncode == 0
    (call,) = stage.calls
    assert call[call.index("--index") + 1] == "https://torch.example.com/whl/cu126?a&b"
    assert call[-1] == "torch==2.9.1"
    assert "--torch-backend" not in call


def test_what_only_that_index_has_comes_from_there_alone(stage: Stage) -> None:
    stage.command("uv")
    index = {"TORCH_INDEX": "https://torch.example.com/whl/{backend}"}
    done = stage.run("build/index-install", "cu130", "flash-attn-3==3.0.0", env=index)
    assert done.returncode == 0
    (call,) = stage.calls
    assert call[call.index("--index") + 1] == "https://torch.example.com/whl/cu130"
    assert call[-1] == "flash-attn-3==3.0.0"
    assert "--no-deps" in call, "torch stays as it is"
    assert not any("index-strategy" in word for word in call), "an empty one on PyPI is none"


def test_without_that_index_nothing_is_looked_for_elsewhere(stage: Stage) -> None:
    stage.command("uv")
    done = stage.run("build/index-install", "cu130", "flash-attn-3==3.0.0")
    assert done.returncode == 1
    assert "flash-attn-3==3.0.0: only PyTorch's own index has it" in done.stderr
    assert "--torch-index URL" in done.stderr
    assert stage.calls == []


FROZEN = """\
accelerate==1.15.0
cuda-toolkit==13.0.2
einops==0.8.2
flash-attn @ file:///wheels/flash_attn.whl
nvidia-cublas==13.1.0.3
nvidia-cuda-nvcc-cu12==12.8.93
torch==2.11.0+cu126
torchao==1.0
torchvision==0.26.0
triton==3.6.0
"""


def test_constraints_are_torch_and_what_must_match_it(stage: Stage) -> None:
    stage.command("uv", f"cat <<'EOF'\n{FROZEN}EOF")
    done = stage.run("build/torch-constraints")
    assert done.returncode == 0
    rows = [row for row in done.stdout.splitlines() if not row.startswith("#")]
    assert [row.partition("==")[0] for row in rows] == [
        *("cuda-toolkit", "nvidia-cublas", "nvidia-cuda-nvcc-cu12", "torch", "torchvision"),
        "triton",
    ]


def test_an_image_without_torch_has_no_constraints_and_fails(stage: Stage) -> None:
    stage.command("uv", "echo accelerate==1.15.0")
    assert stage.run("build/torch-constraints").returncode != 0


SDIST = b"the source"
SHA = hashlib.sha256(SDIST).hexdigest()


@pytest.mark.parametrize("held", [None, b"half of"])
def test_a_source_is_fetched_where_it_is_missing_or_broken(
    stage: Stage, held: bytes | None
) -> None:
    cache = stage.root / "cache"
    cache.mkdir()
    file = cache / "flash_attn-2.8.3.tar.gz"
    if held:
        file.write_bytes(held)
    stage.command(
        "python",
        f'for word; do list=$word; done; cat "$list" > {stage.root}/asked\n'
        f'echo "$FLASH_ATTENTION_SKIP_CUDA_BUILD" >> {stage.root}/asked\n'
        f"printf '%s' '{SDIST.decode()}' > {file}",
    )
    done = stage.run("wheel/fetch-sdist", "2.8.3", SHA, cache)
    assert done.returncode == 0, done.stderr
    asked = (stage.root / "asked").read_text()
    assert asked == f"flash-attn==2.8.3 --hash=sha256:{SHA}\nTRUE\n"
    assert "--require-hashes" in stage.calls[0]
    assert not list((stage.root / "tmp").iterdir())


def test_a_source_that_is_there_is_not_fetched_again(stage: Stage) -> None:
    stage.file("/cache/flash_attn-2.8.3.tar.gz", SDIST.decode())
    stage.command("python")
    assert stage.run("wheel/fetch-sdist", "2.8.3", SHA, stage.root / "cache").returncode == 0
    assert stage.calls == []


def test_a_source_with_another_hash_is_never_used(stage: Stage) -> None:
    cache = stage.root / "cache"
    cache.mkdir()
    stage.command("python", f"echo other > {cache}/flash_attn-2.8.3.tar.gz")
    assert stage.run("wheel/fetch-sdist", "2.8.3", SHA, cache).returncode != 0


# --- provide --------------------------------------------------------------------------------------

OPTIONS = ("--archs", "80", "--features", "")
URL = "https://x.example/v1/flash_attn-1%2Bcu13-py3-none-any.whl"
WHEEL = "flash_attn-1+cu13-py3-none-any.whl"


@pytest.fixture
def wheels(stage: Stage) -> Stage:
    """A build stage with the recipe: a python that builds and verifies, and an empty /given."""
    (stage.root / "given").mkdir()
    stage.command("/wheel/fetch-sdist")
    stage.command("curl", 'while [ "$1" != --output ]; do shift; done; printf theirs > "$2"')
    stage.command(
        "python",
        f'echo "$PYTHONPATH" > {stage.root}/path\n'
        f'case "$3" in build) printf own > {stage.root}/wheels/{WHEEL};; esac\n'
        f'case "$3" in verify) cat "$4" >> {stage.root}/verified;; esac',
    )
    return stage


def provide(stage: Stage, *how: str, **env: str) -> subprocess.CompletedProcess[str]:
    return stage.run("wheel/provide", "2.8.3", SHA, *how, "--", *OPTIONS, env=env)


def compiling(stage: Stage) -> list[str]:
    """The words that the recipe was asked to build with."""
    (found,) = [
        call for call in stage.calls if call[:4] == ["python", "-m", "flash_attn_wheel", "build"]
    ]
    return found[4:]


def test_without_anything_given_the_source_is_compiled(wheels: Stage) -> None:
    assert provide(wheels).returncode == 0
    assert wheels.calls[0] == ["/wheel/fetch-sdist", "2.8.3", SHA, f"{wheels.root}/cache"]
    sdist, *words = compiling(wheels)
    assert sdist == f"{wheels.root}/cache/flash_attn-2.8.3.tar.gz"
    root = wheels.root
    assert words == [
        *("--work", f"{root}/cache/build", "--out", f"{root}/wheels", "--given", f"{root}/given"),
        *OPTIONS,
    ]
    assert (wheels.root / "verified").read_text() == "own"
    assert (wheels.root / "path").read_text().strip() == f"{wheels.root}/wheel"


def test_a_given_wheel_comes_before_all_and_is_verified(wheels: Stage) -> None:
    wheels.file(f"/given/{WHEEL}", "given")
    for how in ((), ("--no-source",), ("--wheel", URL, SHA)):
        assert provide(wheels, *how).returncode == 0
        assert (wheels.root / "wheels" / WHEEL).read_text() == "given"
    assert (wheels.root / "verified").read_text() == "given" * 3
    assert {call[0] for call in wheels.calls} == {"python"}
    assert not any("build" in call for call in wheels.calls)


def test_a_published_wheel_is_taken_by_its_hash(wheels: Stage) -> None:
    its = hashlib.sha256(b"theirs").hexdigest()
    done = provide(wheels, "--wheel", URL, its)
    assert done.returncode == 0, done.stderr
    assert (wheels.root / "wheels" / WHEEL).read_text() == "theirs"
    assert (wheels.root / "verified").read_text() == "theirs"
    assert "--fail" in wheels.calls[0]
    assert wheels.calls[0][-1] == URL


def test_a_published_wheel_with_another_hash_is_refused_unread(wheels: Stage) -> None:
    done = provide(wheels, "--wheel", URL, SHA)
    assert done.returncode == 1
    assert f"{URL} is another file than the one recorded: its sha256 is not {SHA}" in done.stderr
    assert [call[0] for call in wheels.calls] == ["curl"]


def test_a_server_without_the_wheel_ends_the_build(wheels: Stage) -> None:
    wheels.command("curl", "exit 22")
    assert provide(wheels, "--wheel", URL, SHA).returncode == 22
    assert [call[0] for call in wheels.calls] == ["curl"]


def test_where_nothing_may_be_compiled_nothing_is(wheels: Stage) -> None:
    done = provide(wheels, "--no-source")
    assert done.returncode == 1
    assert "the matrix forbids compiling" in done.stderr
    assert wheels.calls == []


def test_a_join_links_and_compiles_nothing_whatever_lies_there(wheels: Stage) -> None:
    wheels.file(f"/given/{WHEEL}", "a wheel among the objects")
    assert provide(wheels, FLASH_ATTN_SHARD="join").returncode == 0
    assert "--no-compile" in compiling(wheels)
    assert compiling(wheels)[-len(OPTIONS) :] == list(OPTIONS)


def test_objects_that_lie_there_do_not_forbid_compiling(wheels: Stage) -> None:
    """What is asked decides, not what is found: a folder a level too deep compiled everything."""
    wheels.file("/given/objects/key/a.o", "object")
    assert provide(wheels).returncode == 0
    assert "--no-compile" not in compiling(wheels)


def test_a_shard_and_the_jobs_reach_the_recipe(wheels: Stage) -> None:
    wheels.file("/run/secrets/jobs", "3")
    wheels.command("python")  # a shard leaves no wheel, so none is verified
    assert provide(wheels, FLASH_ATTN_SHARD="2/4").returncode == 0
    words = compiling(wheels)
    assert "--shard=2/4" in words
    assert words[words.index("--jobs") + 1] == "3"
    assert not any("verify" in call for call in wheels.calls)


@pytest.mark.parametrize("fails", ["build", "verify"])
def test_a_recipe_that_fails_fails_the_step(wheels: Stage, fails: str) -> None:
    wheels.file(f"/wheels/{WHEEL}", "own")
    wheels.command("python", f'[ "$3" != {fails} ]')
    assert provide(wheels).returncode != 0


# --- all of them ----------------------------------------------------------------------------------

SCRIPTS = sorted(
    p
    for p in (*(IMAGE / "build").iterdir(), *(IMAGE / "wheel").iterdir())
    if p.is_file() and p.suffix != ".pyc"
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_a_script_can_be_run_and_stops_at_the_first_error(script: Path) -> None:
    if script.suffix == ".py":
        return
    assert os.access(script, os.X_OK), "it is called by its name"
    text = script.read_text()
    assert text.startswith("#!/bin/sh\n")
    assert re.search(r"^set -eu", text, re.MULTILINE)
