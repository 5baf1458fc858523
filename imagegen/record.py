"""A report's document: what is kept of it here, and what stands beside the image in a registry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from imagegen import __version__
from imagegen.model import Asked, Check, Record, Report


def of(report: Report) -> Record:
    """What is kept of a report."""
    return Record(
        digest=report.digest,
        key=report.built.image.key,
        checks=report.checks,
        asked=report.asked,
        seconds=report.seconds,
        at=report.at,
        engine=report.engine,
        unpacked=report.built.unpacked,
        version=__version__,
        suite=report.suite,
    )


def document(record: Record, target: Mapping[str, object]) -> bytes:
    """The record as JSON, with what the image promises; the same bytes for the same record."""
    row = {
        "imagegen": record.version,
        "digest": record.digest,
        "key": record.key,
        "target": dict(target),
        "at": moment(record.at),
        "engine": record.engine,
        "suite": record.suite,
        "seconds": round(record.seconds, 1),
        "unpacked_bytes": record.unpacked,
        "levels": list(record.asked.levels),
        "required": sorted(record.asked.required),
        "checks": [asdict(check) for check in record.checks],
    }
    return json.dumps(row, indent=1, sort_keys=True).encode()


def parse(body: bytes) -> Record:
    """The record of a document.

    Raises:
        ValueError: it is none, or of another version of imagegen.
    """
    try:
        row = json.loads(body)
        return Record(
            digest=str(row["digest"]),
            key=str(row["key"]),
            checks=tuple(_check(check) for check in row["checks"]),
            asked=Asked(levels=tuple(row["levels"]), required=frozenset(row["required"])),
            seconds=float(row["seconds"]),
            at=datetime.fromisoformat(row["at"]).timestamp(),
            engine=str(row["engine"]),
            unpacked=int(row["unpacked_bytes"]),
            version=str(row["imagegen"]),
            suite=str(row.get("suite", "")),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no report of a test: {error!r}") from error


def moment(seconds: float) -> str:
    """``2026-11-22T11:40:00Z`` of seconds since 1970."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def _check(row: Mapping[str, Any]) -> Check:
    check = Check(**row)
    if check.status not in ("pass", "fail", "skip"):  # a word that is none of them is no pass
        raise ValueError(f"a check that ended as {check.status!r}")
    return check
