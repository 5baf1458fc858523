"""Recipe -> the text of its files. Pure, but for ``write`` and ``drift``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.plan import TOOLKIT_EXTRAS, Recipe

if TYPE_CHECKING:
    import jinja2


@cache
def _template() -> jinja2.Template:
    import jinja2  # a tenth of a second that only rendering needs to pay

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("imagegen"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Dockerfiles, not HTML
    )
    return environment.get_template("Dockerfile.j2")


def files(recipe: Recipe) -> dict[str, str]:
    """The files of one target: path below the workspace's folder -> text."""
    target = recipe.target
    dockerfile = _template().render(
        target=target,
        flash_attn=target.flash_attn,
        base=recipe.base,
        from_witnesses=recipe.from_witnesses,
        from_digest=recipe.from_digest,
        nvcc=recipe.nvcc,
        cuda_apt=f"{target.cuda.major}-{target.cuda.minor}",
        lock=recipe.lock,
        unlocked=recipe.unlocked,
        tools_lock=recipe.tools_lock,
        torch_backend=recipe.torch_backend,
        toolkit_extras=TOOLKIT_EXTRAS,
        flash_attn_sha256=recipe.flash_attn_sha256,
        require_cuda=recipe.require_cuda,
        apt=recipe.apt,
    )
    return {
        f"{target.id}/Dockerfile": dockerfile,
        f"{target.id}/target.json": json.dumps(target.promise, indent=2) + "\n",
        f"{target.id}/lock.json": json.dumps(lock(recipe), indent=2) + "\n",
    }


def lock(recipe: Recipe) -> dict[str, object]:
    """Every pin of a target by where it is, and what has none."""
    base: dict[str, object] = {"image": recipe.from_tag}
    if recipe.from_digest:
        seen = f"{recipe.from_witnesses} public files name it; no registry was asked"
        base |= {"digest": recipe.from_digest, "provenance": seen}
    flash_attn = f"flash_attn-{recipe.target.flash_attn.version}.tar.gz"
    return {
        "base": base,
        "flash_attn": {"source": flash_attn, "sha256": recipe.flash_attn_sha256},
        "python": {
            step: {"file": file, "sha256": sha256} for step, (file, sha256) in recipe.locked.items()
        },
        "unlocked": dict(recipe.unlocked),
    }


def write(folder: Path, rendered: Mapping[str, str]) -> list[Path]:
    """Write what differs; returns the paths written."""
    changed = drift(folder, rendered)
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rendered[path.relative_to(folder).as_posix()])
    return changed


def drift(folder: Path, rendered: Mapping[str, str]) -> list[Path]:
    """The files on disk that are missing or say something else."""
    paths = {folder / name: text for name, text in rendered.items()}
    return [p for p, text in paths.items() if not p.is_file() or p.read_text() != text]


def strays(folder: Path, ids: Iterable[str]) -> list[Path]:
    """Folders of Dockerfiles whose target is no longer in the matrix."""
    known = set(ids)
    return sorted(p.parent for p in folder.glob("*/Dockerfile") if p.parent.name not in known)
