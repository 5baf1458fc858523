"""Images of a few megabytes to push, made without a build: that takes an engine a while."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KIND = "application/vnd.oci.image"
LAYERS = (300_000, 700_000, 1_000_000)
"""Bytes of each; noise, which does not compress."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """An OCI archive for ``docker load``, which makes it the image ``digest`` by name ``ref``."""

    path: Path
    ref: str
    key: str
    digest: str


def made(folder: Path, promise: Mapping[str, Any], dice: random.Random) -> Archive:
    """An image that says of itself what imagegen's say, in layers that no other image has."""
    key = dice.randbytes(32).hex()
    ref = f"imagegen-faults/{key[:12]}:1"
    plain = [_tar(dice.randbytes(size)) for size in LAYERS]
    packed = [gzip.compress(layer, compresslevel=1, mtime=0) for layer in plain]
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Labels": {"imagegen.key": key, "imagegen.target": json.dumps(promise)}},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in plain]},
            "history": [{"created_by": f"noise {i}"} for i in range(len(plain))],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{KIND}.manifest.v1+json",
            "config": _descriptor(f"{KIND}.config.v1+json", config),
            "layers": [_descriptor(f"{KIND}.layer.v1.tar+gzip", layer) for layer in packed],
        }
    )
    entry = _descriptor(f"{KIND}.manifest.v1+json", manifest)
    entry["annotations"] = {"io.containerd.image.name": f"docker.io/{ref}"}
    index = _json({"schemaVersion": 2, "manifests": [entry]})
    path = folder / f"{key[:12]}.tar"
    with tarfile.open(path, "w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", index)
        for blob in (config, manifest, *packed):
            _add(tar, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)
    return Archive(path=path, ref=ref, key=key, digest=_digest(manifest))


def _tar(noise: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        _add(tar, hashlib.sha256(noise).hexdigest()[:12], noise)
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, body: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(body)
    tar.addfile(info, io.BytesIO(body))


def _descriptor(media_type: str, body: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(body), "size": len(body)}


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
