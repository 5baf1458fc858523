"""The resolver: every combination of the facts, and one question as a command, in one run."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from math import prod

from imagegen.compat import query, solver
from imagegen.compat.facts import files

ROUNDS = 9
# As people run it: with this set, Python compiles every module anew each time.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
QUESTIONS = {
    "impossible": ["--ubuntu", "24.04", "--cuda", "13.0", "--torch", "2.8", "--python", "3.12"],
    "fine": ["--ubuntu", "24.04", "--cuda", "13.0", "--torch", "2.11", "--python", "3.12"],
    "nothing asked": [],
    "everything wrong": [
        *("--ubuntu", "20.04", "--cuda", "13.1", "--torch", "2.4", "--python", "3.14"),
        *("--gpu", "B200", "--driver", "470", "--flash-attn", "2.5.9.post1"),
        *("--flash-attn-from", "official", "--arch", "aarch64"),
    ],
}


def product() -> None:
    """Judge every combination of distribution, toolkit, torch, its CUDA, Python and image kind."""
    known = files.load()
    newest = max(known.flash_attn, key=lambda row: row.version)
    one_each = {"host": ("x86_64",), "flash_attn": (newest,), "origin": ("source",)}
    domains = query.everything(known) | one_each
    start = time.perf_counter()
    verdicts = solver.survey(domains)
    seconds = time.perf_counter() - start
    assert sum(verdicts.values()) == prod(len(values) for values in domains.values())
    words = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    print(f"{sum(verdicts.values())} combinations in {seconds:.2f} s: {words}")


def commands() -> None:
    """Run the questions in turn, so that a busy moment hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    for _ in range(ROUNDS):
        for name, words in QUESTIONS.items():
            argv = [sys.executable, "-m", "imagegen", "why", *words]
            start = time.perf_counter()
            subprocess.run(argv, check=False, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
            seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        print(f"why, {name:<18} {statistics.median(times):.3f} s  (least {min(times):.3f})")


if __name__ == "__main__":
    product()
    commands()
