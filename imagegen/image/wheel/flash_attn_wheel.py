"""Build a flash-attn 2 wheel that holds only the kernels asked for.

One file without dependencies beyond flash-attn's own build requirements, so that the same
recipe runs in a build stage of an image and on a bare machine with a GPU:

    python flash_attn_wheel.py flash_attn-2.8.3.post2.tar.gz --out wheels \\
        --archs 80 --head-dims 128 --dtypes bf16

Upstream's ``setup.py`` is run unchanged.  Only the list of sources and the compiler flags that it
hands to ``CUDAExtension`` are narrowed on the way, so its metadata, its package list and its way of
calling ninja stay upstream's.

A call that needs something left out must raise, never answer wrongly:

* a head dimension or a type without kernels ends in a stub, generated here, that names it;
* a feature switched off is refused by upstream's own checks in ``flash_api.cpp``.  Those checks
  exist only when the C++ compiler sees the same ``FLASHATTENTION_DISABLE_*`` macros as nvcc, so
  the macros go to both.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path

HEAD_DIMS = (32, 64, 96, 128, 192, 256)
DTYPES = {"fp16": "cutlass::half_t", "bf16": "cutlass::bfloat16_t"}
FEATURES = {
    "dropout": "FLASHATTENTION_DISABLE_DROPOUT",
    "alibi": "FLASHATTENTION_DISABLE_ALIBI",
    "softcap": "FLASHATTENTION_DISABLE_SOFTCAP",
    "local": "FLASHATTENTION_DISABLE_LOCAL",
    "uneven_k": "FLASHATTENTION_DISABLE_UNEVEN_K",
    "backward": "FLASHATTENTION_DISABLE_BACKWARD",
}
KERNEL = re.compile(r"flash_(fwd_split|fwd|bwd)_hdim(\d+)_(fp16|bf16)(_causal)?_sm80\.cu$")
NINJA_STATUS = re.compile(r"^\[(\d+)/(\d+)\]", re.MULTILINE)
GIGABYTES_PER_JOB = 5  # 3.2-5.0 GB per nvcc thread reported with CUDA 12.8 and later


@dataclass(frozen=True)
class Selection:
    """Which kernels a wheel holds.  ``archs`` are compute capabilities times ten: 80 is 8.0."""

    archs: tuple[int, ...]
    head_dims: tuple[int, ...] = HEAD_DIMS
    dtypes: tuple[str, ...] = tuple(DTYPES)
    features: tuple[str, ...] = tuple(FEATURES)

    def __post_init__(self) -> None:
        """Refuse what upstream cannot build, or would build wrongly.

        Raises:
            ValueError: an unknown value; or ``uneven_k`` left out beside head dimension 192.
        """
        for name, known in (("head_dims", HEAD_DIMS), ("dtypes", DTYPES), ("features", FEATURES)):
            unknown = set(getattr(self, name)) - set(known)
            if unknown:
                raise ValueError(f"{name}: {sorted(unknown)} not in {sorted(known)}")
        for field in fields(self):
            if field.name != "features" and not getattr(self, field.name):
                raise ValueError(f"{field.name}: empty")
        if 192 in self.head_dims and "uneven_k" not in self.features:
            # Upstream compares the head dimension with its multiple of 32 and so lets 160 pass,
            # which then runs in the 192 kernel as if it were even: wrong without an error.
            raise ValueError("head dimension 192 needs the feature uneven_k")

    def has(self, source: str) -> bool:
        """Whether the kernel file ``source`` is selected; files that hold no kernel always are."""
        kernel = KERNEL.search(source)
        if kernel is None:
            return True
        kind, head_dim, dtype, _ = kernel.groups()
        return (
            int(head_dim) in self.head_dims
            and dtype in self.dtypes
            and (kind != "bwd" or "backward" in self.features)
        )

    @property
    def macros(self) -> list[str]:
        """The ``-D`` flags of everything left out, for nvcc and for the C++ compiler alike."""
        return [f"-D{macro}" for name, macro in FEATURES.items() if name not in self.features]

    def local_version(self, torch_minor: str, cuda: str, abi: bool) -> str:
        """A PEP 440 local version that says what is inside: ``cu130torch2.11cxx11abitrue.sm80``."""
        words = [f"cu{cuda.replace('.', '')}torch{torch_minor}cxx11abi{str(abi).lower()}"]
        words += [f"sm{arch}" for arch in self.archs]
        if self.head_dims != HEAD_DIMS:
            words += [f"hdim{dim}" for dim in self.head_dims]
        if self.dtypes != tuple(DTYPES):
            words += self.dtypes
        if self.features != tuple(FEATURES):
            words += [
                f"no{name.replace('_', '')}" for name in FEATURES if name not in self.features
            ]
        return ".".join(words)


def stub(selection: Selection) -> str:
    """C++ for every entry point without a kernel: it raises and names what is missing."""
    kinds = {
        "run_mha_fwd_": ("Flash_fwd_params", "forward", "fwd"),
        "run_mha_fwd_splitkv_dispatch": ("Flash_fwd_params", "split-KV forward", "fwd_split"),
        "run_mha_bwd_": ("Flash_bwd_params", "backward", "bwd"),
    }
    held = (
        f"head dimensions {', '.join(map(str, selection.head_dims))}; "
        f"types {', '.join(selection.dtypes)}; features {', '.join(selection.features) or 'none'}"
    )
    lines = [
        "// Generated by flash_attn_wheel.py: entry points whose kernels this build leaves out.",
        "#include <c10/util/Exception.h>",
        "#include <cutlass/numeric_types.h>",
        '#include "namespace_config.h"',
        '#include "flash.h"',
        "namespace FLASH_NAMESPACE {",
    ]
    for (function, (params, words, kind)), dim, (dtype, ctype), causal in product(
        kinds.items(), HEAD_DIMS, DTYPES.items(), (False, True)
    ):
        if selection.has(f"flash_{kind}_hdim{dim}_{dtype}{'_causal' * causal}_sm80.cu"):
            continue
        message = (
            f"this flash-attn build has no {words} kernel for head dimensions up to {dim} in "
            f"{dtype}: it holds {held}. Build a wheel with --head-dims and --dtypes that include "
            "it, or use an image whose flash-attn selection is 'full'."
        )
        lines += [
            f"template <> void {function}<{ctype}, {dim}, {str(causal).lower()}>"
            f"({params} &, cudaStream_t) {{",
            f'    TORCH_CHECK(false, "{message}");',
            "}",
        ]
    return "\n".join([*lines, "}  // namespace FLASH_NAMESPACE", ""])


def standard(torch_version: tuple[int, int]) -> str:
    """The C++ standard that torch's headers need: ATen.h refuses less than C++20 from 2.14 on."""
    return "c++20" if torch_version >= (2, 14) else "c++17"


def narrowed(
    extension: Callable[..., object], selection: Selection, stub_file: str, std: str
) -> Callable[..., object]:
    """``CUDAExtension`` with the selected sources only, and the same macros for both compilers."""

    def make(
        name: str,
        sources: list[str],
        extra_compile_args: dict[str, list[str]],
        **rest: object,
    ) -> object:
        kernels = [source for source in sources if KERNEL.search(source)]
        if len(kernels) != len(HEAD_DIMS) * len(DTYPES) * 2 * 3:
            raise SystemExit(
                f"unknown flash-attn sources: {len(kernels)} kernel files, expected 72"
            )
        sources = [*filter(selection.has, sources), *([stub_file] if stub_file else [])]
        flags = {
            compiler: [
                *(re.sub(r"^-std=.*", f"-std={std}", arg) for arg in args),
                *selection.macros,
            ]
            for compiler, args in extra_compile_args.items()
        }
        return extension(name=name, sources=sources, extra_compile_args=flags, **rest)

    return make


def jobs(cores: int, memory_bytes: int) -> int:
    """How many nvcc to run at once: no more than cores, nor than memory at 5 GB for each."""
    return max(1, min(cores, memory_bytes // (GIGABYTES_PER_JOB * 10**9)))


def usable_memory() -> int:
    """Bytes that this process may use: what is available, or less where a cgroup says so."""
    meminfo = Path("/proc/meminfo").read_text()
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    limits = [int(found[1]) * 1024] if found else []
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(limit).read_text().strip() if Path(limit).exists() else "max"
        limits += [int(text)] if text.isdigit() else []
    return min(limits, default=GIGABYTES_PER_JOB * 10**9)


@contextmanager
def quietly(log: Path, every: float = 10.0) -> Iterator[None]:
    """Send everything that is printed to ``log`` and say every ``every`` seconds how far ninja is.

    The compilers print megabytes of warnings and command lines, and ninja nothing while a file
    compiles. When the block fails, the end of the log is shown.
    """
    stop, start = threading.Event(), time.monotonic()
    sys.stdout.flush()
    with log.open("wb") as file, os.fdopen(os.dup(1), "w") as screen:
        before = [os.dup(1), os.dup(2)]

        def watch() -> None:
            while not stop.wait(every):
                steps = NINJA_STATUS.findall(log.read_text(errors="replace"))
                done, total = steps[-1] if steps else ("0", "?")
                spent = time.monotonic() - start
                print(
                    f"flash-attn: {done} of {total} steps, {spent:.0f} s", file=screen, flush=True
                )

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            yield
        except BaseException:
            sys.stdout.flush()
            lines = log.read_text(errors="replace").splitlines()
            print("\n".join(line[:400] for line in lines[-60:]), file=screen, flush=True)
            raise
        finally:
            stop.set()
            thread.join()
            sys.stdout.flush()
            for number, saved in enumerate(before, start=1):
                os.dup2(saved, number)
                os.close(saved)


def nvcc_version() -> str:
    """``13.0.88`` of the nvcc that torch will call."""
    from torch.utils.cpp_extension import CUDA_HOME

    argv = [os.path.join(CUDA_HOME or "/usr/local/cuda", "bin", "nvcc"), "--version"]
    found = re.search(
        r"V([\d.]+)", subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    )
    return found[1] if found else "unknown"


def unpack(sdist: Path, into: Path) -> Path:
    """The source tree of ``sdist`` under ``into``; unpacked once, so that a build can resume."""
    tree = into / sdist.name.removesuffix(".tar.gz")
    done = into / f"{tree.name}.unpacked"
    if not done.exists():
        with tarfile.open(sdist) as tar:
            tar.extractall(into)  # its hash was checked; Python 3.10 knows no filters
        done.touch()
    return tree


def build(sdist: Path, out: Path, work: Path, selection: Selection) -> Path:
    """Compile and pack the wheel; returns its path.  Objects stay in ``work`` for the next try."""
    import torch
    from torch.utils import cpp_extension

    major, minor = (int(word) for word in torch.__version__.split(".")[:2])
    local = selection.local_version(
        f"{major}.{minor}", torch.version.cuda, torch._C._GLIBCXX_USE_CXX11_ABI
    )
    # A directory for everything that decides what an object is: objects of another compiler, torch
    # or selection must never be linked together.
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    work = work / f"{local}-{python}-torch{torch.__version__}-nvcc{nvcc_version()}"
    work.mkdir(parents=True, exist_ok=True)
    tree, out = unpack(sdist, work), out.absolute()
    out.mkdir(parents=True, exist_ok=True)

    text, stub_file = stub(selection), "csrc/flash_attn/imagegen_stub.cpp"
    if "TORCH_CHECK" not in text:
        stub_file = ""
    elif not (tree / stub_file).exists() or (tree / stub_file).read_text() != text:
        (tree / stub_file).write_text(text)

    os.environ.update(
        FLASH_ATTENTION_FORCE_BUILD="TRUE",  # never let setup.py guess a wheel by its name
        FLASH_ATTN_CUDA_ARCHS=";".join(map(str, selection.archs)),
        FLASH_ATTN_LOCAL_VERSION=local,
        # The headers are those of the versions in the directory's name. Their times say nothing:
        # every install of the same torch would compile every kernel again.
        TORCH_EXTENSION_SKIP_NVCC_GEN_DEPENDENCIES="1",
        MAX_JOBS=os.environ.get("MAX_JOBS")
        or str(jobs(len(os.sched_getaffinity(0)), usable_memory())),
        NVCC_THREADS=os.environ.get("NVCC_THREADS", "1"),
    )
    cpp_extension.CUDAExtension = narrowed(
        cpp_extension.CUDAExtension, selection, stub_file, standard((major, minor))
    )
    kernels = [p.name for p in (tree / "csrc/flash_attn/src").glob("flash_*_sm80.cu")]
    chosen = len([*filter(selection.has, kernels)])
    print(
        f"flash-attn {local}: {chosen} kernel files, {os.environ['MAX_JOBS']} at a time", flush=True
    )
    os.chdir(tree)
    sys.argv = ["setup.py", "-q", "bdist_wheel", "-d", os.fspath(out)]
    sys.path.insert(0, os.fspath(tree))
    with quietly(work / "build.log"):
        runpy.run_path("setup.py", run_name="__main__")
    (wheel,) = out.glob(f"flash_attn-*+{local}-*.whl")
    return wheel


def words(kind: type, known: Iterable[object]) -> Callable[[str], tuple[object, ...]]:
    """An argparse type: ``a,b`` into a tuple in the order of ``known``, repeats dropped."""
    order = list(known)

    def parse(text: str) -> tuple[object, ...]:
        found = {kind(word) for word in text.split(",") if word}
        return tuple(sorted(found, key=lambda w: order.index(w) if w in order else len(order)))

    return parse


def main() -> None:
    """Read the command line, build the wheel and print a JSON line about it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sdist", type=Path, help="flash-attn's source distribution")
    parser.add_argument("--out", type=Path, default=Path("wheels"), help="where the wheel goes")
    parser.add_argument("--work", type=Path, default=Path("build"), help="kept between builds")
    parser.add_argument("--archs", type=words(int, range(200)), required=True, help="80,90,...")
    parser.add_argument("--head-dims", type=words(int, HEAD_DIMS), default=HEAD_DIMS)
    parser.add_argument("--dtypes", type=words(str, DTYPES), default=tuple(DTYPES))
    parser.add_argument("--features", type=words(str, FEATURES), default=tuple(FEATURES))
    given = parser.parse_args()
    try:
        selection = Selection(given.archs, given.head_dims, given.dtypes, given.features)
    except ValueError as error:
        parser.error(str(error))
    start = time.monotonic()
    wheel = build(given.sdist.absolute(), given.out, given.work.absolute(), selection)
    print(
        json.dumps(
            {
                "wheel": wheel.name,
                "bytes": wheel.stat().st_size,
                "seconds": round(time.monotonic() - start, 1),
                "archs": selection.archs,
                "head_dims": selection.head_dims,
                "dtypes": selection.dtypes,
                "features": selection.features,
            }
        )
    )


if __name__ == "__main__":
    main()
