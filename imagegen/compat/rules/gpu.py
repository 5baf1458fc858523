"""What has machine code for a card: torch, and flash-attn 2 as it is built or published."""

from __future__ import annotations

from packaging.version import Version

from imagegen.compat.facts.rows import (
    CudaFact,
    FlashAttnFact,
    FlashAttnRelease,
    GpuFact,
    OsFact,
    TorchFact,
)
from imagegen.compat.rules.reason import Reason, Rule, capability, impossible, unverified, words
from imagegen.compat.rules.wheels import archs_in, best_wheel, wheels_of
from imagegen.model.target import Host, Origin, Python, minor


def torch_has_code_for_the_gpu(
    torch: TorchFact, index: Version, host: Host, gpu: GpuFact | None
) -> Reason | None:
    """Machine code runs on its own compute capability's major, from its minor on. PTX, which a
    driver could compile for a newer card, is not counted on.
    """
    build = torch.build_for(index)
    if gpu is None or build is None:
        return None
    archs = build.archs_aarch64 if host == "aarch64" else build.archs
    if host == "aarch64" and not archs:
        text = f"for which GPUs torch {torch.version} for CUDA {index} is built on aarch64 is not "
        return unverified("torch-gpu-unknown", "run", text + "recorded", torch)
    if gpu.runs(archs):
        return None
    text = (
        f"torch {torch.version} for CUDA {index} has no code for {gpu.name} (compute capability "
        f"{capability(gpu.capability)}): no kernel image is available. It has "
        f"{words(map(capability, archs))}"
    )
    source = torch if build.read else f"PyTorch's build scripts ({torch.checked})"
    return impossible("torch-gpu", "run", text, source)


def flash_attn_knows_the_gpu(
    flash_attn: FlashAttnRelease | None, gpu: GpuFact | None
) -> Reason | None:
    """FlashAttention-2 has kernels for Ampere and newer only, however it is built."""
    if not isinstance(flash_attn, FlashAttnFact):
        return None
    if gpu is None or gpu.runs(tuple(flash_attn.archs)):
        return None
    text = (
        f"flash-attn {flash_attn.version} has no kernels for {gpu.name} (compute capability "
        f"{capability(gpu.capability)}), however it is built: only for "
        f"{words(map(capability, flash_attn.archs))}"
    )
    return impossible("flash-attn-gpu", "run", text, flash_attn)


def flash_attn_has_code_for_the_gpu(
    flash_attn: FlashAttnRelease | None,
    origin: Origin,
    torch: TorchFact,
    index: Version,
    python: Python,
    host: Host,
    os: OsFact,
    cuda: CudaFact,
    archs: tuple[int, ...],
    gpu: GpuFact | None,
) -> Reason | None:
    """The binary at hand may hold less than flash-attn could: older nvcc, a selection, a wheel."""
    if not isinstance(flash_attn, FlashAttnFact):
        return None
    if gpu is None or not gpu.runs(tuple(flash_attn.archs)):
        return None
    wheels = wheels_of(flash_attn, origin, torch, index, python, host)
    wheel = best_wheel(flash_attn, wheels, index, os, gpu)
    if origin == "source":
        built = archs or flash_attn.able(cuda.version)
    elif wheel is None:
        return None  # that there is none is told by another rule
    else:
        built = archs_in(flash_attn, wheel)
    if gpu.runs(built):
        return None
    made = (
        f"compiled by nvcc {minor(cuda.version)}" if origin == "source" else f"the {origin} wheel"
    )
    text = f"flash-attn {flash_attn.version}, {made}, has no code for {gpu.name} (compute "
    text += f"capability {capability(gpu.capability)}): it has {words(map(capability, built))}"
    return impossible("flash-attn-gpu", "run", text, flash_attn)


RULES: tuple[Rule, ...] = (
    torch_has_code_for_the_gpu,
    flash_attn_knows_the_gpu,
    flash_attn_has_code_for_the_gpu,
)
