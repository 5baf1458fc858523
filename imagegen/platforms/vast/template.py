"""Pushed -> vast.ai's template."""

from __future__ import annotations

from pathlib import Path

from imagegen.compat.facts.tables import Facts
from imagegen.model.pushed import Pushed
from imagegen.model.target import FlashAttn, FlashAttnPackage, minor
from imagegen.platforms import readme
from imagegen.platforms.spec import Spec, Wish, disk, hashed

ONSTART = Path(__file__).with_name("onstart").read_text(encoding="utf-8")
"""vast.ai runs it at every boot of an instance: it returns, and a second run changes nothing. The
start script leaves SSH to the platform there, and Jupyter too, in Jupyter mode or where
JUPYTER_PASSWORD is empty. It keeps nothing of the caller's open, who may wait for the end of what
onstart says."""


def spec(pushed: Pushed, facts: Facts, wish: Wish) -> Spec:
    """All of a template, README included: its own mark is in ``desc``.

    vast.ai's hash is known only after the POST: by the mark a template whose answer was lost is
    found again.
    """
    whole = body(pushed, wish)
    whole |= {"readme": readme.text("vast", pushed, facts), "readme_visible": True}
    whole["desc"] = f"{whole['desc']} ({hashed(whole)[:12]})"
    return Spec.of("vast", pushed, whole, requests={"POST /api/v0/template/": whole})


def body(pushed: Pushed, wish: Wish) -> dict[str, object]:
    """The body of vast.ai's ``POST /api/v0/template/``, without the README.

    Field names: vast.ai's OpenAPI page create_template, as of 2026-08-07. ``env`` is a string of
    docker flags there, of which -e, -p and -h are honoured. It takes image and tag apart, and
    whether a digest is taken with either nobody says: the tag is the one that never means anything
    else, and ``desc`` shows the digest. Not tried on a live account.
    """
    target = pushed.target
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
