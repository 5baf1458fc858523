"""`imagegen build` over the same bake definition given to buildx directly, in one run.

Cold: the image is not in the store, its steps are cached; both export and unpack it anew, in turn.
Warm: nothing changed; imagegen looks the image up by its key, buildx solves from its cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WARM, COLD = 5, 2


def seconds(*argv: str) -> float:
    """Wall time of a command that must succeed."""
    start = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Take the target that is already built, time both ways, print medians and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", nargs="?", default="debian12*-demo")
    parser.add_argument("--base", default="bootstrap")
    given = parser.parse_args()
    ours = [sys.executable, "-m", "imagegen", "build", given.target, "--base", given.base]
    seconds(*ours)  # the build cache is warm from here on
    definition = subprocess.run([*ours, "--print"], check=True, capture_output=True, text=True)
    document = json.loads(definition.stdout)
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "bake.json"
        file.write_text(json.dumps(document))
        direct = ["docker", "buildx", "bake", "--progress=plain", "--file", str(file)]
        ref = next(iter(document["target"].values()))["output"][0].split("name=")[1].split(",")[0]
        times: dict[str, list[float]] = {
            name: [] for name in ("warm buildx", "warm imagegen", "cold buildx", "cold imagegen")
        }
        for _ in range(WARM):
            times["warm buildx"].append(seconds(*direct))
            times["warm imagegen"].append(seconds(*ours))
        for _ in range(COLD):
            # Both ways export the whole image anew: the name is gone, the steps are cached.
            subprocess.run(["docker", "rmi", "--force", ref], check=True, capture_output=True)
            times["cold buildx"].append(seconds(*direct))
            subprocess.run(["docker", "rmi", "--force", ref], check=True, capture_output=True)
            times["cold imagegen"].append(seconds(*ours))
    for name, row in times.items():
        print(f"{name:<14} median {statistics.median(row):7.2f} s of {len(row)}")
    for kind in ("warm", "cold"):
        mine, theirs = (statistics.median(times[f"{kind} {who}"]) for who in ("imagegen", "buildx"))
        print(f"{kind}: {mine / theirs:.3f} x, {mine - theirs:+.2f} s")


if __name__ == "__main__":
    main()
