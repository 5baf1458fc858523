"""What upstream's setup.py hands on is narrowed, and the rest of the build stays upstream's."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given

from imagegen.image.wheel.flash_attn_wheel.packing import (
    API,
    OWN_API,
    STUB,
    Captured,
    Torch,
    narrowed,
    quietly,
    unpack,
    without_cute,
)
from imagegen.image.wheel.flash_attn_wheel.selection import FEATURES, KERNELS, Selection
from tests.support.wheel_recipe import FULL, LLAMA, selections

SOURCES = [API, *(f"csrc/flash_attn/src/{name}" for name in KERNELS)]
OBJECTS = [Path("/objects/one.o"), Path("/objects/two.o")]


# --- the compilers --------------------------------------------------------------------------------


def gencode(*archs: int) -> list[str]:
    """The flags by which upstream's setup.py names architectures."""
    flags = [f"arch=compute_{arch},code=sm_{arch}" for arch in archs]
    return [word for flag in flags for word in ("-gencode", flag)]


def given_by_setup_py(selection: Selection) -> dict[str, Any]:
    flags = ["-O3", "-std=c++17", "-U__CUDA_NO_HALF_OPERATORS__", *gencode(*selection.archs)]
    return {
        "name": "flash_attn_2_cuda",
        "sources": SOURCES,
        "extra_compile_args": {
            "cxx": ["-O3", "-std=c++17"],
            "nvcc": [*flags, "--threads", "4"],
        },
        "include_dirs": ["include"],
    }


def extension(**given: Any) -> Any:
    return SimpleNamespace(extra_objects=["upstreams.o"], **given)


def linked(selection: Selection, std: str = "c++17", **changes: Any) -> Any:
    """The extension that setup.py builds."""
    return narrowed(extension, selection, std, OBJECTS)(**given_by_setup_py(selection) | changes)


def captured(selection: Selection, std: str = "c++17", **changes: Any) -> Captured:
    """What is to be compiled before."""
    with pytest.raises(Captured) as caught:
        narrowed(extension, selection, std)(**given_by_setup_py(selection) | changes)
    return caught.value


@given(selections())
def test_both_compilers_see_the_same_macros(selection: Selection) -> None:
    """With nvcc alone, flash_api.cpp would not refuse what the kernels leave out."""
    flags, nvcc = linked(selection).extra_compile_args, captured(selection).nvcc
    macros = [
        [flag for flag in args if flag.startswith("-DFLASHATTENTION_DISABLE_")]
        for args in (flags["cxx"], flags["nvcc"], nvcc)
    ]
    left_out = [FEATURES[name] for name in FEATURES if name not in selection.features]
    assert macros == [[f"-D{macro}" for macro in left_out]] * 3
    assert {"-O3", "-U__CUDA_NO_HALF_OPERATORS__", *gencode(*selection.archs)} <= set(nvcc)


def test_setup_py_compiles_two_files_and_links_the_objects() -> None:
    made = linked(LLAMA)
    assert made.sources == [OWN_API, STUB]
    assert made.extra_objects == ["upstreams.o", "/objects/one.o", "/objects/two.o"]
    assert (made.name, made.include_dirs) == ("flash_attn_2_cuda", ["include"])


def test_before_that_it_only_says_what_it_would_do() -> None:
    found = captured(LLAMA)
    assert found.extension.include_dirs == ["include"]
    assert found.extension.extra_objects == ["upstreams.o"]


@pytest.mark.parametrize("threads", [["--threads", "4"], ["--threads", "16"], []])
def test_the_number_of_threads_is_no_part_of_the_flags(threads: list[str]) -> None:
    flags = {"cxx": [], "nvcc": ["-O3", *threads, *gencode(80), "-g"]}
    found = captured(LLAMA, extra_compile_args=flags).nvcc
    assert found == ["-O3", *gencode(80), "-g", *LLAMA.macros]


def test_a_newer_torch_gets_a_newer_standard() -> None:
    for flags in (
        *linked(FULL, std="c++20").extra_compile_args.values(),
        captured(FULL, std="c++20").nvcc,
    ):
        assert [flag for flag in flags if flag.startswith("-std=")] == ["-std=c++20"]


@pytest.mark.parametrize(
    ("version", "minor", "std"),
    [
        ("2.6.0", "2.6", "c++17"),
        ("2.13.1+cu126", "2.13", "c++17"),
        ("2.14.0a0+git1", "2.14", "c++20"),
        ("2.15.0+cu132", "2.15", "c++20"),
        ("3.0.0", "3.0", "c++20"),
    ],
)
def test_the_standard_of_a_torch(version: str, minor: str, std: str) -> None:
    torch = Torch(version, "13.0", True)
    assert (torch.minor, torch.standard) == (minor, std)


def test_a_torch_for_cpus_or_none_is_an_import_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = SimpleNamespace(__version__="2.11.0+cpu", version=SimpleNamespace(cuda=None))
    monkeypatch.setitem(sys.modules, "torch", cpu)
    with pytest.raises(ImportError, match=r"^torch 2\.11\.0\+cpu is one for CPUs, not for CUDA$"):
        Torch.here()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="torch"):
        Torch.here()


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        (SOURCES[:-1], f"71 kernel files and ['{API}'], expected 72 and {API}"),
        ([*SOURCES, "csrc/new.cpp"], f"72 kernel files and ['{API}', 'csrc/new.cpp'], expected"),
        ([*SOURCES, "flash_fwd_hdim512_bf16_sm80.cu"], "73 kernel files and"),
        (SOURCES[1:], "72 kernel files and [], expected"),
        ([*SOURCES[:-1], "flash_fwd_hdim512_bf16_sm80.cu"], "72 kernel files and"),
    ],
)
def test_sources_that_are_not_known_stop_the_build(sources: list[str], words: str) -> None:
    with pytest.raises(SystemExit, match=re.escape(words)):
        linked(FULL, sources=sources)


@pytest.mark.parametrize(
    ("archs", "known", "lacks"),
    [
        ((80, 120), (80, 90, 100), 120),
        ((86,), (80, 90), 86),
        ((80, 90), (90,), 80),
        ((10, 100), (100,), 10),
    ],
)
def test_an_architecture_that_setup_py_drops_stops_the_build(
    archs: tuple[int, ...], known: tuple[int, ...], lacks: int
) -> None:
    """Without a word of its own: the wheel would be built, and answer with `no kernel image`."""
    flags = {"cxx": [], "nvcc": ["-O3", *gencode(*known)]}
    with pytest.raises(SystemExit, match=f"cannot build sm_{lacks}$"):
        linked(replace(FULL, archs=archs), extra_compile_args=flags)
    kept = tuple(arch for arch in known if arch != lacks)
    assert linked(replace(FULL, archs=kept), extra_compile_args=flags).sources


# --- the source -----------------------------------------------------------------------------------


def test_the_copy_of_flash_attention_4_stays_out() -> None:
    def find(where: str, exclude: tuple[str, ...] = ()) -> list[str]:
        assert (where, exclude) == (".", ("tests",))
        return ["flash_attn", "flash_attn.ops", "flash_attn.cute", "flash_attn.cute.x", "hopper"]

    found = without_cute(find)(".", exclude=("tests",))
    assert found == ["flash_attn", "flash_attn.ops", "hopper"]


def sdist(folder: Path, **files: str) -> Path:
    file = folder / "flash_attn-1.0.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"flash_attn-1.0/{name.replace('__', '.')}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return file


def test_a_source_is_unpacked_once(tmp_path: Path) -> None:
    file = sdist(tmp_path, setup__py="#")
    tree = unpack(file, tmp_path / "work")
    assert tree == tmp_path / "work/flash_attn-1.0"
    assert (tree / "setup.py").read_text() == "#"
    (tree / "setup.py").write_text("# an object that a build has left")
    assert unpack(file, tmp_path / "work") == tree
    assert (tree / "setup.py").read_text().startswith("# an object")


def test_a_source_that_was_unpacked_by_half_is_unpacked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = sdist(tmp_path, README="read me", setup__py="#")

    def half(tar: tarfile.TarFile, into: Path) -> None:
        tar.extract("flash_attn-1.0/README", into)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractall", half)
        with pytest.raises(KeyboardInterrupt):
            unpack(file, tmp_path / "work")
    tree = unpack(file, tmp_path / "work")
    assert (tree / "setup.py").read_text() == "#"


# --- what is printed ------------------------------------------------------------------------------


def test_a_long_build_says_that_it_goes_on_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log, out = tmp_path / "log", ""
    with quietly(log, "linking", every=0.01):
        os.write(1, b"[1/8] c++ one\nwarning: pages of it\n")
        os.write(2, b"more warnings\n")
        end = time.monotonic() + 10
        while "linking" not in out and time.monotonic() < end:
            out += capfd.readouterr().out
    os.write(1, b"after\n")
    out, err = out + capfd.readouterr().out, capfd.readouterr().err
    assert re.match(r"(flash-attn: linking, \d+ s\n)+after\n$", out)
    assert "warning" not in out + err
    assert log.read_text().endswith("more warnings\n")


def test_a_build_that_fails_shows_the_end_of_its_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match="ninja"), quietly(tmp_path / "log", "linking"):
        os.write(1, b"line\n" * 1000 + b"error: no such header\n")
        raise RuntimeError("ninja")
    out = capfd.readouterr().out
    assert out.endswith("line\nerror: no such header\n")
    assert len(out.splitlines()) <= 60


@pytest.mark.parametrize(
    "end", [SystemExit("no"), KeyboardInterrupt(), Captured(None, []), None], ids=repr
)
def test_both_streams_are_what_they_were_however_a_build_ends(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], end: BaseException | None
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    ends = contextlib.suppress(SystemExit, KeyboardInterrupt, Captured)
    with ends, quietly(tmp_path / "log", "linking"):
        os.write(1, b"inside\n")
        if end:
            raise end
    os.write(1, b"after\n")
    os.write(2, b"after, too\n")
    out, err = capfd.readouterr()
    failed = isinstance(end, SystemExit | KeyboardInterrupt)
    assert out == ("inside\n" if failed else "") + "after\n"
    assert err == "after, too\n"
    assert len(os.listdir("/proc/self/fd")) == before
