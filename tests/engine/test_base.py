"""Bases from the distribution's own packages."""

from __future__ import annotations

from pathlib import Path

from imagegen.build import base
from imagegen.build.base import Base
from imagegen.engine.docker import Docker
from imagegen.matrix.project import Project
from imagegen.model.target import Os


def test_the_same_packages_give_the_same_digest(
    engine: Docker, local_base: Base, project: Project, tmp_path: Path
) -> None:
    os_ = next(row.os for row in project.facts.os if base.reference(row.os) == local_base.reference)
    assert isinstance(os_, Os)
    made = base.bootstrap(os_, tmp_path / "a")
    assert made.archive != local_base.archive
    if made.digest != local_base.digest:  # an older one, kept since before a package was updated
        assert made.digest == base.bootstrap(os_, tmp_path / "b").digest


def test_a_base_is_the_distribution_that_it_says(engine: Docker, local_base: Base) -> None:
    ran = engine.run(
        local_base.reference, ["sh", "-c", ". /etc/os-release; echo $ID$VERSION_ID"], timeout=60
    )
    assert local_base.reference.endswith(f":{ran.out.strip()}")
    assert engine.local(local_base.reference).digest == local_base.digest  # type: ignore[union-attr]
