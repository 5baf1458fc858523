"""The frame of smoke.py: checks in processes of their own, one JSON line for each.

Standard library only: a broken package must fail its own check, not this program.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Promise = Mapping[str, Any]
"""What the image says of itself: the content of target.json."""


STATUSES = ("pass", "fail", "skip")
WORDS = ("passed", "failed", "skipped (which is not passed)")


class Skip(Exception):
    """Raised by a check that does not apply here; a skipped check has not passed."""


class NotPromised(Skip):
    """What is checked is not in this image or on this card: required checks may say so, too."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: `body` returns a detail, or raises AssertionError naming expected and found."""

    name: str
    guards: str  # the bug or the platform's behaviour that it guards against
    body: Callable[[Any], str]
    level: str = "cpu"
    timeout: float = 120


class Suite(dict[str, Check]):
    """Checks by name, in the order in which they are written down."""

    def check(
        self, guards: str, *, level: str = "cpu", timeout: float = 120
    ) -> Callable[[Callable[[Any], str]], Callable[[Any], str]]:
        """Add the decorated function under its own name."""

        def add(body: Callable[[Any], str]) -> Callable[[Any], str]:
            name = body.__name__
            self[name] = Check(name=name, guards=guards, body=body, level=level, timeout=timeout)
            return body

        return add


def need(condition: object, sentence: str) -> None:
    """Fail with `sentence`; unlike `assert` it also holds under PYTHONOPTIMIZE."""
    if not condition:
        raise AssertionError(sentence)


def seek(pattern: str, text: str, what: str) -> re.Match[str]:
    """The first match of `pattern` in `text`, which must have one."""
    found = re.search(pattern, text)
    if not found:
        raise AssertionError(f"{what}: expected a match of {pattern!r}, found {text!r}")
    return found


def same(what: str, expected: object, found: object) -> None:
    """Fail unless the two are equal."""
    need(expected == found, f"{what}: expected {expected!r}, found {found!r}")


def run(
    checks: Iterable[Check],
    subject: object,
    why_not: Mapping[str, str] | None = None,
    *,
    text: bool = False,
    required: str = "",
) -> int:
    """Run the checks, a line for each as it ends (JSON, or `text` for people, in one line what was
    skipped by level), and return the exit status: 0 when at least one passed and none failed.

    `why_not` maps a level to the reason why its checks are skipped. A check of the level `required`
    that is skipped has failed.
    """
    statuses = []
    for check in checks:
        start = time.monotonic()
        reason = (why_not or {}).get(check.level)
        status, detail = ("skip", reason) if reason else _isolated(check, subject)
        if status == "skip" and check.level == required:
            status, detail = "fail", f"skipped, and level {required} is required: {detail}"
        status = "skip" if status == "not promised" else status
        seconds = round(time.monotonic() - start, 3)
        line = {"name": check.name, "status": status, "detail": detail, "seconds": seconds}
        plain = f"{status}  {check.name} ({seconds:.1f} s): {' '.join(detail.split())}"
        row = line | {"guards": check.guards, "level": check.level}
        if not (text and reason and status == "skip"):
            print(plain if text else json.dumps(row), flush=True)
        statuses.append(status)
    if text:
        counts = (f"{statuses.count(s)} {w}" for s, w in zip(STATUSES, WORDS, strict=True))
        print(", ".join(counts) + "".join(f" ({reason})" for reason in (why_not or {}).values()))
    return 0 if "pass" in statuses and "fail" not in statuses else 1


def _isolated(check: Check, subject: object) -> tuple[str, str]:
    """Run one check in a child: a crash or a hang there is a failed check, not the end."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    child = fork.Process(target=_report, args=(theirs, check, subject))
    child.start()
    theirs.close()
    try:
        if not ours.poll(check.timeout):
            return "fail", f"no result within {check.timeout:g} s"
        status, detail = ours.recv()
        return status, detail
    except EOFError:
        child.join()
        code = child.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return "fail", f"the check's process died without a result: {how}"
    finally:
        child.kill()
        if child.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # the programs that it started
        child.join(30)  # one that is stuck in a GPU's driver is never gone


def _report(result: Connection, check: Check, subject: object) -> None:
    os.setsid()
    # Standard output holds JSON lines only, whatever a library or a program prints.
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    try:
        outcome = "pass", check.body(subject)
    except NotPromised as reason:
        outcome = "not promised", str(reason)
    except Skip as reason:
        outcome = "skip", str(reason)
    except AssertionError as failure:
        outcome = "fail", str(failure)
    except BaseException as error:  # SystemExit too: a check that ends early has not passed
        last = traceback.extract_tb(error.__traceback__)[-1]
        outcome = "fail", f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
    result.send(outcome)


def chosen(suite: Suite, only: list[str], parser: argparse.ArgumentParser) -> list[Check]:
    """The checks named by --only, or all; an unknown name is a usage error."""
    unknown = sorted(set(only) - set(suite))
    if unknown:
        parser.error(f"no such check: {', '.join(unknown)} (there are: {', '.join(suite)})")
    return [check for name, check in suite.items() if not only or name in only]


def output(*argv: str | Path, timeout: float = 60) -> str:
    """The standard output of a command that must succeed."""
    words = [os.fspath(word) for word in argv]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
        )
    except FileNotFoundError:
        raise AssertionError(f"{words[0]}: expected on PATH, found nothing") from None
    said = (done.stderr or done.stdout).strip()[-1500:]
    need(
        done.returncode == 0,
        f"{' '.join(words[:3])}: expected exit status 0, found {done.returncode}: {said}",
    )
    return done.stdout
