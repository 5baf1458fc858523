"""The checks that need a GPU: kernels launch, attention is right, what was left out is refused."""

from __future__ import annotations

import functools
import math
import re
import tempfile
from collections.abc import Callable
from importlib import metadata
from itertools import product
from typing import Any

from cpu import compiled, promised_flash_attn
from suite import Promise, Suite, need, same

HEAD_DIMS = (32, 64, 96, 128, 192, 256)  # what flash-attn has kernels for
DTYPES = {"fp16": "float16", "bf16": "bfloat16"}

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


def reference(
    q: Any, k: Any, v: Any, *, causal: bool = False, window: tuple[int, int] = (-1, -1),
    softcap: float = 0.0, slopes: Any = None,
) -> Any:  # fmt: skip
    """Attention in fp32 by plain operations, of tensors (batch, length, heads, head dimension).

    As in flash-attn, the last query lines up with the last key and a row without keys is zero.
    """
    import torch

    q, k, v = (x.float().transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    rows = torch.arange(q.shape[2], device=q.device)[:, None] + k.shape[2] - q.shape[2]
    ahead = torch.arange(k.shape[2], device=q.device)[None, :] - rows
    if slopes is not None:
        scores = scores - slopes[:, None, None] * ahead.abs()
    left, right = window[0], 0 if causal else window[1]
    hidden = torch.zeros_like(ahead, dtype=torch.bool)
    if left >= 0:
        hidden |= ahead < -left
    if right >= 0:
        hidden |= ahead > right
    weights = torch.softmax(scores.masked_fill(hidden, -math.inf), dim=-1).nan_to_num(0.0)
    return (weights @ v).transpose(1, 2)


def tensors(
    promise: Promise, dim: int, dtype: str, lengths: tuple[int, int], kv_heads: int = 2
) -> list[Any]:
    """q, k, v for four query heads, on the GPU; lengths that fill no tile exactly come best."""
    torch = gpu(promise)
    kind = getattr(torch, DTYPES[dtype])
    shapes = [(2, lengths[0], 4, dim), *[(2, lengths[1], kv_heads, dim)] * 2]
    return [torch.randn(*shape, device="cuda", dtype=kind, requires_grad=True) for shape in shapes]


def worst(found: Any, expected: Any) -> float:
    """The largest absolute difference; infinite where a value is not finite."""
    error = (found.float() - expected.float()).abs().max().item()
    return float(error) if math.isfinite(error) else math.inf


def close(what: str, found: Any, expected: Any, limit: float) -> float:
    error = worst(found, expected)
    need(error < limit, f"{what}: expected an error below {limit} against fp32, found {error:.4f}")
    return error


def kernels(promise: Promise) -> list[tuple[int, str]]:
    flash = promised_flash_attn(promise)
    return [*product(flash["head_dims"], flash["dtypes"])]


@check("attention that runs and is wrong: fp32 is the reference", level="gpu", timeout=300)
def flash_attn_forward_backward(promise: Promise) -> str:
    torch, flash = gpu(promise), promised_flash_attn(promise)
    from flash_attn import flash_attn_func

    forward = backward = 0.0
    for (dim, dtype), causal, heads in product(kernels(promise), (False, True), (4, 2)):
        what = f"{dtype}, head dimension {dim}, causal={causal}, {heads} of 4 KV heads"
        q, k, v = inputs = tensors(promise, dim, dtype, (113, 203), heads)
        out, expected = flash_attn_func(q, k, v, causal=causal), reference(q, k, v, causal=causal)
        forward = max(forward, close(f"forward, {what}", out, expected, 0.02))
        if "backward" not in flash["features"]:
            continue
        grad = torch.randn_like(out)
        wanted = torch.autograd.grad(expected, inputs, grad.float())
        for name, found, want in zip(
            "qkv", torch.autograd.grad(out, inputs, grad), wanted, strict=True
        ):
            backward = max(backward, close(f"gradient of {name}, {what}", found, want, 0.1))
    return f"largest error: forward {forward:.4f}, backward {backward:.4f}"


@check("packed sequences that see each other's keys", level="gpu")
def flash_attn_varlen(promise: Promise) -> str:
    torch, lengths, error = gpu(promise), (37, 150, 1), 0.0
    from flash_attn import flash_attn_varlen_func

    ends = torch.tensor([0, 37, 187, 188], device="cuda", dtype=torch.int32)
    for dim, dtype in kernels(promise):
        q, k, v = (x[0] for x in tensors(promise, dim, dtype, (188, 188)))
        out = flash_attn_varlen_func(q, k, v, ends, ends, 150, 150, causal=True)
        for part in zip(*(x.split(lengths) for x in (out, q, k, v)), strict=True):
            found, *inputs = (x[None] for x in part)
            error = max(
                error, close(f"{dtype} {dim}", found, reference(*inputs, causal=True), 0.02)
            )
    return f"largest error {error:.4f} over lengths {lengths}"


@check("wrong generation: a new key that misses the cache or lands in another place", level="gpu")
def flash_attn_kvcache(promise: Promise) -> str:
    torch, error = gpu(promise), 0.0
    from flash_attn import flash_attn_with_kvcache

    for dim, dtype in kernels(promise):
        q, keys, values = (x.detach() for x in tensors(promise, dim, dtype, (1, 300)))
        _, k, v = (x.detach() for x in tensors(promise, dim, dtype, (1, 1)))
        used = torch.tensor([0, 257], device="cuda", dtype=torch.int32)
        out = flash_attn_with_kvcache(q, keys, values, k, v, cache_seqlens=used, causal=True)
        for row, length in enumerate(used.tolist()):
            same(
                "the appended key is in the cache", True, torch.equal(keys[row, length], k[row, 0])
            )
            inputs = (x[row : row + 1, : length + 1] for x in (keys, values))
            expected = reference(q[row : row + 1], *inputs, causal=True)
            error = max(error, close(f"{dtype} {dim}", out[row : row + 1], expected, 0.02))
    return f"largest error {error:.4f}"


def outcome(call: Callable[[], Any]) -> tuple[str, Any]:
    """("refused", message) if the call raises RuntimeError, else ("answered", its result)."""
    import torch

    try:
        result = call()
        torch.cuda.synchronize()
    except RuntimeError as error:
        return "refused", str(error).splitlines()[0]
    return "answered", result


@check("the worst defect: a call that this build cannot serve and answers wrongly", level="gpu")
def flash_attn_refuses(promise: Promise) -> str:
    torch, flash = gpu(promise), promised_flash_attn(promise)
    from flash_attn import flash_attn_func, flash_attn_with_kvcache

    dim, dtype = flash["head_dims"][-1], flash["dtypes"][-1]
    slopes = torch.tensor([0.5, 0.25, 0.125, 0.0625], device="cuda")
    options = {
        "softcap": ({"softcap": 5.0}, {"softcap": 5.0}),
        "alibi": ({"alibi_slopes": slopes}, {"slopes": slopes}),
        "local": ({"window_size": (16, 8)}, {"window": (16, 8)}),
    }
    faults: list[str] = []
    outcomes: dict[str, list[str]] = {"refused": [], "answered": []}

    def expect(feature: str, promised: bool, call: Callable[[], Any], wanted: Any = None) -> None:
        how, result = outcome(call)
        outcomes[how].append(feature)
        if how != ("answered" if promised else "refused"):
            said = "promised" if promised else "left out of the promise"
            faults.append(
                f"{feature}: {said}, yet {how} ({result if how == 'refused' else 'no error'})"
            )
        elif promised and wanted is not None and not worst(result, wanted) < 0.02:
            faults.append(
                f"{feature}: expected an error below 0.02, found {worst(result, wanted):.4f}"
            )

    q, k, v = tensors(promise, dim, dtype, (113, 203))
    for feature, (asked, meant) in options.items():
        promised, wanted = feature in flash["features"], reference(q, k, v, **meant)
        with_cache = functools.partial(flash_attn_with_kvcache, q.detach(), k.detach(), v.detach())
        expect(feature, promised, functools.partial(flash_attn_func, q, k, v, **asked), wanted)
        expect(f"{feature} with a cache", promised, functools.partial(with_cache, **asked), wanted)
    for feature, call in {
        "dropout": lambda: flash_attn_func(q, k, v, dropout_p=0.1),
        "backward": lambda: torch.autograd.grad(flash_attn_func(q, k, v).sum(), q),
    }.items():
        expect(feature, feature in flash["features"], call)
    uneven = tensors(promise, dim - 8, dtype, (113, 203))
    expect(
        f"uneven_k (head dimension {dim - 8})",
        "uneven_k" in flash["features"],
        functools.partial(flash_attn_func, *uneven),
        reference(*uneven),
    )
    for other in sorted({*product(HEAD_DIMS, DTYPES)} - {*kernels(promise)}):
        call = functools.partial(flash_attn_func, *tensors(promise, *other, (113, 203)))
        expect(f"{other[1]} head dimension {other[0]}", False, call)
    need(not faults, f"expected what is left out to raise RuntimeError, found: {'; '.join(faults)}")
    return "; ".join(f"{how}: {', '.join(names) or 'none'}" for how, names in outcomes.items())


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

    dim, dtype = max(d for d in flash["head_dims"] if d <= 128), flash["dtypes"][-1]
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
