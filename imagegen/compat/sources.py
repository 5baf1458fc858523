"""Where each piece of a combination comes from: image, index, wheel or compilation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from imagegen.compat.facts.rows import FlashAttnFact, FlashAttnPackageFact, ThirdPartyWheel, Wheel
from imagegen.compat.facts.tables import Facts
from imagegen.compat.solver import Combination, judged
from imagegen.errors import FactsError
from imagegen.image.wheel.flash_attn_wheel.selection import (
    DTYPES,
    FEATURES,
    HEAD_DIMS,
    KERNELS,
    Selection,
    foretold,
)
from imagegen.model.target import FlashAttn, Origin, cuda_word, minor

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


def wheel_name(release: FlashAttnFact, combination: Combination) -> str:
    """The file name of the published wheel that the combination takes; empty without one."""
    found, build = combination.wheel, combination.torch.build_for(combination.index)
    cp, ours = (
        f"cp{combination.python.version.major}{combination.python.version.minor}",
        combination.python.tag,
    )
    if isinstance(found, ThirdPartyWheel):
        local = f"{cuda_word(found.nvcc)}torch{found.torch}"
        return f"flash_attn-{found.version}+{local}-{cp}-{ours}-{found.platform}.whl"
    if isinstance(found, Wheel) and build:
        local = f"{found.tag}torch{found.torch}cxx11abi{str(build.abi).upper()}"
        version = found.named or release.version
        return f"flash_attn-{version}+{local}-{cp}-{ours}-linux_{combination.host}.whl"
    return ""


def of_origin(combination: Combination, origin: Origin) -> Combination:
    """The combination with flash-attn from there, with all that there is in it."""
    values = {field.name: getattr(combination, field.name) for field in fields(Combination)}
    return Combination(**(values | {"origin": origin, "archs": ()}))


def published(facts: Facts, combination: Combination, origin: Origin) -> tuple[str, str]:
    """The name and the address of somebody else's wheel of flash-attn 2 for a combination; empty
    where no fact knows one.
    """
    if not isinstance(combination.flash_attn, FlashAttnFact):
        return "", ""
    theirs = of_origin(combination, origin)
    name, found = wheel_name(combination.flash_attn, theirs), theirs.wheel
    if isinstance(found, ThirdPartyWheel):
        return name, facts.third_party_url.format(release=found.release, wheel=quote(name))
    version = combination.flash_attn.version
    return name, facts.flash_attn_url.format(version=version, wheel=quote(name)) if name else ""


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


PINS = "wheels.json"
"""Beside the locks: published wheels by name, each with the address and the hash that it had."""

Place = Literal["store", "official", "third-party", "source"]

NAMES: Mapping[Place, str] = {
    "store": "own wheel store",
    "official": "official wheel",
    "third-party": "third party's wheel",
    "source": "source",
}


PUBLISHED: tuple[Literal["official", "third-party"], ...] = ("official", "third-party")
"""Wheels that others made, in the order in which they are taken."""


COMPILED = 'the matrix wants it compiled (source = "required")'


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What a workspace allows. ``source``: ``required`` takes no wheel of others."""

    source: Literal["allowed", "forbidden", "required"] = "allowed"
    third_party: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Pinned:
    """A published wheel by its hash: the only form in which one is installed."""

    name: str
    url: str
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A place that flash-attn could come from, and whether it does."""

    place: Place
    taken: bool
    why: str

    def __str__(self) -> str:
        """``official wheel: passed over, it has none for torch 2.11``."""
        return f"{NAMES[self.place]}: {'' if self.taken else 'passed over, '}{self.why}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sourced:
    """The places in their order; ``wheel`` is the published one where that is taken."""

    steps: tuple[Step, ...]
    wheel: Pinned | None = None

    @property
    def taken(self) -> Place | None:
        """Where it comes from; None where nothing is left."""
        return next((step.place for step in self.steps if step.taken), None)


def pins(locks: Path) -> dict[str, Pinned]:
    """The published wheels of flash-attn whose hash was recorded beside the locks, by name.

    Raises:
        FactsError: the file of them cannot be read.
    """
    file = locks / PINS
    try:
        rows = json.loads(file.read_text()) if file.is_file() else {}
        return {name: Pinned(name=name, **row) for name, row in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise FactsError(f"{file}: not a record of wheels: {error}") from error


def selection(kernels: FlashAttn) -> Selection:
    """The kernels of a target as the recipe's command line takes them: each once, in one order."""
    return Selection(
        archs=tuple(sorted({*kernels.archs})),
        head_dims=tuple(dim for dim in HEAD_DIMS if dim in kernels.head_dims),
        dtypes=tuple(dtype for dtype in DTYPES if dtype in kernels.dtypes),
        features=tuple(name for name in FEATURES if name in kernels.features),
    )


def every_kernel(combination: Combination) -> FlashAttn | None:
    """flash-attn 2 with all of its kernels, for a combination that has it."""
    if not isinstance(combination.flash_attn, FlashAttnFact):
        return None
    whole = Selection(
        combination.kernels or combination.flash_attn.able(combination.cuda.version) or (80,)
    )
    return FlashAttn(
        version=combination.flash_attn.version,
        archs=whole.archs,
        head_dims=whole.head_dims,
        dtypes=whole.dtypes,
        features=whole.features,
    )


def own_name(combination: Combination, kernels: FlashAttn) -> str:
    """The file name of the wheel that imagegen's own recipe makes for a combination."""
    build = combination.torch.build_for(combination.index)
    abi = build.abi if build else True
    local = selection(kernels).local_version(
        minor(combination.torch.version), minor(combination.index), abi
    )
    cp = f"cp{combination.python.version.major}{combination.python.version.minor}"
    return f"flash_attn-{kernels.version}+{local}-{cp}-{combination.python.tag}-linux_{combination.host}.whl"


def cpu_hours(kernels: FlashAttn) -> float:
    """CPU-hours that compiling takes. An estimate from measured files: see ``foretold``."""
    return foretold(selection(kernels), 1)[0]


def sourced(
    combination: Combination,
    kernels: FlashAttn,
    policy: Policy,
    pins: Mapping[str, Pinned],
    store: str = "",
    *,
    held: bool | None = None,
    no_source: bool = False,
) -> Sourced:
    """Where flash-attn 2 comes from for a combination.

    ``pins`` are the published wheels whose hash is known, by name. ``held`` is what ``store`` says
    of the wheel, None where it was not asked.
    """
    steps: list[Step] = [_from_store(own_name(combination, kernels), store, held, policy)]
    wheel = None
    for place in PUBLISHED:
        why, found = _published(combination, kernels, place, policy, pins)
        taken = found is not None and not any(step.taken for step in steps)
        if found and not taken:
            why = "not needed"
        wheel = found if taken else wheel
        steps.append(Step(place=place, taken=taken, why=why))
    steps.append(
        _from_source(combination, kernels, policy, done=any(s.taken for s in steps), no=no_source)
    )
    return Sourced(steps=tuple(steps), wheel=wheel)


def _from_store(name: str, store: str, held: bool | None, policy: Policy) -> Step:
    if policy.source == "required":
        return Step(place="store", taken=False, why=COMPILED)
    if held:
        return Step(place="store", taken=True, why=f"{name} from {store}")
    if held is None:
        return Step(place="store", taken=False, why="none is named (--wheels LOCATION)")
    return Step(place="store", taken=False, why=f"{store} has no {name}")


def unfit(combination: Combination, kernels: FlashAttn, origin: Origin, policy: Policy) -> str:
    """Why no build would take somebody else's wheel, whatever its hash; empty where one would."""
    if policy.source == "required":
        return COMPILED
    if origin == "third-party" and not policy.third_party:
        return "third parties are not allowed (third_party = true in the matrix allows them)"
    chosen, theirs = selection(kernels), of_origin(combination, origin)
    if chosen != Selection(chosen.archs):
        return "the target selects kernels, and published wheels have all of them"
    found = judged(theirs)
    if grave := [r for r in found.reasons if r.severity != "warn" and r.code != "third-party"]:
        return grave[0].text
    if set(theirs.kernels) != set(kernels.archs):
        archs = ", ".join(map(str, theirs.kernels))
        return f"it has code for architectures {archs}, which are not the target's"
    return ""


def _published(
    combination: Combination,
    kernels: FlashAttn,
    origin: Origin,
    policy: Policy,
    pins: Mapping[str, Pinned],
) -> tuple[str, Pinned | None]:
    """Why somebody else's wheel is passed over, or the wheel."""
    release = combination.flash_attn
    assert isinstance(release, FlashAttnFact)
    if why := unfit(combination, kernels, origin, policy):
        return why, None
    name = wheel_name(release, of_origin(combination, origin))
    if name not in pins:
        how = f"imagegen wheel fetch TARGET --from {origin}"
        return f"no hash of {name} is recorded ({how} records one)", None
    return name, pins[name]


def _from_source(
    combination: Combination, kernels: FlashAttn, policy: Policy, *, done: bool, no: bool
) -> Step:
    release = combination.flash_attn
    if done:
        return Step(place="source", taken=False, why="not needed")
    if isinstance(release, FlashAttnFact) and release.kernel_files != len(KERNELS):
        text = (
            f"the recipe knows the {len(KERNELS)} kernel files of 2.8, and {release.version} has "
        )
        return Step(place="source", taken=False, why=text + f"{release.kernel_files}")
    if policy.source == "forbidden" or no:
        whose = "--no-source" if no else 'the matrix (source = "forbidden")'
        return Step(place="source", taken=False, why=f"{whose} forbids it")
    chosen = selection(kernels)
    archs = f"{len(chosen.archs)} architecture{'s' * (len(chosen.archs) > 1)}"
    text = (
        f"{len(chosen.kernels)} kernel files for {archs}, about {cpu_hours(kernels):.1f} CPU-hours"
    )
    return Step(place="source", taken=True, why=text)


__all__ = ["Pinned", "Policy", "Sourced", "Step", "cpu_hours", "own_name", "selection", "sourced"]
