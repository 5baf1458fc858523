"""Kernel files are compiled several at once, each once, and whatever ends it loses little."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imagegen.image.wheel.flash_attn_wheel import compiling, sizing
from imagegen.image.wheel.flash_attn_wheel.compiling import Progress, Running, clock
from imagegen.image.wheel.flash_attn_wheel.objects import Objects
from imagegen.image.wheel.flash_attn_wheel.selection import Selection, heaviest_first
from tests.support.wheel_recipe import (
    FOLDER,
    LLAMA,
    SIX,
    TOOLCHAIN,
    Nvcc,
    preset,
    run,
    until,
    whole,
)

TWELVE = preset("llama")


@pytest.fixture
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nvcc]:
    monkeypatch.setenv("BEHAVE", "")
    monkeypatch.setattr(sizing, "memory", lambda: 100 * 10**9)
    its = Nvcc(tmp_path / "nvcc")
    yield its
    until(its.end)


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects.of(tmp_path / "objects", "flash_attn-2.8.3", "a" * 64, ("-O3",), TOOLCHAIN)


# --- all goes well --------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize("slots", [1, 2, 5])
def test_every_kernel_is_compiled_once_the_heaviest_first(
    slots: int, nvcc: Nvcc, objects: Objects
) -> None:
    order = heaviest_first(TWELVE.kernels, TWELVE)
    nvcc.takes(0.5, *order[: slots if slots > 1 else 0])  # so that they meet
    found = run(nvcc, objects, TWELVE, slots)
    assert found == [objects.path(source) for source in TWELVE.kernels]
    assert whole(objects) == set(TWELVE.kernels)
    started = nvcc.said("start")
    assert len(started) == 12
    assert nvcc.most == slots
    for at in range(12):  # those at work at once say so in any order
        assert set(started[: at + 1]) <= set(order[: at + slots])


@pytest.mark.process
def test_threads_where_there_are_fewer_files_than_slots(nvcc: Nvcc, objects: Objects) -> None:
    both = Selection((80, 90), (128,), ("bf16",), ("backward",))
    run(nvcc, objects, both, slots=12, threads=2)
    assert nvcc.most <= 6


@pytest.mark.process
def test_what_is_there_is_not_compiled_again(
    nvcc: Nvcc, objects: Objects, capsys: pytest.CaptureFixture[str]
) -> None:
    run(nvcc, objects)
    capsys.readouterr()
    nvcc.forget()
    assert run(nvcc, objects) == [objects.path(source) for source in LLAMA.kernels]
    assert nvcc.log == []
    said = "flash-attn: all 6 kernel files were compiled before\n"
    assert capsys.readouterr().out == said
    objects.path(SIX[3]).write_text("torn")
    run(nvcc, objects)
    assert nvcc.said("start") == [SIX[3]]
    assert whole(objects) == set(SIX)
    assert "5 were compiled before" in capsys.readouterr().out


@pytest.mark.process
def test_one_alone_where_others_use_the_memory(
    nvcc: Nvcc, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "memory", lambda: 10**9)
    run(nvcc, objects, slots=4)
    assert nvcc.most == 1
    assert whole(objects) == set(SIX)


@pytest.mark.process
def test_what_is_said(
    nvcc: Nvcc,
    objects: Objects,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiling, "EVERY", 0.5)
    nvcc.takes(1.5, SIX[0])
    run(nvcc, objects)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("flash-attn: 0 of 6 kernel files, about 3 min left, 2 at a time")
    line = re.compile(r"flash-attn: (\d) of 6 kernel files, about .* left(; \w+ for \d+ s)?")
    found = [line.fullmatch(text) for text in lines[1:-1]]
    assert all(found), lines
    counts = [int(one[1]) for one in found if one]
    assert counts == sorted(counts) and counts[-1] >= 4
    assert f"; {compiling.name(SIX[0])} for 1 s" in "\n".join(lines)
    slowest = f"the slowest {compiling.name(SIX[0])} in "
    end = rf"flash-attn: 6 kernel files compiled in \d s, {slowest}\d s"
    assert re.fullmatch(end, lines[-1])


def at_work(seconds: dict[str, float]) -> list[Running]:
    """Compilers that have been running for so long."""
    process: Any = None
    now = time.monotonic()
    return [
        Running(source, process, Path(), start=now - spent) for source, spent in seconds.items()
    ]


def test_the_time_left_is_by_weight_and_by_what_was_seen() -> None:
    weights = dict(zip(SIX, (70, 70, 63, 63, 50, 50), strict=True))
    progress = Progress(LLAMA, SIX, 8, 2)
    assert progress.left(()) == pytest.approx(sum(weights.values()) / 2)
    assert progress.line(()).startswith("flash-attn: 2 of 8 kernel files, about 3 min left")
    progress.done[SIX[0]] = 140.0  # twice what was expected
    assert progress.left(()) == pytest.approx(2 * (sum(weights.values()) - 70) / 2)
    running = at_work({SIX[1]: 30, SIX[2]: 20})
    assert progress.left(running) == pytest.approx(296 - 25, abs=1)
    assert progress.line(running).endswith(f"; {compiling.name(SIX[1])} for 30 s")
    for source in SIX:
        progress.done[source] = 1.0
    assert progress.left(()) == 0
    assert progress.line(()) == "flash-attn: 8 of 8 kernel files, about 0 s left"


def test_a_file_over_its_time_slows_the_forecast_of_all() -> None:
    """Before the first file is done, too."""
    progress = Progress(LLAMA, SIX, 6, 2)
    foretold = progress.left(at_work({SIX[0]: 70, SIX[1]: 70}))
    assert foretold == pytest.approx((366 - 140 + 2 * 7) / 2, abs=1)
    slow = progress.left(at_work({SIX[0]: 210, SIX[1]: 210}))  # three times as long by now
    assert slow == pytest.approx((3 * (366 - 140) + 2 * 21) / 2, abs=1)


def test_it_takes_no_less_than_the_longest_file() -> None:
    progress = Progress(LLAMA, SIX, 6, 2)
    progress.done |= dict(zip(SIX[1:5], (70.0, 63.0, 63.0, 50.0), strict=True))
    assert progress.left(()) == pytest.approx(70), "of 70 and 50, on two"
    assert progress.left(at_work({SIX[0]: 10, SIX[5]: 40})) == pytest.approx(60, abs=1)
    progress.done[SIX[0]] = 70.0  # and the last one is never nearly done
    left = [progress.left(at_work({SIX[5]: seconds})) for seconds in (100, 400, 800)]
    assert left == pytest.approx([10, 40, 80], abs=1)
    assert ", about 40 s left; " in progress.line(at_work({SIX[5]: 400}))


def test_architectures_take_their_time() -> None:
    two = Selection((80, 90), (128,), ("bf16",), ("backward",))
    assert Progress(two, SIX, 6, 1).left(()) == 2 * Progress(LLAMA, SIX, 6, 1).left(())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5999, "100 min"), (7500, "2 h 05 min")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds).replace("1 h 40 min", "100 min") == text


# --- something fails ------------------------------------------------------------------------------


@pytest.mark.process
def test_a_file_that_does_not_compile(nvcc: Nvcc, objects: Objects) -> None:
    nvcc.takes(30, SIX[3])
    nvcc.does(SIX[2], "printf half > $out; echo 'error: no such header'; sleep 1; exit 3")
    start = time.monotonic()
    with pytest.raises(SystemExit) as caught:
        run(nvcc, objects, slots=4)
    assert time.monotonic() - start < 15, "the others are ended"
    assert str(caught.value) == (
        f"error: no such header\nflash-attn: compiling {SIX[2]} failed (exit 3)"
    )
    assert {SIX[0], SIX[1]} <= whole(objects) <= set(SIX) - {SIX[2], SIX[3]}
    assert not nvcc.alive
    before = whole(objects)
    nvcc.is_well()
    nvcc.forget()
    run(nvcc, objects)
    assert set(nvcc.said("start")) == set(SIX) - before
    assert whole(objects) == set(SIX)


@pytest.mark.process
def test_what_ends_beside_a_failure_is_kept(
    nvcc: Nvcc, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them end between two looks at them."""
    nvcc.does(SIX[0], "exit 1")

    def sleep(_: float) -> None:
        until(lambda: len(nvcc.said("end")) == 5 and not nvcc.alive)

    stand_in = SimpleNamespace(sleep=sleep, monotonic=time.monotonic)
    monkeypatch.setattr(compiling, "time", stand_in)
    with pytest.raises(SystemExit, match="failed"):
        run(nvcc, objects, slots=6)
    assert whole(objects) == set(SIX[1:])


@pytest.mark.process
def test_only_the_end_of_a_long_output_is_shown(nvcc: Nvcc, objects: Objects) -> None:
    nvcc.does(SIX[0], "seq 1 5000; printf '%01000d\\n' 7; exit 1")
    with pytest.raises(SystemExit) as caught:
        run(nvcc, objects)
    lines = str(caught.value).splitlines()
    assert len(lines) == 41 and lines[-3] == "5000"
    assert all(len(line) <= 400 for line in lines[:-1])


KILLS = {
    "itself": "kill -9 $$",
    "its child": "echo 'nvcc error   : cicc died due to signal 9 (Kill signal)'; exit 9",
}
TWICE = 'if [ "$(grep -c "start $source" "$BEHAVE/log")" -le {} ]; then {}; fi'


@pytest.mark.process
@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
@pytest.mark.parametrize("victims", [1, 2, 3])
def test_what_runs_out_of_memory_is_tried_again_alone(
    victims: int, kill: str, nvcc: Nvcc, objects: Objects, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in SIX[:victims]:
        nvcc.does(source, TWICE.format(1, kill))
    run(nvcc, objects, slots=3)
    assert whole(objects) == set(SIX)
    started = nvcc.said("start")
    assert {source: started.count(source) for source in SIX} == {
        source: 1 + (source in SIX[:victims]) for source in SIX
    }
    out = capsys.readouterr().out
    assert "ran out of memory: one at a time from here" in out
    after = [word for word, _ in nvcc.log][-2 * (6 - 3) :]
    assert after == ["start", "end"] * 3, "one at a time"


@pytest.mark.process
@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
@pytest.mark.parametrize("slots", [1, 3])
def test_what_runs_out_of_memory_alone_ends_it(
    slots: int, kill: str, nvcc: Nvcc, objects: Objects
) -> None:
    nvcc.does(SIX[0], kill)
    words = rf"{SIX[0]} was killed: is there memory for it\? 5 GB are needed"
    with pytest.raises(SystemExit, match=words):
        run(nvcc, objects, slots=slots)
    assert nvcc.said("start").count(SIX[0]) == min(slots, 2)
    assert SIX[0] not in whole(objects)


def small_disk(tmp_path: Path, size: str) -> Path:
    folder = tmp_path / "objects"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount")
    return folder


@pytest.mark.process
@pytest.mark.parametrize("size", ["200k", "188k"])
def test_a_disk_that_fills_up(size: str, nvcc: Nvcc, tmp_path: Path) -> None:
    """At an object or at the note about it: there is room for three of 60 kB, or nearly so."""
    folder = small_disk(tmp_path, size)
    try:
        big = (
            'head -c 60000 /dev/zero > "$out" || exit 1; echo "end $source" >> "$BEHAVE/log"; exit'
        )
        for source in SIX:
            nvcc.does(source, big)
        objects = Objects.of(folder, "flash_attn", "a" * 64, ("-O3",), TOOLCHAIN)
        words = rf"failed \(exit 1\); only \d+ kB are free in {folder}|No space left on device"
        with pytest.raises((SystemExit, OSError), match=words):
            run(nvcc, objects, slots=1)
        kept = [source for source in SIX if objects.made(source)]
        assert 1 <= len(kept) < 4
        assert all(objects.path(source).stat().st_size == 60_000 for source in kept)
        subprocess.run(["mount", "-o", "remount,size=2m", folder], check=True)
        nvcc.forget()
        run(nvcc, objects, slots=1)
        assert set(nvcc.said("start")) == set(SIX) - set(kept)
        assert objects.missing(SIX) == []
    finally:
        subprocess.run(["umount", folder], check=True)


# --- something ends it ----------------------------------------------------------------------------

BUILD = """
import signal, sys; from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # background or under nohup
sys.path.insert(0, {folder!r})
from flash_attn_wheel import __main__, compiling, sizing
from flash_attn_wheel.objects import Objects, Toolchain
from flash_attn_wheel.selection import Selection
sizing.memory = lambda: 10**11
chosen = Selection((80,), (128,), ("bf16",), ("backward",))
objects = Objects(Path({objects!r}), Toolchain(**{toolchain!r}))
def command(source, out, threads): return [{program!r}, "-c", source, "-o", str(out)]
def build(*_):
    return dict(made=len(compiling.compiled(objects, chosen, chosen.kernels, command, 2)))
__main__.build = build
sys.argv = ["build", "build", "sdist", "--archs", "80"]
__main__.main()
"""


def building(nvcc: Nvcc, objects: Objects) -> subprocess.Popen[str]:
    """A build in a process of its own, with the command line's own handling of signals."""
    script = BUILD.format(
        folder=os.fspath(FOLDER),
        objects=os.fspath(objects.folder),
        toolchain=vars(TOOLCHAIN),
        program=os.fspath(nvcc.program),
    )
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def in_the_middle(nvcc: Nvcc, objects: Objects) -> subprocess.Popen[str]:
    """A build that has compiled two files and works at two that take long."""
    nvcc.takes(60, *SIX[2:4])
    build = building(nvcc, objects)
    until(lambda: nvcc.asleep == 2 and len(objects.missing(SIX)) == 4)
    assert build.poll() is None
    return build


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_build_that_is_told_to_end_leaves_no_compiler(
    number: signal.Signals, nvcc: Nvcc, objects: Objects
) -> None:
    build = in_the_middle(nvcc, objects)
    build.send_signal(number)
    out, _ = build.communicate(timeout=20)
    assert build.returncode != 0
    assert "Traceback" not in out
    if number == signal.SIGINT:
        assert out.endswith("interrupted; compiled kernels are kept for the next try\n")
    until(lambda: not nvcc.alive, 2)
    assert whole(objects) == set(SIX[:2])
    nvcc.is_well()
    nvcc.forget()
    run(nvcc, objects)
    assert set(nvcc.said("start")) == set(SIX[2:])
    assert whole(objects) == set(SIX)


@pytest.mark.process
def test_a_build_that_is_killed_loses_the_files_in_flight(nvcc: Nvcc, objects: Objects) -> None:
    build = in_the_middle(nvcc, objects)
    build.kill()
    build.communicate(timeout=20)
    nvcc.is_well()
    nvcc.forget()
    run(nvcc, objects)
    assert nvcc.alive, "nobody was there to end them, and what they write counts for nothing"
    until(nvcc.end)
    assert set(nvcc.said("start")) == set(SIX[2:])
    assert whole(objects) == set(SIX)


@pytest.mark.process
def test_two_builds_of_the_same_kernels_compile_each_once(nvcc: Nvcc, objects: Objects) -> None:
    nvcc.takes(0.3, *SIX)
    both = [building(nvcc, objects) for _ in range(2)]
    outs = [build.communicate(timeout=60)[0] for build in both]
    assert [build.returncode for build in both] == [0, 0], outs
    assert sorted(nvcc.said("start")) == sorted(SIX)
    assert nvcc.most == 2
    assert whole(objects) == set(SIX)
    waiting = f"another build works at {objects.folder.name}: waiting"
    (waited,) = [out for out in outs if waiting in out]
    assert "all 6 kernel files were compiled before" in waited
