"""Versions that a user allowed although no fact knows them."""

from __future__ import annotations

from imagegen.compat.facts.rows import CudaFact, Fact, FlashAttnRelease, TorchFact
from imagegen.compat.rules.reason import Reason, Rule, unverified


def torch_is_known(torch: TorchFact) -> Reason | None:
    """A version that a user allowed without a fact about it."""
    return _assumed("torch", str(torch.version), torch)


def cuda_is_known(cuda: CudaFact) -> Reason | None:
    """A version that a user allowed without a fact about it."""
    return _assumed("CUDA", str(cuda.version), cuda)


def flash_attn_is_known(flash_attn: FlashAttnRelease | None) -> Reason | None:
    """A version that a user allowed without a fact about it."""
    return _assumed("flash-attn", str(flash_attn.version), flash_attn) if flash_attn else None


def _assumed(what: str, version: str, fact: Fact) -> Reason | None:
    if not fact.assumed:
        return None
    text = f"{what} {version} is in no fact; it is taken to be like {fact.assumed}"
    return unverified("unknown-version", "resolve", text, "a guess")


RULES: tuple[Rule, ...] = (
    torch_is_known,
    cuda_is_known,
    flash_attn_is_known,
)
