"""The stand-ins are as strict as what is published, or passing against them would mean nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.platforms.runpod import RunPod
from tests.support.platforms.server import KEY, READER, Asked
from tests.support.platforms.vast import Vast

BODY = {"name": "a", "image": "b"}


def ask(platform: Any, method: str, path: str, body: Any = None, key: str = KEY) -> Any:
    headers = {"Authorization": f"Bearer {key}", "User-Agent": "imagegen/1"}
    return platform.answer(Asked(method, path, {}, headers, body))


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"readme": "x"}, "$.readme: unevaluated property"),
        ({"imageName": "x"}, "$.imageName: unevaluated property"),
        ({"dockerStartCmd": []}, "$.dockerStartCmd: unevaluated property"),
        ({"name": ""}, "$.name: must be a string of at least 1 character"),
        ({"disk": 0}, "$.disk: must be an integer of at least 1"),
        ({"disk": "40"}, "$.disk: must be an integer of at least 1"),
        ({"disk": True}, "$.disk: must be an integer of at least 1"),
        ({"env": [{"key": "A", "value": "1"}]}, "$.env: must be an object of strings"),
        ({"env": {"A": 1}}, "$.env: must be an object of strings"),
        ({"ports": "8888/http"}, "$.ports: must be ports such as 8888/http"),
        ({"mounts": {"network": [{}]}}, "$.mounts: must have persistent"),
        ({"mounts": {"persistent": {"size": 9, "path": "/x"}}}, "$.mounts: must have persistent"),
        ({"mounts": {"persistent": {"size": 10}}}, "$.mounts: must have persistent"),
        ({"category": "nvidia"}, "$.category: must be one of"),
        ({"allowedCudaVersions": ["12"]}, "$.allowedCudaVersions: must match"),
    ],
)
def test_runpod_refuses_what_its_schema_does(more: dict[str, Any], fault: str) -> None:
    answer = ask(RunPod(), "POST", "/v2/templates", BODY | more)
    assert (answer.status, answer.kind) == (422, "application/problem+json")
    assert any(row.startswith(fault) for row in answer.body["errors"])


def test_runpod_wants_a_key_that_may_write_and_an_agent_of_one_s_own() -> None:
    one = RunPod()
    assert ask(one, "GET", "/v2/templates", key="x").status == 401
    assert ask(one, "POST", "/v2/templates", BODY, key=READER).status == 403
    assert ask(one, "POST", "/v2/templates", {"name": "a"}).status == 422
    headers = {"Authorization": f"Bearer {KEY}", "User-Agent": "python-requests/2"}
    assert one.answer(Asked("GET", "/v2/templates", {}, headers, None)).status == 403


SAVED = {"name": "a", "imageName": "b", "containerDiskInGb": 1, "volumeInGb": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"allowedCudaVersions": []}, 'Field "allowedCudaVersions" is not defined'),
        ({"imageName": None}, "imageName is None"),
        ({"ports": ["22/tcp"]}, "ports is"),
        ({"env": {}}, "env is"),
        ({"name": "taken"}, "Template name must be unique."),
        ({"portsConfig": [{"port": "80", "name": "x"}]}, "a label for a port that is not there"),
        ({"id": "none", "name": "b"}, "template not found"),
    ],
)
def test_graphql_refuses_with_a_status_of_200(changes: dict[str, Any], message: str) -> None:
    one = RunPod()
    one.put("taken")
    sent = SAVED | {"id": one.put("a")} | changes
    body = {"query": "mutation { saveTemplate }", "variables": {"input": sent}}
    answer = ask(one, "POST", "/graphql", body)
    assert answer.status == 200
    assert message in answer.body["errors"][0]["message"]
    asked = {"query": "query { myself { podTemplates { id portsConfig } } }"}
    assert "Cannot query field" in str(ask(one, "POST", "/graphql", asked).body["errors"])


def test_a_save_resets_what_it_is_not_told() -> None:
    one = RunPod()
    id_ = one.put("a", env={"A": "1"}, graph={"readme": "x", "dockerArgs": "y"})
    body = {"query": "mutation { saveTemplate }", "variables": {"input": SAVED | {"id": id_}}}
    assert ask(one, "POST", "/graphql", body).body == {"data": {"saveTemplate": {"id": id_}}}
    held = one.templates[id_]
    assert (held["env"], held["args"], held["graph"]["readme"]) == ({}, "", "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "Template name is required"),
        ({"ports": []}, "invalid column ports"),
        ({"env": {"A": "1"}}, "invalid column env"),
        ({"runtype": "ssh_direct"}, "runtype"),
        ({"onstart": "x" * 4097}, "exceeds max length"),
    ],
)
def test_vast_refuses_what_its_schema_does(changes: dict[str, Any], message: str) -> None:
    answer = ask(Vast(), "POST", "/api/v0/template/", BODY | changes)
    assert answer.status == 400 and not answer.body["success"]
    assert message in answer.body["msg"]


def test_vast_knows_its_content_again_and_its_hash_changes_with_it() -> None:
    one = Vast()
    first = ask(one, "POST", "/api/v0/template/", BODY).body
    again = ask(one, "POST", "/api/v0/template/", BODY).body
    assert (first["success"], again["success"]) == (True, False)
    assert first["template"]["id"] == again["template"]["id"]
    before = first["template"]["hash_id"]
    one.edit(first["template"]["id"], desc="x")
    assert one.templates[first["template"]["id"]]["hash_id"] != before
    assert ask(one, "DELETE", "/api/v0/template/", {"template_id": before}).status == 400
