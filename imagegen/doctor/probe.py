"""Looking: every question is answered within seconds, a missing thing is an answer."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from imagegen.doctor.findings import findings
from imagegen.doctor.model import (
    CONFIG,
    DATA,
    DEFAULT,
    DROP_IN,
    OTHERS_CONFIG,
    PIN,
    SOURCE,
    Engine,
    Finding,
    System,
    version,
)
from imagegen.errors import EngineError
from imagegen.util.process import run

ASK = 5.0
"""Seconds that one question may take: a client set to a dead host would wait for minutes."""

STORE = "io.containerd.snapshotter"


def examine() -> tuple[Finding, ...]:
    """Look at this machine and change nothing; never raises for something that is missing."""
    return findings(look())


def look(*, to_mend: bool = False) -> System:
    """Read this machine; changes nothing and never raises for something that is missing.

    ``releases`` are read only ``to_mend`` a machine that lacks something: where apt keeps no cache,
    as in containers, it takes seconds to tell them.
    """
    release = _os_release()
    client = version(ask("docker", "--version"))
    endpoint = os.environ.get("DOCKER_HOST", "")
    if client is not None:
        # also knows DOCKER_CONTEXT and the context chosen in the client's configuration
        endpoint = ask("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    engine, silence = answering(by_client=client is not None)
    daemon = shutil.which("dockerd", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    endpoint = endpoint.strip() or DEFAULT
    system = System(
        os=release.get("ID", "unknown"),
        os_version=release.get("VERSION_ID", ""),
        root=os.geteuid() == 0,
        systemd=Path("/run/systemd/system").is_dir(),
        endpoint=endpoint,
        engine=engine,
        silence=silence,
        client=client,
        buildx=version(ask("docker", "buildx", "version")),
        compose=version(ask("docker", "compose", "version", "--short")),
        daemon=version(ask(daemon, "--version")) if daemon else None,
        daemon_path=Path(daemon) if daemon else None,
        mmdebstrap=shutil.which("mmdebstrap") is not None,
        ssh=all(map(shutil.which, ("ssh", "scp", "sftp", "ssh-keygen", "ssh-keyscan"))),
        packages=_installed(ask("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n")),
        files={path: text for path in (CONFIG, DROP_IN, SOURCE, PIN) if (text := _text(path))},
        others_config=_text(OTHERS_CONFIG),
        data=frozenset(path for path in DATA if _holds_something(path)),
        disk=_free(engine) if endpoint.startswith("unix://") else None,
        memory=_memory(),
        cores=len(os.sched_getaffinity(0)),
    )
    if to_mend and any(finding.fix for finding in findings(system)):
        return replace(system, releases=_releases(_targets()))
    return system


def _releases(targets: str) -> dict[str, str]:
    """Release or code name -> address, of the Debian archives whose main component apt reads.

    ``targets`` are lines of ``_TARGET``. What a list says of itself (origin, code name) is known
    only once it was fetched; until then an archive is Debian's unless a list of it says otherwise,
    and one whose address ends as Debian's mirrors do is believed first.
    """
    rows = [row for line in targets.splitlines() if len(row := line.split("|")) == 6]
    others = {row[4] for row in rows if row[5] != "Debian" and not row[5].startswith("$(")}
    found: dict[str, str] = {}
    for mirror in (True, False):
        for kind, component, release, codename, address, origin in rows:
            likely = origin == "Debian" or address.rstrip("/").endswith("/debian")
            if (kind, component, likely) == ("Packages", "main", mirror) and address not in others:
                for name in (release, codename):
                    if not name.startswith("$("):
                        found.setdefault(name, address)
    return found


_TARGET = "$(IDENTIFIER)|$(COMPONENT)|$(RELEASE)|$(CODENAME)|$(REPO_URI)|$(ORIGIN)"


def _targets() -> str:
    """What apt reads: the lists that it has, then what its sources name, fetched or not."""
    line = ("apt-get", "indextargets", "--format", _TARGET)
    return ask(*line, timeout=60) + ask(*line, "--no-release-info", timeout=60)


def _installed(packages: str) -> frozenset[str]:
    pairs = (line.split() for line in packages.splitlines())
    return frozenset(pair[1] for pair in pairs if len(pair) == 2 and pair[0] == "ii")


def answering(*, by_client: bool) -> tuple[Engine | None, str]:
    """The engine that answers, or why none does."""
    return _by_client() if by_client else _by_library()


def _by_client() -> tuple[Engine | None, str]:
    """The engine that the client is set to, or why it did not answer."""
    try:
        info = json.loads(run("docker", "info", "--format", "{{json .}}", timeout=ASK))
    except EngineError as error:
        return None, str(error).splitlines()[-1]
    except ValueError:
        return None, "its answer is not JSON"
    return _engine(info)


def _by_library() -> tuple[Engine | None, str]:
    """The same without a client: a machine may have been given an engine's socket alone."""
    try:
        import docker
    except ImportError:
        return None, "no docker client"
    try:
        client = docker.from_env(timeout=int(ASK))
        try:
            return _engine(client.info())
        finally:
            client.close()
    except (docker.errors.DockerException, OSError) as error:  # requests' errors are OSErrors
        denied = "permission denied" in str(error).lower()
        return None, "permission denied" if denied else "no docker client"


def _engine(info: Mapping[str, Any]) -> tuple[Engine | None, str]:
    """Read an engine's own account of itself (``docker info`` as JSON)."""
    if info.get("ServerErrors"):  # the client of 26.1 exits 0 with these
        return None, str(info["ServerErrors"][0])
    if not info.get("ServerVersion"):
        return None, "what answers is not Docker Engine"
    status = {str(pair[0]): str(pair[1]) for pair in info.get("DriverStatus") or ()}
    return Engine(
        version=version(str(info["ServerVersion"])),
        store=status.get("driver-type", "").startswith(STORE),
        root=Path(info.get("DockerRootDir") or DATA[0]),
    ), ""


def ask(*argv: str, timeout: float = ASK) -> str:
    """The command's output, or "" when it is missing, slow or fails."""
    try:
        return run(*argv, timeout=timeout)
    except (EngineError, OSError):
        return ""


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _holds_something(path: Path) -> bool:
    try:
        return any(path.iterdir())
    except OSError:
        return False


def _free(engine: Engine | None) -> int:
    """Bytes free where images go: the smaller of the engine's directory and containerd's."""
    sizes = []
    for path in {engine.root if engine else DATA[0], DATA[1]}:
        existing = next((p for p in (path, *path.parents) if os.path.exists(p)), Path("/"))
        sizes.append(shutil.disk_usage(existing).free)
    return min(sizes)


def _memory() -> int:
    """Bytes of memory: the machine's, or this container's share of it."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = (_text(Path(limit)) or "").strip()
        size = min(size, int(text)) if text.isdigit() else size
    return size
