"""The whole way on one machine: engine, base, build, test, a registry, push, templates."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.build import bake, base, images
from imagegen.build.options import Options
from imagegen.doctor import fix, probe
from imagegen.errors import UsageError
from imagegen.matrix.project import Project
from imagegen.matrix.resolve import Candidate
from imagegen.model.image import Image
from imagegen.model.pushed import Pushed
from imagegen.model.report import Tested
from imagegen.platforms import PLATFORMS, needed
from imagegen.platforms.spec import Wish
from imagegen.util import files

if TYPE_CHECKING:
    from imagegen.engine.docker import Docker

log = logging.getLogger(__name__)


REPOSITORY = "imagegen/finetune"
"""In the demo's own registry."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """What the demo made: seconds by step, the pushed image, its local name, and its template for
    each platform.
    """

    steps: tuple[tuple[str, float, str], ...]
    pushed: Pushed
    templates: Mapping[str, object]
    ref: str
    undo: tuple[str, ...]


def demo_target(project: Project, os_release: str) -> Candidate:
    """The demo target of this machine's distribution.

    Raises:
        UsageError: the matrix has none for it.
    """
    here, _ = base.host_os(os_release)
    demos = {
        row.os.os.name: row for row in project.resolution.combinations if row.profile == "demo"
    }
    if here not in demos:
        raise UsageError(
            f"the demo makes its base from this machine's packages, and has none for {here}",
            hint=f"it runs on {', '.join(demos)}; imagegen build works wherever an engine is",
        )
    return demos[here]


def demo(project: Project, options: Options) -> Demo:
    """From a bare machine to a tested image in a registry, every step said."""
    steps: list[tuple[str, float, str]] = []

    @contextlib.contextmanager
    def step(name: str) -> Iterator[list[str]]:
        log.info(f"=== {name}")
        start, why = time.monotonic(), list[str]()
        yield why
        steps.append((name, time.monotonic() - start, " ".join(why)))

    target = demo_target(project, Path("/etc/os-release").read_text())
    os_ = target.os.os
    with step("engine") as why:
        undo, did = _engine()
        why.append("installed or started" if did else "an engine already runs")
    from imagegen.commands.test import tried
    from imagegen.engine.docker import Docker
    from imagegen.publish.local_registry import server

    with contextlib.closing(Docker.connect()) as engine:
        with step("base image") as why:
            had = base.known_digest(os_, files.cache())
            made = base.bootstrap(os_, files.cache(), fresh=options.fresh_base)
            engine.load(made.archive, made.reference, made.digest)
            why.append("the same as before" if had == made.digest else "new")
        with step("build") as why:
            options = replace(options, base="bootstrap", fresh_base=False)
            (built,), _ = images.build(engine, images.plan(project, [target.id], options), options)
            why.append(built.cached)
        with step("test") as why:
            result = tried(engine, built, options)
            tested = Tested(built=built, report=result.report, needed=needed())
            why.append(result.cached)
        with step("push") as why:
            pushed = _pushed(engine, made, tested, options)
            why.append("" if pushed.sent else "already pushed: the registry has this digest")
    left = (*_left(built.image, server.image(made), made.reference), *undo)
    templates = {
        name: platform.template(pushed, project.facts, Wish())
        for name, platform in PLATFORMS.items()
    }
    return Demo(
        steps=tuple(steps), pushed=pushed, templates=templates, ref=built.image.ref, undo=left
    )


def _pushed(engine: Docker, made: base.Base, tested: Tested, options: Options) -> Pushed:
    """The image in a registry of this machine, which is started if it does not run."""
    from imagegen.commands.push import attestations_of, delivered
    from imagegen.publish import push
    from imagegen.publish.local_registry import server

    host = server.start(engine, made, options.network)
    sbom, provenance = attestations_of(engine, tested)
    upload = push.Upload(
        tested=tested, repository=f"{host}/{REPOSITORY}", sbom=sbom, provenance=provenance
    )
    done = push.push(engine, [upload], ca=options.network.ca)
    delivered(done)
    return done.pushed[0]


def _engine() -> tuple[tuple[str, ...], bool]:
    """Install and start what is missing; returns the lines that undo it, and whether any was."""
    for finding in probe.examine():
        log.info(f"{'ok' if finding.ok else 'missing':8}{finding.name}: {finding.detail}")
    fixed = fix.fix()
    for line in fixed.undo:
        log.info(f"to undo this: {line}")
    return remembered(files.cache() / "undo", fixed.undo), bool(fixed.did)


def _left(image: Image, *others: str) -> tuple[str, ...]:
    """The lines that remove what the demo leaves in the engine and on the disk."""
    from imagegen.publish.local_registry import server

    names = " ".join((image.ref, bake.attested(image), *others))
    return (
        f"docker rm --force --volumes {server.NAME}; docker volume rm {server.NAME}",
        f"docker rmi --force {names}",  # a push takes the second away
        "docker builder prune",
        f"rm -r {files.cache()}",
    )


def remembered(file: Path, undo: tuple[str, ...]) -> tuple[str, ...]:
    """The lines that undo what this run or an earlier one installed; kept in ``file``."""
    if undo:
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text() if file.exists() else ""
        file.write_text("".join(f"{line}\n" for line in undo) + before)
    return tuple(file.read_text().splitlines()) if file.exists() else ()
