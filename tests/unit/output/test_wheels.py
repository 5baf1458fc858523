"""How wheels are reported."""

from __future__ import annotations

import json
from typing import Any

from imagegen.commands.wheels import cut
from tests.support.values import DEMO, PROJECT


def test_a_plan_for_a_workflow_is_one_line(line: Any, capsys: Any) -> None:
    """A job's output is a line; what follows a line's end would be another output, or an error."""
    assert line("wheel", "plan", DEMO.id, "--shards", "3", "--format", "github") == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    rows = json.loads(out)["include"]
    assert rows == [{"id": DEMO.id, "shard": f"{k}/3"} for k in (1, 2, 3)]
    assert [part.name for part in cut(PROJECT, [DEMO.id], 3)] == [row["shard"] for row in rows]


def test_a_stores_login_is_in_no_answer(
    line: Any, capsys: Any, monkeypatch: Any, tmp_path: Any
) -> None:
    """IMAGEGEN_WHEELS with a login in it is in the environment of every CI job."""
    monkeypatch.setattr("imagegen.wheels.http.HttpStore.find", lambda *_: None)
    place = "https://bob:hunter2@x.example/w"
    for words in (
        ("why", "--torch", "2.11", "--python", "3.12", "--wheels", place),
        ("why", "--torch", "2.11", "--python", "3.12", "--wheels", place, "--format", "json"),
        ("wheel", "list", DEMO.id, "--wheels", place),
        ("wheel", "list", DEMO.id, "--wheels", place, "--format", "json"),
    ):
        assert line(*words) == 0
        said = capsys.readouterr()
        assert "x.example" in said.out
        assert "hunter2" not in said.out + said.err
