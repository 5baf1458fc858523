"""Target -> Recipe -> Image: where each piece comes from, and the key of it all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from packaging.version import Version

from imagegen import __version__
from imagegen.errors import FactsError, StaleFiles
from imagegen.facts import FlashAttnPackageFact
from imagegen.matrix import Workspace
from imagegen.model import (
    COMPRESSION_LEVEL,
    Compression,
    FlashAttn,
    Image,
    Target,
    cuda_word,
    minor,
)
from imagegen.resolve import Candidate, Resolution
from imagegen.sourcing import Pinned, Sourced, sourced

TOOLKIT_EXTRAS = "nvcc,nvvm,crt,cudart,cccl,curand"
"""All of them must be named: ``nvcc`` alone brings the newest nvvm and crt, which do not fit; and
curand, whose header extensions include, torch 2.15 no longer asks for."""

ASKED = "requirements.in"
"""The file of a lock that holds what was asked for, so that a package added later is noticed."""

PARTS = ("tools", "nvcc", "cuda", "torch", "build", "apps")
"""The files of a lock, one for each install step of a Dockerfile."""

PACKAGE = "flash_attn_4"
"""The file of a lock for FlashAttention-4 and what it asks for: only where a target has it."""

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


def for_the_torch(target: Target) -> tuple[str, ...]:
    """torch and its partner, exactly."""
    return (f"torch=={target.torch}", f"torchvision=={target.torchvision}")


def asked(target: Target) -> tuple[str, ...]:
    """What a lock for the target is asked for."""
    return (*for_the_torch(target), *sorted(target.packages))


def lock_name(torch: Version, cuda: Version, python: Version) -> str:
    """The folder of a lock: ``torch2.11.0-cu130-py3.11``."""
    return f"torch{torch}-{cuda_word(cuda)}-py{minor(python)}"


def lockable(it: Candidate) -> bool:
    """Whether the plain PyPI wheel is the right CUDA build, so that PyPI alone can lock it."""
    return it.torch.pypi_cuda == it.index and it.host in it.torch.pypi_hosts


def lock_of(it: Candidate) -> str:
    """The folder of its lock, which may not be there."""
    return lock_name(it.torch.version, it.cuda.version, it.python.version)


def package(it: Candidate) -> str:
    """What its lock is asked for in the part ``PACKAGE``; empty for nothing."""
    found = it.flash_attn
    if isinstance(found, FlashAttnPackageFact) and found.on_pypi and lockable(it):
        return found.requirement(it.index)
    return ""


def packages(resolution: Resolution) -> dict[str, str]:
    """The folder of each lock that has a part ``PACKAGE`` -> what that is asked for.

    Raises:
        FactsError: two targets of one lock ask for different releases.
    """
    found: dict[str, str] = {}
    for it in resolution.combinations:
        if (wanted := package(it)) and found.setdefault(lock_of(it), wanted) != wanted:
            raise FactsError(f"{lock_of(it)}: one lock holds {wanted} or {found[lock_of(it)]}")
    return found


def unlocked(it: Candidate, workspace: Workspace) -> tuple[str, ...]:
    """What of the target is named by version or tag only: base, torch, flash_attn, or nothing."""
    base, own = it.base or it.os, (workspace.locks / lock_of(it)).is_dir()
    by_version = {
        "base": not base.digest,
        "torch": not own,
        "flash_attn": _flash_attn_from(it, own=own) in ("pypi", "index"),
    }
    return tuple(what for what, is_so in by_version.items() if is_so)


def _flash_attn_from(
    it: Candidate, *, own: bool
) -> Literal["source", "lock", "pypi", "index", "nowhere"]:
    if not isinstance(it.flash_attn, FlashAttnPackageFact):
        return "source" if it.flash_attn else "nowhere"
    if not it.flash_attn.on_pypi:
        return "index"
    return "lock" if own else "pypi"


def _why_unlocked(it: Candidate, what: str) -> str:
    if what == "base":
        return "no digest of it is named by two public files, and no registry was asked"
    if what == "flash_attn" and isinstance(it.flash_attn, FlashAttnPackageFact):
        name = f"{it.flash_attn.name} {it.flash_attn.version}"
        if not it.flash_attn.on_pypi:
            return f"{name} is on PyTorch's own index, and not on PyPI"
        return f"{name} is locked together with torch only"
    if lockable(it) or it.torch.assumed:
        return "there is no lock of it here; imagegen lock makes one of what is on PyPI"
    return (
        f"torch {it.torch.version} for CUDA {it.index} is on PyTorch's own index, and not on PyPI"
    )


def recipe(it: Candidate, resolution: Resolution, workspace: Workspace) -> Recipe:
    """Where each piece of the target comes from."""
    target = it.target(resolution.packages)
    name, base = lock_of(it), it.base or it.os
    own = (workspace.locks / name).is_dir()
    flash_attn_from = _flash_attn_from(it, own=own)
    tools_lock = _tools_lock(target, resolution, workspace)
    where = _published(it, target, workspace)
    return Recipe(
        target=target,
        from_tag=base.tag,
        from_digest=base.digest,
        from_witnesses=base.witnesses,
        nvcc="wheels" if it.from_wheels else "base" if it.kind == "devel" else "apt",
        # The floor that minor-version compatibility really has, not the image's own minor, which
        # keeps GeForce cards with an older driver of the same major from starting at all.
        require_cuda=f"cuda>={target.cuda.major}.0",
        lock=name if own else "",
        tools_lock=tools_lock,
        torch_backend=cuda_word(target.cuda),
        flash_attn_sha256=getattr(it.flash_attn, "sha256", ""),
        flash_attn_from=flash_attn_from,
        flash_attn_wheel=where.wheel if where else None,
        no_source=where is not None and where.taken is None,
        apt=tuple(package for package in APT if package not in it.os.lacks),
        locked=_locked(workspace.locks, name if own else "", tools_lock, flash_attn_from),
        unlocked={what: _why_unlocked(it, what) for what in unlocked(it, workspace)},
    )


def _published(it: Candidate, target: Target, workspace: Workspace) -> Sourced | None:
    """Where flash-attn 2 comes from when no store is asked; None without it."""
    if not isinstance(target.flash_attn, FlashAttn) or it.selection is None:
        return None
    return sourced(it, target.flash_attn, it.selection.policy, workspace.pins)


def _locked(locks: Path, own: str, tools: str, flash_attn: str) -> dict[str, tuple[str, str]]:
    """Install step -> its lock file and that file's sha256; the target's own lock where it is.

    Raises:
        StaleFiles: the lock has no part for FlashAttention-4.
    """
    steps = [part for part in PARTS if own or part in ("tools", "build", "apps")]
    if flash_attn != "source":
        steps.remove("build")
    if flash_attn == "lock":
        steps.append(PACKAGE)
    files = {part: locks / (own or tools) / f"{part}.txt" for part in steps}
    if flash_attn == "lock" and not files[PACKAGE].is_file():
        raise StaleFiles(f"{files[PACKAGE]}: missing", hint="imagegen lock")
    return {part: (f"locks/{own or tools}/{part}.txt", _sha256(f)) for part, f in files.items()}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _tools_lock(target: Target, resolution: Resolution, workspace: Workspace) -> str:
    """The lock of the target, or else of the newest torch for the same Python.

    Raises:
        FactsError: there is none. StaleFiles: it was made for other packages.
    """
    same = [it for it in resolution.combinations if it.python.version == target.python]
    same.sort(key=lambda it: (it.torch.version == target.torch, it.torch.version), reverse=True)
    again = (
        f"imagegen lock --matrix {workspace.folder / 'matrix.toml'} '*py{minor(target.python)}*'"
    )
    for it in same:
        name = lock_name(it.torch.version, it.cuda.version, it.python.version)
        if (file := workspace.locks / name / ASKED).is_file():
            missing = set(target.packages) ^ set(file.read_text().split("\n")[2:-1])
            if missing:
                raise StaleFiles(
                    f"{file} and the matrix differ in {', '.join(sorted(missing))}", hint=again
                )
            return name
    raise FactsError(
        f"{target.id}: no lock for Python {minor(target.python)} in {workspace.locks}; one torch "
        "of that Python must be on PyPI (--excluded shows which are left out)",
        hint=again,
    )


def image(
    recipe: Recipe,
    rendered: Mapping[str, str],
    workspace: Workspace,
    *,
    compression: Compression = "zstd",
    revision: str = "",
    base_override: str = "",
    base_digest: str = "",
    given: str = "",
    notes: tuple[str, ...] = (),
) -> Image:
    """The image that the rendered files build.

    ``revision`` is the commit that it is built from, which is a label and not in the key;
    ``base_override`` a local image to stand on instead of ``recipe.base``, with its digest;
    ``given`` the sha256 of a flash-attn wheel from a store; ``notes`` are for who watches a build.
    """
    digest = hashlib.sha256()
    for name, text in sorted(rendered.items()):
        digest.update(f"{name}\0{text}\0".encode())
    for name, blob in sorted(_copied(recipe, workspace).items()):
        digest.update(f"{name}\0".encode() + blob + b"\0")
    digest.update(base_digest.encode() + given.encode())
    labels = _labels(recipe, base_override or recipe.base, base_digest or recipe.from_digest)
    # Settings that change bytes; not the version and the revision, or every commit made every
    # image anew.
    settings = [labels, compression, COMPRESSION_LEVEL[compression]]
    digest.update(json.dumps(settings, sort_keys=True).encode())
    key = digest.hexdigest()
    labels |= {
        "imagegen.key": key,
        "imagegen.version": __version__,
        "org.opencontainers.image.revision": revision,
    }
    return Image(
        target=recipe.target,
        base=recipe.base,
        base_override=base_override,
        compression=compression,
        labels={name: value for name, value in labels.items() if value},
        key=key,
        given=given,
        notes=notes,
    )


def _labels(recipe: Recipe, base: str, base_digest: str) -> dict[str, str]:
    """What an image says of what is inside."""
    target = recipe.target
    return {
        "org.opencontainers.image.title": target.id,
        "org.opencontainers.image.version": target.tag,
        "org.opencontainers.image.base.name": base,
        "org.opencontainers.image.base.digest": base_digest,
        "imagegen.locked": str(bool(recipe.lock)).lower(),
        "imagegen.lock": _lock_label(recipe),
        "imagegen.unverified": "; ".join(target.unverified),
        "imagegen.target": json.dumps(target.promise, sort_keys=True),
    }


def _lock_label(recipe: Recipe) -> str:
    """Which lock the image was installed from, and the hash of all of its parts."""
    parts = "".join(f"{name} {sha256}\n" for name, sha256 in sorted(recipe.locked.values()))
    where = recipe.lock or recipe.tools_lock
    return f"{where} sha256:{hashlib.sha256(parts.encode()).hexdigest()}"


def context_image() -> Path:
    """The folder of the ``image`` build context: what imagegen puts into every image."""
    return Path(str(resources.files("imagegen"))) / "image"


def _copied(recipe: Recipe, workspace: Workspace) -> dict[str, bytes]:
    """The files that the Dockerfile reads besides itself: name -> content."""
    found = dict(_tree(resources.files("imagegen") / "image", "image"))
    files = [file for file, _ in recipe.locked.values()]
    return found | {file: (workspace.folder / file).read_bytes() for file in files}


def _tree(node: Traversable, name: str) -> dict[str, bytes]:
    if node.is_file():
        # COPY keeps the mode: whether it can be run is a part of it.
        runs = isinstance(node, Path) and bool(node.stat().st_mode & 0o111)
        return {f"{name}*" if runs else name: node.read_bytes()}
    if node.name == "__pycache__" or fnmatch(node.name, ".*_cache"):  # as .dockerignore has it
        return {}
    parts = [_tree(child, f"{name}/{child.name}") for child in node.iterdir()]
    return {key: value for part in parts for key, value in part.items()}
