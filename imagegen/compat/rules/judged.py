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
from functools import cache

from imagegen.compat.rules.flash_attn import (
    GIGABYTES_PER_NVCC,
    archs_in,
    best_wheel,
    flash_attn_asks_for_the_standard,
    flash_attn_has_code_for_the_gpu,
    flash_attn_has_the_wheel,
    flash_attn_knows_the_gpu,
    flash_attn_takes_the_python,
    flash_attn_was_compiled_with_the_torch,
    flash_attn_wheel_takes_the_libc,
    nvcc_makes_the_architectures,
    setup_py_guesses_right,
    the_compiler_has_memory,
    third_parties_are_trusted,
    third_parties_have_the_wheel,
    wheels_of,
)
from imagegen.compat.rules.flash_attn_package import (
    the_package_comes_as_a_wheel,
    the_package_is_final,
    the_package_is_proven,
    the_package_runs_on_the_gpu,
    the_package_stands_alone,
    the_package_takes_the_cuda,
    the_package_takes_the_python,
    the_package_takes_the_torch,
)
from imagegen.compat.rules.known import cuda_is_known, flash_attn_is_known, torch_is_known
from imagegen.compat.rules.machine import (
    the_base_image_starts,
    the_driver_came_with_the_cuda,
    the_driver_knows_the_gpu,
    the_driver_runs_the_cuda,
    the_gpu_has_the_host,
    the_host_is_rendered,
    the_python_is_the_distributions,
)
from imagegen.compat.rules.nvcc import (
    gcc_has_the_standard,
    nvcc_is_in_the_wheels,
    nvcc_is_of_torchs_major,
    nvcc_is_of_torchs_minor,
    nvcc_makes_code_for_the_gpu,
    nvcc_takes_the_compiler,
    nvcc_takes_the_libc,
    the_base_image_exists,
    the_wheels_are_the_toolkit_of_torch,
)
from imagegen.compat.rules.reason import CUDA_13, Reason, Rule, Severity, Stage, from_wheels, older
from imagegen.compat.rules.torch import (
    torch_has_code_for_the_gpu,
    torch_has_the_python,
    torch_is_built_for_the_cuda,
    torchvision_has_the_python,
)

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
    gcc_has_the_standard,
    nvcc_makes_code_for_the_gpu,
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
    the_package_comes_as_a_wheel,
    the_package_takes_the_python,
    the_package_takes_the_torch,
    the_package_takes_the_cuda,
    the_package_is_proven,
    the_package_is_final,
    the_package_stands_alone,
    the_package_runs_on_the_gpu,
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


@cache
def axes_of(rule: Rule) -> tuple[str, ...]:
    """The axes that a rule is about."""
    return tuple(inspect.signature(rule).parameters)


__all__ = [
    "CUDA_13",
    "GIGABYTES_PER_NVCC",
    "RULES",
    "Reason",
    "Rule",
    "Severity",
    "Stage",
    "archs_in",
    "axes_of",
    "best_wheel",
    "cuda_is_known",
    "flash_attn_asks_for_the_standard",
    "flash_attn_has_code_for_the_gpu",
    "flash_attn_has_the_wheel",
    "flash_attn_is_known",
    "flash_attn_knows_the_gpu",
    "flash_attn_takes_the_python",
    "flash_attn_was_compiled_with_the_torch",
    "flash_attn_wheel_takes_the_libc",
    "from_wheels",
    "gcc_has_the_standard",
    "nvcc_is_in_the_wheels",
    "nvcc_is_of_torchs_major",
    "nvcc_is_of_torchs_minor",
    "nvcc_makes_code_for_the_gpu",
    "nvcc_makes_the_architectures",
    "nvcc_takes_the_compiler",
    "nvcc_takes_the_libc",
    "older",
    "setup_py_guesses_right",
    "the_base_image_exists",
    "the_base_image_starts",
    "the_compiler_has_memory",
    "the_driver_came_with_the_cuda",
    "the_driver_knows_the_gpu",
    "the_driver_runs_the_cuda",
    "the_gpu_has_the_host",
    "the_host_is_rendered",
    "the_package_comes_as_a_wheel",
    "the_package_is_final",
    "the_package_is_proven",
    "the_package_runs_on_the_gpu",
    "the_package_stands_alone",
    "the_package_takes_the_cuda",
    "the_package_takes_the_python",
    "the_package_takes_the_torch",
    "the_python_is_the_distributions",
    "the_wheels_are_the_toolkit_of_torch",
    "third_parties_are_trusted",
    "third_parties_have_the_wheel",
    "torch_has_code_for_the_gpu",
    "torch_has_the_python",
    "torch_is_built_for_the_cuda",
    "torch_is_known",
    "torchvision_has_the_python",
    "wheels_of",
]
