"""What every platform's contract asks of an image in the same words, and runs on a GPU."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from packaging.version import Version

from imagegen.checks.pod import Failed, need, same

if TYPE_CHECKING:
    from imagegen.checks.contract import Trial
    from imagegen.checks.pod import Pod


def amd64(trial: Trial) -> str:
    """Its platform. Of an index in a registry the engine has taken the part for this machine."""
    found = f"{trial.config['Os']}/{trial.config['Architecture']}"
    same("the image's platform", "linux/amd64", found)
    return found


def tag(trial: Trial) -> str:
    """The tag that the image was asked for by; nothing of one asked for by its digest."""
    name = trial.ref.partition("@")[0].rpartition("/")[2]
    return "" if name.startswith("sha256:") else name.partition(":")[2]


def gate(trial: Trial) -> Version:
    """The oldest CUDA that a driver has to run, by the variables of NVIDIA's runtime."""
    env = trial.environment
    need(env.get("NVIDIA_VISIBLE_DEVICES"), "NVIDIA_VISIBLE_DEVICES: expected a value, found none")
    can = set(env.get("NVIDIA_DRIVER_CAPABILITIES", "").split(","))
    need(
        "all" in can or {"compute", "utility"} <= can,
        f"NVIDIA_DRIVER_CAPABILITIES: expected compute and utility, found {sorted(can - {''})}",
    )
    require = env.get("NVIDIA_REQUIRE_CUDA", "")
    if least := re.search(r"\bcuda>=(\d+\.\d+)", require):
        return Version(least[1])
    raise Failed(f"NVIDIA_REQUIRE_CUDA: expected cuda>=X.Y, found {require!r}")


def of_one_major(lowest: Version, newest: Version, what: str) -> None:
    """A driver of a CUDA major's first release runs all of that major, so that may be the gate."""
    need(
        lowest.major == newest.major and lowest <= newest,
        f"NVIDIA_REQUIRE_CUDA: expected {newest.major}.0 to {newest}, {what}, found {lowest}",
    )


def works_on_its_gpu(trial: Trial, pod: Pod) -> str:
    """nvidia-smi, torch, flash-attn and a kernel by the image's nvcc, all over SSH.

    flash-attn is tried with kernels that the image's maker says are in it.
    """
    pod.login()
    gpus = pod.said("nvidia-smi -L").splitlines()
    need(gpus, "nvidia-smi -L: expected a GPU, found none")
    flash = trial.promise.get("flash_attn") or {}
    dim = max(flash.get("head_dims") or (128,))
    dtype = {"fp16": "float16", "bf16": "bfloat16"}[(flash.get("dtypes") or ("bf16",))[-1]]
    probe = PROBE.replace("HEAD_DIM", str(dim)).replace("DTYPE", dtype)
    said = pod.said("bash -lc 'python3 -'", stdin=probe, timeout=300).strip().splitlines()[-1]
    return f"{'; '.join(gpus)}: {said}"


PROBE = r'''
import importlib, importlib.util, pathlib, subprocess, tempfile
import torch
from torch.nn.functional import scaled_dot_product_attention as attention

assert torch.cuda.is_available(), "torch sees no GPU"
a = torch.randn(1024, 1024, device="cuda", dtype=torch.bfloat16)
found, wanted = (a @ a).double(), a.double() @ a.double()
error = ((found - wanted).abs().max() / wanted.abs().max()).item()
assert error < 0.02, f"matmul in bf16: expected an error below 0.02, found {error}"
said = [f"torch {torch.__version__}"]

def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of what it would be in
        return False

for name in filter(there, ("flash_attn_interface", "flash_attn", "flash_attn.cute")):
    flash = getattr(importlib.import_module(name), "flash_attn_func", None)
    if flash is None:  # flash_attn is but the folder of flash-attn 4's flash_attn.cute
        continue
    q, k, v = (torch.randn(2, 128, 4, HEAD_DIM, device="cuda", dtype=torch.DTYPE) for _ in "qkv")
    out = flash(q, k, v, causal=True)
    out = out[0] if isinstance(out, tuple) else out
    q, k, v = (x.transpose(1, 2).float() for x in (q, k, v))
    error = (out.transpose(1, 2) - attention(q, k, v, is_causal=True)).abs().max().item()
    assert error < 0.05, f"{name}: expected an error below 0.05, found {error}"
    said.append(f"{name}, error {error:.4f}")
    break
else:
    said.append("no flash-attn")

SOURCE = """
#include <cstdio>
__global__ void square(int *x) { x[threadIdx.x] = threadIdx.x * threadIdx.x; }
int main() {
    int *x, y[32];
    if (cudaMalloc(&x, sizeof y)) return 1;
    square<<<1, 32>>>(x);
    if (cudaMemcpy(y, x, sizeof y, cudaMemcpyDeviceToHost)) return 2;
    return y[31] == 961 ? 0 : 3;
}
"""
major, minor = torch.cuda.get_device_capability()
with tempfile.TemporaryDirectory() as folder:
    source, program = pathlib.Path(folder, "square.cu"), pathlib.Path(folder, "square")
    source.write_text(SOURCE)
    arch = f"-arch=sm_{major}{minor}"
    subprocess.run(["nvcc", arch, "-o", program, source], check=True, timeout=200)
    subprocess.run([program], check=True, timeout=60)
said.append("a kernel by nvcc")
print(", ".join(said))
'''
"""A program for the pod's own Python; its last line says what ran. Never run on a GPU yet."""
