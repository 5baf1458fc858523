"""Wall time of `imagegen list` and `imagegen render --check` over `python -c pass`, in one run."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

ROUNDS = 15
# As people run it: with this set, Python compiles every module anew each time.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "imagegen list": ["-m", "imagegen", "list"],
    "imagegen render --check": ["-m", "imagegen", "render", "--check"],
}


def main() -> None:
    """Run the commands in turn, so that a busy moment hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, words in COMMANDS.items():
            start = time.perf_counter()
            argv = [sys.executable, *words]
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
            seconds[name].append(time.perf_counter() - start)
    bare = statistics.median(seconds["python -c pass"])
    print(f"{'median of ' + str(ROUNDS):<26} seconds  over bare")
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(f"{name:<26} {middle:7.3f}  {middle / bare:8.1f} x  (least {min(times):.3f})")


if __name__ == "__main__":
    main()
