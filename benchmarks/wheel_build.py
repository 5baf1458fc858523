"""What compiling flash-attn costs in BuildKit: cold, for a second Python, and after a kill.

All of it in one run.

Cold: an empty cache. Second: another target's wheel, of another Python and perhaps another
distribution, on the cache that the first one left. Resumed: a build with an empty cache that is
killed half-way, and the same build again. Everything before flash-attn's stage is built first and
not timed; each cache is one of its own, so that no earlier build helps. The base images of both
targets must be in the engine (`imagegen build` brings them).
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CACHE = "id=imagegen-flash-attn"
STEP = "/build/with-network /build/pip-install /locks/build.txt"


def definition(target: str, base: str) -> dict[str, Any]:
    """What `imagegen build` would hand to buildx for a target."""
    words = [sys.executable, "-m", "imagegen", "build", target, "--base", base, "--print"]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    document: dict[str, Any] = json.loads(printed)
    return document


def stage(document: dict[str, Any], name: str, cache: str, file: Path) -> list[str]:
    """The command that builds one stage with a cache of that name and keeps only the cache."""
    changed = json.loads(json.dumps(document))
    for row in changed["target"].values():
        text = (Path(row["context"]) / row.pop("dockerfile")).read_text()
        # BuildKit does not see the name of a cache mount when it looks for a step's result, and
        # empties the mount when it is told to look for none: so the step says something new.
        text = text.replace(CACHE, f"id={cache}").replace(STEP, f": {secrets.token_hex(4)}; {STEP}")
        row["dockerfile-inline"] = text.replace("${", "$${")
        row |= {"target": name, "output": ["type=cacheonly"]}
    file.write_text(json.dumps(changed))
    return ["docker", "buildx", "bake", "--progress=plain", "--file", str(file)]


def timed(words: list[str], log: Path, kill_after: float = 0.0) -> float:
    """Seconds that a build takes; ``kill_after`` interrupts it then."""
    start = time.perf_counter()
    with log.open("w") as out:
        process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT)
        if kill_after:
            time.sleep(kill_after)
            process.send_signal(signal.SIGINT)
        code = process.wait()
    if (code == 0) == bool(kill_after):
        raise SystemExit(f"exit {code}\n{log.read_text()[-3000:]}")
    return time.perf_counter() - start


def compiled(log: Path) -> str:
    """What the recipe says that it compiled."""
    found = re.findall(
        r"flash-attn: (\d+ kernel files compiled.*|all \d+ kernel.*)", log.read_text()
    )
    return found[-1] if found else "nothing compiled to the end"


def main() -> None:
    """Build, kill, resume; print the three times and their ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("first", nargs="?", default="debian12-cuda13.0-torch2.11-py3.11-demo")
    parser.add_argument("second", nargs="?", default="debian13-cuda13.0-torch2.11-py3.13-demo")
    parser.add_argument("--base", default="bootstrap")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        one, other = (definition(name, given.base) for name in (given.first, given.second))
        shared, killed = (f"imagegen-benchmark-{secrets.token_hex(4)}" for _ in range(2))
        for row in (one, other):
            timed(stage(row, "torch", shared, folder / "bake.json"), folder / "log")

        def run(document: dict[str, Any], cache: str, kill_after: float = 0.0) -> float:
            words = stage(document, "wheel", cache, folder / "bake.json")
            spent = timed(words, folder / "log", kill_after)
            print(f"  {spent:6.1f} s: {compiled(folder / 'log')}", flush=True)
            return spent

        cold, second = run(one, shared), run(other, shared)
        before, after = run(one, killed, cold / 2), run(one, killed)
    print(f"cold     {cold:6.1f} s  {given.first}")
    print(f"second   {second:6.1f} s  {second / cold:.3f} x  {given.second}")
    print(f"resumed  {before + after:6.1f} s  {(before + after) / cold:.3f} x  "
          f"({before:.1f} s until the kill, {after:.1f} s after it)")  # fmt: skip


if __name__ == "__main__":
    main()
