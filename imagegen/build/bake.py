"""Images -> a bake definition. Pure: the dry twin of a build."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imagegen.model.image import COMPRESSION_LEVEL, Image
from imagegen.model.target import Target
from imagegen.net.settings import Network

WHEEL_STAGE = "wheel"
"""The stage of a Dockerfile that holds flash-attn's wheel, or a shard's objects, only."""

COMPILING_STAGE = "flash-attn"
"""The stage in which that wheel is compiled."""


def name(target: Target) -> str:
    """The target's name in bake, which takes letters, digits, - and _ only."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", target.id)


def hcl(text: str) -> str:
    """Escape a string of a JSON definition: bake reads it as an HCL template."""
    return text.replace("${", "$${").replace("%{", "%%{")


def familiar(reference: str) -> str:
    """A reference as BuildKit spells it when it looks for a named context in its place."""
    return reference.removeprefix("docker.io/").removeprefix("library/")


def environment(texts: Mapping[str, str]) -> dict[str, str]:
    """The variables that carry the texts of secrets, given by id, to the build."""
    return {_variable(secret): text for secret, text in texts.items()}


def _variable(secret: str) -> str:
    return f"IMAGEGEN_SECRET_{secret.upper()}"


def secrets(network: Network, *more: str) -> list[str]:
    """The ``secret`` entries of a bake target; ``more`` are the ids of further texts."""
    found = [f"type=env,id={key},env={_variable(key)}" for key in (*network.secrets, *more)]
    return [*found, hcl(f"type=file,id=ca,src={network.ca}")] if network.ca else found


@dataclass(frozen=True, kw_only=True, slots=True)
class Compiling:
    """How flash-attn is had. ``prebuilt`` are folders with its wheel, or with objects of it, by
    the image's key; ``jobs`` is how many threads of nvcc may run, 0 for as many as cores and
    memory allow: a secret, because a build argument would have everything compiled again.

    ``wheels`` and ``shard`` are for making wheels instead of images: the folder that they go to,
    and the part to compile, ``2/4``, or ``join``: link what ``prebuilt`` holds, and compile
    nothing. ``force`` compiles everything, whatever is known: BuildKit empties the cache for it.
    """

    prebuilt: Mapping[str, Path] = field(default_factory=dict)
    jobs: int = 0
    wheels: Path | None = None
    shard: str = ""
    force: bool = False

    @property
    def secrets(self) -> dict[str, str]:
        """BuildKit secrets by id."""
        return {"jobs": str(self.jobs)} if self.jobs else {}


def document(
    images: Iterable[Image],
    image_context: Path,
    network: Network | None = None,
    compiling: Compiling | None = None,
    *,
    load: bool = False,
    attest: bool = False,
) -> dict[str, object]:
    """The bake definition that builds ``images`` and puts them into the builder's image store.

    Every target names one output, so that the bytes that are tested are the bytes that are
    pushed: zstd layers under the digest that the registry will hold. ``load`` is for a builder
    outside the engine: it sends the image there. ``attest`` is for a second run, which finds
    everything in BuildKit's cache: it makes an index, of the same image and its provenance, under
    another name.
    """
    network, compiling = network or Network(), compiling or Compiling()
    targets = {
        name(image.target): _target(image, image_context, network, compiling)
        | {"output": [_wheels(compiling.wheels) if compiling.wheels else _image(image, load=load)]}
        | (_attested(image) if attest else {})
        for image in images
    }
    return {"group": {"default": {"targets": sorted(targets)}}, "target": targets}


def _image(image: Image, *, load: bool) -> str:
    """The output that is an image in the engine."""
    options = {
        "type": "docker" if load else "image",
        "name": image.ref,
        "compression": image.compression,
        "compression-level": str(COMPRESSION_LEVEL[image.compression]),
        "force-compression": "true",
        "oci-mediatypes": "true",
    }
    if not load:
        options["unpack"] = "true"
    return ",".join(f"{key}={value}" for key, value in options.items())


def attested(image: Image) -> str:
    """The local name of the index that holds an image and its provenance."""
    return f"imagegen/attested:{image.ref.partition(':')[2]}"


def _attested(image: Image) -> dict[str, object]:
    """The same image with BuildKit's provenance, in its fullest form."""
    output = _image(image, load=False).replace(f"name={image.ref}", f"name={attested(image)}")
    return {
        "output": [output.removesuffix(",unpack=true")],
        "attest": ["type=provenance,mode=max"],
    }


def _wheels(folder: Path) -> str:
    """The output that is files in a folder."""
    return hcl(f"type=local,dest={folder}")


def _target(
    image: Image, image_context: Path, network: Network, compiling: Compiling
) -> dict[str, object]:
    contexts = {"image": str(image_context)}
    arguments = {"REGISTRY": network.registry} if network.registry else {}
    if image.base_override:
        base = familiar(f"{network.registry or 'docker.io'}/{image.base}")
        contexts[base] = f"docker-image://{image.base_override}"
    if folder := compiling.prebuilt.get(image.key):
        contexts["given"] = str(folder)
    if compiling.shard:
        arguments["FLASH_ATTN_SHARD"] = compiling.shard
    target: dict[str, object] = {
        "context": hcl(str(image.context)),
        "dockerfile": hcl(f"{image.target.id}/Dockerfile"),
        "contexts": {hcl(key): hcl(value) for key, value in contexts.items()},
        "args": {key: hcl(value) for key, value in arguments.items()},
        "labels": {key: hcl(value) for key, value in image.labels.items()},
        "platforms": ["linux/amd64"],
        "secret": secrets(network, *compiling.secrets),
        "attest": ["type=provenance,disabled=true"],
    }
    uncached = {"no-cache-filter": [COMPILING_STAGE]} if compiling.force else {}
    return target | uncached | ({"target": WHEEL_STAGE} if compiling.wheels else {})
