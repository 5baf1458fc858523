"""What flash-attn fits, from a wheel or from source."""

from __future__ import annotations

from collections.abc import Iterable

from packaging.version import Version

from imagegen.compat.facts.rows import (
    CudaFact,
    FlashAttnFact,
    FlashAttnRelease,
    OsFact,
    TorchBuild,
    TorchFact,
    Wheel,
)
from imagegen.compat.rules.reason import (
    CUDA_13,
    Reason,
    Rule,
    impossible,
    missing,
    unverified,
    warn,
    words,
)
from imagegen.compat.rules.wheels import fits, glibc_of, third_parties, wheels_of
from imagegen.model.target import Host, Origin, Python, minor

Release = FlashAttnRelease | None
"""Of any generation, or no flash-attn. These rules are about generation 2 only."""

GIGABYTES_PER_NVCC = 5
"""3.2 to 5.0 GB were reported in flash-attention #2079, 3.9 measured for one architecture."""


def flash_attn_takes_the_python(flash_attn: Release, python: Python) -> Reason | None:
    """The metadata names the oldest Python, and pip keeps to it."""
    if not isinstance(flash_attn, FlashAttnFact) or python.version >= flash_attn.python_min.version:
        return None
    text = f"flash-attn {flash_attn.version} needs Python {flash_attn.python_min}, not {python}"
    return missing("flash-attn-python", "resolve", text, flash_attn)


def flash_attn_has_the_wheel(
    flash_attn: Release,
    origin: Origin,
    torch: TorchFact,
    index: Version,
    python: Python,
    host: Host,
) -> Reason | None:
    """A wheel fits one torch minor, CUDA major, Python, C++ ABI and machine."""
    build = torch.build_for(index)
    if not isinstance(flash_attn, FlashAttnFact) or origin != "official" or build is None:
        return None
    name = f"flash-attn {flash_attn.version}"
    if found := wheels_of(flash_attn, origin, torch, index, python, host):
        if not all(isinstance(row, Wheel) and row.development for row in found):
            return None
        text = f"the wheel of {name} for torch {minor(torch.version)} was built with a development "
        text += "version of that torch"
        return unverified("flash-attn-development", "import", text, flash_attn)
    unknown = flash_attn.wheels_unknown_to
    maybe = unknown and torch.version.release[:2] <= unknown.release[:2]
    if maybe and python in flash_attn.wheels_unknown_pythons:
        text = f"which wheels {name} has is not recorded"
        return unverified("flash-attn-wheel-unknown", "resolve", text, flash_attn)
    near = [row for row in flash_attn.wheel if fits(row, torch, python, host)]
    if near:
        return _only_nearly(flash_attn, near, torch, build)
    return _no_wheel(flash_attn, torch, python, host)


def _only_nearly(
    flash_attn: FlashAttnFact, near: list[Wheel], torch: TorchFact, build: TorchBuild
) -> Reason:
    """There are wheels for the torch and the Python, of another C++ ABI or another CUDA."""
    name = f"flash-attn {flash_attn.version}"
    if misnamed := [row for row in near if build.abi in row.misnamed]:
        word, seen = str(build.abi).upper(), misnamed[0].seen
        text = f"the wheel of {name} that is named cxx11abi{word} for torch {minor(torch.version)} "
        text += "holds the other C++ ABI: undefined symbol"
        if seen:
            return missing("flash-attn-abi", "import", text, seen)
        text += ". A guess, from those of 2.8.0.post2 and 2.8.2"
        return unverified("flash-attn-abi", "import", text, "flash-attention #1717, #1783")
    if any(row.cuda_major == build.cuda.major for row in near):
        abi = "with" if build.abi else "without"
        text = f"{name} has no wheel {abi} the C++11 ABI, which torch {torch.version} for CUDA "
        text += f"{build.cuda} has: undefined symbol"
        return missing("flash-attn-abi", "import", text, flash_attn)
    major = near[0].cuda_major
    text = (
        f"the wheel of {name} for torch {minor(torch.version)} is for CUDA {major}: under a torch "
    )
    text += f"of CUDA {build.cuda} libcudart.so.{major} is missing"
    return missing("flash-attn-wheel-cuda", "import", text, flash_attn)


def _no_wheel(flash_attn: FlashAttnFact, torch: TorchFact, python: Python, host: Host) -> Reason:
    """There is none for the torch and the Python on that machine."""
    text = f"flash-attn {flash_attn.version} has no official wheel for torch "
    text += f"{minor(torch.version)}, Python {python}, {host}"
    mine = [row for row in flash_attn.wheel if row.host == host]
    same = [row for row in mine if minor(row.torch) == minor(torch.version)]
    if same:
        pythons = sorted({python for row in same for python in row.pythons})
        text += f" (for that torch it has Python {words(pythons)})"
    elif mine:
        text += f" (it has torch {words(map(minor, sorted({row.torch for row in mine})))})"
    known = flash_attn.wheel or flash_attn.assumed
    source = flash_attn if known else "flash-attention's publish.yml (2026-08-15)"
    return missing("flash-attn-wheel", "resolve", text, source)


def third_parties_have_the_wheel(
    flash_attn: Release,
    origin: Origin,
    torch: TorchFact,
    index: Version,
    python: Python,
    host: Host,
) -> Reason | None:
    """Somebody else's wheels fit as narrowly as the official ones."""
    if not isinstance(flash_attn, FlashAttnFact) or origin != "third-party":
        return None
    if torch.build_for(index) is None:
        return None
    if wheels_of(flash_attn, origin, torch, index, python, host):
        return None
    name = f"flash-attn {flash_attn.version}"
    if flash_attn.assumed:
        text = f"whether third parties have wheels of {name} is not recorded"
        return unverified("flash-attn-wheel-unknown", "resolve", text, flash_attn)
    if third_parties(flash_attn, torch, index, python, host):
        text = f"the third-party wheels of {name} for torch {minor(torch.version)} and Python "
        text += f"{python} have another C++ ABI than torch for CUDA {index}: undefined symbol"
        return missing("flash-attn-abi", "import", text, flash_attn.third_party_source)
    listed = max((wheel.torch for wheel in flash_attn.third_party), default=None)
    if listed and torch.version.release[:2] > listed.release[:2]:
        text = f"the list of third-party wheels of {name} ends before torch {minor(torch.version)}"
        source = flash_attn.third_party_source
        return unverified("flash-attn-wheel-unknown", "resolve", text, source)
    text = (
        f"no third-party wheel of {name} is known for torch {minor(torch.version)}, CUDA "
        f"{index.major}, Python {python}, {host}"
    )
    return missing("flash-attn-wheel", "resolve", text, flash_attn.third_party_source)


def third_parties_are_trusted(flash_attn: Release, origin: Origin) -> Reason | None:
    """Somebody else's wheel is taken by its hash only, and none was recorded yet."""
    if not isinstance(flash_attn, FlashAttnFact) or origin != "third-party":
        return None
    text = f"flash-attn {flash_attn.version} comes from a third party, and the hash of its wheel "
    text += "is not recorded"
    return unverified("third-party", "resolve", text, flash_attn.third_party_source)


def flash_attn_wheel_takes_the_libc(
    flash_attn: Release,
    origin: Origin,
    torch: TorchFact,
    index: Version,
    python: Python,
    host: Host,
    os: OsFact,
) -> Reason | None:
    """A wheel that was built on a newer distribution asks for symbols that an older one lacks."""
    if not isinstance(flash_attn, FlashAttnFact) or origin == "source":
        return None
    found = wheels_of(flash_attn, origin, torch, index, python, host)
    needs = min((glibc_of(flash_attn, row) for row in found), default=os.glibc)
    if needs <= os.glibc:
        return None
    text = f"the wheel of flash-attn {flash_attn.version} needs glibc {needs}; {os.os.name} has "
    return impossible("flash-attn-glibc", "import", text + f"{os.glibc}", flash_attn)


def nvcc_makes_the_architectures(
    flash_attn: Release, origin: Origin, cuda: CudaFact, archs: tuple[int, ...]
) -> Reason | None:
    """setup.py drops an architecture that it does not know, or nvcc is too old for, without a word;
    a wheel has what it has.
    """
    if not isinstance(flash_attn, FlashAttnFact) or (origin != "source" and not archs):
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
            return impossible("flash-attn-archs", "compile", text, flash_attn)
    for arch in archs:
        if arch not in known:
            text = f"{name} has no architecture {arch} (it has {words(known)})"
            return impossible("flash-attn-archs", "compile", text, flash_attn)
        if origin == "source" and cuda.version < flash_attn.archs[arch]:
            text = f"{name} for architecture {arch} needs CUDA {flash_attn.archs[arch]}, not "
            text += minor(cuda.version)
            return impossible("flash-attn-archs", "compile", text, flash_attn)
    return None


def flash_attn_asks_for_the_standard(
    flash_attn: Release, origin: Origin, torch: TorchFact
) -> Reason | None:
    """Every release so far compiles as C++17, which torch's headers refuse from 2.14 on."""
    if not isinstance(flash_attn, FlashAttnFact) or origin != "source" or torch.cxx <= 17:
        return None
    text = (
        f"torch {torch.version} needs C++{torch.cxx}, and flash-attn {flash_attn.version} asks for "
        "C++17: a plain `pip install flash-attn` fails, imagegen's recipe compiles it as "
        f"C++{torch.cxx}"
    )
    return warn("flash-attn-cxx20", "compile", text, "ATen.h of torch 2.14; flash-attention #2879")


def flash_attn_was_compiled_with_the_torch(
    flash_attn: Release, origin: Origin, torch: TorchFact
) -> Reason | None:
    """An extension may not compile with a torch that came after it."""
    if not isinstance(flash_attn, FlashAttnFact) or origin != "source":
        return None
    if torch.version.release[:2] <= flash_attn.torch_max.release[:2]:
        return None
    text = f"nobody recorded that flash-attn {flash_attn.version} compiles with torch "
    text += f"{minor(torch.version)}, only up to {flash_attn.torch_max}"
    return unverified("flash-attn-untested", "compile", text, flash_attn)


def setup_py_guesses_right(
    flash_attn: Release, torch: TorchFact, index: Version, python: Python, host: Host
) -> Reason | None:
    """`pip install flash-attn` downloads the wheel that its setup.py guesses by the names.

    Wrong for a CUDA 13 torch before 2.8.3.post1, where a name lies, and on a free-threaded Python.
    """
    build = torch.build_for(index)
    if not isinstance(flash_attn, FlashAttnFact) or build is None:
        return None
    plain = Python(python.version)
    word = flash_attn.cuda13_tag if index >= CUDA_13 else f"cu{index.major}"
    for row in flash_attn.wheel:
        named = build.abi in (*row.abi, *row.misnamed)
        if not (fits(row, torch, plain, host) and row.tag == word and named):
            continue
        wrong = [
            f"for CUDA {row.cuda_major}" if row.cuda_major != index.major else "",
            f"for Python {plain}" if python.free_threaded else "",
            "of the other C++ ABI" if build.abi in row.misnamed else "",
        ]
        if any(wrong):
            text = (
                f"`pip install flash-attn=={flash_attn.version}` here downloads a wheel "
                f"{' and '.join(filter(None, wrong))}, which cannot be loaded; imagegen never lets "
                "setup.py guess"
            )
            seen = "flash-attention #2118, #1717, #1783"
            return warn("pip-guess", "import", text, f"setup.py of the sdist; {seen}")
    return None


def the_compiler_has_memory(
    flash_attn: Release, origin: Origin, memory: int | None
) -> Reason | None:
    """One nvcc takes up to 5 GB for one of flash-attn's kernel files."""
    if not isinstance(flash_attn, FlashAttnFact) or origin != "source":
        return None
    if memory is None or memory >= GIGABYTES_PER_NVCC:
        return None
    text = f"compiling flash-attn takes up to {GIGABYTES_PER_NVCC} GB of memory for each nvcc; "
    text += f"the machine has {memory}"
    return impossible("memory", "compile", text, "flash-attention #2079")


RULES: tuple[Rule, ...] = (
    flash_attn_takes_the_python,
    flash_attn_has_the_wheel,
    third_parties_have_the_wheel,
    third_parties_are_trusted,
    flash_attn_wheel_takes_the_libc,
    nvcc_makes_the_architectures,
    flash_attn_asks_for_the_standard,
    flash_attn_was_compiled_with_the_torch,
    setup_py_guesses_right,
    the_compiler_has_memory,
)
