"""The pods of vast.ai's suite: those under its launch script, which is simulated, and our own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from imagegen.checks.contract import NASTY, Trial
from imagegen.checks.pod import JUPYTER, SSH, Pod, same
from imagegen.platforms.vast.template import ONSTART

LAUNCH = Path(__file__).with_name("launch")
OTHER, BOTH = "# --- in the other mode ---\n", "# --- in both modes ---\n"
PORT = 8080
"""Where Jupyter mode has its Jupyter."""

RAN = "/tmp/imagegen-ran"  # noqa: S108 - where a value that is run as a command leaves its mark
VALUES = {**NASTY, "A": 'x y"z$', "HF_TOKEN": f"hf_$(touch {RAN})"}
SCRIPT = "/root/onstart.sh"
INSTALLED, DONE = "launch: apt-get ended with status ", "launch: onstart done with status "
INSTALLING = 180
"""Seconds that apt-get may take where an image lacks packages and there is a network."""
LIMIT = 20
"""Seconds in which onstart has to return."""


def onstart(trial: Trial) -> str:
    """The text of the template that goes with the image; of one that was not built here none is
    known.
    """
    return ONSTART if trial.settings.promise else ""


def launch(*, jupyter: bool) -> str:
    """The text of /.launch; only that of Jupyter mode has the word in it, as the real one."""
    before, _, rest = LAUNCH.read_text(encoding="utf-8").partition(OTHER)
    other, _, after = rest.partition(BOTH)
    return before + (other if jupyter else "") + after


def launched(
    trial: Trial, name: str, *, jupyter: bool = False, network: str = "bridge", **how: Any
) -> Pod:
    """A pod in which the launch script takes the place of what the image would start."""
    from imagegen.engine.container import Start

    env = {
        "CONTAINER_ID": "1",
        "VAST_CONTAINERLABEL": "C.1",
        "DATA_DIRECTORY": "/workspace/",
        "SSH_PUBLIC_KEY": trial.public(),
        "JUPYTER_TOKEN": trial.token,
        **VALUES,
    }
    start = Start(
        entrypoint=("/bin/bash",),
        command=("/.launch",),
        files={"/.launch": launch(jupyter=jupyter), SCRIPT: onstart(trial) or "true\n"},
        env=env,
        ports=() if network == "none" else (SSH, PORT),
        network=network,
        **how,
    )
    return trial.pod(name, start)


def in_ssh_mode(trial: Trial) -> Pod:
    """With a network."""
    return launched(trial, "ssh mode")


def in_jupyter_mode(trial: Trial) -> Pod:
    """With a network, and the platform's own Jupyter."""
    return launched(trial, "jupyter mode", jupyter=True)


def offline(trial: Trial) -> Pod:
    """In ssh mode, where the machine lets nothing out."""
    return launched(trial, "offline", network="none")


def onstart_alone(trial: Trial) -> Pod:
    """Offline in ssh mode with onstart alone, run once into a pipe, whose end is awaited.

    With a Jupyter asked for, so that there is something that could start twice or hold on to the
    caller's output; and without a /workspace, which plain images do not have.
    """
    from imagegen.engine.container import Start

    run = f"timeout {LIMIT} bash -o pipefail -c 'bash {SCRIPT} 2>&1 | cat >&2'"
    start = Start(
        entrypoint=("/bin/bash",),
        command=("-c", f'rm -rf /workspace; {run}; echo "{DONE}$?"; exec sleep infinity'),
        files={"/.launch": launch(jupyter=False), SCRIPT: onstart(trial)},
        env={"SSH_PUBLIC_KEY": trial.public(), "JUPYTER_PASSWORD": trial.token},
        network="none",
    )
    return trial.pod("onstart alone", start)


def _own(trial: Trial, name: str, **env: str) -> Pod:
    """A pod in args mode: the image's own start."""
    from imagegen.engine.container import Start

    return trial.pod(name, Start(env=env, ports=(SSH, JUPYTER)))


def with_nothing(trial: Trial) -> Pod:
    """In args mode, without keys and tokens."""
    return _own(trial, "args mode, nothing given")


def with_vast_names(trial: Trial) -> Pod:
    """In args mode, with what vast.ai calls the key and the token."""
    return _own(
        trial, "args mode", SSH_PUBLIC_KEY=trial.public(), JUPYTER_TOKEN=trial.token, **VALUES
    )


def with_runpod_names(trial: Trial) -> Pod:
    """In args mode, with what RunPod calls them."""
    return _own(
        trial, "RunPod's names", PUBLIC_KEY=trial.public(), JUPYTER_PASSWORD=trial.token, **VALUES
    )


def through(pod: Pod, times: int = 1) -> str:
    """What the launch script said once it has ended its onstart for the ``times``-th time."""
    log = ""

    def said(words: str) -> bool:
        nonlocal log
        log = pod.box.logs(2000)
        return log.count(words) >= times

    # What an image lacks is installed first, as on the platform: slow, and V1's and V2's to judge.
    installed = pod.until(lambda: said(INSTALLED), "the end of apt-get under /.launch", INSTALLING)
    patience = installed + pod.trial.settings.patience
    pod.until(lambda: said(DONE), "the end of onstart under /.launch", patience)
    same("exit status of onstart", {"0"}, set(re.findall(f"{DONE}(.*)", log)))
    return log
