"""What FlashAttention-3 and -4 fit: packages of their own, which are installed and not compiled."""

from __future__ import annotations

from packaging.version import Version

from imagegen.compat.facts.rows import (
    FlashAttnPackageFact,
    FlashAttnRelease,
    GpuFact,
    TorchFact,
    exact,
)
from imagegen.compat.rules.reason import (
    Reason,
    Rule,
    capability,
    impossible,
    missing,
    unverified,
    warn,
    words,
)
from imagegen.model.target import Origin, Python, minor


def the_package_comes_as_a_wheel(
    flash_attn: FlashAttnRelease | None, origin: Origin
) -> Reason | None:
    """imagegen compiles flash-attn 2 only, and takes the others from their makers."""
    if not isinstance(flash_attn, FlashAttnPackageFact) or origin == "official":
        return None
    text = f"imagegen takes {_named(flash_attn)} as its makers' wheel only, from "
    text += "PyPI" if flash_attn.on_pypi else "PyTorch's own index"
    return impossible("flash-attn-origin", "resolve", text, "imagegen")


def the_package_takes_the_python(
    flash_attn: FlashAttnRelease | None, python: Python
) -> Reason | None:
    """Its wheels, and those of what it asks for, are for some Pythons."""
    if not isinstance(flash_attn, FlashAttnPackageFact) or python in flash_attn.pythons:
        return None
    text = f"{_named(flash_attn)} has no wheels for Python {python}, or what it asks for has none "
    text += f"(they have {words(flash_attn.pythons)})"
    return missing("flash-attn-python", "resolve", text, flash_attn)


def the_package_takes_the_torch(
    flash_attn: FlashAttnRelease | None, torch: TorchFact
) -> Reason | None:
    """FlashAttention-3 is linked against the stable interface of libtorch, which begins somewhere;
    FlashAttention-4 is Python, of which an older torch may still do.
    """
    if not isinstance(flash_attn, FlashAttnPackageFact):
        return None
    if torch.version.release[:2] >= flash_attn.torch_min.release[:2]:
        return None
    text = f"{_named(flash_attn)} is for torch {flash_attn.torch_min} and later, not "
    text += str(torch.version)
    if flash_attn.generation == 4:
        return unverified("flash-attn-torch", "import", text, flash_attn)
    return missing("flash-attn-torch", "import", text, flash_attn)


def the_package_takes_the_cuda(
    flash_attn: FlashAttnRelease | None, index: Version
) -> Reason | None:
    """It needs libraries of torch's CUDA major; a minor that nobody saw may do as well."""
    if not isinstance(flash_attn, FlashAttnPackageFact):
        return None
    if any(exact(index, known) for known in flash_attn.cuda):
        return None
    text = f"{_named(flash_attn)} was seen for a torch of CUDA {words(flash_attn.cuda)}, not "
    text += minor(index)
    if any(index.major == known.major for known in flash_attn.cuda):
        return unverified("flash-attn-cuda", "import", text, flash_attn)
    return missing("flash-attn-cuda", "import", text, flash_attn)


def the_package_is_proven(flash_attn: FlashAttnRelease | None) -> Reason | None:
    """What nobody could try here is said to be so."""
    if not isinstance(flash_attn, FlashAttnPackageFact) or not flash_attn.unproven:
        return None
    text = f"{_named(flash_attn)}: {flash_attn.unproven}"
    return unverified("flash-attn-unproven", "resolve", text, flash_attn)


def the_package_is_final(flash_attn: FlashAttnRelease | None) -> Reason | None:
    """A beta, whose kernels are made at the first call: nothing of them is seen without a GPU."""
    if not isinstance(flash_attn, FlashAttnPackageFact) or not flash_attn.version.is_prerelease:
        return None
    text = (
        f"{_named(flash_attn)} is a beta, and compiles each kernel at its first call, on the GPU: "
        "the checks without one see that it loads, no more"
    )
    return warn("flash-attn-beta", "run", text, flash_attn)


def the_package_stands_alone(flash_attn: FlashAttnRelease | None) -> Reason | None:
    """Two distributions own the same files: the later install overwrites those of the other."""
    if not isinstance(flash_attn, FlashAttnPackageFact) or not flash_attn.shares:
        return None
    text = (
        f"{_named(flash_attn)} and flash-attn 2.8 both hold {flash_attn.shares}, of different "
        "releases: a target has one of them, and the other must not be installed beside it later"
    )
    return warn("flash-attn-cute", "import", text, "the wheel and the sdist; prime-rl #1949")


def the_package_runs_on_the_gpu(
    flash_attn: FlashAttnRelease | None, gpu: GpuFact | None
) -> Reason | None:
    """FlashAttention-3 knows Ampere, Ada and Hopper; -4 newer ones too, and trains from Hopper."""
    if gpu is None or not isinstance(flash_attn, FlashAttnPackageFact):
        return None
    major = gpu.capability // 10
    if major in flash_attn.trains_on:
        return None
    card = f"{gpu.name} (compute capability {capability(gpu.capability)})"
    if major not in flash_attn.gpus:
        gpus = words(f"{known}.x" for known in flash_attn.gpus)
        text = f"{_named(flash_attn)} has no kernels for {card}: only for {gpus}"
        return impossible("flash-attn-gpu", "run", text, flash_attn)
    gpus = words(f"{known}.x" for known in flash_attn.trains_on)
    text = f"{_named(flash_attn)} has no backward pass for {card}, only for {gpus}: it infers "
    text += "there and does not train, and transformers does not take it there at all"
    return warn("flash-attn-backward", "run", text, flash_attn)


def _named(release: FlashAttnPackageFact) -> str:
    return f"{release.name} {release.version}"


RULES: tuple[Rule, ...] = (
    the_package_comes_as_a_wheel,
    the_package_takes_the_python,
    the_package_takes_the_torch,
    the_package_takes_the_cuda,
    the_package_is_proven,
    the_package_is_final,
    the_package_stands_alone,
    the_package_runs_on_the_gpu,
)
