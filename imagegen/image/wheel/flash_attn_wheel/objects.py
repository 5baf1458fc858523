"""Compiled kernels, kept so that each is compiled once: for every Python and every distribution.

A kernel file includes neither Python's headers nor anything else of one interpreter, so its object
depends on flash-attn's source, torch's minor and ABI, the CUDA compiler, the architectures and the
flags; a folder stands for all of them. A compiler cache would ask for the same preprocessed text,
which every distribution's C library changes. Instead each object says which C library and which C++
compiler it was made under: it serves the same and newer ones, as shared objects do.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

FORMAT = 1
"""Raised when what an object holds changes for a reason that nothing else in its key shows."""


@dataclass(frozen=True)
class Toolchain:
    """What compiles: ``nvcc`` is the CUDA compiler, ``glibc`` and ``gcc`` of the host code."""

    nvcc: str
    versions: str
    glibc: tuple[int, ...]
    gcc: tuple[int, ...]

    @classmethod
    def here(cls, cuda_home: str) -> Toolchain:
        """That of this machine, whose toolkit is ``cuda_home``.

        Raises:
            SystemExit: there is no nvcc.
        """
        folder = Path(cuda_home, "bin")
        if not (folder / "nvcc").exists():
            raise SystemExit(f"there is no nvcc in {folder}: set CUDA_HOME to a CUDA toolkit")
        texts = [_output(folder / tool, "--version") for tool in ("nvcc", "ptxas", "cudafe++")]
        include = Path(cuda_home, "include")
        for header in ("cccl/cub/version.cuh", "cub/version.cuh"):
            texts += [(include / header).read_text()] if (include / header).exists() else []
        return cls(
            nvcc=os.fspath(folder / "nvcc"),
            versions="\n".join(texts),
            glibc=_numbers(platform.libc_ver()[1]),
            gcc=_numbers(_output(*_host(), "-dumpfullversion", "-dumpversion")),
        )


def _host() -> list[str]:
    """The compiler of the host code: the one that nvcc takes, which CC names."""
    return shlex.split(os.environ.get("CC", "")) or ["g++"]


@dataclass(frozen=True)
class Made:
    """How an object was made. ``seconds`` are of the clock; ``sha256`` is of the object."""

    glibc: tuple[int, ...]
    gcc: tuple[int, ...]
    seconds: float
    sha256: str

    def serves(self, toolchain: Toolchain) -> bool:
        """Whether it can be linked under another C library and C++ compiler: under newer ones."""
        return tuple(self.glibc) <= toolchain.glibc and self.gcc[0] <= toolchain.gcc[0]


@dataclass(frozen=True)
class Objects:
    """The folder of one key: flash-attn's source, torch, toolchain, architectures and flags."""

    folder: Path
    toolchain: Toolchain

    @classmethod
    def of(
        cls, work: Path, name: str, source: str, flags: Sequence[str], toolchain: Toolchain
    ) -> Objects:
        """The folder in ``work`` for ``source``, a hash, compiled with ``flags``.

        ``name`` says for people what it is about; no path may be among the flags.
        """
        key = json.dumps([FORMAT, source, *flags, toolchain.versions])
        digest = hashlib.sha256(key.encode()).hexdigest()[:12]
        folder = work / f"{name}-{digest}"
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, toolchain)

    def path(self, source: str) -> Path:
        """Where the object of a kernel file is."""
        return self.folder / Path(source).with_suffix(".o").name

    def made(self, source: str) -> Made | None:
        """How the object was made, if there is a whole one that can be linked here."""
        made = _read(self.path(source))
        return made if made and made.serves(self.toolchain) else None

    def missing(self, sources: Iterable[str]) -> list[str]:
        """Those that are still to be compiled."""
        return [source for source in sources if self.made(source) is None]

    def keep(self, source: str, compiled: Path, seconds: float) -> None:
        """Take a compiled object; the note about it comes last, and without it there is none."""
        path = self.path(source)
        made = Made(self.toolchain.glibc, self.toolchain.gcc, round(seconds, 1), _sha256(compiled))
        self._place(path, compiled, made)

    def _place(self, path: Path, new: Path, made: Made) -> None:
        """Put an object into its place. The note about it comes last: without it there is none."""
        note = path.with_suffix(".json")
        note.unlink(missing_ok=True)
        new.replace(path)
        written = note.with_suffix(".new")
        written.write_text(json.dumps(asdict(made)))
        written.replace(note)

    def take(self, given: Path) -> list[str]:
        """Take what ``give`` left in a folder, perhaps on another machine, if it is of this key.

        Returns why others were not taken.
        """
        others = [
            f"{folder.name} in {given} is of another flash-attn, torch, CUDA, selection or compiler"
            for folder in sorted(given.glob("*/"))
            if folder.name != self.folder.name
        ]
        for object_ in sorted((given / self.folder.name).glob("*.o")):
            made = _read(object_)
            if made is None or not made.serves(self.toolchain):
                why = "was compiled on a newer distribution" if made else "is damaged"
                others.append(f"{object_.name} in {given} {why}")
            elif self.made(object_.name) is None:
                copy = self.folder / f"{object_.stem}.taken"
                shutil.copyfile(object_, copy)
                self._place(self.folder / object_.name, copy, made)
        return others

    def give(self, sources: Iterable[str], into: Path) -> list[Path]:
        """Copy the objects of ``sources`` and the notes about them below ``into``."""
        folder = into / self.folder.name
        folder.mkdir(parents=True, exist_ok=True)
        files = [
            self.path(source).with_suffix(end) for source in sources for end in (".o", ".json")
        ]
        return [Path(shutil.copyfile(file, folder / file.name)) for file in files]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Of two builds that would write the same, one works and the other waits and finds it done."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"flash-attn: another build works at {folder.name}: waiting", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(object_: Path) -> Made | None:
    """The note about an object, if both are there and whole."""
    try:
        made = Made(**json.loads(object_.with_suffix(".json").read_text()))
        return made if _sha256(object_) == made.sha256 else None
    except (OSError, ValueError, TypeError):
        return None


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _output(*command: str | os.PathLike[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", version)[:2])
