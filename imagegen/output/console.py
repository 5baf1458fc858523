"""What all printers share: JSON, tables, bytes for people, a check's outcome."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Literal

from imagegen.model.report import Check

Format = Literal["text", "json"]


def show(value: object) -> None:
    """Print a JSON value."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as they need to be."""
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def size(count: float) -> str:
    """Bytes for people: ``2.85 GB``, ``3.9 MB``, decimal units as registries use."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.{2 if unit == 'GB' else 1}f} {unit}"
    return f"{count:.0f} B"


def known(count: float | None) -> str:
    """The same, of bytes that nobody may know."""
    return "?" if count is None else size(count)


def check_row(check: Check) -> dict[str, object]:
    """A check's outcome as JSON values: as a report keeps it, but for what the check needs."""
    row = asdict(check)
    del row["needs"]
    return row
