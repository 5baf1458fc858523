"""Acting: the steps are taken one by one, and what undoes them is kept."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time

from imagegen.doctor.model import LOG, Command, Daemon, Fixed, Install, Step, Write, commands, paste
from imagegen.doctor.plan import accept, plan
from imagegen.doctor.probe import answering, ask, look
from imagegen.errors import EngineError
from imagegen.util.process import run, start, stream

log = logging.getLogger(__name__)

ANSWER = 60.0
"""Seconds that a started engine gets to answer; it needs about 2, more on a first start."""


def fix(*, dry_run: bool = False) -> Fixed:
    """Take the steps of ``plan``; nothing to do gives an empty ``Fixed``.

    Each step is logged as a shell line, then its output. With ``dry_run`` these are the lines
    and no more, and ``Fixed`` says what would be done.

    Raises:
        EngineError: doctor may not act here (the hint holds the lines to paste), or a step failed
            (the hint holds the lines that undo it and those before it).
    """
    system = look(to_mend=True)
    steps = plan(system)
    if dry_run:
        for step in steps:
            log.info(step.shell())
        return Fixed(
            did=tuple(step.what for step in steps),
            undo=tuple(line for step in reversed(steps) for line in step.undo),
        )
    if steps and not system.root:
        raise EngineError(
            "this takes root: " + "; ".join(step.what for step in steps),
            hint=paste("run it as root, or paste this into a root shell", commands(steps)),
        )
    fixed = Fixed()
    for step in steps:
        log.info(f"+ {step.shell()}")
        try:
            done = _take(step)
        except EngineError as error:
            hints = [error.hint] if error.hint else []
            # this step's too: apt may have unpacked, an engine that stays silent may be running
            if undo := (*step.undo, *fixed.undo):
                hints.append(paste("undo what was done so far", undo))
            raise EngineError(str(error), hint="\n".join(hints)) from error
        fixed = Fixed(did=fixed.did + done.did, undo=done.undo + fixed.undo)
    return fixed


def _take(step: Step) -> Fixed:
    """Take one step.

    Raises:
        EngineError: it failed, or an engine that it started does not answer or is not as needed.
    """
    did, undo = step.what, step.undo
    match step:
        case Write():
            try:
                step.path.parent.mkdir(parents=True, exist_ok=True)
                step.path.write_text(step.text)
                step.path.chmod(0o644)  # apt also runs for people who are not root
            except OSError as error:
                raise EngineError(f"could not write {step.path}: {error}") from error
        case Command():
            status, last = stream(*step.argv, doing=step.what)
            if status and not step.may_fail:
                raise EngineError(_failed(step.what, status, last))
            if status:
                log.info(f"{step.what}: exited {status}; going on with the lists that are here")
            if step.awaits:
                _await_engine()
        case Install():
            new, newer = _foresee(step)
            # A dpkg that is killed leaves packages half installed: let it come to an end.
            status, last = stream(*step.argv(), doing="apt-get install", grace=600)
            if status:
                raise EngineError(_failed(step.what, status, last))
            undo = step.undo_of(new)
            if newer:
                did += f" (which also took this release's newest {' '.join(newer)})"
        case Daemon():
            _await_engine(start(*step.argv, log_file=LOG))
    return Fixed(did=(did,), undo=undo)


def _failed(what: str, status: int, last: list[str]) -> str:
    return "\n".join((f"could not {what} (exit status {status})", *last[-20:]))


def _foresee(step: Install) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The packages that apt would add, and those installed already that it would bring up to date.

    Raises:
        EngineError: apt cannot, or would move an installed package to the foreign release.
    """
    try:
        would = run(*step.argv("--simulate"), timeout=120)
    except EngineError as error:
        hint = "is the distribution's whole archive among apt's sources (on Ubuntu: universe)?"
        raise EngineError(str(error), hint=hint) from error
    return foreseen(would, never=step.never)


def foreseen(simulation: str, *, never: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read ``apt-get install --simulate``: the names added, and the names brought up to date.

    Raises:
        EngineError: a name would be brought to the release whose version is ``never`` ("13").
    """
    new, newer, moved = [], [], []
    for name, old, to in re.findall(r"^Inst (\S+) (\[\S+\] )?\((.*)\)", simulation, re.MULTILINE):
        if not old:
            new.append(name)
        elif never and re.search(rf"\bDebian[\w-]*:{re.escape(never)}\b", to):
            moved.append(f"{name} {old.strip()} -> {to.split()[0]}")
        else:
            newer.append(name)
    if moved:
        raise EngineError(
            "apt would also move packages that are installed: " + ", ".join(moved),
            hint="bring the machine up to date first: apt-get update && apt-get upgrade",
        )
    return tuple(new), tuple(newer)


def _await_engine(pid: int | None = None) -> None:
    """Wait for the engine that was just started: by us as process ``pid``, or as a service.

    Raises:
        EngineError: it ended or stays silent (with its log's last lines), or is not as needed.
    """
    until, why = time.monotonic() + ANSWER, ""
    while time.monotonic() < until:
        engine, why = answering(by_client=shutil.which("docker") is not None)
        if engine is not None:
            return accept(look(), engine)
        if pid is not None and _ended(pid):
            why = "it ended"
            break
        time.sleep(0.3)
    if pid is not None:
        tail = LOG.read_text(errors="replace").splitlines()[-20:]
    else:
        unit = ("journalctl", "--no-pager", "-n", "20", "-u", "docker.service")
        tail = ask(*unit).splitlines()
    raise EngineError("\n".join((f"the engine was started and does not answer: {why}", *tail)))


def _ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # collected already
        return True
