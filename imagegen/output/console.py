"""The only printer: what the commands found and made, as text, as JSON, for GitHub."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from imagegen.model.report import Check

if TYPE_CHECKING:
    pass

Format = Literal["text", "json"]


class Progress:
    """What a person watching sees: lines on standard error, each with the seconds so far."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, line: str) -> None:
        print(f"[{time.monotonic() - self._start:6.1f} s] {line}", file=sys.stderr, flush=True)


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


# --- render, lock ---------------------------------------------------------------------------------


# --- build, test, push ----------------------------------------------------------------------------


# --- doctor ---------------------------------------------------------------------------------------


def check_row(check: Check) -> dict[str, object]:
    """A check's outcome as JSON values."""
    return {
        "level": check.level,
        "name": check.name,
        "status": check.status,
        "detail": check.detail,
        "seconds": check.seconds,
        "guards": check.guards,
    }
