"""An image -> what comes of its checks. A report that passed is kept: the same bytes need not pass
the same checks again.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen import checks, record
from imagegen.model import Asked, Built, Outcome, Report
from imagegen.pods import ONSTART
from imagegen.proc import Say

if TYPE_CHECKING:
    from imagegen.engine import Docker


def checked(
    engine: Docker, built: Built, asked: Asked, folder: Path, say: Say, *, again: bool
) -> Report:
    """The report of a built image: the one that is in ``folder`` for these bytes, or a new one."""
    name, start = built.image.target.id, time.monotonic()
    if not again and (old := kept(folder, built, asked)):
        say(f"{name}: {old.cached}")
        return old
    say(f"{name}: checking {built.digest[:19]}")
    found = checks.examine(
        engine,
        built.image.ref,
        asked,
        say,
        digest=built.digest,  # what is pushed later, whatever has that name by then
        promise=built.image.target.promise,
        onstart=ONSTART,
    )
    report = Report.of(
        built,
        found,
        time.monotonic() - start,
        asked=asked,
        at=time.time(),
        engine=engine.version,
        suite=checks.version(ONSTART),
    )
    if report.passed:
        keep(folder, report)
    return report


def examined(engine: Docker, refs: Sequence[str], asked: Asked, say: Say) -> tuple[Outcome, ...]:
    """Images that were not built here, by reference; those that are not here are pulled.

    Raises:
        RegistryError: one cannot be pulled.
    """
    found = []
    for ref, digest in [(ref, engine.pulled(ref, say)) for ref in refs]:
        start = time.monotonic()
        say(f"{ref}: checking {digest[:19]}")
        rows = checks.examine(engine, ref, asked, say, digest=digest)
        seconds = time.monotonic() - start
        found.append(Outcome(name=ref, digest=digest, checks=rows, seconds=seconds))
    return tuple(found)


def keep(folder: Path, report: Report) -> None:
    """Keep a report that passed."""
    file = folder / f"{_name(report.built)}-{'-'.join(report.asked.levels)}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with _replaced(file) as new:
        new.write_bytes(record.document(record.of(report), report.built.image.target.promise))


def kept(folder: Path, built: Built, asked: Asked) -> Report | None:
    """A passing report of these bytes by these checks, that covers all levels asked for."""
    for file in sorted(folder.glob(f"{_name(built)}-*.json")):
        try:
            old = record.parse(file.read_bytes())
        except (OSError, ValueError):  # of another version
            continue
        if not {*asked.levels} <= {*old.asked.levels} or not asked.required <= old.asked.required:
            continue
        also = {"smoke"} if "gpu" in asked.levels else set()  # one program brings both
        found = tuple(row for row in old.checks if row.level in {*asked.levels} | also)
        ran = sum(check.status != "skip" for check in found)  # skipped is not passed
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(old.at))
        why = f"already tested: {ran} checks of these bytes on {at} (--again repeats them)"
        return Report.of(
            built,
            found,
            old.seconds,
            why,
            asked=asked,
            at=old.at,
            engine=old.engine,
            suite=old.suite,
        )
    return None


def _name(built: Built) -> str:
    """By the image's bytes and the part of the checks that is not in the image."""
    return f"{built.digest.removeprefix('sha256:')}-{checks.version(ONSTART)}"


@contextlib.contextmanager
def _replaced(file: Path) -> Iterator[Path]:
    """A file to write in place of ``file``, which changes only when the block ends well."""
    new = file.with_suffix(f".{os.getpid()}.new")
    try:
        yield new
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)
