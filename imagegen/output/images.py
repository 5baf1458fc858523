"""Images that were built, and images in registries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from imagegen.inventory.sizes import made_by
from imagegen.model.image import Built, Layer
from imagegen.model.pushed import Pushed
from imagegen.output.console import Format, check_row, show, size

if TYPE_CHECKING:
    from imagegen.publish.push import PushResult


def built(images: Sequence[Built | Pushed], fmt: Format) -> None:
    """Images in the engine's store, or in a registry where nothing was to be built."""
    if fmt == "json":
        show([built_row(one) if isinstance(one, Built) else pushed_row(one) for one in images])
        return
    for one in images:
        if isinstance(one, Built):
            how = one.cached or f"built in {one.seconds:.0f} s"
            print(f"{one.image.target.id}: {how}")
            print(f"  {one.image.ref}\n  {one.digest}, {size(one.unpacked)} unpacked")
        else:
            print(f"{one.target.id}: {one.cached}\n  docker pull {one.pinned}")


def published(done: PushResult, fmt: Format) -> None:
    """Images in registries, and what is not there."""
    if fmt == "json":
        failed = [{"name": name, "error": str(why)} for name, why in done.failed.items()]
        show({"pushed": [pushed_row(one) for one in done.pushed], "failed": failed})
        return
    for one in done.pushed:
        print(f"{one.target.id}: {one.cached or one.digest}")
        for ref in (*one.refs, *one.aliases):
            print(f"  docker pull {ref}")
        for why in one.kept:
            print(f"  {why}")
        print(f"  {sizes_of(one)}")


def built_row(one: Built) -> dict[str, object]:
    """A built image as JSON values."""
    return {
        "id": one.image.target.id,
        "ref": one.image.ref,
        "digest": one.digest,
        "key": one.image.key,
        "unpacked_bytes": one.unpacked,
        "seconds": round(one.seconds, 1),
        "cached": one.cached,
    }


def pushed_row(one: Pushed) -> dict[str, object]:
    """An image in a registry as JSON values."""
    layers = [
        {"digest": row.digest, "bytes": row.compressed, "created_by": row.created_by}
        for row in one.layers
    ]
    return {
        "id": one.target.id,
        "key": one.key,
        "repository": one.repository,
        "digest": one.digest,
        "passed": one.report.allows(one.digest, one.needed),
        "refs": list(one.refs),
        "aliases": list(one.aliases),
        "pinned": one.pinned,
        "moved": list(one.moved),
        "kept": list(one.kept),
        "sent": one.sent,
        "seconds": round(one.seconds, 1),
        "cached": one.cached,
        "revision": one.revision,
        "compressed_bytes": one.compressed,
        "unpacked_bytes": one.unpacked,
        "layers": layers,
        "checks": list(map(check_row, one.report.checks)),
    }


def sizes_of(one: Pushed) -> str:
    """How large it is, in words."""
    unpacked = size(one.unpacked)
    return f"{size(one.compressed)} to pull in {len(one.layers)} layers, {unpacked} unpacked"


def largest(layers: Sequence[Layer]) -> list[tuple[str, str]]:
    """The five largest layers, each with what made it."""
    ordered = sorted(layers, key=lambda layer: layer.compressed, reverse=True)
    return [(size(layer.compressed), made_by(layer)[:90]) for layer in ordered[:5]]
