"""Facts x axes -> targets. Every combination that is not a target has a reason."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from packaging.version import Version

from imagegen.errors import FactsError, NothingSelected
from imagegen.facts import BaseFact, CudaFact, Facts, FlashAttnFact, OsFact, TorchFact
from imagegen.matrix import Exclude, Kernels, Matrix
from imagegen.model import FlashAttn, Kind, LeftOut, Target, minor

CUDA_13 = Version("13")


@dataclass(frozen=True, kw_only=True, slots=True)
class Combination:
    """One value on each axis, with the facts about each."""

    os: OsFact
    cuda: CudaFact
    torch: TorchFact
    profile: str
    kind: Kind
    kernels: Kernels
    flash_attn: FlashAttnFact

    @property
    def id(self) -> str:
        """The id of its target."""
        return self.target().id

    @property
    def wheels(self) -> bool:
        """Whether nvcc comes from wheels: only those of CUDA 13 and later hold one."""
        return self.kind == "slim" and self.cuda.version >= CUDA_13

    @property
    def base(self) -> BaseFact | None:
        """The nvidia/cuda image that it stands on; None with wheels, or where there is none."""
        rows = [b for b in self.cuda.base if (b.os, b.kind) == (self.os.os.name, self.kind)]
        return None if self.wheels else next(iter(rows), None)

    @property
    def archs(self) -> tuple[int, ...]:
        """The architectures that flash-attn is compiled for: those asked for, else all that can."""
        able = (a for a, oldest in self.flash_attn.archs.items() if self.cuda.version >= oldest)
        return self.kernels.archs or tuple(sorted(able))

    def target(self, packages: tuple[str, ...] = ()) -> Target:
        """The target, every version exact."""
        pinned = self.torch.toolkit if self.wheels else None
        return Target(
            os=self.os.os,
            cuda=pinned or self.cuda.version,
            torch=self.torch.version,
            python=self.os.python,
            profile=self.profile,
            kind=self.kind,
            flash_attn=FlashAttn(
                version=self.kernels.version,
                archs=self.archs,
                head_dims=self.kernels.head_dims,
                dtypes=self.kernels.dtypes,
                features=self.kernels.features,
            ),
            torchvision=self.torch.torchvision,
            packages=packages,
        )


Reason = tuple[str, str]
"""Why a combination is not a target, and where that is known from."""


def torch_is_built_for_the_cuda(it: Combination) -> Reason | None:
    """A PyTorch wheel has one CUDA; an extension compiled by another major does not load."""
    if minor(it.cuda.version) in map(minor, it.torch.cuda):
        return None
    known = ", ".join(map(minor, it.torch.cuda))
    text = f"torch {it.torch.version} has no build for CUDA {minor(it.cuda.version)} (has {known})"
    return text, it.torch.source


def torch_has_the_python(it: Combination) -> Reason | None:
    """The distribution's own Python must be among torch's wheels."""
    if it.os.python in it.torch.pythons:
        return None
    return f"torch {it.torch.version} has no wheel for Python {it.os.python}", it.torch.source


def the_base_exists(it: Combination) -> Reason | None:
    """An image that does not take CUDA from wheels stands on an nvidia/cuda image."""
    if it.wheels or it.base:
        return None
    text = f"no nvidia/cuda base image known for CUDA {it.cuda.version}, {it.kind}, {it.os.os.name}"
    return text, it.cuda.source


def nvcc_takes_the_compiler(it: Combination) -> Reason | None:
    """nvcc refuses a host compiler newer than the one it was released with."""
    if it.os.gcc <= it.cuda.gcc_max:
        return None
    text = f"nvcc {minor(it.cuda.version)} takes gcc up to {it.cuda.gcc_max}, not {it.os.gcc}"
    return text, it.cuda.source


def nvcc_takes_the_libc(it: Combination) -> Reason | None:
    """nvcc's math headers clash with those of a newer glibc."""
    if it.os.glibc <= it.cuda.glibc_max:
        return None
    limit = it.cuda.glibc_max
    text = f"nvcc {minor(it.cuda.version)} compiles with glibc up to {limit}, not {it.os.glibc}"
    return text, it.cuda.source


def nvcc_knows_the_architectures(it: Combination) -> Reason | None:
    """flash-attn's setup.py drops an architecture that nvcc is too old for without a word."""
    for arch in it.archs:
        oldest = it.flash_attn.archs.get(arch)
        if oldest is None:
            known = ", ".join(map(str, it.flash_attn.archs))
            text = f"flash-attn {it.kernels.version} has no architecture {arch} (has {known})"
            return text, it.flash_attn.source
        if it.cuda.version < oldest:
            text = f"architecture {arch} needs CUDA {oldest}, not {minor(it.cuda.version)}"
            return text, it.flash_attn.source
    return None


RULES: tuple[Callable[[Combination], Reason | None], ...] = (
    torch_is_built_for_the_cuda,
    torch_has_the_python,
    the_base_exists,
    nvcc_takes_the_compiler,
    nvcc_takes_the_libc,
    nvcc_knows_the_architectures,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolution:
    """The matrix's targets, sorted, each with the facts it stands on; and what was left out."""

    combinations: tuple[Combination, ...]
    packages: tuple[str, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def targets(self) -> tuple[Target, ...]:
        """What this workspace builds."""
        return tuple(it.target(self.packages) for it in self.combinations)

    def select(self, patterns: Iterable[str]) -> tuple[Combination, ...]:
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


def resolve(facts: Facts, matrix: Matrix) -> Resolution:
    """Cross the axes of every block and let the rules and then the exclusions decide.

    Raises:
        FactsError: two blocks give the same target.
    """
    found: dict[str, Combination] = {}
    left_out: dict[str, LeftOut] = {}
    for it in sorted(_crossed(facts, matrix), key=lambda it: it.target()):
        if it.id in found:
            raise FactsError(f"matrix.toml: {it.id} is declared by two build blocks")
        impossible = next(filter(None, (rule(it) for rule in RULES)), None)
        reason = impossible or _excluded(it, matrix.exclude)
        if reason:
            left_out[it.id] = LeftOut(id=it.id, reason=reason[0], source=reason[1])
        else:
            found[it.id] = it
    return Resolution(
        combinations=tuple(found.values()),
        packages=matrix.packages,
        left_out=tuple(left_out.values()),
    )


def _crossed(facts: Facts, matrix: Matrix) -> Iterator[Combination]:
    for block in matrix.build:
        for os_name, cuda, torch, name in product(block.os, block.cuda, block.torch, block.profile):
            profile = matrix.profile[name]
            kernels = matrix.flash_attn[profile.flash_attn]
            os, toolkit, release, flash_attn = (
                facts.os_named(os_name),
                facts.cuda_minor(cuda),
                facts.torch_minor(torch),
                facts.flash_attn_version(kernels.version),
            )
            assert os and toolkit and release and flash_attn  # matrix.load checked every name
            yield Combination(
                os=os,
                cuda=toolkit,
                torch=release,
                profile=name,
                kind=profile.kind,
                kernels=kernels,
                flash_attn=flash_attn,
            )


def _excluded(it: Combination, excludes: Iterable[Exclude]) -> Reason | None:
    for row in excludes:
        axes = (
            (row.os, it.os.os.name),
            (tuple(map(minor, row.cuda)), minor(it.cuda.version)),
            (tuple(map(minor, row.torch)), minor(it.torch.version)),
            (row.profile, it.profile),
        )
        if all(not values or value in values for values, value in axes):
            return row.reason, "matrix.toml"
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
