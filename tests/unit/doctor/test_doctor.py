"""doctor decides from what it saw alone: every machine here is a value, and none is touched."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from imagegen.doctor import findings, fix, model, plan, probe
from imagegen.doctor.model import Daemon, Engine, Install, Step, System, Write
from imagegen.errors import EngineError

MIRROR = "http://mirror.example/debian/"
GOOD = Engine(version=Version("26.1.5"), store=True)
BARE: dict[str, Any] = {"root": True, "disk": 100 * 2**30, "memory": 16 * 2**30}
CLIENTS: dict[str, Any] = {
    "client": Version("26.1.5"),
    "buildx": Version("0.13.1"),
    "compose": Version("2.26.1"),
    "mmdebstrap": True,
    "ssh": True,
}
DEBIAN_12 = System(
    os="debian", os_version="12", releases={"bookworm": MIRROR, "bookworm-updates": MIRROR}, **BARE
)
UBUNTU_22 = System(os="ubuntu", os_version="22.04", systemd=True, **BARE)
UBUNTU_24 = dataclasses.replace(UBUNTU_22, os_version="24.04")
FEDORA = System(os="fedora", os_version="42", systemd=True, **BARE)
WELL = System(os="debian", os_version="12", engine=GOOD, **CLIENTS, **BARE)


def packages(steps: tuple[Step, ...]) -> tuple[str, ...]:
    (install,) = (step for step in steps if isinstance(step, Install))
    return install.packages


def files(steps: tuple[Step, ...]) -> dict[Path, str]:
    return {step.path: step.text for step in steps if isinstance(step, Write)}


def refused(system: System) -> EngineError:
    with pytest.raises(EngineError) as caught:
        plan.plan(system)
    return caught.value


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("26.1.5+dfsg1", "26.1.5"),
        ("Docker version 26.1.5+dfsg1, build 411e817", "26.1.5"),
        ("github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3", "0.13.1"),
        ("github.com/docker/buildx v0.30.1 9e66234aa13328a5e75b75aa5574e1ca6d6d9c01", "0.30.1"),
        ("2.26.1-4", "2.26.1"),
        ("29.1.3-0ubuntu3~24.04.2", "29.1.3"),
    ],
)
def test_a_version_is_read_as_distributions_print_it(said: str, read: str) -> None:
    assert model.version(said) == Version(read)


@pytest.mark.parametrize("said", ["", "library-import", "dev"])
def test_what_is_no_version_reads_as_none(said: str) -> None:
    assert model.version(said) is None


def test_a_bare_debian_12_takes_its_engine_from_trixie_pinned_below() -> None:
    steps = plan.plan(DEBIAN_12)
    written = files(steps)
    assert list(written) == [model.CONFIG, model.PIN, model.SOURCE]
    assert json.loads(written[model.CONFIG]) == {"features": {"containerd-snapshotter": True}}
    assert written[model.PIN].splitlines() == [
        "Package: *",
        "Pin: release n=trixie",
        "Pin-Priority: 100",
    ]
    assert f"URIs: {MIRROR}\nSuites: trixie\n" in written[model.SOURCE]
    assert packages(steps) == (
        "docker.io/trixie",
        "containerd/trixie",
        "docker-cli/trixie",
        "docker-buildx/trixie",
        "docker-compose/trixie",
        "mmdebstrap",
        "openssh-client",
        "iptables",
    )
    assert isinstance(steps[-1], Daemon)
    assert steps[-1].argv == ("/usr/sbin/dockerd", f"--config-file={model.CONFIG}")


@pytest.mark.parametrize("system", [UBUNTU_22, UBUNTU_24])
def test_ubuntu_takes_its_own_packages_and_its_service_reads_our_file(system: System) -> None:
    steps = plan.plan(system)
    assert list(files(steps)) == [model.CONFIG, model.DROP_IN]
    assert "/usr/bin/dockerd -H fd:// --containerd=" in files(steps)[model.DROP_IN]
    assert f"--config-file={model.CONFIG}\n" in files(steps)[model.DROP_IN]
    assert packages(steps) == (
        "docker.io",
        "docker-buildx",
        "docker-compose-v2",
        "mmdebstrap",
        "openssh-client",
        "iptables",
    )
    assert model.commands(steps)[-2:] == (
        "systemctl daemon-reload",
        "systemctl start docker.service",
    )


def test_settings_are_written_before_the_package_can_start_its_engine() -> None:
    kinds = [type(step).__name__ for step in plan.plan(UBUNTU_24)]
    assert kinds.index("Install") > max(i for i, kind in enumerate(kinds) if kind == "Write")


def test_a_machine_that_is_well_is_left_alone() -> None:
    assert plan.plan(WELL) == ()
    assert all(finding.ok for finding in findings.findings(WELL))


def fix_of(system: System) -> str:
    (found,) = (finding for finding in findings.findings(system) if finding.name == "engine")
    assert not found.ok
    assert system.silence in found.detail
    return found.fix


def test_an_engine_that_is_silent_is_mended_where_doctor_can() -> None:
    assert fix_of(DEBIAN_12) == "imagegen doctor --fix"
    stopped = dataclasses.replace(DEBIAN_12, daemon=Version("26.1.5"), silence="connection refused")
    assert fix_of(stopped) == "imagegen doctor --fix"
    (found, *_) = findings.findings(stopped)
    assert "Docker Engine 26.1.5 is installed, not running" in found.detail


@pytest.mark.parametrize("endpoint", ["unix:///var/run/docker.sock", "ssh://builder.example"])
def test_an_engine_that_refuses_this_user_is_not_installed_again(endpoint: str) -> None:
    silence = "Permission denied while trying to connect to the Docker daemon socket"
    system = dataclasses.replace(
        DEBIAN_12, daemon=Version("26.1.5"), silence=silence, endpoint=endpoint
    )
    assert "group docker" in fix_of(system)
    assert "--fix" not in fix_of(system)
    assert "not running" not in findings.findings(system)[0].detail


@pytest.mark.parametrize("daemon", [None, Version("26.1.5")])
def test_an_engine_elsewhere_is_started_there(daemon: Version | None) -> None:
    system = dataclasses.replace(DEBIAN_12, daemon=daemon, endpoint="tcp://builder.example:2375")
    assert fix_of(system).startswith("DOCKER_HOST or the docker context points there")
    detail = findings.findings(system)[0].detail
    assert detail == "none answers at tcp://builder.example:2375", (
        "the one here says nothing of that one"
    )


def test_an_engine_that_answers_is_used_and_only_the_client_side_is_installed() -> None:
    system = dataclasses.replace(DEBIAN_12, engine=GOOD, mmdebstrap=True, ssh=True)
    steps = plan.plan(system)
    assert packages(steps) == ("docker-cli/trixie", "docker-buildx/trixie", "docker-compose/trixie")
    assert model.CONFIG not in files(steps)
    assert not any(isinstance(step, Daemon) for step in steps)


def test_ubuntu_s_plugins_would_bring_a_second_engine_beside_another_s() -> None:
    error = refused(dataclasses.replace(UBUNTU_24, engine=GOOD, client=Version("28.0.1")))
    assert "buildx, compose" in str(error)


@pytest.mark.parametrize(
    "where",
    [
        {"engine": Engine(version=Version("20.10.24"), store=False)},
        {"daemon": Version("20.10.24"), "daemon_path": Path("/usr/sbin/dockerd")},
    ],
)
def test_an_engine_too_old_names_both_versions(where: dict[str, Any]) -> None:
    theirs = dataclasses.replace(
        DEBIAN_12, packages=frozenset({"docker.io", "containerd"}), **where
    )
    error = refused(theirs)
    assert "20.10.24" in str(error)
    assert str(model.MIN_ENGINE) in str(error)
    assert "docker.io/trixie" in error.hint


def test_an_engine_too_old_is_a_finding() -> None:
    old = dataclasses.replace(WELL, engine=Engine(version=Version("20.10.24"), store=True))
    (finding,) = (f for f in findings.findings(old) if not f.ok)
    assert (finding.name, finding.detail) == ("engine version", "20.10.24, needed 24.0")


def test_another_engine_without_the_store_keeps_its_configuration() -> None:
    off = dataclasses.replace(WELL, engine=Engine(version=Version("26.1.5"), store=False))
    error = refused(off)
    assert "containerd-snapshotter" in error.hint
    assert str(model.OTHERS_CONFIG) in error.hint
    (finding,) = (f for f in findings.findings(off) if not f.ok)
    assert (finding.name, finding.fix) == ("containerd image store", error.hint)


def test_the_lines_for_another_engine_do_not_overwrite_what_it_sets() -> None:
    off = dataclasses.replace(
        WELL, engine=Engine(version=Version("26.1.5"), store=False), others_config='{"debug": true}'
    )
    assert ">" not in refused(off).hint


def test_a_foreign_daemon_json_is_read_and_never_written() -> None:
    theirs = {
        "registry-mirrors": ["https://mirror.example"],
        "features": {"cdi": True},
        "storage-driver": "overlay2",
    }
    steps = plan.plan(dataclasses.replace(DEBIAN_12, others_config=json.dumps(theirs)))
    assert model.OTHERS_CONFIG not in files(steps)
    assert json.loads(files(steps)[model.CONFIG]) == {
        "registry-mirrors": ["https://mirror.example"],
        "features": {"cdi": True, "containerd-snapshotter": True},
    }
    assert not any(str(model.OTHERS_CONFIG) in line for line in model.commands(steps))


@pytest.mark.parametrize("theirs", ["{", "[]", '{"features": 3}'])
def test_a_daemon_json_that_does_not_read_is_named(theirs: str) -> None:
    error = refused(dataclasses.replace(DEBIAN_12, others_config=theirs))
    assert str(model.OTHERS_CONFIG) in str(error)


def test_another_s_stopped_service_is_left_to_its_owner() -> None:
    stopped = dataclasses.replace(
        UBUNTU_24, daemon=Version("27.0"), daemon_path=Path("/usr/bin/dockerd")
    )
    assert "systemctl start docker" in refused(stopped).hint


def test_our_own_stopped_service_is_started() -> None:
    first = plan.plan(UBUNTU_24)
    stopped = dataclasses.replace(
        UBUNTU_24,
        daemon=Version("29.1.3"),
        daemon_path=Path("/usr/bin/dockerd"),
        packages=frozenset({"docker.io"}),
        files=files(first),
        **CLIENTS,
    )
    assert model.commands(plan.plan(stopped)) == (
        "systemctl daemon-reload",
        "systemctl start docker.service",
    )


def test_after_a_restart_of_a_container_only_the_engine_is_started() -> None:
    again = dataclasses.replace(
        DEBIAN_12,
        daemon=Version("26.1.5"),
        daemon_path=Path("/usr/sbin/dockerd"),
        files=files(plan.plan(DEBIAN_12)),
        data=frozenset(model.DATA),
        **CLIENTS,
    )
    (start,) = plan.plan(again)
    assert isinstance(start, Daemon)
    assert not any("rm -rf" in line for line in start.undo)


def test_an_interrupted_run_takes_up_where_it_was() -> None:
    first = plan.plan(DEBIAN_12)
    half = dataclasses.replace(DEBIAN_12, files={model.PIN: files(first)[model.PIN]})
    assert plan.plan(half) == tuple(
        step for step in first if not (isinstance(step, Write) and step.path == model.PIN)
    )


def test_a_machine_that_reads_trixie_already_keeps_its_own_source() -> None:
    reads = dataclasses.replace(DEBIAN_12, releases={"bookworm": MIRROR, "trixie": MIRROR})
    assert list(files(plan.plan(reads))) == [model.CONFIG]


def test_no_address_is_made_up() -> None:
    assert "bookworm" in str(refused(dataclasses.replace(DEBIAN_12, releases={})))


def test_a_stray_client_is_no_engine() -> None:
    stray = dataclasses.replace(DEBIAN_12, client=Version("28.2.2"))
    assert "docker.io/trixie" in packages(plan.plan(stray))
    assert "docker-cli/trixie" in packages(plan.plan(stray))


def test_bookworm_s_compose_is_not_upgraded_behind_anyone_s_back() -> None:
    theirs = dataclasses.replace(
        DEBIAN_12, engine=GOOD, client=Version("26.1.5"), packages=frozenset({"docker-compose"})
    )
    assert packages(plan.plan(theirs)) == ("docker-buildx/trixie", "mmdebstrap", "openssh-client")


def test_a_plugin_of_another_s_is_not_upgraded_behind_anyone_s_back() -> None:
    theirs = dataclasses.replace(
        DEBIAN_12, engine=GOOD, client=Version("26.1.5"), packages=frozenset({"docker-buildx"})
    )
    error = refused(theirs)
    assert "docker-buildx" in str(error)
    assert "docker-buildx/trixie" in error.hint


def test_a_missing_compose_is_no_fault() -> None:
    without = dataclasses.replace(WELL, compose=None)
    (finding,) = (f for f in findings.findings(without) if f.fix)
    assert (finding.name, finding.ok) == ("compose", True)


def test_compose_comes_along_where_that_is_no_trouble() -> None:
    theirs = dataclasses.replace(DEBIAN_12, engine=GOOD, **CLIENTS | {"compose": None})
    assert packages(plan.plan(theirs)) == ("docker-compose/trixie",)


@pytest.mark.parametrize("system", [UBUNTU_24, FEDORA])
def test_compose_alone_refuses_nothing(system: System) -> None:
    theirs = dataclasses.replace(system, engine=GOOD, **CLIENTS | {"compose": None})
    assert plan.plan(theirs) == ()


def test_a_client_set_to_an_engine_elsewhere_is_not_answered_with_a_new_one_here() -> None:
    error = refused(dataclasses.replace(DEBIAN_12, endpoint="tcp://builder.example:2375"))
    assert "tcp://builder.example:2375" in str(error)
    assert "unset DOCKER_HOST" in error.hint


def test_an_engine_that_this_user_may_not_use_is_not_answered_with_a_new_one() -> None:
    silence = "permission denied while trying to connect to the Docker daemon socket"
    assert silence in str(refused(dataclasses.replace(DEBIAN_12, silence=silence)))


def test_not_enough_disk_to_install_says_how_much() -> None:
    assert "0.5 GiB free" in str(refused(dataclasses.replace(DEBIAN_12, disk=2**29)))


def test_not_enough_disk_to_build_is_a_finding() -> None:
    full = dataclasses.replace(WELL, disk=3 * 2**30)
    (finding,) = (f for f in findings.findings(full) if not f.ok)
    assert (finding.name, finding.detail) == ("disk", "3.0 GiB free, needed 20.0 GiB")


def test_an_unknown_distribution_gets_lines_to_paste() -> None:
    error = refused(FEDORA)
    assert "fedora 42" in str(error)
    lines = error.hint.splitlines()
    assert lines[1].startswith("dnf install ")
    assert "containerd-snapshotter" in lines[2]
    assert lines[3] == "systemctl enable --now docker"


def test_an_unknown_distribution_with_a_good_engine_is_left_alone() -> None:
    assert plan.plan(dataclasses.replace(WELL, os="fedora", os_version="42")) == ()


def test_without_root_the_error_holds_the_very_lines(
    monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    monkeypatch.setattr(fix, "look", lambda **_: dataclasses.replace(DEBIAN_12, root=False))
    with pytest.raises(EngineError) as caught:
        fix.fix()
    assert tuple(caught.value.hint.splitlines()[1:]) == model.commands(plan.plan(DEBIAN_12))
    assert logged == []


@pytest.mark.parametrize("root", [True, False])
def test_a_dry_run_says_the_same_lines_and_does_nothing(
    monkeypatch: pytest.MonkeyPatch, root: bool, logged: list[str]
) -> None:
    monkeypatch.setattr(fix, "look", lambda **_: dataclasses.replace(DEBIAN_12, root=root))
    fixed = fix.fix(dry_run=True)
    assert tuple(logged) == model.commands(plan.plan(DEBIAN_12))
    assert fixed.undo[0].startswith("kill ")
    assert fixed.undo.index("apt-get update") > fixed.undo.index(f"rm -f {model.SOURCE}")


def test_a_step_that_fails_says_how_to_undo_it_and_the_ones_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a file").touch()
    first = Write(what="one", path=tmp_path / "one", text="1\n", undo=("rm one",))
    second = Write(what="two", path=tmp_path / "a file" / "two", text="2\n", undo=("rm two",))
    monkeypatch.setattr(fix, "look", lambda **_: DEBIAN_12)
    monkeypatch.setattr(fix, "plan", lambda _: (first, second))
    with pytest.raises(EngineError, match="could not write") as caught:
        fix.fix()
    assert caught.value.hint.splitlines()[1:] == ["rm two", "rm one"]
    assert (tmp_path / "one").read_text() == "1\n"


def test_a_file_s_shell_line_is_one_line_and_carries_every_character() -> None:
    step = Write(what="", path=Path("/x/y"), text="it's $HOME\n\n* `b`\n")
    line = step.shell()
    assert "\n" not in line
    words = shlex.split(line)
    assert words[:6] == ["mkdir", "-p", "/x", "&&", "printf", "%s\\n"]
    assert words[6:9] == ["it's $HOME", "", "* `b`"]


def test_what_was_there_before_survives_the_undo() -> None:
    theirs = dataclasses.replace(DEBIAN_12, data=frozenset({Path("/var/lib/docker")}))
    undo = [line for step in plan.plan(theirs) for line in step.undo]
    assert not any("rm -rf" in line and "/var/lib/docker" in line for line in undo)
    assert not any(" purge " in line for line in undo)  # Debian's purge empties it


SIMULATION = """\
Reading package lists...
Inst libnftables1 (1.0.6-2+deb12u2 Debian:12.11/oldstable [amd64])
Inst perl-base [5.36.0-7+deb12u1] (5.36.0-7+deb12u2 Debian:12.11/oldstable [amd64])
Inst docker.io (26.1.5+dfsg1-9+deb13u1 Debian:13.1/stable [amd64])
Conf docker.io (26.1.5+dfsg1-9+deb13u1 Debian:13.1/stable [amd64])
"""


def test_only_what_apt_adds_is_to_be_purged() -> None:
    assert fix.foreseen(SIMULATION, never="13") == (
        ("libnftables1", "docker.io"),
        ("perl-base",),
    )


def test_an_installed_package_is_never_moved_to_the_foreign_release() -> None:
    moved = SIMULATION + "Inst libc6 [2.36-9] (2.41-12 Debian:13.1/stable [amd64]) []\n"
    with pytest.raises(EngineError, match=r"libc6 \[2\.36-9\] -> 2\.41-12"):
        fix.foreseen(moved, never="13")


def test_addresses_come_from_debian_s_own_archives() -> None:
    targets = (
        "Packages|main|bookworm|bookworm|https://third.example/apt/|Third Party\n"
        "Packages|main|bookworm|$(CODENAME)|https://third.example/apt/|$(ORIGIN)\n"
        "Packages|main|bookworm|$(CODENAME)|https://unread.example/apt/|$(ORIGIN)\n"
        f"Translations|main|bookworm|$(CODENAME)|{MIRROR}|$(ORIGIN)\n"
        f"Packages|main|bookworm|$(CODENAME)|{MIRROR}|$(ORIGIN)\n"
        f"Packages|main|stable|trixie|{MIRROR}|Debian\n"
    )
    assert probe._releases(targets) == {"bookworm": MIRROR, "stable": MIRROR, "trixie": MIRROR}


@pytest.mark.parametrize(
    ("info", "engine", "why"),
    [
        (
            {
                "ServerVersion": "26.1.5+dfsg1",
                "DockerRootDir": "/srv/docker",
                "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
            },
            Engine(version=Version("26.1.5"), store=True, root=Path("/srv/docker")),
            "",
        ),
        (
            {"ServerVersion": "24.0.7", "DriverStatus": [["Backing Filesystem", "extfs"]]},
            Engine(version=Version("24.0.7"), store=False),
            "",
        ),
        ({"ServerVersion": "", "ServerErrors": ["permission denied"]}, None, "permission denied"),
        ({"host": {}, "version": {"Version": "5.4"}}, None, "what answers is not Docker Engine"),
    ],
    ids=["on", "off", "silent", "podman"],
)
def test_an_engine_s_account_of_itself(info: Any, engine: Engine | None, why: str) -> None:
    assert probe._engine(info) == (engine, why)
