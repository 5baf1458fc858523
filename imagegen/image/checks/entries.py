"""flash-attn's entry points, what can be asked of them, and what a refusal has to say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from attention import DEVICE, Errors, Expected, attention, tensors
from suite import need

PAGE = 256  # flash-attn takes pages of a multiple of this


def ends(x: Any) -> Any:
    """Where the sequences of `x` (batch, length, ...) end once they are packed."""
    import torch

    batch, length = x.shape[:2]
    return torch.arange(batch + 1, device=DEVICE, dtype=torch.int32) * length


def unpacked(result: Any, batch: int) -> Any:
    """The output as (batch, length, heads, head dimension), and what came with it."""
    if isinstance(result, tuple):
        return unpacked(result[0], batch), *result[1:]
    return result.unflatten(0, (batch, -1))


def pages(x: Any) -> tuple[Any, Any]:
    """`x` (batch, length, heads, head dimension) in pages that lie in reverse, and their table."""
    import torch

    batch, length = x.shape[:2]
    each = -(-length // PAGE)
    pool = torch.full((batch * each + 1, PAGE, *x.shape[2:]), 9.0, device=DEVICE, dtype=x.dtype)
    table = torch.arange(batch * each, 0, -1, device=DEVICE, dtype=torch.int32)
    table = table.reshape(batch, each)
    for row, column in ((r, c) for r in range(batch) for c in range(each)):
        part = x[row, column * PAGE : (column + 1) * PAGE].detach()
        pool[int(table[row, column]), : len(part)] = part
    return pool, table


def dense(q: Any, k: Any, v: Any, **asked: Any) -> Any:
    from flash_attn import flash_attn_func

    return flash_attn_func(q, k, v, **asked)


def dense_kvpacked(q: Any, k: Any, v: Any, **asked: Any) -> Any:
    from flash_attn import flash_attn_kvpacked_func

    return flash_attn_kvpacked_func(q, _stacked(k, v, at=2), **asked)


def dense_qkvpacked(q: Any, k: Any, v: Any, **asked: Any) -> Any:
    from flash_attn import flash_attn_qkvpacked_func

    return flash_attn_qkvpacked_func(_stacked(q, k, v, at=2), **asked)


def varlen(q: Any, k: Any, v: Any, **asked: Any) -> Any:
    from flash_attn import flash_attn_varlen_func

    flat = (x.flatten(0, 1) for x in (q, k, v))
    out = flash_attn_varlen_func(*flat, ends(q), ends(k), q.shape[1], k.shape[1], **asked)
    return unpacked(out, len(q))


def varlen_kvpacked(q: Any, k: Any, v: Any, **asked: Any) -> Any:
    from flash_attn import flash_attn_varlen_kvpacked_func

    flat, kv = q.flatten(0, 1), _stacked(k.flatten(0, 1), v.flatten(0, 1), at=1)
    lengths = ends(q), ends(k), q.shape[1], k.shape[1]
    return unpacked(flash_attn_varlen_kvpacked_func(flat, kv, *lengths, **asked), len(q))


def varlen_qkvpacked(q: Any, k: Any, v: Any, **asked: Any) -> Any:
    from flash_attn import flash_attn_varlen_qkvpacked_func

    qkv = _stacked(*(x.flatten(0, 1) for x in (q, k, v)), at=1)
    return unpacked(flash_attn_varlen_qkvpacked_func(qkv, ends(q), q.shape[1], **asked), len(q))


def varlen_paged(q: Any, k: Any, v: Any, **asked: Any) -> Any:
    from flash_attn import flash_attn_varlen_func

    (keys, table), (values, _) = pages(k), pages(v)
    lengths = ends(q), ends(k), q.shape[1], k.shape[1]
    flat = q.detach().flatten(0, 1), keys, values
    return unpacked(flash_attn_varlen_func(*flat, *lengths, block_table=table, **asked), len(q))


def cache(q: Any, k: Any, v: Any, **asked: Any) -> Any:
    from flash_attn import flash_attn_with_kvcache

    return flash_attn_with_kvcache(*(x.detach() for x in (q, k, v)), **asked)


def cache_append(q: Any, k: Any, v: Any, **asked: Any) -> Any:
    """The last key and value are new; the cache holds something else in their place."""
    import torch
    from flash_attn import flash_attn_with_kvcache

    q, k, v = (x.detach() for x in (q, k, v))
    keys, values = (torch.cat([x[:, :-1], torch.full_like(x[:, -1:], 9.0)], dim=1) for x in (k, v))
    used = torch.full((len(q),), k.shape[1] - 1, device=DEVICE, dtype=torch.int32)
    new = {"k": k[:, -1:], "v": v[:, -1:], "cache_seqlens": used}
    return flash_attn_with_kvcache(q, keys, values, **new, **asked)


def cache_paged(q: Any, k: Any, v: Any, **asked: Any) -> Any:
    import torch
    from flash_attn import flash_attn_with_kvcache

    (keys, table), (values, _) = pages(k), pages(v)
    used = torch.full((len(q),), k.shape[1], device=DEVICE, dtype=torch.int32)
    where = {"cache_seqlens": used, "block_table": table}
    return flash_attn_with_kvcache(q.detach(), keys, values, **where, **asked)


def backward(q: Any, k: Any, v: Any, **asked: Any) -> Any:
    """The gradients of a forward that never ran: to be refused, as no forward of it can run."""
    import flash_attn_2_cuda
    import torch

    q, k, v = (x.detach() for x in (q, k, v))
    lse = torch.zeros(len(q), q.shape[2], q.shape[1], device=DEVICE)
    return flash_attn_2_cuda.bwd(*_differentials(q, k, v), lse, *_after(q, k, v, asked))


def varlen_backward(q: Any, k: Any, v: Any, **asked: Any) -> Any:
    """As `backward`, for packed sequences."""
    import flash_attn_2_cuda
    import torch

    lengths = (ends(q), ends(k)), (q.shape[1], k.shape[1])
    q, k, v = (x.detach().flatten(0, 1) for x in (q, k, v))
    lse = torch.zeros(q.shape[1], len(q), device=DEVICE)
    differentials = _differentials(q, k, v)
    return flash_attn_2_cuda.varlen_bwd(*differentials, lse, *_after(q, k, v, asked, *lengths))


def _differentials(q: Any, k: Any, v: Any) -> tuple[Any, ...]:
    return q, q, k, v, q  # dout and out may be any tensors of q's shape


def _after(
    q: Any, k: Any, v: Any, asked: dict[str, Any], cumulated: tuple[Any, ...] = (),
    longest: tuple[int, ...] = (),
) -> Iterator[Any]:  # fmt: skip
    """What bwd and varlen_bwd take after the log-sum-exp, in flash_attn_interface.py's order."""
    import torch

    yield from (torch.empty_like(x) for x in (q, k, v))
    yield from cumulated
    yield asked.get("alibi_slopes")
    yield from longest
    yield asked.get("dropout_p", 0.0)
    yield q.shape[-1] ** -0.5
    if cumulated:
        yield False  # zero_tensors
    yield asked.get("causal", False)
    yield from asked.get("window_size", (-1, -1))
    yield asked.get("softcap", 0.0)
    yield asked.get("deterministic", False)
    yield None  # the default generator
    # Without a state, a dropout that is not refused would be a null pointer, not a result.
    yield torch.zeros(2, device=DEVICE, dtype=torch.int64)


def _stacked(*parts: Any, at: int) -> Any:
    import torch

    return torch.stack(parts, dim=at)


@dataclass(frozen=True)
class Entry:
    """One way into flash-attn, called with q, k, v of (batch, length, heads, head dimension)."""

    call: Callable[..., Any]
    square: bool = False  # takes as many keys as queries and as many heads
    trains: bool = True
    drops: bool = True  # has dropout_p
    only_refuses: bool = False  # its answer is nothing to compare with
    dropless: bool = False  # has dropout_p, and no kernels for it

    @property
    def name(self) -> str:
        return self.call.__name__


ENTRIES = (
    *(Entry(call) for call in (dense, dense_kvpacked, varlen, varlen_kvpacked)),
    *(Entry(call, square=True) for call in (dense_qkvpacked, varlen_qkvpacked)),
    Entry(varlen_paged, trains=False, dropless=True),
    *(Entry(call, trains=False, drops=False) for call in (cache, cache_append, cache_paged)),
    *(Entry(call, trains=False, only_refuses=True) for call in (backward, varlen_backward)),
)


@dataclass(frozen=True)
class Ask:
    """Something that can be asked of an entry point."""

    name: str
    asked: dict[str, Any] = field(default_factory=dict)
    meant: dict[str, Any] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()
    factor: float = 3.0


def harmless() -> list[Ask]:
    """What every build serves, also where it looks like something left out."""
    causal = {"causal": True}
    off = {"window_size": (-1, -1), "softcap": 0.0, "alibi_slopes": None}
    return [
        Ask("no option"),
        Ask("causal", causal, causal),
        Ask("every option switched off", off),
        Ask("causal, every option switched off", off | causal, causal),
        Ask("dropout_p=0", {"dropout_p": 0.0}),
        Ask("deterministic", {"deterministic": True, **causal}, causal),
        Ask("window_size=(-1, 0)", {"window_size": (-1, 0)}, causal),
        Ask("causal, window_size=(-1, 0)", {"window_size": (-1, 0), **causal}, causal),
        Ask("a window wider than the keys", {"window_size": (1000, 1000)}),
        Ask("causal, window_size=(1000, 1000)", {"window_size": (1000, 1000), **causal}, causal),
    ]


def optional() -> list[Ask]:
    """What a build may leave out, alone and together."""
    import torch

    slopes = torch.tensor([0.5, 0.25, 0.125, 0.0625], device=DEVICE)
    features = {
        "softcap": ({"softcap": 5.0}, {"softcap": 5.0}),
        "alibi": ({"alibi_slopes": slopes}, {"slopes": slopes}),
        "local": ({"window_size": (16, 8)}, {"window": (16, 8)}),
        "dropout": ({"dropout_p": 0.17}, {}),
    }
    asks = []
    # flash-attn refuses softcap with dropout by itself.
    for names in (
        *((name,) for name in features),
        *(("softcap", "alibi"), ("softcap", "local"), ("alibi", "local")),
        *(("dropout", "alibi"), ("dropout", "local")),
    ):
        asked, meant = ({k: v for n in names for k, v in features[n][i].items()} for i in (0, 1))
        # Plain torch adds ALiBi's bias in fp32, so it rounds less; upstream's tests allow 8 too.
        factor = 8.0 if "alibi" in names else 3.0
        for causal in (False, True):
            words = " and ".join(names) + ", causal" * causal
            rest = frozenset(names), factor
            asks.append(Ask(words, asked | {"causal": causal}, meant | {"causal": causal}, *rest))
    for window in ((16, -1), (-1, 8), (0, 0), (16, 1000)):
        asked, meant = {"window_size": window}, {"window": window}
        asks.append(Ask(f"local {window}", asked, meant, frozenset(["local"])))
    each = torch.stack([slopes, slopes.flip(0)])
    both = {"alibi_slopes": each}, {"slopes": each}
    return [*asks, Ask("alibi for each batch", *both, frozenset(["alibi"]), 8.0)]


WORDS = {
    "dropout": r"dropout",
    "alibi": r"alibi",
    "softcap": r"softcap",
    "local": r"local",
    "uneven_k": r"multiple of 32",
    "backward": r"backward",
    "kernel": r"head dimension",
}


NO_PAGED_DROPOUT = "no dropout with a block table"


def explains(message: str, missing: frozenset[str]) -> bool:
    """Whether a refusal is this build's, names one of the missing, and says how to get it."""
    build = re.search(r"this flash.attn build|this flash.attention build", message, re.IGNORECASE)
    place = re.search(r"\bwheel\b|\bimage\b", message, re.IGNORECASE)
    for name in missing:
        option = r"--head-dims|--dtypes" if name == "kernel" else r"--features"
        if re.search(WORDS[name], message, re.IGNORECASE) and re.search(option, message):
            return bool(build and place)
    return False


def outcome(call: Callable[[], Any]) -> tuple[str, Any]:
    """("refused", message) if the call raises RuntimeError, else ("answered", its result)."""
    import torch

    try:
        result = call()
        torch.cuda.synchronize()
    except RuntimeError as error:
        # The context is lost after such an error: every further call would seem to be refused.
        need("CUDA error" not in str(error), f"expected an answer or a refusal, found {error}")
        return "refused", str(error)
    return "answered", result


@dataclass
class Verdicts:
    """Every entry point asked for what it may or may not serve: it must be right or refuse."""

    features: frozenset[str]
    errors: Errors = field(default_factory=Errors)
    refused: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def judge(self, dim: int, dtype: str, asks: Sequence[Ask], lacking: frozenset[str]) -> None:
        """Ask every entry point; `lacking` is what this head dimension and type need and miss."""
        for queries, keys, kv_heads in ((113, 203, 2), (1, 203, 2), (113, 113, 4)):
            inputs = tensors(dim, dtype, (queries, keys), kv_heads)
            entries = [e for e in ENTRIES if e.square == (queries == keys)]
            for ask in asks:
                missing, expected = lacking | (ask.needs - self.features), None
                if (
                    not missing and "dropout" not in ask.needs
                ):  # that needs the mask: a check of its own
                    gradients = "backward" in self.features
                    function = partial(attention, **ask.meant)
                    expected = Expected(inputs, function, gradients=gradients, factor=ask.factor)
                what = f"{ask.name}, {dtype}, head dimension {dim}, {queries} queries, {keys} keys"
                for entry in entries:
                    if entry.drops or not {"dropout_p", "deterministic"} & set(ask.asked):
                        self._one(f"{entry.name}: {what}", entry, ask, inputs, missing, expected)

    def _one(
        self, what: str, entry: Entry, ask: Ask, inputs: Sequence[Any], missing: frozenset[str],
        expected: Expected | None,
    ) -> None:  # fmt: skip
        untrained = frozenset(["backward"]) - self.features
        if entry.only_refuses:
            missing |= untrained
            if not missing:
                return
        how, result = outcome(lambda: entry.call(*inputs, **ask.asked))
        if entry.dropless and "dropout" in ask.needs and (how == "refused" or not missing):
            # A check of its own tells what upstream's wheels do here; ours refuse it.
            if how == "refused" and not (NO_PAGED_DROPOUT in result or explains(result, missing)):
                self.faults.append(f"{what}: expected {NO_PAGED_DROPOUT!r}, found {result[:300]!r}")
        elif missing:
            self._refusal(what, missing, how, result)
        elif how == "refused":
            self.faults.append(f"{what}: promised, yet refused ({result[:300]})")
        else:
            try:
                if expected and entry.trains:
                    expected.both(what, result, self.errors)
                elif expected:
                    expected.forward(what, result, self.errors)
            except AssertionError as error:
                self.faults.append(str(error))
            if entry.trains and untrained:
                how, said = outcome(lambda: _gradients(result, inputs))
                self._refusal(f"gradients of {what}", untrained, how, said)

    def _refusal(self, what: str, missing: frozenset[str], how: str, said: Any) -> None:
        left_out = " and ".join(sorted(missing))
        if how == "answered":
            self.faults.append(f"{what}: {left_out} left out, yet answered")
        elif not explains(said, missing):
            self.faults.append(
                f"{what}: expected a refusal that says how to get {left_out}, found {said[:300]!r}"
            )
        self.refused[left_out] = self.refused.get(left_out, 0) + 1

    def settled(self) -> str:
        """What was asked, or a failure that names the first faults."""
        count = len(self.faults)
        need(
            not count,
            f"expected the promise kept or RuntimeError, found {count} faults: "
            + "; ".join(self.faults[:12]),
        )
        said = ", ".join(f"{name} ({number})" for name, number in sorted(self.refused.items()))
        return f"answered: {self.errors}; refused: {said or 'nothing'}"


def _gradients(out: Any, inputs: Sequence[Any]) -> Any:
    import torch

    return torch.autograd.grad(out, inputs, torch.ones_like(out))
