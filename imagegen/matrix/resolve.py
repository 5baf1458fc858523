"""Facts x axes -> targets. Every combination that is not a target has its reasons."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import product

from packaging.version import Version

from imagegen.compat.facts.rows import BaseFact, CudaFact, FlashAttnPackageFact, OsFact, exact
from imagegen.compat.facts.tables import Facts
from imagegen.compat.rules.reason import Reason, Rule
from imagegen.compat.rules.table import RULES
from imagegen.compat.solver import Combination, Found, best, judged
from imagegen.errors import FactsError, NothingSelected
from imagegen.matrix.config import Axes, Exclude, Kernels, Matrix
from imagegen.model.target import FlashAttn, FlashAttnPackage, Kind, Target, minor

AXES_OF_A_BLOCK = ("os", "cuda", "torch", "profile")


@dataclass(frozen=True, kw_only=True)
class Candidate(Combination):
    """A combination of the matrix: with its profile, its flash-attn kernels, and what the rules
    say of it. ``selection`` is None where it has no flash-attn.
    """

    profile: str
    selection: Kernels | None
    reasons: tuple[Reason, ...]

    @cached_property
    def id(self) -> str:
        """The id of its target."""
        return self.target().id

    def target(self, packages: tuple[str, ...] = ()) -> Target:
        """The target, every version exact."""
        build = self.torch.build_for(self.index)
        return Target(
            os=self.os.os,
            cuda=self.cuda.version,
            torch=self.torch.version,
            python=self.python.version,
            profile=self.profile,
            kind=self.kind,
            flash_attn=self._flash_attn,
            torchvision=self.torch.torchvision,
            packages=packages,
            driver=self.cuda.driver_floor,
            archs=build.archs if build else (),
            unverified=tuple(r.text for r in self.reasons if r.severity == "unverified"),
        )

    @property
    def _flash_attn(self) -> FlashAttn | FlashAttnPackage | None:
        if isinstance(self.flash_attn, FlashAttnPackageFact):
            return FlashAttnPackage(
                generation=self.flash_attn.generation,
                package=self.flash_attn.name,
                version=self.flash_attn.version,
                requirement=self.flash_attn.requirement(self.index),
                gpus=self.flash_attn.gpus,
                trains_on=self.flash_attn.trains_on,
            )
        if self.selection is None:
            return None
        return FlashAttn(
            version=self.selection.version,
            archs=self.kernels,
            head_dims=self.selection.head_dims,
            dtypes=self.selection.dtypes,
            features=self.selection.features,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A combination that the matrix crosses but that is not a target, and every reason.

    ``excluded`` is set where the matrix itself leaves it out.
    """

    candidate: Candidate
    reasons: tuple[Reason, ...]
    excluded: bool

    @property
    def id(self) -> str:
        """The id that its target would have."""
        return self.candidate.id

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
    """The matrix's targets, sorted, each with the facts it stands on; and what was left out.

    ``blocks`` are all combinations as the build blocks cross them, each with its values as written.
    """

    combinations: tuple[Candidate, ...]
    packages: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    blocks: tuple[tuple[tuple[tuple[str, ...], Candidate], ...], ...]

    @property
    def targets(self) -> tuple[Target, ...]:
        """What this project builds."""
        return tuple(candidate.target(self.packages) for candidate in self.combinations)

    def select(self, patterns: Iterable[str]) -> tuple[Candidate, ...]:
        """The combinations whose id matches one of the globs; all of them without any glob.

        Raises:
            NothingSelected: a glob matches nothing; the hint holds the nearest ids.
        """
        patterns = tuple(patterns) or ("*",)
        ids = {candidate.id: candidate for candidate in self.combinations}
        chosen: set[str] = set()
        for pattern in patterns:
            found = fnmatch.filter(ids, pattern)
            if not found:
                raise NothingSelected(
                    f"no target matches {pattern!r}",
                    hint=_near(pattern, ids, self.left_out),
                )
            chosen |= set(found)
        return tuple(candidate for id_, candidate in ids.items() if id_ in chosen)


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
    blocks = tuple(tuple(_crossed(facts, matrix, block, rules)) for block in matrix.build)
    crossed = [candidate for block in blocks for _, candidate in block]
    for candidate in sorted(crossed, key=lambda candidate: candidate.target()):
        if candidate.id in found or candidate.id in left_out:
            raise FactsError(f"matrix.toml: {candidate.id} is declared twice by the build blocks")
        impossible = tuple(r for r in candidate.reasons if r.severity == "impossible")
        wish = _excluded(candidate, matrix.exclude)
        unverified = tuple(
            r for r in candidate.reasons if r.severity == "unverified" and not allow_unknown
        )
        # A fact is told before a wish, and a wish before what nobody knows.
        if reasons := (impossible or ((wish,) if wish else unverified)):
            row = LeftOut(candidate=candidate, reasons=reasons, excluded=reasons == (wish,))
            left_out[row.id] = row
        else:
            found[candidate.id] = candidate
    return Resolution(
        combinations=tuple(found.values()),
        packages=matrix.packages,
        left_out=tuple(left_out.values()),
        blocks=blocks,
    )


def faults(matrix: Matrix, resolution: Resolution) -> Iterator[str]:
    """Values of an axis that can never give a target, each with the rule that forbids it, and
    exclusions that exclude nothing.
    """
    forbidden = {row.id: row.reasons[0] for row in resolution.left_out if not row.excluded}
    impossible = {id_ for id_, reason in forbidden.items() if reason.severity == "impossible"}
    crossed = [candidate for block in resolution.blocks for _, candidate in block]
    possible = [candidate for candidate in crossed if candidate.id not in impossible]
    for i, block in enumerate(resolution.blocks):
        reasons = [forbidden[candidate.id] for _, candidate in block if candidate.id in forbidden]
        if len(reasons) == len(block):
            yield f"build.{i} {_no_target(reasons)}"
            continue
        for at, axis in enumerate(AXES_OF_A_BLOCK):
            for value in dict.fromkeys(axes[at] for axes, _ in block):
                mine = [candidate for axes, candidate in block if axes[at] == value]
                reasons = [forbidden[one.id] for one in mine if one.id in forbidden]
                if len(reasons) == len(mine):
                    yield f"build.{i}.{axis}: {value} {_no_target(reasons)}"
    for i, row in enumerate(matrix.exclude):
        if not any(_excluded(candidate, [row]) for candidate in possible):
            yield f"exclude.{i}: there is nothing to exclude ({row.reason})"


def _no_target(reasons: Sequence[Reason]) -> str:
    codes = ", ".join(sorted({reason.code for reason in reasons}))
    grave = [reason for reason in reasons if reason.severity == "impossible"]
    if len(grave) == len(reasons):
        return f"can never give a target ({codes}): {grave[0].text}"
    first = next(reason for reason in reasons if reason.severity != "impossible")
    return f"gives no target that a fact confirms ({codes}): {first.text}; see --allow-unknown"


def for_machine(candidate: Candidate, machine: dict[str, object]) -> Found:
    """What the rules say of a target on a machine: ``gpu`` and ``driver``, None where unknown."""
    values = {field.name: getattr(candidate, field.name) for field in fields(Combination)}
    return judged(Combination(**(values | machine)))


def _crossed(
    facts: Facts, matrix: Matrix, block: Axes, rules: Sequence[Rule]
) -> Iterator[tuple[tuple[str, ...], Candidate]]:
    """Every combination of a block, with its values as the matrix spells them."""
    for os_name, cuda, torch, name in product(block.os, block.cuda, block.torch, block.profile):
        profile = matrix.profile[name]
        selection = matrix.flash_attn.get(profile.flash_attn)  # none has no table
        os = facts.os_named(os_name)
        assert os  # config.load checked every name
        domains = {
            "host": ("x86_64",),
            "gpu": (None,),
            "driver": (None,),
            "memory": (None,),
            "torch": facts.torch_like(torch),
            "index": (Version(minor(cuda)),),
            "cuda": _pinned_first(facts.cuda_like(cuda), os, profile.kind),
            "flash_attn": facts.flash_attn_like(selection.version) if selection else (None,),
            "origin": ("official",) if selection and selection.generation > 2 else ("source",),
            "os": (os,),
            "python": (os.python,),
            "kind": (profile.kind,),
            "archs": (selection.archs if selection else (),),
        }
        found = best(domains, rules=rules)
        assert found  # no axis is empty: config.load checked every name
        values = {f.name: getattr(found.combination, f.name) for f in fields(Combination)}
        candidate = Candidate(**values, profile=name, selection=selection, reasons=found.reasons)
        yield (os_name, str(cuda), str(torch), name), candidate


def _pinned_first(toolkits: Sequence[CudaFact], os: OsFact, kind: Kind) -> list[CudaFact]:
    """The newest first, but before all others those whose image is known by its digest."""

    def unpinned(row: CudaFact) -> bool:
        base: BaseFact | None = row.base_for(os, kind)
        return base is None or not base.digest

    return sorted(toolkits, key=unpinned)


def _excluded(candidate: Candidate, excludes: Iterable[Exclude]) -> Reason | None:
    for row in excludes:
        if (
            (not row.os or candidate.os.os.name in row.os)
            and (not row.cuda or any(exact(candidate.cuda.version, wanted) for wanted in row.cuda))
            and (
                not row.torch or any(exact(candidate.torch.version, wanted) for wanted in row.torch)
            )
            and (not row.profile or candidate.profile in row.profile)
        ):
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


def lockable(candidate: Candidate) -> bool:
    """Whether the plain PyPI wheel is the right CUDA build, so that PyPI alone can lock it."""
    return (
        candidate.torch.pypi_cuda == candidate.index
        and candidate.host in candidate.torch.pypi_hosts
    )
