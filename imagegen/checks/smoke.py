"""Try an image from inside: the checks that it holds, and those that it should hold."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from imagegen.errors import EngineError
from imagegen.model.report import Asked, Check, Level, Status
from imagegen.util.files import context_image
from imagegen.util.process import Ran

if TYPE_CHECKING:
    from imagegen.engine.docker import Docker

log = logging.getLogger(__name__)


PYTHON = "/opt/venv/bin/python"
SMOKE = (PYTHON, "/opt/imagegen/smoke.py", "--promise", "-")
MODULES = ("cpu", "gpu", "device")
"""The files of the image that hold the checks of smoke.py."""

TIMEOUT = 1800.0
"""Seconds for all checks of one container; inside, each check has a limit of its own."""

STATUS: dict[object, Status] = {"pass": "pass", "fail": "fail", "skip": "skip"}


SMOKE_ONLY = Asked(levels=("smoke",))


def inside(
    engine: Docker,
    ref: str,
    *,
    promise: Mapping[str, object] | None = None,
    asked: Asked = SMOKE_ONLY,
) -> tuple[Check, ...]:
    """The checks that run in the image: nvcc, torch, flash-attn, packages; on a GPU also its own.

    The promise comes from the target, not from the image: an image that lies about itself fails.
    """
    # Through the environment: a container's standard input would need a terminal's protocol.
    script = 'printf %s "${IMAGEGEN_PROMISE-$(</etc/imagegen/target.json)}" | exec "$@"'
    gpu = "gpu" in asked.levels
    argv = ["bash", "-c", script, "smoke", *SMOKE, "--level", "gpu" if gpu else "cpu"]
    argv += ["--require", "gpu"] * ("gpu" in asked.required)
    env = {"IMAGEGEN_PROMISE": json.dumps(promise)} if promise else {}
    found, heard = _listener()
    try:
        ran = engine.run(ref, argv, env=env, on_line=heard, timeout=TIMEOUT, gpus=gpu)
    except EngineError as error:  # no GPU to hand over, no bash in it: other levels may do
        ran = Ran(code=-1, out="", err=f"{error}. {error.hint}")
    return _settled(found, ran)


def _listener() -> tuple[list[Check], Callable[[str], None]]:
    """A list, and what to call with each line of output: JSON lines are checks."""
    found: list[Check] = []

    def heard(line: str) -> None:
        try:
            check = _check(json.loads(line))
        except (ValueError, KeyError, TypeError):
            log.info(line)
            return
        found.append(check)
        log.info(f"{check.status:4} {check.name} ({check.seconds:.1f} s) {check.detail}")

    return found, heard


def _check(row: Mapping[str, Any]) -> Check:
    return Check(
        name=str(row["name"]),
        status=STATUS[row["status"]],
        detail=str(row["detail"]),
        seconds=float(row["seconds"]),
        guards=str(row.get("guards", "")),
        level="gpu" if row.get("level") == "gpu" else "smoke",
    )


def _settled(found: list[Check], ran: Ran, modules: tuple[str, ...] = MODULES) -> tuple[Check, ...]:
    """The checks, and one more that fails where the program did not do all that it has to.

    The program comes out of the image under test. What it has to report is read from imagegen's own
    files, so that an image whose checks were left out or cut short does not pass.
    """
    failed = any(check.status == "fail" for check in found)
    missing = sorted(names(modules) - {check.name for check in found})
    if not missing and (ran.code == 0) != failed:
        return tuple(found)
    lacks = f", without {', '.join(missing)}" if missing and found else ""
    detail = f"it ended with {ran.code} after {len(found)} checks{lacks}: {ran.err.strip()[-400:]}"
    return (*found, Check(name="smoke", status="fail", detail=detail, seconds=0.0))


@dataclass(frozen=True, slots=True)
class Listed:
    """A check that there is, and the bug or platform fact that it guards against."""

    level: Level
    name: str
    guards: str


def names(modules: tuple[str, ...]) -> set[str]:
    """The names of the checks in the in-image ``modules``."""
    return {row.name for row in checks_in(modules)}


def checks_in(modules: tuple[str, ...]) -> Iterator[Listed]:
    """The checks in ``modules`` of the image, read without running them."""
    for module in modules:
        tree = ast.parse((context_image() / "checks" / f"{module}.py").read_text())
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef):
                continue
            for call in filter(_marks, node.decorator_list):
                guards = ast.literal_eval(call.args[0])
                words = {word.arg: word.value for word in call.keywords}
                gpu = "level" in words and ast.literal_eval(words["level"]) == "gpu"
                yield Listed("gpu" if gpu else "smoke", node.name, guards)


def _marks(decorator: ast.expr) -> TypeGuard[ast.Call]:
    call = isinstance(decorator, ast.Call) and decorator.func
    return isinstance(call, ast.Name) and call.id == "check"
