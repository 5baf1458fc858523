"""Which published wheel of flash-attn 2 fits a torch, and which of several is the best."""

from __future__ import annotations

from collections.abc import Iterable

from packaging.version import Version

from imagegen.compat.facts.rows import (
    FlashAttnFact,
    GpuFact,
    OsFact,
    ThirdPartyWheel,
    TorchFact,
    Wheel,
)
from imagegen.model.target import Host, Origin, Python


def wheels_of(
    flash_attn: FlashAttnFact,
    origin: Origin,
    torch: TorchFact,
    index: Version,
    python: Python,
    host: Host,
) -> list[Wheel] | list[ThirdPartyWheel]:
    """The published wheels that fit: same torch minor, CUDA major, Python, C++ ABI and machine."""
    build = torch.build_for(index)
    if build is None or origin == "source":
        return []
    if origin == "third-party":
        others = third_parties(flash_attn, torch, index, python, host)
        return [row for row in others if row.abi == build.abi]
    rows = [row for row in flash_attn.wheel if fits(row, torch, python, host)]
    return [row for row in rows if row.cuda_major == index.major and build.abi in row.abi]


def third_parties(
    flash_attn: FlashAttnFact, torch: TorchFact, index: Version, python: Python, host: Host
) -> list[ThirdPartyWheel]:
    """Third-party wheels that fit but perhaps for their ABI."""
    rows = flash_attn.third_party_for.get((torch.version.major, torch.version.minor, host), [])
    return [row for row in rows if python in row.pythons and row.torch_cuda.major == index.major]


def fits(row: Wheel, torch: TorchFact, python: Python, host: Host) -> bool:
    """Whether an official wheel is for that torch minor, Python and machine."""
    return (
        row.torch.release[:2] == torch.version.release[:2]
        and row.host == host
        and python in row.pythons
    )


def glibc_of(flash_attn: FlashAttnFact, wheel: Wheel | ThirdPartyWheel) -> Version:
    """The C library that a wheel asks for."""
    if isinstance(wheel, ThirdPartyWheel):
        return wheel.glibc
    assert flash_attn.glibc  # a release with wheels has one: see the cross-checks
    return flash_attn.glibc


def archs_in(flash_attn: FlashAttnFact, wheel: Wheel | ThirdPartyWheel) -> tuple[int, ...]:
    """The architectures that a wheel holds."""
    return wheel.archs if isinstance(wheel, ThirdPartyWheel) else flash_attn.wheel_archs


def best_wheel(
    flash_attn: FlashAttnFact,
    wheels: Iterable[Wheel] | Iterable[ThirdPartyWheel],
    index: Version,
    os: OsFact,
    gpu: GpuFact | None,
) -> Wheel | ThirdPartyWheel | None:
    """Of several that fit the one that loads there, runs there, and is closest to torch's CUDA."""

    def against(wheel: Wheel | ThirdPartyWheel) -> tuple[object, ...]:
        glibc, archs = glibc_of(flash_attn, wheel), archs_in(flash_attn, wheel)
        first = (glibc > os.glibc, gpu is not None and not gpu.runs(archs))
        if isinstance(wheel, Wheel):
            return first
        far = abs(wheel.nvcc.minor - index.minor)
        return *first, wheel.torch_cuda != index, far, glibc, wheel.nvcc, wheel.release

    return min(wheels, key=against, default=None)
