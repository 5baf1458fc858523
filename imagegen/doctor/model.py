"""What doctor speaks of: the limits, the places, and what was found and done."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import Version

MIN_ENGINE = Version("24.0")
"""The oldest that a distribution served here offers (Ubuntu 24.04). The containerd image store,
without which an engine exports neither zstd nor attestations, came as an experiment in 23.0."""

MIN_CLIENT = Version("20.10")
"""Old enough for Debian 12's own; it runs buildx and compose as plugins."""

MIN_BUILDX = Version("0.12")
"""The oldest buildx that a distribution served here pairs with such an engine (Ubuntu 24.04)."""

MIN_COMPOSE = Version("2.0")
"""The first compose that is a plugin of the client: ``docker compose``, not ``docker-compose``."""

MIN_DISK = 20 * 2**30
"""Bytes. One image with torch and CUDA is 3 GB compressed and 7 GB unpacked, and BuildKit holds
its layers once more while it exports them."""

MIN_MEMORY = 4 * 2**30
"""Bytes. One nvcc job on a flash-attn kernel takes 2.8 GB, and the machine needs some itself."""

INSTALL_DISK = 2**30
"""Bytes that the packages take, with room to spare: 114 MB to fetch, 468 MB unpacked."""

DEFAULT = "unix:///var/run/docker.sock"
CONFIG = Path("/etc/imagegen/daemon.json")
DROP_IN = Path("/etc/systemd/system/docker.service.d/imagegen.conf")
SOURCE = Path("/etc/apt/sources.list.d/imagegen.sources")
PIN = Path("/etc/apt/preferences.d/imagegen")
LOG = Path("/var/log/imagegen-dockerd.log")
OTHERS_CONFIG = Path("/etc/docker/daemon.json")
DATA = (Path("/var/lib/docker"), Path("/var/lib/containerd"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing looked at. ``ok`` is false when it would stop a build; ``fix`` says what helps."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fixed:
    """What was done, and the shell lines that undo it, in the order in which to run them."""

    did: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """An engine that answered. ``version`` is None where it does not read as one; ``store`` is
    whether images are kept by containerd; ``root`` is where it says that it keeps its data.
    """

    version: Version | None
    store: bool
    root: Path = DATA[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """What ``look`` saw; ``plan`` and ``findings`` need nothing else.

    ``silence`` is why no engine answered at ``endpoint``. ``client``, ``buildx``, ``compose`` and
    ``daemon`` are versions, None where missing; ``daemon`` is an installed dockerd, running or not.
    ``packages`` are the names that dpkg has installed; ``releases`` maps each Debian release that
    apt reads to its archive's address. ``files`` holds the text of our own files that exist,
    ``others_config`` that of ``OTHERS_CONFIG``. ``data`` are the directories in ``DATA`` that hold
    something already. ``disk`` (None: the engine is not on this machine) and ``memory`` are bytes.
    """

    os: str
    os_version: str
    root: bool
    systemd: bool = False
    endpoint: str = DEFAULT
    engine: Engine | None = None
    silence: str = ""
    client: Version | None = None
    buildx: Version | None = None
    compose: Version | None = None
    daemon: Version | None = None
    daemon_path: Path | None = None
    mmdebstrap: bool = False
    ssh: bool = False
    packages: frozenset[str] = frozenset()
    releases: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)
    others_config: str | None = None
    data: frozenset[Path] = frozenset()
    disk: int | None = 0
    memory: int = 0
    cores: int = 1


def version(text: str) -> Version | None:
    """The first version in what a program says of itself; None when there is none.

    Leaves out what a distribution adds: ``26.1.5+dfsg1`` and ``buildx 0.13.1+ds1 0.13.1+ds1-3``.
    """
    found = re.search(r"\d+(?:\.\d+)+", text)
    return Version(found[0]) if found else None


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
