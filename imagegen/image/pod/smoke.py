"""Check that this image keeps its promise: `python /opt/imagegen/smoke.py --level cpu`.

The promise is a JSON file (target.json). Every check runs in a process of its own and ends in one
JSON line; the exit status is 0 only if at least one check passed and none failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import cpu
import gpu
from suite import Suite, chosen, run

PROMISE = Path("/etc/imagegen/target.json")
SUITE = Suite(cpu.SUITE | gpu.SUITE)


def main() -> int:
    """Read the command line and run the suite."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--level", choices=("cpu", "gpu"), default="cpu", help="gpu adds to cpu")
    parser.add_argument("--promise", default=os.fspath(PROMISE), metavar="FILE", help="- is stdin")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="repeatable")
    given = parser.parse_args()
    checks = chosen(SUITE, given.only, parser)
    try:
        text = sys.stdin.read() if given.promise == "-" else Path(given.promise).read_text()
        promise = json.loads(text)
    except (OSError, ValueError) as error:
        parser.error(f"the promise {given.promise} cannot be read: {error}")
    return run(checks, promise, {} if given.level == "gpu" else {"gpu": "needs --level gpu"})


if __name__ == "__main__":
    sys.exit(main())
