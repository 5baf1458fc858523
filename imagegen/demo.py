"""The whole way on one machine: engine, base, build, test, a registry, push, templates."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from imagegen import base, doctor, flow
from imagegen.errors import FactsError
from imagegen.model import Pushed, Tested
from imagegen.proc import Say


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """What the demo made: seconds by step, and the pushed image."""

    steps: tuple[tuple[str, float, str], ...]
    pushed: Pushed
    undo: tuple[str, ...]


def demo_target(it: flow.Setup, os_release: str) -> tuple[str, flow.BaseFrom]:
    """The demo target of this machine's distribution; of another, Debian's, its base pulled."""
    here, _ = base.host_os(os_release)
    demos = [row for row in it.resolution.combinations if row.profile == "demo"]
    if not demos:
        raise FactsError("the matrix has no target with the profile demo")
    for row in demos:
        if row.os.os.name == here:
            return row.id, "bootstrap"
    return demos[0].id, "pull"


def demo(it: flow.Setup, options: flow.Options, say: Say) -> Demo:
    """From a bare machine to a tested image in a registry, every step said."""
    steps: list[tuple[str, float, str]] = []

    @contextlib.contextmanager
    def step(name: str) -> Iterator[list[str]]:
        say(f"=== {name}")
        start, why = time.monotonic(), list[str]()
        yield why
        steps.append((name, time.monotonic() - start, " ".join(why)))

    with step("engine") as why:
        fixed = doctor.fix(say)
        why.append("installed or started" if fixed.did else "an engine already runs")
    from imagegen import registry
    from imagegen.engine import Docker

    id_, base_from = demo_target(it, Path("/etc/os-release").read_text())
    engine = Docker.connect()
    with contextlib.closing(engine):
        options = replace(options, base=base_from, repository="")
        with step("base image") as why:
            os_ = next(row.os.os for row in it.resolution.combinations if row.id == id_)
            had = base.known_digest(os_, flow.cache())
            made = base.bootstrap(os_, flow.cache(), say, fresh=options.fresh_base)
            engine.load(made.archive, made.reference, made.digest)
            why.append("reused" if had == made.digest and not options.fresh_base else "made")
            options = replace(options, fresh_base=False)
        with step("build") as why:
            (built,) = flow.build(it, engine, [id_], options, say)
            why.append(built.cached)
        with step("test") as why:
            report = flow.checked(engine, built, options, say)
            tested = Tested(report=report)
            why.append(report.cached)
        with step("push") as why:
            from imagegen import publish

            host = registry.start(engine, made, options.network, say)
            repository = f"{host}/{built.image.repository}"
            pushed = publish.push(engine, tested, repository, say)
            why.append("" if pushed.sent else "already pushed: the registry has this digest")
    return Demo(steps=tuple(steps), pushed=pushed, undo=fixed.undo)
