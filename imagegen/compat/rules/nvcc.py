"""What nvcc fits: torch, compiler, C library, card; and where it comes from."""

from __future__ import annotations

from packaging.version import Version

from imagegen.compat.facts.rows import CudaFact, GpuFact, OsFact, TorchFact
from imagegen.compat.rules.reason import (
    CUDA_13,
    Reason,
    Rule,
    capability,
    from_wheels,
    impossible,
    missing,
    unverified,
    warn,
    words,
)
from imagegen.model.target import Kind, minor

LISTS = "cog's list of Docker Hub tags (2026-05-07); public Dockerfiles (2026-11-21)"


def nvcc_is_of_torchs_major(torch: TorchFact, cuda: CudaFact, index: Version) -> Reason | None:
    """torch.utils.cpp_extension raises where the majors differ, and rightly: the two runtimes do
    not mix in one process.
    """
    if cuda.version.major == index.major:
        return None
    text = (
        f"nvcc {minor(cuda.version)} cannot compile an extension for a torch of CUDA {index}: "
        f"torch.utils.cpp_extension refuses another major. torch {torch.version} has builds for "
        f"CUDA {words(sorted(build.cuda for build in torch.build))}"
    )
    return impossible("nvcc-major", "compile", text, "torch/utils/cpp_extension.py of torch 2.15")


def nvcc_is_of_torchs_minor(cuda: CudaFact, index: Version) -> Reason | None:
    """Within a major the minors may differ; torch warns at every compilation."""
    if cuda.version.major != index.major or minor(cuda.version) == minor(index):
        return None
    text = f"nvcc {minor(cuda.version)} and torch's CUDA {index} are of one major: extensions "
    text += "compile and load, and torch warns of the difference each time"
    return warn("nvcc-minor", "compile", text, "torch/utils/cpp_extension.py of torch 2.15")


def the_base_image_exists(os: OsFact, cuda: CudaFact, kind: Kind) -> Reason | None:
    """NVIDIA publishes its images for some releases of Ubuntu. A tag that no list has is unknown,
    except outside the range that its support matrix gives.
    """
    if kind == "slim" and (cuda.version >= CUDA_13 or os.images_from is None):
        if os.images_before is None or cuda.version < os.images_before:
            return None  # nvcc comes from wheels, or cannot: see the next rule
        text = (
            f"NVIDIA dropped {os.os.name} with CUDA {os.images_before}; nobody recorded that nvcc "
        )
        return unverified("os-dropped", "compile", text + "from wheels works there", os)
    image = f"nvidia/cuda image of {cuda.version} for {os.os.name}"
    if os.images_from is None:
        text = f"there is no {image}: NVIDIA publishes none for {os.distribution}"
        return missing("base-image", "resolve", text, os)
    if cuda.version < os.images_from or (os.images_before and cuda.version >= os.images_before):
        end = f" up to below {os.images_before}" if os.images_before else ""
        text = f"there is no {image}: they go from {os.images_from}{end or ' on'}"
        return missing("base-image", "resolve", text, os)
    if cuda.base_for(os, kind):
        return None
    text = f"no list has an {image} ({'cudnn-devel' if kind == 'devel' else 'base'})"
    return unverified("base-image-unknown", "resolve", text, LISTS)


def nvcc_is_in_the_wheels(os: OsFact, cuda: CudaFact, kind: Kind) -> Reason | None:
    """Without an image of NVIDIA's, nvcc comes from wheels, and before CUDA 13 these hold none."""
    if kind == "devel" or cuda.version >= CUDA_13 or os.images_from is not None:
        return None
    text = (
        f"imagegen takes nvcc on {os.os.name} from wheels, and those of CUDA {minor(cuda.version)} "
        "hold ptxas only: it needs CUDA 13 or newer"
    )
    return impossible("wheel-nvcc", "resolve", text, "nvidia-cuda-nvcc wheels on PyPI (2026-11-21)")


def the_wheels_are_the_toolkit_of_torch(
    cuda: CudaFact, kind: Kind, torch: TorchFact, index: Version
) -> Reason | None:
    """Where nvcc comes from wheels it shares the CUDA libraries with torch, which names one exact
    release of the toolkit.
    """
    build = torch.build_for(index)
    if not from_wheels(kind, cuda) or build is None or index < CUDA_13:
        return None
    if build.toolkit is None:
        text = f"which toolkit release torch {torch.version} for CUDA {index} asks for, and with "
        text += "which nvcc from wheels must therefore agree, is not recorded"
        return unverified("toolkit-unknown", "resolve", text, torch)
    if build.toolkit == cuda.version:
        return None
    text = f"torch {torch.version} for CUDA {index} asks for the wheels of toolkit "
    text += f"{build.toolkit}: nvcc {cuda.version} from wheels does not go with them"
    return impossible("toolkit-pin", "resolve", text, torch)


def nvcc_takes_the_compiler(cuda: CudaFact, os: OsFact) -> Reason | None:
    """nvcc refuses a host compiler newer than those it was released with."""
    if os.gcc <= cuda.gcc_max:
        return None
    text = f"nvcc {minor(cuda.version)} takes gcc up to {cuda.gcc_max}; {os.os.name} has {os.gcc}"
    return impossible("nvcc-gcc", "compile", text, cuda)


def nvcc_takes_the_libc(cuda: CudaFact, os: OsFact) -> Reason | None:
    """nvcc's math headers declare functions that a newer glibc declares differently."""
    if cuda.glibc_max is None or os.glibc <= cuda.glibc_max:
        return None
    text = f"nvcc {minor(cuda.version)} compiles with glibc up to {cuda.glibc_max}; {os.os.name} "
    text += f"has {os.glibc}"
    return impossible("nvcc-glibc", "compile", text, cuda)


def gcc_has_the_standard(torch: TorchFact, os: OsFact) -> Reason | None:
    """gcc takes ``-std=c++20`` from release 10 on; before, the word was c++2a."""
    if torch.cxx <= 17 or os.gcc >= 10:
        return None
    text = f"extensions of torch {torch.version} need C++{torch.cxx}, which the gcc {os.gcc} of "
    text += f"{os.os.name} does not take"
    return impossible("torch-cxx20", "compile", text, torch)


def nvcc_makes_code_for_the_gpu(cuda: CudaFact, gpu: GpuFact | None) -> Reason | None:
    """A toolkit from before the card cannot compile for it, one from after its time no longer.

    What is in the image may run there, but nothing can be built on the pod.
    """
    if gpu is None or gpu.runs(cuda.archs):
        return None
    text = (
        f"nvcc {minor(cuda.version)} makes no code for {gpu.name} (compute capability "
        f"{capability(gpu.capability)}), only for {capability(cuda.archs[0])} to "
        f"{capability(cuda.archs[-1])}"
    )
    return impossible("nvcc-gpu", "compile", text, cuda)


RULES: tuple[Rule, ...] = (
    nvcc_is_of_torchs_major,
    nvcc_is_of_torchs_minor,
    the_base_image_exists,
    nvcc_is_in_the_wheels,
    the_wheels_are_the_toolkit_of_torch,
    nvcc_takes_the_compiler,
    nvcc_takes_the_libc,
    gcc_has_the_standard,
    nvcc_makes_code_for_the_gpu,
)
