"""What images take and share, as text, as JSON, and as a page."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.errors import UsageError
from imagegen.inventory.contents import Inventory
from imagegen.inventory.sizes import Sharing, made_by
from imagegen.output import console
from imagegen.output.console import Format, known, table

if TYPE_CHECKING:
    from imagegen.commands.size import Measured, Measures


def writable(html: Path | None) -> Path | None:
    """The file to write a page to; whether that is possible is known before images are read.

    Raises:
        UsageError: it cannot be written.
    """
    if html is None:
        return None
    folder = html.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"--html {html}: there is no folder {folder}")
    if html.is_dir() or not os.access(html if html.exists() else folder, os.W_OK):
        raise UsageError(f"--html {html}: it cannot be written")
    return html


def show(found: Measures, fmt: Format, top: int, html: Path | None = None) -> None:
    """Print it, ``top`` rows of each table, and write the page."""
    if html:
        from imagegen.output.size_page import page

        html.write_text(page(found), encoding="utf-8")
    if fmt == "json":
        console.show(
            {
                "images": [_row(one) for one in found.images],
                "sharing": asdict(found.sharing),
                "missing": found.missing,
            }
        )
        return
    blocks = ["\n\n".join(_image(one, top)) for one in found.images]
    if len(found.images) > 1:
        blocks.append("\n\n".join(_shared(found.sharing, top)))
    print("\n\n\n".join(blocks))
    if html:
        print(f"\nwrote {html}")


def _row(one: Measured) -> dict[str, object]:
    return {
        "name": one.sized.name,
        "digest": one.sized.digest,
        "compressed_bytes": one.sized.compressed,
        "unpacked_bytes": one.sized.unpacked,
        "layers": [asdict(layer) for layer in one.sized.layers],
        "inventory": asdict(one.inventory) if one.inventory else None,
        "unseen": one.unseen,
    }


def _image(one: Measured, top: int) -> Iterator[str]:
    unpacked = known(one.sized.unpacked)
    compressed = console.size(one.sized.compressed)
    yield (
        f"{one.sized.name}: {compressed} compressed, {unpacked} unpacked, "
        f"{len(one.sized.layers)} layers\n  {one.sized.digest}"
    )
    layers = [
        (console.size(row.compressed), known(row.unpacked), made_by(row)[:80])
        for row in one.sized.largest(top)
    ]
    yield _indented(table(("COMPRESSED", "UNPACKED", "LAYER MADE BY"), layers))
    if one.inventory:
        yield from _inside(one.inventory, top)
    else:
        yield f"  what is inside is unknown: {one.unseen}"


def _inside(inventory: Inventory, top: int) -> Iterator[str]:
    packages = [(one.bytes, one.name, one.version, "apt") for one in inventory.dpkg]
    packages += [(one.bytes or 0, one.name, one.version, "Python") for one in inventory.python]
    rows = [
        (console.size(size), f"{name} {version}", kind)
        for size, name, version, kind in sorted(packages, reverse=True)[:top]
    ]
    yield _indented(table(("SIZE", f"PACKAGE (OF {len(packages)})", "FROM"), rows))
    if inventory.copies:
        spare = console.size(sum(one.spare for one in inventory.copies))
        lines = [f"{spare} could be saved by keeping one copy of each file over 1 MB"]
        for one in inventory.copies[:top]:
            lines += [f"{console.size(one.spare):>9}  {path}" for path in one.paths[:1]]
            lines += [f"{'':9}  {path}" for path in one.paths[1:]]
        yield _indented("\n".join(lines))
    if inventory.versions:
        lines = ["libraries with the same name and different bytes"]
        for several in inventory.versions[:top]:
            lines += [f"{console.size(at.bytes):>9}  {at.path}" for at in several.places]
        yield _indented("\n".join(lines))


def _shared(sharing: Sharing, top: int) -> Iterator[str]:
    lines = [
        f"{pair.want} costs {console.size(pair.cost)} if you have {pair.have}, "
        f"{console.size(pair.cost + pair.shared)} otherwise"
        for pair in sharing.pairs
        if pair.shared
    ]
    yield "\n".join(lines[:top]) or "no two images share a layer"
    yield (
        f"together {console.size(sharing.total)}, or {console.size(sharing.once)} with each layer "
        "stored once; pulled one after another, the least first:"
    )
    yield _indented(
        table(("COSTS", "IMAGE"), [(console.size(size), n) for n, size in sharing.order])
    )


def _indented(lines: str) -> str:
    return textwrap.indent(lines, "  ")
