"""Seconds from `docker run` to an SSH login and to Jupyter's answer.

`python -m benchmarks.pod_start IMAGE`, from the repository's root.

Both wait for a pod that has both services, as on a platform; a round of its own for each of them,
and one for a pod that only has SSH. The first column counts from before the engine is asked to make
the container, the second from when it has started it.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from imagegen.checks.contract import Settings, Trial
from imagegen.checks.pod import JUPYTER, SSH
from imagegen.engine.container import Start
from imagegen.engine.docker import Docker

ROUNDS = 7


def seconds(trial: Trial, what: str) -> tuple[float, float]:
    """From the call that creates the container, and from its start."""
    env = {"PUBLIC_KEY": trial.public()}
    if what != "SSH alone":
        env["JUPYTER_PASSWORD"] = trial.token
    called = time.monotonic()
    with trial.started(Start(env=env, ports=(SSH, JUPYTER))) as pod:
        if what == "Jupyter":
            pod.get(f"/api/status?token={trial.token}")
        else:
            pod.login()
        return time.monotonic() - called, time.monotonic() - pod.box.began


def main() -> None:
    """Take turns, so that a busy moment hits all of them."""
    (ref,) = sys.argv[1:]
    found: dict[str, list[tuple[float, float]]] = {"SSH alone": [], "SSH": [], "Jupyter": []}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        trial = Trial(Docker.connect(), ref, Path(folder), Settings(), stack)
        trial.public()
        for _ in range(ROUNDS):
            for what, rows in found.items():
                rows.append(seconds(trial, what))
    print(f"{'median of ' + str(ROUNDS):<14} docker run  from its start   least")
    for what, rows in found.items():
        whole, inside = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{what:<14} {whole:10.2f} {inside:15.2f} {min(row[0] for row in rows):7.2f}")


if __name__ == "__main__":
    main()
