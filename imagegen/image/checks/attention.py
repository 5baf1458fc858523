"""What attention has to give: plain operations in fp32, and how far flash-attn may be from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from suite import need

DEVICE = "cuda"
DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
FORWARD, BACKWARD = 0.02, 0.1  # the largest error of an output and of a gradient, beyond 1 relative


def tensors(
    dim: int, dtype: str, lengths: tuple[int, int], kv_heads: int = 2, *, batch: int = 2,
    heads: int = 4,
) -> list[Any]:  # fmt: skip
    """q, k, v of (batch, length, heads, head dimension); `lengths` are those of q and of k."""
    import torch

    shapes = [(batch, lengths[0], heads, dim), *[(batch, lengths[1], kv_heads, dim)] * 2]
    kind = getattr(torch, DTYPES[dtype])
    return [torch.randn(*shape, device=DEVICE, dtype=kind, requires_grad=True) for shape in shapes]


def hidden(
    queries: int, keys: int, *, causal: bool = False, window: tuple[int, int] = (-1, -1)
) -> tuple[Any, Any]:
    """Which keys a query does not see, and how far ahead of it each key is.

    As in flash-attn, the last query lines up with the last key, and -1 is no limit.
    """
    import torch

    rows = torch.arange(queries, device=DEVICE)[:, None] + keys - queries
    ahead = torch.arange(keys, device=DEVICE)[None, :] - rows
    left, right = window[0], 0 if causal else window[1]
    mask = torch.zeros_like(ahead, dtype=torch.bool)
    if left >= 0:
        mask |= ahead < -left
    if right >= 0:
        mask |= ahead > right
    return mask, ahead


def attention(
    q: Any, k: Any, v: Any, *, causal: bool = False, window: tuple[int, int] = (-1, -1),
    softcap: float = 0.0, slopes: Any = None, kept: Any = None, dropout: float = 0.0,
) -> Any:  # fmt: skip
    """Attention by plain operations in the tensors' own type; a row without keys is zero.

    `slopes` are ALiBi's, for each head or each batch and head; `kept` says which of the weights
    survive `dropout`, as (batch, heads, queries, keys).
    """
    import torch

    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    mask, ahead = hidden(q.shape[2], k.shape[2], causal=causal, window=window)
    if slopes is not None:
        scores = scores - slopes.reshape(-1, q.shape[1], 1, 1) * ahead.abs()
    weights = torch.softmax(scores.masked_fill(mask, -math.inf), dim=-1).masked_fill(mask, 0.0)
    if kept is not None:
        weights = weights.masked_fill(~kept, 0.0) / (1 - dropout)
    return (weights.to(v.dtype) @ v).transpose(1, 2)


def worst(found: Any, expected: Any) -> float:
    """The largest absolute difference; infinite where a value is not finite."""
    if not found.numel():
        return 0.0
    error = (found.float() - expected.float()).abs().max().item()
    return float(error) if math.isfinite(error) else math.inf


def allowed(exact: Any, plain: Any, factor: float) -> float:
    """The largest error that is no defect: what plain torch makes in the same type, `factor` times.

    Plain torch may be exact by luck, hence half a unit in the last place of the largest value, and
    2e-4, as in flash-attn's own tests.
    """
    import torch

    peak = exact.abs().max().item() if exact.numel() else 0.0
    ulp = float(torch.finfo(plain.dtype).eps * peak)
    return factor * worst(plain, exact) + 0.5 * ulp + 2e-4


def close(
    what: str, found: Any, exact: Any, plain: Any, *, limit: float, factor: float = 3.0
) -> float:
    """Fail where `found` is too far from `exact`, naming the worst place; returns the error.

    The error is absolute for values up to 1 and relative beyond.
    """
    need(found.shape == exact.shape, f"{what}: expected {exact.shape}, found {found.shape}")
    most = allowed(exact, plain, factor)
    need(math.isfinite(most), f"{what}: plain torch is not finite, so nothing can be compared")
    if not found.numel():
        return 0.0
    error = (found.float() - exact).abs().nan_to_num(math.inf)
    scaled = float((error / exact.abs().clamp(min=1)).max().item())
    if error.max().item() <= most and scaled < limit:
        return scaled
    at = int(error.argmax().item())
    place: list[int] = []
    rest = at
    for size in reversed(exact.shape):
        place.insert(0, rest % size)
        rest //= size
    raise AssertionError(
        f"{what}: expected an error of at most {most:.2g} ({factor:g} times plain torch's) "
        f"and below {limit:g} against fp32, found {error.max().item():.3g} (scaled {scaled:.3g}), "
        f"at {place}: {found.reshape(-1)[at].item():.5g} instead of "
        f"{exact.reshape(-1)[at].item():.5g}; {int((error > most).sum())} of {error.numel()} off"
    )


@dataclass
class Errors:
    """The largest errors seen."""

    forward: float = 0.0
    backward: float = 0.0
    calls: int = 0

    def __str__(self) -> str:
        return f"{self.calls} calls, largest error: forward {self.forward:.4f}" + (
            f", backward {self.backward:.4f}" if self.backward else ""
        )


class Expected:
    """What `function`, which is attention by plain operations, gives for `inputs`.

    Once in fp32, which is the truth, and once in the type of the inputs, whose error is the
    yardstick. With `gradients` also the gradients, for a random gradient of the output.
    """

    def __init__(
        self, inputs: Sequence[Any], function: Callable[..., Any], *, gradients: bool,
        factor: float = 3.0,
    ) -> None:  # fmt: skip
        import torch

        self.inputs, self.factor, self.gradients = inputs, factor, gradients
        leaves = [x.detach().float().requires_grad_() for x in inputs]
        exact, plain = function(*leaves), function(*inputs)
        self.output = exact.detach(), plain.detach()
        self.grad = torch.randn_like(plain)
        if gradients:
            truth = torch.autograd.grad(exact, leaves, self.grad.float())
            self.wanted = [*zip(truth, torch.autograd.grad(plain, inputs, self.grad), strict=True)]

    def forward(self, what: str, out: Any, errors: Errors) -> None:
        """Fail where `out`, flash-attn's output, is not what was expected."""
        error = close(f"forward, {what}", out, *self.output, limit=FORWARD, factor=self.factor)
        errors.forward, errors.calls = max(errors.forward, error), errors.calls + 1

    def backward(self, what: str, found: Sequence[Any], errors: Errors) -> None:
        """Fail where `found`, flash-attn's gradients, are not what was expected."""
        for name, gradient, pair in zip("qkv", found, self.wanted, strict=True):
            place = f"gradient of {name}, {what}"
            error = close(place, gradient, *pair, limit=BACKWARD, factor=self.factor)
            errors.backward = max(errors.backward, error)

    def both(self, what: str, out: Any, errors: Errors) -> None:
        """The output, and the gradients if there are any to compare with."""
        import torch

        self.forward(what, out, errors)
        if self.gradients:
            self.backward(what, torch.autograd.grad(out, self.inputs, self.grad), errors)


def rotated(x: Any, cos: Any, sin: Any, *, interleaved: bool) -> Any:
    """`x` (tokens, heads, head dimension) with its first dimensions turned by an angle per token.

    `cos` and `sin` are (tokens, half of the dimensions that turn); pairs are neighbours if
    `interleaved`, else the two halves.
    """
    import torch

    half, (cos, sin) = cos.shape[-1], (part[:, None, :].to(x.dtype) for part in (cos, sin))
    turning, still = x[..., : 2 * half], x[..., 2 * half :]
    pairs = turning.unflatten(-1, (half, 2) if interleaved else (2, half))
    one, two = pairs.unbind(-1 if interleaved else -2)
    turned = torch.stack([one * cos - two * sin, one * sin + two * cos], -1 if interleaved else -2)
    return torch.cat([turned.flatten(-2), still], dim=-1)
