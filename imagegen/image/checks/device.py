"""The checks of the GPU itself: driver, memory, arithmetic, compilers, and GPUs with one another.

Nothing here falls back to the CPU: where a GPU is missing, each check fails and says so.
"""

from __future__ import annotations

import csv
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ranks
from about import driver_cuda, runs
from suite import NotPromised, Promise, Suite, need, output, same

SUITE = Suite()
check = SUITE.check

NO_GPU = "start the container with --gpus all, on a machine whose GPU works"


def cuda() -> Any:
    """torch, once it is certain that it can use a GPU; the driver's own words where it cannot."""
    import torch

    try:
        torch.cuda.init()
    except Exception as error:  # RuntimeError of the driver, AssertionError of a torch without CUDA
        said = f"expected a GPU that torch can use; it says: {error} ({NO_GPU})"
        raise AssertionError(said) from None
    need(torch.cuda.is_available(), f"expected torch.cuda.is_available(), found False ({NO_GPU})")
    for number in range(torch.cuda.device_count()):
        built_for(torch.cuda.get_device_capability(number), torch.cuda.get_arch_list())
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")  # TF32 would be a poor reference
    return torch


def built_for(capability: tuple[int, int], archs: Sequence[str]) -> None:
    """Fail where torch has neither machine code for a GPU nor what its driver could compile."""
    major, minor = capability
    own, text = 10 * major + minor, " ".join(archs)
    sm, ptx = (list(map(int, re.findall(rf"{kind}_(\d+)", text))) for kind in ("sm", "compute"))
    need(
        runs(own, sm) or any(code <= own for code in ptx),
        f"torch has no kernels for compute capability {major}.{minor}, only for {text}: "
        "take another GPU, or an image for this one",
    )


def devices(torch: Any) -> list[Any]:
    """Every GPU that torch sees."""
    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]


def on(device: Any, *tensors: Any) -> None:
    """Fail where one of the tensors is not on that GPU."""
    for tensor in tensors:
        same("device of a result", str(device), str(tensor.device))


def off(found: Any, exact: Any, *, relative: float, absolute: float) -> float:
    """The largest error as a share of what is allowed for its element; NaN where one is."""
    allowed = exact.abs() * relative + absolute
    return float(((found - exact).abs() / allowed).max().item())


def right(what: str, error: float) -> None:
    """Fail where an error of `off` is beyond what is allowed, or NaN."""
    need(error <= 1, f"{what}: expected errors within rounding, found {error:.3g} times as much")


# --- driver and memory ----------------------------------------------------------------------------


@check(
    "error 803 or 804 (forward compatibility was attempted on non supported HW), or a driver too "
    "old: a GPU that nvidia-smi shows and torch cannot use",
    level="gpu",
)
def driver_runs_cuda(promise: Promise) -> str:
    found = driver_cuda()
    need(found, f"expected a driver (libcuda.so.1) that names its CUDA, found none ({NO_GPU})")
    new_enough(found, promise)
    torch = cuda()
    ones = torch.ones(1024, device="cuda")
    on(torch.device("cuda", torch.cuda.current_device()), ones)
    same("the sum of 1024 ones", 1024.0, ones.sum().item())
    sees = f"torch for {torch.version.cuda} sees {torch.cuda.device_count()} GPUs"
    return f"the driver runs CUDA up to {found[0]}.{found[1]}; {sees}"


def new_enough(found: tuple[int, int], promise: Promise) -> None:
    """Fail where the driver does not run the CUDA major of the image.

    Any driver of a major runs all of that major's toolkits (CUDA's minor version compatibility).
    """
    major = int(promise["cuda"].partition(".")[0])
    need(
        found[0] >= major,
        f"expected a driver for CUDA {major}.0 or newer, found one that runs CUDA up to "
        f"{found[0]}.{found[1]}: take a machine with a newer driver, or an image for an older CUDA",
    )


FIELDS = (
    *("index", "name", "compute_cap", "driver_version", "memory.total", "memory.free"),
    *("clocks.current.sm", "clocks.max.sm", "clocks.current.memory", "clocks.max.memory"),
    "power.limit",
)
# Renamed by newer drivers; a driver may know either name or both.
REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
BITS = {  # nvmlClocksEventReason...
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "heat (driver)",
    0x40: "heat (hardware)",
    0x80: "power brake",
    0x100: "display clocks",
}
FREE = 1024  # MiB


@check(
    "a GPU whose memory another tenant fills; its clocks and what holds them are told, not judged",
    level="gpu",
)
def gpu_report(_: Promise) -> str:
    gpus = rows(queried(FIELDS), FIELDS)
    need(gpus, f"expected a line for each GPU from nvidia-smi, found none ({NO_GPU})")
    slowed = throttled()
    same("GPUs with reasons of their clocks", len(gpus), len(slowed))
    said = [described(gpu, mask) for gpu, mask in zip(gpus, slowed, strict=True)]
    for gpu in gpus:
        roomy(gpu)
    return "; ".join(said)


def queried(fields: Sequence[str]) -> str:
    return output(
        "nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", timeout=60
    )


def rows(text: str, fields: Sequence[str]) -> list[dict[str, str]]:
    """What nvidia-smi said of each GPU, by field."""
    found = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if row]
    for row in found:
        need(len(row) == len(fields), f"nvidia-smi: expected {len(fields)} values, found {row}")
    return [dict(zip(fields, map(str.strip, row), strict=True)) for row in found]


def throttled() -> list[str]:
    """Why each GPU's clocks are where they are, as the driver's mask."""
    for field in REASONS:
        try:
            return [row[field] for row in rows(queried((field,)), (field,))]
        except AssertionError as error:
            last = error
    raise last


def reasons(mask: str) -> str:
    """A mask like 0x0000000000000004 in words; what has no number stays as it is."""
    try:
        bits = int(mask, 16)
    except ValueError:
        return mask
    named = [word for bit, word in BITS.items() if bits & bit]
    rest = bits & ~sum(BITS)
    return ", ".join(named + [hex(rest)] * bool(rest)) or "nothing"


def described(gpu: Mapping[str, str], mask: str) -> str:
    sm, memory = (
        f"{gpu[f'clocks.current.{kind}']} of {gpu[f'clocks.max.{kind}']} MHz"
        for kind in ("sm", "memory")
    )
    return (
        f"GPU {gpu['index']}: {gpu['name']}, compute capability {gpu['compute_cap']}, driver "
        f"{gpu['driver_version']}, {gpu['memory.free']} of {gpu['memory.total']} MiB free, SM at "
        f"{sm}, memory at {memory}, limit {gpu['power.limit']} W, clocks held by {reasons(mask)}"
    )


def roomy(gpu: Mapping[str, str]) -> None:
    """Fail where others hold so much of the GPU's memory that nothing can run beside them."""
    free = gpu["memory.free"]
    # A GPU that shares the machine's memory; a slice of one (MIG), whose card's is not told.
    if "N/A" in free or "Permissions" in free:
        return
    need(
        free.isdigit() and int(free) >= FREE,
        f"GPU {gpu['index']} ({gpu['name']}): expected at least {FREE} MiB free, found {free} of "
        f"{gpu['memory.total']}: other processes use the rest, take another machine",
    )


# --- arithmetic -----------------------------------------------------------------------------------

BF16 = 2**-8  # half a unit in the last place, of the value
SIZE, LARGE = 4096, 8192


@check("a GPU that computes, and wrongly; a torch without kernels for this GPU", level="gpu")
def torch_matmul(_: Promise) -> str:
    torch, said = cuda(), []
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    for device in devices(torch):
        x, y = (torch.randn(SIZE, SIZE, device=device, dtype=torch.bfloat16) for _ in "xy")
        found, exact = x @ y, x.double() @ y.double()
        on(device, found, exact)
        # Beside the rounding of the result only that of fp32 sums, a thousandth of a typical value.
        error = off(found.double(), exact, relative=BF16, absolute=2**-10 * math.sqrt(SIZE))
        name = torch.cuda.get_device_name(device)
        right(f"bf16 product on {device} ({name})", error)
        del found, exact
        said.append(f"{device} {name}: {error:.2f} of the error allowed, {speed(torch, device)}")
    return "; ".join(said)


def speed(torch: Any, device: Any) -> str:
    """TFLOP/s of a large bf16 product, for information: it depends on clocks and limits."""
    x, y = (torch.randn(LARGE, LARGE, device=device, dtype=torch.bfloat16) for _ in "xy")
    for _ in range(3):
        x @ y
    torch.cuda.synchronize(device)
    start = time.monotonic()
    for _ in range(10):
        x @ y
    torch.cuda.synchronize(device)
    return f"{10 * 2 * LARGE**3 / (time.monotonic() - start) / 1e12:.1f} TFLOP/s"


E4M3 = 448.0  # the largest number of the type


@check("fp8 that torch has and this card's libraries refuse, or whose scales are lost", level="gpu")
def torch_matmul_fp8(_: Promise) -> str:
    torch, said, older = cuda(), [], []
    for device in devices(torch):
        name, capability = (
            torch.cuda.get_device_name(device),
            torch.cuda.get_device_capability(device),
        )
        if capability < (8, 9):
            older.append(f"{name} has compute capability {capability[0]}.{capability[1]}")
            continue
        error = fp8(torch, device)
        right(f"e4m3 product on {device} ({name})", error)
        said.append(f"{device} {name}: {error:.2f} of the error allowed")
    if not said:
        raise NotPromised(f"fp8 needs compute capability 8.9: {', '.join(older)}")
    return "; ".join([*said, *older])


def fp8(torch: Any, device: Any) -> float:
    """The error of an e4m3 product, against the same numbers in fp64."""
    rows, inner, columns = 512, 512, 768
    kind = torch.float8_e4m3fn
    # Two scales far from one and from each other, so that none can be lost or exchanged.
    x = torch.randn(rows, inner, device=device) * 7
    y = torch.randn(columns, inner, device=device) / 5
    scales = [tensor.abs().max() / E4M3 for tensor in (x, y)]
    x, y = ((t / s).clamp(-E4M3, E4M3).to(kind) for t, s in zip((x, y), scales, strict=True))
    # Row-major times column-major is the only layout of every card.
    found = torch._scaled_mm(
        x, y.t(), scale_a=scales[0], scale_b=scales[1], out_dtype=torch.bfloat16
    )
    found = found[0] if isinstance(found, tuple) else found  # until torch 2.4, with the maximum
    x, y = (t.float().double() * s.double() for t, s in zip((x, y), scales, strict=True))
    exact = x @ y.t()
    on(device, found, exact)
    # fp8 units add with some 14 bits only: a fiftieth of a typical value.
    typical = exact.pow(2).mean().sqrt().item()
    return off(found.double(), exact, relative=BF16, absolute=typical / 50)


# --- compilers ------------------------------------------------------------------------------------


@check(
    "torch.compile that finds no C compiler, no Python.h or no ptxas, or gives other numbers",
    level="gpu",
    timeout=300,
)
def torch_compile(_: Promise) -> str:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        os.environ["TRITON_CACHE_DIR"] = str(Path(folder, "triton"))
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # here, where an error is seen
        torch = cuda()

        def function(x: Any, weight: Any) -> Any:
            hidden = torch.nn.functional.gelu(x @ weight)
            return torch.nn.functional.layer_norm(hidden, hidden.shape[-1:])

        inputs = [torch.randn(256, 512, device="cuda"), torch.randn(512, 384, device="cuda") / 16]
        results = {}
        for name, call in (("eager", function), ("compiled", torch.compile(function))):
            leaves = [tensor.clone().requires_grad_() for tensor in inputs]
            out = call(*leaves)
            out.backward(torch.linspace(-1, 1, out.numel(), device="cuda").view_as(out))
            results[name] = [out.detach(), *(leaf.grad for leaf in leaves)]
        device = torch.device("cuda", torch.cuda.current_device())
        on(device, *results["compiled"])
        errors = [
            off(found, exact, relative=1e-3, absolute=1e-3 * exact.abs().max().item())
            for found, exact in zip(results["compiled"], results["eager"], strict=True)
        ]
        for what, error in zip(("output", "gradient of x", "of the weight"), errors, strict=True):
            right(f"torch.compile, {what} beside eager", error)
        count = len([*Path(folder).rglob("*.cubin")])
        need(count, "expected machine code that Triton compiled for this GPU, found no cubin")
    return f"{count} kernels compiled, forward and backward within {max(errors):.3f} of the limit"


DECLARED = "at::Tensor probe(at::Tensor x, int64_t factor);"
KERNEL = r"""
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAException.h>

__global__ void probe_kernel(const int *x, int *y, int factor, int64_t count) {
    int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
    if (i < count) y[i] = x[i] * factor + static_cast<int>(i);
}

at::Tensor probe(at::Tensor x, int64_t factor) {
    TORCH_CHECK(x.is_cuda() && x.is_contiguous() && x.scalar_type() == at::kInt);
    at::Tensor y = at::empty_like(x);
    int64_t count = x.numel();
    probe_kernel<<<(count + 255) / 256, 256, 0, at::cuda::getCurrentCUDAStream()>>>(
        x.data_ptr<int>(), y.data_ptr<int>(), static_cast<int>(factor), count);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return y;
}
"""


@check(
    "extensions that do not compile on the pod: no ninja, no CUDA headers, a compiler that nvcc "
    "refuses, an nvcc that does not know this GPU",
    level="gpu",
    timeout=300,
)
def cpp_extension(_: Promise) -> str:
    torch = cuda()
    need(shutil.which("ninja"), "expected ninja on PATH, found none: torch builds no extension")
    major, minor = torch.cuda.get_device_capability()
    # This GPU's machine code alone, no PTX: so what runs is what nvcc compiled.
    os.environ["TORCH_CUDA_ARCH_LIST"] = f"{major}.{minor}"
    os.environ["MAX_JOBS"] = "2"
    from torch.utils import cpp_extension as toolkit

    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            module = toolkit.load_inline(
                "imagegen_probe", [DECLARED], [KERNEL], functions=["probe"], build_directory=folder
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise AssertionError(f"{toolkit.CUDA_HOME}: {faults(str(error))}") from None
        seconds = time.monotonic() - start
        x = torch.arange(100_003, device="cuda", dtype=torch.int32)
        found = module.probe(x, 3)
        on(x.device, found)
        wrong = int((found != x * 4).sum().item())
        same("wrong numbers from the extension", 0, wrong)
    return f"compiled for sm_{major}{minor} by {toolkit.CUDA_HOME} in {seconds:.0f} s, and right"


def faults(log: str) -> str:
    """The lines of a build's log that tell of errors, or else its end."""
    told = [line.strip() for line in log.splitlines() if "error" in line.lower()]
    return "\n".join(told[:12])[:2000] if len(told) > 1 else log[-2000:]


# --- GPUs with one another ------------------------------------------------------------------------


@check(
    "GPUs that cannot reach one another: training on several hangs at its first step, or copies "
    "arrive wrong",
    level="gpu",
    timeout=ranks.PATIENCE + 60,
)
def nccl_all_gpus(_: Promise) -> str:
    torch = cuda()
    ranks.copied(torch, devices(torch))
    return ranks.together(torch)
