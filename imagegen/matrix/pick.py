"""The best target of a project for a machine, and why it is better than the next one."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from packaging.version import Version

from imagegen.compat.facts.rows import GpuFact, exact
from imagegen.compat.rules.reason import Reason
from imagegen.compat.solver import COST, Found
from imagegen.errors import ImpossibleCombination
from imagegen.matrix.config import Kernels
from imagegen.matrix.resolve import Candidate, for_machine, lockable
from imagegen.model.target import Python, driver_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What images must run on: every one of its cards, each once, and its driver."""

    gpus: tuple[GpuFact, ...]
    driver: Version | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """A target on a machine, with what the rules say of it there (of its worst card)."""

    candidate: Candidate
    found: Found

    @property
    def notes(self) -> tuple[Reason, ...]:
        """What the rules say of its use on that machine: building it is over by then."""
        return tuple(
            reason for reason in self.found.reasons if reason.stage in ("import", "start", "run")
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Picked:
    """The best target, the one after it, and the first thing that the best one is better in."""

    best: Fit
    next: Fit | None
    because: str
    fitting: int

    @property
    def against(self) -> Reason | None:
        """What speaks against the next one and not against the best; None where nothing does."""
        if self.next is None or _cost(self.best.notes) == _cost(self.next.notes):
            return None
        return _more(self.best, self.next)


Key = Callable[[Fit], object]
CRITERIA: tuple[tuple[Key, Callable[[Fit, Fit], str]], ...] = (
    (
        lambda fit: -_cost(fit.notes),
        lambda one, two: f"of that one is to be known: {_more(one, two).text}",
    ),
    (
        lambda fit: _kernels(fit.candidate.selection),
        lambda _one, _two: "it holds more of flash-attn's kernels",
    ),
    (
        lambda fit: fit.candidate.torch.version,
        lambda one, two: (
            f"its torch is newer: {one.candidate.torch.version}, not {two.candidate.torch.version}"
        ),
    ),
    (
        lambda fit: lockable(fit.candidate),
        lambda _one, _two: "its torch is on PyPI, and so pinned by hash",
    ),
    (
        lambda fit: fit.candidate.cuda.version.release[:2],
        lambda one, two: (
            f"its CUDA is newer: {one.candidate.cuda.version}, not {two.candidate.cuda.version}"
        ),
    ),
    (
        lambda fit: fit.candidate.os.os,
        lambda one, two: (
            f"its distribution is newer: {one.candidate.os.os.name}, not {two.candidate.os.os.name}"
        ),
    ),
    (
        lambda fit: fit.candidate.kind == "slim",
        lambda _one, _two: "it is smaller: one copy of the CUDA libraries",
    ),
)
"""What makes a target better, the most important first, and how that is said of two."""


def fitting(candidates: Sequence[Candidate], machine: Machine) -> list[Fit]:
    """The targets that work on the machine, the best one first."""
    fits = [_fit(candidate, machine) for candidate in candidates]
    return sorted((fit for fit in fits if fit.found.fine), key=_rank, reverse=True)


def pick(
    candidates: Sequence[Candidate],
    machine: Machine,
    *,
    python: Python | None = None,
    torch: Version | None = None,
) -> Picked:
    """The best target for the machine, with that Python and torch if there are any wishes.

    Raises:
        ImpossibleCombination: none works there; with the reasons of the one that comes closest.
    """
    wanted = [
        candidate
        for candidate in candidates
        if (python is None or candidate.python == python)
        and (torch is None or exact(candidate.torch.version, torch))
    ]
    limits = f" with Python {python}" if python else ""
    limits += f" with torch {torch}" if torch else ""
    if not wanted:
        raise ImpossibleCombination(f"no target{limits} in this project", hint="imagegen list")
    fits = fitting(wanted, machine)
    if not fits:
        closest = min((_fit(candidate, machine) for candidate in wanted), key=_how_far)
        reasons = "\n".join(f"  {r.code}: {r.text}" for r in closest.found.reasons)
        raise ImpossibleCombination(
            f"no target{limits} works on {_named(machine)}. The closest, {closest.candidate.id}:\n"
            + reasons,
            hint=f"what would: {_question(machine)}",
        )
    best, second = fits[0], fits[1] if len(fits) > 1 else None
    because = "no other target works there"
    if second:
        because = "only its id comes first"
        for key, words in CRITERIA:
            if key(best) != key(second):
                because = words(best, second)
                break
    return Picked(best=best, next=second, because=because, fitting=len(fits))


def _kernels(selection: Kernels | None) -> int:
    """How much of flash-attn an image holds, to compare."""
    return len(selection.head_dims) * len(selection.dtypes) if selection else 0


def _fit(candidate: Candidate, machine: Machine) -> Fit:
    found = [
        for_machine(candidate, {"gpu": gpu, "driver": machine.driver})
        for gpu in machine.gpus or (None,)
    ]
    worst = max(found, key=lambda one: _cost(one.reasons))
    return Fit(candidate=candidate, found=worst)


def _cost(reasons: Iterable[Reason]) -> int:
    return sum(COST[reason.severity] for reason in reasons)


def _how_far(fit: Fit) -> tuple[object, ...]:
    """How far a target is from working; of several the one that asks for the oldest driver."""
    return _cost(fit.found.reasons), fit.candidate.cuda.driver_floor


def _rank(fit: Fit) -> tuple[object, ...]:
    return tuple(key(fit) for key, _ in CRITERIA)


def _question(machine: Machine) -> str:
    words = [f"--gpu {shlex.quote(gpu.name)}" for gpu in machine.gpus[:1]]
    words += [f"--driver {driver_text(machine.driver)}"] if machine.driver else []
    return " ".join(["imagegen why", *words])


def _more(one: Fit, two: Fit) -> Reason:
    """What speaks against the second and not against the first."""
    known = {reason.code for reason in one.notes}
    return next((reason for reason in two.notes if reason.code not in known), two.notes[0])


def _named(machine: Machine) -> str:
    cards = " and ".join(gpu.name for gpu in machine.gpus) or "any card"
    return f"{cards} with driver {driver_text(machine.driver)}" if machine.driver else cards
