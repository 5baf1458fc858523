"""Where each piece of a combination comes from, in words: image, index, wheel or compilation."""

from __future__ import annotations

from collections.abc import Mapping

from imagegen.compat.facts.rows import FlashAttnFact, FlashAttnPackageFact, ThirdPartyWheel, Wheel
from imagegen.compat.facts.tables import Facts
from imagegen.compat.solver import Combination
from imagegen.compat.sources import wheel_name
from imagegen.model.target import cuda_word, minor

Piece = Mapping[str, object]
"""JSON values; ``from`` is always there, in words."""


def pieces(facts: Facts, combination: Combination) -> dict[str, Piece]:
    """Every piece by name: base, nvcc, python, torch and its partners, flash_attn."""
    return {
        "base": _base(combination),
        "nvcc": _nvcc(combination),
        "python": _python(combination),
        "torch": _torch(combination),
        "torchvision": {"from": "beside torch", "version": str(combination.torch.torchvision)},
        "torchaudio": _torchaudio(combination),
        "triton": {"from": "torch's own requirement", "version": combination.torch.triton},
        "flash_attn": _flash_attn(facts, combination),
    }


def _base(combination: Combination) -> Piece:
    if combination.base is None and not combination.from_wheels:
        return {"from": f"none: NVIDIA publishes no images for {combination.os.distribution}"}
    pinned = combination.base or combination.os
    if combination.base and not combination.cuda.base_for(combination.os, combination.kind):
        return {"from": "an nvidia/cuda image that no list has", "image": combination.base.tag}
    words = "NVIDIA's image" if combination.base else "the distribution's image"
    piece: dict[str, object] = {"from": words, "image": pinned.tag}
    if pinned.digest:
        return piece | {"digest": pinned.digest, "witnesses": pinned.witnesses}
    return piece | {"note": "no digest that two public files name: by tag"}


def _nvcc(combination: Combination) -> Piece:
    if combination.from_wheels:
        where = "wheels on PyPI, beside torch's CUDA libraries"
    else:
        where = "the base image" if combination.kind == "devel" else "NVIDIA's apt packages"
    return {"from": where, "version": str(combination.cuda.version)}


def _python(combination: Combination) -> Piece:
    own = combination.python == combination.os.python
    return {
        "from": combination.os.os.name if own else "elsewhere",
        "version": str(combination.python),
    }


def _torch(combination: Combination) -> Piece:
    plain = (
        combination.torch.pypi_cuda == combination.index
        and combination.host in combination.torch.pypi_hosts
    )
    word = cuda_word(combination.index)
    where = "PyPI" if plain else f"PyTorch's index {word}"
    piece = {
        "from": where,
        "version": str(combination.torch.version),
        "cuda": str(combination.index),
    }
    return piece if plain else piece | {"index": word}


def _torchaudio(combination: Combination) -> Piece:
    if combination.torch.torchaudio.release[:2] == combination.torch.version.release[:2]:
        return {"from": "beside torch", "version": str(combination.torch.torchaudio)}
    last = str(combination.torch.torchaudio)
    return {"from": "none of this torch: the last release names no torch", "version": last}


def _flash_attn(facts: Facts, combination: Combination) -> Piece:
    release = combination.flash_attn
    if isinstance(release, FlashAttnPackageFact):
        return _package(release, combination)
    if not isinstance(release, FlashAttnFact):
        return {"from": "not in the image"}
    name, archs = wheel_name(release, combination), list(combination.kernels)
    piece: dict[str, object] = {"version": str(release.version), "archs": archs}
    if isinstance(combination.wheel, Wheel):
        url = facts.flash_attn_url.format(version=release.version, wheel=name)
        return {"from": "the official wheel", **piece, "wheel": name, "url": url}
    if isinstance(combination.wheel, ThirdPartyWheel):
        url = facts.third_party_url.format(release=combination.wheel.release, wheel=name)
        return {"from": "a third party's wheel", **piece, "wheel": name, "url": url}
    if combination.origin != "source":
        return {"from": f"no {combination.origin} wheel is known", **piece}
    return {
        "from": "source",
        **piece,
        "sdist": f"flash_attn-{release.version}.tar.gz",
        "sha256": release.sha256,
        "kernel_files": release.kernel_files,
        "torch": minor(combination.torch.version),
    }


def _package(release: FlashAttnPackageFact, combination: Combination) -> Piece:
    if combination.origin != "official":
        return {"from": f"no {combination.origin} of it is taken", "version": str(release.version)}
    return {
        "from": "PyPI" if release.on_pypi else f"PyTorch's index {cuda_word(combination.index)}",
        "version": str(release.version),
        "package": release.requirement(combination.index),
    }
