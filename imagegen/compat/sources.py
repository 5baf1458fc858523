"""Where flash-attn 2 comes from: a store, its makers' wheel, somebody else's, or the source.

The places are asked in this order. Each says why it is not the one that is taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from imagegen.compat.facts.rows import FlashAttnFact, ThirdPartyWheel, Wheel
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
from imagegen.model.target import FlashAttn, Origin, Python, cuda_word, minor

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
    """What a project allows. ``source``: ``required`` takes no wheel of others."""

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
        """``official wheel: skipped, it has none for torch 2.11``."""
        return f"{NAMES[self.place]}: {'' if self.taken else 'skipped, '}{self.why}"


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


def selection(flash_attn: FlashAttn) -> Selection:
    """The kernels of a target as the recipe's command line takes them: each once, in one order."""
    return Selection(
        archs=tuple(sorted({*flash_attn.archs})),
        head_dims=tuple(dim for dim in HEAD_DIMS if dim in flash_attn.head_dims),
        dtypes=tuple(dtype for dtype in DTYPES if dtype in flash_attn.dtypes),
        features=tuple(name for name in FEATURES if name in flash_attn.features),
    )


def every_kernel(combination: Combination) -> Selection | None:
    """All kernels of flash-attn 2, for a combination that has it."""
    release = combination.flash_attn
    if not isinstance(release, FlashAttnFact):
        return None
    return Selection(combination.kernels or release.able(combination.cuda.version) or (80,))


def own_name(combination: Combination, kernels: Selection) -> str:
    """The file name of the wheel that imagegen's own recipe makes for a combination."""
    release, build = combination.flash_attn, combination.torch.build_for(combination.index)
    assert release  # whose kernels these are
    local = kernels.local_version(
        minor(combination.torch.version), minor(combination.index), build.abi if build else True
    )
    return f"flash_attn-{release.version}+{local}-{_tags(combination)}-linux_{combination.host}.whl"


def cpu_hours(kernels: Selection) -> float:
    """CPU-hours that compiling takes. An estimate from measured files: see ``foretold``."""
    return foretold(kernels, 1)[0]


def wheel_name(release: FlashAttnFact, combination: Combination) -> str:
    """The file name of the published wheel that the combination takes; empty without one."""
    found, build = combination.wheel, combination.torch.build_for(combination.index)
    if isinstance(found, ThirdPartyWheel):
        local = f"{cuda_word(found.nvcc)}torch{found.torch}"
        return f"flash_attn-{found.version}+{local}-{_tags(combination)}-{found.platform}.whl"
    if isinstance(found, Wheel) and build:
        local = f"{found.tag}torch{found.torch}cxx11abi{str(build.abi).upper()}"
        version = found.named or release.version
        return f"flash_attn-{version}+{local}-{_tags(combination)}-linux_{combination.host}.whl"
    return ""


def _tags(combination: Combination) -> str:
    """The interpreter and the ABI in a wheel's name: ``cp313-cp313t``."""
    return f"{Python(combination.python.version).tag}-{combination.python.tag}"


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


def sourced(
    combination: Combination,
    kernels: Selection,
    policy: Policy,
    pins: Mapping[str, Pinned],
    store: str = "",
    *,
    stored: bool | None = None,
    no_source: bool = False,
) -> Sourced:
    """Where flash-attn 2 comes from for a combination.

    ``pins`` are the published wheels whose hash is known, by name. ``stored`` is whether
    ``store`` has the wheel, None where it was not asked.
    """
    steps: list[Step] = [_from_store(own_name(combination, kernels), store, stored, policy)]
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


def _from_store(name: str, store: str, stored: bool | None, policy: Policy) -> Step:
    if policy.source == "required":
        return Step(place="store", taken=False, why=COMPILED)
    if stored:
        return Step(place="store", taken=True, why=f"{name} from {store}")
    if stored is None:
        return Step(place="store", taken=False, why="none is named (--wheels LOCATION)")
    return Step(place="store", taken=False, why=f"{store} has no {name}")


def unfit(combination: Combination, kernels: Selection, origin: Origin, policy: Policy) -> str:
    """Why no build would take somebody else's wheel, whatever its hash; empty where one would."""
    if policy.source == "required":
        return COMPILED
    if origin == "third-party" and not policy.third_party:
        return "third parties are not allowed (third_party = true in the matrix allows them)"
    theirs = of_origin(combination, origin)
    if kernels != Selection(kernels.archs):
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
    kernels: Selection,
    origin: Origin,
    policy: Policy,
    pins: Mapping[str, Pinned],
) -> tuple[str, Pinned | None]:
    """Why somebody else's wheel is skipped, or the wheel."""
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
    combination: Combination, kernels: Selection, policy: Policy, *, done: bool, no: bool
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
    archs = f"{len(kernels.archs)} architecture{'s' * (len(kernels.archs) > 1)}"
    text = (
        f"{len(kernels.kernels)} kernel files for {archs}, about {cpu_hours(kernels):.1f} CPU-hours"
    )
    return Step(place="source", taken=True, why=text)
