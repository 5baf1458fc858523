"""Check that this image keeps its promise: nvcc, torch, flash-attn, and the GPU where there is one.

The promise is a JSON file (target.json). Every check runs in a process of its own and ends in one
line; the exit status is 0 only if at least one check passed and none failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import cpu
import device
import gpu
from suite import Suite, chosen, run

PROMISE = Path("/etc/imagegen/target.json")
SUITE = Suite(cpu.SUITE | device.SUITE | gpu.SUITE)


def main() -> int:
    """Read the command line and run the suite."""
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="imagegen-check", description=about)
    here = Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi")  # or: WSL
    level = "gpu" if here or "--require" in sys.argv else "cpu"
    parser.add_argument(
        "--level", choices=("cpu", "gpu"), default=level, help="gpu adds to cpu; here: %(default)s"
    )
    parser.add_argument(
        "--require", choices=("gpu",), default="", help="a check of this level fails if skipped"
    )
    parser.add_argument("--format", choices=("text", "json"), default="json")
    parser.add_argument("--promise", default=os.fspath(PROMISE), metavar="FILE", help="- is stdin")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="repeatable")
    given = parser.parse_args()
    checks = chosen(SUITE, given.only, parser)
    if given.require and given.require not in {check.level for check in checks}:
        parser.error(f"--require {given.require}: no check of that level is among those chosen")
    try:
        text = sys.stdin.read() if given.promise == "-" else Path(given.promise).read_text()
        promise = json.loads(text)
    except (OSError, ValueError) as error:
        parser.error(f"the promise {given.promise} cannot be read: {error}")
    why_not = {} if given.level == "gpu" else {"gpu": "needs --level gpu"}
    return run(checks, promise, why_not, text=given.format == "text", required=given.require)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # without waiting for a check that is stuck in a GPU's driver
