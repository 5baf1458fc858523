"""How many compilers may run at once: from the cores and the memory that this build may use."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

GIGABYTES_PER_THREAD = 5  # 3.2-5.0 GB per nvcc thread reported with CUDA 12.8 and later
CGROUP = Path("/sys/fs/cgroup")
SELF = Path("/proc/self/cgroup")


def cores() -> int:
    """Cores that this process may use: of its affinity, or less where a cgroup has a quota."""
    found = [len(os.sched_getaffinity(0))]
    # version 2: "max 100000", or microseconds of each period; version 1: two files, and -1
    quotas = [_text(folder / "cpu.max") for folder in _groups("")]
    quotas += [
        f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"
        for folder in _groups("cpu")
    ]
    for text in quotas:
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit():
            found.append(math.ceil(int(quota) / int(period)))
    return max(1, min(found))


def memory() -> int:
    """Bytes that this process may still use: what is available, or less where a cgroup says so."""
    meminfo = Path("/proc/meminfo").read_text()
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    limits = [int(found[1]) * 1024] if found else []
    for controller, limit, used in (
        ("", "memory.max", "memory.current"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        for folder in _groups(controller):
            text = _text(folder / limit)
            if text.isdigit():
                limits.append(int(text) - _held(folder / used))
    return max(0, min(limits, default=GIGABYTES_PER_THREAD * 10**9))


def _groups(controller: str) -> list[Path]:
    """The folders of this process's cgroup and of all above it; ``controller`` is version 1's.

    In a container the root is its own group; on a machine a job may be deep in a slice.
    """
    found = []
    for line in _text(SELF).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            top = CGROUP / controller
            found += [
                top / part for part in (path.lstrip("/"), *map(str, Path(path.lstrip("/")).parents))
            ]
    return found or [CGROUP / controller]


def _held(usage: Path) -> int:
    """Bytes in use that the kernel cannot take back: without the page cache."""
    text, stat = _text(usage), _text(usage.parent / "memory.stat")
    cache = re.search(r"^inactive_file (\d+)", stat, re.MULTILINE)
    return max(0, int(text) - int(cache[1] if cache else 0)) if text.isdigit() else 0


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def slots(cores: int, memory_bytes: int) -> int:
    """How many nvcc threads to run at once: no more than cores, nor than memory at 5 GB each."""
    return max(1, min(cores, memory_bytes // (GIGABYTES_PER_THREAD * 10**9)))


def shared(slots: int, files: int, archs: int) -> tuple[int, int]:
    """``slots`` as (compilers at once, threads of each).

    A thread compiles one architecture of a file: more than one is of use only where there are
    fewer files than slots.
    """
    threads = max(1, min(archs, slots // max(1, files)))
    return max(1, slots // threads), threads
