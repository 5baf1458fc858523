"""The checks that need no GPU: compiler, torch, flash-attn, packages, what is in the layers."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import mmap
import os
import platform
import re
import shutil
import sys
import tempfile
from importlib import metadata
from itertools import product
from pathlib import Path
from urllib.parse import unquote

from suite import NotPromised, Promise, Skip, Suite, need, output, same, seek

LAUNCH = Path("/.launch")  # vast.ai's own start

SUITE = Suite()
check = SUITE.check


@check("a base image of another release than its tag says")
def os_release(promise: Promise) -> str:
    found = platform.freedesktop_os_release()
    same("os", promise["os"], {"id": found["ID"], "version": found["VERSION_ID"]})
    return found["PRETTY_NAME"]


@check("`python` and `python3` being two interpreters, of which one has no torch")
def interpreter(promise: Promise) -> str:
    same("Python", promise["python"], f"{sys.version_info.major}.{sys.version_info.minor}")
    for name in ("python", "python3"):
        same(f"`{name}` on PATH", f"{sys.prefix}/bin/{name}", shutil.which(name))
    return f"{platform.python_version()} in {sys.prefix}"


def nvcc_version() -> str:
    return seek(r"release (\d+\.\d+)", output("nvcc", "--version"), "`nvcc --version`")[1]


@check("images without a compiler: extensions then fail to build on the rented machine")
def nvcc(promise: Promise) -> str:
    same("nvcc", promise["cuda"].rsplit(".", 1)[0], nvcc_version())
    same("CUDA_HOME's nvcc", True, Path(os.environ.get("CUDA_HOME", "/"), "bin/nvcc").exists())
    return f"{shutil.which('nvcc')} {nvcc_version()}"


PROGRAM = r"""
#include <cstdio>
__global__ void square(int *x) { x[threadIdx.x] = threadIdx.x * threadIdx.x; }
int main() {
    int count = 0, *x = nullptr, y[32] = {};
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count > 0) {
        cudaMalloc(&x, sizeof y);
        square<<<1, 32>>>(x);
        error = cudaMemcpy(y, x, sizeof y, cudaMemcpyDeviceToHost);
    }
    std::printf("error=%d devices=%d y31=%d\n", error, count, y[31]);
}
"""


def compiled(flags: list[str], folder: str) -> str:
    """Compile PROGRAM with nvcc, run it, and return the line that it prints."""
    source, program = Path(folder, "program.cu"), Path(folder, "program")
    source.write_text(PROGRAM)
    output("nvcc", *flags, "-o", program, source, timeout=100)
    return output(program).strip()


@check("libcudart that links only with an unversioned .so, or is not found by the loader")
def cuda_program(_: Promise) -> str:
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for flags in ([], ["-cudart", "shared", "-lcudart"]):
            line = compiled(flags, folder)
            found = seek(r"^error=(\d+) devices=(\d+) ", line, "the program")
            # Without a GPU the runtime must load all the same and say so by an error.
            agree = (int(found[1]) == 0) == (int(found[2]) > 0)
            need(agree, f"the program: expected a device or an error, found {line!r}")
            lines.append(f"{'shared' if flags else 'static'} runtime: {line}")
    return "; ".join(lines)


@check("tags that say one version and hold another; a later install that replaced torch")
def torch_version(promise: Promise) -> str:
    import torch

    same("torch", promise["torch"], torch.__version__.partition("+")[0])
    same("torch.version.cuda", promise["torch_cuda"], torch.version.cuda)
    same("torch.compiled_with_cxx11_abi()", True, torch.compiled_with_cxx11_abi())
    return f"torch {torch.__version__}, CUDA {torch.version.cuda}, C++11 ABI"


@check("images that ship without torchvision, or with one that cannot load beside this torch")
def torchvision_version(promise: Promise) -> str:
    if not promise.get("torchvision"):
        raise Skip("the image promises no torchvision")
    import torch
    import torchvision

    same("torchvision", promise["torchvision"], torchvision.__version__.partition("+")[0])
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.1]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist()
    same("torchvision.ops.nms of two boxes that overlap", [0], kept)  # its own C++ operator
    return f"torchvision {torchvision.__version__}"


@check("nvcc 13 beside a torch for CUDA 12: torch refuses to build any extension")
def nvcc_matches_torch(_: Promise) -> str:
    import torch

    same(
        "CUDA major of torch and nvcc",
        torch.version.cuda.split(".")[0],
        nvcc_version().split(".")[0],
    )
    return f"nvcc {nvcc_version()}, torch for CUDA {torch.version.cuda}"


def promised(promise: Promise, *generations: int) -> Promise:
    """What is promised of flash-attention, where it is of one of these generations."""
    flash: Promise | None = promise.get("flash_attn")
    if not flash:
        raise NotPromised("the image promises no flash-attn")
    found = flash.get("generation", 2)
    if found not in generations:
        words = " or ".join(map(str, generations))
        raise NotPromised(f"the image promises FlashAttention-{found}; this is about {words}")
    return flash


def promised_flash_attn(promise: Promise) -> Promise:
    return promised(promise, 2)


def installed_as() -> str:
    """The local version in the name of the file that was installed: official wheels have theirs
    nowhere else, and the installer notes where they came from.
    """
    told = metadata.distribution("flash_attn").read_text("direct_url.json") or "{}"
    name = unquote(json.loads(told).get("url", "")).rpartition("/")[2]
    return name.partition("+")[2].partition("-")[0]


@check("a wheel built for another torch, CUDA or C++ ABI than the image's")
def flash_attn_version(promise: Promise) -> str:
    flash = promised_flash_attn(promise)
    import flash_attn
    import torch

    public, _, local = metadata.version("flash_attn").partition("+")
    local = local or installed_as()
    same("flash-attn", flash["version"], public)
    same("flash_attn.__version__", flash["version"], flash_attn.__version__.partition("+")[0])
    need(local, f"flash-attn: expected a local version that names torch, found only {public}")
    facts = {
        r"torch(\d+\.\d+)": ".".join(torch.__version__.split(".")[:2]),
        r"^cu(\d\d)": torch.version.cuda.split(".")[0],
        r"abi(true|false)": str(torch.compiled_with_cxx11_abi()).lower(),
    }
    if "abi" not in local.lower():  # a third party's name does not tell it; loading does
        del facts[r"abi(true|false)"]
    for pattern, expected in facts.items():
        found = seek(pattern, local.lower(), "flash-attn's local version")[1]
        same(f"flash-attn's local version {local}, {pattern}", expected, found)
    return f"{public}+{local}"


def extension() -> Path:
    files = metadata.files("flash_attn") or []
    found = [Path(os.fspath(f.locate())) for f in files if f.name.startswith("flash_attn_2_cuda.")]
    same("flash_attn_2_cuda libraries in the flash-attn package", 1, len(found))
    return found[0]


@check("`undefined symbol` on import, the most reported flash-attn fault", timeout=180)
def flash_attn_loads(promise: Promise) -> str:
    promised_flash_attn(promise)
    sys.setdlopenflags(os.RTLD_NOW)  # every symbol now, not at the first call
    import torch

    module = importlib.import_module("flash_attn_2_cuda")
    for name in ("fwd", "varlen_fwd", "bwd", "varlen_bwd", "fwd_kvcache"):
        need(hasattr(module, name), f"flash_attn_2_cuda: expected {name}, found none")
    from flash_attn import flash_attn_func

    same("flash_attn_func is callable", True, callable(flash_attn_func))
    return f"all symbols of {extension().name} resolve beside torch {torch.__version__}"


@check("`no kernel image is available` on the rented GPU; a kernel left out of the build")
def flash_attn_kernels(promise: Promise) -> str:
    flash, library = promised_flash_attn(promise), extension()
    tools = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin/cuobjdump")]
    triton = metadata.files("triton") or []
    tools += [Path(os.fspath(f.locate())) for f in triton if f.name == "cuobjdump"]
    tool = next((path for path in tools if path.exists()), None)
    if tool is None:
        raise AssertionError(f"expected cuobjdump at one of {[*map(str, tools)]}, found none")
    listed = output(tool, "--list-elf", library)
    archs = {int(arch) for arch in re.findall(r"\.sm_(\d+)[af]?\.cubin", listed)}
    same("architectures in flash_attn_2_cuda", sorted(flash["archs"]), sorted(archs))
    # Kernels register under their mangled names: ...kernel_traitsILi128E...N7cutlass10bfloat16_t
    names = rb"Flash_(fwd|bwd)_kernel_traitsILi(\d+)E\w{0,80}?N7cutlass(10bfloat16_t|6half_t)"
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        found = {
            (kind.decode(), int(dim), "bf16" if b"bfloat" in ctype else "fp16")
            for kind, dim, ctype in (match.groups() for match in re.finditer(names, text))
        }
    kinds = ["fwd", *(["bwd"] if "backward" in flash["features"] else [])]
    same("kernels", sorted(product(kinds, flash["head_dims"], flash["dtypes"])), sorted(found))
    return f"sm {sorted(archs)}, head dimensions {flash['head_dims']}, {flash['dtypes']}, {kinds}"


MODULES = {3: "flash_attn_interface", 4: "flash_attn.cute"}


@check("a FlashAttention-3 or -4 that installs, and cannot load beside this torch", timeout=180)
def flash_attn_package_loads(promise: Promise) -> str:
    flash = promised(promise, *MODULES)
    name, module = flash["package"], MODULES[flash["generation"]]
    same(name, flash["version"], metadata.version(name).partition("+")[0])
    sys.setdlopenflags(os.RTLD_NOW)  # every symbol now, not at the first call
    import torch

    found = importlib.import_module(module)
    for function in ("flash_attn_func", "flash_attn_varlen_func"):
        need(callable(getattr(found, function, None)), f"{module}: expected {function}, found none")
    return f"{name} {metadata.version(name)}: {module} loads beside torch {torch.__version__}"


@check("flash-attn 2 and flash-attn-4 in one place: each overwrites the other's flash_attn/cute")
def flash_attn_has_one_owner(promise: Promise) -> str:
    flash = promised(promise, 2, 4)
    owner = flash.get("package", "flash-attn")
    names = metadata.packages_distributions().get("flash_attn", [])
    owners = sorted({re.sub(r"[-_.]+", "-", name).lower() for name in names})
    same("distributions that hold the module flash_attn", [owner], owners)
    files = [file for file in metadata.files(owner) or [] if file.hash]
    inside = [file for file in files if file.parts[:2] == ("flash_attn", "cute")]
    gone = [file for file in inside if not Path(os.fspath(file.locate())).exists()]
    changed = [str(file) for file in inside if file in gone or file.hash.value != _sha256(file)]
    need(not changed, f"expected the files of {owner} as it brought them, found others: {changed}")
    return f"{owner} alone holds flash_attn; {len(inside)} files of flash_attn/cute are its own"


def _sha256(file: metadata.PackagePath) -> str:
    """As a wheel's RECORD writes it."""
    digest = hashlib.sha256(file.read_binary()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


@check("a promised package that is missing or fails to import", timeout=300)
def packages_import(promise: Promise) -> str:
    modules: dict[str, str] = {}
    for module, names in metadata.packages_distributions().items():
        for name in names:
            modules.setdefault(re.sub(r"[-_.]+", "-", name).lower(), module)
    versions, broken = [], []
    for package in promise["packages"]:
        try:
            versions.append(f"{package} {metadata.version(package)}")
            importlib.import_module(modules.get(package.lower(), package.replace("-", "_")))
        except Exception as error:
            broken.append(f"{package}: {type(error).__name__}: {error}")
    need(not broken, f"expected {promise['packages']} to import, found {'; '.join(broken)}")
    return ", ".join(versions)


@check("two packages that ask for different versions of a third, so that an install changes torch")
def pip_check(_: Promise) -> str:
    return output(sys.executable, "-m", "pip", "check", timeout=100).strip()


@check("host keys shared by every pod; keys, tokens or a company's CA left in a layer")
def nothing_private(_: Promise) -> str:
    used = ("IMAGEGEN_POD", "PUBLIC_KEY", "SSH_PUBLIC_KEY")
    if LAUNCH.exists() or any(map(os.environ.get, used)):
        raise Skip("this container is a pod in use, and has keys of its own")
    patterns = (
        *("etc/ssh/ssh_host_*", "root/.ssh/*", "root/.vast_api_key", "run/secrets/*"),
        *("root/.netrc", "root/.git-credentials", "root/.docker/config.json"),
        *("root/.cache/huggingface/token", "root/.config/*/*", "etc/pip.conf", "etc/uv/*"),
        "usr/local/share/ca-certificates/*",
    )
    found = sorted(str(path) for pattern in patterns for path in Path("/").glob(pattern))
    need(not found, f"expected no key, token or CA file in the image, found {found}")
    bundle, conf = Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/ca-certificates.conf")
    if bundle.exists():
        enabled = [line for line in conf.read_text().splitlines() if line and line[0] not in "#!"]
        same(
            f"certificates in {bundle}", len(enabled), bundle.read_text().count("BEGIN CERTIFICATE")
        )
    for file in metadata.files("certifi") or [] if "certifi" in _installed() else []:
        if file.name == "cacert.pem" and file.hash:
            same("certifi's cacert.pem", file.hash.value, _sha256(file))
    return "no SSH keys, tokens, package index settings or added CA certificates"


def _installed() -> set[str]:
    return {distribution.metadata["Name"].lower() for distribution in metadata.distributions()}


@check("a volume mounted over /workspace, which hides whatever the image keeps there")
def workspace_holds_nothing_needed(_: Promise) -> str:
    used = [
        *sys.path,
        *os.environ["PATH"].split(":"),
        os.environ.get("CUDA_HOME", ""),
        sys.executable,
    ]
    inside = [path for path in used if os.path.realpath(path).startswith("/workspace")]
    need(not inside, f"expected nothing needed under /workspace, found {inside}")
    return f"{len(used)} paths of Python, PATH and CUDA_HOME lie elsewhere"
