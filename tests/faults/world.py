"""What a run needs: a registry behind a proxy, an engine, images in it, and pushes as processes."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from imagegen.matrix import project
from imagegen.model.target import Target
from tests.engine.stand_ins.engines import Engine, second_engine
from tests.engine.stand_ins.faulty import Asked, Proxy, Rule, faulty
from tests.engine.stand_ins.registries import Registry, docker, registry
from tests.faults import images

ROOT = Path(__file__).parents[2]
USER, PASSWORD = "user", "secret"
PATIENCE = 180.0
"""Seconds that a push may take."""
HASTE = 0.1
"""Of the pauses before something is tried again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """An image in the engine, and the tags that it is to have: its target's, and aliases."""

    archive: images.Archive
    target: Target
    aliases: tuple[str, ...]
    number: int

    @property
    def digest(self) -> str:
        """The image's."""
        return self.archive.digest

    @property
    def own(self) -> str:
        """The tag that never moves."""
        return f"{self.target.tag}-{self.digest.removeprefix('sha256:')[:12]}"


class Push:
    """A push under way."""

    def __init__(self, argv: Sequence[str], env: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as out:
            self._child = subprocess.Popen(
                argv, cwd=ROOT, env=env, stdout=out, stderr=out, start_new_session=True
            )

    @property
    def running(self) -> bool:
        """Whether it has begun and not ended."""
        return self._child.poll() is None and "begun" in self.log.read_text()

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._child.poll() is not None

    def kill9(self) -> None:
        """The process dies at once."""
        self._child.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        """Its exit status; a push that does not end is killed, which is 124."""
        try:
            return self._child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
            return 124


class World:
    """One registry and one engine; everything random comes from ``dice``."""

    def __init__(
        self, real: Registry, proxy: Proxy, engine: Engine | None, folder: Path, seed: int
    ) -> None:
        self.real, self.proxy, self.engine, self.folder = real, proxy, engine, folder
        self.seed(seed)
        self.requests = 0
        """That a push without a fault makes."""
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (folder / "config.json").write_text(json.dumps({"auths": {proxy.host: {"auth": pair}}}))
        found = project.load(ROOT / "dockerfiles/matrix.toml").resolution.targets
        ages = sorted(found, key=lambda one: (one.torch, one.cuda, one.os.version))
        self.targets = (ages[0], ages[len(ages) // 2], ages[-1])
        """An old one, the one that is pushed as the newest, and one that is newer than that."""
        self._number = 0
        self._refs: list[str] = []

    def seed(self, seed: int | str) -> None:
        """Throw all dice anew from here on."""
        self.dice = random.Random(seed)
        self.proxy.dice = random.Random(f"{seed} of the proxy")

    def make(self, target: Target, *aliases: str) -> Made:
        """A new image in the engine."""
        self._number += 1
        archive = images.made(self.folder, target.promise, self.dice)
        docker(*self._host, "load", "--input", str(archive.path))
        archive.path.unlink()
        self._refs.append(archive.ref)
        return Made(archive=archive, target=target, aliases=aliases, number=self._number)

    def pair(self) -> tuple[Made, Made]:
        """An old and a newer version, which both want to be the latest."""
        old, new, _ = self.targets
        return self.make(old, "latest"), self.make(new, "latest", "newest-but-one")

    def begin(self, name: str, orders: Sequence[Made]) -> Push:
        """Push to a repository of the registry, through the proxy."""
        rows = [
            {
                "repository": f"{self.proxy.host}/{name}",
                "target": one.target.id,
                "digest": one.digest,
                "key": one.archive.key,
                "aliases": one.aliases,
                "at": 1_800_000_000 + one.number,
            }
            for one in orders
        ]
        file = self.folder / f"{time.monotonic_ns()}.json"
        file.write_text(json.dumps(rows))
        env = {**os.environ, "DOCKER_CONFIG": str(self.folder)}
        if self.engine:
            env["DOCKER_HOST"] = self.engine.host
        argv = [sys.executable, "-m", "tests.faults.once", str(file), f"{HASTE}"]
        return Push(argv, env, file.with_suffix(".log"))

    def moment(self, then: Callable[[], object]) -> Rule:
        """Call ``then`` at some request of a push; that request arrives, in part, or not at all."""
        part = self.dice.choice([None, None, 0, self.dice.randrange(1, 300_000)])
        nth = self.dice.randrange(self.requests) + 1
        return self.rule(Rule(nth=nth, times=1, before=lambda _: then(), cut_request=part))

    def rule(self, rule: Rule) -> Rule:
        """Have the proxy follow one more rule."""
        self.proxy.rules.append(rule)
        return rule

    def point(self, name: str, tag: str, one: Made) -> None:
        """What somebody else does: move a tag to an image that is in the repository."""
        url = f"http://{self.real.host}/v2/{name}/manifests"
        held = requests.get(f"{url}/{one.own}", headers={"Accept": KIND}, timeout=30)
        held.raise_for_status()
        headers = {"Content-Type": held.headers["Content-Type"]}
        requests.put(f"{url}/{tag}", data=held.content, headers=headers, timeout=30)

    def mend(self) -> None:
        """End every fault."""
        self.proxy.rules.clear()
        self.proxy.clock, self.proxy.tokens = 0.0, None

    def tidy(self) -> None:
        """Take this run's images out of the engine, by the names too that a killed push left."""
        left = f"--filter=reference={self.proxy.host}/faults/*"
        form = "--format={{.Repository}}:{{.Tag}}"
        names = [*self._refs, *docker(*self._host, "images", form, left).split()]
        if names:
            docker(*self._host, "rmi", "--force", *names)
            self._refs.clear()

    @property
    def _host(self) -> tuple[str, ...]:
        return ("--host", self.engine.host) if self.engine else ()


KIND = f"{images.KIND}.manifest.v1+json"


@contextmanager
def world(image: str, seed: int, *, disk: int = 0, own_engine: bool = False) -> Iterator[World]:
    """A registry of ``image``, limited to ``disk`` bytes, and an engine that may be killed."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imagegen-faults-")))
        real = stack.enter_context(registry(image, disk=disk))
        proxy = stack.enter_context(faulty(real.host, seed=seed))
        engine = stack.enter_context(second_engine()) if own_engine else None
        made = World(real, proxy, engine, folder, seed)
        stack.callback(made.tidy)
        yield made


def log_of(push: Push) -> str:
    """The end of what a push said."""
    return "\n".join(push.log.read_text(errors="replace").splitlines()[-12:])


def digest_of(asked: Asked, name: str, real: Registry) -> str:
    """The digest that a PUT was about, once the registry took it."""
    if asked.digest:
        return asked.digest
    return _there(asked, name, real).headers["Docker-Content-Digest"]


def blobs_of(asked: Asked, name: str, real: Registry) -> list[str]:
    """What a manifest that was put names: its configuration and layers."""
    row = _there(asked, name, real).json()
    return [one["digest"] for one in (row["config"], *row["layers"])]


def _there(asked: Asked, name: str, real: Registry) -> requests.Response:
    """The manifest that a PUT was about."""
    url = f"http://{real.host}/v2/{name}/manifests/{asked.path.rpartition('/')[2]}"
    accept = f"{KIND}, {images.KIND}.index.v1+json"
    answer = requests.get(url, headers={"Accept": accept}, timeout=30)
    answer.raise_for_status()
    return answer
