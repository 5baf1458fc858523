"""A stand-in for console.vast.ai that follows what is published of it, strictly.

vast-ai/docs, api-reference/openapi/yaml/auto_{post,get,delete}_api_v0_template_5b9aff.yaml, 2026-08
(fields, the answers to what is new and to what is there already, the empty search, who may delete);
``readme_visible`` is what vast-ai/vast-cli sends besides. Rate limits: vast-ai/docs,
rate-limits-and-errors (plain text, no Retry-After). ``users/current``: vast-ai/base-image,
tools/template_manager.

What nobody has verified is a switch: whether content that is posted twice gives one template.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.support.platforms.server import KEY, Answer, Asked, Platform

ME, OTHER = 4711, 815
TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("name", "image", "tag", "env", "onstart", "runtype", "args_str"), str),
    **dict.fromkeys(("docker_login_repo", "docker_login_user", "docker_login_pass"), str),
    **dict.fromkeys(("desc", "readme", "jupyter_dir", "href", "repo", "hash_id"), str),
    **dict.fromkeys(("ssh_direct", "use_ssh", "jup_direct", "use_jupyter_lab"), bool),
    **dict.fromkeys(("private", "readme_visible"), bool),
    "extra_filters": dict,
    "recommended_disk_space": (int, float),
    "volume_info": (dict, type(None)),
}
TOO_OFTEN = "API requests too frequent: endpoint threshold=3.0"


def bad(status: int, error: str, msg: str) -> Answer:
    return Answer(status, {"success": False, "error": error, "msg": msg})


class Vast(Platform):
    """``templates`` maps an id to a template with its ``hash_id`` and ``creator_id``."""

    def __init__(self) -> None:
        super().__init__()
        self.templates: dict[int, dict[str, Any]] = {}
        self.used_by_others: set[int] = set()
        self.same_content_same_template = True
        self._count = 1000

    def put(self, body: dict[str, Any], creator: int = ME) -> int:
        self._count += 1
        own = {"tag": "latest", "recommended_disk_space": 8, "runtype": "args"} | body
        own |= {"id": self._count, "creator_id": creator, "hash_id": hashed(body)}
        self.templates[self._count] = own
        return self._count

    def edit(self, id_: int, **changes: Any) -> None:
        """By hand, in the console: the hash is another one then."""
        one = self.templates[id_]
        one |= changes
        one["hash_id"] = hashed({k: v for k, v in one.items() if k in TYPES and k != "hash_id"})

    def answer(self, asked: Asked) -> Answer:
        if asked.headers.get("Authorization") != f"Bearer {KEY}":
            return bad(401, "auth_error", "Invalid user key; or two-factor login is needed")
        if (asked.method, asked.path) == ("GET", "/api/v0/users/current/"):
            return Answer(200, {"id": ME, "email": "me@mail.example", "balance": 1.5})
        if asked.path != "/api/v0/template/":
            return bad(404, "not_found", asked.path)
        if asked.method == "GET":
            return self.search(asked.query)
        if not isinstance(asked.body, dict):
            return bad(400, "invalid_args", "no JSON")
        return self.create(asked.body) if asked.method == "POST" else self.delete(asked)

    def search(self, query: dict[str, str]) -> Answer:
        try:
            filters = json.loads(query.get("select_filters", "{}"))
            assert json.loads(query.get("select_cols", "[]")) == ["*"]
            wanted = {name: ops.get("in") or [ops["eq"]] for name, ops in filters.items()}
        except (ValueError, AssertionError, KeyError, AttributeError):
            return bad(400, "invalid_args", "malformed JSON")
        found = [
            one
            for one in self.templates.values()
            if all(one.get(name) in values for name, values in wanted.items())
            if one["creator_id"] == ME or not one.get("private")
        ]
        if not found:
            return Answer(200, {"success": False, "msg": "No templates found"})
        return Answer(200, {"success": True, "templates_found": len(found), "templates": found})

    def create(self, body: dict[str, Any]) -> Answer:
        for name in ("name", "image"):
            if not body.get(name):
                return bad(400, "invalid_args", f"Template {name} is required")
        for name, value in body.items():
            if name not in TYPES or not isinstance(value, TYPES[name]):
                return bad(400, "invalid_args", f"invalid column {name}")
        if body.get("runtype", "args") not in ("ssh", "jupyter", "args"):
            return bad(400, "invalid_args", "runtype")
        if len(body.get("onstart", "")) + len(body.get("args_str", "")) > 4096:
            return bad(400, "invalid_args", "onstart exceeds max length")
        if self.same_content_same_template:
            for one in self.templates.values():
                if one["hash_id"] == hashed(body):
                    msg = f"Existing Template Found: {one['id']}. User relationship added."
                    return Answer(200, {"success": False, "msg": msg, "template": masked(one)})
        id_ = self.put(dict(body))
        msg = f"Template Created Successfully! New Template ID: {id_}"
        template = masked(self.templates[id_])
        return Answer(200, {"success": True, "msg": msg, "template": template})

    def delete(self, asked: Asked) -> Answer:
        id_ = asked.body.get("template_id")
        if asked.method != "DELETE" or type(id_) is not int:
            return bad(400, "invalid_args", "Template ID must be integer")
        if id_ not in self.templates:
            return bad(400, "invalid_args", "Invalid Template ID or User ID")
        if self.templates[id_]["creator_id"] != ME:
            return bad(401, "auth_error", "Templates can ONLY be Deleted by their Creator")
        if id_ in self.used_by_others:
            return bad(400, "in_use", "Cannot Delete Template. Other Users are still using it.")
        del self.templates[id_]
        return Answer(200, {"success": True, "msg": f"Template {id_} Deleted Successfully"})


def hashed(body: dict[str, Any]) -> str:
    """Of the content alone: who made it is no part of it."""
    return hashlib.md5(json.dumps(body, sort_keys=True).encode()).hexdigest()


def masked(one: dict[str, Any]) -> dict[str, Any]:
    return one | {"docker_login_pass": "***"}
