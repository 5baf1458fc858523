"""What goes with an image: made once, and nothing of the machine that made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from imagegen.build.options import Options
from imagegen.commands import push as command
from imagegen.engine.docker import Docker
from imagegen.errors import ChecksFailed, EngineError
from imagegen.model.report import Tested
from imagegen.publish import attestations
from imagegen.publish import push as publish
from imagegen.publish.push import PushResult, Upload
from tests.support import values
from tests.support.logs import listening
from tests.support.values import DEMO, PROJECT, built

STATEMENT: dict[str, Any] = {
    "predicateType": "x",
    "predicate": {"invocation": {"parameters": {"args": {"label:imagegen.key": "x"}}}},
}


class Engine:
    """Has the index beside an image, with this statement in it."""

    def __init__(self, statement: dict[str, Any]) -> None:
        self.body = json.dumps(statement).encode()
        self.read: list[str] = []
        self.removed: list[str] = []

    def local(self, _ref: str) -> object:
        return object()

    def statement(self, ref: str, _digest: str) -> bytes:
        self.read.append(ref)
        return self.body

    def remove(self, ref: str) -> None:
        self.removed.append(ref)


def provenance(engine: Engine, folder: Path) -> bytes:
    return attestations.provenance(cast(Docker, engine), built(), folder)


def test_provenance_is_read_once(tmp_path: Path) -> None:
    engine = Engine(STATEMENT)
    assert provenance(engine, tmp_path) == provenance(engine, tmp_path) == engine.body
    assert len(engine.read) == 1
    assert engine.removed


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"build-arg:HTTP_PROXY": "http://127.0.0.1:3128"}, "HTTP_PROXY of this machine"),
        ({"build-arg:REGISTRY": "https://me:secret@registry.example"}, "a login"),
    ],
)
@pytest.mark.parametrize("version", ["0.2", "1"])
def test_nothing_of_this_machine_is_published(
    tmp_path: Path, args: dict[str, str], why: str, version: str
) -> None:
    place: dict[str, Any] = {"invocation": {"parameters": {"args": args}}}
    if version == "1":
        place = {"buildDefinition": {"externalParameters": {"request": {"args": args}}}}
    engine = Engine(STATEMENT | {"predicate": place})
    for _ in range(2):  # what was kept is looked at again
        with listening() as heard:
            assert provenance(engine, tmp_path) == b""
        assert why in "".join(heard)
        assert "secret" not in "".join(heard)
    assert len(engine.removed) == 2


def test_one_image_that_cannot_be_looked_into_keeps_no_other_from_being_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = [target for target in PROJECT.resolution.targets if target.profile == "demo"][:3]
    tested = [
        values.as_tested("pass", "pass", "pass", of=built(one, digest=f"sha256:{i:064x}"))
        for i, one in enumerate(others)
    ]
    sent: list[Upload] = []

    def looked_into(_engine: Docker, one: Tested) -> tuple[bytes, bytes]:
        if one is tested[0]:
            raise EngineError("its python3 exited 137")
        return b"", b""

    def push(_engine: Docker, uploads: list[Upload], *_: Any, **__: Any) -> Any:
        sent.extend(uploads)
        return PushResult(pushed=())

    failure = ChecksFailed("that did not pass")
    monkeypatch.setattr(command, "_reusable", lambda *_: {})
    monkeypatch.setattr(command, "_tested", lambda *_: (tested, {"another": failure}))
    monkeypatch.setattr(command, "attestations_of", looked_into)
    monkeypatch.setattr(publish, "push", push)
    options = Options(repositories=("registry.example/me/x",))
    done = command.push(PROJECT, lambda: cast(Docker, None), [DEMO.id], options)
    assert [one.tested for one in sent] == tested[1:]
    assert set(done.failed) == {others[0].id, "another"}
    with pytest.raises(ChecksFailed, match="exited 137"):
        command.delivered(done)
