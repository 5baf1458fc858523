"""What a machine lacks to build images: decided from what was seen of it, and nothing else."""

from __future__ import annotations

from packaging.version import Version

from imagegen.doctor.model import (
    DATA,
    DEFAULT,
    MIN_BUILDX,
    MIN_CLIENT,
    MIN_COMPOSE,
    MIN_DISK,
    MIN_ENGINE,
    MIN_MEMORY,
    OTHERS_CONFIG,
    Finding,
    System,
    Write,
    paste,
)


def findings(system: System) -> tuple[Finding, ...]:
    """Everything that was looked at, and whether it would stop a build."""
    mend, engine = "imagegen doctor --fix", system.engine
    found = [_engine_finding(system)]
    if engine is not None:
        old = too_old(engine.version, MIN_ENGINE)
        detail = f"{engine.version or 'unreadable'}, needed {MIN_ENGINE}"
        found.append(
            Finding(
                name="engine version",
                ok=not old,
                detail=detail,
                fix=f"upgrade it to {MIN_ENGINE} or newer" if old else "",
            )
        )
        found.append(
            Finding(
                name="containerd image store",
                ok=engine.store,
                detail="on" if engine.store else "off: the engine cannot export what it builds",
                fix="" if engine.store else store_lines(system),
            )
        )
    missing = lacking(system)
    for name, have, need in _clients(system):
        good, optional = name not in missing, name == "compose"
        detail = f"{have or 'not installed'}, needed {need}"
        if optional and not good:
            detail = f"{have or 'not installed'}; building does not need it"
        found.append(
            Finding(name=name, ok=good or optional, detail=detail, fix="" if good else mend)
        )
    found.append(
        Finding(
            name="mmdebstrap",
            ok=True,  # an image that starts from a registry's base builds without it
            detail="installed" if system.mmdebstrap else "not installed; only bootstraps a base",
            fix="" if system.mmdebstrap else mend,
        )
    )
    found.append(
        Finding(
            name="ssh",
            ok=system.ssh,
            detail="installed" if system.ssh else "not installed; images are tested through it",
            fix="" if system.ssh else mend,
        )
    )
    return (*found, *_resources(system))


def _engine_finding(system: System) -> Finding:
    if system.engine is not None:
        return Finding(name="engine", ok=True, detail=f"Docker Engine answers at {system.endpoint}")
    detail = f"none answers at {system.endpoint}"
    if system.silence:
        detail += f" ({system.silence})"
    if "permission denied" in system.silence.lower():
        fix = "run as root, or as a member of the group docker"
    elif system.endpoint != DEFAULT:
        fix = "DOCKER_HOST or the docker context points there: start that engine, or unset it"
    else:
        fix = "imagegen doctor --fix"
        if system.daemon is not None:
            detail += f"; Docker Engine {system.daemon} is installed, not running"
    return Finding(name="engine", ok=False, detail=detail, fix=fix)


def _clients(system: System) -> tuple[tuple[str, Version | None, Version], ...]:
    """The programs on the client's side: name, version found, version needed."""
    return (
        ("docker client", system.client, MIN_CLIENT),
        ("buildx", system.buildx, MIN_BUILDX),
        ("compose", system.compose, MIN_COMPOSE),
    )


def lacking(system: System) -> tuple[str, ...]:
    """The programs on the client's side that are missing or too old."""
    return tuple(name for name, have, need in _clients(system) if have is None or have < need)


def _resources(system: System) -> tuple[Finding, ...]:
    enough = system.disk is None or system.disk >= MIN_DISK
    free = "the engine is on another machine" if system.disk is None else f"{gib(system.disk)} free"
    where = system.engine.root if system.engine else DATA[0]
    memory = system.memory >= MIN_MEMORY
    return (
        Finding(
            name="disk",
            ok=enough,
            detail=f"{free}, needed {gib(MIN_DISK)}",
            fix="" if enough else f"make room under {where}",
        ),
        Finding(
            name="memory",
            ok=memory,
            detail=f"{gib(system.memory)}, needed {gib(MIN_MEMORY)}",
            fix="" if memory else "build on a larger machine, or with --builder",
        ),
        Finding(name="cores", ok=True, detail=str(system.cores)),
    )


def too_old(have: Version | None, need: Version) -> bool:
    """Whether it is known to be too old; a version that does not read as one gets its chance."""
    return have is not None and have < need


def store_lines(system: System) -> str:
    """What a person can paste to turn the containerd image store on."""
    restart = "systemctl restart docker" if system.systemd else "# then restart that engine"
    return paste(
        "on the engine's machine, as root (its images so far are hidden until it is turned back)",
        (*store_shell(system), restart),
    )


def store_shell(system: System) -> tuple[str, ...]:
    """Lines that turn the containerd image store on in a configuration that is not ours."""
    feature = '"features": {"containerd-snapshotter": true}'
    if system.others_config and system.others_config.strip():
        return (f"# in {OTHERS_CONFIG}, beside what is there: {feature}",)
    return (Write(what="", path=OTHERS_CONFIG, text=f"{{{feature}}}\n").shell(),)


def gib(size: int) -> str:
    """Bytes as a person reads them."""
    return f"{size / 2**30:.1f} GiB"
