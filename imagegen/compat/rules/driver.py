"""What a driver runs: CUDA, cards, and NVIDIA's images."""

from __future__ import annotations

from packaging.version import Version

from imagegen.compat.facts.rows import CudaFact, GpuFact, TorchFact
from imagegen.compat.rules.reason import (
    Reason,
    Rule,
    from_wheels,
    impossible,
    older,
    unverified,
    warn,
)
from imagegen.model.target import Kind, driver_text, minor

GATED_FROM = Version("12.6")
"""From here on the nvidia/cuda images' NVIDIA_REQUIRE_CUDA exempts no GeForce card; those of 12.4
and older do, read in the images' own environment."""


def the_driver_runs_the_cuda(cuda: CudaFact, driver: Version | None) -> Reason | None:
    """Within a major, minor-version compatibility runs newer toolkits on older drivers, down to the
    driver of the major's first release.
    """
    if driver is None or not older(driver, cuda.driver_floor):
        return None
    text = (
        f"CUDA {cuda.version.major} needs driver {driver_text(cuda.driver_floor)} or newer, not "
        f"{driver_text(driver)}. On a rented machine choose another host; older CUDA majors ask "
        "for less"
    )
    return impossible("driver", "start", text, cuda)


def the_driver_knows_the_gpu(gpu: GpuFact | None, driver: Version | None) -> Reason | None:
    """A driver older than the card does not find it, whatever CUDA asks for."""
    if gpu is None or driver is None or gpu.driver is None or not older(driver, gpu.driver):
        return None
    text = f"{gpu.name} needs driver {driver_text(gpu.driver)} or newer, not {driver_text(driver)}"
    return impossible("driver-gpu", "run", text, gpu)


def the_driver_came_with_the_cuda(
    cuda: CudaFact, torch: TorchFact, index: Version, driver: Version | None
) -> Reason | None:
    """Minor-version compatibility has an end: code that is there only as PTX."""
    if driver is None or older(driver, cuda.driver_floor):
        return None
    build = torch.build_for(index)
    known = [(minor(cuda.version), cuda.driver_of_minor)]
    known += [(str(index), build.driver_of_minor)] if build else []
    for name, with_it in known:
        if with_it is None:
            text = f"which driver came with CUDA {name} is not published yet"
            return unverified("driver-unknown", "run", text, cuda)
        if older(driver, with_it):
            text = (
                f"driver {driver_text(driver)} is older than the {driver_text(with_it)} of CUDA "
                f"{name}: minor-version compatibility runs it, except code that is there as PTX "
                "only"
            )
            return warn("driver-minor", "run", text, cuda)
    return None


def the_base_image_starts(
    cuda: CudaFact, kind: Kind, gpu: GpuFact | None, driver: Version | None
) -> Reason | None:
    """nvidia/cuda images refuse to start below their own minor, with exemptions for old branches
    that leave GeForce cards out. Rendered Dockerfiles replace that demand by the major's floor.
    """
    if gpu is None or driver is None or gpu.brand != "geforce" or cuda.version < GATED_FROM:
        return None
    with_it = cuda.driver_of_minor
    if from_wheels(kind, cuda) or with_it is None or not older(driver, with_it):
        return None
    if older(driver, cuda.driver_floor):
        return None
    text = (
        f"nvidia/cuda:{cuda.version} itself does not start on {gpu.name} with driver "
        f"{driver_text(driver)} (unsatisfied condition: cuda>={minor(cuda.version)}); imagegen's "
        f"Dockerfile asks for the major's floor instead, {driver_text(cuda.driver_floor)}"
    )
    return warn("container-gate", "start", text, "NVIDIA_REQUIRE_CUDA of the nvidia/cuda images")


RULES: tuple[Rule, ...] = (
    the_driver_runs_the_cuda,
    the_driver_knows_the_gpu,
    the_driver_came_with_the_cuda,
    the_base_image_starts,
)
