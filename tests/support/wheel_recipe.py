"""What the tests of the wheel recipe share: its selections, and a stand-in for its compiler."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from imagegen.image.wheel.flash_attn_wheel.compiling import compiled
from imagegen.image.wheel.flash_attn_wheel.objects import Objects, Toolchain
from imagegen.image.wheel.flash_attn_wheel.selection import (
    DTYPES,
    FEATURES,
    HEAD_DIMS,
    PRESETS,
    Selection,
    heaviest_first,
)

FULL = Selection((80,))
LLAMA = Selection((80,), (128,), ("bf16",), ("backward",))
DEMO = "cu130torch2.11cxx11abitrue.sm80.hdim128.bf16.nodropout.noalibi.nosoftcap.nolocal.nounevenk"
"""The local version of LLAMA in the demo's image."""

SIX = heaviest_first(LLAMA.kernels, LLAMA)
TOOLCHAIN = Toolchain(nvcc="/cuda/bin/nvcc", versions="13.0.88", glibc=(2, 36), gcc=(12, 2))
FOLDER = Path(__file__).parents[2] / "imagegen/image/wheel"
"""Where ``python -m flash_attn_wheel`` is found, as a build stage mounts it."""


def preset(name: str) -> Selection:
    return Selection((80,), **PRESETS[name])  # type: ignore[arg-type]


def part(values: tuple[Any, ...], least: int = 1) -> st.SearchStrategy[tuple[Any, ...]]:
    """A part of ``values`` in their order, as the command line makes them."""
    chosen = st.sets(st.sampled_from(values), min_size=least)
    return chosen.map(lambda found: tuple(v for v in values if v in found))


def selections() -> st.SearchStrategy[Selection]:
    return st.builds(
        Selection,
        archs=part((80, 86, 89, 90, 100, 103, 120)),
        head_dims=part(HEAD_DIMS),
        dtypes=part(tuple(DTYPES)),
        features=part(tuple(FEATURES), 0),
    )


# --- a compiler that only waits -------------------------------------------------------------------

NVCC = r"""#!/bin/sh
# In $BEHAVE: NAME.cu.seconds is how long it takes; NAME.cu.sh is done before the object is written.
case "$1" in --version) echo "release 13.0, V13.0.88"; exit;; esac
words=$*
while [ $# -gt 0 ]; do
    case "$1" in -c) source=$(basename "$2");; -o) out=$2;; esac
    shift
done
echo "start $source" >> "$BEHAVE/log"
echo "$words" > "$BEHAVE/$source.words"
if [ -e "$BEHAVE/$source.sh" ]; then . "$BEHAVE/$source.sh"; fi
printf half > "$out"
sleep "$(cat "$BEHAVE/$source.seconds" 2>/dev/null || echo 0)"
printf 'object of %s' "$source" > "$out"
echo "end $source" >> "$BEHAVE/log"
"""


class Nvcc:
    """A stand-in that says when it starts and ends, and does for a file what it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "bin/nvcc"
        self.program.parent.mkdir(parents=True)
        self.program.write_text(NVCC)
        self.program.chmod(0o755)
        os.environ["BEHAVE"] = os.fspath(folder)  # taken back by the fixture

    def takes(self, seconds: float, *sources: str) -> None:
        for source in sources:
            (self.folder / f"{source}.seconds").write_text(str(seconds))

    def does(self, source: str, shell: str) -> None:
        (self.folder / f"{source}.sh").write_text(shell)

    def words(self, source: str) -> list[str]:
        """The command line for a kernel file."""
        return (self.folder / f"{source}.words").read_text().split()

    def is_well(self) -> None:
        for file in [*self.folder.glob("*.sh"), *self.folder.glob("*.seconds")]:
            file.unlink()

    @property
    def log(self) -> list[tuple[str, str]]:
        """(``start`` or ``end``, kernel file), in their order."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.folder / "log").read_text().splitlines()
            return [(words[0], words[1]) for words in map(str.split, lines)]
        return []

    def said(self, what: str) -> list[str]:
        return [source for word, source in self.log if word == what]

    def forget(self) -> None:
        (self.folder / "log").unlink(missing_ok=True)

    @property
    def most(self) -> int:
        """How many were at work at once."""
        count = highest = 0
        for word, _ in self.log:
            count += 1 if word == "start" else -1
            highest = max(highest, count)
        return highest

    @property
    def alive(self) -> dict[int, str]:
        """The processes that run it, or that it has started, and their first words."""
        mark, found = f"BEHAVE={self.folder}\0".encode(), {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if mark in (folder / "environ").read_bytes() and (
                    words[0] == b"sleep" or os.fsencode(self.program) in words
                ):
                    found[int(folder.name)] = words[0].decode()
        return found

    @property
    def asleep(self) -> int:
        """How many are in the middle of a long file."""
        return list(self.alive.values()).count("sleep")

    def end(self) -> bool:
        """End those that a killed build has left; whether none is left."""
        left = self.alive
        for number in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        return not left


def until(what: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(FileNotFoundError):  # of a folder that went while it was looked at
            if what():
                return
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def run(
    nvcc: Nvcc, objects: Objects, selection: Selection = LLAMA, slots: int = 2, threads: int = 1
) -> list[Path]:
    def command(source: str, out: Path, nvcc_threads: int) -> list[str]:
        assert nvcc_threads == threads
        return [os.fspath(nvcc.program), "-c", source, "-o", os.fspath(out)]

    return compiled(objects, selection, selection.kernels, command, slots)


def whole(objects: Objects) -> set[str]:
    """The kernel files whose objects are there; nothing else is."""
    found = {f"{file.stem}.cu" for file in objects.folder.glob("*.o")}
    for source in found:
        assert objects.path(source).read_text() == f"object of {source}"
        assert objects.made(source)
    assert {f.suffix for f in objects.folder.iterdir()} <= {".o", ".json", ""}
    assert not list(objects.folder.glob("flight-*"))
    return found
