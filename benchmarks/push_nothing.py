"""How long `imagegen push` takes when every selected target is published, and what it sends.

    python -m benchmarks.push_nothing [--targets 20] [--runs 5] [--latency 0.0]

Puts images of some bytes with the labels and reports of real targets into a registry of this
process, runs the command line on them, and counts the registry's requests. ``--latency`` is seconds
that the registry waits before each answer, as a distant one would.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from imagegen.build import images, options
from imagegen.matrix.config import FILE
from imagegen.matrix.project import load
from imagegen.net.registry import Repository
from tests.engine.stand_ins import oci_registry
from tests.support.published import put

LAYERS = 11
"""As many as the demo image has."""


def main() -> None:
    """Print seconds and requests as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--latency", type=float, default=0.0)
    asked = parser.parse_args()
    project = load(FILE)
    ids = [c.id for c in project.resolution.combinations if c.os.os.distribution == "ubuntu"]
    ids = ids[: asked.targets]
    seconds = []
    with oci_registry.served() as registry:
        repository = Repository(f"{registry.host}/me/finetune")
        for image in images.plan(project, ids, options.Options()):
            put(repository, image, count=LAYERS)
        words = [sys.executable, "-m", "imagegen", "push", *ids, "--repository", repository.name]
        subprocess.run(words, env=os.environ, check=True, capture_output=True)  # moves the aliases
        registry.latency = asked.latency
        for _ in range(asked.runs):
            registry.asked.clear()
            start = time.perf_counter()
            subprocess.run(words, env=os.environ, check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
        sent = sum(one.startswith(("PUT", "POST", "PATCH")) for one in registry.asked)
        row = {
            "targets": len(ids),
            "seconds": round(statistics.median(seconds), 2),
            "requests": len(registry.asked),
            "writes": sent,
            "latency": asked.latency,
        }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
