"""How many compilers run at once: from the cores and the memory that the build may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen.image.wheel.flash_attn_wheel import sizing

GB = 10**9
HUGE = 9223372036854771712  # how version 1 says that there is no limit


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control group without any limit, on a machine with eight cores."""
    monkeypatch.setattr(sizing, "CGROUP", tmp_path)
    monkeypatch.setattr(sizing, "SELF", tmp_path / "self")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return tmp_path


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


# --- cores ----------------------------------------------------------------------------------------

QUOTAS = [(None, 8), (200_000, 2), (150_000, 2), (50_000, 1), (1000, 1), (3_200_000, 8)]


@pytest.mark.parametrize(("quota", "cores"), QUOTAS)
def test_a_quota_of_version_2(cgroup: Path, quota: int | None, cores: int) -> None:
    write(cgroup, cpu__max=f"{quota or 'max'} 100000")
    assert sizing.cores() == cores


@pytest.mark.parametrize(("quota", "cores"), QUOTAS)
def test_a_quota_of_version_1(cgroup: Path, quota: int | None, cores: int) -> None:
    write(cgroup / "cpu", cpu__cfs_quota_us=quota or -1, cpu__cfs_period_us=100_000)
    assert sizing.cores() == cores


def test_no_quota_at_all(cgroup: Path) -> None:
    assert sizing.cores() == 8


@pytest.mark.parametrize("text", ["", "max", "nonsense 100000", "1 2 3"])
def test_a_quota_that_nobody_can_read_is_none(cgroup: Path, text: str) -> None:
    write(cgroup, cpu__max=text)
    assert sizing.cores() == 8


# --- memory ---------------------------------------------------------------------------------------


@pytest.fixture
def free(cgroup: Path) -> int:
    """What the machine has without a limit."""
    return sizing.memory()


def test_some_memory_is_usable(free: int) -> None:
    assert free > 50 * 10**6


def test_a_limit_of_version_2(cgroup: Path, free: int) -> None:
    write(cgroup, memory__max="30000000", memory__current="20000000")
    assert sizing.memory() == 10_000_000
    write(cgroup, memory__stat="anon 5000000\nfile 15000000\ninactive_file 12000000\n")
    assert sizing.memory() == 22_000_000, "the page cache can be taken back"


def test_a_limit_of_version_1(cgroup: Path, free: int) -> None:
    files = {"memory__limit_in_bytes": 30_000_000, "memory__usage_in_bytes": 20_000_000}
    write(cgroup / "memory", **files, memory__stat="cache 1\ninactive_file 12000000\n")
    assert sizing.memory() == 22_000_000


@pytest.mark.parametrize("limit", ["max", "", HUGE])
def test_no_limit_is_what_is_available(cgroup: Path, free: int, limit: object) -> None:
    write(cgroup, memory__max=limit, memory__current=10_000)
    write(cgroup / "memory", memory__limit_in_bytes=limit, memory__usage_in_bytes=10_000)
    assert sizing.memory() == pytest.approx(free, rel=0.5)


def test_a_limit_that_is_used_up_leaves_nothing(cgroup: Path) -> None:
    write(cgroup, memory__max=10_000_000, memory__current=11_000_000)
    assert sizing.memory() == 0


def test_a_limit_above_the_machines_memory_gives_none(cgroup: Path, free: int) -> None:
    write(cgroup, memory__max=10**15, memory__current=0)
    assert sizing.memory() == pytest.approx(free, rel=0.5)


# --- a group in a group ---------------------------------------------------------------------------

VERSIONS = [
    ("0::/slice/job/step\n", "", {"memory__max": 30_000_000, "cpu__max": "200000 100000"}),
    (
        "9:memory:/slice/job/step\n3:cpu,cpuacct:/slice/job/step\n1:name=systemd:/other\n0::/\n",
        "memory cpu",
        {
            "memory__limit_in_bytes": 30_000_000,
            "cpu__cfs_quota_us": 200_000,
            "cpu__cfs_period_us": 100_000,
        },
    ),
]


@pytest.mark.parametrize(("groups", "controllers", "limits"), VERSIONS, ids=["2", "1"])
@pytest.mark.parametrize("level", ["", "slice", "slice/job", "slice/job/step"])
def test_a_limit_of_any_group_above_holds(
    cgroup: Path, level: str, groups: str, controllers: str, limits: dict[str, object]
) -> None:
    """A job deep in a slice: what limits it is in a folder above its own, or in its own."""
    write(cgroup, self=groups)
    for controller in controllers.split() or [""]:
        write(cgroup / controller / level, **limits)
    assert sizing.memory() == 30_000_000
    assert sizing.cores() == 2


@pytest.mark.parametrize(("groups", "controllers", "limits"), VERSIONS, ids=["2", "1"])
def test_a_group_of_others_limits_nothing(
    cgroup: Path, groups: str, controllers: str, limits: dict[str, object]
) -> None:
    write(cgroup, self=groups)
    for controller in controllers.split() or [""]:
        write(cgroup / controller / "slice/neighbour", **limits)
    assert sizing.memory() > 30_000_000
    assert sizing.cores() == 8


def test_the_least_of_several_limits_wins(cgroup: Path) -> None:
    """What is left below a limit counts, and not the limit."""
    write(cgroup, self="0::/slice/job")
    write(cgroup / "slice", memory__max=40_000_000, memory__current=35_000_000)
    write(cgroup / "slice/job", memory__max=20_000_000, memory__current=1_000_000)
    assert sizing.memory() == 5_000_000
    write(cgroup / "slice", cpu__max="600000 100000")
    write(cgroup / "slice/job", cpu__max="300000 100000")
    assert sizing.cores() == 3
    write(cgroup / "slice", cpu__max="100000 100000")
    assert sizing.cores() == 1


# --- slots ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "memory", "slots"),
    [
        (2, 24 * GB, 2),
        (4, 16 * GB, 3),
        (16, 16 * GB, 3),
        (16, 128 * GB, 16),
        (64, 128 * GB, 25),
        (8, 4 * GB, 1),
        (1, 0, 1),
    ],
)
def test_as_many_compilers_as_cores_and_memory_allow(cores: int, memory: int, slots: int) -> None:
    assert sizing.slots(cores, memory) == slots


@given(st.integers(1, 1000), st.integers(0, 4000 * GB))
def test_there_is_always_one_and_never_too_many(cores: int, memory: int) -> None:
    slots = sizing.slots(cores, memory)
    assert 1 <= slots <= cores
    assert slots == 1 or slots * sizing.GIGABYTES_PER_THREAD * GB <= memory


@pytest.mark.parametrize(
    ("slots", "files", "archs", "shared"),
    [
        (2, 6, 1, (2, 1)),
        (16, 72, 4, (16, 1)),
        (16, 6, 4, (8, 2)),
        (16, 2, 4, (4, 4)),
        (64, 2, 1, (64, 1)),
        (1, 1, 4, (1, 1)),
    ],
)
def test_threads_are_for_fewer_files_than_slots(
    slots: int, files: int, archs: int, shared: tuple[int, int]
) -> None:
    assert sizing.shared(slots, files, archs) == shared


@given(st.integers(1, 200), st.integers(1, 72), st.integers(1, 6))
def test_no_more_threads_than_slots_or_architectures(slots: int, files: int, archs: int) -> None:
    jobs, threads = sizing.shared(slots, files, archs)
    assert jobs >= 1 and 1 <= threads <= archs
    assert jobs * threads <= slots
