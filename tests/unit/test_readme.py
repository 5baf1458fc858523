"""The README's terminal sessions are what the terminal prints."""

from __future__ import annotations

import shlex
import textwrap

import pytest
from typer.testing import CliRunner

from imagegen.cli.app import app

from .values import ROOT

PROMPT = "$ imagegen "


def sessions() -> list[tuple[str, str]]:
    """Every command of the README that is shown with its output, and that output."""
    found: list[tuple[str, list[str]]] = []
    lines: list[str] | None = None
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"    {PROMPT}"):
            lines = []
            found.append((line.strip().removeprefix(PROMPT), lines))
        elif lines is not None and line.startswith("    "):
            lines.append(line)
        else:
            lines = None
    return [(command, textwrap.dedent("\n".join(out)) + "\n") for command, out in found if out]


@pytest.mark.parametrize(("command", "shown"), sessions(), ids=[c for c, _ in sessions()])
def test_what_is_shown_is_what_is_printed(command: str, shown: str) -> None:
    assert CliRunner().invoke(app, shlex.split(command)).stdout == shown


def test_three_refusals_are_shown() -> None:
    refusals = [command for command, shown in sessions() if shown.startswith("impossible: ")]
    assert len(refusals) >= 3
