"""Target -> Recipe: where each piece of an image comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from imagegen.compat.sources import Pinned, Sourced, selection, sourced
from imagegen.matrix.project import Project
from imagegen.matrix.resolve import Candidate
from imagegen.model.target import FlashAttn, Target, cuda_word
from imagegen.plan import pins

APT = (
    "build-essential",
    "ca-certificates",
    "cron",
    "curl",
    "git",
    "iproute2",
    "less",
    "nano",
    "ninja-build",
    "openssh-client",
    "openssh-server",
    "openssh-sftp-server",
    "procps",
    "python3",
    "python3-dev",
    "python3-venv",
    "rsync",
    "software-properties-common",
    "tini",
    "tmux",
    "unzip",
    "wget",
)
"""What every image has from the distribution. vast.ai's launch script installs openssh, tmux, rsync
and software-properties-common at boot, and loops forever where it cannot: so they are here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that a Dockerfile says.

    ``lock`` is a folder under locks/, empty where torch is not locked; ``tools_lock`` is the one
    that the tools, flash-attn's build requirements and the applications come from in any case.
    ``locked`` is, for each install step, its file and that file's sha256; ``unlocked`` says of what
    has only a version or a tag why. ``flash_attn_from`` is ``source`` for generation 2; for the
    others the lock, PyPI by version, or PyTorch's own index. ``flash_attn_wheel`` is a published
    wheel that takes the source's place; ``no_source`` says that the matrix forbids compiling.
    """

    target: Target
    from_tag: str
    from_digest: str
    from_witnesses: int
    nvcc: Literal["base", "apt", "wheels"]
    require_cuda: str
    lock: str
    tools_lock: str
    torch_backend: str
    flash_attn_sha256: str
    flash_attn_from: Literal["source", "lock", "pypi", "index", "nowhere"]
    flash_attn_wheel: Pinned | None
    no_source: bool
    apt: tuple[str, ...]
    locked: Mapping[str, tuple[str, str]]
    unlocked: Mapping[str, str]

    @property
    def base(self) -> str:
        """The FROM reference without its registry."""
        return self.from_tag + (f"@{self.from_digest}" if self.from_digest else "")


def recipe(candidate: Candidate, project: Project) -> Recipe:
    """Where each piece of the target comes from."""
    target = candidate.target(project.resolution.packages)
    name, base = pins.lock_of(candidate), candidate.base or candidate.os
    own = (project.locks / name).is_dir()
    flash_attn_from = pins.flash_attn_from(candidate, own=own)
    tools_lock = pins.tools_lock(target, project)
    where = _published(candidate, target, project)
    return Recipe(
        target=target,
        from_tag=base.tag,
        from_digest=base.digest,
        from_witnesses=base.witnesses,
        nvcc="wheels" if candidate.from_wheels else "base" if candidate.kind == "devel" else "apt",
        # The floor that minor-version compatibility really has, not the image's own minor, which
        # keeps GeForce cards with an older driver of the same major from starting at all.
        require_cuda=f"cuda>={target.cuda.major}.0",
        lock=name if own else "",
        tools_lock=tools_lock,
        torch_backend=cuda_word(target.cuda),
        flash_attn_sha256=getattr(candidate.flash_attn, "sha256", ""),
        flash_attn_from=flash_attn_from,
        flash_attn_wheel=where.wheel if where else None,
        no_source=where is not None and where.taken is None,
        apt=tuple(package for package in APT if package not in candidate.os.lacks),
        locked=pins.locked(project.locks, name if own else "", tools_lock, flash_attn_from),
        unlocked={
            what: pins.why_unlocked(candidate, what) for what in pins.unlocked(candidate, project)
        },
    )


def _published(candidate: Candidate, target: Target, project: Project) -> Sourced | None:
    """Where flash-attn 2 comes from when no store is asked; None without it."""
    if not isinstance(target.flash_attn, FlashAttn) or candidate.selection is None:
        return None
    kernels = selection(target.flash_attn)
    return sourced(candidate, kernels, candidate.selection.policy, project.pins)
