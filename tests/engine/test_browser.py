"""A browser uses a pod's Jupyter as its user does: through a proxy like RunPod's, with the token.

Chromium, the proxy and the pod are containers of a network in which the proxy has the names.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from imagegen.model.image import Built
from imagegen.util.process import run
from tests.engine.stand_ins import browser
from tests.engine.stand_ins.browser import ENTER, SHIFT, Browser, container, eventually

SITE = "x-8888.proxy.runpod.net"
# Another pod, for example. A browser sends the cookie of ours along for these: the two last parts
# of a name make a site, unless the list of public suffixes has it, and it has not RunPod's.
NEIGHBOURS = tuple(SITE.replace("x-8888", name) for name in ("evil", "y-8888"))
STRANGERS = ("evil.example", *NEIGHBOURS)
TOKEN = "a token, typed"
PROBE = "it is 'here' $HOME"
# xterm draws on a canvas; for a screen reader it writes its lines into the page as well.
TERMINAL_SETTINGS = (
    "/root/.jupyter/lab/user-settings/@jupyterlab/terminal-extension/plugin.jupyterlab-settings"
)
SOCKET = """
return await new Promise(done => {
    const socket = new WebSocket(words[0]);
    socket.onopen = () => done("opened");
    socket.onerror = () => done("refused");
});
"""
STATUS = "return (await fetch(words[0], {credentials: 'include'})).status"
TERMINAL_MADE = """
const xsrf = document.cookie.match(/_xsrf=([^;]*)/)[1];
const made = await fetch("/api/terminals", {method: "POST", headers: {"X-XSRFToken": xsrf}});
return (await made.json()).name;
"""
OUTPUT = ".jp-Notebook .jp-OutputArea-output"
TERMINAL = ".jp-Terminal .xterm-accessibility-tree"


@contextmanager
def network() -> Iterator[str]:
    name = f"imagegen-test-{uuid.uuid4().hex[:12]}"
    run("docker", "network", "create", name, timeout=60)
    try:
        yield name
    finally:
        run("docker", "network", "rm", name, timeout=60)


@dataclass(frozen=True)
class Desk:
    """A browser, and the container of the pod that it can reach."""

    browser: Browser
    pod: str

    def log_in(self, token: str) -> None:
        """Type the token into the login page, which comes in place of any other."""
        self.browser.open(f"https://{SITE}/")
        self.browser.click("#password_input")
        self.browser.type(token)
        self.browser.press(ENTER)

    def in_pod(self, *argv: str) -> str:
        return run("docker", "exec", self.pod, *argv, timeout=60)


def certificates(folder: Path) -> None:
    """An authority that the browser is to trust, and what the proxy shows under every name."""
    authority = trustme.CA()
    server = authority.issue_cert(SITE, *STRANGERS)
    authority.cert_pem.write_to_path(folder / "authority.pem")
    server.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")


@pytest.fixture
def desk(chromium: str, tmp_path: Path) -> Iterator[Callable[[str], Desk]]:
    """``desk(image)`` starts a pod as RunPod does, a proxy in front of it, and a browser."""
    certificates(tmp_path)
    (tmp_path / "settings").write_text('{"screenReaderMode": true}')
    env = {"JUPYTER_PASSWORD": TOKEN, "RUNPOD_POD_ID": SITE.partition("-")[0], "PROBE": PROBE}
    with ExitStack() as stack:

        def start(image: str) -> Desk:
            net = f"--network={stack.enter_context(network())}"
            own = (net, "--network-alias=pod.example", "--volume=/workspace")
            shown = f"--volume={tmp_path}/settings:{TERMINAL_SETTINGS}"
            given = (f"--env={name}={value}" for name, value in env.items())
            pod = stack.enter_context(container(image, *own, shown, *given))

            shared = (net, f"--volume={tmp_path}:/tls:ro")
            names = (f"--network-alias={name}" for name in (SITE, *STRANGERS))
            stack.enter_context(container(chromium, *shared, *names, command=("nginx",)))
            control = "--publish=127.0.0.1::9515"
            driver = stack.enter_context(container(chromium, *shared, control, command=("drive",)))
            port = run("docker", "port", driver, "9515/tcp", timeout=60).strip()
            made = Browser(f"http://{port}")
            stack.callback(made.close)

            def login_page() -> bool:
                made.open(f"https://{SITE}/")
                return bool(made.texts("#password_input"))

            eventually(login_page, "Jupyter's login page")
            return Desk(made, pod)

        yield start


def keep(png: bytes, name: str, tmp_path: Path) -> None:
    """Leave a screenshot where it is looked for; it has to show something."""
    file = tmp_path / f"{name}.png"
    file.write_bytes(png)
    if folder := os.environ.get("IMAGEGEN_SCREENSHOT"):
        shutil.copy(file, folder)
    assert browser.variety(png) > 100


def test_a_notebook_and_a_terminal(
    desk: Callable[[str], Desk], demo: Built, tmp_path: Path
) -> None:
    at = desk(demo.image.ref)
    promise = json.loads(at.in_pod("cat", "/etc/imagegen/target.json"))
    release = f"release {promise['cuda'].rpartition('.')[0]}"
    window = at.browser

    # Nobody gets in without the token.
    assert window.run(STATUS, "/api/contents") == 403
    at.log_in("the wrong one")
    window.reads("body", "Invalid credentials")
    assert window.run(STATUS, "/api/contents") == 403
    at.log_in(TOKEN)
    eventually(lambda: window.address().startswith(f"https://{SITE}/lab"), "JupyterLab's address")
    assert window.run(STATUS, "/api/contents") == 200

    window.click(".jp-LauncherCard[data-category='Notebook']")
    window.reads("#jp-main-statusbar", "| Idle")  # the kernel: before that a cell is not run at all
    window.click(".jp-Notebook .jp-Cell .cm-content")
    for code, wanted in cells(promise, release):
        window.type(code)
        window.press(SHIFT, ENTER)
        window.reads(OUTPUT, wanted)
    keep(window.screenshot(), "notebook", tmp_path)
    window.click("#jp-main-dock-panel .lm-TabBar-addButton")
    window.click(".jp-LauncherCard[title='Start a new terminal session']")
    window.reads(TERMINAL, "#")
    window.type("printenv PROBE; nvcc --version")
    window.press(ENTER)
    assert PROBE in window.reads(TERMINAL, release)
    keep(window.screenshot(), "terminal", tmp_path)


def cells(promise: Any, release: str) -> Iterator[tuple[str, str]]:
    """What to type into a notebook, and what has to come of it."""
    yield "!nvcc --version", release
    show = "import flash_attn; print('flash-attn is', flash_attn.__version__)"
    yield show, f"flash-attn is {promise['flash_attn']['version']}"
    look = "from transformers.utils import is_flash_attn_2_available"
    # transformers asks for a GPU first, and here is none.
    yield f"{look}; print('available is', is_flash_attn_2_available())", "available is False"


def test_no_other_site_reaches_the_pod(desk: Callable[[str], Desk], small_image: str) -> None:
    at = desk(small_image)
    at.log_in(TOKEN)
    eventually(lambda: at.browser.address().startswith(f"https://{SITE}/lab"), "JupyterLab")
    assert at.browser.run(TERMINAL_MADE) == "1"
    socket = f"wss://{SITE}/terminals/websocket/1"
    assert at.browser.run(SOCKET, socket) == "opened"
    for stranger in STRANGERS:
        at.browser.open(f"https://{stranger}/")
        assert at.browser.run(SOCKET, socket) == "refused", stranger
    # It is the origin that they were refused for, not a cookie that they lacked.
    log = at.in_pod("cat", "/var/log/jupyter.log")
    refused = set(
        re.findall(r"Blocking Cross Origin WebSocket Attempt.  Origin: https://(\S+),", log)
    )
    assert set(NEIGHBOURS) <= refused
