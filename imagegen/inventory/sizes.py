"""What images take, and what they share: pure, over layers, wherever those were read.

A layer is pulled once and kept once, whichever images and however often they name it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from imagegen.model.image import Layer

GB = 10**9


@dataclass(frozen=True, kw_only=True, slots=True)
class Sized:
    """An image's layers, the oldest first; ``name`` is what the person who asked calls it."""

    name: str
    digest: str
    layers: tuple[Layer, ...]

    @property
    def stored(self) -> Mapping[str, int]:
        """Compressed bytes of each of its layers, by digest."""
        return {layer.digest: layer.compressed for layer in self.layers}

    @property
    def compressed(self) -> int:
        """Bytes to pull on a host that has none of the layers."""
        return sum(self.stored.values())

    @property
    def unpacked(self) -> int | None:
        """Bytes that the layers unpack to; None where that of one of them is not known."""
        known = [layer.unpacked for layer in self.layers if layer.unpacked is not None]
        return sum(known) if len(known) == len(self.layers) else None

    def largest(self, count: int) -> list[Layer]:
        """The layers that take most, the largest first."""
        return sorted(self.layers, key=lambda layer: -layer.compressed)[:count]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """``want`` costs ``cost`` compressed bytes where ``have`` is, which spares ``shared``."""

    want: str
    have: str
    cost: int
    shared: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharing:
    """What a selection shares. ``total`` counts each image on its own, ``once`` each layer once.

    ``order`` is one in which every next image costs the least that is left: name and cost. The
    costs add up to ``once`` in any order; in this one the first images are there soonest.
    ``degrees`` are, of each image, the bytes that it shares with 0, 1, … of the others.
    """

    total: int
    once: int
    pairs: tuple[Pair, ...]
    order: tuple[tuple[str, int], ...]
    degrees: Mapping[str, tuple[int, ...]]


def cost(want: Sized, have: Iterable[Sized]) -> int:
    """Compressed bytes to pull for ``want`` where all of ``have`` are."""
    stored = {digest for one in have for digest in one.stored}
    return sum(size for digest, size in want.stored.items() if digest not in stored)


def sharing(images: Sequence[Sized]) -> Sharing:
    """What the images share with one another; each has a name of its own."""
    pairs = [
        Pair(want=b.name, have=a.name, cost=cost(b, [a]), shared=b.compressed - cost(b, [a]))
        for b in images
        for a in images
        if a is not b
    ]
    pairs.sort(key=lambda pair: (-pair.shared, pair.cost, pair.want, pair.have))
    everything = {digest: size for one in images for digest, size in one.stored.items()}
    return Sharing(
        total=sum(one.compressed for one in images),
        once=sum(everything.values()),
        pairs=tuple(pairs),
        order=_order(images),
        degrees=_degrees(images),
    )


def _order(images: Sequence[Sized]) -> tuple[tuple[str, int], ...]:
    left, done = list(images), list[Sized]()
    order = []
    while left:
        costs = {one.name: cost(one, done) for one in left}
        following = min(left, key=lambda one: (costs[one.name], one.name))
        left.remove(following)
        done.append(following)
        order.append((following.name, costs[following.name]))
    return tuple(order)


def _degrees(images: Sequence[Sized]) -> dict[str, tuple[int, ...]]:
    holders = Counter(digest for one in images for digest in one.stored)
    found = {}
    for one in images:
        counts = [0] * len(images)
        for digest, size in one.stored.items():
            counts[holders[digest] - 1] += size
        found[one.name] = tuple(counts)
    return found


def plain(words: str) -> str:
    """Words of an image, which may hold anything, as a terminal can take them."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in words)


def made_by(layer: Layer) -> str:
    """The instruction that made a layer, without what every instruction has."""
    command = plain(" ".join(layer.created_by.split())).partition(" # buildkit")[0]
    return command.replace("/build/with-network ", "").rpartition(" -c ")[2] or command


def over(one: Sized, budget: float) -> str:
    """What to say of an image that takes more than ``budget`` GB (10^9) compressed; or nothing."""
    if one.compressed <= budget * GB:
        return ""
    rows = (f"  {row.compressed / GB:.3f} GB  {made_by(row)[:100]}" for row in one.largest(3))
    # three digits, so that a little too much does not read as what is allowed
    size = f"{one.compressed / GB:.3f} GB"
    return "\n".join(
        [f"{one.name} takes {size} compressed, its budget is {budget:g} GB; the largest:", *rows]
    )
