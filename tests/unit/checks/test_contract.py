"""The frame of the contract suites: what a check may cost, how it ends, and what a pod's own
tables say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from imagegen.checks import contract
from imagegen.checks.contract import Settings, Suite, Trial
from imagegen.checks.pod import Failed, Pod, Skip, need, same
from imagegen.engine.container import Box, Start, State
from imagegen.engine.docker import Docker
from imagegen.errors import EngineError, UsageError
from imagegen.model.report import Check
from imagegen.platforms.runpod.contract_image import Said, differences, said_by_label, said_by_tag
from imagegen.util.process import Ran
from tests.support.values import DEMO


class Container:
    """A box that answers without an engine."""

    host = "127.0.0.1"

    def __init__(self, *, running: bool = True, tables: str = "") -> None:
        self.running, self.tables, self.began = running, tables, time.monotonic()

    def state(self) -> State:
        return State(running=self.running, restarts=0, code=0)

    def logs(self, _: int = 200) -> str:
        return "its last words"

    def run(self, *_: str) -> Ran:
        return Ran(code=0, out=self.tables, err="")


class Engine:
    """Starts boxes and knows which are still there."""

    def __init__(self, labels: Mapping[str, str] | None = None, **box: Any) -> None:
        self.labels, self.box = labels, box
        self.started: list[Start] = []
        self.here = 0

    def config(self, _: str) -> Mapping[str, Any]:
        return {"Config": {"Labels": self.labels, "Env": ["A=b=c", "EMPTY="]}}

    def container(self, _: str, start: Start) -> AbstractContextManager[Box]:
        return self._container(start)

    @contextmanager
    def _container(self, start: Start) -> Iterator[Box]:
        if start.network == "none":
            raise EngineError("refused")
        self.started.append(start)
        self.here += 1
        try:
            yield cast(Box, Container(**self.box))
        finally:
            self.here -= 1


def ran(
    *bodies: Callable[[Trial], str],
    engine: Engine | None = None,
    settings: Settings | None = None,
    **options: Any,
) -> list[Check]:
    suite = Suite("runpod")
    for body in bodies:
        suite.clause("a bug", **options)(body)
    with_settings = settings or Settings(patience=0.2)
    found = contract.run(suite, cast(Docker, engine or Engine()), "x", with_settings)
    return list(found)


def outcomes(checks: list[Check]) -> list[tuple[str, str]]:
    return [(check.status, check.detail) for check in checks]


def r1_passes(trial: Trial) -> str:
    return "seen"


def r2_fails(trial: Trial) -> str:
    same("the answer", 42, 41)
    return "not reached"


def r3_skips(trial: Trial) -> str:
    raise Skip("nothing to compare with")


def r4_breaks(trial: Trial) -> str:
    return str({}["reply"])


def r5_has_no_engine(trial: Trial) -> str:
    raise EngineError("the engine refused")


def test_each_way_to_end_is_told_apart() -> None:
    found = ran(r1_passes, r2_fails, r3_skips, r4_breaks, r5_has_no_engine)
    assert [check.name for check in found] == [
        *("r1_passes", "r2_fails", "r3_skips", "r4_breaks", "r5_has_no_engine"),
    ]
    assert outcomes(found) == [
        ("pass", "seen"),
        ("fail", "the answer: expected 42, found 41"),
        ("skip", "nothing to compare with"),
        ("fail", "KeyError: 'reply'"),
        ("fail", "the engine refused"),
    ]
    assert {(check.level, check.guards) for check in found} == {("runpod", "a bug")}


def test_what_a_check_cannot_do_without_is_a_skip_and_not_a_pass() -> None:
    (found,) = ran(r1_passes, needs="gpu")
    assert (found.status, found.detail) == ("skip", "needs a GPU")


def test_with_a_gpu_the_checks_of_a_gpu_run() -> None:
    (found,) = ran(r1_passes, needs="gpu", settings=Settings(gpus=True))
    assert found.status == "pass"


def test_a_check_that_hangs_fails_and_its_containers_are_gone() -> None:
    engine, held = Engine(), threading.Event()

    def r1_hangs(trial: Trial) -> str:
        with trial.started(Start()):
            held.wait(10)
        return "too late"

    start = time.monotonic()
    found = ran(r1_hangs, r1_passes, engine=engine, timeout=0.1)
    assert outcomes(found) == [("fail", "no result within 0.1 s"), ("pass", "seen")]
    assert time.monotonic() - start < 5
    assert engine.started
    assert engine.here == 0
    held.set()


def test_a_check_that_was_left_behind_starts_nothing_more() -> None:
    engine, go, over = Engine(), threading.Event(), threading.Event()
    said: list[str] = []

    def r1_hangs(trial: Trial) -> str:
        go.wait(10)
        for start in (lambda: trial.pod("late", Start()), lambda: trial.once("true")):
            try:
                start()
            except Failed as failure:
                said.append(str(failure))
        over.set()
        return "too late"

    ran(r1_hangs, engine=engine, timeout=0.1)
    go.set()
    assert over.wait(10)
    assert said == ["this check was left behind"] * 2
    assert not engine.started


def test_a_name_that_no_check_has_is_a_usage_error() -> None:
    suite = Suite("runpod")
    suite.clause("a bug")(r1_passes)
    suite.clause("a bug")(r2_fails)
    engine = cast(Docker, Engine())
    with pytest.raises(UsageError, match="runpod has no check R9") as caught:
        contract.run(suite, engine, "x", Settings(), ("r1_passes", "R9"))
    assert caught.value.hint == "r1_passes, r2_fails"
    (only,) = contract.run(suite, engine, "x", Settings(), ("r1_passes",))
    assert only.name == "r1_passes"


# --- pods that checks share -----------------------------------------------------------------------


def test_a_shared_pod_starts_once_and_ends_with_the_suite() -> None:
    engine, here = Engine(), list[int]()

    def r1_uses(trial: Trial) -> str:
        pods = {id(trial.pod("one", Start())) for _ in range(3)}
        here.append(engine.here)
        return str(len(pods))

    found = ran(r1_uses, r1_passes, engine=engine)
    assert outcomes(found) == [("pass", "1"), ("pass", "seen")]
    assert here == [1]
    assert engine.here == 0


def test_every_check_hears_why_a_shared_pod_did_not_start() -> None:
    def first(trial: Trial) -> str:
        trial.pod("one", Start(network="none"))
        return ""

    def second(trial: Trial) -> str:
        return first(trial)

    assert outcomes(ran(first, second)) == [("fail", "refused")] * 2


def test_pods_start_ahead_of_the_checks_of_a_whole_suite_only() -> None:
    suite, engine = Suite("runpod"), Engine()
    started = threading.Event()

    @suite.ahead
    def full(trial: Trial) -> Pod:
        pod = trial.pod("full", Start(ports=(22,)))
        started.set()
        return pod

    @suite.ahead
    def broken(trial: Trial) -> Pod:
        return trial.pod("broken", Start(network="none"))

    @suite.clause("a bug")
    def r1_waits(trial: Trial) -> str:
        return str(started.wait(5))

    suite.clause("a bug")(r1_passes)
    as_docker = cast(Docker, engine)
    contract.run(suite, as_docker, "x", Settings(), ("r1_passes",))
    assert not engine.started
    found = contract.run(suite, as_docker, "x", Settings())
    assert outcomes(list(found)) == [("pass", "True"), ("pass", "seen")]
    assert len(engine.started) == 1
    assert engine.here == 0


# --- a pod ----------------------------------------------------------------------------------------


def pod(patience: float = 0.3, **box: Any) -> Pod:
    class Patient:
        settings = Settings(patience=patience)

    return Pod(cast(Trial, Patient()), cast(Box, Container(**box)))


def test_waiting_ends_with_the_patience_and_says_what_the_pod_said() -> None:
    with pytest.raises(Failed, match=r"SSH: not within 0 s; it said: 'its last words'"):
        pod().until(lambda: False, "SSH")


def test_waiting_ends_with_the_pod() -> None:
    start = time.monotonic()
    with pytest.raises(Failed, match="SSH: the pod ended"):
        pod(patience=60, running=False).until(lambda: False, "SSH")
    assert time.monotonic() - start < 5


def test_a_pod_that_has_had_its_time_gets_a_quarter_of_it_again() -> None:
    old = pod(patience=2)
    old.box.began -= 100
    start = time.monotonic()
    with pytest.raises(Failed, match=r"not within 10[0-3] s"):
        old.until(lambda: False, "SSH")
    assert 0.4 < time.monotonic() - start < 2
    assert old.until(lambda: True, "SSH") >= 100


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0B00007F:9A3B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1
   3: 020011AC:0050 010011AC:C001 01 00000000:00000000 00:00000000 00000000     0        0 4 1
  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000000000000:22B8 00000000000000000000000000000000:0000 0A 00000000:0
   1: 00000000000000000000000001000000:1770 00000000000000000000000000000000:0000 0A 00000000:0
   2: 0000000000000000FFFF00000100007F:1771 00000000000000000000000000000000:0000 0A 00000000:0
   3: B80D01200000000000000000017F007F:1772 00000000000000000000000000000000:0000 0A 00000000:0
"""


def test_what_listens_is_read_from_the_tables_of_both_protocols() -> None:
    one = pod(tables=TABLE)
    assert one.listening() == {22, 8080, 8888, 6000, 6001, 6002}
    assert one.listening(loopback=False) == {22, 8888, 6002}
    with pytest.raises(Failed, match="expected the pod's ports, found ''"):
        pod(tables="").listening()


# --- a trial --------------------------------------------------------------------------------------


def seen(engine: Engine, settings: Settings, look: Callable[[Trial], object]) -> object:
    found: list[object] = []

    def r1_looks(trial: Trial) -> str:
        found.append(look(trial))
        return ""

    (check,) = ran(r1_looks, engine=engine, settings=settings)
    need(check.status == "pass", check.detail)
    return found[0]


def test_the_promise_is_given_or_the_label_s_or_none() -> None:
    labelled = Engine({"imagegen.target": '{"torch": "2.11.0"}'})
    assert seen(labelled, Settings(), lambda t: t.promise) == {"torch": "2.11.0"}
    given = Settings(promise={"torch": "2.14.0"})
    assert seen(labelled, given, lambda t: t.promise) == {"torch": "2.14.0"}
    assert seen(Engine(), Settings(), lambda t: t.promise) == {}


def test_the_image_s_environment_is_split_at_the_first_sign() -> None:
    found = seen(Engine(), Settings(), lambda t: t.environment)
    assert found == {"A": "b=c", "EMPTY": ""}


@pytest.mark.process
def test_a_key_is_made_once_and_its_public_half_lies_beside_it() -> None:
    def look(trial: Trial) -> tuple[set[Path], list[str], str, int]:
        files = [trial.key(kind) for kind in ("ed25519", "ecdsa", "ed25519")]
        publics = [trial.public("ed25519"), trial.public("ed25519"), trial.public("ecdsa")]
        modes = {file.stat().st_mode & 0o777 for file in files}
        return set(files), publics, files[0].read_text(), max(modes)

    found = seen(Engine(), Settings(), look)
    files, publics, private, mode = cast(tuple[set[Path], list[str], str, int], found)
    assert len(files) == 2
    assert publics[0] == publics[1] != publics[2]
    assert publics[0].startswith("ssh-ed25519 ")
    assert publics[2].startswith("ecdsa-sha2-nistp256 ")
    assert "OPENSSH PRIVATE KEY" in private
    assert mode == 0o600
    assert not any(file.exists() for file in files)


# --- what a tag says ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        (
            "torch2.11.0-cu1302-cuda-13.0-py3.11-debian12-slim",
            Said(torch="2.11.0", cuda="13.0", python="3.11", os="debian12"),
        ),
        (
            "1.0.3-cu1281-torch280-ubuntu2404",
            Said(torch="2.8.0", cuda="12.8", os="ubuntu24.04"),
        ),
        (
            "2.10.0-cu128-cuda-12.9-mini-py312-2026-06-15",
            Said(torch_cuda="12.8", cuda="12.9", python="3.12"),
        ),
        ("main-base-py3.12-cu130-2.13.0", Said(torch_cuda="13.0", python="3.12")),
        ("torch2101-cuda13.1.0-python-3.13-ubuntu-22.04", Said(
            torch="2.10.1", cuda="13.1", python="3.13", os="ubuntu22.04")),
        ("0.7.0-cuda1281-ubuntu2204", Said(cuda="12.8", os="ubuntu22.04")),
        ("latest", Said()),
        ("py311-debian12", Said(python="3.11", os="debian12")),
    ],
)  # fmt: skip
def test_a_tag_says_versions(tag: str, said: Said) -> None:
    assert said_by_tag(tag) == said


def test_our_own_tag_and_label_agree() -> None:
    label, by_tag = said_by_label(DEMO.promise), said_by_tag(DEMO.tag)
    assert label.flash_attn == str(DEMO.flash_attn and DEMO.flash_attn.version)
    for name in ("torch", "cuda", "python", "os"):
        assert getattr(label, name) == getattr(by_tag, name) != ""


def test_what_differs_is_named_with_both_sides() -> None:
    found = {
        "torch": "2.4.1",
        "torch_cuda": "12.4",
        "nvcc": "",
        "python": "3.11",
        "os": "ubuntu24.04",
        "flash_attn": "2.8.3",
    }
    said = Said(torch="2.4", torch_cuda="12.8", cuda="12.8", python="3.1", os="ubuntu24.04")
    assert differences(said, found) == [
        "torch.version.cuda: expected 12.8, found 12.4",
        "nvcc: expected 12.8, found none",
        "python: expected 3.1, found 3.11",
    ]
    assert differences(Said(), found) == []
