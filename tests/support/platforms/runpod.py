"""A stand-in for api.runpod.io that follows what is published of it, strictly.

REST: runpod/docs, api-reference-v2/openapi.json, 2026-08-20: CreateTemplateRequest and
UpdateTemplateRequest (ContainerConfig and TemplateMounts with them, ``unevaluatedProperties:
false``), Template, ListTemplatesResponse, Registry; errors as in migrate-from-v1 (RFC 9457) and a
422 that a third party recorded. GraphQL: runpod/docs, GraphQL manage-pod-templates (required
arguments, unique names, errors with a status of 200), and runpod/runpodctl,
internal/api/template_port_labels.go, 2026-08 (which fields are read and sent, readers that are
behind, a save that resets what is not sent).

What nobody has verified is a switch: whether names are unique for REST, whether a PATCH of ``env``
replaces or merges, whether a save resets allowedCudaVersions, whether a PATCH drops the README.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.platforms.server import KEY, READER, Answer, Asked, Platform

Check = Callable[[Any], bool]


def integer(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def texts(value: Any, pattern: str = r"(?s).*") -> bool:
    return isinstance(value, list) and all(
        isinstance(one, str) and re.fullmatch(pattern, one) for one in value
    )


def env(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= 50
        and all(isinstance(one, str) for pair in value.items() for one in pair)
    )


def mounts(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {"persistent"}:
        return False  # network volumes are refused in a template
    one = value.get("persistent", {"size": 10, "path": "/x"})
    return (
        isinstance(one, dict)
        and one.keys() == {"size", "path"}
        and integer(one["size"], 10)
        and isinstance(one["path"], str)
    )


def boolean(value: Any) -> bool:
    return isinstance(value, bool)


FIELDS: dict[str, tuple[Check, str]] = {
    "name": (lambda v: isinstance(v, str) and bool(v), "must be a string of at least 1 character"),
    "image": (lambda v: isinstance(v, str), "must be a string"),
    "args": (lambda v: isinstance(v, str), "must be a string"),
    "disk": (lambda v: integer(v, 1), "must be an integer of at least 1"),
    "env": (env, "must be an object of strings"),
    "ports": (lambda v: texts(v, r"\d{1,5}/(http|tcp)"), "must be ports such as 8888/http"),
    "registry": (lambda v: v is None or isinstance(v, str), "must be a string or null"),
    "mounts": (mounts, "must have persistent with size (at least 10) and path"),
    "category": (lambda v: v in ("CPU", "NVIDIA", "AMD"), "must be one of CPU, NVIDIA, AMD"),
    "public": (boolean, "must be a boolean"),
    "serverless": (boolean, "must be a boolean"),
    "startSsh": (boolean, "must be a boolean"),
    "startJupyter": (boolean, "must be a boolean"),
    "allowedCudaVersions": (lambda v: texts(v, r"\d+\.\d+"), r"must match ^\d+\.\d+$"),
}
DEFAULTS: dict[str, Any] = {
    "args": "",
    "disk": 20,
    "env": {},
    "ports": [],
    "registry": None,
    "mounts": {},
    "category": "NVIDIA",
    "public": False,
    "serverless": False,
    "startSsh": True,
    "startJupyter": True,
    "allowedCudaVersions": [],
}
READABLE = {
    *("id", "name", "imageName", "dockerArgs", "ports", "volumeMountPath", "volumeInGb", "env"),
    *("containerDiskInGb", "containerRegistryAuthId", "startJupyter", "startSsh", "startScript"),
    *("isServerless", "isPublic", "readme", "advancedStart", "category", "key", "value"),
}
SAVED: dict[str, Any] = {
    "id": "",
    "name": "",
    "imageName": "",
    "dockerArgs": "",
    "env": [],
    "ports": "",
    "portsConfig": [],
    "volumeInGb": 0,
    "volumeMountPath": "",
    "containerDiskInGb": 0,
    "containerRegistryAuthId": "",
    "startJupyter": True,
    "startSsh": True,
    "startScript": "",
    "isServerless": False,
    "isPublic": False,
    "readme": "",
    "advancedStart": False,
    "category": "NVIDIA",
    "executionTimeout": 0,
}
REQUIRED = {"containerDiskInGb", "imageName", "name", "volumeInGb"}


def problem(status: int, title: str, detail: str, *errors: str) -> Answer:
    body = {"title": title, "status": status, "detail": detail}
    body |= {"errors": list(errors)} if errors else {}
    return Answer(status, body, kind="application/problem+json")


class RunPod(Platform):
    """``templates`` maps an id to REST's fields and, under ``graph``, what only GraphQL has."""

    def __init__(self) -> None:
        super().__init__()
        self.templates: dict[str, dict[str, Any]] = {}
        self.registries = [{"id": "reg_1", "name": "ghcr"}, {"id": "reg_2", "name": "hub"}]
        self.unique_in_rest = self.merges_env = False
        self.save_drops_cuda = self.patch_drops_readme = False
        self.stale = 0
        """How many reads still show what was there before the last write."""
        self._before: dict[str, dict[str, Any]] = {}
        self._count = 0

    def put(self, name: str, **fields: Any) -> str:
        """A template that somebody made by hand."""
        self._count += 1
        id_ = f"tpl{self._count:04}"
        graph = {"readme": "", "portsConfig": [], "dockerArgs": "", "startScript": ""}
        graph |= {"advancedStart": False} | fields.pop("graph", {})
        own = copy.deepcopy(DEFAULTS) | {"image": "x"} | fields
        self.templates[id_] = own | {"id": id_, "name": name, "graph": graph}
        return id_

    def answer(self, asked: Asked) -> Answer:
        agent = asked.headers.get("User-Agent", "")
        if re.match(r"Python-urllib|python-requests", agent):
            return Answer(403, "error code: 1010", kind="text/plain")
        key = asked.headers.get("Authorization", "")
        if key not in (f"Bearer {KEY}", f"Bearer {READER}"):
            return problem(401, "Unauthorized", "invalid API key")
        if asked.path == "/graphql" and asked.method == "POST":
            return self.graphql(asked.body, may_write=key.endswith(KEY))
        if asked.method != "GET" and not key.endswith(KEY):
            return problem(403, "Forbidden", "the key lacks template write")
        if asked.path == "/v2/registries" and asked.method == "GET":
            return Answer(200, {"registries": self.registries})
        if asked.path == "/v2/templates":
            return self.all(asked)
        if found := re.fullmatch(r"/v2/templates/(\w+)", asked.path):
            return self.one(asked, found[1])
        return problem(404, "Not Found", asked.path)

    # --- REST ---------------------------------------------------------------------------------

    def all(self, asked: Asked) -> Answer:
        if asked.method == "GET":
            return Answer(200, {"templates": [rest(one) for one in self.seen().values()]})
        if asked.method != "POST":
            return problem(405, "Method Not Allowed", asked.method)
        if faults := list(self.faults_of(asked.body, {"name", "image"})):
            return problem(422, "Unprocessable Entity", "Request validation failed.", *faults)
        if self.unique_in_rest and self.taken(asked.body["name"], ""):
            return problem(400, "Bad Request", "a template of that name exists")
        self.written()
        id_ = self.put(**copy.deepcopy(asked.body))
        return Answer(201, rest(self.templates[id_]))

    def one(self, asked: Asked, id_: str) -> Answer:
        held = self.templates.get(id_)
        shown = self.seen().get(id_) if asked.method == "GET" else held
        if not held or not shown:
            return problem(404, "Not Found", f"no template {id_}")
        if asked.method == "GET":
            return Answer(200, rest(shown))
        if asked.method == "DELETE":
            self.written()
            del self.templates[id_]
            return Answer(204)
        if faults := list(self.faults_of(asked.body, set())):
            return problem(422, "Unprocessable Entity", "Request validation failed.", *faults)
        self.written()
        new = copy.deepcopy(asked.body)
        if self.merges_env and "env" in new:
            new["env"] = held["env"] | new["env"]
        if not new.get("mounts", True):
            del new["mounts"]  # `mounts: {}` leaves them as they are
        held |= new
        if self.patch_drops_readme:
            held["graph"]["readme"] = ""
        return Answer(200, rest(held))

    def faults_of(self, body: Any, required: set[str]) -> Iterator[str]:
        if not isinstance(body, dict):
            yield "$: must be an object"
            return
        for name in sorted(required - body.keys()):
            yield f"$: missing property '{name}'"
        for name, value in body.items():
            if name not in FIELDS:
                yield f"$.{name}: unevaluated property"
            elif not FIELDS[name][0](value):
                yield f"$.{name}: {FIELDS[name][1]}"

    # --- GraphQL ------------------------------------------------------------------------------

    def graphql(self, body: Any, *, may_write: bool) -> Answer:
        query = str(body.get("query"))
        variables = body.get("variables") or {}
        if "saveTemplate" in query:
            if not may_write:
                return refused("not authorized to saveTemplate")
            return self.save(variables.get("input"))
        inner = re.search(r"podTemplates\s*\{(.*)\}\s*\}\s*\}\s*$", query, re.DOTALL)
        if "myself" not in query or not inner:
            return refused("Syntax Error")
        fields = re.findall(r"\w+", inner[1])
        if unknown := [name for name in fields if name not in READABLE]:
            return refused(f'Cannot query field "{unknown[0]}" on type "PodTemplate".')
        rows = [
            {name: value for name, value in in_graph(one).items() if name in fields}
            for one in self.seen().values()
        ]
        return Answer(200, {"data": {"myself": {"podTemplates": rows}}})

    def save(self, sent: Any) -> Answer:
        if not isinstance(sent, dict) or not sent.keys() >= REQUIRED:
            return refused("a required field of SaveTemplateInput is missing")
        if unknown := sorted(sent.keys() - SAVED.keys()):
            return refused(f'Field "{unknown[0]}" is not defined by type "SaveTemplateInput".')
        for name, value in sent.items():
            if type(value) is not type(SAVED[name]):
                return refused(f"{name} is {value!r}")
        if self.taken(sent["name"], sent.get("id", "")):
            return refused("Template name must be unique.")
        ports = sent.get("ports", "").split(",")
        labels = sent.get("portsConfig", [])
        if any({"port", "name"} != label.keys() for label in labels):
            return refused("portsConfig")
        if any(label["port"] not in {p.split("/")[0] for p in ports} for label in labels):
            return refused("a label for a port that is not there")
        if sent.get("id") not in self.templates:
            return refused("template not found")
        self.written()
        whole = copy.deepcopy(SAVED) | sent  # what is not sent is reset
        held = self.templates[sent["id"]]
        held |= {
            "name": whole["name"],
            "image": whole["imageName"],
            "category": whole["category"],
            "disk": whole["containerDiskInGb"],
            "public": whole["isPublic"],
            "serverless": whole["isServerless"],
            "startSsh": whole["startSsh"],
            "startJupyter": whole["startJupyter"],
            "args": whole["dockerArgs"],
            "registry": whole["containerRegistryAuthId"] or None,
            "env": {pair["key"]: pair["value"] for pair in whole["env"]},
            "ports": [port for port in ports if port],
            "mounts": {
                "persistent": {"size": whole["volumeInGb"], "path": whole["volumeMountPath"]}
            },
        }
        names = ("readme", "portsConfig", "dockerArgs", "startScript", "advancedStart")
        held["graph"] = {name: whole[name] for name in names}
        if self.save_drops_cuda:
            held["allowedCudaVersions"] = []
        return Answer(200, {"data": {"saveTemplate": {"id": sent["id"]}}})

    # --- state --------------------------------------------------------------------------------

    def taken(self, name: str, id_: str) -> bool:
        return any(one["name"] == name and one["id"] != id_ for one in self.templates.values())

    def written(self) -> None:
        self._before = copy.deepcopy(self.templates)
        self._left = self.stale

    def seen(self) -> dict[str, dict[str, Any]]:
        """What a reader sees, who may be behind."""
        if getattr(self, "_left", 0):
            self._left -= 1
            return self._before
        return self.templates


def rest(one: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name != "graph"}


def in_graph(one: dict[str, Any]) -> dict[str, Any]:
    volume = one["mounts"].get("persistent") or {"size": 0, "path": ""}
    return {
        "id": one["id"],
        "name": one["name"],
        "imageName": one["image"],
        "ports": ",".join(one["ports"]),
        "volumeMountPath": volume["path"],
        "volumeInGb": volume["size"],
        "containerDiskInGb": one["disk"],
        "containerRegistryAuthId": one["registry"],
        "startJupyter": one["startJupyter"],
        "startSsh": one["startSsh"],
        "isServerless": one["serverless"],
        "isPublic": one["public"],
        "category": one["category"],
        "env": [{"key": key, "value": value} for key, value in one["env"].items()],
        **one["graph"],
    }


def refused(message: str) -> Answer:
    """GraphQL says no with a status of 200."""
    return Answer(200, {"data": None, "errors": [{"message": message}]})
