"""Pushes that meet a fault, many times; a look at the registry after each, by other means.

`python -m tests.faults --seed 1 --runs 50`, from the repository's root. Exit status 1
where a tag named something missing or untested, went back, or a push after the fault did not finish
what the fault had broken off.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from imagegen.build import base
from imagegen.engine.docker import Docker
from imagegen.matrix import project
from imagegen.net import settings
from imagegen.publish.local_registry import server
from imagegen.util import files
from tests.faults.runs import Row, play
from tests.faults.scenarios import EVERY


def registry_image() -> str:
    """The distribution's registry, on a base of this machine's distribution."""
    setup = project.load(Path(__file__).parents[2] / "dockerfiles/matrix.toml")
    here, _ = base.host_os(Path("/etc/os-release").read_text())
    os_ = next(row.os for row in setup.facts.os if row.os.name == here)
    engine = Docker.connect()
    made = base.bootstrap(os_, files.cache())
    engine.load(made.archive, made.reference, made.digest)
    return server.build(engine, made, settings.Network())


def tell(line: str) -> None:
    """Progress, apart from the table."""
    print(line, file=sys.stderr, flush=True)


def table(rows: list[Row]) -> str:
    """As Markdown."""
    heads = (
        *("fault", "runs", "met a push", "of these got over it alone", "tags checked"),
        *("own tags before their report", "registry mended by hand", "violations"),
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [
        f"| {row.fault}: {row.what} | {row.runs} | {row.hits} | {row.survived} | {row.tags} "
        f"| {row.early} | {row.mended} | {len(row.violations)} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Play every scenario, or one, and print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=50, help="of each fault")
    parser.add_argument("--first", type=int, default=0, help="the number of the first run")
    parser.add_argument("--only", choices=[one.name for one in EVERY], action="append")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    given = parser.parse_args()
    image, start, rows = registry_image(), time.monotonic(), []
    for scenario in EVERY:
        if not given.only or scenario.name in given.only:
            runs = range(given.first, given.first + given.runs)
            rows.append(play(scenario, image, given.seed, runs, tell))
    if given.format == "json":
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        print(table(rows))
        print(f"\nseed {given.seed}, {time.monotonic() - start:.0f} s")
        for row in rows:
            for violation in row.violations:
                print(f"{row.fault}, {violation}")
    raise SystemExit(any(row.violations for row in rows))


if __name__ == "__main__":
    main()
