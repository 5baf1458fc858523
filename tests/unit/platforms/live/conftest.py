"""The stand-ins, and imagegen's own client and command line against them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from imagegen.commands import published, templates
from imagegen.model.pushed import Pushed
from imagegen.platforms import PLATFORMS, api
from imagegen.platforms.apply import ApplyOptions, Outcome
from imagegen.platforms.ledger import Ledger
from tests.support.line import Ended, ended
from tests.support.logs import listening
from tests.support.platforms.runpod import RunPod
from tests.support.platforms.server import KEY, Platform, served
from tests.support.platforms.vast import Vast
from tests.support.values import FACTS, ROOT, pushed
from tests.unit.platforms.live import cli

QUICK = api.Patience(
    connect=5,
    silence=0.5,
    sending=(5, 0.5),
    answer=1.0,
    pauses=(0.01, 0.02),
    longest=0.5,
    stale=(0.01,) * 6,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("loopback")


@dataclass
class Client:
    """One platform's templates as a user's commands see them."""

    platform: Any
    ledger: Path
    key: str = KEY
    said: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return "runpod" if isinstance(self.platform, RunPod) else "vast"

    def run(self, *images: Pushed, key: str = "", **options: Any) -> Outcome:
        """The command, in this process; --apply if nothing else is said."""
        how = ApplyOptions(**({"apply": True} | options))
        asked = api.Api(
            PLATFORMS[self.name], self.platform.url, api.Key(key or self.key, "KEY"), QUICK
        )
        wanted = images or (pushed(),)
        with listening() as lines:
            try:
                found = templates.run(self.name, wanted, FACTS, how, self.ledger, asked)
            finally:
                self.said += lines
        templates.complete(found)
        return found

    def actions(self, *images: Pushed, **options: Any) -> list[str]:
        return [one.change.action for one in self.run(*images, **options).done]

    @property
    def book(self) -> Ledger:
        return Ledger(self.ledger)

    @property
    def live(self) -> list[dict[str, Any]]:
        return list(self.platform.templates.values())

    def words(self) -> list[str]:
        return ["template", self.name, "--ledger", str(self.ledger)]

    def environment(self, **changes: str) -> dict[str, str]:
        prefix = "RUNPOD" if self.name == "runpod" else "VAST"
        dropped = ("IMAGEGEN_", "RUNPOD_", "VAST_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        own = {f"{prefix}_API_KEY": self.key, f"{prefix}_API_URL": self.platform.url}
        return kept | own | changes

    def line(self, *words: str, before: tuple[str, ...] = (), **changes: str) -> Ended:
        """The command line, in this process, with the images that ``cli`` gives it."""
        environment = self.environment(**changes)
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ.keys() - environment.keys():
                patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.chdir(ROOT)
            patch.setattr(published, "published", cli.published)
            patch.setattr(api, "Patience", lambda: QUICK)
            return ended(*before, *self.words(), *words)

    @contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """The same as a process of its own, to be killed on the way."""
        argv = [sys.executable, "-m", "tests.unit.platforms.live.cli", *self.words(), *words]
        with subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=self.environment(),
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def client(platform: Platform, folder: Path) -> Iterator[Client]:
    with served(platform):
        yield Client(platform, folder / "templates.json")


@pytest.fixture
def runpod(tmp_path: Path) -> Iterator[Client]:
    yield from client(RunPod(), tmp_path)


@pytest.fixture
def vast(tmp_path: Path) -> Iterator[Client]:
    yield from client(Vast(), tmp_path)
