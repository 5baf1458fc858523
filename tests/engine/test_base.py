"""Bases from the distribution's own packages."""

from __future__ import annotations

from pathlib import Path

from imagegen.build import base
from imagegen.build.base import Base
from imagegen.engine.docker import Docker
from imagegen.model.target import Os


def test_the_same_packages_give_the_same_digest(
    engine: Docker, local_base: Base, setup: object, tmp_path: Path
) -> None:
    os_ = next(row.os for row in setup.facts.os if base.reference(row.os) == local_base.reference)  # type: ignore[attr-defined]
    assert isinstance(os_, Os)
    first = base.bootstrap(os_, tmp_path / "a")
    second = base.bootstrap(os_, tmp_path / "b")
    assert first.digest == second.digest
    engine.load(second.archive, second.reference, second.digest)
    # what later tests stand on
    engine.load(local_base.archive, local_base.reference, local_base.digest)


def test_a_base_is_the_distribution_that_it_says(engine: Docker, local_base: Base) -> None:
    ran = engine.run(
        local_base.reference, ["sh", "-c", ". /etc/os-release; echo $ID$VERSION_ID"], timeout=60
    )
    assert local_base.reference.endswith(f":{ran.out.strip()}")
    assert engine.local(local_base.reference).digest == local_base.digest  # type: ignore[union-attr]
