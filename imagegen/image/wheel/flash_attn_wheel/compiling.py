"""Compile kernel files, several at once, and say how far it is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from . import sizing
from .objects import Objects, alone
from .selection import Selection, heaviest_first, weight

EVERY = 15.0
"""Seconds between two lines about progress."""

FULL = 10_000_000
"""Bytes: with less free, a disk is taken to be why something failed."""

Command = Callable[[str, Path, int], Sequence[str]]
"""From a kernel file, the object to write and the number of nvcc's threads to a command line."""


@dataclass
class Running:
    """A compiler at work."""

    source: str
    process: subprocess.Popen[bytes]
    out: Path
    start: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.start


@dataclass
class Progress:
    """What is done of a compilation, and about how long the rest takes."""

    selection: Selection
    todo: list[str]
    total: int
    jobs: int
    done: dict[str, float] = field(default_factory=dict)

    def left(self, running: Sequence[Running]) -> float:
        """Seconds: by the weights of the files, corrected by how long those done have taken, and by
        those that take longer than foretold; no less than the longest file still takes.
        """
        expected = {source: self._weight(source) for source in self.todo}
        taken = dict(self.done) | {
            one.source: one.seconds for one in running if one.seconds > expected[one.source]
        }
        known = sum(expected[source] for source in taken)
        pace = sum(taken.values()) / known if known else 1.0
        rests = {source: pace * w for source, w in expected.items() if source not in self.done}
        for one in running:  # one that is over its time is taken to need a tenth more
            rests[one.source] = max(rests[one.source] - one.seconds, one.seconds / 10)
        if not rests:
            return 0.0
        return max(*rests.values(), sum(rests.values()) / min(self.jobs, len(rests)))

    def line(self, running: Sequence[Running]) -> str:
        """For people."""
        count = self.total - len(self.todo) + len(self.done)
        text = f"flash-attn: {count} of {self.total} kernel files"
        text += f", about {clock(self.left(running))} left"
        if running:
            slowest = max(running, key=lambda one: one.seconds)
            text += f"; {name(slowest.source)} for {clock(slowest.seconds)}"
        return text

    def summary(self, seconds: float) -> str:
        """What was compiled and what was there, and the file that took longest."""
        found = self.total - len(self.todo)
        text = f"flash-attn: {len(self.done)} kernel files compiled in {clock(seconds)}"
        if self.done:
            slowest = max(self.done, key=lambda source: self.done[source])
            text += f", the slowest {name(slowest)} in {clock(self.done[slowest])}"
        return text + (f"; {found} were compiled before" if found else "")

    def _weight(self, source: str) -> float:
        return weight(source, self.selection) * len(self.selection.archs)


def name(source: str) -> str:
    """``bwd_hdim128_bf16_causal``."""
    return Path(source).name.removeprefix("flash_").removesuffix("_sm80.cu")


def clock(seconds: float) -> str:
    """``45 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def compiled(
    objects: Objects,
    selection: Selection,
    sources: Sequence[str],
    command: Command,
    slots: int,
) -> list[Path]:
    """The objects of ``sources``, compiled unless they are there.

    ``slots`` is how many nvcc threads may run. An interruption loses the files in flight only.

    Raises:
        SystemExit: a file does not compile; the end of the compiler's output is printed.
    """
    with alone(objects.folder):
        todo = heaviest_first(objects.missing(sources), selection)
        if todo:
            jobs, threads = sizing.shared(slots, len(todo), len(selection.archs))
            progress = Progress(selection, todo, len(sources), jobs)
            print(progress.line(()) + f", {jobs} at a time", flush=True)
            start = time.monotonic()
            _all(objects, progress, command, threads)
            print(progress.summary(time.monotonic() - start), flush=True)
        else:
            print(f"flash-attn: all {len(sources)} kernel files were compiled before", flush=True)
    return [objects.path(source) for source in sources]


def _all(objects: Objects, progress: Progress, command: Command, threads: int) -> None:
    waiting, running = list(progress.todo), list[Running]()
    alone, failed = set[str](), list[Running]()
    said = time.monotonic()
    with _scratch(objects.folder) as scratch, _ended(running):
        while waiting or running:
            while waiting and len(running) < progress.jobs and (not running or _room(threads)):
                if progress.jobs == 1:
                    alone.add(waiting[0])
                running.append(_started(scratch, waiting.pop(0), command, threads))
            time.sleep(0.2)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                if one.process.returncode == 0:
                    objects.keep(one.source, one.out, one.seconds)
                    progress.done[one.source] = one.seconds
                    said = 0.0
                elif _killed(one) and one.source not in alone:
                    progress.jobs, waiting = 1, [one.source, *waiting]
                    print(f"flash-attn: {name(one.source)} ran out of memory: one at a time from "
                          "here", flush=True)  # fmt: skip
                else:
                    failed.append(one)  # after those that ended well beside it were kept
            if failed:
                raise SystemExit(_failure(failed[0]))
            if time.monotonic() - said > EVERY and (waiting or running):
                said = time.monotonic()
                print(progress.line(running), flush=True)


def _room(threads: int) -> bool:
    """Whether memory is there for one more compiler: others may use the machine, too."""
    return sizing.memory() > threads * sizing.GIGABYTES_PER_THREAD * 10**9


def _started(scratch: Path, source: str, command: Command, threads: int) -> Running:
    folder = scratch / Path(source).stem
    folder.mkdir(exist_ok=True)
    out = folder / "object.o"
    words = command(source, out, threads)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            words,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"TMPDIR": os.fspath(folder)},
            start_new_session=True,  # a Ctrl-C comes to us, and we end all of its children
        )
    return Running(source, process, out)


def _killed(one: Running) -> bool:
    """Whether the kernel ended it, or one of the programs that nvcc calls, for want of memory."""
    return one.process.returncode == -signal.SIGKILL or "died due to signal 9" in _tail(one)


def _tail(one: Running) -> str:
    lines = one.out.with_name("log").read_text(errors="replace").splitlines()
    return "\n".join(line[:400] for line in lines[-40:])


def _failure(one: Running) -> str:
    why = "was killed: is there memory for it? 5 GB are needed" if _killed(one) else "failed"
    text = f"{_tail(one)}\nflash-attn: compiling {one.source} {why} (exit {one.process.returncode})"
    free = shutil.disk_usage(one.out.parent).free
    if free < FULL:  # then the compiler's own words may be lost, too
        text += f"; only {free // 1000} kB are free in {one.out.parents[2]}"
    return text.lstrip("\n")


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for what is in flight; what a killed build left of its own is removed."""
    for old in folder.glob("flight-*"):
        shutil.rmtree(old, ignore_errors=True)  # the lock is ours: nobody works there
    path = Path(tempfile.mkdtemp(prefix="flight-", dir=folder))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _ended(running: list[Running]) -> Iterator[None]:
    """However the block ends, no compiler outlives it."""
    try:
        yield
    finally:
        for one in running:
            with suppress(ProcessLookupError):
                os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()
