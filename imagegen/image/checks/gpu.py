"""The checks that need a GPU: kernels launch, attention is right, what was left out is refused."""

from __future__ import annotations

import math
import re
import tempfile
from importlib import metadata
from itertools import product
from typing import Any

from attention import (
    DEVICE,
    DTYPES,
    FORWARD,
    Errors,
    Expected,
    attention,
    close,
    hidden,
    rotated,
    tensors,
    worst,
)
from caches import CAPACITY, LAYOUTS, USED, appended, cached, judged
from cpu import compiled, promised_flash_attn
from entries import ENTRIES, Verdicts, harmless, optional, outcome, varlen_paged
from suite import NotPromised, Promise, Suite, need, same

HEAD_DIMS = (32, 64, 96, 128, 192, 256)  # what flash-attn has kernels for

SUITE = Suite()
check = SUITE.check


def gpu(promise: Promise) -> Any:
    """torch, once it is certain that flash-attn's promised kernels can run on this GPU."""
    import torch

    need(torch.cuda.is_available(), "expected a GPU that torch can use, found none")
    major, minor = torch.cuda.get_device_capability()
    archs = (promise.get("flash_attn") or {}).get("archs")
    # SASS runs on GPUs of its own major version, from its minor version up.
    need(
        archs is None or any(arch // 10 == major and arch % 10 <= minor for arch in archs),
        f"this GPU ({torch.cuda.get_device_name()}) has compute capability {major}.{minor}, "
        f"the image promises kernels for {archs} only: rent another GPU or another image",
    )
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")  # TF32 would be a poor reference
    return torch


@check("a compiler whose programs load but cannot launch on this driver", level="gpu")
def cuda_kernel(promise: Promise) -> str:
    torch = gpu(promise)
    major, minor = torch.cuda.get_device_capability()
    with tempfile.TemporaryDirectory() as folder:
        line = compiled([f"-arch=sm_{major}{minor}"], folder)
    need(
        re.fullmatch(r"error=0 devices=[1-9]\d* y31=961", line),
        f"expected error=0 and y31=961, found {line}",
    )
    return f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}: {line}"


def kernels(promise: Promise) -> list[tuple[int, str]]:
    flash = promised_flash_attn(promise)
    return [*product(flash["head_dims"], flash["dtypes"])]


SHAPES = (
    # batch, heads, queries, keys. While batch * heads * queries / 64 is below 1.6 times the number
    # of multiprocessors, flash-attn takes its split kernels (flash_api.cpp, num_splits_heuristic);
    # only the last two reach the kernels of training.
    (2, 4, 113, 203),
    (2, 4, 203, 113),  # the first queries have no keys if causal
    (2, 4, 1, 203),
    (8, 8, 321, 357),
    (8, 8, 512, 512),  # fills every tile
)


@check("attention that runs and is wrong: fp32 is the reference", level="gpu", timeout=300)
def flash_attn_forward_backward(promise: Promise) -> str:
    gpu(promise)
    gradients, errors = "backward" in promised_flash_attn(promise)["features"], Errors()
    from flash_attn import flash_attn_func

    for (dim, dtype), shape, causal in product(kernels(promise), SHAPES, (False, True)):
        batch, heads, *lengths = shape
        for kv_heads in (heads, heads // 2, 1):
            what = f"{dtype}, head dimension {dim}, {shape}, {causal=}, {kv_heads} KV heads"
            lead = {"batch": batch, "heads": heads}
            inputs = tensors(dim, dtype, (lengths[0], lengths[1]), kv_heads, **lead)
            expected = Expected(
                inputs, lambda *x, causal=causal: attention(*x, causal=causal), gradients=gradients
            )
            expected.both(what, flash_attn_func(*inputs, causal=causal), errors)
    return str(errors)


PACKED = (
    # Lengths of the queries and of the keys: none at all, more queries than keys, ...
    ((37, 150, 1, 0, 64), (50, 150, 77, 33, 0)),
    ((150, 37, 5), (33, 37, 300)),
    ((1, 1, 1), (50, 150, 300)),  # one query each: another path where KV heads are shared
)


@check("packed sequences that see each other's keys", level="gpu", timeout=300)
def flash_attn_varlen(promise: Promise) -> str:
    torch = gpu(promise)
    gradients, errors = "backward" in promised_flash_attn(promise)["features"], Errors()
    from flash_attn import flash_attn_varlen_func

    for (dim, dtype), lengths, causal, kv_heads in product(
        kernels(promise), PACKED, (False, True), (4, 2, 1)
    ):
        what = f"{dtype}, head dimension {dim}, lengths {lengths}, {causal=}, {kv_heads} KV heads"
        totals = sum(lengths[0]), sum(lengths[1])
        inputs = [
            x.detach()[0].requires_grad_() for x in tensors(dim, dtype, totals, kv_heads, batch=1)
        ]

        def meant(*x: Any, lengths: Any = lengths, causal: bool = causal) -> Any:
            parts = (t.split(length) for t, length in zip(x, (*lengths, lengths[1]), strict=True))
            rows = zip(*parts, strict=True)
            return torch.cat([attention(*(t[None] for t in r), causal=causal)[0] for r in rows])

        expected = Expected(inputs, meant, gradients=gradients)
        ends = [torch.tensor([0, *n], device=DEVICE).cumsum(0).int() for n in lengths]
        out = flash_attn_varlen_func(*inputs, *ends, *map(max, lengths), causal=causal)
        expected.both(what, out, errors)
    return str(errors)


@check(
    "wrong generation: a new key that misses the cache or lands in another place",
    level="gpu",
    timeout=300,
)
def flash_attn_kvcache(promise: Promise) -> str:
    torch, errors = gpu(promise), Errors()
    from flash_attn import flash_attn_with_kvcache

    used = torch.tensor(USED, device=DEVICE, dtype=torch.int32)
    for (dim, dtype), layout, kv_heads, new, causal, splits in product(
        kernels(promise), LAYOUTS, (4, 2, 1), (1, 5), (False, True), (0, 3)
    ):
        what = f"{dtype}, head dimension {dim}, {layout}, {kv_heads} KV heads, {new} new, {causal=}"
        what += f", num_splits={splits}"
        q, k, v = (x.detach() for x in tensors(dim, dtype, (new, new), kv_heads))
        keys, values = (cached(torch, layout, kv_heads, dim, dtype) for _ in "kv")
        idle = [c.store[c.idle].clone() for c in (keys, values)]
        full = [appended(lambda x: x, c.view(c.store), n) for c, n in ((keys, k), (values, v))]
        out = flash_attn_with_kvcache(
            q, keys.store, values.store, k, v, cache_seqlens=used, causal=causal,
            num_splits=splits, **keys.asked,
        )  # fmt: skip
        for c, wanted, rest in zip((keys, values), full, idle, strict=True):
            there, others = torch.equal(c.view(c.store), wanted), torch.equal(c.store[c.idle], rest)
            same(f"the new keys and values, and only they, are in the cache ({what})", True, there)
            same(f"what else is in the cache stays as it was ({what})", True, others)
        exact, plain = (q.float(), *(x.float() for x in full)), (q, *full)
        judged(what, out, exact, plain, causal, errors)
    return str(errors)


@check("positions that are off by one, or dimensions paired wrongly, in generation", level="gpu")
def flash_attn_rotary(promise: Promise) -> str:
    torch, errors = gpu(promise), Errors()
    from flash_attn import flash_attn_with_kvcache

    used = torch.tensor(USED, device=DEVICE, dtype=torch.int32)
    for (dim, dtype), layout, new, causal, interleaved in product(
        kernels(promise), LAYOUTS, (1, 5), (False, True), (False, True)
    ):
        what = (
            f"rotary, {dtype}, head dimension {dim}, {layout}, {new} new, {causal=}, {interleaved=}"
        )
        q, k, v = (x.detach() for x in tensors(dim, dtype, (new, new)))
        keys, values = (cached(torch, layout, 2, dim, dtype) for _ in "kv")
        before = keys.view(keys.store).clone()
        full = appended(lambda x: x, values.view(values.store), v)
        angles = torch.rand(CAPACITY, dim // 4, device=DEVICE) * 2 * math.pi
        cos, sin = angles.cos().to(q.dtype), angles.sin().to(q.dtype)

        def turned(
            x: Any, step: int, cos: Any = cos, sin: Any = sin, interleaved: bool = interleaved
        ) -> Any:
            at = [torch.arange(x.shape[1], device=DEVICE) * step + start for start in USED]
            rows = zip(x, at, strict=True)
            return torch.stack(
                [rotated(r, cos[a], sin[a], interleaved=interleaved) for r, a in rows]
            )

        out = flash_attn_with_kvcache(
            q, keys.store, values.store, k, v, rotary_cos=cos, rotary_sin=sin, cache_seqlens=used,
            causal=causal, rotary_interleaved=interleaved, **keys.asked,
        )  # fmt: skip
        # Without a mask flash-attn takes every query to be at the first new position.
        exact, plain = (
            (turned(kind(q), int(causal)), appended(kind, before, turned(kind(k), 1)), kind(full))
            for kind in (lambda x: x.float(), lambda x: x)
        )
        close(f"cache, {what}", keys.view(keys.store), exact[1], plain[1], limit=FORWARD)
        there = torch.equal(values.view(values.store), full)
        same(f"the new values are in the cache ({what})", True, there)
        judged(what, out, exact, plain, causal, errors)
    return str(errors)


@check(
    "dropout that is ignored, drops another share, or not the same in the backward pass",
    level="gpu",
    timeout=300,
)
def flash_attn_dropout(promise: Promise) -> str:
    torch, features, errors = gpu(promise), promised_flash_attn(promise)["features"], Errors()
    if "dropout" not in features:
        words = "no dropout is promised; that it is refused is checked with the other refusals"
        raise NotPromised(words)
    for (dim, dtype), entry, causal in product(
        kernels(promise), [e for e in ENTRIES if e.trains], (False, True)
    ):
        what = f"dropout, {entry.name}, {dtype}, head dimension {dim}, {causal=}"
        lengths, kv_heads = ((113, 113), 4) if entry.square else ((113, 203), 2)
        inputs = tensors(dim, dtype, lengths, kv_heads)
        asked = {"dropout_p": DROPOUT, "causal": causal}
        torch.manual_seed(7)
        out, _, weights = entry.call(*inputs, **asked, return_attn_probs=True)
        # The sign says what was dropped; -0.0 is a dropped weight that was zero.
        kept = ~torch.signbit(weights[..., : lengths[0], : lengths[1]])
        share(what, kept, hidden(*lengths, causal=causal)[0])

        def meant(*x: Any, kept: Any = kept, causal: bool = causal) -> Any:
            return attention(*x, causal=causal, kept=kept, dropout=DROPOUT)

        expected = Expected(inputs, meant, gradients="backward" in features)
        expected.both(what, out, errors)
        torch.manual_seed(7)
        again = entry.call(*inputs, **asked)
        expected.both(f"{what}, the same seed", again, errors)
        another = worst(entry.call(*inputs, **asked), again)
        need(another > 0.01, f"{what}: expected the next call to drop others, it differs {another}")
    return f"{errors}; with pages: {paged_dropout(promise)}"


DROPOUT = 0.17


def share(what: str, kept: Any, mask: Any) -> None:
    """Fail unless as many of the visible weights are kept as eight random bits can give."""
    seen = kept[(~mask).expand_as(kept)].float()
    wanted = (math.floor((1 - DROPOUT) * 255) + 1) / 256  # a byte of at most that is kept
    limit = 6 * math.sqrt(wanted * (1 - wanted) / seen.numel())
    found = seen.mean().item()
    need(
        abs(found - wanted) < limit,
        f"{what}: expected {wanted:.4f} of the weights kept, within {limit:.4f}, found {found:.4f}",
    )


def paged_dropout(promise: Promise) -> str:
    """What becomes of dropout with a block table, where flash-attn has no kernel for it."""
    inputs = tensors(*kernels(promise)[0], (113, 203))
    how, result = outcome(lambda: varlen_paged(*inputs, dropout_p=DROPOUT))
    if how == "refused":
        return how
    expected = Expected(inputs, attention, gradients=False)
    try:
        expected.forward("varlen_paged", result, Errors())
    except AssertionError:
        return "answered, not the same as without"
    return "flash-attn itself ignores it"


@check(
    "the worst defect: a call that this build cannot serve and answers wrongly",
    level="gpu",
    timeout=300,
)
def flash_attn_refuses(promise: Promise) -> str:
    gpu(promise)
    features = frozenset(promised_flash_attn(promise)["features"])
    verdicts, served = Verdicts(features), kernels(promise)
    simple = harmless()[:2]
    for dim, dtype in product(HEAD_DIMS, DTYPES):
        lacking = frozenset[str]() if (dim, dtype) in served else frozenset(["kernel"])
        verdicts.judge(dim, dtype, simple if lacking else [*harmless(), *optional()], lacking)
        for uneven in (dim - 8, *ROUNDED.get(dim, ())):
            verdicts.judge(uneven, dtype, simple, lacking | (frozenset(["uneven_k"]) - features))
        if not lacking:  # flash-attn pads it to dim, so every build serves it
            verdicts.judge(dim - 3, dtype, simple, lacking)
    return verdicts.settled()


ROUNDED = {192: (160,), 256: (224,)}  # multiples of 32 that run as a larger head dimension


@check("transformers falling back to slower attention without a word", level="gpu")
def transformers_sees_flash_attn(promise: Promise) -> str:
    gpu(promise)
    promised_flash_attn(promise)
    from transformers.utils import is_flash_attn_2_available

    same("is_flash_attn_2_available()", True, is_flash_attn_2_available())
    return f"transformers {metadata.version('transformers')}"


@check(
    "a model that loads with flash attention and trains on wrong numbers", level="gpu", timeout=300
)
def llama_trains(promise: Promise) -> str:
    torch, flash = gpu(promise), promised_flash_attn(promise)
    from transformers import LlamaConfig, LlamaForCausalLM

    dim, dtype = min(flash["head_dims"], key=lambda d: abs(d - 128)), flash["dtypes"][-1]
    tokens, models, logits = torch.randint(0, 512, (2, 96), device="cuda"), {}, {}
    for kind in ("flash_attention_2", "sdpa", "eager"):
        config = LlamaConfig(
            attn_implementation=kind,
            head_dim=dim,
            hidden_size=4 * dim,
            intermediate_size=256,
            num_attention_heads=4,
            num_hidden_layers=2,
            num_key_value_heads=2,
            vocab_size=512,
        )
        models[kind] = LlamaForCausalLM(config).to("cuda", getattr(torch, DTYPES[dtype])).eval()
        models[kind].load_state_dict(models["flash_attention_2"].state_dict())
        same("attention in use", kind, models[kind].config._attn_implementation)
        with torch.no_grad():
            logits[kind] = models[kind](tokens).logits.float()
    size = logits["eager"].abs().max().item()
    errors = {
        kind: worst(logits["flash_attention_2"], logits[kind]) / size for kind in ("sdpa", "eager")
    }
    said = ", ".join(f"{100 * error:.2f} % from {kind}" for kind, error in errors.items())
    need(max(errors.values()) < 0.03, f"logits: expected within 3 % of the largest, found {said}")
    if "backward" not in flash["features"]:
        return f"logits differ by {said}"
    model = models["flash_attention_2"].train()
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), []
    for _ in range(2):
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    need(
        losses[1] < losses[0] < math.inf, f"expected the loss to fall after a step, found {losses}"
    )
    return f"logits differ by {said}; loss {losses[0]:.3f} -> {losses[1]:.3f}"
