"""What a PyTorch release has: builds, Pythons, partners."""

from __future__ import annotations

from packaging.version import Version

from imagegen.compat.facts.rows import TorchFact
from imagegen.compat.rules.reason import Reason, Rule, impossible, missing, unverified, words
from imagegen.model.target import Host, Python


def torch_is_built_for_the_cuda(torch: TorchFact, index: Version, host: Host) -> Reason | None:
    """A PyTorch release has wheels for a few CUDA versions, and fewer of them on ARM."""
    build = torch.build_for(index)
    if build and host in build.hosts:
        if not build.announced:
            return None
        text = f"torch {torch.version} for CUDA {index} was announced; nobody recorded its wheels"
        return unverified("torch-cuda-announced", "resolve", text, torch)
    known = words(sorted(b.cuda for b in torch.build if host in b.hosts))
    text = f"torch {torch.version} has no build for CUDA {index} on {host} (it has {known})"
    return missing("torch-cuda", "resolve", text, torch)


def torch_has_the_python(
    torch: TorchFact, index: Version, python: Python, host: Host
) -> Reason | None:
    """A wheel is for one Python minor; the free-threaded build takes wheels of its own."""
    if python in torch.wheels_for(host):
        return None
    if python in torch.index_pythons:
        text = (
            f"torch {torch.version} for Python {python} was seen on PyTorch's own index only, by "
            f"others; whether for CUDA {index} is not recorded"
        )
        return unverified("torch-python-index", "resolve", text, torch)
    text = (
        f"torch {torch.version} has no wheel for Python {python} on {host} "
        f"(it has {words(sorted(torch.wheels_for(host)))})"
    )
    return missing("torch-python", "resolve", text, torch)


def torchvision_has_the_python(torch: TorchFact, python: Python) -> Reason | None:
    """Each torch has one torchvision, and twice that one had fewer Pythons."""
    if torch.torchvision_pythons is None or python in torch.torchvision_pythons:
        return None
    text = f"torchvision {torch.torchvision}, the partner of torch {torch.version}, has no wheel "
    text += f"for Python {python}"
    return impossible("torchvision-python", "resolve", text, torch)


RULES: tuple[Rule, ...] = (
    torch_is_built_for_the_cuda,
    torch_has_the_python,
    torchvision_has_the_python,
)
