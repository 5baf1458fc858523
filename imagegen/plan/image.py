"""Recipe -> Image: the labels, and the key of it all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from fnmatch import fnmatch
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from imagegen import __version__
from imagegen.matrix.project import Project
from imagegen.model.image import COMPRESSION_LEVEL, Compression, Image, Wheel
from imagegen.plan.recipe import Recipe


def image(
    recipe: Recipe,
    rendered: Mapping[str, str],
    project: Project,
    *,
    compression: Compression = "zstd",
    revision: str = "",
    base_override: str = "",
    base_digest: str = "",
    wheel: Wheel | None = None,
    notes: tuple[str, ...] = (),
) -> Image:
    """The image that the rendered files build.

    ``revision`` is the commit that it is built from, which is a label and not in the key;
    ``base_override`` a local image to stand on instead of ``recipe.base``, with its digest;
    ``wheel`` a flash-attn wheel from a store; ``notes`` are for who watches a build.
    """
    digest = hashlib.sha256()
    for name, text in sorted(rendered.items()):
        digest.update(f"{name}\0{text}\0".encode())
    for name, blob in sorted(_copied(recipe, project).items()):
        digest.update(f"{name}\0".encode() + blob + b"\0")
    digest.update(base_digest.encode() + (wheel.sha256 if wheel else "").encode())
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
        context=project.folder.absolute(),
        base=recipe.base,
        base_override=base_override,
        base_digest=base_digest,
        compression=compression,
        labels={name: value for name, value in labels.items() if value},
        key=key,
        wheel=wheel,
        budget_gb=project.matrix.profile[recipe.target.profile].budget_gb,
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


def _copied(recipe: Recipe, project: Project) -> dict[str, bytes]:
    """The files that the Dockerfile reads besides itself: name -> content."""
    found = dict(_tree(resources.files("imagegen") / "image", "image"))
    files = [file for file, _ in recipe.locked.values()]
    return found | {file: (project.folder / file).read_bytes() for file in files}


def _tree(node: Traversable, name: str) -> dict[str, bytes]:
    if node.is_file():
        # COPY keeps the mode: whether it can be run is a part of it.
        runs = isinstance(node, Path) and bool(node.stat().st_mode & 0o111)
        return {f"{name}*" if runs else name: node.read_bytes()}
    if node.name == "__pycache__" or fnmatch(node.name, ".*_cache"):  # as .dockerignore has it
        return {}
    parts = [_tree(child, f"{name}/{child.name}") for child in node.iterdir()]
    return {key: value for part in parts for key, value in part.items()}
