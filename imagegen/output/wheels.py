"""What the commands about wheels found and made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.output.console import Format, show, size, table

if TYPE_CHECKING:
    from imagegen.commands.wheels import BuiltWheel, Shard, TargetWheel
    from imagegen.compat.sources import Sourced
    from imagegen.wheels.entry import StoreEntry


def listed(rows: Sequence[TargetWheel], fmt: Format) -> None:
    """The wheel of each target and every place that it could come from."""
    if fmt == "json":
        show(
            [
                {
                    "id": row.id,
                    "wheel": row.name,
                    "held": row.stored and _entry(row.stored),
                    **sourced(row.sourced),
                }
                for row in rows
            ]
        )
        return
    for row in rows:
        taken = row.sourced.taken
        print(f"{row.id}: {f'from {taken}' if taken else 'not available'}\n  {row.name}")
        for step in row.sourced.steps:
            print(f"    {'-> ' if step.taken else '   '}{step}")


def sourced(found: Sourced) -> dict[str, object]:
    """JSON values of the places in their order."""
    steps = [asdict(step) for step in found.steps]
    return {"from": found.taken, "places": steps, "url": found.wheel.url if found.wheel else None}


def shards(rows: Sequence[Shard], fmt: str) -> None:
    """Parts of kernel files; ``github`` is a matrix for a workflow."""
    if fmt == "github":
        # one line: a job's output holds no more
        print(json.dumps({"include": [{"id": row.id, "shard": row.name} for row in rows]}))
    elif fmt == "json":
        show([asdict(row) for row in rows])
    else:
        words = (
            (row.id, row.name, str(len(row.kernels)), f"{row.seconds / 60:.0f}") for row in rows
        )
        print(table(("TARGET", "SHARD", "FILES", "CPU-MINUTES"), words))


def built(rows: Sequence[BuiltWheel], fmt: Format) -> None:
    """Wheels that are in the store now."""
    if fmt == "json":
        show(
            [
                {
                    "id": row.id,
                    "wheel": _entry(row.entry),
                    "seconds": round(row.seconds, 1),
                    "found": row.found,
                }
                for row in rows
            ]
        )
        return
    for row in rows:
        print(f"{row.id}: {row.found or f'built in {row.seconds:.0f} s'}")
        print(f"  {row.entry.name}\n  sha256 {row.entry.sha256}, {size(row.entry.size)}")


def compiled(found: Mapping[str, object], to: Path, fmt: Format) -> None:
    """What the recipe made on this machine."""
    if fmt == "json":
        show(found)
    elif "wheel" in found:
        print(f"{to / str(found['wheel'])}\n  built in {found['seconds']} s")
    else:
        print(f"{found['objects']} objects in {to / 'objects' / str(found['folder'])}")


def stored(rows: Sequence[StoreEntry], fmt: Format) -> None:
    """Wheels that a store holds now."""
    if fmt == "json":
        show([_entry(row) for row in rows])
    else:
        print(table(("SHA256", "SIZE", "WHEEL"), ((r.sha256, size(r.size), r.name) for r in rows)))


def verified(rows: Sequence[Mapping[str, object]], faults: Mapping[str, str], fmt: Format) -> None:
    """Wheels that are what they say, and what is wrong with the others."""
    if fmt == "json":
        show([*rows, *({"wheel": wheel, "error": why} for wheel, why in faults.items())])
        return
    for row in rows:
        print(f"{row['wheel']}\n  sha256 {row['sha256']}")
        kernels = row.get("kernels")
        if isinstance(kernels, dict):
            found = ", ".join(f"{count} kernels for sm_{arch}" for arch, count in kernels.items())
            print(f"  {found}{', as its name promises' if row['promised'] else ''}")
        if row["level"] == "load":
            print("  loads beside torch, every symbol resolved")


def files(found: Sequence[Path], fmt: Format) -> None:
    """Files that are there now."""
    if fmt == "json":
        show(list(map(str, found)))
    else:
        print("\n".join(map(str, found)) or "nothing to do")


def _entry(entry: StoreEntry) -> dict[str, object]:
    return {"name": entry.name, "sha256": entry.sha256, "bytes": entry.size}
