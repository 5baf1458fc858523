"""Where a target's flash-attn comes from: every place in its order, and why each is passed over.

Own wheel store, the official wheel, a third party's wheel, the source. Nothing is asked over the
network here: what a store said comes as an argument.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imagegen.errors import FactsError
from imagegen.facts import FlashAttnFact
from imagegen.image.wheel.flash_attn_wheel.selection import (
    DTYPES,
    FEATURES,
    HEAD_DIMS,
    KERNELS,
    Selection,
    foretold,
)
from imagegen.model import FlashAttn, Origin, minor
from imagegen.pieces import of_origin, wheel_name
from imagegen.solve import Combination, judged

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


def every_kernel(it: Combination) -> FlashAttn | None:
    """flash-attn 2 with all of its kernels, for a combination that has it."""
    if not isinstance(it.flash_attn, FlashAttnFact):
        return None
    whole = Selection(it.kernels or it.flash_attn.able(it.cuda.version) or (80,))
    return FlashAttn(
        version=it.flash_attn.version,
        archs=whole.archs,
        head_dims=whole.head_dims,
        dtypes=whole.dtypes,
        features=whole.features,
    )


def own_name(it: Combination, kernels: FlashAttn) -> str:
    """The file name of the wheel that imagegen's own recipe makes for a combination."""
    build = it.torch.build_for(it.index)
    abi = build.abi if build else True
    local = selection(kernels).local_version(minor(it.torch.version), minor(it.index), abi)
    cp = f"cp{it.python.version.major}{it.python.version.minor}"
    return f"flash_attn-{kernels.version}+{local}-{cp}-{it.python.tag}-linux_{it.host}.whl"


def cpu_hours(kernels: FlashAttn) -> float:
    """CPU-hours that compiling takes. An estimate from measured files: see ``foretold``."""
    return foretold(selection(kernels), 1)[0]


def sourced(
    it: Combination,
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
    steps: list[Step] = [_from_store(own_name(it, kernels), store, held, policy)]
    wheel = None
    for place in PUBLISHED:
        why, found = _published(it, kernels, place, policy, pins)
        taken = found is not None and not any(step.taken for step in steps)
        if found and not taken:
            why = "not needed"
        wheel = found if taken else wheel
        steps.append(Step(place=place, taken=taken, why=why))
    steps.append(_from_source(it, kernels, policy, done=any(s.taken for s in steps), no=no_source))
    return Sourced(steps=tuple(steps), wheel=wheel)


def _from_store(name: str, store: str, held: bool | None, policy: Policy) -> Step:
    if policy.source == "required":
        return Step(place="store", taken=False, why=COMPILED)
    if held:
        return Step(place="store", taken=True, why=f"{name} from {store}")
    if held is None:
        return Step(place="store", taken=False, why="none is named (--wheels LOCATION)")
    return Step(place="store", taken=False, why=f"{store} has no {name}")


def unfit(it: Combination, kernels: FlashAttn, origin: Origin, policy: Policy) -> str:
    """Why no build would take somebody else's wheel, whatever its hash; empty where one would."""
    if policy.source == "required":
        return COMPILED
    if origin == "third-party" and not policy.third_party:
        return "third parties are not allowed (third_party = true in the matrix allows them)"
    chosen, theirs = selection(kernels), of_origin(it, origin)
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
    it: Combination,
    kernels: FlashAttn,
    origin: Origin,
    policy: Policy,
    pins: Mapping[str, Pinned],
) -> tuple[str, Pinned | None]:
    """Why somebody else's wheel is passed over, or the wheel."""
    release = it.flash_attn
    assert isinstance(release, FlashAttnFact)
    if why := unfit(it, kernels, origin, policy):
        return why, None
    name = wheel_name(release, of_origin(it, origin))
    if name not in pins:
        how = f"imagegen wheel fetch TARGET --from {origin}"
        return f"no hash of {name} is recorded ({how} records one)", None
    return name, pins[name]


def _from_source(
    it: Combination, kernels: FlashAttn, policy: Policy, *, done: bool, no: bool
) -> Step:
    release = it.flash_attn
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
