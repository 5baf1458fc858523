"""What a platform and a pod's user ask of an image, tried from outside: the frame of the suites.

A suite runs on any image, on the engine of this machine, with this machine's own ``ssh``. What a
user would do over SSH or HTTP is done so; only what a platform does happens inside the container.
"""

from __future__ import annotations

import json
import logging
import queue
import secrets
import shlex
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagegen.checks.pod import Failed, Pod, Skip, need
from imagegen.errors import EngineError, UsageError
from imagegen.model.report import Check, Level, Status
from imagegen.util import process
from imagegen.util.process import Ran

if TYPE_CHECKING:
    from imagegen.engine.container import Start
    from imagegen.engine.docker import Docker

log = logging.getLogger(__name__)


LABEL = "imagegen.target"
"""The label in which an image of ours says what is in it."""

NASTY: Mapping[str, str] = {
    "FOO": 'a b"$c',
    "IMAGEGEN_QUOTES": 'it\'s "quoted" \\ \\n `id` $(touch /tmp/imagegen-ran)',
    "IMAGEGEN_LINES": "one\nIMAGEGEN_STRAY=two\n\nthree",
    "IMAGEGEN_EMPTY": "",
    "imagegen_lower": "é 漢",
}
"""Values of the environment that only exact handling carries to a user's processes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clause:
    """One check of a contract: ``body`` returns a detail or raises ``Failed``.

    ``needs`` is what it cannot do without: nothing, or a ``gpu``.
    """

    name: str
    guards: str
    body: Callable[[Trial], str]
    needs: str = ""
    timeout: float = 90


class Suite(dict[str, Clause]):
    """The checks of one contract by name, in the order in which they run."""

    def __init__(self, level: Level) -> None:
        super().__init__()
        self.level = level
        self.early: list[Callable[[Trial], Pod]] = []

    def clause(
        self, guards: str, *, needs: str = "", timeout: float = 90
    ) -> Callable[[Callable[[Trial], str]], Callable[[Trial], str]]:
        """Add the decorated function under its own name, which begins with the clause's number."""

        def add(body: Callable[[Trial], str]) -> Callable[[Trial], str]:
            name = body.__name__
            self[name] = Clause(name=name, guards=guards, body=body, needs=needs, timeout=timeout)
            return body

        return add

    def ahead(self, pod: Callable[[Trial], Pod]) -> Callable[[Trial], Pod]:
        """Start what the decorated function gives as the suite begins, beside the first checks."""
        self.early.append(pod)
        return pod


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How patient a trial is, in seconds, and what it may use.

    ``patience``: what a pod may take until it answers. ``settle``: how long a pod must stay up
    before it counts as one that does. ``promise``: what the image's maker says is in it, as
    target.json has it. ``digest``: which bytes are tried under the image's name.
    """

    patience: float = 30
    settle: float = 30
    gpus: bool = False
    promise: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""


class Trial:
    """One image on trial: its configuration, keys, and pods that several checks share."""

    def __init__(
        self, engine: Docker, ref: str, folder: Path, settings: Settings, stack: ExitStack
    ) -> None:
        self.engine, self.ref, self.settings = engine, ref, settings
        self.bytes = settings.digest or ref
        """Its name or digest, by which the engine finds the very bytes that are on trial."""
        self._folder, self._stack, self._pods = folder, stack, dict[str, Future[Pod]]()
        self._lock, self.over = threading.Lock(), threading.Event()
        self._answers = dict[str, Any]()
        self.token = secrets.token_urlsafe(24)
        """What the pods of this trial have for Jupyter."""

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """docker's ``image inspect``."""
        return self.engine.config(self.bytes)

    @cached_property
    def promise(self) -> Mapping[str, Any]:
        """What the image's maker says is in it: given, or its label; empty if nobody says."""
        label = (self.config["Config"].get("Labels") or {}).get(LABEL)
        return self.settings.promise or (json.loads(label) if label else {})

    @cached_property
    def environment(self) -> Mapping[str, str]:
        """The image's own variables."""
        return dict(pair.split("=", 1) for pair in self.config["Config"].get("Env") or ())

    def key(self, kind: str = "ed25519") -> Path:
        """The private key of that kind (ed25519, ecdsa, rsa); its public half ends in .pub."""
        file, how = self._folder / kind, ("-q", "-t", kind, "-N", "", "-C", kind)
        with self._lock:
            if not file.exists():
                process.run("ssh-keygen", *how, "-f", file, timeout=60)
        return file

    def public(self, kind: str = "ed25519") -> str:
        """The public key of that kind, one line."""
        return self.key(kind).with_suffix(".pub").read_text().strip()

    def once(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        entrypoint: tuple[str, ...] = (),
        network: str = "bridge",
        gpus: bool = False,
        timeout: float = 60,
    ) -> Ran:
        """Run a command in a new container of the image, through its own ENTRYPOINT or another."""
        from imagegen.engine.container import Start

        start = Start(
            command=argv, env=env or {}, entrypoint=entrypoint, network=network, gpus=gpus
        )
        with self.started(start) as pod:
            return pod.box.wait(timeout)

    def answer(self, *argv: str, **how: Any) -> str:
        """The output of a command that must succeed in a new container; ``how`` as for ``once``."""
        done = self.once(*argv, **how)
        said = f"found {done.code}: {(done.err or done.out).strip()[-400:]}"
        need(done.code == 0, f"`{shlex.join(argv)[:120]}`: expected exit status 0, {said}")
        return done.out

    def asked(self, what: str, how: Callable[[], Any]) -> Any:
        """What ``how`` found out about the image, which several checks ask."""
        if what not in self._answers:
            self._answers[what] = how()
        return self._answers[what]

    @contextmanager
    def started(self, start: Start) -> Iterator[Pod]:
        """A pod of its own for one check."""
        need(not self.over.is_set(), "this check was left behind")
        with ExitStack() as own:
            self._stack.callback(own.close)  # gone too when the check is left behind
            pod = Pod(self, own.enter_context(self.engine.container(self.bytes, start)))
            need(not self.over.is_set(), "this check was left behind")  # while it was made
            yield pod

    def pod(self, name: str, start: Start) -> Pod:
        """The pod that the checks of a suite share under ``name``; started when first asked for."""
        with self._lock:
            first = name not in self._pods
            pod = self._pods.setdefault(name, Future())
        if first:
            try:
                pod.set_result(self._stack.enter_context(self.started(start)))
            except BaseException as error:  # all who wait for it hear why there is none
                pod.set_exception(error)
        return pod.result()


def run(
    suite: Suite, engine: Docker, ref: str, settings: Settings, only: tuple[str, ...] = ()
) -> tuple[Check, ...]:
    """Run a suite, or the checks ``only`` of it, on a local image.

    Raises:
        UsageError: the suite has no check of a name in ``only``.
        EngineError: the engine fails, or this machine has no OpenSSH client.
    """
    if unknown := sorted(set(only) - suite.keys()):
        raise UsageError(f"{suite.level} has no check {unknown[0]}", hint=", ".join(suite))
    checks = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        trial = Trial(engine, ref, Path(folder), settings, stack)
        ahead = threading.Thread(target=_begin, args=(trial, () if only else suite.early))
        ahead.start()
        try:
            for clause in suite.values():
                if only and clause.name not in only:
                    continue
                start = time.monotonic()
                status, detail = _outcome(clause, trial)
                seconds = round(time.monotonic() - start, 3)
                check = Check(
                    level=suite.level,
                    name=clause.name,
                    status=status,
                    detail=detail,
                    seconds=seconds,
                    guards=clause.guards,
                    needs=clause.needs,
                )
                log.info(f"{status:4} {clause.name} ({seconds:.1f} s) {detail}")
                checks.append(check)
        finally:
            trial.over.set()
            ahead.join()
    return tuple(checks)


def _begin(trial: Trial, pods: Sequence[Callable[[Trial], Pod]]) -> None:
    for pod in pods:
        with suppress(Failed, EngineError):  # the checks that need it say so
            pod(trial)


def _outcome(clause: Clause, trial: Trial) -> tuple[Status, str]:
    """Run one check, for as long as it may take."""
    if clause.needs == "gpu" and not trial.settings.gpus:
        return "skip", "needs a GPU"
    result: queue.Queue[tuple[Status, str]] = queue.Queue()
    # A thread that hangs is left behind: its containers go, and then whatever it waits for.
    threading.Thread(target=_tried, args=(clause, trial, result), daemon=True).start()
    try:
        return result.get(timeout=clause.timeout)
    except queue.Empty:
        return "fail", f"no result within {clause.timeout:g} s"


def _tried(clause: Clause, trial: Trial, result: queue.Queue[tuple[Status, str]]) -> None:
    try:
        result.put(("pass", clause.body(trial)))
    except Skip as reason:
        result.put(("skip", str(reason)))
    except Failed as failure:
        result.put(("fail", str(failure)))
    except EngineError as error:
        result.put(("fail", str(error)))
    except Exception as error:  # a reply of a shape that nobody expected is the image's fault
        result.put(("fail", f"{type(error).__name__}: {error}"))
