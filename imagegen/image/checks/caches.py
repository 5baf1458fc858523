"""Caches of keys and values in every layout that flash-attn takes, and what they must hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from attention import DEVICE, DTYPES, FORWARD, Errors, attention, close
from entries import PAGE


@dataclass
class Cache:
    """Keys or values of two sequences in a cache, of which `used` are there already."""

    store: Any  # what flash-attn gets
    asked: dict[str, Any]
    view: Callable[[Any], Any]  # of the store: (sequence, length, heads, head dimension)
    idle: list[int]  # rows or pages that must stay as they are


CAPACITY, USED = 3 * PAGE, (0, 2 * PAGE - 1)  # the longer one's new keys go to two pages
LAYOUTS = ("rows", "chosen rows", "pages")


def cached(torch: Any, layout: str, heads: int, dim: int, dtype: str) -> Cache:
    """A cache full of noise."""
    kind = {"device": DEVICE, "dtype": getattr(torch, DTYPES[dtype])}
    if layout == "pages":
        table = torch.tensor([[5, 0, 3], [1, 6, 2]], device=DEVICE, dtype=torch.int32)
        store = torch.randn(7, PAGE, heads, dim, **kind)
        return Cache(store, {"block_table": table}, lambda x: x[table.long()].flatten(1, 2), [4])
    if layout == "rows":
        return Cache(torch.randn(2, CAPACITY, heads, dim, **kind), {}, lambda x: x, [])
    rows = torch.tensor([3, 1], device=DEVICE, dtype=torch.int32)
    store = torch.randn(5, CAPACITY, heads, dim, **kind)
    return Cache(store, {"cache_batch_idx": rows}, lambda x: x[rows.long()], [0, 2, 4])


def appended(kind: Callable[[Any], Any], view: Any, new: Any) -> Any:
    """What the cache must hold afterwards, in the type that `kind` gives a tensor."""
    full = kind(view).clone()
    for row, used in enumerate(USED):
        full[row, used : used + new.shape[1]] = kind(new[row])
    return full


def judged(
    what: str, out: Any, exact: Sequence[Any], plain: Sequence[Any], causal: bool, errors: Errors
) -> None:
    """Compare `out` with attention of q over the used and the new part of the caches k and v.

    `exact` and `plain` are those three, in fp32 and in the type of the cache.
    """
    import torch

    def rows(q: Any, k: Any, v: Any) -> Iterator[Any]:
        for row, used in enumerate(USED):
            inputs = q[row : row + 1], *(x[row : row + 1, : used + q.shape[1]] for x in (k, v))
            yield attention(*inputs, causal=causal)

    found = close(what, out, torch.cat([*rows(*exact)]), torch.cat([*rows(*plain)]), limit=FORWARD)
    errors.forward, errors.calls = max(errors.forward, found), errors.calls + 1
