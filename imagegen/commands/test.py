"""`imagegen test`: images are built, and tried; or anybody's, by reference.

A report that passed is kept: the same bytes need not pass the same checks again.
"""

from __future__ import annotations

import ast
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.build import images
from imagegen.build.options import Options
from imagegen.checks import contract
from imagegen.checks.contract import LABEL
from imagegen.checks.smoke import MODULES, Listed, checks_in, inside
from imagegen.commands import build, published
from imagegen.commands.published import Connect
from imagegen.errors import ChecksFailed, UsageError
from imagegen.matrix.project import Project
from imagegen.model.image import Built
from imagegen.model.report import INSIDE, Asked, Check, Level, Report, Result
from imagegen.platforms import PLATFORMS, needed
from imagegen.util.files import cache, replaced

if TYPE_CHECKING:
    from imagegen.engine.docker import Docker

log = logging.getLogger(__name__)


def tested(
    load: Callable[[], Project],
    connect: Connect,
    select: Sequence[str],
    refs: Sequence[str],
    options: Options,
) -> tuple[Result, ...]:
    """What came of the checks of targets, or of images by reference; ``load`` gives the project,
    which only targets need.

    Raises:
        UsageError: both.
    """
    if select and refs:
        raise UsageError("name targets, or images by --image, not both")
    if refs:
        return by_reference(connect(), refs, options.asked)
    return test(load(), connect, select, options)


def test(
    project: Project, connect: Connect, select: Sequence[str], options: Options
) -> tuple[Result, ...]:
    """Build and check the selected targets, but for those that are published under their key.

    What is published passed the checks of a push; whoever asks for others, or has other ones, gets
    them run here.
    """
    chosen = images.plan(project, select, options)
    asked, usual = levels_of(options.asked), levels_of(Asked())
    plain = not options.again and {*asked.levels} == {*usual.levels} and not asked.required
    pushed = published.reusable(project, chosen, options, version()) if plain else {}
    results = [
        Result(name=name, report=one.report, cached=one.cached) for name, one in pushed.items()
    ]
    if missing := [image for image in chosen if image.target.id not in pushed]:
        engine = connect()
        made, failed = images.build(engine, images.on_bases(project, missing, options), options)
        build.complete(failed, len(missing))
        results += [tried(engine, built, options) for built in made]
    return tuple(results)


def levels_of(asked: Asked) -> Asked:
    """What is asked for, with all levels that need no GPU where none is named."""
    return replace(asked, levels=asked.levels or needed())


def passed(results: Sequence[Result]) -> None:
    """Every image passed.

    Raises:
        ChecksFailed: naming, of all that did not, what failed.
    """
    failed = [one for one in results if not one.report.passed]
    if failed:
        reports = (f"{one.name} did not pass:\n{one.report.failures()}" for one in failed)
        ref = failed[0].built.image.ref if failed[0].built else failed[0].name
        hint = f"for a look: docker run --rm -it {ref} bash"
        raise ChecksFailed("\n".join(reports), hint=hint)


def tried(engine: Docker, built: Built, options: Options) -> Result:
    """What came of the checks of a built image: a report that these bytes already have, or a new
    one, which is kept if it passed.
    """
    name, folder, start = built.image.target.id, cache() / "reports", time.monotonic()
    again, asked = options.again or options.force, levels_of(options.asked)
    if not again and (old := kept(folder, built, asked)):
        log.info(f"{name}: {old.cached}")
        return old
    log.info(f"{name}: checking {built.digest[:19]}")
    checks = examine(
        engine,
        built.image.ref,
        asked,
        digest=built.digest,  # what is pushed later, whatever has that name by then
        promise=built.image.target.promise,
    )
    report = Report.of(
        built,
        checks,
        time.monotonic() - start,
        asked=asked,
        at=time.time(),
        engine=engine.version,
        suite=version(),
    )
    if report.passed:
        keep(folder, built, report)
    return Result(name=name, report=report, built=built)


def by_reference(engine: Docker, refs: Sequence[str], asked: Asked) -> tuple[Result, ...]:
    """What came of the checks of images that were not built here; those that are not here are
    pulled. Where no level is named, they are tried for the platforms: most hold no checks.

    Raises:
        RegistryError: one cannot be pulled.
    """
    results: list[Result] = []
    if not asked.levels:
        asked = replace(asked, levels=tuple(PLATFORMS))
    for ref, digest in [(ref, engine.pulled(ref)) for ref in refs]:
        start = time.monotonic()
        log.info(f"{ref}: checking {digest[:19]}")
        checks = examine(engine, ref, asked, digest=digest)
        seconds = time.monotonic() - start
        report = Report(digest=digest, checks=checks, seconds=seconds, asked=asked, at=time.time())
        results.append(Result(name=ref, report=report))
    return tuple(results)


# --- reports that are kept ------------------------------------------------------------------------


def keep(folder: Path, built: Built, report: Report) -> None:
    """Keep a report that passed."""
    file = folder / f"{_name(built)}-{'-'.join(report.asked.levels)}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(file) as new:
        new.write_bytes(report.document(built.image.target.promise))


def kept(folder: Path, built: Built, asked: Asked) -> Result | None:
    """A passing report of these bytes by these checks, that covers all levels asked for."""
    for file in sorted(folder.glob(f"{_name(built)}-*.json")):
        try:
            old = Report.parse(file.read_bytes())
        except (OSError, ValueError):  # of another version
            continue
        if not old.covers(asked):
            continue
        also = {"smoke"} if "gpu" in asked.levels else set()  # one program brings both
        checks = tuple(row for row in old.checks if row.level in {*asked.levels} | also)
        ran = sum(check.status != "skip" for check in checks)  # skipped is not passed
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(old.at))
        why = f"already tested: {ran} checks of these bytes on {at} (--again repeats them)"
        how = {"asked": asked, "at": old.at, "engine": old.engine, "suite": old.suite}
        report = Report.of(built, checks, old.seconds, **how)
        return Result(name=built.image.target.id, report=report, built=built, cached=why)
    return None


def _name(built: Built) -> str:
    """By the image's bytes and the part of the checks that is not in the image."""
    return f"{built.digest.removeprefix('sha256:')}-{version()}"


# --- the checks of all levels ---------------------------------------------------------------------


def examine(
    engine: Docker,
    ref: str,
    asked: Asked,
    *,
    digest: str = "",
    promise: Mapping[str, object] | None = None,
) -> tuple[Check, ...]:
    """All checks of the levels on the local image ``ref``, or on its bytes ``digest``.

    ``promise`` is what it is held to; without it, what it says of itself.
    """
    gpus = "gpu" in asked.levels
    found: list[Check] = []
    labels = engine.config(digest or ref)["Config"].get("Labels") or {}
    own = promise is not None or bool(labels.get(LABEL))  # others have no such program
    if own and (gpus or "smoke" in asked.levels):
        found += inside(engine, digest or ref, promise=promise, asked=asked)
    elif "smoke" in asked.levels or asked.levels == ("gpu",):
        others = " and ".join(PLATFORMS)
        detail = f"imagegen has not made it: it holds no checks. {others} try any image"
        found.append(Check(name="smoke", status="fail", detail=detail, seconds=0.0))
    settings = contract.Settings(gpus=gpus, promise=promise or {}, digest=digest)
    suites = contracts()
    for level in asked.levels:
        if suite := suites.get(level):
            found += contract.run(suite, engine, ref, settings)
    return tuple(_required(check, asked.required) for check in found)


def contracts() -> Mapping[Level, contract.Suite]:
    """The platforms' suites by level."""
    return {name: platform.contract() for name, platform in PLATFORMS.items()}


def _required(check: Check, required: frozenset[str]) -> Check:
    """A check that was skipped for want of what is required has failed."""
    if check.status != "skip" or check.needs not in required:
        return check
    return replace(check, status="fail", detail=f"skipped: {check.detail}; it is required")


def listed() -> tuple[Listed, ...]:
    """All checks of all levels, in the order in which they run."""
    rows = [
        Listed(suite.level, clause.name, clause.guards)
        for suite in contracts().values()
        for clause in suite.values()
    ]
    return (*sorted(checks_in(MODULES), key=lambda row: INSIDE.index(row.level)), *rows)


def version() -> str:
    """Changes with what is asked from outside, by which pods; what is inside is in the image."""
    package, digest = resources.files("imagegen"), hashlib.sha256()
    for name in ("checks", "engine", *(f"platforms/{name}" for name in PLATFORMS)):
        for file in sorted((package / name).iterdir(), key=lambda file: file.name):
            script = "." not in file.name  # what a pod runs, such as vast.ai's onstart
            if name == "checks" or script or file.name.startswith(("contract", "container")):
                digest.update(_code(file))
    return digest.hexdigest()[:8]


def _code(file: Traversable) -> bytes:
    """What a file does: without its comments, docstrings and lines, where it is Python."""
    if not file.name.endswith(".py"):
        return file.read_bytes() if file.is_file() else b""
    return ast.dump(_Bare().visit(ast.parse(file.read_text()))).encode()


class _Bare(ast.NodeTransformer):
    """Takes docstrings away."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) else node
