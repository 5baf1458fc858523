"""Pushed -> the templates that make it a pod: pure, and only for what is in a registry."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from packaging.version import Version

from imagegen.facts import Facts
from imagegen.model import FlashAttn, FlashAttnPackage, Pushed, minor

GB = 10**9
WORKING_SPACE = 30
"""GB of disk beside the image: a model's weights, a data set, a few checkpoints."""

ONSTART = """\
# Launch modes with SSH run this in place of the image's own start, at every boot.
mkdir -p /workspace
/opt/imagegen/start </dev/null >>/var/log/imagegen.log 2>&1
"""
"""vast.ai runs it at every boot of an instance: it returns, and a second run changes nothing. The
start script leaves SSH to the platform there, and Jupyter too, in Jupyter mode or where
JUPYTER_PASSWORD is empty. It keeps nothing of the caller's open, who may wait for the end of what
onstart says."""

PLATFORMS = ("runpod", "vast")
CALLED = {"runpod": "RunPod", "vast": "vast.ai"}
"""How the platforms write their names."""

LABELS = ((8888, "Jupyter Lab"), (22, "SSH"))
"""What RunPod's Connect menu calls the ports; only GraphQL's ``portsConfig`` takes that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What the caller decides about a template: ``registry`` is the id of a registry's login."""

    prefix: str = ""
    public: bool = False
    registry: str = ""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A template as it should be: ``body`` is what is POSTed, the rest what the ledger remembers.

    ``readme`` and ``labels`` are what RunPod takes by GraphQL alone; vast.ai's are in the body.
    """

    platform: str
    target: str
    name: str
    image: str
    compressed: int
    unpacked: int
    body: Mapping[str, object]
    readme: str = ""
    labels: tuple[tuple[int, str], ...] = ()

    @cached_property
    def content(self) -> str:
        """A sha256 over all that is sent."""
        return _hash([self.body, self.readme, self.labels])

    @property
    def second(self) -> dict[str, object]:
        """What only GraphQL takes, in SaveTemplateInput's words; empty for vast.ai."""
        if self.platform != "runpod":
            return {}
        ports = [{"port": str(port), "name": name} for port, name in self.labels]
        return {"readme": self.readme, "portsConfig": ports}

    @property
    def shown(self) -> dict[str, object]:
        """What would be sent, request by request."""
        if self.platform == "runpod":
            return {"POST /v2/templates": self.body, "saveTemplate": self.second}
        return {"POST /api/v0/template/": self.body}


def spec(platform: str, pushed: Pushed, facts: Facts, wish: Wish) -> Spec:
    """The whole template for one of ``PLATFORMS``."""
    from imagegen.pods import readme

    text = readme.text(platform, pushed, facts)
    body = template(platform, pushed, facts, wish)
    if platform == "vast":
        body |= {"readme": text, "readme_visible": True}
        # vast.ai's own hash is known only after the POST: by this one a template whose answer was
        # lost is found again.
        body["desc"] = f"{body['desc']} ({_hash(body)[:12]})"
    return Spec(
        platform=platform,
        target=pushed.target.id,
        name=str(body["name"]),
        image=pushed.pinned,
        compressed=pushed.compressed,
        unpacked=pushed.unpacked,
        body=body,
        readme=text if platform == "runpod" else "",
        labels=LABELS if platform == "runpod" else (),
    )


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def template(
    platform: str, pushed: Pushed, facts: Facts, wish: Wish | None = None
) -> dict[str, object]:
    """The body of one of ``PLATFORMS``, without the README."""
    wish = wish or Wish()
    return runpod(pushed, facts, wish) if platform == "runpod" else vast(pushed, wish)


def disk(pushed: Pushed) -> int:
    """GB that a pod needs: the layers as pulled, the file system they unpack to, and room."""
    return math.ceil((pushed.compressed + pushed.unpacked) / GB) + WORKING_SPACE


def runpod(pushed: Pushed, facts: Facts, wish: Wish | None = None) -> dict[str, object]:
    """The body of RunPod's ``POST /v2/templates``.

    Field names: RunPod's REST v2 OpenAPI schema, CreateTemplateRequest, as of 2026-08-20. Any key
    that it does not know is refused there, so there are none. That ``image`` may have a tag and a
    digest at once is a guess: Docker itself takes that form. Not tried on a live account.
    """
    target, wish = pushed.target, wish or Wish()
    body: dict[str, object] = {
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
    return body | ({"registry": wish.registry} if wish.registry else {})


def vast(pushed: Pushed, wish: Wish | None = None) -> dict[str, object]:
    """The body of vast.ai's ``POST /api/v0/template/``, without the README.

    Field names: vast.ai's OpenAPI page create_template, as of 2026-08-07. ``env`` is a string of
    docker flags there, of which -e, -p and -h are honoured. It takes image and tag apart, and
    whether a digest is taken with either nobody says: the tag is the one that never means anything
    else, and ``desc`` shows the digest. Not tried on a live account.
    """
    target, wish = pushed.target, wish or Wish()
    repository, _, tag = pushed.refs[0].rpartition(":")
    return {
        "name": f"{wish.prefix}{target.id}",
        "image": repository,
        "tag": tag,
        "desc": f"{target.id}, {pushed.digest}",
        "env": "-p 8888:8888",
        "onstart": ONSTART,
        "runtype": "ssh",
        "use_ssh": True,
        "ssh_direct": True,
        "docker_login_repo": "",
        "docker_login_user": "",
        "docker_login_pass": "",
        "extra_filters": {
            "cuda_max_good": {"gte": float(minor(target.cuda))},
            "cpu_arch": {"eq": "amd64"},  # there are Arm machines with an H100's capability
            **_cards(target.flash_attn),
        },
        "recommended_disk_space": max(60, disk(pushed)),
        "private": not wish.public,
    }


def _cards(flash_attn: FlashAttn | FlashAttnPackage | None) -> dict[str, object]:
    """The filter for cards that train with it; any card without flash-attn."""
    if flash_attn is None:
        return {}
    if isinstance(flash_attn, FlashAttnPackage):
        least, majors = min(flash_attn.trains_on) * 100, flash_attn.trains_on
    else:
        # Kernels run on their own major version only, from their minor version up.
        least, majors = min(flash_attn.archs) * 10, tuple(a // 10 for a in flash_attn.archs)
    return {"compute_cap": {"gte": least, "lt": (max(majors) + 1) * 100}}
