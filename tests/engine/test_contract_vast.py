"""vast.ai's contract: the good image keeps it, and what breaks a clause is what turns it red."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import pytest

from imagegen.checks import contract
from imagegen.engine.docker import Docker
from imagegen.platforms.vast import contract_image, contract_pods, template
from imagegen.platforms.vast.contract import SUITE
from tests.support import tiny_image

SETTINGS = contract.Settings(settle=1, patience=45, promise=tiny_image.PROMISE)
GPU = "V19_the_gpu_works_over_ssh"
PACKAGES = "V10_installing_jupyter_changes_nothing"
START = "/opt/imagegen/start"

QUICK = contract.Suite("vast")
"""Without what takes as long as all else and looks at the Python packages only."""
QUICK.update({name: clause for name, clause in SUITE.items() if name != PACKAGES})
QUICK.early = SUITE.early


def statuses(
    suite: contract.Suite,
    engine: Docker,
    ref: str,
    settings: contract.Settings = SETTINGS,
    only: tuple[str, ...] = (),
) -> dict[str, str]:
    found = contract.run(suite, engine, ref, settings, only)
    return {check.name: check.status for check in found}


def red(found: dict[str, str]) -> set[str]:
    """The numbers of the checks that failed."""
    return {name.partition("_")[0] for name, status in found.items() if status == "fail"}


def together(table: Mapping[str, tuple[str, str]], whats: tuple[str, ...]) -> tuple[str, set[str]]:
    """The lines of several rows, and the clauses that they turn red, each of them its own."""
    expected = [clause for what in whats for clause in table[what][1].split()]
    assert len(expected) == len(set(expected))
    return "\n".join(table[what][0] for what in whats), set(expected)


def named(numbers: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in SUITE if name.partition("_")[0] in set(numbers))


# --- the good image -------------------------------------------------------------------------------


def test_there_are_nineteen_clauses() -> None:
    numbers = [int(name.partition("_")[0].removeprefix("V")) for name in SUITE]
    assert sorted(numbers) == list(range(1, 20))


def test_the_good_image_keeps_every_clause(engine: Docker, small_image: str) -> None:
    found = statuses(SUITE, engine, small_image)
    assert found == dict.fromkeys(SUITE, "pass") | {GPU: "skip"}


def test_an_image_whose_onstart_nobody_knows_has_not_passed(
    engine: Docker, small_image: str
) -> None:
    found = statuses(SUITE, engine, small_image, contract.Settings(), named(["V6"]))
    assert list(found.values()) == ["skip"]


# --- broken in what a pod does --------------------------------------------------------------------

TMUX = """[[ $- == *i* && -z ${TMUX-} ]] && exec tmux new-session"""
BROKEN = {
    "no-rsync": ("RUN dpkg --remove rsync", "V1 V2"),
    "home": ("ENV HOME=/data", "V3"),
    # A Jupyter of its own under /.launch, where the platform's belongs.
    "its-port": (
        "RUN sed -i '/! -f \\/.launch || /d; s/^start_jupyter() {/&\\n"
        f"[[ -f \\/.launch ]] \\&\\& _jupyter=8080/' {START}",
        "V5",
    ),
    # What vast.ai's documents advise to do.
    "environment-file": (
        f"RUN sed -i 's|^hook /post_start.sh|env >>/etc/environment; &|' {START}",
        "V6 V7",
    ),
    "no-environment": (
        "RUN find / -xdev -name pam_imagegen.so -delete; : >/opt/imagegen/environment.sh",
        "V7",
    ),
    "one-platform": (f"RUN sed -i 's/\\${{SSH_PUBLIC_KEY-}}//g' {START}", "V8 V9 V11"),
    "open-jupyter": (f"RUN sed -i '/# never a Jupyter/d' {START}", "V9"),
    "idle-port": ("EXPOSE 6006", "V11"),
    "own-tmux": (f"RUN echo '{TMUX}' >>/root/.bashrc", "V14"),
    # Shown as a third start, which is the second restart of an instance.
    "third-start": (
        "RUN sed -i 's|^hook /post_start.sh|echo >>/var/log/starts; "
        "(($(wc -l </var/log/starts) < 3)) \\|\\| rm /root/.ssh/authorized_keys\\n&|' "
        f"{START}",
        "V15",
    ),
}

AT_ONCE = (
    ("no-rsync", "its-port", "own-tmux"),
    ("home", "idle-port", "third-start"),
    ("environment-file", "open-jupyter"),
    ("no-environment",),
    ("one-platform",),
)
"""What one image is broken in: no two of them turn the same clause red."""


@pytest.mark.parametrize("whats", AT_ONCE, ids="+".join)
def test_what_breaks_a_pod_turns_its_clauses_red(
    whats: tuple[str, ...], engine: Docker, broken_image: Callable[[str, str], str]
) -> None:
    lines, expected = together(BROKEN, whats)
    found = statuses(QUICK, engine, broken_image("-".join(whats), lines))
    assert red(found) == expected


# --- broken in what an image is -------------------------------------------------------------------

MISMADE = {
    "no-run-sshd": ("RUN rm -r /run/sshd", "V4"),
    "open-home": ("RUN chmod 775 /root", "V4"),
    "no-jupyter": ("RUN pip uninstall -qy jupyter", "V10"),
    "managed": ("ENV PIP_BREAK_SYSTEM_PACKAGES=", "V10"),
    "newer-nvcc": ("RUN sed -i s/13.0,/13.1,/ /usr/local/cuda/bin/nvcc", "V12"),
    "host-keys": ("RUN ssh-keygen -A", "V13"),
    "token": ("ENV HF_TOKEN=mine", "V13"),
    "no-utility": ("ENV NVIDIA_DRIVER_CAPABILITIES=compute", "V18"),
    "newer-driver": ("ENV NVIDIA_REQUIRE_CUDA=cuda>=13.1", "V18"),
    "heading": (f"RUN echo '# CUDA Version:' >>{START}", "V18"),
}

MISMADE_AT_ONCE = (
    ("no-run-sshd", "no-jupyter", "newer-nvcc", "host-keys", "no-utility"),
    ("open-home", "managed", "token", "newer-driver"),
    ("heading",),
)


@pytest.mark.parametrize("whats", MISMADE_AT_ONCE, ids="+".join)
def test_what_is_wrong_with_an_image_turns_its_clauses_red(
    whats: tuple[str, ...], engine: Docker, broken_image: Callable[[str, str], str]
) -> None:
    lines, expected = together(MISMADE, whats)
    suite = contract.Suite("vast")
    suite.update(
        {
            name: clause
            for name, clause in contract_image.IMAGE.items()
            if name != PACKAGES or "V10" in expected
        }
    )
    assert red(statuses(suite, engine, broken_image("-".join(whats), lines))) == expected


def test_everything_that_breaks_an_image_is_tried() -> None:
    assert sorted(chain(*AT_ONCE, *MISMADE_AT_ONCE)) == sorted(BROKEN | MISMADE)


def test_an_image_that_is_too_big_turns_its_clause_red(
    engine: Docker, small_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract_image, "PULL", 0.1)
    found = statuses(SUITE, engine, small_image, only=named(["V16", "V17"]))
    assert red(found) == {"V16"}


@pytest.fixture
def arm_image(engine: Docker) -> Iterator[str]:
    name, file = "imagegen-test/arm64:1", Path(str(tiny_image.__file__))
    target = {
        "dockerfile-inline": f"FROM scratch\nENV A=1\nCOPY {file.name} /\n",
        "context": str(file.parent),
        "platforms": ["linux/arm64"],
        "output": [f"type=image,name={name}"],
        "attest": ["type=provenance,disabled=true"],
    }
    engine.bake({"target": {"default": target}})
    yield name
    engine.remove(name)


def test_an_image_for_another_processor_turns_its_clause_red(
    engine: Docker, arm_image: str
) -> None:
    assert red(statuses(SUITE, engine, arm_image, only=named(["V17"]))) == {"V17"}


@pytest.mark.parametrize(
    "text",
    [
        template.ONSTART + "#" * 4096,
        "cd /opt && imagegen/start\n",
        "sleep 60\n",
        "sleep 60 &\n",
        "cd /workspace\n",
        "setsid sleep 60 >/dev/null 2>&1 &\n",
        "date +%N >/root/started\n",
    ],
    ids=["long", "relative", "blocks", "holds", "no folder", "a process more", "another file"],
)
def test_an_onstart_that_does_not_do_turns_its_clause_red(
    text: str, engine: Docker, small_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract_pods, "LIMIT", 2)
    monkeypatch.setattr(contract_pods, "ONSTART", text)
    settings = contract.Settings(settle=1, patience=8, promise=tiny_image.PROMISE)
    assert red(statuses(SUITE, engine, small_image, settings, named(["V6"]))) == {"V6"}


# --- its parts ------------------------------------------------------------------------------------


def test_only_the_launch_script_of_jupyter_mode_has_the_word() -> None:
    ssh, both = (contract_pods.launch(jupyter=mode) for mode in (False, True))
    assert "jupyter" not in ssh.lower()
    assert "jupyter" in both
    assert set(ssh.splitlines()) < set(both.splitlines())
    assert ssh.startswith("#!/bin/bash\n")
    assert "onstart" in ssh


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("RUN |1 API_KEY=abc /bin/sh -c make", True),
        ("ENV HF_TOKEN=hf_abc", True),
        ("RUN curl https://me:pw@localhost/x", True),
        ("COPY x /-----BEGIN OPENSSH PRIVATE KEY-----", True),
        ("RUN login AKIAABCDEFGHIJKLMNOP", True),
        ("ENV TOKENIZERS_PARALLELISM=false", False),
        ("RUN --mount=type=secret,id=pypi_index pip install", False),
        ('RUN TOKEN="$TOKEN" make', False),
        ("JUPYTER_TOKEN=", False),
        ("ENV GPG_KEY=0D96DF4D4110E5C43FBFB17F2D347EA6AA65421D", False),
    ],
)
def test_a_secret_is_known_by_name_or_form(text: str, secret: bool) -> None:
    assert bool(contract_image.SECRET.search(text)) == secret
