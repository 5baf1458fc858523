"""RunPod's contract on an image that keeps it, and on those that break it in one way each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import pytest

from imagegen.checks.contract import Settings, Suite, run
from imagegen.engine.docker import Docker
from imagegen.model.report import Check
from imagegen.platforms.runpod import contract, contract_image
from tests.support.tiny_image import PROMISE

SETTINGS = Settings(settle=2, patience=12)
START = "/opt/imagegen/start"
SITE = "/opt/venv/lib/python3.11/site-packages"
SKIPPED = {"R19": "needs a GPU"}


def number(name: str) -> str:
    """R9 of R9_jupyter_answers_through_a_proxy."""
    return name.partition("_")[0]


def reds(found: tuple[Check, ...]) -> set[str]:
    """The numbers of the clauses that failed."""
    return {number(check.name) for check in found if check.status == "fail"}


def start(pattern: str, replacement: str) -> str:
    """The lines that change the start script, and fail where there is nothing to change."""
    edit = json.dumps(
        f"import re; p = {START!r}; t = open(p).read(); "
        f"new = re.sub({pattern!r}, lambda _: {replacement!r}, t, count=1, flags=re.M); "
        "assert new != t; open(p, 'w').write(new)"
    )
    return f'RUN ["python3", "-c", {edit}]'


def test_the_small_image_keeps_every_clause(engine: Docker, small_image: str) -> None:
    found = run(contract.SUITE, engine, small_image, SETTINGS)
    names = [check.name for check in found]
    assert names == list(contract.SUITE)
    assert sorted(int(name.partition("_")[0][1:]) for name in names) == list(range(1, 21))
    assert {check.name: check.detail for check in found if check.status == "fail"} == {}
    skipped = {c.name.partition("_")[0]: c.detail for c in found if c.status == "skip"}
    assert skipped == SKIPPED
    assert all(check.guards and check.detail and check.level == "runpod" for check in found)


BROKEN: Mapping[str, tuple[str, set[str]]] = {
    "words": (
        r"""RUN printf '#!/bin/bash\nexec tini -s -g -- /opt/imagegen/start $*\n' >/entry \
            && chmod +x /entry
        ENTRYPOINT ["/entry"]
        CMD ["sleep", "infinity"]""",
        {"R2", "R13", "R14", "R15", "R20"},
    ),
    "ends": (
        start("^share_caches$", "[[ $1 == sleep && -z ${PUBLIC_KEY-} ]] && exit 1\nshare_caches"),
        {"R3", "R7", "R10", "R18"},
    ),
    "password": (
        "RUN sed -i 's/^PasswordAuthentication no/PasswordAuthentication yes/' "
        "/etc/ssh/sshd_config.d/imagegen.conf",
        {"R6"},
    ),
    "no-sshd": ("RUN rm /usr/sbin/sshd", {"R5", "R6", "R8", "R11", "R12", "R16", "R20"}),
    "sshd-for-nobody": (start(r"authorize_keys \|\| \[\[.*$", "authorize_keys"), {"R7"}),
    "keys-double": (start(r"grep -qF -- .*? \|\| printf", "grep -q ^$ || printf"), {"R8"}),
    "origin": (start(r"^ *--ServerApp.allow_origin=.*$", ""), {"R9"}),
    "open-jupyter": (
        start(r"^    \[\[ -n \$_token \]\] \|\| return 0.*$", "    _token=${_token:-x}"),
        {"R10"},
    ),
    "on-the-volume": (
        f"RUN mkdir -p /workspace && mv {SITE}/torch /workspace/ "
        f"&& ln -s /workspace/torch {SITE}/torch",
        {"R11"},
    ),
    "secrets": (start("^share_caches$", "printenv >/etc/rp_environment\nshare_caches"), {"R12"}),
    "one-more-port": (
        start("^share_caches$", "(python3 -m http.server 9999 &) >/dev/null 2>&1\nshare_caches"),
        {"R10", "R16"},
    ),
    "deaf": (f'ENTRYPOINT ["{START}"]\nCMD ["sleep", "infinity"]', {"R18"}),
}

IN_ITSELF: Mapping[str, tuple[str, set[str]]] = {
    "user": (
        "RUN useradd --non-unique --uid 0 --gid 0 --home /root toor\nUSER toor",
        {"R4"},
    ),
    "tag": (f"RUN sed -i 's/2.11.0+cu130/2.4.1+cu124/' {SITE}/torch/__init__.py", {"R13"}),
    "gate": ('ENV NVIDIA_REQUIRE_CUDA="cuda>=12.8"', {"R14"}),
    "kernels": ("RUN sed -i s/sm_80/sm_90/ /usr/local/cuda/bin/cuobjdump", {"R15"}),
}
"""What no pod shows: only the clauses about the image itself are tried."""

OF_THE_IMAGE = tuple(
    name
    for name, clause in contract.SUITE.items()
    if clause.body.__module__ == contract_image.__name__
)


SLOW = {"R8", "R11", "R20"}
QUICK = Suite("runpod")
"""Without what asks most pods and restarts of all: for images that are broken in nothing of it."""
QUICK.update({name: clause for name, clause in contract.SUITE.items() if number(name) not in SLOW})
QUICK.early = [contract.full, contract.second, contract.bare, contract.null]


AT_ONCE = (
    ("words",),
    ("no-sshd",),
    ("ends",),
    ("sshd-for-nobody", "keys-double", "open-jupyter", "on-the-volume", "deaf"),
    ("one-more-port", "password", "origin", "secrets"),
    ("tag", "gate", "kernels", "user"),
)
"""What one image is broken in: no two of them turn the same clause red."""


@pytest.mark.parametrize("whats", AT_ONCE, ids="+".join)
def test_what_is_broken_is_found(
    whats: tuple[str, ...],
    engine: Docker,
    broken_image: Callable[[str, str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contract, "STOP", 3)
    rows = [(BROKEN | IN_ITSELF)[what] for what in whats]
    wanted = set[str]().union(*(its for _, its in rows))
    assert len(wanted) == sum(len(its) for _, its in rows)
    suite = contract.SUITE if wanted & SLOW else QUICK
    image = broken_image("-".join(whats), "\n".join(lines for lines, _ in rows))
    found = run(suite, engine, image, SETTINGS, OF_THE_IMAGE * ({*whats} <= IN_ITSELF.keys()))
    assert reds(found) == wanted, {c.name: c.detail for c in found if c.status == "fail"}


def test_everything_that_breaks_an_image_is_tried() -> None:
    assert sorted(chain(*AT_ONCE)) == sorted(BROKEN | IN_ITSELF)


class Liar(Docker):
    """The engine, which says something else of an image than it is."""

    def __init__(self, engine: Docker, **said: Any) -> None:
        super().__init__(engine._client)
        self.said = said

    def config(self, ref: str) -> Mapping[str, Any]:
        return {**super().config(ref), **self.said}


def test_what_no_small_image_can_be_is_found(
    engine: Docker, small_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract_image, "LAYER", 1e6)
    only = ("R1_architecture_is_amd64", "R17_size_is_known")
    liar = Liar(engine, Architecture="arm64")
    found = run(contract.SUITE, liar, small_image, SETTINGS, only)
    assert [check.status for check in found] == ["fail", "fail"]
    assert "expected 'linux/amd64', found 'linux/arm64'" in found[0].detail
    assert "expected at most 0.001 GB, found about 0." in found[1].detail


def test_every_check_that_runs_is_shown_to_fail() -> None:
    every = (BROKEN | IN_ITSELF).values()
    shown = set[str]().union({"R1", "R17"}, *(wanted for _, wanted in every))
    assert shown == {name.partition("_")[0] for name in contract.SUITE} - SKIPPED.keys()


def test_an_image_that_nobody_speaks_for_is_skipped_where_there_is_nothing_to_compare(
    engine: Docker, small_image: str
) -> None:
    liar = Liar(engine, Config={**engine.config(small_image)["Config"], "Labels": None})
    only = ("R13_tag_and_label_tell_the_truth", "R15_kernels_cover_the_gpus")
    digest = str(engine.config(small_image)["Id"])
    found = run(contract.SUITE, liar, digest, SETTINGS, only)
    assert [check.status for check in found] == ["skip", "skip"]
    (by_tag,) = run(contract.SUITE, liar, small_image, SETTINGS, only[:1])
    assert by_tag.status == "pass"
    assert by_tag.detail.startswith("tag hold")
    other = Settings(settle=2, patience=8, promise={**PROMISE, "torch": "2.12.0"})
    (given,) = run(contract.SUITE, engine, small_image, other, only[:1])
    assert given.detail == "label: torch: expected 2.12.0, found 2.11.0"
