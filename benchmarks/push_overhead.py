"""Time of an imagegen push over a plain `docker push` of the same image to such a registry.

`python -m benchmarks.push_overhead IMAGE`, from the repository's root; IMAGE is in the engine.

"alone" is imagegen's without its start: Python, the matrix, a first word with the engine.
Cold: a registry that has nothing, a new one for each push. Warm: the same push once more. Both are
whole processes. imagegen's sends the report, an SBOM and a provenance too, reads the image back,
asks for every layer and moves the target's tag and two aliases; building, testing and the look
inside for the SBOM come before a push and are not in these figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from imagegen.engine.docker import Docker
from imagegen.inventory import contents, sbom
from imagegen.matrix.project import load
from tests.engine.stand_ins.registries import docker, registry
from tests.faults.__main__ import registry_image

Times = dict[str, list[float]]


def timed(*argv: str) -> float:
    """Seconds of a command that must succeed."""
    return said(*argv)[0]


def said(*argv: str) -> tuple[float, str]:
    """The same, and the last line of its output."""
    start = time.perf_counter()
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - start, done.stdout.splitlines()[-1]


def plain(image: str, packaged: str, times: Times) -> None:
    """What people type, to a new registry, twice."""
    with registry(packaged) as real:
        name = f"{real.host}/overhead/plain:1"
        docker("tag", image, name)
        try:
            for kind in ("cold", "warm"):
                times[f"{kind} docker"].append(timed("docker", "push", "--quiet", name))
        finally:
            docker("rmi", name)


def ours(row: dict[str, object], packaged: str, times: Times, folder: Path) -> None:
    """The same by imagegen, to another new registry, twice."""
    with registry(packaged) as real:
        file = folder / "orders.json"
        file.write_text(json.dumps([row | {"repository": f"{real.host}/overhead/ours"}]))
        argv = (sys.executable, "-m", "tests.faults.once", str(file))
        for kind in ("cold", "warm"):
            whole, last = said(*argv)
            times[f"{kind} imagegen"].append(whole)
            times[f"{kind} alone"].append(float(last.split()[0]))


def order(engine: Docker, image: str, folder: Path) -> dict[str, object]:
    """What is pushed: the image as a target of this distribution, and its own SBOM."""
    local = engine.local(image)
    if local is None:
        raise SystemExit(f"{image} is not in the engine")
    project = load(Path(__file__).parents[1] / "dockerfiles/matrix.toml")
    found, now = contents.of(engine, image), datetime.now(UTC)
    document = sbom.spdx(found, name=image, digest=local.digest, created=now)
    (folder / "sbom.json").write_text(json.dumps(document))
    return {
        "target": project.resolution.targets[0].id,
        "digest": local.digest,
        "key": "0" * 64,
        "aliases": ["latest", "newest"],
        "at": time.time(),
        "sbom": str(folder / "sbom.json"),
    }


def main() -> None:
    """Take turns, each going first in every second turn, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("image")
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args()
    whos = ("docker", "imagegen", "alone")
    times: Times = {f"{kind} {who}": [] for kind in ("cold", "warm") for who in whos}
    packaged = registry_image()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        row = order(Docker.connect(), given.image, folder)
        for turn in range(given.pairs):
            for docker_now in (True, False) if turn % 2 else (False, True):
                if docker_now:
                    plain(given.image, packaged, times)
                else:
                    ours(row, packaged, times, folder)
    for name, found in times.items():
        print(
            f"{name:<14} median {statistics.median(found):7.2f} s of {len(found)}, "
            f"{min(found):.2f} to {max(found):.2f}"
        )
    for kind in ("cold", "warm"):
        mine, theirs = (statistics.median(times[f"{kind} {who}"]) for who in ("imagegen", "docker"))
        alone = statistics.median(times[f"{kind} alone"])
        print(
            f"{kind}: {mine / theirs:.3f} x, {mine - theirs:+.2f} s;"
            f" alone {alone / theirs:.3f} x, {alone - theirs:+.2f} s"
        )


if __name__ == "__main__":
    main()
