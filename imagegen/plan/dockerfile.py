"""Recipe -> the text of its files. Pure, but for ``write`` and ``drift``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.model.target import FlashAttnPackage
from imagegen.plan.pins import PACKAGE, TOOLKIT_EXTRAS
from imagegen.plan.recipe import Recipe
from imagegen.util.jinja import environment

if TYPE_CHECKING:
    import jinja2


@cache
def _template() -> jinja2.Template:
    return environment("imagegen.plan", html=False).get_template("Dockerfile.j2")


def files(recipe: Recipe) -> dict[str, str]:
    """The files of one target: path below the project's folder -> text."""
    target = recipe.target
    dockerfile = _template().render(
        recipe=recipe,
        target=target,
        pinned=_pinned(recipe),
        toolkit_extras=TOOLKIT_EXTRAS,
        package_lock=PACKAGE,
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
    return {
        "base": base,
        "flash_attn": _flash_attn(recipe),
        "python": {
            step: {"file": file, "sha256": sha256} for step, (file, sha256) in recipe.locked.items()
        },
        "unlocked": dict(recipe.unlocked),
    }


def _pinned(recipe: Recipe) -> str:
    """Which Python packages are pinned, and how, in words."""
    found = recipe.target.flash_attn
    hashed = [] if recipe.lock else ["flash-attn"] * bool(recipe.flash_attn_sha256)
    versions = [] if recipe.lock else ["torch"]
    if isinstance(found, FlashAttnPackage) and recipe.flash_attn_from != "lock":
        versions.append(found.package)
    hashed.append("Python packages" if recipe.lock else "the applications")
    rows = [f"{' and '.join(versions)} by version"] * bool(versions)
    hashes = f"{' and '.join(hashed)} by hash"
    return ", ".join([hashes, *rows] if recipe.lock else [*rows, hashes])


def _flash_attn(recipe: Recipe) -> dict[str, object] | None:
    """The source of generation 2 by its hash; of another the package, whose hash is in its step."""
    flash_attn = recipe.target.flash_attn
    if isinstance(flash_attn, FlashAttnPackage):
        return flash_attn.promise
    if flash_attn is None:
        return None
    if wheel := recipe.flash_attn_wheel:
        return {"wheel": wheel.name, "url": wheel.url, "sha256": wheel.sha256}
    source = f"flash_attn-{flash_attn.version}.tar.gz"
    return {"source": source, "sha256": recipe.flash_attn_sha256}


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
