"""A reason, and the words that reasons are written in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from packaging.version import Version

from imagegen.compat.facts.rows import CudaFact, Fact
from imagegen.model.target import Kind

Severity = Literal["impossible", "unverified", "warn"]

Stage = Literal["resolve", "compile", "import", "start", "run"]


CUDA_13 = Version("13")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """Why a combination does not work, may not, or works with a warning."""

    code: str
    severity: Severity
    stage: Stage
    text: str
    source: str
    missing: bool = False
    """Whether a piece does not exist at all, which hides what else would be wrong with it."""


Rule = Callable[..., Reason | None]


def from_wheels(kind: Kind, cuda: CudaFact) -> bool:
    """Whether nvcc comes from wheels: only those of CUDA 13 and later hold one."""
    return kind == "slim" and cuda.version >= CUDA_13


def impossible(code: str, stage: Stage, text: str, fact: Fact | str) -> Reason:
    """It cannot work. Of a version that nobody knows nothing is impossible."""
    if isinstance(fact, Fact) and fact.assumed:
        return unverified(code, stage, text, f"a guess: taken to be like {fact.assumed}")
    return Reason(code=code, severity="impossible", stage=stage, text=text, source=where(fact))


def missing(code: str, stage: Stage, text: str, fact: Fact | str) -> Reason:
    """It cannot work, because a piece of it does not exist."""
    found = impossible(code, stage, text, fact)
    return replace(found, missing=found.severity == "impossible")


def unverified(code: str, stage: Stage, text: str, fact: Fact | str) -> Reason:
    """No fact says whether it works."""
    return Reason(code=code, severity="unverified", stage=stage, text=text, source=where(fact))


def warn(code: str, stage: Stage, text: str, fact: Fact | str) -> Reason:
    """It works, but something should be known."""
    return Reason(code=code, severity="warn", stage=stage, text=text, source=where(fact))


def where(fact: Fact | str) -> str:
    """A fact's source, with the day it was read."""
    if isinstance(fact, str):
        return fact
    guess = ", a guess" if getattr(fact, "guess", False) else ""
    return f"{fact.source} ({fact.checked}{guess})"


def words(values: Iterable[object]) -> str:
    """Values as a list in a sentence."""
    return ", ".join(map(str, values)) or "none"


def capability(arch: int) -> str:
    """``8.6`` of 86."""
    return f"{arch // 10}.{arch % 10}"


def older(driver: Version, than: Version) -> bool:
    """Whether a driver is older. What is left open counts as new enough: ``570`` means the newest
    of that branch, and is not older than 570.26.

    >>> older(Version("570"), Version("570.26")), older(Version("570.20"), Version("570.26"))
    (False, True)
    """
    known = min(len(driver.release), len(than.release))
    return driver.release[:known] < than.release[:known]
