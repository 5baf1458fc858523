"""How many compilers may run at once: from the cores and the memory that this build may use."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

GIGABYTES_PER_THREAD = 5  # 3.2-5.0 GB per nvcc thread reported with CUDA 12.8 and later
CGROUP = Path("/sys/fs/cgroup")


def cores() -> int:
    """Cores that this process may use: of its affinity, or less where a cgroup has a quota."""
    mine = len(os.sched_getaffinity(0))
    # version 2: "max 100000", or microseconds of each period; version 1: two files, and -1
    quota, _, period = (
        _text(CGROUP / "cpu.max")
        or f"{_text(CGROUP / 'cpu/cpu.cfs_quota_us')} {_text(CGROUP / 'cpu/cpu.cfs_period_us')}"
    ).partition(" ")
    if not (quota.isdigit() and period.isdigit()):
        return mine
    return max(1, min(mine, math.ceil(int(quota) / int(period))))


def memory() -> int:
    """Bytes that this process may still use: what is available, or less where a cgroup says so."""
    meminfo = Path("/proc/meminfo").read_text()
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    limits = [int(found[1]) * 1024] if found else []
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        text = _text(CGROUP / limit)
        if text.isdigit():
            limits.append(int(text) - _held(CGROUP / used))
    return max(0, min(limits, default=GIGABYTES_PER_THREAD * 10**9))


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
