"""Where each piece of a combination comes from: image, index, wheel or compilation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from urllib.parse import quote

from imagegen.facts import Facts, FlashAttnFact, FlashAttnPackageFact
from imagegen.facts.rows import ThirdPartyWheel, Wheel
from imagegen.model import Origin, cuda_word, minor
from imagegen.solve import Combination

Piece = Mapping[str, object]
"""JSON values; ``from`` is always there, in words."""


def pieces(facts: Facts, it: Combination) -> dict[str, Piece]:
    """Every piece by name: base, nvcc, python, torch and its partners, flash_attn."""
    return {
        "base": _base(it),
        "nvcc": _nvcc(it),
        "python": _python(it),
        "torch": _torch(it),
        "torchvision": {"from": "beside torch", "version": str(it.torch.torchvision)},
        "torchaudio": _torchaudio(it),
        "triton": {"from": "torch's own requirement", "version": it.torch.triton},
        "flash_attn": _flash_attn(facts, it),
    }


def wheel_name(release: FlashAttnFact, it: Combination) -> str:
    """The file name of the published wheel that the combination takes; empty without one."""
    found, build = it.wheel, it.torch.build_for(it.index)
    cp, ours = f"cp{it.python.version.major}{it.python.version.minor}", it.python.tag
    if isinstance(found, ThirdPartyWheel):
        local = f"{cuda_word(found.nvcc)}torch{found.torch}"
        return f"flash_attn-{found.version}+{local}-{cp}-{ours}-{found.platform}.whl"
    if isinstance(found, Wheel) and build:
        local = f"{found.tag}torch{found.torch}cxx11abi{str(build.abi).upper()}"
        version = found.named or release.version
        return f"flash_attn-{version}+{local}-{cp}-{ours}-linux_{it.host}.whl"
    return ""


def of_origin(it: Combination, origin: Origin) -> Combination:
    """The combination with flash-attn from there, with all that there is in it."""
    values = {field.name: getattr(it, field.name) for field in fields(Combination)}
    return Combination(**(values | {"origin": origin, "archs": ()}))


def published(facts: Facts, it: Combination, origin: Origin) -> tuple[str, str]:
    """The name and the address of somebody else's wheel of flash-attn 2 for a combination; empty
    where no fact knows one.
    """
    if not isinstance(it.flash_attn, FlashAttnFact):
        return "", ""
    theirs = of_origin(it, origin)
    name, found = wheel_name(it.flash_attn, theirs), theirs.wheel
    if isinstance(found, ThirdPartyWheel):
        return name, facts.third_party_url.format(release=found.release, wheel=quote(name))
    version = it.flash_attn.version
    return name, facts.flash_attn_url.format(version=version, wheel=quote(name)) if name else ""


def _base(it: Combination) -> Piece:
    if it.base is None and not it.from_wheels:
        return {"from": f"none: NVIDIA publishes no images for {it.os.distribution}"}
    pinned = it.base or it.os
    if it.base and not it.cuda.base_for(it.os, it.kind):
        return {"from": "an nvidia/cuda image that no list has", "image": it.base.tag}
    words = "NVIDIA's image" if it.base else "the distribution's image"
    piece: dict[str, object] = {"from": words, "image": pinned.tag}
    if pinned.digest:
        return piece | {"digest": pinned.digest, "witnesses": pinned.witnesses}
    return piece | {"note": "no digest that two public files name: by tag"}


def _nvcc(it: Combination) -> Piece:
    if it.from_wheels:
        where = "wheels on PyPI, beside torch's CUDA libraries"
    else:
        where = "the base image" if it.kind == "devel" else "NVIDIA's apt packages"
    return {"from": where, "version": str(it.cuda.version)}


def _python(it: Combination) -> Piece:
    own = it.python == it.os.python
    return {"from": it.os.os.name if own else "elsewhere", "version": str(it.python)}


def _torch(it: Combination) -> Piece:
    plain = it.torch.pypi_cuda == it.index and it.host in it.torch.pypi_hosts
    word = cuda_word(it.index)
    where = "PyPI" if plain else f"PyTorch's index {word}"
    piece = {"from": where, "version": str(it.torch.version), "cuda": str(it.index)}
    return piece if plain else piece | {"index": word}


def _torchaudio(it: Combination) -> Piece:
    if it.torch.torchaudio.release[:2] == it.torch.version.release[:2]:
        return {"from": "beside torch", "version": str(it.torch.torchaudio)}
    last = str(it.torch.torchaudio)
    return {"from": "none of this torch: the last release names no torch", "version": last}


def _flash_attn(facts: Facts, it: Combination) -> Piece:
    release = it.flash_attn
    if isinstance(release, FlashAttnPackageFact):
        return _package(release, it)
    if not isinstance(release, FlashAttnFact):
        return {"from": "not in the image"}
    name, archs = wheel_name(release, it), list(it.kernels)
    piece: dict[str, object] = {"version": str(release.version), "archs": archs}
    if isinstance(it.wheel, Wheel):
        url = facts.flash_attn_url.format(version=release.version, wheel=name)
        return {"from": "the official wheel", **piece, "wheel": name, "url": url}
    if isinstance(it.wheel, ThirdPartyWheel):
        url = facts.third_party_url.format(release=it.wheel.release, wheel=name)
        return {"from": "a third party's wheel", **piece, "wheel": name, "url": url}
    if it.origin != "source":
        return {"from": f"no {it.origin} wheel is known", **piece}
    return {
        "from": "source",
        **piece,
        "sdist": f"flash_attn-{release.version}.tar.gz",
        "sha256": release.sha256,
        "kernel_files": release.kernel_files,
        "torch": minor(it.torch.version),
    }


def _package(release: FlashAttnPackageFact, it: Combination) -> Piece:
    if it.origin != "official":
        return {"from": f"no {it.origin} of it is taken", "version": str(release.version)}
    return {
        "from": "PyPI" if release.on_pypi else f"PyTorch's index {cuda_word(it.index)}",
        "version": str(release.version),
        "package": release.requirement(it.index),
    }
