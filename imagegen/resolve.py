"""Facts x axes -> targets. Every combination that is not a target has its reasons."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import product

from packaging.version import Version

from imagegen.errors import FactsError, NothingSelected
from imagegen.facts import BaseFact, CudaFact, Facts, OsFact
from imagegen.matrix import Axes, Exclude, Kernels, Matrix
from imagegen.model import FlashAttn, Kind, Target, minor
from imagegen.rules import RULES, Reason, Rule
from imagegen.solve import Combination, Found, best, judged


@dataclass(frozen=True, kw_only=True)
class Candidate(Combination):
    """A combination of the matrix: with its profile, its flash-attn kernels, and what is to know
    about it.
    """

    profile: str
    selection: Kernels
    reasons: tuple[Reason, ...]

    @property
    def id(self) -> str:
        """The id of its target."""
        return self.target().id

    def target(self, packages: tuple[str, ...] = ()) -> Target:
        """The target, every version exact."""
        return Target(
            os=self.os.os,
            cuda=self.cuda.version,
            torch=self.torch.version,
            python=self.python.version,
            profile=self.profile,
            kind=self.kind,
            flash_attn=FlashAttn(
                version=self.selection.version,
                archs=self.kernels,
                head_dims=self.selection.head_dims,
                dtypes=self.selection.dtypes,
                features=self.selection.features,
            ),
            torchvision=self.torch.torchvision,
            packages=packages,
            unverified=tuple(r.text for r in self.reasons if r.severity == "unverified"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A combination that the matrix crosses but that is not a target, and every reason.

    ``excluded`` is set where the matrix itself leaves it out; ``axes`` are its values as the matrix
    spells them.
    """

    id: str
    reasons: tuple[Reason, ...]
    excluded: bool
    axes: tuple[str, str, str, str]

    @property
    def reason(self) -> str:
        """The first reason's sentence."""
        return self.reasons[0].text

    @property
    def source(self) -> str:
        """Where that is known from."""
        return self.reasons[0].source

    def matches(self, patterns: Iterable[str]) -> bool:
        """Whether its id matches one of the globs."""
        return any(fnmatch.fnmatchcase(self.id, pattern) for pattern in patterns)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolution:
    """The matrix's targets, sorted, each with the facts it stands on; and what was left out."""

    combinations: tuple[Candidate, ...]
    packages: tuple[str, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def targets(self) -> tuple[Target, ...]:
        """What this workspace builds."""
        return tuple(it.target(self.packages) for it in self.combinations)

    def select(self, patterns: Iterable[str]) -> tuple[Candidate, ...]:
        """The combinations whose id matches one of the globs; all of them without any glob.

        Raises:
            NothingSelected: a glob matches nothing; the hint holds the nearest ids.
        """
        patterns = tuple(patterns) or ("*",)
        ids = {it.id: it for it in self.combinations}
        chosen: set[str] = set()
        for pattern in patterns:
            found = fnmatch.filter(ids, pattern)
            if not found:
                raise NothingSelected(
                    f"no target matches {pattern!r}",
                    hint=_near(pattern, ids, self.left_out),
                )
            chosen |= set(found)
        return tuple(it for id_, it in ids.items() if id_ in chosen)


def resolve(
    facts: Facts, matrix: Matrix, *, allow_unknown: bool = False, rules: Sequence[Rule] = RULES
) -> Resolution:
    """Cross the axes of every block and let the rules and then the exclusions decide.

    What no fact confirms is left out, too, unless ``allow_unknown`` takes it, marked as such.

    Raises:
        FactsError: two blocks give the same target.
    """
    found: dict[str, Candidate] = {}
    left_out: dict[str, LeftOut] = {}
    crossed = list(_crossed(facts, matrix, rules))
    for axes, it in sorted(crossed, key=lambda row: row[1].target()):
        if it.id in found or it.id in left_out:
            raise FactsError(f"matrix.toml: {it.id} is declared by two build blocks")
        impossible = tuple(r for r in it.reasons if r.severity == "impossible")
        wish = _excluded(axes, matrix.exclude)
        unverified = tuple(
            r for r in it.reasons if r.severity == "unverified" and not allow_unknown
        )
        # A fact is told before a wish, and a wish before what nobody knows.
        if reasons := (impossible or ((wish,) if wish else unverified)):
            excluded = reasons == (wish,)
            left_out[it.id] = LeftOut(id=it.id, reasons=reasons, excluded=excluded, axes=axes)
        else:
            found[it.id] = it
    return Resolution(
        combinations=tuple(found.values()),
        packages=matrix.packages,
        left_out=tuple(left_out.values()),
    )


def faults(matrix: Matrix, resolution: Resolution) -> Iterator[str]:
    """Values of an axis that can never give a target, each with the rule that forbids it, and
    exclusions that exclude nothing.
    """
    targets = {it.id for it in resolution.combinations}
    for i, block in enumerate(matrix.build):
        names = {
            "os": block.os,
            "cuda": tuple(map(minor, block.cuda)),
            "torch": tuple(map(minor, block.torch)),
            "profile": block.profile,
        }
        out = [row for row in resolution.left_out if _in(row.axes, block)]
        for at, (axis, values) in enumerate(names.items()):
            for value in values:
                mine = [row for row in out if row.axes[at] == value]
                whole = len(list(product(*names.values()))) // len(values)
                forbidden = [row for row in mine if not row.excluded]
                if len(forbidden) == whole and not targets & {row.id for row in mine}:
                    codes = sorted({r.code for row in forbidden for r in row.reasons[:1]})
                    yield (
                        f"build.{i}.{axis}: {value} can never be a target with the block's other "
                        f"values ({', '.join(codes)}): {forbidden[0].reason}"
                    )
    every = {row.axes for row in resolution.left_out} | {
        _axes(it) for it in resolution.combinations
    }
    for i, row in enumerate(matrix.exclude):
        if not any(_excluded(axes, [row]) for axes in every):
            yield f"exclude.{i}: there is nothing to exclude ({row.reason})"


def for_machine(it: Candidate, machine: dict[str, object]) -> Found:
    """What the rules say of a target on a machine: ``gpu`` and ``driver``, None where unknown."""
    values = {field.name: getattr(it, field.name) for field in fields(Combination)}
    return judged(Combination(**(values | machine)))


def _crossed(
    facts: Facts, matrix: Matrix, rules: Sequence[Rule]
) -> Iterator[tuple[tuple[str, str, str, str], Candidate]]:
    for block in matrix.build:
        for os_name, cuda, torch, name in product(block.os, block.cuda, block.torch, block.profile):
            profile = matrix.profile[name]
            selection = matrix.flash_attn[profile.flash_attn]
            os = facts.os_named(os_name)
            assert os  # matrix.load checked every name
            domains = {
                "host": ("x86_64",),
                "gpu": (None,),
                "driver": (None,),
                "memory": (None,),
                "torch": facts.torch_like(torch),
                "index": (Version(minor(cuda)),),
                "cuda": _pinned_first(facts.cuda_like(cuda), os, profile.kind),
                "flash_attn": facts.flash_attn_like(selection.version),
                "origin": ("source",),
                "os": (os,),
                "python": (os.python,),
                "kind": (profile.kind,),
                "archs": (selection.archs,),
            }
            found = best(domains, rules=rules)
            assert found  # no axis is empty: matrix.load checked every name
            values = {f.name: getattr(found.combination, f.name) for f in fields(Combination)}
            it = Candidate(**values, profile=name, selection=selection, reasons=found.reasons)
            yield (os_name, minor(cuda), minor(torch), name), it


def _pinned_first(toolkits: Sequence[CudaFact], os: OsFact, kind: Kind) -> list[CudaFact]:
    """The newest first, but before all others those whose image is known by its digest."""

    def unpinned(row: CudaFact) -> bool:
        base: BaseFact | None = row.base_for(os, kind)
        return base is None or not base.digest

    return sorted(toolkits, key=unpinned)


def _axes(it: Candidate) -> tuple[str, str, str, str]:
    return it.os.os.name, minor(it.cuda.version), minor(it.torch.version), it.profile


def _in(axes: tuple[str, str, str, str], block: Axes) -> bool:
    os, cuda, torch, profile = axes
    return (
        os in block.os
        and cuda in map(minor, block.cuda)
        and torch in map(minor, block.torch)
        and profile in block.profile
    )


def _excluded(axes: tuple[str, str, str, str], excludes: Iterable[Exclude]) -> Reason | None:
    for row in excludes:
        wanted = (row.os, tuple(map(minor, row.cuda)), tuple(map(minor, row.torch)), row.profile)
        if all(not values or value in values for values, value in zip(wanted, axes, strict=True)):
            return Reason(
                code="excluded",
                severity="impossible",
                stage="resolve",
                text=row.reason,
                source="matrix.toml",
            )
    return None


def _near(pattern: str, ids: Iterable[str], left_out: Iterable[LeftOut]) -> str:
    """Why what the glob means is left out, or the ids that look like it."""
    for row in left_out:
        if fnmatch.fnmatch(row.id, pattern):
            return f"{row.id} is left out: {row.reason}"
    ids = list(ids)
    near = fnmatch.filter(ids, f"*{pattern.strip('*')}*")
    near = near or difflib.get_close_matches(pattern, ids, n=3, cutoff=0.5)
    return f"near: {', '.join(near[:3])}" if near else "imagegen list shows every id"
