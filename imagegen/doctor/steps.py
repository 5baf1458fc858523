"""What doctor can do, as values: each can be taken, printed, and undone."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from imagegen.doctor.values import LOG


@dataclass(frozen=True, kw_only=True, slots=True)
class Write:
    """Write ``text`` to ``path``, mode 0644."""

    what: str
    path: Path
    text: str
    undo: tuple[str, ...] = ()

    def shell(self) -> str:
        # one line for each file: a here-document breaks when an indented message is pasted
        lines = shlex.join(self.text.splitlines())
        return f"mkdir -p {self.path.parent} && printf '%s\\n' {lines} > {self.path}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """Run ``argv``. With ``may_fail`` a failure is told and the next step decides; with ``awaits``
    an engine has to answer afterwards.
    """

    what: str
    argv: tuple[str, ...]
    undo: tuple[str, ...] = ()
    may_fail: bool = False
    awaits: bool = False

    def shell(self) -> str:
        return shlex.join(self.argv) + (" || true" if self.may_fail else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Install:
    """Have apt install ``packages`` (``name`` or ``name/release``) and move nothing to ``never``,
    the version of a foreign release ("13"), that is installed already. ``verb`` is apt's word for
    taking them off again.
    """

    what: str
    packages: tuple[str, ...]
    never: str = ""
    verb: str = "purge"

    def argv(self, *more: str) -> tuple[str, ...]:
        # --no-remove: another engine's packages may conflict; then nothing is done at all.
        # The lock: a fresh Ubuntu runs its unattended upgrades for minutes.
        options = ("-y", "--no-install-recommends", "--no-remove", "-oDPkg::Lock::Timeout=120")
        apt = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", *options)
        return (*apt, *more, *self.packages)

    def shell(self) -> str:
        return shlex.join(self.argv())

    def undo_of(self, names: Iterable[str]) -> tuple[str, ...]:
        line = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", self.verb, "-y", *names)
        return (shlex.join(line),)

    @property
    def undo(self) -> tuple[str, ...]:
        return self.undo_of(package.partition("/")[0] for package in self.packages)


@dataclass(frozen=True, kw_only=True, slots=True)
class Daemon:
    """Start ``argv`` in a session of its own, its output appended to ``LOG``."""

    what: str
    argv: tuple[str, ...]
    undo: tuple[str, ...] = ()

    def shell(self) -> str:
        return f"setsid {shlex.join(self.argv)} >> {LOG} 2>&1 < /dev/null &"


Step = Write | Command | Install | Daemon


def commands(steps: Iterable[Step]) -> tuple[str, ...]:
    """The steps as shell lines for a root shell."""
    return tuple(step.shell() for step in steps)


def paste(words: str, lines: Iterable[str]) -> str:
    """A hint: the words, then the lines to paste."""
    return "\n".join((f"{words}:", *lines))
