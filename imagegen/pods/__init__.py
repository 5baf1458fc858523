"""Pushed -> the templates that make it a pod: pure, and only for what is in a registry."""

from __future__ import annotations

import math

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


def template(platform: str, pushed: Pushed, facts: Facts) -> dict[str, object]:
    """The template of one of ``PLATFORMS``."""
    return runpod(pushed, facts) if platform == "runpod" else vast(pushed)


def disk(pushed: Pushed) -> int:
    """GB that a pod needs: the layers as pulled, the file system they unpack to, and room."""
    return math.ceil((pushed.compressed + pushed.unpacked) / GB) + WORKING_SPACE


def runpod(pushed: Pushed, facts: Facts) -> dict[str, object]:
    """The body of RunPod's ``POST /v2/templates``.

    Field names: RunPod's REST v2 OpenAPI schema, CreateTemplateRequest, as of 2026-08-20. Any key
    that it does not know is refused there, so there are none. Not tried on a live account.
    """
    target = pushed.target
    return {
        "name": target.id,
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
        "public": False,
        "serverless": False,
    }


def vast(pushed: Pushed) -> dict[str, object]:
    """The body of vast.ai's ``POST /api/v0/template/``.

    Field names: vast.ai's OpenAPI page create_template, as of 2026-08-07. ``env`` is a string of
    docker flags there, of which -e, -p and -h are honoured. Not tried on a live account.
    """
    target = pushed.target
    repository, _, tag = pushed.refs[0].rpartition(":")
    return {
        "name": target.id,
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
            **_cards(target.flash_attn),
        },
        "recommended_disk_space": max(60, disk(pushed)),
        "private": True,
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
