"""One `imagegen push` of images that are in the engine and have passed: a process to be killed.

`python -m tests.faults.once ORDERS.json [PATIENCE]`. PATIENCE, a factor, shortens the
pauses before something is tried again, so that many runs fit into an hour. Nothing else is changed.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from imagegen.engine.docker import Docker
from imagegen.matrix import project
from imagegen.model.image import Built, Image
from imagegen.model.report import Check, Report, Tested
from imagegen.model.target import Target
from imagegen.net import http
from imagegen.output.progress import Progress
from imagegen.platforms import needed
from imagegen.publish import push

MATRIX = Path(__file__).parents[2] / "dockerfiles/matrix.toml"


def upload(row: dict[str, Any], target: Target) -> push.Upload:
    """The image of one row, with a report that says that it passed."""
    image = Image(
        target=target,
        context=MATRIX.parent,
        base="scratch",
        base_override="",
        labels={"imagegen.key": row["key"]},
        key=row["key"],
    )
    built = Built(image=image, digest=row["digest"], unpacked=2_000_000, seconds=0.0, cached="")
    checks = [
        Check(name="x", status="pass", detail="", seconds=0.0, level=level) for level in needed()
    ]
    return push.Upload(
        tested=Tested(
            built=built, report=Report.of(built, tuple(checks), 0.0, at=row["at"]), needed=needed()
        ),
        repository=row["repository"],
        aliases=tuple(row["aliases"]),
        sbom=Path(row["sbom"]).read_bytes() if "sbom" in row else _bill(row),
        provenance=json.dumps({"predicate": {"name": row["key"]}}).encode(),
    )


def _bill(row: dict[str, Any]) -> bytes:
    """A small document in place of an SBOM."""
    return json.dumps({"spdxVersion": "SPDX-2.3", "name": row["key"]}).encode()


def main() -> None:
    """Push, say what is done, and exit with 1 where something failed."""
    patience = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    for module in (push, http):
        setattr(module, "PAUSES", tuple(pause * patience for pause in module.PAUSES))  # noqa: B010
    targets = {target.id: target for target in project.load(MATRIX).resolution.targets}
    rows = json.loads(Path(sys.argv[1]).read_text())
    uploads = [upload(row, targets[row["target"]]) for row in rows]
    engine = Docker.connect()
    start = time.monotonic()
    logger = logging.getLogger("imagegen")  # why something failed is in the run's log
    logger.addHandler(Progress())
    logger.setLevel(logging.INFO)

    def say(line: str) -> None:
        print(f"{time.monotonic() - start:7.2f} {line}", flush=True)

    say("begun")
    done = push.push(engine, uploads)
    say(f"pushed {len(done.pushed)}")
    raise SystemExit(1 if done.failed else 0)


if __name__ == "__main__":
    main()
