"""Compiled kernels: what an object stands for, whom it serves, and what counts as one."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagegen.image.wheel.flash_attn_wheel.objects import Objects, Toolchain
from tests.support.wheel_recipe import LLAMA, TOOLCHAIN

SOURCE = LLAMA.kernels[0]
FLAGS = ("-O3", "-gencode", "arch=compute_80,code=sm_80")


def objects(
    folder: Path,
    *,
    name: str = "flash_attn-2.8.3-torch2.11-cu130",
    source: str = "a" * 64,
    flags: Sequence[str] = FLAGS,
    **toolchain: Any,
) -> Objects:
    return Objects.of(folder, name, source, flags, replace(TOOLCHAIN, **toolchain))


def keep(into: Objects, source: str = SOURCE, text: bytes = b"object") -> Path:
    new = into.folder / "new"
    new.write_bytes(text)
    into.keep(source, new, 12.34)
    return into.path(source)


# --- the key --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "flash_attn-2.8.3-torch2.12-cu130"},
        {"source": "b" * 64},
        {"flags": (*FLAGS, "-DFLASHATTENTION_DISABLE_DROPOUT")},
        {"flags": ("-O2", *FLAGS[1:])},
        {"flags": (*FLAGS[:2], "arch=compute_90,code=sm_90")},
        {"flags": FLAGS[::-1]},
        {"versions": "13.0.99"},
    ],
    ids=str,
)
def test_what_decides_an_object_decides_its_folder(changed: dict[str, Any], tmp_path: Path) -> None:
    keep(objects(tmp_path))
    other = objects(tmp_path, **changed)
    assert other.missing([SOURCE]) == [SOURCE]
    assert other.folder != objects(tmp_path).folder


@pytest.mark.parametrize(
    "changed", [{}, {"glibc": (2, 39)}, {"gcc": (14, 1)}, {"nvcc": "/elsewhere/bin/nvcc"}], ids=str
)
def test_what_does_not_shares_it(
    changed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(objects(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    other = objects(tmp_path, **changed)
    assert other.folder == objects(tmp_path).folder
    assert other.missing([SOURCE]) == []


def test_the_compilers_that_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvcc, ptxas and cudafe++ by version, CUB's headers by text, and the C++ compiler."""
    asked = []

    def output(*command: str | os.PathLike[str]) -> str:
        asked.append([os.fspath(word) for word in command])
        return "12.2.0\n" if "-dumpversion" in command else f"version of {Path(command[0]).name}\n"

    monkeypatch.setattr(f"{Toolchain.__module__}._output", output)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("CXX", "clang++")  # nvcc does not ask for it
    (tmp_path / "bin").mkdir()
    with pytest.raises(SystemExit, match=rf"no nvcc in {tmp_path}/bin: set CUDA_HOME"):
        Toolchain.here(os.fspath(tmp_path))
    (tmp_path / "bin/nvcc").touch()
    found = Toolchain.here(os.fspath(tmp_path))
    assert found.nvcc == f"{tmp_path}/bin/nvcc"
    assert (found.glibc, found.gcc) == ((2, 36), (12, 2))
    for tool in ("nvcc", "ptxas", "cudafe++"):
        assert f"version of {tool}" in found.versions
        assert [f"{tmp_path}/bin/{tool}", "--version"] in asked
    for cc, words in {"": "g++", "gcc-13": "gcc-13", "'/a b/cache' gcc": "/a b/cache,gcc"}.items():
        assert asked[-1] == ["g++", "-dumpfullversion", "-dumpversion"]
        monkeypatch.setenv("CC", cc)
        Toolchain.here(os.fspath(tmp_path))
        assert asked.pop() == [*words.split(","), "-dumpfullversion", "-dumpversion"]
        del asked[-3:]
    for folder in ("include/cub", "include/cccl/cub"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "version.cuh").write_text(f"#define {folder}")
        assert f"#define {folder}" in Toolchain.here(os.fspath(tmp_path)).versions


# --- whom it serves -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "serves"),
    [
        ({}, True),
        ({"glibc": (2, 39)}, True),
        ({"glibc": (3, 0)}, True),
        ({"glibc": (2, 35)}, False),
        ({"glibc": (2, 9)}, False),
        ({"gcc": (13, 0)}, True),
        ({"gcc": (12, 1)}, True),
        ({"gcc": (11, 4)}, False),
        ({"gcc": (9, 9)}, False),
        ({"glibc": (2, 39), "gcc": (11, 4)}, False),
    ],
    ids=str,
)
def test_an_object_serves_newer_machines_and_no_older(
    here: dict[str, Any], serves: bool, tmp_path: Path
) -> None:
    keep(objects(tmp_path))
    other = objects(tmp_path, **here)
    assert (other.made(SOURCE) is not None) == serves
    assert (other.missing([SOURCE]) == []) == serves


def test_what_an_older_machine_makes_then_serves_both(tmp_path: Path) -> None:
    new, old = objects(tmp_path), objects(tmp_path, glibc=(2, 31), gcc=(10, 2))
    keep(new)
    keep(old, text=b"older object")
    assert new.missing([SOURCE]) == old.missing([SOURCE]) == []
    assert new.path(SOURCE).read_bytes() == b"older object"


# --- what counts ----------------------------------------------------------------------------------


def test_an_object_is_kept_with_a_note(tmp_path: Path) -> None:
    its = objects(tmp_path)
    assert its.missing(LLAMA.kernels) == list(LLAMA.kernels)
    path = keep(its)
    assert path.name == "flash_fwd_hdim128_bf16_sm80.o"
    assert path.read_bytes() == b"object"
    made = its.made(f"csrc/flash_attn/src/{SOURCE}")
    assert made
    assert (made.seconds, made.sha256) == (12.3, hashlib.sha256(b"object").hexdigest())
    assert its.missing(LLAMA.kernels) == list(LLAMA.kernels[1:])
    assert {file.suffix for file in its.folder.iterdir()} == {".o", ".json"}


@pytest.mark.parametrize("size", [0, 3, 7])
def test_a_truncated_object_is_none(tmp_path: Path, size: int) -> None:
    its = objects(tmp_path)
    os.truncate(keep(its), size)
    assert its.made(SOURCE) is None


@pytest.mark.parametrize("text", [bytes(6), b"objecT"])
def test_a_damaged_object_of_the_right_size_is_none(tmp_path: Path, text: bytes) -> None:
    """A machine that lost its power may leave a file whose length is right, full of zeros."""
    its = objects(tmp_path)
    keep(its).write_bytes(text)
    assert its.made(SOURCE) is None
    assert its.missing([SOURCE]) == [SOURCE]


OF_BYTES = '{"glibc": [2, 36], "gcc": [12, 2], "seconds": 12.3, "bytes": 6}'


@pytest.mark.parametrize(
    "note",
    ["", "{", "[]", "null", "7", "{}", '{"glibc": [2, 36]}', "\xff", '{"x": 2}', OF_BYTES],
)
def test_a_broken_note_is_none(tmp_path: Path, note: str) -> None:
    its = objects(tmp_path)
    keep(its).with_suffix(".json").write_bytes(note.encode("latin-1"))
    assert its.made(SOURCE) is None
    keep(its)
    assert its.made(SOURCE)


@pytest.mark.parametrize("lost", [".o", ".json"])
def test_half_of_it_is_none(tmp_path: Path, lost: str) -> None:
    its = objects(tmp_path)
    keep(its).with_suffix(lost).unlink()
    assert its.made(SOURCE) is None


class Stopped(Exception):
    """As if the machine lost its power here."""


def test_wherever_keeping_stops_the_note_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the old object under the new note nor the new one under the old."""
    its, steps = objects(tmp_path), 0
    for stop in range(10):
        keep(its, text=b"before")
        (its.folder / "new").write_bytes(b"object")
        left = stop

        def count(real: Any) -> Any:
            def step(*words: Any, **options: Any) -> Any:
                nonlocal left
                if not left:
                    raise Stopped
                left -= 1
                return real(*words, **options)

            return step

        try:
            with monkeypatch.context() as patch:
                for name in ("replace", "unlink", "write_text"):
                    patch.setattr(Path, name, count(getattr(Path, name)))
                its.keep(SOURCE, its.folder / "new", 1.0)
        except Stopped:
            steps += 1
            made = its.made(SOURCE)
            assert made is None or (made.seconds, its.path(SOURCE).read_bytes()) == (
                12.3,
                b"before",
            )
        else:
            break
    assert steps == 4, "unlink the old note, move the object, write the note, move the note"
    made = its.made(SOURCE)
    assert made and made.seconds == 1.0


# --- given and taken ------------------------------------------------------------------------------


def test_objects_travel(tmp_path: Path) -> None:
    first, second = objects(tmp_path / "first"), objects(tmp_path / "second")
    for source in LLAMA.kernels[:3]:
        keep(first, source, source.encode())
    given = first.give(LLAMA.kernels[:2], tmp_path / "out")
    assert all(file.is_file() for file in given) and len(given) == 4
    assert second.take(tmp_path / "out") == []
    assert second.missing(LLAMA.kernels) == list(LLAMA.kernels[2:])
    for source in LLAMA.kernels[:2]:
        assert second.path(source).read_bytes() == source.encode()
        assert second.made(source) == first.made(source)
    assert {file.suffix for file in second.folder.iterdir()} == {".o", ".json"}


def test_objects_of_another_key_are_not_taken(tmp_path: Path) -> None:
    other = objects(tmp_path / "first", flags=("-O0",))
    keep(other)
    other.give([SOURCE], tmp_path / "out")
    its = objects(tmp_path / "second")
    (why,) = its.take(tmp_path / "out")
    assert why == (
        f"{other.folder.name} in {tmp_path}/out is of another flash-attn, torch, CUDA, selection "
        "or compiler"
    )
    assert its.take(tmp_path / "nothing") == []
    assert list(its.folder.iterdir()) == []
    keep(its)
    its.give([SOURCE], tmp_path / "out")
    third = objects(tmp_path / "third")
    assert third.take(tmp_path / "out") == [why], "what is of this key is taken beside it"
    assert third.missing([SOURCE]) == []


def test_what_is_there_is_not_taken_again(tmp_path: Path) -> None:
    first, second = objects(tmp_path / "first"), objects(tmp_path / "second")
    keep(first)
    first.give([SOURCE], tmp_path / "out")
    keep(second, text=b"its own")
    second.take(tmp_path / "out")
    assert second.path(SOURCE).read_bytes() == b"its own"


def test_an_object_for_newer_machines_is_compiled_here_all_the_same(tmp_path: Path) -> None:
    new, old = objects(tmp_path / "new", glibc=(2, 41)), objects(tmp_path / "old")
    keep(new)
    new.give([SOURCE], tmp_path / "out")
    name = new.path(SOURCE).name
    why = f"{name} in {tmp_path}/out was compiled on a newer distribution"
    assert old.take(tmp_path / "out") == [why]
    assert old.missing([SOURCE]) == [SOURCE]


@pytest.mark.parametrize("damage", [b"o", bytes(6), None])
def test_a_part_that_arrived_damaged_is_compiled(tmp_path: Path, damage: bytes | None) -> None:
    """Cut, zeroed, or without its note."""
    first, second = objects(tmp_path / "first"), objects(tmp_path / "second")
    for source in LLAMA.kernels[:2]:
        keep(first, source)
    object_file, note, *_ = first.give(LLAMA.kernels[:2], tmp_path / "out")
    if damage is None:
        note.unlink()
    else:
        object_file.write_bytes(damage)
    why = f"{object_file.name} in {tmp_path}/out is damaged"
    assert second.take(tmp_path / "out") == [why]
    assert second.missing(LLAMA.kernels[:2]) == [SOURCE]
    assert {file.suffix for file in second.folder.iterdir()} == {".o", ".json"}


@pytest.mark.parametrize("written", [b"", b"obj"])
def test_a_copy_that_stops_spoils_nothing(
    written: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: what newer machines can use is not overwritten before the copy is whole."""
    first, new = objects(tmp_path / "first"), objects(tmp_path / "here", glibc=(2, 41))
    keep(first)
    first.give([SOURCE], tmp_path / "out")
    keep(new, text=b"theirs")
    its = objects(tmp_path / "here")

    def full(_: Path, into: Path) -> None:
        into.write_bytes(written)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(shutil, "copyfile", full)
        its.take(tmp_path / "out")
    assert new.made(SOURCE) and new.path(SOURCE).read_bytes() == b"theirs"
    assert its.take(tmp_path / "out") == []
    assert its.made(SOURCE) and its.path(SOURCE).read_bytes() == b"object"
    assert {file.suffix for file in its.folder.iterdir()} == {".o", ".json"}


def test_the_note_is_plain(tmp_path: Path) -> None:
    note = json.loads(keep(objects(tmp_path)).with_suffix(".json").read_text())
    digest = hashlib.sha256(b"object").hexdigest()
    assert note == {"glibc": [2, 36], "gcc": [12, 2], "seconds": 12.3, "sha256": digest}
