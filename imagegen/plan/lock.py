"""Locks: every Python package of an image, by version and hash. The one step that asks an index."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from imagegen.errors import EngineError, UsageError
from imagegen.model.target import Target, minor
from imagegen.net.settings import Network
from imagegen.plan.pins import ASKED, PACKAGE, PARTS, TOOLKIT_EXTRAS, asked, for_the_torch
from imagegen.util import process

log = logging.getLogger(__name__)

TOOLS = ("pip", "uv")
BUILD = ("ninja", "packaging", "psutil", "setuptools", "wheel")
"""What flash-attn's setup.py needs beside torch."""
NVCC = ("nvidia-cuda-cccl", "nvidia-cuda-crt", "nvidia-cuda-nvcc", "nvidia-nvvm")
"""What turns the CUDA libraries that torch brings into a toolkit."""
LINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+]+( ;[^@]*)?( \\)?")
"""The first line of a package: no place, no option, nothing without a version."""
NAME_AND_VERSION = re.compile(r"[A-Za-z0-9._-]+==([A-Za-z0-9.!+]+) ?(?!;)")
"""A package's version; none where it is for some machines only."""
NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==", re.MULTILINE)


def lock(
    target: Target,
    toolkit: Version | None,
    folder: Path,
    network: Network,
    package: str = "",
) -> None:
    """Resolve the target's packages once and write them to ``folder``, split by install step.

    Versions that the folder already holds are kept wherever they still fit. ``toolkit`` is the
    cuda-toolkit release that torch pins, None where nvcc does not come from wheels. ``package`` is
    a requirement whose part is for the targets that ask for it, empty for none.

    Raises:
        UsageError: uv is missing. EngineError: the index did not answer or nothing fits.
    """
    torch = list(for_the_torch(target))
    nvcc = [f"cuda-toolkit[{TOOLKIT_EXTRAS}]=={toolkit}"] if toolkit else []
    with tempfile.TemporaryDirectory() as work:
        whole, constraint = Path(work) / "whole.txt", Path(work) / "constraint.txt"
        everything = [*torch, *nvcc, *target.packages, *TOOLS, *BUILD, "einops"]
        old = [p.read_text() for part in PARTS if (p := folder / f"{part}.txt").exists()]
        whole.write_text("\n".join(old))
        log.info(f"lock {folder.name}: resolving {len(everything)} requirements")
        _compile(target, everything, network, "--output-file", whole)
        entries = _entries(whole.read_text())
        constraint.write_text("".join(entries.values()))
        for_torch = set(_entries(_compile(target, torch, network, "--constraint", constraint)))
        added = _added(target, package, folder, constraint, network) if package else {}
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        rows = [entries[name] for name in sorted(entries) if part in _parts(name, for_torch)]
        header = f"# {part} of {folder.name}. Written by imagegen lock; never edited.\n"
        (folder / f"{part}.txt").write_text(header + "".join(rows))
    if package:
        header = f"{_header(folder, package)} Written by imagegen lock; never edited.\n"
        rows = [added[name] for name in sorted(added)]
        (folder / f"{PACKAGE}.txt").write_text(header + "".join(rows))
    else:
        (folder / f"{PACKAGE}.txt").unlink(missing_ok=True)
    (folder / ASKED).write_text("".join(f"{row}\n" for row in asked(target)))
    log.info(f"lock {folder.name}: {len(entries) + len(added)} packages")


def _added(
    target: Target, package: str, folder: Path, constraint: Path, network: Network
) -> dict[str, str]:
    """What a requirement brings that the rest of the lock, the constraint, does not hold."""
    new = constraint.with_name("package.txt")
    old = folder / f"{PACKAGE}.txt"
    new.write_text(old.read_text() if old.exists() else "")  # versions that still fit are kept
    rest, options = _entries(constraint.read_text()), ("--constraint", constraint)
    _compile(target, [package], network, *options, "--output-file", new)
    found = _entries(new.read_text())
    return {name: block for name, block in found.items() if name not in rest}


def _header(folder: Path, package: str) -> str:
    """The first words of the part for a package: what was asked for is in them."""
    return f"# {PACKAGE} of {folder.name}: {package}."


def faults(folder: Path, requirements: Iterable[str], package: str = "") -> Iterator[str]:
    """What is wrong with a lock: missing, made for something else, or not whole. Asks nothing."""
    parts = (*PARTS, PACKAGE) if package else PARTS
    file = folder / ASKED
    if not file.is_file():
        yield f"{folder}: there is no such lock"
        return
    requirements, whole = tuple(requirements), True
    if difference := set(file.read_text().split("\n")[:-1]) ^ set(requirements):
        yield f"{file} and the matrix differ in {', '.join(sorted(difference))}"
        whole = False
    for part in parts:
        path = folder / f"{part}.txt"
        text = path.read_text() if path.is_file() else ""
        if part == PACKAGE and text and not text.startswith(_header(folder, package)):
            yield f"{path}: was not made for {package}"
        entries = _entries(text)
        if not entries and not (part == "nvcc" and text):  # torch before CUDA 13 brings no nvcc
            yield f"{path}: {'holds no package' if text else 'missing'}"
            whole = False
        for name, block in entries.items():
            if "--hash=sha256:" not in block:
                yield f"{path}: {name} has no hash"
        for line in text.splitlines():
            if line.startswith(("#", " ")) or not line or LINE.fullmatch(line):
                continue
            place = "://" in line or " @ " in line
            what = "names a place" if place else "not a package by version and hash"
            yield f"{path}: {what}: {line.strip()}"
    yield from _missing(folder, requirements, parts, package) if whole else ()


def _missing(
    folder: Path, requirements: Iterable[str], parts: Iterable[str], package: str
) -> Iterator[str]:
    """What is asked for and not in its own part, and what is in two parts."""
    locked = {part: _entries((folder / f"{part}.txt").read_text()) for part in parts}
    if package and (name := Requirement(package).name) not in locked[PACKAGE]:
        yield f"{folder / PACKAGE}.txt: does not hold {name}"
    for wanted in map(Requirement, requirements):
        name = str(canonicalize_name(wanted.name))
        # A package that others in the list need may be in their part: einops beside torch.
        elsewhere = [part for part in ("tools", "cuda", "torch") if name in locked[part]]
        part = "torch" if name in ("torch", "torchvision") else "apps"
        if part == "apps" and elsewhere and _parts(name, locked["torch"]) & set(elsewhere):
            part = elsewhere[0]
        version = NAME_AND_VERSION.match(locked[part].get(name, ""))
        if not version or not wanted.specifier.contains(version[1], prereleases=True):
            yield f"{folder / part}.txt: does not hold {wanted}"
    if any(block.startswith("cuda-toolkit==13") for block in locked["cuda"].values()):
        for tool in NVCC:
            if tool not in locked["nvcc"]:
                yield f"{folder / 'nvcc'}.txt: does not hold {tool}"
    for one, other in combinations([part for part in locked if part != "build"], 2):
        for twice in sorted(set(locked[one]) & set(locked[other])):
            yield f"{folder}: {twice} is in {one}.txt and in {other}.txt"


def _parts(name: str, for_torch: Iterable[str]) -> set[str]:
    """The files that a package belongs to. Build requirements are needed twice: by flash-attn's
    stage, which the applications' step does not follow, and by applications or their users.
    """
    build = {"build"} if name in BUILD else set()
    if name in TOOLS:
        return {"tools"}
    if name in NVCC:
        return {"nvcc"}
    if name.startswith(("nvidia-", "cuda-")):
        return {"cuda"}
    if name in for_torch or name == "einops":  # flash-attn's other requirement
        return {"torch"} | build
    return {"apps"} | build


def _compile(
    target: Target, requirements: Iterable[str], network: Network, *options: str | Path
) -> str:
    env = {"UV_DEFAULT_INDEX": network.pypi_index} if network.pypi_index else {}
    env |= {"SSL_CERT_FILE": network.ca} if network.ca else {}
    try:
        return process.run(
            "uv",
            *("pip", "compile", "--quiet", "--no-header", "--no-annotate", "--generate-hashes"),
            *("--python-version", minor(target.python), "--python-platform"),
            *("x86_64-manylinux_2_35", "--no-emit-index-url", "--no-emit-find-links"),
            *options,
            "-",
            stdin="\n".join(requirements),
            timeout=600,
            env=env,
        )
    except EngineError as error:
        if "not installed" in str(error):
            raise UsageError("uv is not installed", hint="pip install uv") from error
        raise


def _entries(text: str) -> dict[str, str]:
    """Requirement by name: each is a line with ``==`` and the indented hashes below it."""
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    return {match[1]: block for block in blocks if (match := NAME.match(block))}
