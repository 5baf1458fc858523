"""Locks: how a resolution is split into parts, and what the committed ones promise."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from imagegen.errors import EngineError, FactsError, UsageError
from imagegen.matrix import resolve
from imagegen.matrix.resolve import Candidate
from imagegen.net.settings import Network
from imagegen.plan import lock, pins
from imagegen.plan.pins import ASKED, PACKAGE, PARTS
from imagegen.util import process
from tests.support.laws import for_all
from tests.support.values import DEMO, PROJECT, RESOLUTION

LOCKED = [candidate for candidate in RESOLUTION.combinations if resolve.lockable(candidate)]
PACKAGES_OF = pins.packages(RESOLUTION)
HASH = "    --hash=sha256:" + "a" * 64
FOLDERS = sorted(p for p in PROJECT.locks.iterdir() if p.is_dir())
FILES = [file for folder in FOLDERS for file in sorted(folder.glob("*.txt"))]
OPEN = Network()
REQUIREMENT = re.compile(
    r"[a-z0-9][a-z0-9.-]*==[^\s\\]+( ; [^\\\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n"
)

PACKAGES = {
    "accelerate": {"apps"},
    "cuda-bindings": {"cuda"},
    "cuda-toolkit": {"cuda"},
    "einops": {"torch"},
    "filelock": {"torch"},
    "ninja": {"apps", "build"},
    "nvidia-cublas": {"cuda"},
    "nvidia-cuda-cccl": {"nvcc"},
    "nvidia-cuda-nvcc": {"nvcc"},
    "pip": {"tools"},
    "setuptools": {"build", "torch"},
    "torch": {"torch"},
    "torchvision": {"torch"},
    "transformers": {"apps"},
    "triton": {"torch"},
    "uv": {"tools"},
    "wheel": {"apps", "build"},
}
FOR_TORCH = ("filelock", "setuptools", "torch", "torchvision", "triton", "nvidia-cublas")


def compiled(*names: str) -> str:
    return "".join(f"{name}==1.0 \\\n{HASH} \\\n{HASH}\n" for name in names)


# --- splitting ------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(sorted(PACKAGES)), unique=True))
def test_entries_are_the_text_taken_apart(names: list[str]) -> None:
    text = compiled(*names)
    found = lock._entries("# a comment\n" + text)
    assert list(found) == names
    assert "".join(found.values()) == text


def test_a_marker_stays_with_its_requirement() -> None:
    row = f"colorama==0.4.6 ; sys_platform == 'win32' \\\n{HASH}\n"
    assert lock._entries(row) == {"colorama": row}


@pytest.mark.parametrize(("name", "parts"), PACKAGES.items())
def test_a_package_is_installed_in_the_steps_that_need_it(name: str, parts: set[str]) -> None:
    assert lock._parts(name, FOR_TORCH) == parts
    assert parts <= set(PARTS)


@for_all(FOLDERS, lambda folder: folder.name)
def test_the_image_has_everything_that_was_resolved(folder: Path) -> None:
    """What only a stage that is thrown away installs would be missing: packages need it."""
    names = {part: set(lock._entries((folder / f"{part}.txt").read_text())) for part in PARTS}
    assert names["build"] <= names["torch"] | names["apps"]


# --- lock, with a stand-in for uv -----------------------------------------------------------------


class Uv:
    """Answers as ``uv pip compile`` does."""

    def __init__(self, names: tuple[str, ...] = tuple(PACKAGES)) -> None:
        self.names = names
        self.calls: list[tuple[list[str], str]] = []
        self.held: list[str] = []
        self.envs: list[Mapping[str, str]] = []

    def run(self, *argv: str | Path, timeout: float, stdin: str, env: Mapping[str, str]) -> str:
        assert timeout >= 60
        self.envs.append(env)
        words = [str(word) for word in argv]
        self.calls.append((words, stdin))
        if "--output-file" not in words:
            return compiled(*FOR_TORCH)
        whole = Path(words[words.index("--output-file") + 1])
        self.held.append(whole.read_text())
        whole.write_text(compiled(*self.names))
        return ""


@pytest.fixture
def uv(monkeypatch: pytest.MonkeyPatch) -> Uv:
    stand_in = Uv()
    monkeypatch.setattr(process, "run", stand_in.run)
    return stand_in


def test_a_lock_holds_everything_in_its_parts(tmp_path: Path, uv: Uv, logged: list[str]) -> None:
    folder = tmp_path / "torch2.11.0-cu130-py3.11"
    lock.lock(DEMO, Version("13.0.2"), folder, OPEN)
    found: dict[str, set[str]] = {}
    for part in PARTS:
        for name in lock._entries((folder / f"{part}.txt").read_text()):
            found.setdefault(name, set()).add(part)
    assert found == PACKAGES
    assert logged[-1] == f"lock {folder.name}: {len(PACKAGES)} packages"
    texts = [(folder / f"{part}.txt").read_text() for part in PARTS]
    assert all(re.match(r"# \w+ of torch2.11.0-cu130-py3.11\. Written by", t) for t in texts)
    assert (folder / ASKED).read_text().splitlines() == list(pins.asked(DEMO))


def test_what_was_asked_for_is_the_torch_and_the_sorted_packages() -> None:
    target = replace(DEMO, packages=("transformers", "peft>=0.17", "accelerate"))
    assert pins.asked(target) == (
        "torch==2.11.0",
        "torchvision==0.26.0",
        "accelerate",
        "peft>=0.17",
        "transformers",
    )


def test_an_open_network_changes_nothing_of_uvs_own_settings(tmp_path: Path, uv: Uv) -> None:
    lock.lock(DEMO, None, tmp_path / "x", OPEN)
    assert uv.envs == [{}, {}]


def test_the_index_and_the_ca_reach_uv_and_no_file(tmp_path: Path, uv: Uv) -> None:
    """In the environment, because the address may hold a password and an argument is seen by all"""
    ca = tmp_path / "ca.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\n")
    index = "https://user:pass@pypi.example.com/simple"
    lock.lock(DEMO, None, tmp_path / "x", Network(ca=str(ca), pypi_index=index))
    assert uv.envs == [{"UV_DEFAULT_INDEX": index, "SSL_CERT_FILE": str(ca)}] * 2
    assert not any("pypi.example.com" in word for words, _ in uv.calls for word in words)
    for file in (tmp_path / "x").iterdir():
        assert "pypi.example.com" not in file.read_text()


def test_what_is_asked_for(tmp_path: Path, uv: Uv) -> None:
    lock.lock(DEMO, Version("13.0.2"), tmp_path / "x", OPEN)
    (words, everything), (_, torch) = uv.calls
    assert torch.splitlines() == ["torch==2.11.0", "torchvision==0.26.0"]
    wanted = {*torch.splitlines(), *DEMO.packages, "einops", "pip", "uv", "ninja"}
    assert wanted < set(everything.splitlines())
    assert "cuda-toolkit[nvcc,nvvm,crt,cudart,cccl,curand]==13.0.2" in everything.splitlines()
    assert words[words.index("--python-version") + 1] == "3.11"
    for option in ("--generate-hashes", "--no-emit-index-url", "--no-emit-find-links"):
        assert option in words


def test_without_wheels_of_nvcc_no_toolkit_is_asked_for(tmp_path: Path, uv: Uv) -> None:
    lock.lock(DEMO, None, tmp_path / "x", OPEN)
    assert "cuda-toolkit" not in uv.calls[0][1]


def test_what_a_lock_held_is_where_the_next_one_starts(tmp_path: Path, uv: Uv) -> None:
    for _ in range(2):
        lock.lock(DEMO, Version("13.0.2"), tmp_path / "x", OPEN)
    first, second = uv.held
    assert first == ""
    assert set(lock._entries(second)) == set(PACKAGES)


def test_uv_that_is_not_there_is_a_matter_of_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_argv: object, **_options: object) -> str:
        raise EngineError("uv is not installed")

    monkeypatch.setattr(process, "run", missing)
    with pytest.raises(UsageError) as caught:
        lock.lock(DEMO, None, Path("x"), OPEN)
    assert caught.value.hint == "pip install uv"


def test_an_index_that_does_not_answer_leaves_the_lock_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_argv: object, **_options: object) -> str:
        raise EngineError("uv pip compile exited 2\nno route")

    monkeypatch.setattr(process, "run", down)
    (tmp_path / "torch.txt").write_text("torch==1.0\n")
    with pytest.raises(EngineError, match="no route"):
        lock.lock(DEMO, None, tmp_path, OPEN)
    assert [p.name for p in tmp_path.iterdir()] == ["torch.txt"]
    assert (tmp_path / "torch.txt").read_text() == "torch==1.0\n"


# --- the part of FlashAttention-4 -----------------------------------------------------------------

FOUR = "flash-attn-4[cu13]==4.0.0b36"
BROUGHT = ("flash-attn-4", "nvidia-cutlass-dsl", "quack-kernels")


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> Uv:
    """Resolves that requirement to what it brings, and to what is locked already."""
    stand_in = Uv()

    def run(*argv: str | Path, stdin: str, **options: Any) -> str:
        stand_in.names = (*BROUGHT, "torch", "filelock") if stdin == FOUR else tuple(PACKAGES)
        return stand_in.run(*argv, stdin=stdin, **options)

    monkeypatch.setattr(process, "run", run)
    return stand_in


def test_a_part_holds_what_a_package_brings_beside_the_rest(
    tmp_path: Path, four: Uv, logged: list[str]
) -> None:
    folder = tmp_path / "x"
    for _ in range(2):
        lock.lock(DEMO, Version("13.0.2"), folder, OPEN, FOUR)
    text = (folder / f"{PACKAGE}.txt").read_text()
    assert tuple(lock._entries(text)) == BROUGHT, "nothing twice, and whatever it is named"
    assert text.startswith(f"# {PACKAGE} of x: {FOUR}. Written by imagegen lock")
    assert logged[-1] == f"lock x: {len(PACKAGES) + len(BROUGHT)} packages"
    words, asked = four.calls[-1]
    assert asked == FOUR
    assert "--constraint" in words, "torch stays the one that is locked"
    assert [len(lock._entries(held)) for held in four.held[1::2]] == [0, len(BROUGHT)]


def test_a_part_that_no_target_asks_for_goes(tmp_path: Path, four: Uv) -> None:
    lock.lock(DEMO, Version("13.0.2"), tmp_path / "x", OPEN, FOUR)
    lock.lock(DEMO, Version("13.0.2"), tmp_path / "x", OPEN)
    assert {file.stem for file in (tmp_path / "x").glob("*.txt")} == set(PARTS)


def test_a_lock_without_the_part_or_with_anothers(folder: Path) -> None:
    def faults() -> list[str]:
        return list(lock.faults(folder, ASKS, FOUR))

    file = folder / f"{PACKAGE}.txt"
    whole = file.read_text()
    assert faults() == []
    file.write_text(whole.replace(FOUR, "flash-attn-4==4.0.0b36", 1))
    assert faults() == [f"{file}: was not made for {FOUR}"]
    head = whole.splitlines(keepends=True)[0]
    rows = lock._entries(whole)
    file.write_text(head + "".join(row for name, row in rows.items() if name != "flash-attn-4"))
    assert faults() == [f"{file}: does not hold flash-attn-4"]
    file.write_text(whole + lock._entries((folder / "apps.txt").read_text())["transformers"])
    assert faults() == [f"{folder}: transformers is in apps.txt and in {PACKAGE}.txt"]
    file.unlink()
    assert faults() == [f"{file}: missing"]
    assert list(lock.faults(folder, ASKS)) == [], "who does not ask for it does without"


def test_who_asks_for_which_package() -> None:
    assert {"torch2.11.0-cu130-py3.11": FOUR} == PACKAGES_OF
    (candidate,) = RESOLUTION.select(["*-fa4"])
    assert pins.package(candidate) == FOUR
    release = candidate.flash_attn.model_copy(update={"version": Version("4.0.0b37")})
    two = replace(RESOLUTION, combinations=(candidate, replace(candidate, flash_attn=release)))
    with pytest.raises(FactsError, match=r"one lock holds .*b37 or .*b36"):
        pins.packages(two)


# --- the committed locks --------------------------------------------------------------------------


def names(file: Path) -> set[str]:
    return set(lock._entries(file.read_text()))


@for_all(FILES, lambda file: f"{file.parent.name}/{file.stem}")
def test_every_requirement_has_a_hash_and_no_file_names_a_host(file: Path) -> None:
    text = file.read_text()
    head, _, rest = text.partition("\n")
    asked = f": {PACKAGES_OF[file.parent.name]}" if file.stem == PACKAGE else ""
    made = "Written by imagegen lock; never edited."
    assert head == f"# {file.stem} of {file.parent.name}{asked}. {made}"
    blocks = list(lock._entries(text).values())
    assert "".join(blocks) == rest, "something that is no requirement"
    assert blocks or file.stem == "nvcc"
    for block in blocks:
        assert REQUIREMENT.fullmatch(block), block
    assert "://" not in text
    assert not re.search(r"(?i)\b[\w-]+\.(com|org|net|io|dev|ai)\b|--(extra-)?index|--find-l", text)
    assert list(lock._entries(text)) == sorted(lock._entries(text))


@for_all(FOLDERS, lambda folder: folder.name)
def test_a_lock_is_whole(folder: Path) -> None:
    steps = (*PARTS, PACKAGE) if folder.name in PACKAGES_OF else PARTS
    files = {ASKED, *(f"{part}.txt" for part in steps)}
    assert {p.name for p in folder.iterdir()} == files
    parts = {part: names(folder / f"{part}.txt") for part in steps}
    everything = [name for part in steps if part != "build" for name in parts[part]]
    assert len(everything) == len(set(everything)), "installed by two steps"
    assert parts["tools"] == {"pip", "uv"}
    assert {"torch", "torchvision", "einops"} <= parts["torch"]
    assert set(PROJECT.matrix.packages) <= parts["apps"]
    assert {"ninja", "packaging", "psutil", "wheel"} <= parts["build"]
    assert "setuptools" in parts["build"] | parts["torch"]
    found = re.search(r"^torch==(\S+) \\$", (folder / "torch.txt").read_text(), re.MULTILINE)
    assert found
    assert folder.name.startswith(f"torch{found[1]}-cu")
    if "-cu13" in folder.name:
        assert parts["nvcc"] == set(lock.NVCC)


@for_all(LOCKED, lambda candidate: candidate.id)
def test_a_lock_was_made_for_what_the_matrix_asks_for_now(candidate: Candidate) -> None:
    target = candidate.target(RESOLUTION.packages)
    folder = PROJECT.locks / pins.lock_name(target.torch, target.cuda, target.python)
    assert (folder / ASKED).read_text() == "".join(f"{row}\n" for row in pins.asked(target))
    assert set(target.packages) == set(PROJECT.matrix.packages)


def test_each_lock_has_a_target_and_each_lockable_target_its_lock() -> None:
    wanted = {
        pins.lock_name(candidate.torch.version, candidate.cuda.version, candidate.python.version)
        for candidate in LOCKED
    }
    assert {folder.name for folder in FOLDERS} == wanted


# --- whether a lock is good -----------------------------------------------------------------------

ASKS = pins.asked(DEMO)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the lock of the demo target."""
    name = pins.lock_name(DEMO.torch, DEMO.cuda, DEMO.python)
    shutil.copytree(PROJECT.locks / name, tmp_path / name)
    return tmp_path / name


def faults(folder: Path, asks: Iterable[str] = ASKS) -> list[str]:
    return list(lock.faults(folder, asks))


def test_a_good_lock_has_no_fault_in_whatever_order_it_is_asked_for(folder: Path) -> None:
    assert faults(folder) == []
    assert faults(folder, ASKS[::-1]) == []


def test_a_lock_that_is_not_there(folder: Path) -> None:
    (folder / ASKED).unlink()
    assert faults(folder) == [f"{folder}: there is no such lock"]
    shutil.rmtree(folder)
    assert faults(folder) == [f"{folder}: there is no such lock"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("empty", [False, True], ids=["missing", "empty"])
def test_a_part_that_is_missing(folder: Path, part: str, empty: bool) -> None:
    (folder / f"{part}.txt").unlink()
    if empty:
        (folder / f"{part}.txt").touch()
    assert faults(folder) == [f"{folder}/{part}.txt: missing"]


@pytest.mark.parametrize("part", ["tools", "cuda", "torch", "build", "apps"])
def test_a_part_that_holds_nothing_but_its_head(folder: Path, part: str) -> None:
    """Of nvcc there is nothing where it comes from an image; of all others there always is."""
    file = folder / f"{part}.txt"
    file.write_text(file.read_text().splitlines(keepends=True)[0])
    assert faults(folder) == [f"{file}: holds no package"]


def test_torch_before_cuda_13_brings_no_nvcc(tmp_path: Path) -> None:
    (name,) = (f.name for f in FOLDERS if "torch2.10.0-cu128" in f.name and "py3.12" in f.name)
    asks = (PROJECT.locks / name / ASKED).read_text().splitlines()
    assert names(PROJECT.locks / name / "nvcc.txt") == set()
    assert faults(PROJECT.locks / name, asks) == []


@pytest.mark.parametrize("name", lock.NVCC)
def test_torch_from_cuda_13_on_brings_all_of_nvcc(folder: Path, name: str) -> None:
    file = folder / "nvcc.txt"
    rows = lock._entries(file.read_text())
    file.write_text("# nvcc\n" + "".join(row for key, row in rows.items() if key != name))
    assert faults(folder) == [f"{file}: does not hold {name}"]


@pytest.mark.parametrize(
    ("part", "name"),
    [("torch", "torch"), ("torch", "torchvision"), ("apps", "transformers")],
)
def test_a_part_that_does_not_hold_what_is_asked_for(folder: Path, part: str, name: str) -> None:
    file = folder / f"{part}.txt"
    rows = lock._entries(file.read_text())
    (wanted,) = (ask for ask in ASKS if ask.partition("==")[0] == name)
    file.write_text("# x\n" + "".join(row for key, row in rows.items() if key != name))
    assert faults(folder) == [f"{file}: does not hold {wanted}"]


def test_a_package_in_two_parts(folder: Path) -> None:
    apps, torch = folder / "apps.txt", folder / "torch.txt"
    torch.write_text(torch.read_text() + lock._entries(apps.read_text())["transformers"])
    assert faults(folder) == [f"{folder}: transformers is in torch.txt and in apps.txt"]


def test_a_package_without_a_hash(folder: Path) -> None:
    file = folder / "apps.txt"
    file.write_text(file.read_text() + "zzz==1.0\nyyy==2.0 \\\n    --hash=md5:0\n")
    assert faults(folder) == [f"{file}: zzz has no hash", f"{file}: yyy has no hash"]


@pytest.mark.parametrize("row", ["zzz", "zzz>=1.0", "-r other.txt", "--pre"])
def test_a_line_that_pins_nothing(folder: Path, row: str) -> None:
    file = folder / "apps.txt"
    file.write_text(file.read_text() + f"{row}\n")
    assert faults(folder) == [f"{file}: not a package by version and hash: {row}"]


@pytest.mark.parametrize(
    "row",
    [
        "--index-url https://pypi.example.com/simple",
        "zzz @ file:///tmp/zzz.whl",
        "zzz @ ./zzz.whl",
        "zzz @ https://x.example/zzz.whl",
        "git+https://x.example/zzz",
    ],
)
def test_a_line_that_names_a_place(folder: Path, row: str) -> None:
    what = "names a place"
    file = folder / "torch.txt"
    file.write_text(f"{row}\n" + file.read_text())
    assert faults(folder) == [f"{file}: {what}: {row}"]


def test_a_comment_may_name_one(folder: Path) -> None:
    file = folder / "torch.txt"
    file.write_text("# see https://x.example/\n" + file.read_text())
    assert faults(folder) == []


def test_a_lock_that_was_made_for_other_packages(folder: Path) -> None:
    file = folder / ASKED
    assert faults(folder, (*ASKS, "peft")) == [f"{file} and the matrix differ in peft"]
    assert faults(folder, ASKS[:-1]) == [f"{file} and the matrix differ in {ASKS[-1]}"]
    other = ("torch==2.12.0", *ASKS[1:])
    assert faults(folder, other) == [
        f"{file} and the matrix differ in torch==2.11.0, torch==2.12.0"
    ]


def test_a_lock_that_holds_another_version_than_was_asked_for(folder: Path) -> None:
    file = folder / "torch.txt"
    file.write_text(file.read_text().replace("\ntorch==2.11.0 ", "\ntorch==2.10.0 "))
    assert faults(folder) == [f"{file}: does not hold torch==2.11.0"]


def test_every_fault_is_told(folder: Path) -> None:
    (folder / "cuda.txt").unlink()
    (folder / "apps.txt").write_text("zzz==1.0\n")
    (folder / "torch.txt").write_text("https://x.example/y\n")
    found = faults(folder, (*ASKS, "peft"))
    for words in ("differ in peft", "cuda.txt: missing", "zzz has no hash", "names a place"):
        assert any(words in line for line in found), words


def test_the_name_of_a_lock() -> None:
    name = pins.lock_name(Version("2.10.0"), Version("12.8.1"), Version("3.12"))
    assert name == "torch2.10.0-cu128-py3.12"
