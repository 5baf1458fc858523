"""Images put into a registry without an engine: a layer of nothing, real labels, a real report."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial

from imagegen.commands import test
from imagegen.model.image import Built, Image
from imagegen.model.report import Asked, Check, Report
from imagegen.net.registry import MANIFEST, Descriptor, Repository, digest_of
from imagegen.platforms import needed
from imagegen.publish import remote

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"


def put(
    repository: Repository,
    image: Image,
    tags: Sequence[str] = (),
    *,
    created: str = "2026-01-02T03:04:05Z",
    tested: bool = True,
    suite: str = test.version(),
    count: int = 1,
) -> str:
    """Publish an image of ``count`` layers under its own tags and ``tags``; returns its digest."""
    layers = [f"layer {number} of {image.key}".encode() for number in range(count)]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": created,
            "config": {"Labels": dict(image.labels)},
            "history": [{"created_by": "COPY noise /"}] * count,
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
    ).encode()
    for body in (*layers, config):
        repository.send(digest_of(body), partial(bytes, body))
    document = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": [
                {"mediaType": LAYER, "digest": digest_of(layer), "size": len(layer)}
                for layer in layers
            ],
        }
    ).encode()
    digest = digest_of(document)
    for tag in (*remote.tags(image.target, digest), *tags):
        repository.put(tag, document, MANIFEST)
    if tested:
        built = Built(image=image, digest=digest, unpacked=7, seconds=1.0, cached="")
        rows = tuple(
            Check(name=one, status="pass", detail="", seconds=0.1, level=one) for one in needed()
        )
        how = {"engine": "Docker Engine 0", "suite": suite, "asked": Asked(levels=needed())}
        report = Report.of(built, rows, 1.0, at=time.time(), **how)
        subject = Descriptor(digest=digest, size=len(document), media_type=MANIFEST)
        body = report.document(image.target.promise)
        repository.attach(subject, remote.REPORT, body, {})
    return digest
