"""R1-R20, first part: what can be said of an image without a pod; contract.py has the others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from packaging.version import Version

from imagegen.checks.contract import Suite, Trial
from imagegen.checks.pod import Skip, need, same
from imagegen.checks.shared import amd64, gate, of_one_major, tag

IMAGE = Suite("runpod")

LAYER = 4e9
"""Compressed bytes of a layer above which registries begin to fail (goharbor/harbor#17908)."""

INVENTORY = """
import glob, importlib, importlib.util, json, os, re, shutil, subprocess, sys

def out(*argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout.strip()
    except OSError:
        return ""

def module(name):
    try:
        return importlib.import_module(name)
    except Exception:
        return None

def where(name):
    spec = importlib.util.find_spec(name)
    return spec.origin if spec else ""

who = "import os, sys; print(os.path.realpath(sys.executable), sys.prefix)"
release = dict(line.split("=", 1) for line in open("/etc/os-release") if "=" in line)
torch, flash = module("torch"), module("flash_attn")
tools = [shutil.which("cuobjdump"), "/usr/local/cuda/bin/cuobjdump"]
if where("triton"):
    tools += glob.glob(os.path.dirname(where("triton")) + "/**/cuobjdump", recursive=True)
tool = next((path for path in tools if path and os.path.exists(path)), "")
library = where("flash_attn_2_cuda")
elf = out(tool, "--list-elf", library) if tool and library else ""
flags = getattr(getattr(torch, "_C", None), "_cuda_getArchFlags", None)  # needs no GPU
archs = (flags() or "").split() if flags else torch.cuda.get_arch_list() if torch else []
nvcc = re.search(r"release (\\d+\\.\\d+)", out("nvcc", "--version"))
print(json.dumps({
    "python": "%d.%d" % sys.version_info[:2],
    "pythons": [out("python", "-c", who), out("python3", "-c", who)],
    "torch": getattr(torch, "__version__", "").partition("+")[0],
    "torch_cuda": getattr(getattr(torch, "version", None), "cuda", None) or "",
    "flash_attn": getattr(flash, "__version__", "").partition("+")[0],
    "nvcc": nvcc[1] if nvcc else "",
    "os": release["ID"].strip().strip('"') + release.get("VERSION_ID", "").strip().strip('"'),
    "cuobjdump": tool,
    "torch_archs": sorted(int(n) for n in re.findall(r"sm_(\\d+)", " ".join(archs))),
    "flash_archs": sorted({int(n) for n in re.findall(r"\\.sm_(\\d+)[af]?\\.", elf)}),
}))
"""
"""Asks an image, with its own `python`, what is in it."""


def inventory(trial: Trial) -> Mapping[str, Any]:
    """What is in the image: versions as text, compute capabilities times ten; asked once."""
    found: Mapping[str, Any] = trial.asked("inventory", lambda: _inventory(trial))
    return found


def _inventory(trial: Trial) -> Mapping[str, Any]:
    said = trial.answer("python", "-c", INVENTORY, timeout=120)
    found: Mapping[str, Any] = json.loads(said.strip().splitlines()[-1])
    return found


# --- what a tag and a label promise ---------------------------------------------------------------

DOTTED = r"[-_]?(\d+\.\d+(?:\.\d+)?)(?![\d.])"


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """Versions that somebody says are in an image; empty where nobody does.

    ``cuda`` is the toolkit's, ``torch_cuda`` that which torch was built for.
    """

    torch: str = ""
    torch_cuda: str = ""
    cuda: str = ""
    python: str = ""
    os: str = ""
    flash_attn: str = ""


def _found(pattern: str, text: str) -> str:
    found = re.search(rf"(?<![a-z]){pattern}", text)
    return ".".join(part for part in found.groups() if part) if found else ""


def _os(text: str) -> str:
    found = re.search(r"(ubuntu|debian)-?(\d\d)(?:\.?(\d\d))?(?!\d)", text)
    return found[1] + ".".join(part for part in found.groups()[1:] if part) if found else ""


def said_by_tag(text: str) -> Said:
    """What a tag says, in the ways of both platforms' own images and of ours.

    ``cuda-13.0`` and ``cu1281`` are the toolkit's, ``cu128`` is torch's: a tag may hold both. The
    patch of a toolkit is left out, because nvcc does not tell its own.
    """
    return Said(
        torch=_found(rf"torch{DOTTED}", text) or _found(r"torch(\d)(\d{1,2})(\d)(?!\d)", text),
        torch_cuda=_found(r"cu(\d\d)(\d)(?!\d)", text),
        cuda=_found(r"cuda[-_]?(\d+\.\d+)", text) or _found(r"cu(?:da)?(\d\d)(\d)\d(?!\d)", text),
        python=_found(r"py(?:thon)?[-_]?(\d\.\d+)", text)
        or _found(r"py(?:thon)?(\d)(\d+)(?!\d)", text),
        os=_os(text),
    )


def said_by_label(promise: Mapping[str, Any]) -> Said:
    """What a target's promise says."""
    os_, flash = promise.get("os") or {}, promise.get("flash_attn") or {}
    return Said(
        torch=str(promise.get("torch", "")),
        torch_cuda=str(promise.get("torch_cuda", "")),
        cuda=".".join(str(promise.get("cuda", "")).split(".")[:2]),
        python=str(promise.get("python", "")),
        os=str(os_.get("id", "")) + str(os_.get("version", "")),
        flash_attn=str(flash.get("version", "")) if flash.get("generation", 2) == 2 else "",
    )


def differences(said: Said, found: Mapping[str, Any]) -> list[str]:
    """What is in the image that was not said, each with both sides; a shorter version is enough."""
    pairs = {
        "torch": (said.torch, found["torch"]),
        "torch.version.cuda": (said.torch_cuda, found["torch_cuda"]),
        "nvcc": (said.cuda, found["nvcc"]),
        "python": (said.python, found["python"]),
        "/etc/os-release": (said.os, found["os"]),
        "flash_attn": (said.flash_attn, found["flash_attn"]),
    }
    return [
        f"{what}: expected {expected}, found {there or 'none'}"
        for what, (expected, there) in pairs.items()
        if expected and not f"{there}.".startswith(f"{expected}.")
    ]


# --- the checks -----------------------------------------------------------------------------------


@IMAGE.clause("an image for another processor, which no host of RunPod runs")
def R1_architecture_is_amd64(trial: Trial) -> str:
    return amd64(trial)


@IMAGE.clause("an ENTRYPOINT that swallows the start command (dstackai/dstack#1133)")
def R2_entrypoint_runs_the_command(trial: Trial) -> str:
    entrypoint, command = (trial.config["Config"].get(key) for key in ("Entrypoint", "Cmd"))
    need(command, "CMD: expected a command to run when no other is given, found none")
    done = trial.once("bash", "-c", "echo OK")
    same("exit status of `docker run IMAGE bash -c 'echo OK'`", 0, done.code)
    same("the last line of its standard output", ["OK"], done.out.split()[-1:])
    return f"ENTRYPOINT {entrypoint or 'none'}, CMD {command}"


@IMAGE.clause("a user who may not install packages; the platform's terminal and keys are root's")
def R4_runs_as_root(trial: Trial) -> str:
    user = str(trial.config["Config"].get("User") or "")
    need(user.partition(":")[0] in {"", "root", "0"}, f"USER: expected root, found {user}")
    same("`id -u`", ["0"], trial.answer("id", "-u").split()[-1:])
    return f"USER {user or 'not set'}, id 0"


@IMAGE.clause(
    "tags that say one version over another's content (runpod/containers#114)", timeout=150
)
def R13_tag_and_label_tell_the_truth(trial: Trial) -> str:
    sources = {
        "label": said_by_label(trial.promise),
        "tag": said_by_tag(tag(trial)),
    }
    speak = [name for name, said in sources.items() if said != Said()]
    if not speak:
        raise Skip("neither the tag nor a label says what is in the image")
    found = inventory(trial)
    python, python3 = found["pythons"]
    need(python == python3, f"python and python3: expected one, found {python!r}, {python3!r}")
    wrong = [f"{name}: {line}" for name in speak for line in differences(sources[name], found)]
    need(not wrong, "; ".join(wrong))
    return (
        f"{' and '.join(speak)} hold: torch {found['torch']} for CUDA {found['torch_cuda']}, nvcc "
        f"{found['nvcc'] or 'none'}, flash_attn {found['flash_attn'] or 'none'}, Python "
        f"{found['python']}, {found['os']}"
    )


@IMAGE.clause(
    "a gate of the driver below what torch needs (artokun/comfyui-mcp#118), or none at all",
    timeout=150,
)
def R14_minimum_cuda_is_declared(trial: Trial) -> str:
    lowest = gate(trial)
    found = inventory(trial)
    held = [Version(text) for text in (found["nvcc"], found["torch_cuda"]) if text]
    if not held:
        raise Skip("the image has neither nvcc nor a torch for CUDA")
    newest, torch, nvcc = max(held), found["torch_cuda"] or "none", found["nvcc"] or "none"
    of_one_major(lowest, newest, f"as torch is for CUDA {torch} and nvcc is {nvcc}")
    if text := tag(trial):
        need(
            re.search(r"\bcu(?:da)?\d{3,4}", text),
            f"tag: expected cu and three or four digits, by which CUDA is chosen, found {text}",
        )
    return f"cuda>={lowest}, for CUDA {newest}"


@IMAGE.clause(
    "`no kernel image is available` on the rented GPU (runpod/containers#114)", timeout=150
)
def R15_kernels_cover_the_gpus(trial: Trial) -> str:
    flash = trial.promise.get("flash_attn") or {}
    wanted = {"torch": trial.promise.get("archs"), "flash_attn": flash.get("archs")}
    found = inventory(trial)
    has = {"torch": found["torch_archs"], "flash_attn": found["flash_archs"]}
    if not any(wanted.values()):
        raise Skip(f"nobody says which GPUs it is for; it has machine code for {has}")
    for what, archs in wanted.items():
        lack = sorted(set(archs or ()) - set(has[what]))
        tool = "" if what == "torch" or found["cuobjdump"] else " (there is no cuobjdump)"
        need(not lack, f"{what}: expected machine code for {archs}, found {has[what]}{tool}")
    return f"machine code for sm {has}"


@IMAGE.clause(
    "layers that break registries, and disks that do not hold the image (comfyui-mcp#2014)"
)
def R17_size_is_known(trial: Trial) -> str:
    """What a template's disk is, the image does not say: the sum that it needs is reported.

    The engine knows the compressed size of the image and the unpacked one of each layer: a layer's
    compressed size is estimated by the image's own ratio.
    """
    layers, compressed = trial.engine.layers(trial.bytes), float(trial.config["Size"])
    unpacked = float(sum(layers))
    need(unpacked > 0 and compressed > 0, f"sizes: expected some, found {compressed}, {unpacked}")
    largest = max(layers) * min(1.0, compressed / unpacked)
    need(
        largest <= LAYER,
        f"the largest layer: expected at most {LAYER / 1e9:g} GB, found about {largest / 1e9:.1f}",
    )
    return (
        f"a disk needs {(compressed + unpacked) / 1e9:.1f} GB and room to work: "
        f"{compressed / 1e9:.1f} GB compressed, {unpacked / 1e9:.1f} GB unpacked; the largest "
        f"layer has about {largest / 1e9:.1f} GB compressed"
    )
