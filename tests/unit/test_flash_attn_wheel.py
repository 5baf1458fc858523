"""The wheel's recipe: which kernels it holds, and that what it lacks can never answer wrongly."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tarfile
import time
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from imagegen.image.wheel import flash_attn_wheel as recipe
from imagegen.image.wheel.flash_attn_wheel import DTYPES, FEATURES, HEAD_DIMS, Selection

KINDS = ("fwd", "fwd_split", "bwd")
KERNELS = [
    f"csrc/flash_attn/src/flash_{kind}_hdim{dim}_{dtype}{causal}_sm80.cu"
    for kind, dim, dtype, causal in product(KINDS, HEAD_DIMS, DTYPES, ("", "_causal"))
]
SOURCES = ["csrc/flash_attn/flash_api.cpp", *KERNELS]
FULL = Selection((80,))
LLAMA = Selection((80,), (128,), ("bf16",), ("backward",))
GB = 10**9


def part(values: tuple[Any, ...], least: int = 1) -> st.SearchStrategy[tuple[Any, ...]]:
    """A part of ``values`` in their order, as the command line makes them."""
    chosen = st.sets(st.sampled_from(values), min_size=least)
    return chosen.map(lambda found: tuple(v for v in values if v in found))


@st.composite
def selections(draw: st.DrawFn) -> Selection:
    dims = draw(part(HEAD_DIMS))
    features = draw(part(tuple(FEATURES), 0))
    return Selection(
        archs=draw(part((80, 90, 100, 120))),
        head_dims=dims,
        dtypes=draw(part(tuple(DTYPES))),
        features=features,
    )


# --- what can be selected -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"head_dims": (128, 160)}, r"head_dims: \[160\] not in"),
        ({"dtypes": ("fp8", "bf16")}, r"dtypes: \['fp8'\] not in"),
        ({"features": ("dropuot",)}, r"features: \['dropuot'\] not in"),
        ({"archs": ()}, "archs: empty"),
        ({"head_dims": ()}, "head_dims: empty"),
        ({"dtypes": ()}, "dtypes: empty"),
    ],
)
def test_what_cannot_be_built_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(FULL, **values)


@pytest.mark.parametrize("dim", HEAD_DIMS)
def test_no_head_dimension_needs_a_feature(dim: int) -> None:
    assert Selection((80,), (dim,), features=()).features == ()
    assert Selection((80,), (dim,), features=("backward",)).has(f"flash_bwd_hdim{dim}_bf16_sm80.cu")


def test_there_are_72_kernels_and_all_is_all() -> None:
    assert len(set(KERNELS)) == 72
    assert all(map(FULL.has, SOURCES))


def test_six_kernels_train_a_llama_and_four_run_it() -> None:
    held = [name for name in KERNELS if LLAMA.has(name)]
    assert len(held) == 6
    assert all("hdim128_bf16" in name for name in held)
    assert len([n for n in KERNELS if replace(LLAMA, features=()).has(n)]) == 4


def test_a_file_without_kernel_is_always_there() -> None:
    assert LLAMA.has("csrc/flash_attn/flash_api.cpp")
    assert LLAMA.has("csrc/flash_attn/src/flash_fwd_kernel.h")


@given(selections())
def test_how_many_kernels_a_selection_holds(selection: Selection) -> None:
    kinds = 3 if "backward" in selection.features else 2
    held = sum(map(selection.has, KERNELS))
    assert held == len(selection.head_dims) * len(selection.dtypes) * 2 * kinds


# --- the stub -------------------------------------------------------------------------------------


FUNCTION = re.compile(
    r"^template <> void (run_mha_\w+)<(cutlass::\w+), (\d+), (true|false)>"
    r"\((Flash_\w+_params) &, cudaStream_t\) \{$",
    re.MULTILINE,
)
NAMES = {
    "run_mha_fwd_": ("fwd", "Flash_fwd_params"),
    "run_mha_fwd_splitkv_dispatch": ("fwd_split", "Flash_fwd_params"),
    "run_mha_bwd_": ("bwd", "Flash_bwd_params"),
}


@given(selections())
def test_the_stub_is_exactly_what_the_kernels_are_not(selection: Selection) -> None:
    ctypes = {ctype: dtype for dtype, ctype in DTYPES.items()}
    found = []
    for function, ctype, dim, causal, params in FUNCTION.findall(recipe.stub(selection)):
        kind, wanted = NAMES[function]
        assert params == wanted
        causal = "_causal" if causal == "true" else ""
        found.append(f"csrc/flash_attn/src/flash_{kind}_hdim{dim}_{ctypes[ctype]}{causal}_sm80.cu")
    assert len(found) == len(set(found))
    assert set(found) == {name for name in KERNELS if not selection.has(name)}


def test_the_stub_of_everything_defines_nothing() -> None:
    assert "TORCH_CHECK" not in recipe.stub(FULL)


@given(selections())
def test_every_stub_raises_and_says_what_is_there(selection: Selection) -> None:
    text = recipe.stub(selection)
    checks = [line for line in text.splitlines() if "TORCH_CHECK(false" in line]
    assert len(checks) == len(FUNCTION.findall(text))
    for line in checks:
        assert re.fullmatch(r'    TORCH_CHECK\(false, "[^"\\]+"\);', line)
        assert f"head dimensions {', '.join(map(str, selection.head_dims))};" in line
    assert text.count("{") == text.count("}")


# --- the compilers --------------------------------------------------------------------------------


def gencode(*archs: int) -> list[str]:
    """The flags by which upstream's setup.py names architectures."""
    flags = [f"arch=compute_{arch},code=sm_{arch}" for arch in archs or (80, 90, 100, 120)]
    return [word for flag in flags for word in ("-gencode", flag)]


def extension(
    selection: Selection, stub: str = "stub.cpp", std: str = "c++17", **changes: Any
) -> dict[str, Any]:
    """What upstream's setup.py would hand to CUDAExtension, after the narrowing."""
    given: dict[str, Any] = {
        "name": "flash_attn_2_cuda",
        "sources": SOURCES,
        "extra_compile_args": {
            "cxx": ["-O3", "-std=c++17"],
            "nvcc": ["-O3", "-std=c++17", "-U__CUDA_NO_HALF_OPERATORS__", *gencode()],
        },
        "include_dirs": ["include"],
    }
    make = recipe.narrowed(lambda **rest: rest, selection, stub, std)
    made = make(**(given | changes))
    assert isinstance(made, dict)
    return made


@given(selections())
def test_both_compilers_see_the_same_macros(selection: Selection) -> None:
    """With nvcc alone, flash_api.cpp would not refuse what the kernels leave out."""
    flags = extension(selection)["extra_compile_args"]
    macros = {
        compiler: [flag for flag in args if flag.startswith("-DFLASHATTENTION_DISABLE_")]
        for compiler, args in flags.items()
    }
    assert macros["cxx"] == macros["nvcc"] == selection.macros
    left_out = set(FEATURES) - set(selection.features)
    assert macros["cxx"] == [f"-D{FEATURES[name]}" for name in FEATURES if name in left_out]
    assert {"-O3", "-U__CUDA_NO_HALF_OPERATORS__"} <= set(flags["nvcc"])


def test_the_selected_sources_and_the_stub_are_compiled() -> None:
    made = extension(LLAMA)
    assert made["sources"][0] == SOURCES[0]
    assert made["sources"][-1] == "stub.cpp"
    assert len(made["sources"]) == 1 + 6 + 1
    assert made["include_dirs"] == ["include"]
    assert extension(FULL, stub="")["sources"] == SOURCES


def test_a_newer_torch_gets_a_newer_standard() -> None:
    for compiler in ("cxx", "nvcc"):
        flags = extension(FULL, std="c++20")["extra_compile_args"][compiler]
        assert [flag for flag in flags if flag.startswith("-std=")] == ["-std=c++20"]


@pytest.mark.parametrize(
    ("torch", "std"),
    [((2, 6), "c++17"), ((2, 13), "c++17"), ((2, 14), "c++20"), ((3, 0), "c++20")],
)
def test_the_standard_of_a_torch(torch: tuple[int, int], std: str) -> None:
    assert recipe.standard(torch) == std


def test_sources_that_are_not_known_stop_the_build() -> None:
    with pytest.raises(SystemExit, match="71 kernel files, expected 72"):
        extension(FULL, sources=SOURCES[:-1])


@pytest.mark.parametrize(
    ("archs", "known", "lacks"),
    [
        ((80, 120), (80, 90, 100), 120),
        ((86,), (80, 90), 86),
        ((80, 90), (90,), 80),
    ],
)
def test_an_architecture_that_setup_py_drops_stops_the_build(
    archs: tuple[int, ...], known: tuple[int, ...], lacks: int
) -> None:
    """Without a word of its own: the wheel would be built, and answer with `no kernel image`."""
    flags = {"cxx": [], "nvcc": ["-O3", *gencode(*known)]}
    with pytest.raises(SystemExit, match=f"cannot build sm_{lacks}$"):
        extension(replace(FULL, archs=archs), extra_compile_args=flags)
    kept = tuple(arch for arch in known if arch != lacks)
    assert extension(replace(FULL, archs=kept), extra_compile_args=flags)["sources"]


# --- names ----------------------------------------------------------------------------------------


@given(selections(), st.booleans())
def test_a_local_version_is_one(selection: Selection, abi: bool) -> None:
    local = selection.local_version("2.11", "13.0", abi)
    version = Version(f"2.8.3.post2+{local}")
    assert version.local == local, "it is its own normal form, as a wheel's name has it"
    assert version.public == "2.8.3.post2"


def parts(values: tuple[Any, ...], least: int = 1) -> list[tuple[Any, ...]]:
    return [p for n in range(least, len(values) + 1) for p in combinations(values, n)]


def test_two_selections_never_share_a_version() -> None:
    every = [
        Selection(archs, dims, dtypes, features)
        for archs in ((80,), (90,), (80, 90))
        for dims, dtypes in product(parts(HEAD_DIMS), parts(tuple(DTYPES)))
        for features in parts(tuple(FEATURES), 0)
    ]
    names = {selection.local_version("2.11", "13.0", True) for selection in every}
    assert len(names) == len(every) > 20_000


def test_torch_cuda_and_abi_tell_wheels_apart() -> None:
    names = {
        FULL.local_version(torch, cuda, abi)
        for torch in ("2.1", "2.11", "2.10")
        for cuda in ("12.1", "12.10", "13.0")
        for abi in (True, False)
    }
    assert len(names) == 18
    assert FULL.local_version("2.11", "13.0", True) == "cu130torch2.11cxx11abitrue.sm80"


def test_the_demos_version_says_what_is_inside() -> None:
    assert LLAMA.local_version("2.11", "13.0", True) == (
        "cu130torch2.11cxx11abitrue.sm80.hdim128.bf16.nodropout.noalibi.nosoftcap.nolocal.nounevenk"
    )


# --- the machine ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "memory", "jobs"),
    [
        (2, 16 * GB, 2),
        (16, 16 * GB, 3),
        (16, 128 * GB, 16),
        (64, 128 * GB, 25),
        (8, 4 * GB, 1),
        (1, 0, 1),
    ],
)
def test_as_many_compilers_as_cores_and_memory_allow(cores: int, memory: int, jobs: int) -> None:
    assert recipe.jobs(cores, memory) == jobs


@given(st.integers(1, 1000), st.integers(0, 4000 * GB))
def test_there_is_always_one_and_never_too_many(cores: int, memory: int) -> None:
    jobs = recipe.jobs(cores, memory)
    assert 1 <= jobs <= cores
    assert jobs == 1 or jobs * recipe.GIGABYTES_PER_JOB * GB <= memory


def test_some_memory_is_usable() -> None:
    assert recipe.usable_memory() > 10**6


def test_words_are_in_order_without_repeats() -> None:
    assert recipe.words(int, HEAD_DIMS)("128,64,128") == (64, 128)
    assert recipe.words(str, DTYPES)("bf16,fp16") == ("fp16", "bf16")
    assert recipe.words(str, FEATURES)("") == ()
    assert recipe.words(str, DTYPES)("fp8") == ("fp8",)  # Selection refuses it by name
    with pytest.raises(ValueError, match="x"):
        recipe.words(int, HEAD_DIMS)("x")


def test_a_source_is_unpacked_once(tmp_path: Path) -> None:
    sdist = tmp_path / "flash_attn-1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as tar:
        info = tarfile.TarInfo("flash_attn-1.0/setup.py")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"#"))
    tree = recipe.unpack(sdist, tmp_path / "work")
    assert (tree / "setup.py").read_text() == "#"
    (tree / "setup.py").write_text("# an object that a build has left")
    assert recipe.unpack(sdist, tmp_path / "work") == tree
    assert (tree / "setup.py").read_text().startswith("# an object")


def test_a_long_build_says_how_far_it_is_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log, out = tmp_path / "log", ""
    with recipe.quietly(log, every=0.01):
        os.write(1, b"[1/8] nvcc one\nwarning: pages of it\n[3/8] nvcc two\n")
        os.write(2, b"more warnings\n")
        until = time.monotonic() + 10
        while "3 of 8" not in out and time.monotonic() < until:
            out += capfd.readouterr().out
    os.write(1, b"after\n")
    out, err = out + capfd.readouterr().out, capfd.readouterr().err
    assert re.search(r"^flash-attn: 3 of 8 steps, \d+ s$", out, re.MULTILINE)
    assert "warning" not in out + err
    assert out.endswith("after\n")
    assert "more warnings" in log.read_text()


def test_a_build_that_fails_shows_the_end_of_its_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match="ninja"), recipe.quietly(tmp_path / "log"):
        os.write(1, b"line\n" * 1000 + b"error: no such header\n")
        raise RuntimeError("ninja")
    out = capfd.readouterr().out
    assert out.endswith("line\nerror: no such header\n")
    assert len(out.splitlines()) <= 60


@pytest.mark.parametrize("failure", [SystemExit("no"), KeyboardInterrupt(), None])
def test_both_streams_are_what_they_were_however_a_build_ends(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], failure: BaseException | None
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.suppress(SystemExit, KeyboardInterrupt), recipe.quietly(tmp_path / "log"):
        os.write(1, b"inside\n")
        if failure:
            raise failure
    os.write(1, b"after\n")
    os.write(2, b"after, too\n")
    out, err = capfd.readouterr()
    assert out == ("inside\n" if failure else "") + "after\n"
    assert err == "after, too\n"
    assert len(os.listdir("/proc/self/fd")) == before


# --- the working directory ------------------------------------------------------------------------


class Compilers:
    """Answers as nvcc and c++ do when asked for their version."""

    def __init__(self, **versions: str) -> None:
        self.versions = versions
        self.asked: list[str] = []

    def run(self, argv: list[str], **_options: object) -> SimpleNamespace:
        assert argv[1:] == ["--version"]
        self.asked.append(argv[0])
        return SimpleNamespace(stdout=self.versions["nvcc" if "nvcc" in argv[0] else "cxx"])


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of torch as the recipe asks."""
    extension = SimpleNamespace(CUDA_HOME="/cuda", CUDAExtension=lambda **rest: rest)
    utils = SimpleNamespace(cpp_extension=extension)
    stand_in = SimpleNamespace(
        __version__="2.11.0+cu130",
        version=SimpleNamespace(cuda="13.0"),
        _C=SimpleNamespace(_GLIBCXX_USE_CXX11_ABI=True),
        utils=utils,
    )
    for name, module in (
        ("torch", stand_in),
        ("torch.utils", utils),
        ("torch.utils.cpp_extension", extension),
    ):
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]


def toolchain(
    monkeypatch: pytest.MonkeyPatch,
    *,
    nvcc: str = "V13.0.88",
    cxx: str = "g++ 12",
    libc: str = "2.36",
    packages: tuple[tuple[str, str], ...] = (("nvidia-cuda-nvcc", "13.0.88"), ("pip", "1")),
) -> str:
    compilers = Compilers(nvcc=nvcc, cxx=cxx)
    found = [SimpleNamespace(name=name, version=version) for name, version in packages]
    with monkeypatch.context() as patch:
        patch.setattr(recipe, "subprocess", compilers)
        patch.setattr(recipe.platform, "libc_ver", lambda: ("glibc", libc))
        patch.setattr(recipe.metadata, "distributions", lambda: found)
        name = recipe.toolchain()
    assert compilers.asked[0] == "/cuda/bin/nvcc"
    return name


def test_whatever_else_decides_an_object_changes_the_toolchain(
    torch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [
        toolchain(monkeypatch),
        toolchain(monkeypatch, nvcc="V13.0.99"),
        toolchain(monkeypatch, cxx="g++ 13"),
        toolchain(monkeypatch, libc="2.39"),
        toolchain(monkeypatch, packages=(("nvidia-cuda-nvcc", "13.0.99"), ("pip", "1"))),
        toolchain(monkeypatch, packages=(("nvidia-nvvm", "13.0.88"), ("pip", "1"))),
    ]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[0-9a-f]{12}", name) for name in names)


def test_no_other_package_and_no_order_changes_the_toolchain(
    torch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = (("nvidia-a", "1"), ("nvidia-b", "2"))
    names = {
        toolchain(monkeypatch, packages=packages)
        for packages in (two, two[::-1], (*two, ("pip", "2")), (*two, *two))
    }
    assert len(names) == 1


SETUP = """
import os, sys
name = f"flash_attn-2.8.3+{os.environ['FLASH_ATTN_LOCAL_VERSION']}-cp311-linux_x86_64.whl"
said = f"compiling {os.environ['FLASH_ATTN_CUDA_ARCHS']} {os.environ['MAX_JOBS']}"
os.write(1, said.encode())
open(os.path.join(sys.argv[-1], name), "w").close()
"""


def test_a_wheel_is_built_in_a_directory_for_everything_that_decides_it(
    tmp_path: Path,
    torch: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sdist = tmp_path / "flash_attn-2.8.3.tar.gz"
    with tarfile.open(sdist, "w:gz") as tar:
        for name, text in (("setup.py", SETUP), ("csrc/flash_attn/flash_api.cpp", "")):
            info = tarfile.TarInfo(f"flash_attn-2.8.3/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    monkeypatch.setattr(recipe, "toolchain", lambda: "0123456789ab")
    monkeypatch.setattr(os, "environ", {**os.environ, "MAX_JOBS": "7"})
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    wheel = recipe.build(sdist, tmp_path / "wheels", tmp_path / "work", LLAMA)
    local = LLAMA.local_version("2.11", "13.0", True)
    assert wheel == tmp_path / f"wheels/flash_attn-2.8.3+{local}-cp311-linux_x86_64.whl"
    (work,) = (tmp_path / "work").iterdir()
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert work.name == f"{local}-{python}-torch2.11.0+cu130-0123456789ab"
    assert (work / "build.log").read_text() == "compiling 80 7"
    stub = work / "flash_attn-2.8.3/csrc/flash_attn/imagegen_stub.cpp"
    assert stub.read_text() == recipe.stub(LLAMA)
    assert "compiling" not in capfd.readouterr().out
