"""One question, one answer: whether a combination works, every reason, and what is near.

An axis that the question leaves open means any value: the verdict is that of the best completion,
and where every completion is impossible, its reasons are those of one with the fewest.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from imagegen.compat.facts.files import load
from imagegen.compat.facts.rows import GpuFact
from imagegen.compat.facts.tables import Facts
from imagegen.compat.pieces import Piece, pieces
from imagegen.compat.query import Question, assuming, everything, narrowed, option
from imagegen.compat.rules.driver import the_base_image_starts, the_driver_came_with_the_cuda
from imagegen.compat.rules.flash_attn import GIGABYTES_PER_NVCC
from imagegen.compat.rules.table import RULES
from imagegen.compat.solver import Domains, Found, best, first_fine

MOST = 3
"""How many nearest targets an answer names."""

MACHINE = frozenset({"memory", "driver", "host", "gpu"})
"""The axes that are not the image's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Near:
    """A combination that works; ``changed`` is axis -> (the question's value, the new one)."""

    question: Question
    found: Found
    changed: Mapping[str, tuple[str, str]]

    @property
    def command(self) -> str:
        """The question that has this answer, as one types it."""
        values = {axis: getattr(self.question, axis) for axis in self.question.axes}
        values |= {axis: new for axis, (_, new) in self.changed.items()}
        words = ["imagegen why", *(option(*row) for row in values.items()), self.question.flags]
        return " ".join(filter(None, words))


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The verdict on a question, with the nearest targets that work where it does not."""

    question: Question
    found: Found
    near: tuple[Near, ...]


def asked(
    question: Question, own: Path | None, *, allow_unknown: bool
) -> tuple[Answer, Mapping[str, Piece]]:
    """The answer to a question, and where each piece of the combination would come from."""
    known = load(own)
    flags = [f"--facts {shlex.quote(str(own))}"] if own else []
    flags += ["--allow-unknown"] if allow_unknown else []
    question = replace(question, flags=" ".join(flags))
    found = answer(known, question, allow_unknown=allow_unknown)
    return found, pieces(known, found.found.combination)


def answer(facts: Facts, question: Question, *, allow_unknown: bool = False) -> Answer:
    """Whether what was asked for can work, and why not.

    ``allow_unknown`` takes a version that no fact knows to be like the one before it.

    Raises:
        FactsError: a value is not known, with the nearest that is. UsageError: it has no such form.
    """
    if allow_unknown:
        facts = assuming(facts, question)
    domains = narrowed(facts, question)
    found = _best(domains)
    near = () if found.fine else tuple(_near(facts, question, domains))
    return Answer(question=question, found=found, near=near)


def _best(domains: Domains) -> Found:
    """The best completion. A warning about a driver does not choose an older torch: otherwise an
    RTX 4090 with driver 550 would be answered with CUDA 11.8.
    """
    driver = [the_driver_came_with_the_cuda, the_base_image_starts]
    newest = best(domains, rules=[rule for rule in RULES if rule not in driver])
    assert newest  # no axis is empty: narrowed() raises before
    torch = newest.combination.torch.version.release[:2]
    same = [row for row in domains["torch"] if row.version.release[:2] == torch]
    found = best(dict(domains) | {"torch": same})
    assert found
    return found


def _near(facts: Facts, question: Question, domains: Domains) -> Iterator[Near]:
    """Targets that work, those with the fewest changes first."""
    done: list[set[str]] = []
    axes_ = question.axes
    if not question.flash_attn and not question.origin and _best(domains).without_kernels:
        axes_ = ("flash_attn", *axes_)  # a card without kernels still trains, without flash-attn
    for size in (1, 2, 3):
        for axes in combinations(axes_, size):
            if any(smaller <= set(axes) for smaller in done) or len(MACHINE & set(axes)) > 1:
                continue  # a machine that differs in two ways is just another machine
            found = _changed(facts, question, domains, axes)
            if found:
                done.append(set(axes))
                yield found
                if len(done) == MOST:
                    return


def _changed(
    facts: Facts, question: Question, domains: Domains, axes: Sequence[str]
) -> Near | None:
    """The closest values on these axes with which the rest of the question works."""
    open_ = dict(domains) | {axis: _closest(facts, axis, domains[axis]) for axis in axes}
    if "flash_attn" in axes and not question.flash_attn:
        open_ |= {"flash_attn": (None,), "origin": ("source",)}
    if not all(open_[axis] for axis in axes):
        return None
    found = first_fine(open_, axes)
    if found is None:
        return None
    fixed = {axis: (getattr(found.combination, axis),) for axis in axes}
    polished = best(open_ | fixed) or found
    changed = {
        axis: (getattr(question, axis) or "any", polished.combination.spelled[axis])
        for axis in axes
    }
    return Near(question=question, found=polished, changed=changed)


def _closest(facts: Facts, axis: str, domain: Sequence[Any]) -> Sequence[Any]:
    """Every value of the axis but those asked for, the closest first, the newer one of two."""
    wanted = domain[0]
    if axis == "gpu":
        return _cards(facts, wanted)
    if axis == "driver":
        known = {driver for row in facts.cuda for driver in (row.driver_floor, row.driver)}
        return sorted(driver for driver in known if driver and driver > wanted)
    if axis == "memory":
        return (GIGABYTES_PER_NVCC,)
    values = [value for value in everything(facts)[axis] if value not in domain]
    if axis == "os":
        other = wanted.distribution
        return sorted(values, key=lambda row: (row.distribution != other, row.rank))
    if axis in ("origin", "host") or wanted is None:
        return values
    ladder = sorted({_step(axis, value) for value in (*values, wanted)})
    at = ladder.index(_step(axis, wanted))
    values.sort(key=lambda value: _rungs(ladder.index(_step(axis, value)) - at))
    if axis == "python":  # who asked for the free-threaded build wants no other
        return [python for python in values if python.free_threaded == wanted.free_threaded]
    return values


def _cards(facts: Facts, wanted: GpuFact) -> Sequence[GpuFact]:
    """One card of each kind, those of the closest compute capability first."""
    most = max(wanted.memory, default=0)

    def far(row: GpuFact) -> tuple[object, ...]:
        memory = max(row.memory, default=0)
        kind = (abs(row.capability - wanted.capability), row.brand != wanted.brand)
        return *kind, memory < most, abs(memory - most), row.name

    kinds: dict[tuple[object, ...], GpuFact] = {}
    for row in sorted(facts.gpu, key=far):
        if row != wanted:
            kinds.setdefault((row.capability, row.brand, row.host), row)
    return sorted(kinds.values(), key=far)


def _rungs(up: int) -> tuple[int, bool]:
    return abs(up), up < 0


def _step(axis: str, value: Any) -> Any:
    """What counts as one step on the way to another value: a minor of torch and of CUDA."""
    if axis in ("torch", "cuda"):
        return value.version.release[:2]
    return value.version if axis == "flash_attn" else value
