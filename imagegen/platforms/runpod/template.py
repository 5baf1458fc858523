"""Pushed -> RunPod's template."""

from __future__ import annotations

from packaging.version import Version

from imagegen.compat.facts.tables import Facts
from imagegen.model.pushed import Pushed
from imagegen.model.target import minor
from imagegen.platforms import readme
from imagegen.platforms.spec import WORKING_SPACE, Spec, Wish, disk

LABELS = ((8888, "Jupyter Lab"), (22, "SSH"))
"""What RunPod's Connect menu calls the ports; only GraphQL's ``portsConfig`` takes that."""


def spec(pushed: Pushed, facts: Facts, wish: Wish) -> Spec:
    """All of a template: README and port labels go by GraphQL, in SaveTemplateInput's words."""
    first, text = body(pushed, facts, wish), readme.text("runpod", pushed, facts)
    requests = {"POST /v2/templates": first, "saveTemplate": second(text)}
    return Spec.of("runpod", pushed, first, requests=requests, readme=text, labels=LABELS)


def second(text: str) -> dict[str, object]:
    """What only GraphQL takes: the README and what the ports are called."""
    ports = [{"port": str(port), "name": name} for port, name in LABELS]
    return {"readme": text, "portsConfig": ports}


def body(pushed: Pushed, facts: Facts, wish: Wish) -> dict[str, object]:
    """The body of RunPod's ``POST /v2/templates``.

    Field names: RunPod's REST v2 OpenAPI schema, CreateTemplateRequest, as of 2026-08-20. Any key
    that it does not know is refused there, so there are none. That ``image`` may have a tag and a
    digest at once is a guess: Docker itself takes that form. Not tried on a live account.
    """
    target = pushed.target
    fields: dict[str, object] = {
        "name": f"{wish.prefix}{target.id}",
        "image": pushed.pinned,
        "category": "NVIDIA",
        "disk": disk(pushed),
        "mounts": {"persistent": {"size": WORKING_SPACE, "path": "/workspace"}},
        "ports": ["8888/http", "22/tcp"],
        # Its disk is new at every start, the volume is not: the same host keys, no warning by ssh.
        "env": {"SSH_HOST_KEYS_DIR": "/workspace/.ssh-host-keys"},
        "startSsh": True,
        "startJupyter": True,
        # An exact set, not a floor. Minor-version compatibility would reach further down, but not
        # for what nvcc compiles on the pod for an unknown card: older drivers refuse newer PTX.
        "allowedCudaVersions": [
            minor(version)
            for version in facts.driver_cuda
            if version >= Version(minor(target.cuda))
        ],
        "public": wish.public,
        "serverless": False,
    }
    # Without one of ours, a login that somebody set by hand stays.
    return fields | ({"registry": wish.registry} if wish.registry else {})
