"""Fixtures that several unit tests share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from imagegen import __main__
from imagegen.build import images
from tests.support.line import restored
from tests.support.values import ROOT


@pytest.fixture(autouse=True)
def revision(monkeypatch: pytest.MonkeyPatch) -> str:
    """A commit, without asking git for it."""
    found = "c" * 40
    monkeypatch.setattr(images, "source_revision", lambda _folder: found)
    return found


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs ``imagegen WORDS`` in this process, through the boundary; gives the exit status."""
    monkeypatch.chdir(ROOT)
    for name in ("DEBUG", "MATRIX", "FACTS", "ALLOW_UNKNOWN"):
        monkeypatch.delenv(f"IMAGEGEN_{name}", raising=False)

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["imagegen", *words])
        with pytest.raises(SystemExit) as caught:
            __main__.main()
        return int(caught.value.code or 0)

    with restored():
        yield run
