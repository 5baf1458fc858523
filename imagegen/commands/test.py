"""An image -> what comes of its checks. A report that passed is kept: the same bytes need not pass
the same checks again.
"""

from __future__ import annotations

import ast
import hashlib
import logging
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
from imagegen.checks.smoke import MODULES, Listed, _inside, inside
from imagegen.commands.published import Connect, _left, _published
from imagegen.errors import UsageError
from imagegen.matrix.project import Project
from imagegen.model.pushed import Pushed
from imagegen.model.report import LEVELS, Asked, Check, Level, Outcome
from imagegen.platforms.vast.template import ONSTART
from imagegen.util.files import replaced

if TYPE_CHECKING:
    from imagegen.engine.docker import Docker


import time
from typing import TYPE_CHECKING

from imagegen.model.image import Built
from imagegen.model.report import Report, document, of, parse

if TYPE_CHECKING:
    from imagegen.engine.docker import Docker

log = logging.getLogger(__name__)


def checked(engine: Docker, built: Built, asked: Asked, folder: Path, *, again: bool) -> Report:
    """The report of a built image: the one that is in ``folder`` for these bytes, or a new one."""
    name, start = built.image.target.id, time.monotonic()
    if not again and (old := kept(folder, built, asked)):
        log.info(f"{name}: {old.cached}")
        return old
    log.info(f"{name}: checking {built.digest[:19]}")
    found = examine(
        engine,
        built.image.ref,
        asked,
        digest=built.digest,
        promise=built.image.target.promise,
        onstart=ONSTART,
    )
    report = Report.of(
        built,
        found,
        time.monotonic() - start,
        asked=asked,
        at=time.time(),
        engine=engine.version,
        suite=version(ONSTART),
    )
    if report.passed:
        keep(folder, report)
    return report


def examined(engine: Docker, refs: Sequence[str], asked: Asked) -> tuple[Outcome, ...]:
    """Images that were not built here, by reference; those that are not here are pulled.

    Raises:
        RegistryError: one cannot be pulled.
    """
    found = []
    for ref, digest in [(ref, engine.pulled(ref)) for ref in refs]:
        start = time.monotonic()
        log.info(f"{ref}: checking {digest[:19]}")
        rows = examine(engine, ref, asked, digest=digest)
        seconds = time.monotonic() - start
        found.append(Outcome(name=ref, digest=digest, checks=rows, seconds=seconds))
    return tuple(found)


def keep(folder: Path, report: Report) -> None:
    """Keep a report that passed."""
    file = folder / f"{_name(report.built)}-{'-'.join(report.asked.levels)}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(file) as new:
        new.write_bytes(document(of(report), report.built.image.target.promise))


def kept(folder: Path, built: Built, asked: Asked) -> Report | None:
    """A passing report of these bytes by these checks, that covers all levels asked for."""
    for file in sorted(folder.glob(f"{_name(built)}-*.json")):
        try:
            old = parse(file.read_bytes())
        except (OSError, ValueError):  # of another version
            continue
        if not {*asked.levels} <= {*old.asked.levels} or not asked.required <= old.asked.required:
            continue
        also = {"smoke"} if "gpu" in asked.levels else set()  # one program brings both
        found = tuple(row for row in old.checks if row.level in {*asked.levels} | also)
        ran = sum(check.status != "skip" for check in found)  # skipped is not passed
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(old.at))
        why = f"already tested: {ran} checks of these bytes on {at} (--again repeats them)"
        return Report.of(
            built,
            found,
            old.seconds,
            why,
            asked=asked,
            at=old.at,
            engine=old.engine,
            suite=old.suite,
        )
    return None


def _name(built: Built) -> str:
    """By the image's bytes and the part of the checks that is not in the image."""
    return f"{built.digest.removeprefix('sha256:')}-{version(ONSTART)}"


def examine(
    engine: Docker,
    ref: str,
    asked: Asked,
    *,
    digest: str = "",
    promise: Mapping[str, object] | None = None,
    onstart: str = "",
) -> tuple[Check, ...]:
    """All checks of the levels on the local image ``ref``, or on its bytes ``digest``.

    ``promise`` is what it is held to; without it, what it says of itself. ``onstart`` is the text
    of the vast.ai template that goes with it, if one does.
    """
    gpus = "gpu" in asked.levels
    found: list[Check] = []
    labels = engine.config(digest or ref)["Config"].get("Labels") or {}
    own = promise is not None or bool(labels.get(LABEL))  # others have no such program
    if own and (gpus or "smoke" in asked.levels):
        found += inside(engine, digest or ref, promise=promise, asked=asked)
    elif "smoke" in asked.levels or asked.levels == ("gpu",):
        detail = "imagegen has not made it: it holds no checks. runpod and vast try any image"
        found.append(Check(name="smoke", status="fail", detail=detail, seconds=0.0))
    settings = contract.Settings(gpus=gpus, claims=promise or {}, onstart=onstart, digest=digest)
    suites = contracts()
    for level in asked.levels:
        if suite := suites.get(level):
            found += contract.run(suite, engine, ref, settings)
    return tuple(_required(check, asked.required) for check in found)


def contracts() -> Mapping[Level, contract.Suite]:
    """The platforms' suites by level."""
    from imagegen.platforms.runpod import contract as runpod
    from imagegen.platforms.vast import contract as vast

    return {"runpod": runpod.SUITE, "vast": vast.SUITE}


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
    return (*sorted(_inside(MODULES), key=lambda row: LEVELS.index(row.level)), *rows)


def version(onstart: str) -> str:
    """Changes with what is asked from outside, by which pods; what is inside is in the image."""
    package = resources.files("imagegen")
    digest = hashlib.sha256(onstart.encode())
    for name in ("checks", "engine", "platforms/runpod", "platforms/vast"):
        for file in sorted((package / name).iterdir(), key=lambda file: file.name):
            if name == "checks" or file.name.startswith(("contract", "container", "launch")):
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


def test(
    project: Project,
    connect: Connect,
    select: Sequence[str],
    options: Options,
) -> tuple[Outcome, ...]:
    """Build and check the selected targets, but for those that are published under their key.

    What is published passed the checks of a push; whoever asks for others, or has other ones, gets
    them run here.
    """
    plain = options.asked == Asked() and not options.again
    suite = version(ONSTART)
    there = _published(project, select, options, suite) if plain else {}
    if not (missing := _left(project, select, there)):
        return tuple(map(_outcome, there.values()))
    tested = images.test(project, connect(), missing, options)
    return (*map(_outcome, there.values()), *tested)


def tested(
    it: Callable[[], Project],
    connect: Connect,
    select: Sequence[str],
    refs: Sequence[str],
    options: Options,
) -> tuple[Outcome, ...]:
    """The outcome for targets, or for images by reference; the matrix is for targets only.

    Raises:
        UsageError: both.
    """
    if select and refs:
        raise UsageError("name targets, or images by --image, not both")
    if not refs:
        return test(it(), connect, select, options)
    return examined(connect(), refs, options.asked)


def _outcome(pushed: Pushed) -> Outcome:
    """The checks that a published image passed."""
    return Outcome(
        name=pushed.target.id,
        digest=pushed.digest,
        checks=pushed.record.checks,
        seconds=pushed.record.seconds,
        cached=pushed.cached,
    )
