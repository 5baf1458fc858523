"""The search: from what was asked for to the combination with the least against it.

A question leaves some axes open. ``best`` walks the values of each axis in their order of
preference, and never enters a branch that cannot beat what was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import Any, Literal, NamedTuple

from packaging.version import Version

from imagegen.compat.facts.rows import (
    BaseFact,
    CudaFact,
    FlashAttnFact,
    FlashAttnRelease,
    GpuFact,
    OsFact,
    ThirdPartyWheel,
    TorchFact,
    Wheel,
)
from imagegen.compat.rules.reason import Reason, Rule, from_wheels
from imagegen.compat.rules.table import RULES, axes_of
from imagegen.compat.rules.wheels import archs_in, best_wheel, wheels_of
from imagegen.model.target import Host, Kind, Origin, Python, cuda_word, driver_text

Verdict = Literal["ok", "warn", "unverified", "impossible"]
COST = {"impossible": 1_000_000, "unverified": 1_000, "warn": 2}
"""One reason of a kind weighs more than all of the lighter kinds together."""

LIGHT = {"driver-minor", "container-gate"}
"""These warnings weigh half: a newer driver, or our own Dockerfile, ends them."""

FEW = 32
"""So few combinations are searched at once."""

Domains = Mapping[str, Sequence[Any]]
"""The values of every axis, the preferred ones first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Combination:
    """One value on each axis, with the facts about it.

    ``index`` is the CUDA (major.minor) of the torch build, ``cuda`` the toolkit that brings nvcc;
    ``archs`` are those asked for, empty for all; ``memory`` is the build machine's, in GB.
    """

    host: Host
    gpu: GpuFact | None
    driver: Version | None
    memory: int | None
    torch: TorchFact
    index: Version
    origin: Origin
    flash_attn: FlashAttnRelease | None
    os: OsFact
    python: Python
    cuda: CudaFact
    kind: Kind
    archs: tuple[int, ...]

    @property
    def from_wheels(self) -> bool:
        """Whether nvcc comes from wheels."""
        return from_wheels(self.kind, self.cuda)

    @property
    def base(self) -> BaseFact | None:
        """The nvidia/cuda image that it stands on, None with wheels and where there are none.

        One that no list has is named by the form of NVIDIA's tags.
        """
        if self.from_wheels or self.os.images_from is None:
            return None
        return self.cuda.base_for(self.os, self.kind) or self._unlisted

    @property
    def _unlisted(self) -> BaseFact:
        version, name = self.cuda.version, self.os.os.name
        cudnn = "cudnn" if version >= Version("12.4") else f"cudnn{9 if version.minor == 3 else 8}"
        flavour = f"{cudnn}-devel" if self.kind == "devel" else "base"
        release = f"{version.major}.{version.minor}.{version.micro}"
        return BaseFact(
            tag=f"nvidia/cuda:{release}-{flavour}-{name}",
            digest="",
            cuda=version,
            os=name,
            kind=self.kind,
            source="the form of NVIDIA's tags: a guess",
            checked=self.cuda.checked,
        )

    @property
    def wheel(self) -> Wheel | ThirdPartyWheel | None:
        """flash-attn 2's published wheel, where it comes from one."""
        release = self.flash_attn
        if not isinstance(release, FlashAttnFact):
            return None
        found = wheels_of(release, self.origin, self.torch, self.index, self.python, self.host)
        return best_wheel(release, found, self.index, self.os, self.gpu)

    @property
    def kernels(self) -> tuple[int, ...]:
        """The architectures that flash-attn 2's binary holds, as far as that is known."""
        release, wheel = self.flash_attn, self.wheel
        if not isinstance(release, FlashAttnFact):
            return ()
        if wheel:
            return archs_in(release, wheel)
        return self.archs or release.able(self.cuda.version)

    @property
    def spelled(self) -> dict[str, str]:
        """Every axis as the command line takes its value; ``none`` where there is none."""
        return {
            "os": self.os.os.name,
            "cuda": str(self.cuda.version),
            "torch": str(self.torch.version),
            "index": cuda_word(self.index),
            "python": str(self.python),
            "flash_attn": str(self.flash_attn.version) if self.flash_attn else "none",
            "origin": self.origin if self.flash_attn else "none",
            "host": self.host,
            "gpu": self.gpu.name if self.gpu else "none",
            "driver": driver_text(self.driver) if self.driver else "none",
            "memory": "none" if self.memory is None else str(self.memory),
            "kind": self.kind,
        }


AXES = tuple(field.name for field in fields(Combination))
"""In the order in which open axes are chosen: an earlier one's preference comes first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A combination and everything that the rules say of it, the gravest first."""

    combination: Combination
    reasons: tuple[Reason, ...]

    @property
    def verdict(self) -> Verdict:
        """The gravest of the reasons; ok without any."""
        return self.reasons[0].severity if self.reasons else "ok"

    @property
    def without_kernels(self) -> bool:
        """Whether flash-attn has nothing for the card, so that an image without it might do."""
        return any(reason.code == "flash-attn-gpu" for reason in self.reasons)

    @property
    def fine(self) -> bool:
        """Whether it works, perhaps with a warning."""
        return self.verdict in ("ok", "warn")


def judged(combination: Combination, rules: Iterable[Rule] = RULES) -> Found:
    """The combination with every reason."""
    values = {axis: getattr(combination, axis) for axis in AXES}
    found = [rule(*(values[axis] for axis in axes_of(rule))) for rule in rules]
    return Found(combination=combination, reasons=graded(reason for reason in found if reason))


def graded(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """The gravest first, in the order of the rules."""
    return tuple(sorted(reasons, key=lambda reason: -COST[reason.severity]))


def best(domains: Domains, *, rules: Sequence[Rule] = RULES) -> Found | None:
    """The combination with the least against it; of equals, the one of the preferred values.

    None where an axis is empty.
    """
    if prod(len(domains[axis]) for axis in AXES) <= FEW:
        return _searched(domains, (), rules, limit=1 << 60, enough=0)
    # From the least that it could cost up: a search that is allowed little ends soon.
    for limit in (1, 1_000, 1_000_000, 2_000_000, 3_000_000, 5_000_000, 1 << 60):
        found = _searched(domains, (), rules, limit=limit, enough=0)
        if found:
            return found
    return None


def first_fine(
    domains: Domains, first: Sequence[str], rules: Sequence[Rule] = RULES
) -> Found | None:
    """Of the combinations that work the first of those with the fewest warnings, or None.

    The order of preference of the axes ``first`` comes before that of all others.
    """
    limit = COST["unverified"]
    # Whether there is one at all is soonest known when the many values of these axes come last.
    others = [axis for axis in AXES if axis not in first]
    if _searched(domains, others, rules, limit=limit, enough=limit - 1) is None:
        return None
    for most in (1, 3, 5, limit):
        found = _searched(domains, first, rules, limit=most, enough=most - 1)
        if found:
            return found
    return None


def _searched(
    domains: Domains, first: Sequence[str], rules: Sequence[Rule], *, limit: int, enough: int
) -> Found | None:
    if not all(domains[axis] for axis in AXES):
        return None
    order = sorted(AXES, key=lambda axis: (len(domains[axis]) > 1, axis not in first,
                                           AXES.index(axis)))  # fmt: skip
    search = Search(order, domains, rules, limit=limit, enough=enough)
    search.run()
    return judged(Combination(**search.winner), rules) if search.winner else None


class _Waiting(NamedTuple):
    """A rule, its axes, the depth at which the last of these is chosen, and all but that one."""

    rule: Rule
    names: tuple[str, ...]
    last: int
    others: list[str]


Priced = list[tuple[Any, int]]
"""The values of an axis that are still worth a look, with what each costs so far."""


class Search:
    """Depth first, with the cost of what is still open as a lower bound.

    A rule of which all axes but one are chosen prices every value of that one; a value that costs
    too much alone is dropped. The least of each open axis, summed, is what a branch costs at least.
    """

    def __init__(
        self,
        order: Sequence[str],
        domains: Domains,
        rules: Iterable[Rule],
        *,
        limit: int,
        enough: int,
    ) -> None:
        """Look for what costs less than ``limit``; one of ``enough`` or less ends the search."""
        self.order, self.enough = order, enough
        self.whole: list[Priced] = [[(value, 0) for value in domains[axis]] for axis in order]
        self.chosen: dict[str, Any] = {}
        self.least, self.winner = limit, dict[str, Any]()
        self.known: dict[tuple[object, ...], dict[int, int]] = {}
        self.alone: list[_Waiting] = []
        self.ripe: list[list[_Waiting]] = [[] for _ in order]
        for rule in rules:
            names = axes_of(rule)
            *_, before, last = -1, *sorted(order.index(name) for name in names)
            waiting = _Waiting(rule, names, last, [n for n in names if n != order[last]])
            (self.alone if before < 0 else self.ripe[before]).append(waiting)

    def run(self) -> None:
        """Find the winner."""
        open_ = self.whole.copy()
        if self._price(self.alone, open_, 0):
            self._walk(0, 0, open_)

    def _walk(self, depth: int, cost: int, open_: list[Priced]) -> bool:
        if depth == len(self.order):
            self.least, self.winner = cost, dict(self.chosen)
            return cost <= self.enough
        for value, price in open_[depth]:
            here = cost + price
            if here >= self.least:
                continue
            self.chosen[self.order[depth]] = value
            after = open_.copy()
            if not self._price(self.ripe[depth], after, here):
                continue
            bound = here + sum(min(price for _, price in one) for one in after[depth + 1 :])
            if bound < self.least and self._walk(depth + 1, here, after):
                return True
        return False

    def _price(self, rules: Iterable[_Waiting], open_: list[Priced], cost: int) -> bool:
        """Add what these rules say of every value of the axis that they still wait for.

        False where an axis has no value left that could beat what was found.
        """
        for one in rules:
            # Every value lives as long as the domains, so that its id is its own.
            key = (one.rule, *[id(self.chosen[name]) for name in one.others])
            known = self.known.setdefault(key, {})
            most = self.least - cost
            kept = []
            for value, price in open_[one.last]:
                more = known.get(id(value))
                if more is None:
                    more = known[id(value)] = self._cost(one, value)
                if price + more < most:
                    kept.append((value, price + more))
            open_[one.last] = kept
            if not kept:
                return False
        return True

    def _cost(self, one: _Waiting, value: object) -> int:
        values = self.chosen | {self.order[one.last]: value}
        reason = one.rule(*[values[name] for name in one.names])
        return price_of(reason) if reason else 0


def price_of(reason: Reason) -> int:
    """What a reason costs. A piece that does not exist weighs more, because it hides what else is
    wrong with what it would have been combined with.
    """
    if reason.code in LIGHT:
        return COST[reason.severity] // 2
    return COST[reason.severity] * (4 if reason.missing else 1)
