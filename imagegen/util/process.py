"""The one place that starts processes."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import shlex
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagegen.errors import EngineError

log = logging.getLogger(__name__)

SILENCE = 10.0
"""Seconds without a line of output after which ``stream`` says that it is still at work."""

GRACE = 20.0
"""Seconds that an interrupted child gets to clean up before it is killed."""


_daemons: list[subprocess.Popen[bytes]] = []
"""Held until the end: a Popen that is dropped while its process runs warns, and may wait for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """A command's end: exit status, standard output, standard error."""

    code: int
    out: str
    err: str


def run(
    *argv: str | Path,
    timeout: float,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a short command and return its standard output.

    ``env`` is added to this process's own environment; ``timeout`` is in seconds.

    Raises:
        EngineError: the command is missing, ran past ``timeout``, or exited other than 0; the
            message ends with the last lines that it wrote to standard error.
    """
    done = result(*argv, timeout=timeout, stdin=stdin, env=env)
    if done.code:
        last = "\n".join((done.err or done.out).strip().splitlines()[-20:])
        words = shlex.join([os.fspath(word) for word in argv[:3]])
        raise EngineError(f"{words} exited {done.code}\n{last}")
    return done.out.encode(errors="surrogateescape").decode(errors="replace")


def result(
    *argv: str | Path,
    timeout: float,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Ran:
    """Run a short command to its end, whatever that is. Bytes that are not UTF-8 are kept.

    Raises:
        EngineError: the command is missing, or ran past ``timeout`` seconds.
    """
    words = [os.fspath(word) for word in argv]
    log.debug("+ %s", shlex.join(words))
    try:
        done = subprocess.run(
            words,
            input=stdin or "",
            encoding="utf-8",
            errors="surrogateescape",
            capture_output=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
        )
    except FileNotFoundError as error:
        raise EngineError(f"{words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{shlex.join(words[:3])} ran past {timeout:.0f} s") from error
    return Ran(code=done.returncode, out=done.stdout, err=done.stderr)


def stream(
    *argv: str | Path,
    doing: str,
    env: Mapping[str, str] | None = None,
    keep: int = 4000,
    grace: float = GRACE,
    on_line: Callable[[str], None] = log.info,
) -> tuple[int, list[str]]:
    """Run a long command, handing each line of its output (both streams) to ``on_line`` as it
    comes; unless told otherwise it is logged.

    After ``SILENCE`` seconds without a line, ``on_line`` gets ``doing`` and the seconds so far.
    When this process is interrupted the command is interrupted too and waited for ``grace``
    seconds, so that nothing is left running.

    Returns:
        The exit status and the last ``keep`` lines.

    Raises:
        EngineError: the command is missing.
    """
    start, last = time.monotonic(), deque[str](maxlen=keep)
    child = _started([os.fspath(word) for word in argv], env or {})
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(child, lines), daemon=True)
    reader.start()
    try:
        while True:
            try:
                line = lines.get(timeout=SILENCE)
            except queue.Empty:
                if child.poll() is not None:  # something that it left behind holds its output
                    return child.returncode, list(last)
                on_line(f"... {doing}: still at work, {time.monotonic() - start:.0f} s")
                continue
            if line is None:
                return child.wait(), list(last)
            last.append(line)
            on_line(line)
    finally:
        if child.poll() is None:
            _end(child, grace)
        reader.join(timeout=GRACE)  # ends with the last holder of the pipe


def _started(words: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
    """The command, both of its streams in one pipe."""
    log.debug("+ %s", shlex.join(words))
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **env},
            start_new_session=True,  # Ctrl-C reaches it once, through us, not twice
        )
    except FileNotFoundError as error:
        raise EngineError(f"{words[0]} is not installed") from error


def start(*argv: str | Path, log_file: Path) -> int:
    """Start a daemon in a session of its own, its output in ``log_file``; returns its process id.

    Raises:
        EngineError: the command is missing.
    """
    words = [os.fspath(word) for word in argv]
    log.debug("+ %s &", shlex.join(words))
    with log_file.open("ab") as out:
        try:
            child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise EngineError(f"{words[0]} is not installed") from error
    _daemons.append(child)
    return child.pid


def _read(child: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert child.stdout is not None
    with child.stdout:
        for line in child.stdout:
            lines.put(line.rstrip("\n"))
    lines.put(None)


def _end(child: subprocess.Popen[str], grace: float) -> None:
    """Interrupt the child's whole session; when it ends or ``grace`` is over, kill what is left.

    A second interrupt does not wait any longer.
    """
    try:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=grace)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=GRACE)
