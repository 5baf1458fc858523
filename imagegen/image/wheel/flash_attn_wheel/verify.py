"""Whether a wheel is what its name promises. Needs no GPU.

Its hash, the hashes of its files, its tags and metadata against this interpreter and its torch, the
kernels in the binary against the selection in its version, and that every symbol resolves.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from email.parser import Parser
from importlib import metadata
from itertools import product
from pathlib import Path

from .packing import MODULE, Torch
from .selection import Label, Selection

NAME = re.compile(
    r"flash_attn-(?P<version>[^-+]+)(?:\+(?P<local>[^-]+))?"
    r"-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl"
)
FUNCTION = re.compile(
    r"flash_(?P<kind>fwd|fwd_splitkv|bwd_dq_dk_dv_loop_seqk_parallel)_kernelI"
    r"\d+Flash_(?:fwd|bwd)_kernel_traitsILi(?P<dim>\d+)E\w*?N7cutlass(?P<dtype>10bfloat16_t|6half_t)"
    r"E\w*?EE(?P<flags>(?:Lb[01]E)+)E"
)
PARAMETERS = {
    "fwd": ("dropout", "causal", "local", "alibi", "even_mn", "even_k", "softcap", "softmax"),
    "bwd": ("dropout", "causal", "local", "alibi", "even_mn", "even_k", "softcap"),
    "fwd_split": ("causal", "local", "alibi", "even_mn", "even_k", "softcap", "split", "append"),
}
"""The boolean template parameters of the kernels, in their order, as 2.7 and 2.8 have them."""

FEATURES_OF = {
    "fwd": {"dropout", "alibi", "softcap", "local"},
    "bwd": {"dropout", "alibi", "softcap", "local"},
    "fwd_split": {"alibi", "softcap", "local", "uneven_k"},
}
"""The features that show in the kernels of a kind."""

LOAD = """
import importlib.util, sys
sys.setdlopenflags(sys.getdlopenflags() | 2)  # RTLD_NOW: every symbol, now
import torch
spec = importlib.util.spec_from_file_location(sys.argv[1], sys.argv[2])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
missing = [name for name in ("fwd", "varlen_fwd", "bwd", "varlen_bwd", "fwd_kvcache")
           if not hasattr(module, name)]
sys.exit(f"it has no {', '.join(missing)}" if missing else 0)
"""


class Wrong(Exception):
    """What a wheel is, and what it should be."""


def wheel(
    file: Path,
    *,
    sha256: str = "",
    level: str = "load",
    version: str = "",
    wanted: Selection | None = None,
) -> dict[str, object]:
    """Check a wheel; returns what it is.

    ``version`` and ``wanted`` are those that somebody asked for; without, its own name's.
    ``level`` is how far: ``contents`` needs nothing but the file, ``kernels`` also cuobjdump, and
    ``load`` the interpreter and the torch that the wheel is for.

    Raises:
        Wrong: it is not what it says, or not for this interpreter and torch.
    """
    name = NAME.fullmatch(file.name)
    if not name:
        raise Wrong("not the file name of a flash-attn wheel")
    if not file.is_file():
        raise Wrong("no such file")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if sha256 and digest != sha256:
        raise Wrong(f"its sha256 is {digest}, expected {sha256}: a damaged or another file")
    if version and name["version"] != version:
        raise Wrong(f"it is flash-attn {name['version']}, and {version} was asked for")
    label = _label(name["local"])
    promised = wanted or (label.selection if label else None)
    found: dict[str, object] = {"wheel": file.name, "sha256": digest, "bytes": file.stat().st_size}
    try:
        with zipfile.ZipFile(file) as archive, tempfile.TemporaryDirectory() as folder:
            _contents(archive, name)
            library = Path(archive.extract(_library(archive), folder))
            if level != "contents":
                held = functions(library)
                if promised:
                    _kernels(held, promised)
                found["kernels"] = {arch: len(names) for arch, names in sorted(held.items())}
            if level == "load":
                _fits(name, label)
                _loads(library)
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, OSError) as error:
        raise Wrong(f"not a whole wheel: {error}") from error
    except ImportError as error:
        raise Wrong(f"cannot be loaded here: {error}") from error
    return found | {"promised": bool(promised) and level != "contents", "level": level}


def _label(local: str | None) -> Label | None:
    """What the version promises; None where others wrote it, and it promises nothing of kernels."""
    try:
        return Label.read(local or "")
    except ValueError:
        return None


def _contents(archive: zipfile.ZipFile, name: re.Match[str]) -> None:
    """The metadata agree with the name, and every file has the hash that RECORD gives."""
    info = next((n for n in archive.namelist() if n.endswith(".dist-info/METADATA")), "")
    if not info:
        raise Wrong("it has no METADATA")
    version = Parser().parsestr(archive.read(info).decode())["Version"]
    expected = name["version"] + (f"+{name['local']}" if name["local"] else "")
    # Official wheels have a local version in their name only; pip takes that from a URL.
    if version not in (expected, name["version"] if not _label(name["local"]) else expected):
        raise Wrong(f"its METADATA says version {version}, its name {expected}")
    record = info.replace("METADATA", "RECORD")
    unlisted = {name for name in archive.namelist() if not name.endswith("/")} - {record}
    for path, recorded, _ in csv.reader(archive.read(record).decode().splitlines()):
        if recorded:
            kind, _, value = recorded.partition("=")
            found = hashlib.new(kind, archive.read(path)).digest()
            if base64.urlsafe_b64encode(found).decode().rstrip("=") != value:
                raise Wrong(f"{path} in it has another hash than its RECORD says")
            unlisted.discard(path)
    if unlisted:
        raise Wrong(f"its RECORD has no hash of {min(unlisted)}")


def _library(archive: zipfile.ZipFile) -> str:
    found = [n for n in archive.namelist() if re.fullmatch(rf"{MODULE}\.[^/]*\.?so", n)]
    if len(found) != 1:
        raise Wrong(f"it holds {len(found)} libraries {MODULE}, expected one")
    return found[0]


def _fits(name: re.Match[str], label: Label | None) -> None:
    """Python, platform, torch minor, CUDA and C++ ABI are those of this interpreter.

    What others named otherwise shows when it is loaded.
    """
    here = Torch.here()
    flags = getattr(sys, "abiflags", "")
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    machine = sysconfig.get_platform().rpartition("-")[2]
    promises: list[tuple[str, object, object]] = [
        ("Python", f"{name['python']}-{name['abi']}", f"{python}-{python}{flags}"),
        ("machine", name["platform"].split(".")[-1][-len(machine) :], machine),
    ]
    if label:
        promises += [
            ("torch", label.torch, here.minor),
            ("torch's CUDA", label.cuda, f"cu{here.cuda.replace('.', '')}"),
            ("the C++11 ABI of torch", label.abi, here.abi),
        ]
    for what, promised, found in promises:
        if promised != found:
            raise Wrong(f"it is for {what} {promised}, and here is {found}")


def functions(library: Path) -> dict[int, set[tuple[str, int, str, str]]]:
    """The kernels in a library by architecture: (kind, head dimension, type, template flags).

    Raises:
        Wrong: there is no cuobjdump, or it cannot read the library.
    """
    command = [cuobjdump(), "--dump-resource-usage", library]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise Wrong(f"cuobjdump cannot read its library: {(ran.stderr or ran.stdout)[-300:]}")
    found: dict[int, set[tuple[str, int, str, str]]] = {}
    arch = 0
    for line in ran.stdout.splitlines():
        if said := re.match(r"arch = sm_(\d+)", line):
            arch = int(said[1])
            found.setdefault(arch, set())
        elif kernel := FUNCTION.search(line):
            kind = {"fwd_splitkv": "fwd_split"}.get(
                kernel["kind"], kernel["kind"].partition("_")[0]
            )
            dtype = "bf16" if "bfloat" in kernel["dtype"] else "fp16"
            flags = "".join(re.findall("Lb([01])E", kernel["flags"]))
            found[arch].add((kind, int(kernel["dim"]), dtype, flags))
    return found


def cuobjdump() -> str:
    """Where cuobjdump is: in a CUDA toolkit, or in Triton, which every torch brings.

    Raises:
        Wrong: nowhere.
    """
    files = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin/cuobjdump")]
    try:
        listed = metadata.files("triton") or []
    except metadata.PackageNotFoundError:
        listed = []
    files += [Path(os.fspath(f.locate())) for f in listed if f.name == "cuobjdump"]
    for file in files:
        if file.exists():
            return os.fspath(file)
    raise Wrong("cannot be looked into: there is no cuobjdump, neither CUDA's nor Triton's")


def _kernels(held: dict[int, set[tuple[str, int, str, str]]], promised: Selection) -> None:
    """Exactly the promised architectures and kernels, each with the features promised."""
    if set(held) != set(promised.archs):
        raise Wrong(f"it has code for sm {sorted(held)}, and promises {sorted(promised.archs)}")
    kinds = [kind for kind in PARAMETERS if kind != "bwd" or "backward" in promised.features]
    wanted = {*product(kinds, promised.head_dims, promised.dtypes, (False, True))}
    for arch, kernels in held.items():
        found = {
            (kind, dim, dtype, _flag(kind, flags, "causal")) for kind, dim, dtype, flags in kernels
        }
        if missing := wanted - found:
            raise Wrong(f"for sm_{arch} it lacks {_spelled(missing)}")
        if extra := found - wanted:
            raise Wrong(f"for sm_{arch} it has {_spelled(extra)}, which it does not promise")
        for kind, dim, dtype in sorted({(kind, dim, dtype) for kind, dim, dtype, _ in wanted}):
            mine = [flags for *its, flags in kernels if its == [kind, dim, dtype]]
            for feature in sorted(FEATURES_OF[kind]):
                if _has(kind, mine, feature) != (feature in promised.features):
                    verb = "lacks" if feature in promised.features else "has"
                    what = f"{kind}_hdim{dim}_{dtype}"
                    raise Wrong(f"for sm_{arch} {what} {verb} {feature}, unlike its promise")


def _flag(kind: str, flags: str, name: str) -> bool:
    return flags[PARAMETERS[kind].index(name)] == "1"


def _has(kind: str, kernels: Iterable[str], feature: str) -> bool:
    """Whether one of these kernels has the feature switched on.

    A head dimension that fills no tile shows in the split-KV kernels only: ALiBi, and a softmax to
    return, take the same switch in any case.
    """
    for flags in kernels:
        one = dict(zip(PARAMETERS[kind], flags, strict=True))
        if one["even_k"] == one["alibi"] == "0" if feature == "uneven_k" else one[feature] == "1":
            return True
    return False


def _spelled(kernels: Iterable[tuple[str, int, str, bool]]) -> str:
    words = [
        f"{kind}_hdim{dim}_{dtype}{'_causal' * causal}" for kind, dim, dtype, causal in kernels
    ]
    return ", ".join(sorted(words)[:4]) + (f" and {len(words) - 4} more" if len(words) > 4 else "")


def _loads(library: Path) -> None:
    """Every symbol resolves beside this interpreter's torch, in a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-c", LOAD, MODULE, library], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        last = (ran.stderr.strip() or f"exit {ran.returncode}").splitlines()[-1]
        raise Wrong(f"it does not load beside torch {Torch.here().version}: {last[:300]}")
