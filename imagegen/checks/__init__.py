"""Run an image's checks from outside and collect what they report."""

from __future__ import annotations

import ast
import hashlib
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.model import Built, Check, Report, Status
from imagegen.plan import context_image
from imagegen.proc import Say

if TYPE_CHECKING:
    from imagegen.engine import Docker, Ran

PYTHON = "/opt/venv/bin/python"
SMOKE = (PYTHON, "/opt/imagegen/smoke.py", "--promise", "-")
PROBE = """it's "quoted" $(touch /tmp/ran) `id` \\ ü"""
"""A value of the environment that only exact handling carries through a shell."""

PEER = """
umask 077
printf '%s\\n' "$IMAGEGEN_KEY" > /tmp/key
exec python3 /opt/imagegen/peer.py pod --key /tmp/key --token "$IMAGEGEN_TOKEN"
"""

MAKE_KEY = "ssh-keygen -q -t ed25519 -N '' -C imagegen -f /tmp/key && cat /tmp/key /tmp/key.pub"

TIMEOUT = 900.0
"""Seconds for all checks of one container; inside, each check has a limit of its own."""

STATUS: dict[object, Status] = {"pass": "pass", "fail": "fail", "skip": "skip"}


def smoke(engine: Docker, built: Built, say: Say, *, gpu: bool = False) -> Report:
    """All smoke checks of a built image: those inside it, then those of a user from outside.

    The promise comes from the target, not from the image: an image that lies about itself fails.
    """
    start = time.monotonic()
    checks = (*inside(engine, built, say, gpu=gpu), *outside(engine, built, say))
    return Report(built=built, checks=checks, seconds=time.monotonic() - start)


def inside(engine: Docker, built: Built, say: Say, *, gpu: bool = False) -> tuple[Check, ...]:
    """The checks that run in the image: nvcc, torch, flash-attn, packages."""
    promise = json.dumps(built.image.target.promise)
    # Through the environment: a container's standard input would need a terminal's protocol.
    script = 'printf %s "$IMAGEGEN_PROMISE" | exec "$@"'
    argv = ["bash", "-c", script, "smoke", *SMOKE, "--level", "gpu" if gpu else "cpu"]
    env = {"IMAGEGEN_PROMISE": promise}
    found, heard = _listener(say)
    ran = engine.run(built.digest, argv, env=env, say=heard, timeout=TIMEOUT, gpus=gpu)
    return _settled("smoke", ("cpu", "gpu"), found, ran)


def outside(engine: Docker, built: Built, say: Say) -> tuple[Check, ...]:
    """The checks of a user: SSH with a key and Jupyter with a token, from a second container."""
    made = engine.run(built.digest, ["bash", "-c", MAKE_KEY], timeout=60)
    private, _, public = made.out.strip().rpartition("\n")
    token = secrets.token_urlsafe(24)
    pod = {"PUBLIC_KEY": public, "JUPYTER_PASSWORD": token, "IMAGEGEN_PROBE": PROBE}
    peer = {"IMAGEGEN_KEY": private, "IMAGEGEN_TOKEN": token, "IMAGEGEN_PROBE": PROBE}
    found, heard = _listener(say)
    name = f"imagegen-{secrets.token_hex(6)}"
    with (
        engine.network(name) as network,
        engine.container(built.digest, env=pod, network=network, alias="pod") as box,
    ):
        argv = ["bash", "-c", PEER]
        ran = engine.run(built.digest, argv, env=peer, say=heard, network=network, timeout=TIMEOUT)
        checks = _settled("peer", ("peer",), found, ran)
        if any(check.status == "fail" for check in checks):
            say("the pod's own output:\n" + engine.logs(box))
    return checks


def _listener(say: Say) -> tuple[list[Check], Callable[[str], None]]:
    """A list, and what to call with each line of output: JSON lines are checks."""
    found: list[Check] = []

    def heard(line: str) -> None:
        try:
            row = json.loads(line)
            check = Check(
                name=str(row["name"]),
                status=STATUS[row["status"]],
                detail=str(row["detail"]),
                seconds=float(row["seconds"]),
                guards=str(row.get("guards", "")),
            )
        except (ValueError, KeyError, TypeError):
            say(line)
            return
        found.append(check)
        say(f"{check.status:4} {check.name} ({check.seconds:.1f} s) {check.detail}")

    return found, heard


def _settled(
    program: str, modules: tuple[str, ...], found: list[Check], ran: Ran
) -> tuple[Check, ...]:
    """The checks, and one more that fails where the program did not do all that it has to.

    The program comes out of the image under test. What it has to report is read from imagegen's own
    files, so that an image whose checks were left out or cut short does not pass.
    """
    failed = any(check.status == "fail" for check in found)
    missing = sorted(names(modules) - {check.name for check in found})
    if not missing and (ran.code == 0) != failed:
        return tuple(found)
    lacks = f", without {', '.join(missing)}" if missing else ""
    detail = f"{program} exited {ran.code} after {len(found)} checks{lacks}: "
    detail += ran.err.strip()[-400:]
    return (*found, Check(name=program, status="fail", detail=detail, seconds=0.0))


def names(modules: tuple[str, ...]) -> set[str]:
    """The names of the checks in the in-image ``modules``, read without running them."""
    found: set[str] = set()
    for module in modules:
        tree = ast.parse((context_image() / "pod" / f"{module}.py").read_text())
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and any(map(_marks, node.decorator_list)):
                found.add(node.name)
    return found


def _marks(decorator: ast.expr) -> bool:
    call = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(call, ast.Name) and call.id == "check"


def version() -> str:
    """Changes with what is asked from outside; the checks inside are part of the image."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
