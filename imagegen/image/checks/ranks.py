"""One process for each GPU, and NCCL between them: what device.py starts and judges.

A module of its own, because each process starts anew and imports what it runs.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

from suite import need, same

BACKEND, DEVICE = "nccl", "cuda"
PATIENCE = 180.0  # seconds for all of it, the imports of torch included
STUCK = 90.0  # seconds after which NCCL itself gives a collective up
LARGE, SMALL = 1 << 24, 1 << 20  # elements; fp32 counts exactly as far as the larger
ROUNDS = 10

ADVICE = (
    "GPUs that cannot reach one another, or a /dev/shm of 64 MB: try NCCL_P2P_DISABLE=1 with "
    "docker run --shm-size=1g; NCCL_DEBUG=INFO tells more"
)
SHM = Path("/dev/shm")  # where NCCL's processes share memory


def copied(torch: Any, gpus: Sequence[Any]) -> None:
    """Fail where a copy from one GPU to another arrives wrong.

    NCCL may go another way than these copies, which `tensor.to` and `device_map="auto"` make.
    """
    for source, target in permutations(gpus, 2):
        sent, wanted = (
            torch.arange(LARGE, device=gpu, dtype=torch.int32) for gpu in (source, target)
        )
        wrong = int((sent.to(target) != wanted).sum().item())
        same(f"numbers that a copy from {source} to {target} got wrong", 0, wrong)


def together(torch: Any) -> str:
    """A process for each GPU, and what came of their collectives; nothing of them stays behind."""
    world, before = torch.cuda.device_count(), {*SHM.glob("nccl-*")}
    with tempfile.TemporaryDirectory() as folder:
        group = torch.multiprocessing.spawn(work, (world, folder), world, join=False)
        try:
            joined(group, world, folder)
        finally:
            for process in group.processes:
                process.kill()
                process.join(10)
            for left in {*SHM.glob("nccl-*")} - before:  # would leave the next try less room
                left.unlink(missing_ok=True)
        return judged(world, reports(world, folder))


def work(rank: int, world: int, folder: str) -> None:
    """Call each collective with numbers that are known, and leave rank N's report in `folder`."""

    def at(stage: str) -> None:
        Path(folder, f"stage{rank}").write_text(stage)

    at("importing torch")
    import torch
    import torch.distributed as group

    os.environ.setdefault("NCCL_DEBUG", "WARN")
    device = torch.device(DEVICE, rank)
    torch.cuda.set_device(device)
    at("meeting the others")
    group.init_process_group(
        BACKEND,
        init_method=f"file://{folder}/rendezvous",
        world_size=world,
        rank=rank,
        timeout=timedelta(seconds=STUCK),
        device_id=device,
    )
    report = {"rank": rank, "world": group.get_world_size(), "backend": group.get_backend()}
    report["wrong"], device_used = collectives(torch, group, rank, world, device, at)
    report["device"] = device_used
    at("all_reduce, timed")
    report["seconds"] = timed(torch, group, device)
    at("leaving")
    group.destroy_process_group()
    Path(folder, f"report{rank}").write_text(json.dumps(report))


def collectives(
    torch: Any, group: Any, rank: int, world: int, device: Any, at: Callable[[str], None]
) -> tuple[dict[str, int], str]:
    """How many elements each collective got wrong, and the device that held them.

    Every element of a large buffer is compared: machines whose PCIe switches mishandle peer-to-peer
    copies deliver zeros or stale data without an error.
    """
    wrong = {}
    numbers = torch.arange(LARGE, device=device, dtype=torch.float32) % 1024
    at("all_reduce")
    total = numbers * (rank + 1)
    group.all_reduce(total)
    wrong["all_reduce"] = int((total != numbers * (world * (world + 1) // 2)).sum().item())
    at("all_gather")
    few = numbers[:SMALL].clone()
    parts = [torch.full_like(few, -1) for _ in range(world)]
    group.all_gather(parts, few + 1024 * rank)
    wrong["all_gather"] = sum(
        int((part != few + 1024 * other).sum().item()) for other, part in enumerate(parts)
    )
    at("broadcast")
    last = world - 1
    sent = few * 7 if rank == last else torch.full_like(few, -1)
    group.broadcast(sent, src=last)
    wrong["broadcast"] = int((sent != few * 7).sum().item())
    return wrong, str(total.device)


def timed(torch: Any, group: Any, device: Any) -> float:
    """Seconds of one all_reduce of LARGE fp32 numbers, the mean of ROUNDS."""
    buffer = torch.zeros(LARGE, device=device)
    for _ in range(3):
        group.all_reduce(buffer)
    torch.cuda.synchronize(device)
    start = time.monotonic()
    for _ in range(ROUNDS):
        group.all_reduce(buffer)
    torch.cuda.synchronize(device)
    return (time.monotonic() - start) / ROUNDS


def joined(context: Any, world: int, folder: str, patience: float = PATIENCE) -> None:
    """Wait for the processes; fail where one does or `patience` seconds pass, and say where."""
    end = time.monotonic() + patience
    try:
        while not context.join(timeout=max(0.0, end - time.monotonic())):
            need(time.monotonic() < end, f"no result within {patience:g} s")
    except Exception as error:
        stages = (Path(folder, f"stage{rank}") for rank in range(world))
        told = [stage.read_text() if stage.exists() else "starting" for stage in stages]
        where = ", ".join(f"{rank}: {stage}" for rank, stage in enumerate(told))
        said = str(error).strip()[-1200:]
        raise AssertionError(f"NCCL, processes at {where}. {said}. {ADVICE}") from error


def reports(world: int, folder: str) -> list[Mapping[str, Any]]:
    """What each process left behind."""
    files = [Path(folder, f"report{rank}") for rank in range(world)]
    lost = [rank for rank, file in enumerate(files) if not file.exists()]
    need(not lost, f"expected a report of every process, found none of {lost}")
    return [json.loads(file.read_text()) for file in files]


def judged(world: int, told: Sequence[Mapping[str, Any]]) -> str:
    """Fail unless every process did all of it on a GPU of its own and got every number right."""
    same("processes that reported", [*range(world)], [report["rank"] for report in told])
    for report in told:
        who = f"process {report['rank']}"
        same(f"{who}: size of the group", world, report["world"])
        same(f"{who}: backend", BACKEND, report["backend"])
        same(f"{who}: device of its numbers", f"{DEVICE}:{report['rank']}", report["device"])
        nothing = dict.fromkeys(("all_reduce", "all_gather", "broadcast"), 0)
        same(f"{who}: numbers that arrived wrong", nothing, report["wrong"])
    if world == 1:
        return "1 GPU, so NCCL starts and nothing travels"
    seconds = max(report["seconds"] for report in told)
    # As nccl-tests counts it: what each link carries, whatever the number of GPUs.
    speed = 2 * (world - 1) / world * LARGE * 4 / seconds / 1e9
    return f"{world} GPUs, all numbers right, all_reduce of {LARGE >> 18} MiB at {speed:.1f} GB/s"
