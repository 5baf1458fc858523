"""A build from end to end: a small source distribution, and stand-ins for torch and the compiler.

The command line runs as a build stage runs it, in a process of its own.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagegen.image.wheel.flash_attn_wheel.packing import API
from imagegen.image.wheel.flash_attn_wheel.selection import KERNELS
from imagegen.image.wheel.flash_attn_wheel.stub import stub
from tests.support.wheel_recipe import DEMO, FOLDER, LLAMA, Nvcc, until
from tests.unit.image.wheel.test_stub import API as REFUSALS

pytestmark = pytest.mark.process

SIX = set(LLAMA.kernels)
CHOSEN = ("--archs", "80", "--preset", "llama", "--dtypes", "bf16", "--jobs", "2")

PROJECT = f"""
import os, torch
from setuptools import find_packages, setup
from torch.utils.cpp_extension import CUDAExtension
print("pages of warnings")
assert os.environ["FLASH_ATTENTION_FORCE_BUILD"] == "TRUE"
archs = os.environ["FLASH_ATTN_CUDA_ARCHS"].split(";")
flags = [w for a in archs for w in ("-gencode", f"arch=compute_{{a}},code=sm_{{a}}")]
extension = CUDAExtension(
    name="flash_attn_2_cuda",
    sources=[{API!r}] + ["csrc/flash_attn/src/" + name for name in {KERNELS!r}],
    extra_compile_args={{"cxx": ["-O3", "-std=c++17"],
                        "nvcc": ["-O3", "-std=c++17", *flags, "--threads", "4"]}},
    include_dirs=[os.path.abspath("csrc/flash_attn")],
)
setup(version="2.8.3+" + os.environ["FLASH_ATTN_LOCAL_VERSION"], packages=find_packages(),
      ext_modules=[extension])
"""
SETUPTOOLS = """
import fcntl, os, sys, time, zipfile
def find_packages():
    return sorted(path.replace("/", ".") for path, _, _ in os.walk("flash_attn"))
def setup(version, packages, ext_modules):
    assert sys.argv[:3] == ["setup.py", "-q", "bdist_wheel"] and sys.argv[3] == "-d"
    if os.environ.get("LINK") == "fails":
        print("error: ld returned 1"); sys.exit("error: command c++ failed")
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}{sys.abiflags}"
    os.makedirs(sys.argv[4], exist_ok=True)
    lock = open("build.lock", "w")  # setuptools and ninja keep one folder for what they make
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    (one,) = ext_modules
    file = os.path.join(sys.argv[4], f"flash_attn-{version}-{tag}-{tag}-linux_x86_64.whl")
    with zipfile.ZipFile(file, "w") as archive:
        for path in [*one.sources, *one.extra_objects]:
            archive.write(path, "library/" + os.path.basename(path))
            time.sleep(float(os.environ.get("LINK") or 0))
        archive.writestr("flags", repr(one.extra_compile_args))
        archive.writestr("packages", repr(packages))
"""
TORCH = """
import os
from types import SimpleNamespace
__version__ = os.environ.get("TORCH", "2.11.0+cu130")
version = SimpleNamespace(cuda=os.environ.get("TORCHS_CUDA", "13.0") or None)
_C = SimpleNamespace(_GLIBCXX_USE_CXX11_ABI=True)
"""
EXTENSION = """
import os
from types import SimpleNamespace
CUDA_HOME, COMMON_NVCC_FLAGS = os.environ["CUDA_HOME"], ["-D__CUDA_NO_HALF_OPERATORS__"]
def CUDAExtension(**given): return SimpleNamespace(extra_objects=[], **given)
"""


class Place:
    """A folder with everything that a build needs, and its results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nvcc = Nvcc(folder / "cuda")
        for name in ("ptxas", "cudafe++", "g++", "gcc-13"):
            self.tool(name, "echo 12.2.0")
        for name, text in (
            ("torch/__init__.py", TORCH),
            ("torch/utils/__init__.py", ""),
            ("torch/utils/cpp_extension.py", EXTENSION),
            ("setuptools/__init__.py", SETUPTOOLS),
        ):
            (folder / "site" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "site" / name).write_text(text)
        self.sdist = folder / "flash_attn-2.8.3.tar.gz"
        self.packed(PROJECT)

    def tool(self, name: str, shell: str) -> None:
        file = self.folder / "cuda/bin" / name
        file.write_text(f"#!/bin/sh\n{shell}\n")
        file.chmod(0o755)

    def packed(self, setup: str) -> None:
        files = {"setup.py": setup, API: REFUSALS, "flash_attn/__init__.py": ""}
        files |= {f"csrc/flash_attn/src/{name}": "" for name in KERNELS}
        files |= {"flash_attn/ops/__init__.py": "", "flash_attn/cute/__init__.py": ""}
        with tarfile.open(self.sdist, "w:gz") as tar:
            for name, text in files.items():
                info = tarfile.TarInfo(f"flash_attn-2.8.3/{name}")
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))

    def start(
        self, *words: str, out: str = "out", work: str = "work", abiflags: str = "", **env: str
    ) -> subprocess.Popen[str]:
        """``abiflags`` makes it another Python."""
        run = f"import runpy, sys; sys.abiflags = {abiflags!r}; sys.argv[0] = 'x'; "
        run += "runpy.run_module('flash_attn_wheel', run_name='__main__', alter_sys=True)"
        command = [sys.executable, "-c", run, "build", os.fspath(self.sdist), *CHOSEN]
        path = f"{FOLDER}{os.pathsep}{self.folder / 'site'}"
        own = {"CUDA_HOME": os.fspath(self.folder / "cuda"), "PYTHONPATH": path}
        own |= {"PATH": f"{self.folder}/cuda/bin{os.pathsep}{os.environ['PATH']}"}
        own |= {"PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(
            [*command, "--out", out, "--work", work, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={k: v for k, v in os.environ.items() if k != "CC"} | own | env,
        )

    def build(self, *words: str, **options: str) -> dict[str, object]:
        """The JSON line of a build that goes well."""
        started = self.start(*words, **options)
        out, err = started.communicate(timeout=120)
        assert started.returncode == 0, out + err
        assert "pages of warnings" not in out + err
        found = json.loads(out.splitlines()[-1])
        assert isinstance(found, dict)
        return found

    def fails(self, *words: str, **options: str) -> str:
        """What a build that goes wrong says."""
        started = self.start(*words, **options)
        out, err = started.communicate(timeout=120)
        assert started.returncode != 0
        return out + err

    def wheel(self, found: dict[str, object], out: str = "out") -> dict[str, str]:
        """The files in the wheel."""
        with zipfile.ZipFile(self.folder / out / str(found["wheel"])) as archive:
            assert archive.testzip() is None
            return {name: archive.read(name).decode() for name in archive.namelist()}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("BEHAVE", "")
    its = Place(tmp_path)
    yield its
    until(its.nvcc.end)


def kernels(files: dict[str, str]) -> set[str]:
    """The kernel files whose objects a wheel holds, each whole."""
    found = {f"{Path(name).stem}.cu": text for name, text in files.items() if name.endswith(".o")}
    assert all(text == f"object of {source}" for source, text in found.items())
    return set(found)


TAG = f"cp{sys.version_info.major}{sys.version_info.minor}"


def test_a_wheel_of_the_chosen_kernels(place: Place) -> None:
    found = place.build()
    assert found["wheel"] == f"flash_attn-2.8.3+{DEMO}-{TAG}-{TAG}-linux_x86_64.whl"
    assert found["bytes"] == (place.folder / "out" / str(found["wheel"])).stat().st_size
    assert (found["archs"], found["features"]) == ([80], ["backward"])
    files = place.wheel(found)
    assert kernels(files) == set(place.nvcc.said("start")) == SIX
    assert files["library/imagegen_stub.cpp"] == stub(LLAMA)
    refusals = files["library/imagegen_api.cpp"]
    assert f"does not support dropout: it holds {LLAMA.held}. Build a wheel with" in refusals
    assert files["packages"] == "['flash_attn', 'flash_attn.ops']"
    assert files["flags"].count("-DFLASHATTENTION_DISABLE_DROPOUT") == 2


def test_how_a_kernel_is_compiled(place: Place) -> None:
    gcc = os.fspath(place.folder / "cuda/bin/gcc-13")
    place.build(CC=gcc)
    words = place.nvcc.words(LLAMA.kernels[0])
    (tree,) = (place.folder / "work").glob("cu130*/flash_attn-2.8.3")
    assert f"{tree}/csrc/flash_attn" in words
    assert words[words.index("-c") + 1] == f"{tree}/csrc/flash_attn/src/{LLAMA.kernels[0]}"
    assert words[words.index("--threads") + 1] == "1" and words.count("--threads") == 1
    assert words[words.index("-ccbin") + 1] == gcc
    assert "-D__CUDA_NO_HALF_OPERATORS__ --compiler-options -fPIC" in " ".join(words)
    assert "-DTORCH_EXTENSION_NAME=flash_attn_2_cuda -D_GLIBCXX_USE_CXX11_ABI=1" in " ".join(words)
    assert set(LLAMA.macros) <= set(words)


def test_a_second_python_and_a_newer_system_compile_no_kernel_again(place: Place) -> None:
    first = place.build()
    place.nvcc.forget()
    second = place.build(abiflags="t")
    assert second["wheel"] == f"flash_attn-2.8.3+{DEMO}-{TAG}t-{TAG}t-linux_x86_64.whl"
    assert place.wheel(second) == place.wheel(first)
    assert place.build()["wheel"] == first["wheel"], "each names its own, beside the other's"
    place.tool("g++", "echo 14.1.0")
    assert place.build()["wheel"] == first["wheel"]
    assert place.nvcc.log == []
    assert len(list((place.folder / "work").glob(f"{DEMO}-*"))) == 3


@pytest.mark.parametrize("changed", ["torch", "nvcc", "source", "ccbin", "older gcc"])
def test_what_decides_a_kernel_compiles_it_again(changed: str, place: Place) -> None:
    place.build()
    place.nvcc.forget()
    env = {}
    if changed == "torch":
        env = {"TORCH": "2.12.0+cu130"}
    elif changed == "nvcc":
        place.tool("ptxas", "echo V13.0.99")
    elif changed == "source":
        place.packed(PROJECT + "# another\n")
    elif changed == "ccbin":
        env = {"CC": "gcc-13"}
    else:
        place.tool("g++", "echo 11.4.0")
    place.build(**env)
    assert set(place.nvcc.said("start")) == SIX
    trees = list((place.folder / "work").glob("cu130*/flash_attn-2.8.3/setup.py"))
    assert len(trees) == (1 if changed == "ccbin" else 2)
    assert (changed == "source") == any("# another" in tree.read_text() for tree in trees)


def test_a_torch_that_needs_a_newer_standard(place: Place) -> None:
    files = place.wheel(place.build(TORCH="2.15.0+cu130"))
    assert files["flags"].count("-std=c++20") == 2
    assert "-std=c++20" in place.nvcc.words(LLAMA.kernels[0])
    assert "-std=c++17" not in files["flags"]


def test_shards_and_a_whole_build_give_the_same_kernels(place: Place) -> None:
    whole = place.wheel(place.build())
    place.nvcc.forget()
    counts = []
    for number in (1, 2, 3):
        found = place.build("--shard", f"{number}/3", out="parts", work=f"work{number}")
        counts.append(found["objects"])
        assert not list((place.folder / "parts").glob("*.whl"))
    assert counts == [2, 2, 2]
    assert sorted(place.nvcc.said("start")) == sorted(SIX), "each kernel in one shard"
    place.nvcc.forget()
    joined = place.build("--given", "parts", "--no-compile", out="joined", work="work4")
    assert place.wheel(joined, "joined") == whole
    assert place.nvcc.log == []


def test_one_shard_of_one_makes_objects(place: Place) -> None:
    """Each job of a matrix does the same, however many there are."""
    assert place.build("--shard", "1/1", out="parts", work="work1")["objects"] == 6
    assert not list(place.folder.rglob("*.whl"))
    place.nvcc.forget()
    joined = place.build("--given", "parts", "--no-compile", work="work2")
    assert kernels(place.wheel(joined)) == SIX
    assert place.nvcc.log == []


def test_why_a_part_was_not_taken_is_said(place: Place) -> None:
    place.build("--shard", "1/1", out="parts", work="work1")
    (place.folder / "parts/objects/flash_attn-2.8.2-torch2.11").mkdir()
    damaged, newer = sorted((place.folder / "parts/objects").glob("*/*.o"))[:2]
    damaged.write_bytes(bytes(damaged.stat().st_size))
    note = newer.with_suffix(".json")
    note.write_text(note.read_text().replace('"gcc": [12', '"gcc": [15'))
    said = place.fails("--given", "parts", "--no-compile", work="work2").splitlines()
    where = f"in {place.folder}/parts/objects"
    other = f"flash-attn: flash_attn-2.8.2-torch2.11 {where} is of another flash-attn, torch,"
    assert [line for line in said if line.startswith(other)]
    assert f"flash-attn: {damaged.name} {where} is damaged" in said
    assert f"flash-attn: {newer.name} {where} was compiled on a newer distribution" in said
    assert said[-1].startswith("2 of 6 kernel files are not compiled")


def test_what_no_shard_has_compiled_is_named(place: Place) -> None:
    place.build("--shard", "1/2", out="parts", work="work1")
    held = set(place.nvcc.said("start"))
    place.nvcc.forget()
    said = place.fails("--given", "parts", "--no-compile", work="work2")
    assert "3 of 6 kernel files are not compiled, and this build may compile none: " in said
    for source in SIX:
        name = source.removeprefix("flash_").removesuffix("_sm80.cu")
        named = said.rpartition("none: ")[2].strip().split(", ")
        assert (name in named) == (source not in held)
    assert place.nvcc.log == [] and "Traceback" not in said
    place.build("--given", "parts", work="work2")
    assert set(place.nvcc.said("start")) == SIX - held


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        ("print('nothing to build')", "setup.py builds no CUDA extension here"),
        (PROJECT.replace("code=sm_", "code=compute_"), "and this nvcc cannot build sm_80"),
        (PROJECT.replace("hdim32", "hdim33"), "unknown flash-attn sources: "),
    ],
)
def test_a_source_that_is_not_known(setup: str, words: str, place: Place) -> None:
    place.packed(setup)
    said = place.fails()
    assert words in said and "Traceback" not in said
    assert place.nvcc.log == []


def test_what_is_wrong_with_the_machine_is_said(place: Place) -> None:
    assert "set CUDA_HOME to a CUDA toolkit" in place.fails(CUDA_HOME="/nowhere")
    said = place.fails(TORCHS_CUDA="")
    assert said == f"{sys.executable}: torch 2.11.0+cu130 is one for CPUs, not for CUDA\n"
    place.sdist.unlink()
    said = place.fails()
    assert f"No such file or directory: '{place.sdist}'" in said and "Traceback" not in said


def test_where_there_is_no_torch(place: Place) -> None:
    text = "raise ModuleNotFoundError(\"No module named 'torch'\")"
    (place.folder / "site/torch/__init__.py").write_text(text)
    assert place.fails() == f"{sys.executable}: No module named 'torch'\n"


def test_a_link_that_fails_shows_why_and_leaves_no_wheel(place: Place) -> None:
    assert "error: ld returned 1\n" in place.fails(LINK="fails")
    assert not list((place.folder / "out").glob("*"))
    place.nvcc.forget()
    place.build()
    assert place.nvcc.log == []


def test_a_build_that_is_killed_while_it_links_leaves_no_wheel(place: Place) -> None:
    build = place.start(LINK="3")
    until(lambda: list(place.folder.rglob("*.whl")))
    build.send_signal(signal.SIGKILL)
    build.communicate()
    assert not list((place.folder / "out").glob("*.whl"))
    assert kernels(place.wheel(place.build())) == SIX


def test_two_builds_of_one_wheel_at_once(place: Place) -> None:
    """Both of one Python: they share the kernels and the source tree."""
    place.nvcc.takes(0.2, *SIX)
    both = [place.start(out=out, LINK="0.1") for out in ("one", "two")]
    ends = [build.communicate(timeout=120) for build in both]
    assert [build.returncode for build in both] == [0, 0], ends
    assert sorted(place.nvcc.said("start")) == sorted(SIX)
    first, second = (
        place.wheel(json.loads(end[0].splitlines()[-1]), out)
        for end, out in zip(ends, ("one", "two"), strict=True)
    )
    assert first == second and kernels(first) == SIX
