"""From a source distribution to a wheel: upstream's setup.py, with the kernels compiled by us."""

from __future__ import annotations

import hashlib
import os
import re
import runpy
import shutil
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import compiling
from .objects import Objects, Toolchain, alone
from .selection import KERNEL, KERNELS, Selection
from .stub import outspoken, stub

API = "csrc/flash_attn/flash_api.cpp"
OWN_API, STUB = "csrc/flash_attn/imagegen_api.cpp", "csrc/flash_attn/imagegen_stub.cpp"
MODULE = "flash_attn_2_cuda"


@dataclass(frozen=True)
class Job:
    """What to build. ``sources`` are the kernel files to compile, all of them unless it is a
    ``shard``, which ends with their objects and makes no wheel.

    ``given`` is a folder with objects that shards made; ``compile`` says whether kernels may be
    compiled: without, all of them must be there.
    """

    sdist: Path
    out: Path
    work: Path
    selection: Selection
    slots: int
    sources: tuple[str, ...]
    shard: bool = False
    given: Path | None = None
    compile: bool = True


@dataclass(frozen=True)
class Torch:
    """What of the installed torch decides the binary."""

    version: str
    cuda: str
    abi: bool

    @classmethod
    def here(cls) -> Torch:
        """That of this interpreter.

        Raises:
            ImportError: it has none, or one for CPUs.
        """
        import torch

        if not torch.version.cuda:
            raise ImportError(f"torch {torch.__version__} is one for CPUs, not for CUDA")
        return cls(torch.__version__, torch.version.cuda, bool(torch._C._GLIBCXX_USE_CXX11_ABI))

    @property
    def minor(self) -> str:
        """``2.11`` of 2.11.0+cu130."""
        return ".".join(self.version.split(".")[:2])

    @property
    def standard(self) -> str:
        """The C++ standard that its headers need: ATen.h refuses less than C++20 from 2.14 on."""
        major, minor = self.minor.split(".")
        return "c++20" if (int(major), int(minor)) >= (2, 14) else "c++17"


class Captured(Exception):
    """Raised out of setup.py with what it would compile: the extension and nvcc's flags."""

    def __init__(self, extension: Any, nvcc: Sequence[str]) -> None:
        super().__init__()
        self.extension, self.nvcc = extension, nvcc


def build(job: Job) -> list[Path]:
    """Compile, link and pack: the wheel; or, for a shard, its objects and the notes about them.

    Objects stay in ``job.work`` for the next try, the next Python and the next distribution.

    Raises:
        SystemExit: something does not compile, or the sources are not those that are known.
    """
    from torch.utils import cpp_extension

    torch = Torch.here()
    local = job.selection.local_version(torch.minor, torch.cuda, torch.abi)
    toolchain = Toolchain.here(cpp_extension.CUDA_HOME or "/usr/local/cuda")
    print(f"flash-attn {local}", flush=True)
    work = _work(job, local, torch, toolchain)
    with alone(work):
        return _built(job, local, torch, toolchain, _tree(job, work))


def _built(job: Job, local: str, torch: Torch, toolchain: Toolchain, tree: Path) -> list[Path]:
    from torch.utils import cpp_extension

    os.environ.update(
        FLASH_ATTENTION_FORCE_BUILD="TRUE",  # never let setup.py guess a wheel by its name
        FLASH_ATTENTION_SKIP_CUDA_BUILD="FALSE",
        FLASH_ATTN_CUDA_ARCHS=";".join(map(str, job.selection.archs)),
        FLASH_ATTN_LOCAL_VERSION=local,
        MAX_JOBS=str(job.slots),
    )
    upstreams = cpp_extension.CUDAExtension
    found = _captured(tree, narrowed(upstreams, job.selection, torch.standard))
    flags = [
        *cpp_extension.COMMON_NVCC_FLAGS,
        *("--compiler-options", "-fPIC"),
        *_host_compiler(),
        *found.nvcc,
        *("-DTORCH_API_INCLUDE_EXTENSION_H", f"-DTORCH_EXTENSION_NAME={MODULE}"),
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.abi)}",
    ]
    name = f"{tree.name}-torch{torch.minor}-cu{torch.cuda.replace('.', '')}"
    objects = Objects.of(job.work / "objects", name, _sha256(job.sdist), flags, toolchain)
    if job.given:
        with alone(objects.folder):
            others = objects.take(job.given / "objects")
        for why in others:
            print(f"flash-attn: {why}", flush=True)
    if not job.compile and (missing := objects.missing(job.sources)):
        raise SystemExit(
            f"{len(missing)} of {len(job.sources)} kernel files are not compiled, and this build "
            f"may compile none: {', '.join(map(compiling.name, missing))}"
        )
    command = _command(toolchain.nvcc, flags, found.extension.include_dirs, tree)
    compiled = compiling.compiled(objects, job.selection, job.sources, command, job.slots)
    if job.shard:
        return objects.give(job.sources, job.out / "objects")
    linked = narrowed(upstreams, job.selection, torch.standard, compiled)
    return [_linked(job.out, tree, linked, local)]


def _captured(tree: Path, extension: Callable[..., Any]) -> Captured:
    """What setup.py would compile."""
    try:
        with quietly(tree.with_name("setup.log"), "reading setup.py"):
            _setup_py(tree, extension, "--version")
    except Captured as found:
        return found
    raise SystemExit("flash-attn's setup.py builds no CUDA extension here")


def _linked(out: Path, tree: Path, extension: Callable[..., Any], local: str) -> Path:
    """The wheel: C++ and link by setup.py. It comes into ``out`` when it is whole."""
    made = tree.with_name("made")
    shutil.rmtree(made, ignore_errors=True)
    with quietly(tree.with_name("build.log"), "compiling flash_api.cpp and linking"):
        _setup_py(tree, extension, "bdist_wheel", "-d", os.fspath(made))
    (wheel,) = made.glob(f"flash_attn-*+{local}-*.whl")
    out.mkdir(parents=True, exist_ok=True)
    new = Path(shutil.copyfile(wheel, out / f".{wheel.name}.new"))
    shutil.rmtree(made)
    return new.replace(out / wheel.name)


def _setup_py(tree: Path, extension: Callable[..., Any], *words: str) -> None:
    import setuptools
    from torch.utils import cpp_extension

    cpp_extension.CUDAExtension = extension
    setuptools.find_packages = without_cute(setuptools.find_packages)
    os.chdir(tree)
    sys.argv = ["setup.py", "-q", *words]
    if os.fspath(tree) not in sys.path:
        sys.path.insert(0, os.fspath(tree))
    runpy.run_path("setup.py", run_name="__main__")


def without_cute(find: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """``find_packages`` that leaves out flash_attn.cute.

    2.8 brings an early copy of FlashAttention-4, which nothing in it imports. flash-attn-4 owns
    the same files: with both, each overwrites the other's.
    """
    return lambda *words, **options: [
        name for name in find(*words, **options) if not name.startswith("flash_attn.cute")
    ]


def narrowed(
    extension: Callable[..., Any],
    selection: Selection,
    std: str,
    compiled: Sequence[Path] | None = None,
) -> Callable[..., Any]:
    """``CUDAExtension`` that takes the objects ``compiled`` for the kernel files, and the same
    macros for both compilers; without objects it only says what is to be compiled.

    Raises:
        SystemExit: the sources are not those that are known, or an architecture is dropped.
    """

    def make(
        name: str, sources: list[str], extra_compile_args: dict[str, list[str]], **rest: Any
    ) -> Any:
        kernels = {Path(source).name for source in sources if KERNEL.search(source)}
        host = [source for source in sources if not KERNEL.search(source)]
        if kernels != set(KERNELS) or host != [API]:
            raise SystemExit(
                f"unknown flash-attn sources: {len(kernels)} kernel files and {host}, expected "
                f"{len(KERNELS)} and {API}"
            )
        flags = {
            compiler: [
                *(re.sub(r"^-std=.*", f"-std={std}", arg) for arg in args),
                *selection.macros,
            ]
            for compiler, args in extra_compile_args.items()
        }
        known = {code for arg in flags["nvcc"] for code in re.findall(r"code=sm_(\d+)", arg)}
        missing = [arch for arch in selection.archs if str(arch) not in known]
        if missing:  # setup.py drops what it does not know, or nvcc is too old for, without a word
            raise SystemExit(f"flash-attn's setup.py and this nvcc cannot build sm_{missing[0]}")
        made = extension(name=name, sources=[OWN_API, STUB], extra_compile_args=flags, **rest)
        if compiled is None:
            raise Captured(made, _without_threads(flags["nvcc"]))
        made.extra_objects = [*made.extra_objects, *map(os.fspath, compiled)]
        return made

    return make


def _without_threads(flags: Sequence[str]) -> list[str]:
    """``--threads N`` decides nothing about the object, so it is not a part of its key."""
    at = flags.index("--threads") if "--threads" in flags else len(flags)
    return [*flags[:at], *flags[at + 2 :]]


def _host_compiler() -> list[str]:
    """As torch does: nvcc takes the compiler that CC names."""
    return ["-ccbin", os.environ["CC"]] if os.environ.get("CC") else []


def _command(
    nvcc: str, flags: Sequence[str], includes: Sequence[str], tree: Path
) -> compiling.Command:
    where = [word for folder in includes for word in ("-I", os.path.abspath(tree / folder))]

    def command(source: str, out: Path, threads: int) -> list[str]:
        file = os.fspath(tree / "csrc/flash_attn/src" / source)
        return [nvcc, *where, *flags, "--threads", str(threads), "-c", file, "-o", os.fspath(out)]

    return command


def _work(job: Job, local: str, torch: Torch, toolchain: Toolchain) -> Path:
    """A folder for everything that decides what setup.py compiles.

    Objects of another compiler, torch or Python must never be linked together.
    """
    python = f"cp{sys.version_info.major}{sys.version_info.minor}{getattr(sys, 'abiflags', '')}"
    key = f"{torch} {toolchain} {_sha256(job.sdist)}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    work = job.work / f"{local}-{python}-{digest}"
    work.mkdir(parents=True, exist_ok=True)
    return work


def _tree(job: Job, work: Path) -> Path:
    """The unpacked source, with what is generated for this selection; kept between builds."""
    tree = unpack(job.sdist, work)
    own = {OWN_API: outspoken((tree / API).read_text(), job.selection), STUB: stub(job.selection)}
    for path, text in own.items():
        if not (tree / path).exists() or (tree / path).read_text() != text:
            (tree / path).write_text(text)
    return tree


def unpack(sdist: Path, into: Path) -> Path:
    """The source tree of ``sdist`` under ``into``; unpacked once, so that a build can resume."""
    tree = into / sdist.name.removesuffix(".tar.gz")
    done = into / f"{tree.name}.unpacked"
    if not done.exists():
        with tarfile.open(sdist) as tar:
            tar.extractall(into)  # its hash was checked; Python 3.10 knows no filters
        done.touch()
    return tree


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextmanager
def quietly(log: Path, doing: str, every: float = 15.0) -> Iterator[None]:
    """Send everything that is printed to ``log`` and say every ``every`` seconds that it goes on.

    setup.py and the C++ compiler print megabytes of warnings and command lines. When the block
    fails, the end of the log is shown.
    """
    stop, start = threading.Event(), time.monotonic()
    sys.stdout.flush()
    with log.open("wb") as file, os.fdopen(os.dup(1), "w") as screen:
        before = [os.dup(1), os.dup(2)]

        def watch() -> None:
            while not stop.wait(every):
                spent = compiling.clock(time.monotonic() - start)
                print(f"flash-attn: {doing}, {spent}", file=screen, flush=True)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            yield
        except Captured:
            raise
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
