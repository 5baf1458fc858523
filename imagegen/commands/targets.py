"""Questions about combinations and targets: why, pick, list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from imagegen.compat import query, sources
from imagegen.compat.facts import tables
from imagegen.compat.rules.reason import Reason
from imagegen.compat.sources import Step
from imagegen.compat.why import Answer
from imagegen.errors import ImpossibleCombination, NothingSelected, UsageError
from imagegen.matrix import nvidia_smi, pick
from imagegen.matrix.pick import Machine, Picked
from imagegen.matrix.project import Project
from imagegen.matrix.resolve import Candidate, LeftOut
from imagegen.model.target import Python, Target
from imagegen.plan import pins


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedTarget:
    """A target, the warnings about it, the parts of it that have no lock, and its moving tags."""

    target: Target
    reasons: tuple[Reason, ...]
    unlocked: tuple[str, ...]
    aliases: tuple[str, ...]


def best(
    project: Project,
    select: Sequence[str],
    gpu: str,
    driver: str,
    *,
    python: str,
    torch: str,
    here: bool,
) -> Picked:
    """The best target for a machine: the one that is described, or this one.

    Raises:
        UsageError: both or neither is given. ImpossibleCombination: no target works there.
    """
    if here and (gpu or driver):
        raise UsageError("--from-nvidia-smi reads the card and the driver: give it or them")
    if not here and not gpu and not driver:
        raise UsageError(
            "pick needs a machine", hint="--gpu and --driver, or --from-nvidia-smi on it"
        )
    where = nvidia_smi.read(project.facts) if here else described(project.facts, gpu, driver)
    try:
        wanted = Python.parse(python) if python else None
    except ValueError as error:
        raise UsageError(f"--python: {error}") from error
    return pick.pick(
        project.resolution.select(select),
        where,
        python=wanted,
        torch=_version("--torch", torch) if torch else None,
    )


def described(known: tables.Facts, gpu: str, driver: str) -> Machine:
    """The machine that the options describe."""
    cards = (query.card(known, gpu),) if gpu else ()
    return Machine(gpus=cards, driver=query.driver(driver) if driver else None)


def listed(
    project: Project, select: Sequence[str], gpu: str, driver: str
) -> tuple[ListedTarget, ...]:
    """The selected targets; for a machine, those that work there, with the warnings about it.

    Raises:
        ImpossibleCombination: none of them works there.
    """
    chosen = project.resolution.select(select)
    where = described(project.facts, gpu, driver)
    rows = [(one, one.reasons) for one in chosen]
    if gpu or driver:
        fits = {fit.candidate.id: fit.found.reasons for fit in pick.fitting(chosen, where)}
        rows = [(one, fits[one.id]) for one in chosen if one.id in fits]
    if not rows:
        pick.pick(chosen, where)  # raises, with the reasons of the closest
        raise ImpossibleCombination("no target works there")
    return tuple(_listed(project, one, reasons) for one, reasons in rows)


def _listed(project: Project, one: Candidate, reasons: tuple[Reason, ...]) -> ListedTarget:
    return ListedTarget(
        target=one.target(project.resolution.packages),
        reasons=reasons,
        unlocked=pins.unlocked(one, project),
        aliases=tuple(name for name, id_ in project.aliases.items() if id_ == one.id),
    )


def places(answer: Answer, locks: Path, wheels: str, *, ca: str) -> tuple[Step, ...]:
    """Every place that flash-attn 2 with all its kernels could come from, or the one asked for.

    ``locks`` holds the hashes of published wheels that were recorded. The store ``wheels`` is asked
    unless its location is empty.

    Raises:
        WheelError: the store does not answer.
    """
    combination, origin = answer.found.combination, answer.question.origin
    kernels, stored, location = sources.every_kernel(combination), None, ""
    if kernels is None:
        return ()
    if wheels:
        from imagegen.wheels.store import open_store

        store = open_store(wheels, ca=ca)
        stored = bool(store.find(sources.own_name(combination, kernels)))
        location = store.location
    policy = sources.Policy(third_party=origin == "third-party")
    pins_ = sources.pins(locks)
    steps = sources.sourced(combination, kernels, policy, pins_, location, stored=stored).steps
    return tuple(step for step in steps if origin in ("", step.place))


def left_out(project: Project, select: Sequence[str]) -> tuple[LeftOut, ...]:
    """What the matrix crosses and does not build, filtered by globs over ids.

    Raises:
        NothingSelected: a glob matches nothing that is left out.
    """
    rows = project.resolution.left_out
    found = tuple(row for row in rows if not select or row.matches(select))
    if select and not found:
        raise NothingSelected(f"nothing that matches {' '.join(select)} is left out")
    return found


def _version(option: str, word: str) -> Version:
    try:
        return Version(word)
    except InvalidVersion as error:
        raise UsageError(f"{option} {word!r}: not a version") from error
