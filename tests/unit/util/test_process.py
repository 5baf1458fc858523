"""Processes: what is heard of them while they run, and that nothing of them stays."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from imagegen.errors import EngineError
from imagegen.util import process

pytestmark = pytest.mark.process


def alive(pid: int) -> bool:
    """Whether the process still runs; one that only waits for init to bury it does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def gone(pid: int) -> bool:
    until = time.monotonic() + 10
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not alive(pid)


# --- run ------------------------------------------------------------------------------------------


def test_a_short_command_gives_its_output() -> None:
    assert process.run(
        "sh", "-c", "cat; echo $A; echo no >&2", stdin="in ", env={"A": "1"}, timeout=9
    )
    assert process.run("printf", "%s", Path("/a b"), timeout=9) == "/a b"
    assert process.run("sh", "-c", r"printf '\377'", timeout=9) == "\ufffd"


def test_a_failure_ends_with_the_last_lines() -> None:
    script = "seq 100 >&2; echo out; exit 3"
    with pytest.raises(EngineError) as caught:
        process.run("sh", "-c", script, timeout=9)
    head, *lines = str(caught.value).splitlines()
    assert head.endswith("exited 3")
    assert lines == [str(i) for i in range(81, 101)]


def test_a_failure_that_only_wrote_to_standard_output_shows_that() -> None:
    with pytest.raises(EngineError, match=r"^false-ish exited|exited 1\nout$"):
        process.run("sh", "-c", "echo out; exit 1", timeout=9)


def test_a_command_that_is_missing_is_named() -> None:
    with pytest.raises(EngineError, match=r"^no-such-command is not installed$"):
        process.run("no-such-command", timeout=9)
    with pytest.raises(EngineError, match=r"^no-such-command is not installed$"):
        process.stream("no-such-command", on_line=print, doing="x")


def test_a_daemon_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"^no-such-command is not installed$"):
        process.start("no-such-command", log_file=tmp_path / "log")


def test_a_command_that_takes_too_long_is_ended() -> None:
    start = time.monotonic()
    with pytest.raises(EngineError, match=r"^sleep 60 ran past 0 s$"):
        process.run("sleep", "60", timeout=0.2)
    assert time.monotonic() - start < 30


# --- stream ---------------------------------------------------------------------------------------


def test_lines_of_both_streams_are_heard_and_the_last_ones_kept() -> None:
    said: list[str] = []
    script = r"echo one; echo two >&2; printf 'a\377b\n'; printf 'no end'; exit 7"
    code, last = process.stream("sh", "-c", script, on_line=said.append, doing="x", keep=2)
    assert code == 7
    assert said == ["one", "two", "a\ufffdb", "no end"]
    assert last == said[-2:]


def test_lines_are_heard_as_they_come() -> None:
    heard: list[tuple[str, float]] = []
    process.stream(
        *("sh", "-c", "echo one; sleep 0.5; echo two"),
        on_line=lambda line: heard.append((line, time.monotonic())),
        doing="x",
    )
    assert [line for line, _ in heard] == ["one", "two"]
    assert heard[1][1] - heard[0][1] > 0.3


def test_silence_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SILENCE", 0.1)
    said: list[str] = []
    code, last = process.stream(
        "sh", "-c", "sleep 0.6; echo done", on_line=said.append, doing="compiling"
    )
    assert code == 0
    assert said[-1] == "done"
    assert len(said) >= 3
    assert all(re.fullmatch(r"... compiling: still at work, \d+ s", line) for line in said[:-1])
    assert last == ["done"], "a sign of life is no output"


def test_the_environment_is_added_to() -> None:
    said: list[str] = []
    argv = ("sh", "-c", 'echo "$A $HOME"')
    process.stream(*argv, on_line=said.append, doing="x", env={"A": "1"})
    assert said == [f"1 {os.environ['HOME']}"]


def interrupted(script: str, **options: float) -> list[int]:
    """Ctrl-C after the script's first line, which holds process ids; those ids."""
    pids: list[int] = []

    def heard_line(line: str) -> None:
        pids.extend(map(int, line.split()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.stream("bash", "-c", script, on_line=heard_line, doing="x", **options)
    assert pids
    return pids


def test_an_interrupt_ends_the_child_and_its_children() -> None:
    # A job that bash runs in the background is deaf to an interrupt.
    pids = interrupted("sleep 100 & echo $$ $!; sleep 100")
    assert len(pids) == 2
    assert all(map(gone, pids))


def test_an_interrupted_child_can_clean_up(tmp_path: Path) -> None:
    file = tmp_path / "cleaned"
    script = f"trap 'sleep 0.3; touch {file}; exit' INT; echo $$; while :; do sleep 0.05; done"
    pids = interrupted(script)
    assert file.exists(), "it was waited for"
    assert all(map(gone, pids))


DEAF = "trap '' INT; sleep 100 & echo $$ $!; while :; do sleep 0.05; done"


def test_a_child_that_is_deaf_is_killed_when_its_grace_is_over() -> None:
    start = time.monotonic()
    pids = interrupted(DEAF, grace=0.5)
    assert 0.5 <= time.monotonic() - start < 10
    assert all(map(gone, pids))


def test_a_second_interrupt_waits_no_longer_and_still_leaves_nothing() -> None:
    start = time.monotonic()
    again = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))
    again.start()
    try:
        pids = interrupted(DEAF, grace=30)
    finally:
        again.cancel()
    assert 0.9 <= time.monotonic() - start < 15
    assert all(map(gone, pids))


def test_what_a_child_leaves_behind_does_not_hold_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon in a session of its own that has the pipe: its end never comes."""
    monkeypatch.setattr(process, "SILENCE", 0.2)
    monkeypatch.setattr(process, "GRACE", 0.2)
    start = time.monotonic()
    script = "setsid sleep 60 & echo $!; exit 3"
    code, last = process.stream("bash", "-c", script, on_line=lambda _: None, doing="x")
    (pid,) = map(int, last)
    try:
        assert code == 3
        assert time.monotonic() - start < 10
        assert alive(pid), "it is not ours to end"
    finally:
        os.kill(pid, signal.SIGKILL)
    assert gone(pid)


def test_ctrl_c_at_the_keyboard_ends_everything(tmp_path: Path) -> None:
    """The whole program, interrupted as a terminal does it."""
    code = (
        "from imagegen.util import process\n"
        "process.stream('bash', '-c', 'sleep 100 & echo $$ $!; wait', on_line=lambda line: "
        "print(line, flush=True), doing='x')\n"
    )
    pid = process.start(sys.executable, "-c", code, log_file=tmp_path / "log")
    until = time.monotonic() + 20
    while not (text := (tmp_path / "log").read_text()).endswith("\n") and time.monotonic() < until:
        time.sleep(0.02)
    pids = [int(word) for word in text.split()]
    assert len(pids) == 2
    assert all(map(alive, pids))
    os.kill(pid, signal.SIGINT)
    os.waitpid(pid, 0)
    assert all(map(gone, pids))
    assert "KeyboardInterrupt" in (tmp_path / "log").read_text()


# --- start ----------------------------------------------------------------------------------------


def test_a_daemon_writes_to_its_log_and_has_a_session_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    pid = process.start("sh", "-c", "echo out; echo err >&2", log_file=log)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert log.read_text() == "before\nout\nerr\n"
    pid = process.start("sleep", "100", log_file=log)
    try:
        assert os.getsid(pid) == pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
