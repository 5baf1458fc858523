"""Each rule alone: where its fact flips, what it says there, and that it is silent elsewhere."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from imagegen.compat import rules
from imagegen.compat.facts.rows import (
    CudaFact,
    FlashAttnFact,
    FlashAttnPackageFact,
    GpuFact,
    OsFact,
    TorchFact,
)
from imagegen.compat.rules import driver as driver_rules
from imagegen.compat.rules import flash_attn, known, machine, nvcc
from imagegen.compat.rules import flash_attn_package as later
from imagegen.compat.rules import gpu as gpu_rules
from imagegen.compat.rules.reason import Reason, Rule, Severity, Stage, older
from imagegen.compat.rules.table import RULES, axes_of
from imagegen.compat.rules.torch import (
    torch_has_the_python,
    torch_is_built_for_the_cuda,
    torchvision_has_the_python,
)
from imagegen.compat.rules.wheels import archs_in, best_wheel, wheels_of
from imagegen.compat.solver import AXES
from imagegen.model.target import Origin, Python, driver_text
from tests.support.laws import for_all, hold

SOURCED: dict[str, Any] = {"source": "a list", "checked": "2026-11-21"}


# --- small rows, so that every limit is in sight --------------------------------------------------


def build(cuda: str = "12.8", **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "cuda": cuda,
        "hosts": ["x86_64", "aarch64"],
        "abi": True,
        "archs": [80, 86, 90],
        "archs_aarch64": [90],
        "driver_of_minor": "570.124.06",
    }
    return values | changes


def torch(version: str = "2.9.1", *builds: dict[str, Any], **changes: Any) -> TorchFact:
    values: dict[str, Any] = {
        "version": version,
        "released": "2026-01-01",
        "pythons": ["3.11", "3.12"],
        "pypi_cuda": "12.8",
        "pypi_hosts": ["x86_64"],
        "torchvision": "0.24.1",
        "torchaudio": version,
        "triton": "==3.5.1",
        "cxx": 17,
        "build": builds or (build(),),
    }
    return TorchFact.model_validate(values | SOURCED | changes)


def image(cuda: str, os: str, kind: str) -> dict[str, Any]:
    return {"cuda": cuda, "os": os, "kind": kind, "tag": f"nvidia/cuda:{cuda}-{os}"} | SOURCED


def cuda(version: str = "12.8.1", **changes: Any) -> CudaFact:
    values: dict[str, Any] = {
        "version": version,
        "driver": "570.124.06",
        "driver_floor": "525.60.13",
        "gcc_max": 14,
        "archs": [75, 80, 90, 120],
        "driver_of_minor": "570.124.06",
    }
    return CudaFact.model_validate(values | SOURCED | changes)


def os(**changes: Any) -> OsFact:
    values: dict[str, Any] = {
        "distribution": "ubuntu",
        "version": "24.04",
        "python": "3.12",
        "gcc": 13,
        "glibc": "2.39",
        "rank": 1,
        "tag": "library/ubuntu:24.04",
        "images_from": "12.6.0",
    }
    return OsFact.model_validate(values | SOURCED | changes)


DEBIAN: dict[str, Any] = {"distribution": "debian", "version": "12", "images_from": None}


def wheel(torch: str = "2.9", tag: str = "cu12", **changes: Any) -> dict[str, Any]:
    values = {"torch": torch, "tag": tag, "host": "x86_64", "pythons": ["3.12"], "abi": [True]}
    return values | changes


def other(**changes: Any) -> dict[str, Any]:
    """A third party's wheel."""
    values: dict[str, Any] = {
        "version": "2.8.3",
        "torch": "2.9",
        "nvcc": "12.8",
        "torch_cuda": "12.8",
        "host": "x86_64",
        "pythons": ["3.12"],
        "abi": True,
        "archs": [80, 90],
        "glibc": "2.32",
        "platform": "linux_x86_64",
        "release": "v1",
    }
    return values | changes


def flash(version: str = "2.8.3", *wheels: dict[str, Any], **changes: Any) -> FlashAttnFact:
    values: dict[str, Any] = {
        "version": version,
        "sha256": "a" * 64,
        "archs": {80: "11.7", 90: "11.8", 120: "12.8"},
        "kernel_files": 72,
        "torch_max": "2.9",
        "cuda13_tag": "cu12",
        "python_min": "3.9",
        "wheel_archs": [80, 90] if wheels else [],
        "glibc": "2.32" if wheels else None,
        "wheel": wheels,
        "third_party_source": "their list",
    }
    return FlashAttnFact.model_validate(values | SOURCED | changes)


def package(generation: int = 4, **changes: Any) -> FlashAttnPackageFact:
    """A FlashAttention-3 or -4 of which everything is known."""
    values: dict[str, Any] = {
        "generation": generation,
        "name": f"flash-attn-{generation}",
        "version": f"{generation}.0.0",
        "pythons": ["3.11", "3.12"],
        "torch_min": "2.9",
        "cuda": ["12.8", "13"],
        "gpus": [8, 9],
        "trains_on": [9],
        "on_pypi": generation == 4,
    }
    return FlashAttnPackageFact.model_validate(values | SOURCED | changes)


def gpu(capability: int = 89, **changes: Any) -> GpuFact:
    values: dict[str, Any] = {
        "name": "RTX 4090",
        "capability": capability,
        "memory": [24],
        "brand": "geforce",
    }
    return GpuFact.model_validate(values | SOURCED | changes)


def v(text: str) -> Version:
    return Version(text)


def py(text: str) -> Python:
    return Python.parse(text)


PLAIN: dict[str, Any] = {
    "host": "x86_64",
    "gpu": None,
    "driver": None,
    "memory": None,
    "torch": torch(),
    "index": v("12.8"),
    "cuda": cuda(),
    "flash_attn": None,
    "origin": "source",
    "os": os(),
    "python": py("3.12"),
    "kind": "slim",
    "archs": (),
}
"""Nothing is wrong with this."""


# --- the cases ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What a rule says of the plain values with these changes.

    ``says`` is severity, stage and code, empty for nothing; ``words`` are in the text, the asked
    value and the limit.
    """

    rule: Rule
    says: str
    words: tuple[str, ...]
    axes: dict[str, Any]
    note: str

    def ask(self) -> Reason | None:
        values = PLAIN | self.axes
        return self.rule(**{axis: values[axis] for axis in axes_of(self.rule)})


CASES: list[Case] = []


def says(rule: Rule, told: str, *words: str, note: str = "", **axes: Any) -> None:
    assert set(axes) <= set(axes_of(rule)), f"{rule.__name__} does not see {set(axes)}"
    CASES.append(Case(rule, told, words, axes, note or " ".join(axes)))


def silent(rule: Rule, note: str = "", **axes: Any) -> None:
    says(rule, "", note=note, **axes)


# torch

r: Rule = torch_is_built_for_the_cuda
two = torch("2.9.1", build("12.6", hosts=["x86_64"]), build("12.10"))
gone = "impossible resolve torch-cuda"
silent(r, torch=two, index=v("12.10"))
says(r, gone, "torch 2.9.1", "CUDA 12.1 ", "12.6, 12.10", torch=two, index=v("12.1"),
     note="12.10 is not 12.1")  # fmt: skip
says(r, gone, "CUDA 12.9", "12.6, 12.10", torch=two, index=v("12.9"))
says(r, gone, "CUDA 12.11", torch=two, index=v("12.11"))
silent(r, "x86_64 has it", torch=two, index=v("12.6"))
says(r, gone, "CUDA 12.6", "aarch64", "(it has 12.10)", torch=two, index=v("12.6"), host="aarch64")
says(
    r,
    "unverified resolve torch-cuda-announced",
    "torch 2.9.1",
    "CUDA 12.8",
    torch=torch("2.9.1", build(announced=True)),
)

r = torch_has_the_python
some = torch(pythons=["3.9", "3.12", "3.13t"], pythons_aarch64=["3.9"], index_pythons=["3.15"])
gone = "impossible resolve torch-python"
silent(r, torch=some, python=py("3.12"))
silent(r, torch=some, python=py("3.13t"))
says(r, gone, "torch 2.9.1", "Python 3.13 ", "3.9, 3.12, 3.13t", torch=some, python=py("3.13"),
     note="only the free-threaded build")  # fmt: skip
says(r, gone, "Python 3.12t", torch=some, python=py("3.12t"))
says(r, gone, "Python 3.8", torch=some, python=py("3.8"))
says(r, gone, "Python 3.10", torch=some, python=py("3.10"), note="3.10 is above 3.9")
silent(r, torch=some, python=py("3.9"), host="aarch64")
says(r, gone, "3.12", "aarch64", "(it has 3.9)", torch=some, host="aarch64")
silent(r, "both machines, where no other list is given", host="aarch64")
says(
    r,
    "unverified resolve torch-python-index",
    "Python 3.15",
    "CUDA 12.8",
    torch=some,
    python=py("3.15"),
)

r = torchvision_has_the_python
silent(r, "no list of its own", python=py("3.99"))
fewer = torch(torchvision_pythons=["3.11"])
silent(r, torch=fewer, python=py("3.11"))
says(r, "impossible resolve torchvision-python", "torchvision 0.24.1", "torch 2.9.1",
     "Python 3.12", torch=fewer)  # fmt: skip

r = gpu_rules.torch_has_code_for_the_gpu
gone = "impossible run torch-gpu"
silent(r, "no card")
silent(r, "another rule tells", gpu=gpu(), index=v("12.9"))
for capability, archs, fine in (
    (89, [86], True),  # an older minor's code
    (89, [90], False),  # the next major's
    (103, [100], True),
    (100, [103], False),  # a newer minor's code
    (86, [86], True),
    (86, [80, 89], True),
    (86, [75, 89, 90], False),
    (120, [100], False),
    (121, [120], True),
    (90, [100], False),
):
    card = gpu(capability)
    rows = torch("2.9.1", build(archs=archs))
    note = f"{capability} on {archs}"
    if fine:
        silent(r, note, gpu=card, torch=rows)
    else:
        asked, held = (f"{arch // 10}.{arch % 10}" for arch in (capability, archs[-1]))
        says(r, gone, "torch 2.9.1", card.name, f"(compute capability {asked})", held,
             note=note, gpu=card, torch=rows)  # fmt: skip
unread = torch("2.9.1", build(archs_aarch64=[]))
says(r, "unverified run torch-gpu-unknown", "torch 2.9.1", "CUDA 12.8", "aarch64",
     torch=unread, gpu=gpu(90), host="aarch64")  # fmt: skip
silent(r, "its own list on Arm", gpu=gpu(90), host="aarch64")
says(r, gone, "It has 9.0", gpu=gpu(86), host="aarch64")

# nvcc

r = nvcc.nvcc_is_of_torchs_major
silent(r, "another minor", cuda=cuda("12.10.0"), index=v("12.9"))
says(r, "impossible compile nvcc-major", "nvcc 13.0", "CUDA 12.8", "torch 2.9.1",
     cuda=cuda("13.0.2"))  # fmt: skip
says(r, "impossible compile nvcc-major", "nvcc 11.8", cuda=cuda("11.8.0"))

r = nvcc.nvcc_is_of_torchs_minor
silent(r, "another patch", cuda=cuda("12.8.2"))
silent(r, "another major is another rule's", cuda=cuda("13.8.0"))
says(r, "warn compile nvcc-minor", "nvcc 12.9", "CUDA 12.8", cuda=cuda("12.9.0"))
says(r, "warn compile nvcc-minor", "nvcc 12.6", "CUDA 12.8", cuda=cuda("12.6.3"))
says(r, "warn compile nvcc-minor", "nvcc 12.10", "CUDA 12.1 ", cuda=cuda("12.10.0"),
     index=v("12.1"))  # fmt: skip

r = nvcc.nvcc_takes_the_compiler
silent(r, "just below", os=os(gcc=13))
silent(r, "at the limit", os=os(gcc=14))
says(r, "impossible compile nvcc-gcc", "nvcc 12.8", "gcc up to 14", "ubuntu24.04 has 15",
     os=os(gcc=15))  # fmt: skip
silent(r, "9 is below 10", os=os(gcc=9), cuda=cuda(gcc_max=10))

r = nvcc.nvcc_takes_the_libc
silent(r, "no limit", os=os(glibc="2.99"))
for glibc, limit, fine in (
    ("2.40", "2.40", True),
    ("2.41", "2.40", False),
    ("2.9", "2.10", True),
    ("2.10", "2.9", False),
):
    rows_: dict[str, Any] = {"os": os(glibc=glibc), "cuda": cuda(glibc_max=limit)}
    if fine:
        silent(r, f"{glibc} of {limit}", **rows_)
    else:
        says(r, "impossible compile nvcc-glibc", "nvcc 12.8", f"up to {limit}", f"has {glibc}",
             note=f"{glibc} of {limit}", **rows_)  # fmt: skip

r = nvcc.gcc_has_the_standard
of20 = torch("2.14.0", cxx=20)
silent(r, "C++17", os=os(gcc=9))
silent(r, "at 10", os=os(gcc=10), torch=of20)
says(r, "impossible compile torch-cxx20", "torch 2.14.0", "C++20", "gcc 9 of ubuntu24.04",
     os=os(gcc=9), torch=of20)  # fmt: skip
says(r, "unverified compile torch-cxx20", "gcc 9", os=os(gcc=9), note="a torch that nobody knows",
     torch=torch("2.16.0", cxx=20, assumed="2.15.0"))  # fmt: skip

r = nvcc.nvcc_makes_code_for_the_gpu
gone = "impossible compile nvcc-gpu"
silent(r, "no card")
silent(r, gpu=gpu(89))
silent(r, "the oldest", gpu=gpu(75))
says(r, gone, "nvcc 12.8", "RTX 4090", "7.0", "7.5 to 12.0", gpu=gpu(70))
silent(r, "the newest", gpu=gpu(120))
silent(r, "its major's", gpu=gpu(121))
says(r, gone, "10.0", gpu=gpu(100), note="between the two")
says(r, gone, "nvcc 12.6", "12.0", "7.5 to 9.0", gpu=gpu(120), cuda=cuda("12.6.3", archs=[75, 90]))

r = nvcc.the_base_image_exists
missing = "impossible resolve base-image"
unlisted = "unverified resolve base-image-unknown"
both = [image("12.8.1", "ubuntu24.04", "devel"), image("12.8.1", "ubuntu24.04", "slim")]
listed = cuda(base=both)
for kind, words in (("devel", "cudnn-devel"), ("slim", "(base)")):
    silent(r, f"listed {kind}", cuda=listed, kind=kind)
    says(r, unlisted, "12.8.1", "ubuntu24.04", words, kind=kind)
says(r, unlisted, "cudnn-devel", cuda=cuda(base=both[1:]), kind="devel", note="of another kind")
says(r, unlisted, "ubuntu22.04", cuda=listed, os=os(version="22.04", images_from="11.8"))
says(r, missing, "12.5.1", "ubuntu24.04", "from 12.6.0 on", cuda=cuda("12.5.1"))
says(r, unlisted, "12.6.0", cuda=cuda("12.6.0"), note="at the first")
says(r, unlisted, "12.10.0", cuda=cuda("12.10.0"), os=os(images_from="12.9.0"))
until = os(images_before="13.0")
says(r, unlisted, "12.9.2", cuda=cuda("12.9.2"), os=until, kind="devel", note="before the last")
says(r, missing, "13.0.0", "12.6.0 up to below 13.0", cuda=cuda("13.0.0"), os=until, kind="devel")
silent(r, "nvcc from wheels", cuda=cuda("13.0.0"))
silent(r, "nvcc from wheels, before the end", cuda=cuda("13.0.0"), os=os(images_before="13.1"))
says(r, "unverified compile os-dropped", "dropped ubuntu24.04 with CUDA 13.0",
     cuda=cuda("13.0.0"), os=until)  # fmt: skip
says(r, "unverified compile os-dropped", cuda=cuda("13.10.0"), os=os(images_before="13.9"))
says(r, unlisted, "12.9.2", cuda=cuda("12.9.2"))
says(r, missing, "12.8.1", "debian12", "publishes none for debian", os=os(**DEBIAN), kind="devel")
says(r, missing, "13.0.2", "debian", os=os(**DEBIAN), cuda=cuda("13.0.2"), kind="devel")
silent(r, "the next rule's", os=os(**DEBIAN))

r = nvcc.nvcc_is_in_the_wheels
silent(r, "NVIDIA's image")
silent(r, os=os(**DEBIAN), kind="devel")
silent(r, "at 13", os=os(**DEBIAN), cuda=cuda("13.0.0"))
says(r, "impossible resolve wheel-nvcc", "debian12", "CUDA 12.10", "CUDA 13", os=os(**DEBIAN),
     cuda=cuda("12.10.0"))  # fmt: skip

r = nvcc.the_wheels_are_the_toolkit_of_torch
pinned = torch("2.11.0", build("13.0", toolkit="13.0.2"), build("13.2"), build("12.8"))
on13: dict[str, Any] = {"torch": pinned, "index": v("13.0")}
silent(r, "the same", cuda=cuda("13.0.2"), **on13)
for patch in ("13.0.0", "13.0.1", "13.0.3", "13.2.0"):
    says(r, "impossible resolve toolkit-pin", "torch 2.11.0", "13.0.2", f"nvcc {patch}",
         cuda=cuda(patch), note=patch, **on13)  # fmt: skip
silent(r, "an image's nvcc", cuda=cuda("13.0.1"), kind="devel", **on13)
silent(r, "apt's nvcc", cuda=cuda("12.9.2"), **on13)
silent(r, "no such build", cuda=cuda("13.0.1"), torch=pinned, index=v("13.1"))
silent(r, "torch of CUDA 12", cuda=cuda("13.0.1"), torch=pinned)
says(r, "unverified resolve toolkit-unknown", "torch 2.11.0", "CUDA 13.2", cuda=cuda("13.2.0"),
     torch=pinned, index=v("13.2"))  # fmt: skip

# flash-attn

r = flash_attn.flash_attn_takes_the_python
silent(r, "no flash-attn", python=py("3.1"))
silent(r, "at the oldest", flash_attn=flash(), python=py("3.9"))
silent(r, "3.10 is above 3.9", flash_attn=flash(), python=py("3.10"))
silent(r, "the free-threaded build of it", flash_attn=flash(), python=py("3.9t"))
says(r, "impossible resolve flash-attn-python", "flash-attn 2.8.3", "needs Python 3.9", "not 3.8 ",
     flash_attn=flash(), python=py("3.8"))  # fmt: skip
says(r, "impossible resolve flash-attn-python", "needs Python 3.10", python=py("3.9"),
     flash_attn=flash(python_min="3.10"))  # fmt: skip

r = flash_attn.flash_attn_has_the_wheel
has = flash("2.8.3", wheel())
official: dict[str, Any] = {"flash_attn": has, "origin": "official"}
gone = "impossible resolve flash-attn-wheel"
silent(r, "no flash-attn", origin="official")
silent(r, "from source", flash_attn=flash())
silent(r, "from a third party", flash_attn=flash(), origin="third-party")
silent(r, "it fits", **official)
silent(r, "another minor of CUDA", torch=torch("2.9.1", build("12.1")), index=v("12.1"), **official)
silent(r, "another patch of torch", torch=torch("2.9.0"), **official)
silent(r, "no such torch", index=v("12.9"), **official)
for release in ("2.8.0", "2.10.0", "2.90.0"):
    says(r, gone, "flash-attn 2.8.3", f"torch {release[:-2]},", "(it has torch 2.9)",
         torch=torch(release), note=release, **official)  # fmt: skip
says(r, gone, "Python 3.11", python=py("3.11"), **official)
says(r, gone, "Python 3.12t", python=py("3.12t"), **official)
says(r, gone, "aarch64", host="aarch64", **official)
says(r, "impossible import flash-attn-wheel-cuda", "is for CUDA 12", "torch of CUDA 13.0",
     "libcudart.so.12", torch=torch("2.9.1", build("13.0")), index=v("13.0"),
     **official)  # fmt: skip
silent(r, torch=torch("2.9.1", build("13.0")), index=v("13.0"), origin="official",
       flash_attn=flash("2.8.3", wheel(), wheel(tag="cu13")))  # fmt: skip
silent(r, "cu123 is CUDA 12", origin="official", flash_attn=flash("2.6.3", wheel(tag="cu123")))
says(r, "impossible import flash-attn-wheel-cuda", "is for CUDA 11", "CUDA 12.8",
     origin="official", flash_attn=flash("2.6.3", wheel(tag="cu118")))  # fmt: skip
old_abi = torch("2.9.1", build(abi=False))
says(r, "impossible import flash-attn-abi", "without the C++11 ABI", "torch 2.9.1", "CUDA 12.8",
     torch=old_abi, **official)  # fmt: skip
says(r, "impossible import flash-attn-abi", " with the C++11 ABI", origin="official",
     flash_attn=flash("2.8.3", wheel(abi=[False])))  # fmt: skip
silent(r, torch=old_abi, origin="official", flash_attn=flash("2.8.3", wheel(abi=[False, True])))
says(r, "unverified import flash-attn-development", "flash-attn 2.8.3", "torch 2.9",
     origin="official", flash_attn=flash("2.8.3", wheel(development=True)))  # fmt: skip
unknown = flash("2.8.3.post2", wheels_unknown_to="2.10", wheels_unknown_pythons=["3.12"])
for release, told in (("2.9.1", "unverified resolve flash-attn-wheel-unknown"),
                      ("2.10.1", "unverified resolve flash-attn-wheel-unknown"),
                      ("2.11.0", gone)):  # fmt: skip
    says(r, told, "flash-attn 2.8.3.post2", note=f"to 2.10: {release}", torch=torch(release),
         flash_attn=unknown, origin="official")  # fmt: skip
says(r, gone, "Python 3.13", flash_attn=unknown, origin="official", python=py("3.13"),
     note="of that Python there is none")  # fmt: skip
named: dict[str, Any] = {"abi": [True], "misnamed": [False]}
seen = flash("2.8.3", wheel(seen="a thread", **named))
guessed = flash("2.8.3", wheel(**named))
silent(r, "the true one of two names", flash_attn=seen, origin="official")
says(r, "impossible import flash-attn-abi", "cxx11abiFALSE", "torch 2.9", "the other C++ ABI",
     torch=old_abi, flash_attn=seen, origin="official", note="seen")  # fmt: skip
says(r, "unverified import flash-attn-abi", "cxx11abiFALSE", "A guess", torch=old_abi,
     flash_attn=guessed, origin="official", note="not seen")  # fmt: skip

r = flash_attn.third_parties_have_the_wheel
theirs: dict[str, Any] = {"flash_attn": flash(third_party=[other()]), "origin": "third-party"}
gone = "impossible resolve flash-attn-wheel"
silent(r, "no flash-attn", origin="third-party")
silent(r, "official", flash_attn=flash(), origin="official")
silent(r, "it fits", **theirs)
silent(r, "no such torch", index=v("12.9"), **theirs)
silent(r, "another minor of CUDA", torch=torch("2.9.1", build("12.1")), index=v("12.1"), **theirs)
says(r, gone, "flash-attn 2.8.3", "torch 2.8,", torch=torch("2.8.0"), **theirs)
says(r, "unverified resolve flash-attn-wheel-unknown", "flash-attn 2.8.3", "ends before torch 2.10",
     torch=torch("2.10.0"), **theirs)  # fmt: skip
silent(r, "a patch that is newer", torch=torch("2.9.5"), **theirs)
says(r, gone, "torch 2.9", flash_attn=flash(), origin="third-party", note="there are none at all")
says(r, gone, "CUDA 13", torch=torch("2.9.1", build("13.0")), index=v("13.0"), **theirs)
says(r, gone, "Python 3.11", python=py("3.11"), **theirs)
says(r, gone, "aarch64", host="aarch64", **theirs)
says(r, "impossible import flash-attn-abi", "flash-attn 2.8.3", "torch 2.9", "CUDA 12.8",
     torch=old_abi, **theirs)  # fmt: skip

r = flash_attn.third_parties_are_trusted
silent(r, "no flash-attn", origin="third-party")
silent(r, flash_attn=flash())
silent(r, flash_attn=flash(), origin="official")
says(r, "unverified resolve third-party", "flash-attn 2.8.3", flash_attn=flash(),
     origin="third-party")  # fmt: skip

r = flash_attn.flash_attn_wheel_takes_the_libc
gone = "impossible import flash-attn-glibc"
silent(r, "no flash-attn", origin="official")
silent(r, "compiled there", flash_attn=flash("2.8.3", wheel(), glibc="2.99"))
silent(r, "no such wheel", python=py("3.11"), os=os(glibc="2.31"), **official)
for glibc, needs, fine in (
    ("2.32", "2.32", True),
    ("2.31", "2.32", False),
    ("2.33", "2.32", True),
    ("2.10", "2.9", True),
    ("2.9", "2.10", False),
):
    for origin, release_ in (
        ("official", flash("2.8.3", wheel(), glibc=needs)),
        ("third-party", flash(third_party=[other(glibc=needs)])),
    ):
        rows_ = {"flash_attn": release_, "origin": origin, "os": os(glibc=glibc)}
        if fine:
            silent(r, f"{origin} {glibc} for {needs}", **rows_)
        else:
            says(r, gone, "flash-attn 2.8.3", f"glibc {needs}", f"ubuntu24.04 has {glibc}",
                 note=f"{origin} {glibc} for {needs}", **rows_)  # fmt: skip

r = flash_attn.nvcc_makes_the_architectures
gone = "impossible compile flash-attn-archs"
silent(r, "no flash-attn", archs=(35,))
silent(r, "all that it can", flash_attn=flash())
silent(r, "the oldest nvcc", flash_attn=flash(), cuda=cuda("11.7.0"))
says(r, gone, "flash-attn 2.8.3", "needs CUDA 11.7", "not 11.6", flash_attn=flash(),
     cuda=cuda("11.6.2"))  # fmt: skip
silent(r, "at its CUDA", flash_attn=flash(), cuda=cuda("12.8.0"), archs=(80, 120))
says(r, gone, "architecture 120", "needs CUDA 12.8", "not 12.6", flash_attn=flash(),
     cuda=cuda("12.6.3"), archs=(80, 120))  # fmt: skip
silent(r, "12.10 is above 12.9", flash_attn=flash(archs={80: "12.9"}), cuda=cuda("12.10.0"),
       archs=(80,))  # fmt: skip
says(r, gone, "architecture 86", "80, 90, 120", flash_attn=flash(), archs=(80, 86))
silent(r, "the wheel's", archs=(80,), cuda=cuda("11.6.2"), **official)
silent(r, "all of the wheel", cuda=cuda("11.6.2"), **official)
says(r, gone, "architecture 120", "(it has 80, 90)", archs=(80, 120), **official)
silent(r, "theirs", archs=(120,), **theirs)

r = gpu_rules.flash_attn_knows_the_gpu
silent(r, "no card", flash_attn=flash())
silent(r, "no flash-attn", gpu=gpu(75))
silent(r, gpu=gpu(86), flash_attn=flash())
silent(r, gpu=gpu(80), flash_attn=flash())
says(r, "impossible run flash-attn-gpu", "flash-attn 2.8.3", "RTX 4090", "7.5", "8.0, 9.0, 12.0",
     gpu=gpu(75), flash_attn=flash())  # fmt: skip
says(r, "impossible run flash-attn-gpu", "10.0", gpu=gpu(100), flash_attn=flash())

r = gpu_rules.flash_attn_has_code_for_the_gpu
gone = "impossible run flash-attn-gpu"
silent(r, "no card", flash_attn=flash())
silent(r, "no flash-attn", gpu=gpu(75))
silent(r, "the rule before tells", gpu=gpu(75), flash_attn=flash())
silent(r, "nvcc can", gpu=gpu(120), flash_attn=flash(), cuda=cuda("12.8.0"))
says(r, gone, "flash-attn 2.8.3", "nvcc 12.6", "RTX 4090", "12.0", "8.0, 9.0", gpu=gpu(120),
     flash_attn=flash(), cuda=cuda("12.6.3"))  # fmt: skip
silent(r, "selected", gpu=gpu(90), flash_attn=flash(), archs=(90,))
says(r, gone, "9.0", "it has 8.0", gpu=gpu(90), flash_attn=flash(), archs=(80,))
silent(r, "in the wheel", gpu=gpu(89), **official)
says(r, gone, "the official wheel", "12.0", "8.0, 9.0", gpu=gpu(120), **official)
silent(r, "in theirs", gpu=gpu(89), **theirs)
says(r, gone, "the third-party wheel", "12.0", "8.0, 9.0", gpu=gpu(120), **theirs)
one_runs = flash(third_party=[other(), other(archs=[120], glibc="2.39"),
                              other(archs=[120], glibc="2.40")])  # fmt: skip
silent(r, "one of theirs", gpu=gpu(120), flash_attn=one_runs, origin="third-party")
says(r, gone, "it has 8.0, 9.0", gpu=gpu(120), flash_attn=one_runs, origin="third-party",
     os=os(glibc="2.32"), note="what runs there does not load")  # fmt: skip
silent(r, "no such wheel", gpu=gpu(90), flash_attn=flash(), origin="official")

r = flash_attn.flash_attn_asks_for_the_standard
new = torch("2.14.0", cxx=20)
silent(r, "no flash-attn", torch=new)
silent(r, "a wheel", torch=new, **official)
silent(r, "C++17", flash_attn=flash())
says(r, "warn compile flash-attn-cxx20", "torch 2.14.0", "C++20", "flash-attn 2.8.3", "C++17",
     torch=new, flash_attn=flash())  # fmt: skip

r = flash_attn.flash_attn_was_compiled_with_the_torch
silent(r, "no flash-attn", torch=torch("2.99.0"))
silent(r, "a wheel", torch=torch("2.99.0"), **official)
for release, limit, fine in (
    ("2.9.1", "2.9", True),
    ("2.8.0", "2.9", True),
    ("2.10.0", "2.9", False),
    ("2.9.0", "2.10", True),
):
    rows_ = {"torch": torch(release), "flash_attn": flash(torch_max=limit)}
    if fine:
        silent(r, f"{release} of {limit}", **rows_)
    else:
        says(r, "unverified compile flash-attn-untested", "flash-attn 2.8.3", "torch 2.10",
             f"up to {limit}", note=f"{release} of {limit}", **rows_)  # fmt: skip

r = flash_attn.setup_py_guesses_right
warns = "warn import pip-guess"
torch13: dict[str, Any] = {"torch": torch("2.9.1", build("13.0")), "index": v("13.0")}
silent(r, "no flash-attn", **torch13)
silent(r, flash_attn=has)
silent(r, "nothing to download", flash_attn=flash(), **torch13)
silent(r, "another Python", flash_attn=has, python=py("3.11"), **torch13)
silent(r, "the name that it guesses", flash_attn=flash("2.8.3.post1", wheel(), wheel(tag="cu13"),
                                                       cuda13_tag="cu13"), **torch13)  # fmt: skip
says(r, warns, "flash-attn==2.8.3", "CUDA 12", flash_attn=has, **torch13)
says(r, warns, "flash-attn==2.8.3", "Python 3.12,", flash_attn=has, python=py("3.12t"))
says(r, warns, "of the other C++ ABI", flash_attn=guessed, torch=old_abi)
says(r, warns, "CUDA 12 and for Python 3.12,", flash_attn=has, python=py("3.12t"),
     note="both", **torch13)  # fmt: skip
silent(r, "the name is true", flash_attn=guessed)

r = flash_attn.the_compiler_has_memory
silent(r, "no flash-attn", memory=1)
silent(r, "unknown", flash_attn=flash())
silent(r, "a wheel", memory=1, **official)
silent(r, "at the limit", flash_attn=flash(), memory=5)
says(r, "impossible compile memory", "5 GB", "has 4", flash_attn=flash(), memory=4)

# machine

r = driver_rules.the_driver_runs_the_cuda
silent(r, "no driver")
new_cuda = cuda("13.0.0", driver_floor="580.65.06", driver="580.65.06")
for driver in ("580.65.06", "580.65.07", "580.100", "580", "595", "1000.1"):
    silent(r, driver, cuda=new_cuda, driver=v(driver))
for driver in ("580.65.05", "580.9", "575", "575.99.99"):
    says(r, "impossible start driver", "CUDA 13", "580.65.06", "not 5", note=driver,
         cuda=new_cuda, driver=v(driver))  # fmt: skip
says(r, "impossible start driver", "not 525.60.02", driver=v("525.60.2"), note="as NVIDIA writes")

r = driver_rules.the_driver_knows_the_gpu
blackwell = gpu(120, name="RTX 5090", driver="570")
silent(r, "no card", driver=v("1"))
silent(r, "no driver", gpu=blackwell)
silent(r, "CUDA's floor holds", gpu=gpu(), driver=v("1"))
for driver in ("570", "570.26", "570.00", "580"):
    silent(r, driver, gpu=blackwell, driver=v(driver))
for driver in ("569.99", "560.35.05", "569"):
    says(r, "impossible run driver-gpu", "RTX 5090", "570 or newer", f"not {driver}", note=driver,
         gpu=blackwell, driver=v(driver))  # fmt: skip

r = driver_rules.the_driver_came_with_the_cuda
silent(r, "no driver")
for driver in ("570", "570.124.06", "570.124.07", "575"):
    silent(r, driver, driver=v(driver))
for driver in ("570.124.05", "570.26", "569", "525.60.13", "525"):
    says(r, "warn run driver-minor", f"driver {driver} ", "570.124.06", "CUDA 12.8:",
         note=driver, driver=v(driver))  # fmt: skip
silent(r, "another rule's", driver=v("525.60.12"))
of_patch = cuda("12.9.2", driver="575.57.08", driver_of_minor="575.51.03")
silent(r, "the driver of a patch is not asked for", cuda=of_patch, driver=v("575.51.03"))
says(r, "warn run driver-minor", "575.51.02", "575.51.03 of CUDA 12.9:", cuda=of_patch,
     driver=v("575.51.02"))  # fmt: skip
branch = cuda("12.9.2", driver=None, driver_branch="575", driver_of_minor="575")
silent(r, "of the branch", cuda=branch, driver=v("575.10"))
says(r, "warn run driver-minor", "574.99", "the 575 of", cuda=branch, driver=v("574.99"))
of129 = torch("2.9.1", build("12.9", driver_of_minor="575.51.03"))
says(r, "warn run driver-minor", "570.124.06", "575.51.03 of CUDA 12.9:", torch=of129,
     index=v("12.9"), driver=v("570.124.06"), note="torch's own CUDA is newer")  # fmt: skip
silent(r, "new enough for both", torch=of129, index=v("12.9"), driver=v("575.51.03"))
silent(r, "no such build", torch=of129, driver=v("570.124.06"))
secret = cuda("13.5.0", driver=None, driver_floor="580.65.06", driver_of_minor=None)
says(r, "unverified run driver-unknown", "CUDA 13.5 ", cuda=secret, driver=v("999"))
says(r, "unverified run driver-unknown", "CUDA 12.8 ", driver=v("999"), note="torch's",
     torch=torch("2.9.1", build(driver_of_minor=None)))  # fmt: skip

r = driver_rules.the_base_image_starts
gate = "warn start container-gate"
mine: dict[str, Any] = {"gpu": gpu(), "driver": v("550.54.15")}
silent(r, "no card", driver=v("550.54.15"))
silent(r, "no driver", gpu=gpu())
says(r, gate, "nvidia/cuda:12.8.1", "RTX 4090", "550.54.15", "cuda>=12.8", "525.60.13", **mine)
says(r, gate, "nvidia/cuda:12.8.1", kind="devel", **mine)
silent(r, "exempt", gpu=gpu(brand="tesla"), driver=v("550.54.15"))
silent(r, "exempt, too", gpu=gpu(brand="quadro"), driver=v("550.54.15"))
silent(r, "new enough", gpu=gpu(), driver=v("570.124.06"))
silent(r, "another rule's", gpu=gpu(), driver=v("525.60.12"))
says(r, gate, "525.60.13", gpu=gpu(), driver=v("525.60.13"))
silent(r, "before 12.6", cuda=cuda("12.5.1"), **mine)
says(r, gate, "cuda>=12.6", cuda=cuda("12.6.0"), **mine)
says(r, gate, "cuda>=12.10", cuda=cuda("12.10.0"), **mine)
of13 = cuda("13.1.0", driver_of_minor="590.44.01", driver_floor="580.65.06")
silent(r, "no image of NVIDIA's", gpu=gpu(), driver=v("580.65.06"), cuda=of13)
first13 = cuda("13.0.2", driver_of_minor="580.82.07", driver_floor="580.65.06")
silent(r, "at 13, too", gpu=gpu(), driver=v("580.65.06"), cuda=first13)
silent(r, "a patch's driver is not asked for", gpu=gpu(), driver=v("570.124.06"),
       cuda=cuda(driver="570.999"))  # fmt: skip
says(r, gate, "cuda>=13.1", gpu=gpu(), driver=v("580.65.06"), cuda=of13, kind="devel")
silent(r, "nobody knows", gpu=gpu(), driver=v("580.65.06"), cuda=secret, kind="devel")

r = machine.the_gpu_has_the_host
grace = gpu(90, name="GH200", host="aarch64")
silent(r, "no card")
silent(r, gpu=gpu())
silent(r, gpu=grace, host="aarch64")
says(r, "impossible resolve gpu-host", "GH200", "aarch64", "not x86_64", gpu=grace)
says(r, "impossible resolve gpu-host", "RTX 4090", "not aarch64", gpu=gpu(), host="aarch64")

r = machine.the_host_is_rendered
silent(r)
says(r, "warn resolve host-not-rendered", "aarch64", "x86_64", host="aarch64")

r = machine.the_python_is_the_distributions
silent(r)
says(r, "warn resolve python-distribution", "Python 3.12", "3.13 ", python=py("3.13"))
says(r, "warn resolve python-distribution", "3.12t ", python=py("3.12t"))

# versions that no fact knows

guess = "unverified resolve unknown-version"
silent(known.torch_is_known)
says(known.torch_is_known, guess, "torch 2.16.0", "2.15.0",
     torch=torch("2.16.0", assumed="2.15.0"))  # fmt: skip
silent(known.cuda_is_known)
says(known.cuda_is_known, guess, "CUDA 14.0", "13.5.0", cuda=cuda("14.0", assumed="13.5.0"))
silent(known.flash_attn_is_known)
silent(known.flash_attn_is_known, flash_attn=flash())
says(known.flash_attn_is_known, guess, "flash-attn 2.9", "2.8.3",
     flash_attn=flash("2.9", assumed="2.8.3"))  # fmt: skip

# FlashAttention-3 and -4

for _rule in (
    later.the_package_comes_as_a_wheel,
    later.the_package_takes_the_python,
    later.the_package_takes_the_torch,
    later.the_package_takes_the_cuda,
    later.the_package_is_proven,
    later.the_package_is_final,
    later.the_package_stands_alone,
    later.the_package_runs_on_the_gpu,
):
    silent(_rule, flash_attn=flash(), note="flash-attn 2 is another matter")
    silent(_rule, flash_attn=None, note="no flash-attn")

silent(later.the_package_comes_as_a_wheel, flash_attn=package(3), origin="official")
for _origin in ("source", "third-party"):
    says(later.the_package_comes_as_a_wheel, "impossible resolve flash-attn-origin",
         "flash-attn-3 3.0.0", "PyTorch's own index", flash_attn=package(3), origin=_origin,
         note=_origin)  # fmt: skip
says(later.the_package_comes_as_a_wheel, "impossible resolve flash-attn-origin", "from PyPI",
     flash_attn=package(4), origin="source")  # fmt: skip

silent(later.the_package_takes_the_python, flash_attn=package(), python=py("3.12"))
for _python in ("3.13", "3.12t"):
    says(later.the_package_takes_the_python, "impossible resolve flash-attn-python", _python,
         "3.11, 3.12", flash_attn=package(), python=py(_python), note=_python)  # fmt: skip

silent(later.the_package_takes_the_torch, flash_attn=package(3), torch=torch("2.9.0"))
says(later.the_package_takes_the_torch, "impossible import flash-attn-torch", "2.8.1", "2.9",
     flash_attn=package(3), torch=torch("2.8.1"))  # fmt: skip
says(later.the_package_takes_the_torch, "unverified import flash-attn-torch", "2.8.1", "2.9",
     flash_attn=package(4), torch=torch("2.8.1"), note="Python, which may do")  # fmt: skip

for _index in ("12.8", "13.0", "13.2"):
    silent(
        later.the_package_takes_the_cuda,
        flash_attn=package(),
        index=v(_index),
        note=_index,
    )
says(later.the_package_takes_the_cuda, "unverified import flash-attn-cuda", "12.6", "12.8, 13",
     flash_attn=package(), index=v("12.6"), note="the same major")  # fmt: skip
says(later.the_package_takes_the_cuda, "impossible import flash-attn-cuda", "11.8", "12.8, 13",
     flash_attn=package(), index=v("11.8"))  # fmt: skip

silent(later.the_package_is_proven, flash_attn=package(3))
says(later.the_package_is_proven, "unverified resolve flash-attn-unproven", "nobody tried",
     flash_attn=package(3, unproven="nobody tried"))  # fmt: skip
silent(later.the_package_is_final, flash_attn=package())
says(later.the_package_is_final, "warn run flash-attn-beta", "4.0.0b36",
     flash_attn=package(version="4.0.0b36"))  # fmt: skip
silent(later.the_package_stands_alone, flash_attn=package(3))
says(later.the_package_stands_alone, "warn import flash-attn-cute", "flash_attn/cute",
     flash_attn=package(shares="flash_attn/cute"))  # fmt: skip

silent(later.the_package_runs_on_the_gpu, flash_attn=package(), gpu=None)
silent(later.the_package_runs_on_the_gpu, flash_attn=package(), gpu=gpu(90))
says(later.the_package_runs_on_the_gpu, "warn run flash-attn-backward", "8.9", "only for 9.x",
     flash_attn=package(), gpu=gpu(89))  # fmt: skip
for _capability in (75, 100):
    says(later.the_package_runs_on_the_gpu, "impossible run flash-attn-gpu", "RTX 4090", "8.x, 9.x",
         flash_attn=package(), gpu=gpu(_capability), note=str(_capability))  # fmt: skip

# and of those all rules about flash-attn 2 say nothing

for _rule in RULES:
    if _rule.__module__.endswith(".flash_attn"):
        silent(_rule, flash_attn=package(), note="FlashAttention-4 is another matter")

# of a version that nobody knows nothing is impossible

says(torch_is_built_for_the_cuda, "unverified resolve torch-cuda", "CUDA 12.6",
     index=v("12.6"), torch=torch("2.16.0", assumed="2.15.0"), note="an assumed torch")  # fmt: skip
says(nvcc.nvcc_takes_the_compiler, "unverified compile nvcc-gcc", os=os(gcc=15),
     cuda=cuda("14.0", assumed="13.5.0"), note="an assumed toolkit")  # fmt: skip
says(flash_attn.flash_attn_takes_the_python, "unverified resolve flash-attn-python",
     python=py("3.8"), flash_attn=flash("2.9", assumed="2.8.3"),
     note="an assumed flash-attn")  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_what_a_rule_says(rule: Rule) -> None:
    cases = [case for case in CASES if case.rule is rule]
    hold(is_told, cases, lambda case: f"{case.says or 'silent'}, {case.note}")


def is_told(case: Case) -> None:
    found = case.ask()
    if not case.says:
        assert found is None
        return
    assert found
    assert f"{found.severity} {found.stage} {found.code}" == case.says
    for word in case.words:
        assert word in f"{found.text} ", found.text
    assert found.source.strip()
    assert found.severity in get_args(Severity)
    assert found.stage in get_args(Stage)


# --- the table of rules ---------------------------------------------------------------------------


def test_every_rule_speaks_in_one_case_and_is_silent_in_another() -> None:
    assert {case.rule for case in CASES if case.says} == set(RULES)
    assert {case.rule for case in CASES if not case.says} == set(RULES)


def functions() -> Iterator[Any]:
    """Every function of the package, where it is written."""
    names = (info.name for info in pkgutil.iter_modules(rules.__path__, f"{rules.__name__}."))
    for module in map(importlib.import_module, names):
        for _, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__:
                yield function


def test_the_rules_are_all_public_functions_that_give_a_reason_or_none() -> None:
    found = {
        function
        for function in functions()
        if not function.__name__.startswith("_")
        and function.__annotations__.get("return") == "Reason | None"
    }
    assert set(RULES) == found
    assert len(set(RULES)) == len(RULES)


@for_all(RULES, lambda rule: rule.__name__)
def test_a_rule_names_its_axes_and_says_what_it_is_about(rule: Rule) -> None:
    assert axes_of(rule)
    assert set(axes_of(rule)) <= set(AXES)
    assert rule.__doc__


@for_all(RULES, lambda rule: rule.__name__)
def test_nothing_is_wrong_with_the_plain_values(rule: Rule) -> None:
    """So that a case shows what its own change does; only the image is in no list."""
    found = rule(**{axis: PLAIN[axis] for axis in axes_of(rule)})
    assert found is None or found.code == "base-image-unknown"


def test_what_does_not_exist_at_all_is_told_apart() -> None:
    """A missing piece hides what else is wrong, so that it costs more."""
    found = [case.ask() for case in CASES]
    codes = {reason.code for reason in found if reason and reason.missing}
    assert codes == {
        "torch-cuda",
        "torch-python",
        "base-image",
        "flash-attn-wheel",
        "flash-attn-wheel-cuda",
        "flash-attn-abi",
        "flash-attn-python",
        "flash-attn-torch",
        "flash-attn-cuda",
    }
    for one in found:
        if one and one.code in codes:
            assert one.missing == (one.severity == "impossible")


def test_what_is_said_of_an_assumed_version_names_what_it_is_like() -> None:
    found = torch_is_built_for_the_cuda(torch("2.16.0", assumed="2.15.0"), v("12.6"), "x86_64")
    assert found
    assert "2.15.0" in found.source
    assert not found.missing


def test_a_reason_of_a_fact_has_the_facts_source_and_date() -> None:
    found = [case.ask() for case in CASES]
    sources = {reason.source for reason in found if reason}
    assert "a list (2026-11-21)" in sources
    assert all(len(source) > 4 for source in sources)


# --- drivers --------------------------------------------------------------------------------------


drivers = st.lists(st.integers(0, 999), min_size=1, max_size=3).map(
    lambda parts: Version(".".join(map(str, parts)))
)


@given(drivers, drivers)
def test_a_driver_is_not_older_than_itself_and_only_one_of_two_is(a: Version, b: Version) -> None:
    assert not older(a, a)
    assert not (older(a, b) and older(b, a))
    if older(a, b):
        assert a < b


@given(drivers)
def test_a_drivers_text_is_the_driver(driver: Version) -> None:
    text = driver_text(driver)
    assert Version(text) == driver
    assert all(len(part) >= 2 for part in text.split(".")[1:])


def test_a_branch_alone_means_its_newest() -> None:
    assert not older(v("570"), v("570.26"))
    assert older(v("570.20"), v("570.26"))
    assert not older(v("570.26"), v("570.26"))
    assert not older(v("570.124"), v("570.26"))
    assert older(v("569"), v("570.26"))
    assert not older(v("570.26"), v("570"))
    assert older(v("569.99"), v("570"))


# --- which wheel ----------------------------------------------------------------------------------


def names(row: FlashAttnFact, origin: Origin = "third-party", index: str = "12.8") -> set[str]:
    """The releases of the wheels that fit."""
    builds = [build(one) for one in ("12.6", "12.8")]
    torch_ = torch("2.9.1", *builds)
    found = wheels_of(row, origin, torch_, v(index), py("3.12"), "x86_64")
    return {getattr(one, "release", "official") for one in found}


def chosen(
    *rows: dict[str, Any], index: str = "12.8", card: GpuFact | None = None, glibc: str = "2.39"
) -> str:
    """The release of the best third-party wheel; the order of the rows does not matter."""
    found = set()
    for order in (rows, rows[::-1]):
        release = flash(third_party=order)
        wheels = release.third_party
        one = best_wheel(release, wheels, v(index), os(glibc=glibc), card)
        found.add(getattr(one, "release", "none"))
    (name,) = found
    return name


def test_the_wheels_that_fit_have_the_torch_cuda_python_abi_and_machine() -> None:
    rows = [
        other(release="fits"),
        other(release="minor", nvcc="12.4", torch_cuda="12.4"),
        other(release="abi", abi=False),
        other(release="arm", host="aarch64"),
        other(release="python", pythons=["3.11"]),
        other(release="torch", torch="2.8"),
        other(release="major", nvcc="13.0", torch_cuda="13.0"),
    ]
    assert names(flash(third_party=rows)) == {"fits", "minor"}
    both = flash("2.8.3", wheel(), wheel(tag="cu13"), wheel(abi=[False]), wheel(host="aarch64"))
    found = wheels_of(both, "official", torch(), v("12.8"), py("3.12"), "x86_64")
    assert found == [both.wheel[0]]


def test_of_third_party_wheels_the_one_that_loads_and_runs_and_is_nearest_to_torchs_cuda() -> None:
    new, old = other(release="new", glibc="2.34"), other(release="old", glibc="2.32")
    assert chosen(new, old) == "old"
    assert chosen(new, other(release="far", nvcc="12.4")) == "new", "nearer comes before older"
    same = other(release="same", nvcc="12.4", torch_cuda="12.8")
    near = other(release="near", nvcc="12.8", torch_cuda="12.9")
    assert chosen(same, near) == "same", "built with the very CUDA of that torch"
    assert chosen(other(release="far", nvcc="12.4"), other(release="near", nvcc="12.9")) == "near"
    assert chosen(other(release="loads", nvcc="12.1"), new, glibc="2.32") == "loads"
    assert chosen(other(release="runs", nvcc="12.1", archs=[120]), new, card=gpu(120)) == "runs"
    assert chosen(other(release="runs", archs=[120], glibc="2.40"), new, card=gpu(120)) == "new"
    assert chosen(other(release="v2"), other(release="v1")) == "v1"
    assert chosen() == "none"


def test_source_has_no_wheel() -> None:
    row = flash("2.8.3", wheel(), third_party=[other()])
    assert names(row, "source") == set()
    assert names(row, "official") == {"official"}
    assert names(row, "third-party") == {"v1"}
    assert names(row, "official", "12.9") == names(row, "third-party", "12.9") == set()


def test_the_architectures_that_a_wheel_holds() -> None:
    row = flash("2.8.3", wheel(), third_party=[other(archs=[86])])
    assert archs_in(row, row.wheel[0]) == (80, 90)
    assert archs_in(row, row.third_party[0]) == (86,)
