"""Target -> Recipe -> Image: where each piece comes from, and the key of it all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from packaging.version import Version

from imagegen import __version__
from imagegen.errors import FactsError, StaleFiles
from imagegen.matrix import Workspace
from imagegen.model import Image, Target, cuda_word, minor
from imagegen.resolve import Candidate, Resolution

TOOLKIT_EXTRAS = "nvcc,nvvm,crt,cudart,cccl,curand"
"""All of them must be named: ``nvcc`` alone brings the newest nvvm and crt, which do not fit; and
curand, whose header extensions include, torch 2.15 no longer asks for."""

ASKED = "requirements.in"
"""The file of a lock that holds what was asked for, so that a package added later is noticed."""

PARTS = ("tools", "nvcc", "cuda", "torch", "build", "apps")
"""The files of a lock, one for each install step of a Dockerfile."""

APT = (
    "build-essential",
    "ca-certificates",
    "curl",
    "git",
    "iproute2",
    "less",
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
    "tmux",
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
    has only a version or a tag why.
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


def unlocked(it: Candidate, workspace: Workspace) -> tuple[str, ...]:
    """What of the target is named by version or tag only: ``base``, ``torch``, both or nothing."""
    base = it.base or it.os
    name = lock_name(it.torch.version, it.cuda.version, it.python.version)
    found = ("base",) if not base.digest else ()
    return found if (workspace.locks / name).is_dir() else (*found, "torch")


def _why_unlocked(it: Candidate, what: str) -> str:
    if what == "base":
        return "no digest of it is named by two public files, and no registry was asked"
    if lockable(it) or it.torch.assumed:
        return "there is no lock of it here; imagegen lock makes one of what is on PyPI"
    return (
        f"torch {it.torch.version} for CUDA {it.index} is on PyTorch's own index, and not on PyPI"
    )


def recipe(it: Candidate, resolution: Resolution, workspace: Workspace) -> Recipe:
    """Where each piece of the target comes from."""
    target = it.target(resolution.packages)
    name = lock_name(target.torch, target.cuda, target.python)
    base = it.base or it.os
    return Recipe(
        target=target,
        from_tag=base.tag,
        from_digest=base.digest,
        from_witnesses=base.witnesses,
        nvcc="wheels" if it.from_wheels else "base" if it.kind == "devel" else "apt",
        # The floor that minor-version compatibility really has, not the image's own minor, which
        # keeps GeForce cards with an older driver of the same major from starting at all.
        require_cuda=f"cuda>={target.cuda.major}.0",
        lock=name if (workspace.locks / name).is_dir() else "",
        tools_lock=_tools_lock(target, resolution, workspace),
        torch_backend=cuda_word(target.cuda),
        flash_attn_sha256=it.flash_attn.sha256 if it.flash_attn else "",
        apt=APT,
        locked=_locked(workspace.locks, name, _tools_lock(target, resolution, workspace)),
        unlocked={what: _why_unlocked(it, what) for what in unlocked(it, workspace)},
    )


def _locked(locks: Path, name: str, tools: str) -> dict[str, tuple[str, str]]:
    """Install step -> its lock file and that file's sha256; the target's own lock where it is."""
    own = (locks / name).is_dir()
    steps = PARTS if own else tuple(part for part in PARTS if part in ("tools", "build", "apps"))
    folder = name if own else tools
    return {
        part: (f"locks/{folder}/{part}.txt", _sha256(locks / folder / f"{part}.txt"))
        for part in steps
    }


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
    repository: str = "",
    base_override: str = "",
    base_digest: str = "",
) -> Image:
    """The image that the rendered files build.

    ``base_override`` is a local image to stand on instead of ``recipe.base``, with its digest.
    """
    target = recipe.target
    digest = hashlib.sha256()
    for name, text in sorted(rendered.items()):
        digest.update(f"{name}\0{text}\0".encode())
    for name, blob in sorted(_copied(recipe, workspace).items()):
        digest.update(f"{name}\0".encode() + blob + b"\0")
    digest.update(base_digest.encode())
    key = digest.hexdigest()
    labels = {
        "org.opencontainers.image.title": target.id,
        "org.opencontainers.image.version": target.tag,
        "org.opencontainers.image.base.name": base_override or recipe.base,
        "org.opencontainers.image.base.digest": base_digest or recipe.from_digest,
        "imagegen.key": key,
        "imagegen.version": __version__,
        "imagegen.locked": str(bool(recipe.lock)).lower(),
        "imagegen.unverified": "; ".join(target.unverified),
        "imagegen.target": json.dumps(target.promise, sort_keys=True),
    }
    return Image(
        target=target,
        base=recipe.base,
        base_override=base_override,
        repository=repository or workspace.matrix.publish.repository,
        labels={name: value for name, value in labels.items() if value},
        key=key,
    )


def context_image() -> Path:
    """The folder of the ``image`` build context: what imagegen puts into every image."""
    return Path(str(resources.files("imagegen"))) / "image"


def _copied(recipe: Recipe, workspace: Workspace) -> dict[str, bytes]:
    """The files that the Dockerfile reads besides itself: name -> content."""
    found = dict(_tree(resources.files("imagegen") / "image", "image"))
    for lock in {recipe.lock, recipe.tools_lock} - {""}:
        files = sorted((workspace.locks / lock).glob("*.txt"))
        found |= {f"locks/{lock}/{p.name}": p.read_bytes() for p in files}
    return found


def _tree(node: Traversable, name: str) -> dict[str, bytes]:
    if node.is_file():
        return {name: node.read_bytes()}
    if node.name == "__pycache__":
        return {}
    parts = [_tree(child, f"{name}/{child.name}") for child in node.iterdir()]
    return {key: value for part in parts for key, value in part.items()}
