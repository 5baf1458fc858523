"""Wheels made by tests, with what cuobjdump would say of their libraries in place of these."""

from __future__ import annotations

import base64
import hashlib
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

from imagegen.image.wheel.flash_attn_wheel.selection import Selection
from imagegen.image.wheel.flash_attn_wheel.verify import PARAMETERS
from tests.support.wheel_recipe import DEMO

TAG = f"cp{sys.version_info.major}{sys.version_info.minor}"
MACHINE = sysconfig.get_platform().rpartition("-")[2]

# --- what cuobjdump says --------------------------------------------------------------------------

HEAD = """
Fatbin elf code:
================
arch = sm_{}
code version = [1,8]
host = linux
compile_size = 64bit

Resource usage:
 Common:
  GLOBAL:30 CONSTANT[4]:240
"""
USAGE = "  REG:255 STACK:168 SHARED:0 LOCAL:0 CONSTANT[0]:824 TEXTURE:0 SURFACE:0 SAMPLER:0\n"
FORWARD = (
    "23Flash_fwd_kernel_traitsILi128ELi{}ELi{}ELi4ELb0ELb0EN7cutlass10bfloat16_tE"
    "19Flash_kernel_traitsILi128ELi{}ELi{}ELi4ES3_EE"
)
BACKWARD = (
    "23Flash_bwd_kernel_traitsILi128ELi64ELi128ELi8ELi2ELi4ELi2ELb0ELb0EN7cutlass10bfloat16_tE"
    "19Flash_kernel_traitsILi128ELi64ELi128ELi8ES3_EE"
)
TILE, SPLIT = FORWARD.format(128, 64, 128, 64), FORWARD.format(64, 128, 64, 128)
# Of the demo's own library, with whatever else it holds beside the kernels.
REAL = {
    f"16flash_fwd_kernelI{TILE}Lb0ELb0ELb0ELb0ELb0ELb1ELb0ELb0EEEv": "fwd 00000100",
    f"16flash_fwd_kernelI{TILE}Lb0ELb1ELb0ELb0ELb1ELb1ELb0ELb0EEEv": "fwd 01001100",
    f"32flash_fwd_splitkv_combine_kernelI{SPLIT}Li4ELi7ELb1EEEv": "",
    f"24flash_fwd_splitkv_kernelI{SPLIT}Lb0ELb0ELb0ELb1ELb1ELb0ELb1ELb0EEEv": "fwd_split 00011010",
    f"24flash_fwd_splitkv_kernelI{SPLIT}Lb1ELb0ELb0ELb0ELb1ELb0ELb0ELb1EEEv": "fwd_split 10001001",
    f"27flash_bwd_convert_dq_kernelI{BACKWARD}EEv": "",
    f"44flash_bwd_dq_dk_dv_loop_seqk_parallel_kernelI{BACKWARD}"
    "Lb0ELb1ELb0ELb0ELb1ELb1ELb0EEEv": "bwd 0100110",
    f"25flash_bwd_dot_do_o_kernelILb0E{BACKWARD}EEv": "",
}


def cuobjdump(toolkit: Path) -> Path:
    """One that reads out what a test has written into its library, or into the file $DUMP."""
    program = toolkit / "bin/cuobjdump"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\n[ "$1" = --dump-resource-usage ] && cat "${DUMP:-$2}"\n')
    program.chmod(0o755)
    return program


def dump(arch: int, names: Iterable[str]) -> str:
    """What cuobjdump prints of a library."""
    lines = [f" Function _ZN5flash{name}NS_16Flash_fwd_paramsE:\n{USAGE}" for name in names]
    return HEAD.format(arch) + "".join(lines)


def named(kind: str, dim: int, dtype: str, *on: str) -> str:
    """The mangled name of a kernel whose template parameters ``on`` are true."""
    its = next(name for name, said in REAL.items() if said.startswith(f"{kind} "))
    its = its.replace("Li128E", f"Li{dim}E")
    if dtype == "fp16":
        its = its.replace("10bfloat16_t", "6half_t")
    flags = "".join(f"Lb{int(name in on)}E" for name in PARAMETERS[kind])
    return its[: its.rindex("ES3_EE") + len("ES3_EE")] + flags + "EEv"


def held(selection: Selection, *, lacks: str = "") -> str:
    """A library with every kernel of a selection; ``lacks`` is one that is left out."""
    on = [name for name in ("dropout", "alibi", "softcap", "local") if name in selection.features]
    names = []
    kinds = [k for k in PARAMETERS if k != "bwd" or "backward" in selection.features]
    for kind, dim, dtype, causal in product(
        kinds, selection.head_dims, selection.dtypes, ((), ("causal",))
    ):
        if lacks == f"{kind}_hdim{dim}_{dtype}{'_causal' * bool(causal)}":
            continue
        names.append(named(kind, dim, dtype, "even_k", "even_mn", *causal))
        own = [feature for feature in on if feature != "local" or not causal]  # as upstream's
        names += [named(kind, dim, dtype, "even_k", *causal, feature) for feature in own]
        if kind == "fwd":  # a softmax to return takes this switch, whatever the head dimension
            names.append(named(kind, dim, dtype, "softmax", *causal))
        if kind == "fwd_split" and "alibi" in on:  # and ALiBi this one
            names.append(named(kind, dim, dtype, "alibi", *causal))
        if "uneven_k" in selection.features:
            names.append(named(kind, dim, dtype, *causal))
    return "".join(dump(arch, names) for arch in selection.archs)


# --- wheels ---------------------------------------------------------------------------------------


def made(
    folder: Path,
    library: str | bytes,
    local: str = DEMO,
    *,
    tags: str = f"{TAG}-{TAG}-linux_{MACHINE}",
    metadata: str = "",
    libraries: Sequence[str] = ("flash_attn_2_cuda.cpython-x86_64-linux-gnu.so",),
    put: Mapping[str, str | None] | None = None,
) -> Path:
    """A wheel whose version is ``local``; ``put`` has other files, or None for no file."""
    version = f"2.8.3.post2+{local}" if local else "2.8.3.post2"
    info = "flash_attn-2.8.3.post2.dist-info"
    text = library.encode() if isinstance(library, str) else library
    content = dict.fromkeys(libraries, text) | {
        "flash_attn/__init__.py": b"# a line, and " + bytes(range(32, 127)) * 20,
        f"{info}/METADATA": f"Name: flash_attn\nVersion: {metadata or version}\n".encode(),
    }
    lines = []
    for name, its in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(its).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(its)}\n")
    content[f"{info}/RECORD"] = "".join([*lines, f"{info}/RECORD,,\n"]).encode()
    for name, its_text in (put or {}).items():
        path = next((p for p in content if p.endswith(name)), name)
        if its_text is None:
            del content[path]
        else:
            content[path] = its_text.encode()
    folder.mkdir(exist_ok=True)
    file = folder / f"flash_attn-{version}-{tags}.whl"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, its in content.items():
            archive.writestr(name, its)
    return file
