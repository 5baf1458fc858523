"""Measures -> one page to look at: a treemap of each image, and bars of what they share. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from imagegen.commands.size import Measured, Measures
from imagegen.inventory.contents import Inventory, Node
from imagegen.inventory.sizes import Sharing, made_by
from imagegen.output.console import known
from imagegen.util.jinja import environment

if TYPE_CHECKING:
    import jinja2

KINDS = {
    "cuda": "CUDA libraries",
    "torch": "torch and Triton",
    "python": "other Python",
    "apt": "apt packages",
    "other": "other",
}
REST = "(other)"
CHAIN = 0.98
"""Part of a folder that one folder in it has to take for the two to be shown as one."""
MANY = 3
"""Other images that a layer is shared with, from which their number makes no difference."""
ROWS = 10
"""Rows of each table."""


@cache
def _template() -> jinja2.Template:
    made = environment("imagegen.output", html=True)
    made.filters["size"] = known
    return made.get_template("size.html.j2")


def page(found: Measures) -> str:
    """The whole page; it asks for nothing, from anywhere."""
    images = [_image(number, one) for number, one in enumerate(found.images)]
    return _template().render(
        images=images,
        shared=_shared(found.sharing, found.images) if len(images) > 1 else None,
        kinds=KINDS,
        many=MANY,
        trees=[compact(chained(m.inventory.tree)) if m.inventory else None for m in found.images],
    )


def compact(node: Node) -> dict[str, Any]:
    """A node with names of one letter: there are thousands."""
    row: dict[str, Any] = {"n": node.name, "b": node.bytes, "k": node.kind}
    return row | ({"c": [compact(child) for child in node.children]} if node.children else {})


def chained(node: Node) -> Node:
    """The tree with folders that hold little but one folder joined to it; bytes stay the same."""
    name, children = node.name, node.children
    while inner := _nearly_all(children, node.bytes):
        name = f"{name.rstrip('/')}/{inner.name}"
        children = _with_rest(inner.children, [one for one in children if one is not inner])
    done = tuple(chained(child) for child in children)
    return Node(name=name, bytes=node.bytes, kind=node.kind, children=done)


def _nearly_all(children: Sequence[Node], count: int) -> Node | None:
    large = (one for one in children if one.children and one.bytes >= CHAIN * count)
    return next(large, None) if count else None


def _with_rest(children: Sequence[Node], more: Sequence[Node]) -> tuple[Node, ...]:
    """The children and, as one of them, all that is more or was left over before."""
    before = [one.name == REST and not one.children for one in children]
    rest = [*more, *(one for one, left in zip(children, before, strict=True) if left)]
    kept = [one for one, left in zip(children, before, strict=True) if not left]
    if not rest:
        return tuple(kept)
    most = max(rest, key=lambda one: one.bytes)
    count = sum(one.bytes for one in rest)
    return (*kept, Node(name=REST, bytes=count, kind=most.kind, children=()))


def _image(number: int, one: Measured) -> dict[str, Any]:
    return {
        "number": number,
        "name": one.sized.name,
        "digest": one.sized.digest,
        "compressed": one.sized.compressed,
        "unpacked": one.sized.unpacked,
        "layer_count": len(one.sized.layers),
        "layers": [
            {"size": row.compressed, "unpacked": row.unpacked, "text": made_by(row)[:160]}
            for row in one.sized.largest(ROWS)
            if row.compressed
        ],
        "unseen": one.unseen,
        "inside": _inside(one.inventory) if one.inventory else None,
    }


def _inside(inventory: Inventory) -> dict[str, Any]:
    packages = [(one.bytes, one.name, one.version, "apt") for one in inventory.dpkg]
    packages += [(one.bytes or 0, one.name, one.version, "Python") for one in inventory.python]
    kinds = [(kind, inventory.kinds.get(kind, 0)) for kind in KINDS]  # type: ignore[call-overload]
    return {
        "bytes": inventory.bytes,
        "files": inventory.files,
        "kinds": [
            {"kind": kind, "size": count, "share": _share(count, inventory.bytes)}
            for kind, count in kinds
            if count
        ],
        "packages": sorted(packages, reverse=True)[:ROWS],
        "package_count": len(packages),
        "copies": inventory.copies[:ROWS],
        "spare": sum(one.spare for one in inventory.copies),
        "versions": inventory.versions[:ROWS],
    }


def _shared(sharing: Sharing, images: Sequence[Measured]) -> dict[str, Any]:
    widest = max((one.sized.compressed for one in images), default=0)
    bars = [
        {
            "name": one.sized.name,
            "size": one.sized.compressed,
            "parts": [
                {"others": others, "size": count, "share": _share(count, widest)}
                for others, count in enumerate(_few(sharing.degrees[one.sized.name]))
                if count
            ],
        }
        for one in images
    ]
    degrees = {part["others"] for bar in bars for part in bar["parts"]}  # type: ignore[attr-defined]
    return {
        "total": sharing.total,
        "once": sharing.once,
        "bars": bars,
        "degrees": sorted(degrees),
        "pairs": [pair for pair in sharing.pairs if pair.shared][:ROWS],
        "order": sharing.order,
    }


def _few(degrees: Sequence[int]) -> tuple[int, ...]:
    """The bytes that are shared with 0, 1, … others, of ``MANY`` and more as one: a few shades."""
    return (*degrees[:MANY], sum(degrees[MANY:]))


def _share(count: int, of: int) -> float:
    """Percent, with as many digits as a bar's width needs."""
    return round(100 * count / of, 3) if of else 0.0
