"""What cannot be combined, and why: one small function for each fact.

A rule's parameters name the axes that it is about (see ``Combination``), so that the search can
apply it as soon as these are chosen. It returns None, or a ``Reason`` with

* a severity: ``impossible``; ``unverified``, when no fact says either way; ``warn``, when it works
  with something to know;
* the stage at which it would fail: resolve, compile, import, start or run;
* the source of the fact.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from packaging.version import Version

from imagegen.facts.rows import (
    CudaFact,
    FlashAttnFact,
    GpuFact,
    OsFact,
    Sourced,
    ThirdPartyWheel,
    TorchFact,
    Wheel,
)
from imagegen.model import Host, Kind, Origin, Python, minor

Severity = Literal["impossible", "unverified", "warn"]
Stage = Literal["resolve", "compile", "import", "start", "run"]

CUDA_13 = Version("13")
GATED_FROM = Version("12.6")
"""From here on the nvidia/cuda images' NVIDIA_REQUIRE_CUDA exempts no GeForce card; those of 12.4
and older do, read in the images' own environment."""

THIRD_PARTY = "mjun0812/flash-attention-prebuild-wheels (2026-08-22)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """Why a combination does not work, may not, or works with something to know."""

    code: str
    severity: Severity
    stage: Stage
    text: str
    source: str
    missing: bool = False
    """Whether a piece does not exist at all, which hides what else would be wrong with it."""


Rule = Callable[..., Reason | None]


@cache
def axes_of(rule: Rule) -> tuple[str, ...]:
    """The axes that a rule is about."""
    return tuple(inspect.signature(rule).parameters)


def _impossible(code: str, stage: Stage, text: str, fact: Sourced | str) -> Reason:
    return Reason(code=code, severity="impossible", stage=stage, text=text, source=_from(fact))


def _missing(code: str, stage: Stage, text: str, fact: Sourced | str) -> Reason:
    return replace(_impossible(code, stage, text, fact), missing=True)


def _unverified(code: str, stage: Stage, text: str, fact: Sourced | str) -> Reason:
    return Reason(code=code, severity="unverified", stage=stage, text=text, source=_from(fact))


def _warn(code: str, stage: Stage, text: str, fact: Sourced | str) -> Reason:
    return Reason(code=code, severity="warn", stage=stage, text=text, source=_from(fact))


def _from(fact: Sourced | str) -> str:
    return fact if isinstance(fact, str) else f"{fact.source} ({fact.checked})"


def _words(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"


# --- torch ----------------------------------------------------------------------------------------


def torch_is_built_for_the_cuda(torch: TorchFact, index: Version, host: Host) -> Reason | None:
    """A PyTorch release has wheels for a few CUDA versions, and fewer of them on ARM."""
    build = torch.build_for(index)
    if build and host in build.hosts:
        if not build.announced:
            return None
        text = f"torch {torch.version} for CUDA {index} was announced; nobody recorded its wheels"
        return _unverified("torch-cuda-announced", "resolve", text, torch)
    known = _words(b.cuda for b in torch.build if host in b.hosts)
    text = f"torch {torch.version} has no build for CUDA {index} on {host} (it has {known})"
    return _missing("torch-cuda", "resolve", text, torch)


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
        return _unverified("torch-python-index", "resolve", text, torch)
    text = (
        f"torch {torch.version} has no wheel for Python {python} on {host} "
        f"(it has {_words(torch.wheels_for(host))})"
    )
    return _missing("torch-python", "resolve", text, torch)


def torchvision_has_the_python(torch: TorchFact, python: Python) -> Reason | None:
    """Each torch has one torchvision, and twice that one had fewer Pythons."""
    if torch.torchvision_pythons is None or python in torch.torchvision_pythons:
        return None
    text = f"torchvision {torch.torchvision}, the partner of torch {torch.version}, has no wheel "
    text += f"for Python {python}"
    return _impossible("torchvision-python", "resolve", text, torch)


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
        return _unverified("torch-gpu-unknown", "run", text + "recorded", torch)
    if gpu.runs(archs):
        return None
    text = (
        f"torch {torch.version} for CUDA {index} has no code for {gpu.name} (compute capability "
        f"{_capability(gpu.capability)}): no kernel image is available. It has "
        f"{_words(map(_capability, archs))}"
    )
    return _impossible("torch-gpu", "run", text, torch)


# --- nvcc -----------------------------------------------------------------------------------------


def nvcc_is_of_torchs_major(torch: TorchFact, cuda: CudaFact, index: Version) -> Reason | None:
    """torch.utils.cpp_extension raises where the majors differ, and rightly: the two runtimes do
    not mix in one process.
    """
    if cuda.version.major == index.major:
        return None
    text = (
        f"nvcc {minor(cuda.version)} cannot compile an extension for a torch of CUDA {index}: "
        f"torch.utils.cpp_extension refuses another major. torch {torch.version} has builds for "
        f"CUDA {_words(build.cuda for build in torch.build)}"
    )
    return _impossible("nvcc-major", "compile", text, "torch/utils/cpp_extension.py of torch 2.15")


def nvcc_is_of_torchs_minor(cuda: CudaFact, index: Version) -> Reason | None:
    """Within a major the minors may differ; torch warns at every compilation."""
    if cuda.version.major != index.major or minor(cuda.version) == minor(index):
        return None
    text = f"nvcc {minor(cuda.version)} and torch's CUDA {index} are of one major: extensions "
    text += "compile and load, and torch warns of the difference each time"
    return _warn("nvcc-minor", "compile", text, "torch/utils/cpp_extension.py of torch 2.15")


def nvcc_takes_the_compiler(cuda: CudaFact, os: OsFact) -> Reason | None:
    """nvcc refuses a host compiler newer than those it was released with."""
    if os.gcc <= cuda.gcc_max:
        return None
    text = f"nvcc {minor(cuda.version)} takes gcc up to {cuda.gcc_max}; {os.os.name} has {os.gcc}"
    return _impossible("nvcc-gcc", "compile", text, cuda)


def nvcc_takes_the_libc(cuda: CudaFact, os: OsFact) -> Reason | None:
    """nvcc's math headers declare functions that a newer glibc declares differently."""
    if cuda.glibc_max is None or os.glibc <= cuda.glibc_max:
        return None
    text = f"nvcc {minor(cuda.version)} compiles with glibc up to {cuda.glibc_max}; {os.os.name} "
    text += f"has {os.glibc}"
    return _impossible("nvcc-glibc", "compile", text, cuda)


def the_base_image_exists(os: OsFact, cuda: CudaFact, kind: Kind) -> Reason | None:
    """NVIDIA publishes its images for some releases of Ubuntu. A tag that no list has is unknown,
    except outside the range that its support matrix gives.
    """
    if kind == "slim" and (cuda.version >= CUDA_13 or os.images_from is None):
        return None  # nvcc comes from wheels, or cannot: see the next rule
    image = f"nvidia/cuda image of {cuda.version} for {os.os.name}"
    if os.images_from is None:
        text = f"there is no {image}: NVIDIA publishes none for {os.distribution}"
        return _missing("base-image", "resolve", text, os)
    if cuda.version < os.images_from or (os.images_before and cuda.version >= os.images_before):
        end = f" up to below {os.images_before}" if os.images_before else ""
        text = f"there is no {image}: they go from {os.images_from}{end or ' on'}"
        return _missing("base-image", "resolve", text, os)
    if cuda.base_for(os, kind):
        return None
    text = f"no list has an {image} ({'cudnn-devel' if kind == 'devel' else 'base'})"
    return _unverified("base-image-unknown", "resolve", text, cuda)


def nvcc_is_in_the_wheels(os: OsFact, cuda: CudaFact, kind: Kind) -> Reason | None:
    """Without an image of NVIDIA's, nvcc comes from wheels, and before CUDA 13 these hold none."""
    if kind == "devel" or cuda.version >= CUDA_13 or os.images_from is not None:
        return None
    text = (
        f"on {os.os.name} nvcc comes from wheels, and those of CUDA {minor(cuda.version)} hold "
        "ptxas only: it needs CUDA 13 or newer"
    )
    return _impossible(
        "wheel-nvcc", "resolve", text, "nvidia-cuda-nvcc wheels on PyPI (2026-11-21)"
    )


def the_wheels_are_the_toolkit_of_torch(
    cuda: CudaFact, kind: Kind, torch: TorchFact, index: Version
) -> Reason | None:
    """Where nvcc comes from wheels it shares the CUDA libraries with torch, which names one exact
    release of the toolkit.
    """
    build = torch.build_for(index)
    if kind == "devel" or cuda.version < CUDA_13 or build is None or index < CUDA_13:
        return None
    if build.toolkit is None:
        text = f"which toolkit release torch {torch.version} for CUDA {index} asks for, and with "
        text += "which nvcc from wheels must therefore agree, is not recorded"
        return _unverified("toolkit-unknown", "resolve", text, torch)
    if build.toolkit == cuda.version:
        return None
    text = f"torch {torch.version} for CUDA {index} asks for the wheels of toolkit "
    text += f"{build.toolkit}: nvcc {cuda.version} from wheels does not go with them"
    return _impossible("toolkit-pin", "resolve", text, torch)


def nvcc_makes_code_for_the_gpu(cuda: CudaFact, gpu: GpuFact | None) -> Reason | None:
    """A toolkit from before the card cannot compile for it, one from after its time no longer.

    What is in the image may run there, but nothing can be built on the pod.
    """
    if gpu is None or gpu.runs(cuda.archs):
        return None
    text = (
        f"nvcc {minor(cuda.version)} makes no code for {gpu.name} (compute capability "
        f"{_capability(gpu.capability)}), only for {_capability(cuda.archs[0])} to "
        f"{_capability(cuda.archs[-1])}"
    )
    return _impossible("nvcc-gpu", "compile", text, cuda)


# --- flash-attn -----------------------------------------------------------------------------------


def wheel_of(
    flash_attn: FlashAttnFact,
    origin: Origin,
    torch: TorchFact,
    index: Version,
    python: Python,
    host: Host,
) -> Wheel | ThirdPartyWheel | None:
    """The published wheel that fits, the one that asks for the oldest glibc first."""
    build = torch.build_for(index)
    if build is None:
        return None
    if origin == "official":
        for row in flash_attn.wheel:
            if (
                _fits(row, torch, python, host)
                and row.cuda_major == index.major
                and build.abi in row.abi
            ):
                return row
    if origin == "third-party":
        rows = _others(flash_attn, torch, index, python, host)
        rows = [row for row in rows if row.abi == build.abi]
        return min(
            rows, key=lambda row: (row.glibc, abs(row.nvcc.minor - index.minor)), default=None
        )
    return None


def _others(
    flash_attn: FlashAttnFact, torch: TorchFact, index: Version, python: Python, host: Host
) -> list[ThirdPartyWheel]:
    """Third-party wheels that fit but perhaps for their ABI."""
    rows = flash_attn.third_party_for.get((torch.version.major, torch.version.minor, host), [])
    return [row for row in rows if python in row.pythons and row.torch_cuda.major == index.major]


def _fits(row: Wheel, torch: TorchFact, python: Python, host: Host) -> bool:
    return (
        row.torch.release[:2] == torch.version.release[:2]
        and row.host == host
        and python in row.pythons
    )


def flash_attn_has_the_wheel(
    flash_attn: FlashAttnFact | None,
    origin: Origin,
    torch: TorchFact,
    index: Version,
    python: Python,
    host: Host,
) -> Reason | None:
    """A wheel fits one torch minor, CUDA major, Python, C++ ABI and machine."""
    if flash_attn is None or origin != "official" or torch.build_for(index) is None:
        return None
    name = f"flash-attn {flash_attn.version}"
    found = wheel_of(flash_attn, origin, torch, index, python, host)
    if isinstance(found, Wheel):
        if not found.development:
            return None
        text = f"the wheel of {name} for torch {minor(torch.version)} was built with a development "
        text += "version of that torch"
        return _unverified("flash-attn-development", "import", text, flash_attn)
    unknown = flash_attn.wheels_unknown_to
    if unknown and torch.version.release[:2] <= unknown.release[:2]:
        text = f"which wheels {name} has is not recorded"
        return _unverified("flash-attn-wheel-unknown", "resolve", text, flash_attn)
    near = [row for row in flash_attn.wheel if _fits(row, torch, python, host)]
    if any(row.cuda_major == index.major for row in near):
        abi = "without" if torch.build_for(index).abi is False else "with"  # type: ignore[union-attr]
        text = f"{name} has no wheel {abi} the C++11 ABI, which torch {torch.version} for CUDA "
        return _missing(
            "flash-attn-abi", "import", text + f"{index} has: undefined symbol", flash_attn
        )
    if near:
        text = (
            f"the wheel of {name} for torch {minor(torch.version)} is for CUDA "
            f"{near[0].cuda_major}: under a torch of CUDA {index} libcudart.so."
            f"{near[0].cuda_major} is missing"
        )
        return _missing("flash-attn-wheel-cuda", "import", text, flash_attn)
    has = sorted({row.torch for row in flash_attn.wheel if row.host == host})
    text = f"{name} has no official wheel for torch {minor(torch.version)}, Python {python}, {host}"
    text += f" (it has torch {_words(map(minor, has))})" if has else ""
    return _missing("flash-attn-wheel", "resolve", text, flash_attn)


def third_parties_have_the_wheel(
    flash_attn: FlashAttnFact | None,
    origin: Origin,
    torch: TorchFact,
    index: Version,
    python: Python,
    host: Host,
) -> Reason | None:
    """Somebody else's wheels fit as narrowly as the official ones."""
    if flash_attn is None or origin != "third-party" or torch.build_for(index) is None:
        return None
    if wheel_of(flash_attn, origin, torch, index, python, host):
        return None
    name = f"flash-attn {flash_attn.version}"
    if _others(flash_attn, torch, index, python, host):
        text = f"the third-party wheels of {name} for torch {minor(torch.version)} and Python "
        text += f"{python} have another C++ ABI than torch for CUDA {index}: undefined symbol"
        return _missing("flash-attn-abi", "import", text, THIRD_PARTY)
    text = (
        f"no third-party wheel of {name} is known for torch {minor(torch.version)}, CUDA "
        f"{index.major}, Python {python}, {host}"
    )
    return _missing("flash-attn-wheel", "resolve", text, THIRD_PARTY)


def third_parties_are_trusted(flash_attn: FlashAttnFact | None, origin: Origin) -> Reason | None:
    """Somebody else's wheel is taken by its hash only, and none was recorded yet."""
    if flash_attn is None or origin != "third-party":
        return None
    text = f"flash-attn {flash_attn.version} comes from a third party, and the hash of its wheel "
    return _unverified("third-party", "resolve", text + "is not recorded", THIRD_PARTY)


def flash_attn_wheel_takes_the_libc(
    flash_attn: FlashAttnFact | None,
    origin: Origin,
    torch: TorchFact,
    index: Version,
    python: Python,
    host: Host,
    os: OsFact,
) -> Reason | None:
    """A wheel that was built on a newer distribution asks for symbols that an older one lacks."""
    if flash_attn is None or origin == "source":
        return None
    found = wheel_of(flash_attn, origin, torch, index, python, host)
    needs = found.glibc if isinstance(found, ThirdPartyWheel) else flash_attn.glibc
    if found is None or needs is None or needs <= os.glibc:
        return None
    text = f"the wheel of flash-attn {flash_attn.version} needs glibc {needs}; {os.os.name} has "
    return _impossible("flash-attn-glibc", "import", text + f"{os.glibc}", flash_attn)


def nvcc_makes_the_architectures(
    flash_attn: FlashAttnFact | None, origin: Origin, cuda: CudaFact, archs: tuple[int, ...]
) -> Reason | None:
    """setup.py drops an architecture that it does not know, or nvcc is too old for, without a word;
    a wheel has what it has.
    """
    if flash_attn is None or (origin != "source" and not archs):
        return None
    name = f"flash-attn {flash_attn.version}"
    if origin == "official":
        known: Iterable[int] = flash_attn.wheel_archs
    elif origin == "third-party":
        return None
    else:
        known = flash_attn.archs
        if not archs and not flash_attn.able(cuda.version):
            text = f"{name} needs CUDA {min(flash_attn.archs.values())}, not {minor(cuda.version)}"
            return _impossible("flash-attn-archs", "compile", text, flash_attn)
    for arch in archs:
        if arch not in known:
            text = f"{name} has no architecture {arch} (it has {_words(known)})"
            return _impossible("flash-attn-archs", "compile", text, flash_attn)
        if origin == "source" and cuda.version < flash_attn.archs[arch]:
            text = f"{name} for architecture {arch} needs CUDA {flash_attn.archs[arch]}, not "
            text += minor(cuda.version)
            return _impossible("flash-attn-archs", "compile", text, flash_attn)
    return None


def archs_of(
    flash_attn: FlashAttnFact,
    origin: Origin,
    cuda: CudaFact,
    archs: tuple[int, ...],
    wheel: Wheel | ThirdPartyWheel | None,
) -> tuple[int, ...]:
    """What flash-attn's binary holds: what was asked for, else all that it can."""
    if isinstance(wheel, ThirdPartyWheel):
        return wheel.archs
    if origin == "official":
        return flash_attn.wheel_archs or tuple(flash_attn.archs)
    return archs or flash_attn.able(cuda.version)


def flash_attn_knows_the_gpu(
    flash_attn: FlashAttnFact | None, gpu: GpuFact | None
) -> Reason | None:
    """FlashAttention-2 has kernels for Ampere and newer only, however it is built."""
    if gpu is None or flash_attn is None or gpu.runs(tuple(flash_attn.archs)):
        return None
    text = (
        f"flash-attn {flash_attn.version} has no kernels for {gpu.name} (compute capability "
        f"{_capability(gpu.capability)}), however it is built: only for "
        f"{_words(map(_capability, flash_attn.archs))}"
    )
    return _impossible("flash-attn-gpu", "run", text, flash_attn)


def flash_attn_has_code_for_the_gpu(
    flash_attn: FlashAttnFact | None,
    origin: Origin,
    torch: TorchFact,
    index: Version,
    python: Python,
    host: Host,
    cuda: CudaFact,
    archs: tuple[int, ...],
    gpu: GpuFact | None,
) -> Reason | None:
    """The binary at hand may hold less than flash-attn could: older nvcc, a selection, a wheel."""
    if gpu is None or flash_attn is None or not gpu.runs(tuple(flash_attn.archs)):
        return None
    wheel = wheel_of(flash_attn, origin, torch, index, python, host)
    held = archs_of(flash_attn, origin, cuda, archs, wheel)
    if gpu.runs(held):
        return None
    made = (
        f"compiled by nvcc {minor(cuda.version)}" if origin == "source" else f"the {origin} wheel"
    )
    text = f"flash-attn {flash_attn.version}, {made}, has no code for {gpu.name} (compute "
    text += f"capability {_capability(gpu.capability)}): it has {_words(map(_capability, held))}"
    return _impossible("flash-attn-gpu", "run", text, flash_attn)


def flash_attn_asks_for_the_standard(
    flash_attn: FlashAttnFact | None, origin: Origin, torch: TorchFact
) -> Reason | None:
    """Every release so far compiles as C++17, which torch's headers refuse from 2.14 on."""
    if flash_attn is None or origin != "source" or torch.cxx <= 17:
        return None
    text = (
        f"torch {torch.version} needs C++{torch.cxx}, and flash-attn {flash_attn.version} asks for "
        "C++17: a plain `pip install flash-attn` fails, imagegen's recipe compiles it as "
        f"C++{torch.cxx}"
    )
    return _warn("flash-attn-cxx20", "compile", text, "ATen.h of torch 2.14; flash-attention #2879")


def flash_attn_was_compiled_with_the_torch(
    flash_attn: FlashAttnFact | None, origin: Origin, torch: TorchFact
) -> Reason | None:
    """An extension may not compile with a torch that came after it."""
    if flash_attn is None or origin != "source":
        return None
    if torch.version.release[:2] <= flash_attn.torch_max.release[:2]:
        return None
    text = f"nobody recorded that flash-attn {flash_attn.version} compiles with torch "
    text += f"{minor(torch.version)}, only up to {flash_attn.torch_max}"
    return _unverified("flash-attn-untested", "compile", text, flash_attn)


def setup_py_guesses_right(
    flash_attn: FlashAttnFact | None, torch: TorchFact, index: Version, python: Python, host: Host
) -> Reason | None:
    """`pip install flash-attn` downloads the wheel that its setup.py guesses, which is wrong for a
    CUDA 13 torch before 2.8.3.post1 and on a free-threaded Python always.
    """
    if flash_attn is None:
        return None
    plain = Python(python.version)
    word = flash_attn.cuda13_tag if index >= CUDA_13 else f"cu{index.major}"
    guessed = [
        row for row in flash_attn.wheel if _fits(row, torch, plain, host) and row.tag == word
    ]
    if not guessed or (guessed[0].cuda_major == index.major and not python.free_threaded):
        return None
    text = (
        f"`pip install flash-attn=={flash_attn.version}` here downloads a wheel for CUDA "
        f"{guessed[0].cuda_major} and Python {plain} that cannot be loaded; imagegen never lets "
        "setup.py guess"
    )
    return _warn("pip-guess", "import", text, "setup.py of the sdist; flash-attention #2118")


def the_compiler_has_memory(
    flash_attn: FlashAttnFact | None, origin: Origin, memory: int | None
) -> Reason | None:
    """One nvcc takes up to 5 GB for one of flash-attn's kernel files."""
    if flash_attn is None or origin != "source" or memory is None or memory >= GIGABYTES_PER_NVCC:
        return None
    text = f"compiling flash-attn takes up to {GIGABYTES_PER_NVCC} GB of memory for each nvcc; "
    text += f"the machine has {memory}"
    return _impossible("memory", "compile", text, "flash-attention #2079")


GIGABYTES_PER_NVCC = 5
"""3.2 to 5.0 GB were reported in flash-attention #2079, 3.9 measured for one architecture."""


# --- machine --------------------------------------------------------------------------------------


def the_driver_runs_the_cuda(cuda: CudaFact, driver: Version | None) -> Reason | None:
    """Within a major, minor-version compatibility runs newer toolkits on older drivers, down to the
    driver of the major's first release.
    """
    if driver is None or not older(driver, cuda.driver_floor):
        return None
    text = (
        f"CUDA {cuda.version.major} needs driver {driver_text(cuda.driver_floor)} or newer, not "
        f"{driver_text(driver)}. On a rented machine choose another host, or an image of an older "
        "CUDA major"
    )
    return _impossible("driver", "start", text, cuda)


def the_driver_knows_the_gpu(gpu: GpuFact | None, driver: Version | None) -> Reason | None:
    """A driver older than the card does not find it, whatever CUDA asks for."""
    if gpu is None or driver is None or gpu.driver is None or not older(driver, gpu.driver):
        return None
    text = f"{gpu.name} needs driver {driver_text(gpu.driver)} or newer, not {driver_text(driver)}"
    return _impossible("driver-gpu", "run", text, gpu)


def the_driver_came_with_the_cuda(cuda: CudaFact, driver: Version | None) -> Reason | None:
    """Minor-version compatibility has an end: code that is there only as PTX."""
    if driver is None or older(driver, cuda.driver_floor):
        return None
    with_it = cuda.driver or cuda.driver_branch
    if with_it is None:
        text = f"which driver came with CUDA {cuda.version} is not published yet"
        return _unverified("driver-unknown", "run", text, cuda)
    if not older(driver, with_it):
        return None
    text = (
        f"driver {driver_text(driver)} is older than the {driver_text(with_it)} of CUDA "
        f"{cuda.version}: minor-version compatibility runs it, except code that is there as PTX "
        "only"
    )
    return _warn("driver-minor", "run", text, cuda)


def the_base_image_starts(
    cuda: CudaFact, kind: Kind, gpu: GpuFact | None, driver: Version | None
) -> Reason | None:
    """nvidia/cuda images refuse to start below their own minor, with exemptions for old branches
    that leave GeForce cards out. Rendered Dockerfiles replace that demand by the major's floor.
    """
    if gpu is None or driver is None or gpu.brand != "geforce" or cuda.version < GATED_FROM:
        return None
    with_it = cuda.driver or cuda.driver_branch
    from_wheels = kind == "slim" and cuda.version >= CUDA_13
    if from_wheels or with_it is None or not older(driver, with_it):
        return None
    if older(driver, cuda.driver_floor):
        return None
    text = (
        f"nvidia/cuda:{cuda.version} itself does not start on a {gpu.name} with driver "
        f"{driver_text(driver)} (unsatisfied condition: cuda>={minor(cuda.version)}); imagegen's "
        f"Dockerfile asks for the major's floor instead, {driver_text(cuda.driver_floor)}"
    )
    return _warn("container-gate", "start", text, "NVIDIA_REQUIRE_CUDA of the nvidia/cuda images")


def the_gpu_has_the_host(gpu: GpuFact | None, host: Host) -> Reason | None:
    """Grace machines are ARM, all others that one can rent are x86_64."""
    if gpu is None or gpu.host == host:
        return None
    text = f"{gpu.name} is in {gpu.host} machines, not {host}"
    return _impossible("gpu-host", "resolve", text, gpu)


def the_host_is_rendered(host: Host) -> Reason | None:
    """imagegen's Dockerfiles and locks are for x86_64."""
    if host == "x86_64":
        return None
    text = "the pieces exist for aarch64, but imagegen renders and locks x86_64 images only so far"
    return _warn("host-not-rendered", "resolve", text, "imagegen")


def the_python_is_the_distributions(os: OsFact, python: Python) -> Reason | None:
    """The distribution's own Python has its updates and headers; any other is from elsewhere."""
    if os.python == python:
        return None
    text = (
        f"{os.os.name} ships Python {os.python}; {python} has to come from elsewhere, and "
        "imagegen's images take the distribution's own"
    )
    return _warn("python-distribution", "resolve", text, os)


# --- versions that no fact knows ------------------------------------------------------------------


def torch_is_known(torch: TorchFact) -> Reason | None:
    """A version that a user allowed without a fact about it."""
    return _assumed("torch", str(torch.version), torch)


def cuda_is_known(cuda: CudaFact) -> Reason | None:
    """A version that a user allowed without a fact about it."""
    return _assumed("CUDA", str(cuda.version), cuda)


def flash_attn_is_known(flash_attn: FlashAttnFact | None) -> Reason | None:
    """A version that a user allowed without a fact about it."""
    return _assumed("flash-attn", str(flash_attn.version), flash_attn) if flash_attn else None


def _assumed(what: str, version: str, fact: Sourced) -> Reason | None:
    if not fact.assumed:
        return None
    text = f"{what} {version} is in no fact; it is taken to be like {fact.assumed}"
    return _unverified("unknown-version", "resolve", text, "a guess")


# --------------------------------------------------------------------------------------------------


def older(driver: Version, than: Version) -> bool:
    """Whether a driver is older. What is left open counts as new enough: ``570`` means the newest
    of that branch, and is not older than 570.26.

    >>> older(Version("570"), Version("570.26")), older(Version("570.20"), Version("570.26"))
    (False, True)
    """
    known = min(len(driver.release), len(than.release))
    return driver.release[:known] < than.release[:known]


def driver_text(driver: Version) -> str:
    """As NVIDIA writes it: ``580.65.06``, of which a Version drops the zero."""
    return ".".join([str(driver.major), *(f"{part:02}" for part in driver.release[1:])])


def _capability(arch: int) -> str:
    return f"{arch // 10}.{arch % 10}"


RULES: tuple[Rule, ...] = (
    torch_is_known,
    cuda_is_known,
    flash_attn_is_known,
    torch_is_built_for_the_cuda,
    torch_has_the_python,
    torchvision_has_the_python,
    nvcc_is_of_torchs_major,
    nvcc_is_of_torchs_minor,
    the_base_image_exists,
    nvcc_is_in_the_wheels,
    the_wheels_are_the_toolkit_of_torch,
    nvcc_takes_the_compiler,
    nvcc_takes_the_libc,
    nvcc_makes_code_for_the_gpu,
    flash_attn_has_the_wheel,
    third_parties_have_the_wheel,
    third_parties_are_trusted,
    flash_attn_wheel_takes_the_libc,
    nvcc_makes_the_architectures,
    flash_attn_asks_for_the_standard,
    flash_attn_was_compiled_with_the_torch,
    setup_py_guesses_right,
    the_compiler_has_memory,
    the_driver_runs_the_cuda,
    the_driver_knows_the_gpu,
    the_driver_came_with_the_cuda,
    the_base_image_starts,
    torch_has_code_for_the_gpu,
    flash_attn_knows_the_gpu,
    flash_attn_has_code_for_the_gpu,
    the_gpu_has_the_host,
    the_host_is_rendered,
    the_python_is_the_distributions,
)
