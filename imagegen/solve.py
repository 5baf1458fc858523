"""The search: from what was asked for to the combination with the least against it.

A question leaves some axes open. ``best`` walks the values of each axis in their order of
preference and applies every rule as soon as the axes that it is about are chosen, so that a branch
that is already worse than what was found is never entered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from packaging.version import Version

from imagegen.facts import BaseFact, CudaFact, FlashAttnFact, GpuFact, OsFact, TorchFact
from imagegen.facts.rows import ThirdPartyWheel, Wheel
from imagegen.model import Host, Kind, Origin, Python
from imagegen.rules import CUDA_13, RULES, Reason, Rule, archs_of, axes_of, wheel_of

Verdict = Literal["ok", "warn", "unverified", "impossible"]
COST = {"impossible": 1_000_000, "unverified": 1_000, "warn": 1}
"""One reason of a kind weighs more than all of the lighter kinds together."""

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
    flash_attn: FlashAttnFact | None
    origin: Origin
    torch: TorchFact
    index: Version
    python: Python
    cuda: CudaFact
    os: OsFact
    kind: Kind
    archs: tuple[int, ...]

    @property
    def from_wheels(self) -> bool:
        """Whether nvcc comes from wheels: only those of CUDA 13 and later hold one."""
        return self.kind == "slim" and self.cuda.version >= CUDA_13

    @property
    def base(self) -> BaseFact | None:
        """The nvidia/cuda image that it stands on; None with wheels, or where none is known."""
        return None if self.from_wheels else self.cuda.base_for(self.os, self.kind)

    @property
    def wheel(self) -> Wheel | ThirdPartyWheel | None:
        """flash-attn's published wheel, where it comes from one."""
        if self.flash_attn is None:
            return None
        return wheel_of(
            self.flash_attn, self.origin, self.torch, self.index, self.python, self.host
        )

    @property
    def kernels(self) -> tuple[int, ...]:
        """The architectures that flash-attn's binary holds."""
        if self.flash_attn is None:
            return ()
        return archs_of(self.flash_attn, self.origin, self.cuda, self.archs, self.wheel)


AXES = tuple(field.name for field in fields(Combination))


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
    def fine(self) -> bool:
        """Whether it works, perhaps with something to know."""
        return self.verdict in ("ok", "warn")


def judged(it: Combination, rules: Iterable[Rule] = RULES) -> Found:
    """The combination with every reason."""
    values = {axis: getattr(it, axis) for axis in AXES}
    found = [rule(*(values[axis] for axis in axes_of(rule))) for rule in rules]
    return Found(combination=it, reasons=graded(reason for reason in found if reason))


def graded(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """The gravest first, in the order of the rules."""
    return tuple(sorted(reasons, key=lambda reason: -COST[reason.severity]))


def best(
    domains: Domains,
    *,
    first: Sequence[str] = (),
    enough: int = 0,
    rules: Sequence[Rule] = RULES,
) -> Found | None:
    """The combination with the least against it; of equals, the one of the preferred values.

    ``first`` are the axes whose order of preference comes before that of all others. The search
    ends at once at a combination whose cost is at most ``enough``. None where an axis is empty.
    """
    order = sorted(AXES, key=lambda axis: (len(domains[axis]) > 1, axis not in first,
                                           len(domains[axis]), AXES.index(axis)))  # fmt: skip
    plan = _plan(order, rules)
    values: dict[str, Any] = {}
    least, winner = 1 << 60, None

    def walk(depth: int, cost: int, reasons: tuple[Reason, ...]) -> bool:
        nonlocal least, winner
        if depth == len(order):
            least, winner = cost, Found(combination=Combination(**values), reasons=graded(reasons))
            return cost <= enough
        axis = order[depth]
        for value in domains[axis]:
            values[axis] = value
            here, sum_ = reasons, cost
            for rule, names in plan[depth]:
                reason = rule(*(values[name] for name in names))
                if reason:
                    here, sum_ = (*here, reason), sum_ + COST[reason.severity]
                    if sum_ >= least:
                        break
            if sum_ < least and walk(depth + 1, sum_, here):
                return True
        return False

    walk(0, 0, ())
    return winner


def survey(domains: Domains, rules: Sequence[Rule] = RULES) -> dict[Verdict, int]:
    """How many of all combinations have each verdict. Nothing is passed over."""
    order = [*(a for a in AXES if len(domains[a]) == 1), *(a for a in AXES if len(domains[a]) > 1)]
    plan = _plan(order, rules)
    values: dict[str, Any] = {}
    grades: tuple[Verdict, ...] = ("ok", "warn", "unverified", "impossible")
    weight: dict[str, int] = {grade: i for i, grade in enumerate(grades)}
    counts = [0, 0, 0, 0]

    def walk(depth: int, worst: int) -> None:
        axis = order[depth]
        for value in domains[axis]:
            values[axis] = value
            now = worst
            for rule, axes in plan[depth]:
                reason = rule(*[values[name] for name in axes])
                if reason and (grade := weight[reason.severity]) > now:
                    now = grade
            if depth + 1 == len(order):
                counts[now] += 1
            else:
                walk(depth + 1, now)

    walk(0, 0)
    return dict(zip(grades, counts, strict=True))


def _plan(
    order: Sequence[str], rules: Iterable[Rule]
) -> list[list[tuple[Rule, tuple[str, ...]]]]:
    """For each depth the rules whose last axis is chosen there."""
    plan: list[list[tuple[Rule, tuple[str, ...]]]] = [[] for _ in order]
    for rule in rules:
        names = axes_of(rule)
        plan[max(order.index(name) for name in names)].append((rule, names))
    return plan
