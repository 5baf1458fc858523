"""The steps to a machine that builds: decided from what was seen of it, and nothing else."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.version import Version

from imagegen.doctor.findings import gib, lacking, store_lines, store_shell, too_old
from imagegen.doctor.model import (
    CONFIG,
    DATA,
    DEFAULT,
    DROP_IN,
    INSTALL_DISK,
    LOG,
    MIN_ENGINE,
    OTHERS_CONFIG,
    PIN,
    SOURCE,
    Command,
    Daemon,
    Engine,
    Install,
    Step,
    System,
    Write,
    commands,
    paste,
)
from imagegen.errors import EngineError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """How one distribution is served. ``release``, ``release_version`` and ``home`` are set where
    its own engine is too old: the later release to take it from, and the one whose archive also
    holds that. ``client`` is empty where the client comes with the engine's package; there the
    plugins depend on the engine too.
    """

    engine: tuple[str, ...]
    client: tuple[str, ...]
    buildx: str
    compose: str
    daemon: str
    release: str = ""
    release_version: str = ""
    home: str = ""


DEBIAN = Distribution(
    engine=("docker.io", "containerd"),
    client=("docker-cli",),
    buildx="docker-buildx",
    compose="docker-compose",
    daemon="/usr/sbin/dockerd",
)
UBUNTU = Distribution(
    engine=("docker.io",),
    client=(),
    buildx="docker-buildx",
    compose="docker-compose-v2",
    daemon="/usr/bin/dockerd",
)
DISTRIBUTIONS: Mapping[tuple[str, str], Distribution] = {
    # bookworm has engine 20.10 and no buildx
    ("debian", "12"): replace(DEBIAN, release="trixie", release_version="13", home="bookworm"),
    ("debian", "13"): DEBIAN,
    ("ubuntu", "22.04"): UBUNTU,
    ("ubuntu", "24.04"): UBUNTU,
}
ELSEWHERE: Mapping[str, str] = {
    "alpine": "apk add docker docker-cli-buildx docker-cli-compose",
    "arch": "pacman -S docker docker-buildx docker-compose",
    "fedora": "dnf install moby-engine docker-buildx docker-compose",
}
"""For a person to paste, where doctor itself does not act: nobody has tried these with it."""


def plan(system: System) -> tuple[Step, ...]:
    """The steps from this machine to one that builds; () when it does. Ignores ``root``.

    Raises:
        EngineError: there are no steps that doctor may take here; the hint says what a person can.
    """
    if system.engine is not None:
        accept(system, system.engine)
        return _packages(system, starting=False)
    _startable(system)
    return (*_settings(system), *_packages(system, starting=True), *_starting(system))


def accept(system: System, engine: Engine) -> None:
    """Raise where an engine that answers cannot be used: it is another's, so it stays as it is."""
    if too_old(engine.version, MIN_ENGINE):
        raise _needs_upgrade(system, engine.version)
    if not engine.store:
        raise EngineError(
            f"the engine at {system.endpoint} runs without the containerd image store, "
            "and imagegen does not change another engine's configuration",
            hint=store_lines(system),
        )


def _startable(system: System) -> None:
    """Raise where no engine answers, and starting one here is not ours or would not help."""
    if "permission denied" in system.silence.lower():
        raise EngineError(
            f"an engine is there, but this user may not use it: {system.silence}",
            hint="run as root, or have root run: usermod -aG docker USER (and log in again)",
        )
    if system.endpoint not in (DEFAULT, "unix:///run/docker.sock"):
        raise EngineError(
            f"the docker client is set to {system.endpoint}, where no engine answers",
            hint="start that engine, or go back to this machine's own: "
            "unset DOCKER_HOST DOCKER_CONTEXT; docker context use default",
        )
    if system.daemon_path is None:
        if _distribution(system) is None:
            raise _unknown(system)
    elif too_old(system.daemon, MIN_ENGINE):
        raise _needs_upgrade(system, system.daemon)
    elif system.systemd and DROP_IN not in system.files:
        raise EngineError(
            f"Docker Engine {system.daemon} is installed but not running; imagegen did not install "
            "it, and leaves its service alone",
            hint=paste("start it as root, then try again", ("systemctl start docker",)),
        )
    if system.disk is not None and system.disk < INSTALL_DISK:
        raise EngineError(f"not enough disk: {gib(system.disk)} free, needed {gib(INSTALL_DISK)}")


def _settings(system: System) -> tuple[Step, ...]:
    """Our own files, before anything can start by them."""
    writes = [
        Write(
            what="set the containerd image store in a settings file of our own",
            path=CONFIG,
            text=_config(system.others_config),
            undo=(f"rm -f {CONFIG}", f"rmdir --ignore-fail-on-non-empty {CONFIG.parent}"),
        )
    ]
    if system.systemd:
        command = f"{_dockerd(system)} -H fd:// --containerd=/run/containerd/containerd.sock"
        writes.append(
            Write(
                what="have the engine's service read that file",
                path=DROP_IN,
                # an empty ExecStart clears the unit's own: Ubuntu's has no variable for options
                text=f"[Service]\nExecStart=\nExecStart={command} --config-file={CONFIG}\n",
                undo=(
                    f"rm -f {DROP_IN}",
                    f"rmdir --ignore-fail-on-non-empty {DROP_IN.parent}",
                    "systemctl daemon-reload",
                ),
            )
        )
    return _unwritten(system, writes)


def _config(others: str | None) -> str:
    """Our settings file: what the machine's own sets (proxies, mirrors, data-root), and the store.

    Raises:
        EngineError: the machine's own file is not a JSON object.
    """
    try:
        settings = json.loads(others) if others and others.strip() else {}
        features = {**settings.get("features", {}), "containerd-snapshotter": True}
    except (ValueError, AttributeError, TypeError) as error:
        raise EngineError(
            f"{OTHERS_CONFIG} does not read as engine settings: {error}",
            hint="repair it or move it away; imagegen does not change it",
        ) from error
    # these name and tune the store that is replaced here
    kept = {k: v for k, v in settings.items() if k not in ("storage-driver", "storage-opts")}
    return json.dumps({**kept, "features": features}, indent=2) + "\n"


def _packages(system: System, *, starting: bool) -> tuple[Step, ...]:
    """Install what is missing: always the client's side, the engine only when one is to start.

    Building needs no compose: it comes along where that is no trouble, and no lack of it refuses.
    """
    distribution = _distribution(system)
    install_engine = starting and system.daemon_path is None
    lacks = lacking(system)
    needed = [name for name in lacks if name != "compose"]
    if distribution is None:
        if needed:
            raise _unknown(system, *lacks)
        return ()
    # on Ubuntu even the plugins' packages depend on the engine's, and would bring a second engine
    tied = not distribution.client and not install_engine and "docker.io" not in system.packages
    if needed and tied:
        raise EngineError(
            f"missing or too old: {', '.join(lacks)}; this distribution's packages of it need its "
            "own engine, and another one is here",
            hint="install it from where that engine came from",
        )
    compose = "compose" in lacks and not tied and distribution.compose not in system.packages
    plugins = (
        *(distribution.client if system.client is None else ()),
        *((distribution.buildx,) if "buildx" in lacks else ()),
        *((distribution.compose,) if compose else ()),
    )
    stale = [name for name in plugins if name in system.packages]
    if stale:
        raise EngineError(
            f"installed, but too old: {', '.join(stale)}; imagegen does not upgrade packages "
            "that it did not install",
            hint=paste("as root", commands(_install(system, distribution, plugins))),
        )
    # an engine of ours gets its own client, whatever stray one is first on the path
    engine = (*distribution.engine, *distribution.client) if install_engine else ()
    names = [name for name in dict.fromkeys((*engine, *plugins)) if name not in system.packages]
    own = [] if system.mmdebstrap else ["mmdebstrap"]
    own += [] if system.ssh else ["openssh-client"]
    if install_engine and "iptables" not in system.packages:
        own.append("iptables")  # named, so that it comes from the machine's own release
    return _install(system, distribution, names, own)


def _install(
    system: System, distribution: Distribution, names: Iterable[str], own: Iterable[str] = ()
) -> tuple[Step, ...]:
    """Have ``names`` installed from the distribution's release, ``own`` from the machine's."""
    names, own = tuple(names), tuple(own)
    if not names and not own:
        return ()
    foreign = bool(names) and bool(distribution.release)
    sources = _source(system, distribution) if foreign else ()
    wanted = (
        *(f"{name}/{distribution.release}" if distribution.release else name for name in names),
        *own,
    )
    return (
        *sources,
        Command(
            what="read the package lists",
            argv=("apt-get", "update", "-oAcquire::Retries=1", "-oAcquire::http::Timeout=20"),
            may_fail=True,  # an unrelated source that is down fails it all; the install decides
        ),
        Install(
            what=f"install {' '.join(wanted)}",
            packages=wanted,
            never=distribution.release_version if foreign else "",
            # Debian's purge also empties /var/lib/docker, which here holds what was there before
            verb="remove" if system.data else "purge",
        ),
    )


def _source(system: System, distribution: Distribution) -> tuple[Step, ...]:
    """Make apt read the distribution's release, below everything that it reads already."""
    if distribution.release in system.releases and SOURCE not in system.files:
        return ()  # the machine's own doing, with preferences of its own
    if distribution.home not in system.releases:
        raise EngineError(
            f"apt reads no source of {distribution.home}, so there is no address to take "
            f"{distribution.release} from",
            hint="add the distribution's own archive to /etc/apt/sources.list.d and run apt-get "
            "update, then try again",
        )
    source = {
        "Types": "deb",
        "URIs": system.releases[distribution.home],
        "Suites": distribution.release,
        "Components": "main",
        "Signed-By": str(KEYRING),
    }
    # 100 is below the 500 of every other source: a package comes from here only when asked for by
    # release, or when nobody else has it. First, so that the source never works without it.
    pin = {"Package": "*", "Pin": f"release n={distribution.release}", "Pin-Priority": "100"}
    return _unwritten(
        system,
        (
            Write(
                what=f"pin {distribution.release} below {distribution.home}, "
                "so that nothing else moves",
                path=PIN,
                text=_stanza(pin),
                undo=(f"rm -f {PIN}",),
            ),
            Write(
                what=f"add {distribution.release} to the package sources",
                path=SOURCE,
                text=_stanza(source),
                undo=(f"rm -f {SOURCE}", "apt-get update"),
            ),
        ),
    )


def _starting(system: System) -> tuple[Step, ...]:
    """Start the engine: by the service manager where there is one."""
    theirs = "containerd" in system.packages
    made = tuple(p for p in DATA if p not in system.data and not (theirs and p == DATA[1]))
    gone = (f"rm -rf {shlex.join(map(str, made))}  # images, containers, volumes",) if made else ()
    if system.systemd:
        units = ("docker.socket", "docker.service", *(() if theirs else ("containerd.service",)))
        return (
            Command(what="read the services again", argv=("systemctl", "daemon-reload")),
            Command(
                what="start the engine",
                argv=("systemctl", "start", "docker.service"),
                awaits=True,
                undo=(shlex.join(("systemctl", "stop", *units)), *gone),
            ),
        )
    pid = "/var/run/docker.pid"
    wait = f"timeout 60 sh -c 'while [ -e {pid} ]; do sleep 0.2; done'"
    return (
        Daemon(
            what=f"start the engine, logging to {LOG}",
            argv=(_dockerd(system), f"--config-file={CONFIG}"),
            undo=(f'kill "$(cat {pid})" && {wait}', *gone, f"rm -f {LOG}"),
        ),
    )


def _distribution(system: System) -> Distribution | None:
    return DISTRIBUTIONS.get((system.os, system.os_version))


def _dockerd(system: System) -> str:
    """Where it is, or will be; in full, since root's path may lack /usr/sbin (``su`` keeps it)."""
    distribution = _distribution(system)
    return str(system.daemon_path or (distribution.daemon if distribution else "dockerd"))


def _unwritten(system: System, writes: Iterable[Write]) -> tuple[Step, ...]:
    return tuple(write for write in writes if system.files.get(write.path) != write.text)


def _needs_upgrade(system: System, have: Version | None) -> EngineError:
    distribution = _distribution(system)
    hint = "upgrade it the way it was installed"
    if distribution is not None and "docker.io" in system.packages:
        names = (
            *distribution.engine,
            *distribution.client,
            distribution.buildx,
            distribution.compose,
        )
        hint = paste("upgrade it as root", commands(_install(system, distribution, names)))
    return EngineError(
        f"Docker Engine {have} is too old: {MIN_ENGINE} or newer is needed, and imagegen does not "
        "upgrade an engine that it did not install",
        hint=hint,
    )


def _unknown(system: System, *lacks: str) -> EngineError:
    what = ", ".join(lacks) or f"a Docker Engine {MIN_ENGINE} or newer, buildx and compose"
    line = f"# with this distribution's package manager: {what}"
    lines: tuple[str, ...] = (line,)
    if not lacks:
        line = ELSEWHERE.get(system.os, line)
        if system.systemd:
            lines = (line, *store_shell(system), "systemctl enable --now docker")
        else:
            lines = (line, *commands((*_settings(system), *_starting(system))))
    return EngineError(
        f"missing: {what}; imagegen does not know how to install it on "
        f"{system.os} {system.os_version}".rstrip(),
        hint=paste("as root", lines),
    )


def _stanza(fields: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in fields.items())
