"""The values that the unit tests share: the committed matrix, and small ones made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imagegen.matrix import project
from imagegen.model.image import Built, Image, Layer
from imagegen.model.pushed import Pushed
from imagegen.model.report import Check, Report, Result, Status, Tested
from imagegen.model.target import Target
from imagegen.platforms import needed

ROOT = Path(__file__).parents[2]
FILE = ROOT / "dockerfiles/matrix.toml"
PROJECT = project.load(FILE)
FACTS = PROJECT.facts
MATRIX = PROJECT.matrix
RESOLUTION = PROJECT.resolution
DEMO = next(t for t in RESOLUTION.targets if t.profile == "demo")
DIGEST = "sha256:" + "d" * 64
KEY = "0123456789abcdef" * 4
REPOSITORY = "registry.example/me/finetune"


def image(target: Target = DEMO, **changes: Any) -> Image:
    values: dict[str, Any] = {
        "target": target,
        "context": FILE.parent,
        "base": "library/debian:12-slim",
        "base_override": "",
        "labels": {"imagegen.key": KEY},
        "key": KEY,
    }
    return Image(**(values | changes))


def built(target: Target = DEMO, **changes: Any) -> Built:
    values: dict[str, Any] = {
        "image": image(target),
        "digest": DIGEST,
        "unpacked": 7_000_000_000,
        "seconds": 61.25,
        "cached": "",
    }
    return Built(**(values | changes))


def report(*statuses: Status, of: Built | None = None) -> Report:
    checks = tuple(
        Check(
            name=f"check {i}",
            status=status,
            detail=f"detail {i}",
            seconds=0.5,
            guards="a bug",
            level=needed()[i % len(needed())],
        )
        for i, status in enumerate(statuses)
    )
    return Report.of(of or built(), checks, 1.5)


def result(*statuses: Status, of: Built | None = None, cached: str = "") -> Result:
    """What came of the checks of a target that was built here."""
    of = of or built()
    name = of.image.target.id
    return Result(name=name, report=report(*statuses, of=of), built=of, cached=cached)


def as_tested(*statuses: Status, of: Built | None = None) -> Tested:
    return Tested(built=of or built(), report=report(*statuses, of=of), needed=needed())


def pushed(target: Target = DEMO, **changes: Any) -> Pushed:
    digest = changes.get("digest", DIGEST)
    made = report("pass", "skip", "pass", "pass", "pass", of=built(target, digest=digest))
    values: dict[str, Any] = {
        "target": target,
        "key": KEY,
        "report": made,
        "needed": needed(),
        "repository": REPOSITORY,
        "digest": digest,
        "refs": (f"{REPOSITORY}:{target.tag}-{digest[7:19]}", f"{REPOSITORY}:{target.tag}"),
        "sent": True,
        "layers": (
            Layer(digest="sha256:" + "1" * 64, compressed=2_000_000_000, created_by="ADD rootfs"),
            Layer(
                digest="sha256:" + "2" * 64,
                compressed=850_000_000,
                created_by="RUN /bin/sh -c /build/with-network /build/pip-install x # buildkit",
            ),
        ),
        "seconds": 12.5,
    }
    return Pushed(**(values | changes))
