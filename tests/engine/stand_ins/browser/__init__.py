"""A Chromium in a container, driven by WebDriver, the W3C's protocol: JSON over HTTP."""

from __future__ import annotations

import base64
import struct
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import requests

from imagegen.util.process import run

T = TypeVar("T")

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
SHIFT, ENTER = "\ue008", "\ue007"
OPTIONS = {
    # In a container Chromium is root, and /dev/shm has 64 MB.
    "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000"]
}


@contextmanager
def container(image: str, *options: str, command: tuple[str, ...] = ()) -> Iterator[str]:
    """A container that runs, by its name; gone when the block ends."""
    name = f"imagegen-test-{uuid.uuid4().hex[:12]}"
    try:
        run("docker", "run", "--detach", f"--name={name}", *options, image, *command, timeout=60)
        yield name
    finally:
        run("docker", "rm", "--force", "--volumes", name, timeout=60)


class DriverError(Exception):
    """What WebDriver says instead of doing it."""


def eventually(probe: Callable[[], T], what: str, patience: float = 60) -> T:
    """The first true answer; WebDriver refuses what is not there, or not yet to be clicked."""
    end = time.monotonic() + patience
    while True:
        try:
            last: object = None
            if found := probe():
                return found
        except (DriverError, requests.ConnectionError) as error:
            last = error
        assert time.monotonic() < end, f"not within {patience:g} s: {what}; {last}"
        time.sleep(0.2)


class Browser:
    """One window."""

    def __init__(self, url: str) -> None:
        self._http = requests.Session()
        self._http.trust_env = False
        self._url = url
        eventually(lambda: self._ask("GET", "/status")["ready"], "WebDriver")
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": OPTIONS,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        made = self._ask("POST", "/session", capabilities={"alwaysMatch": wanted})
        self._url += f"/session/{made['sessionId']}"
        self.version = str(made["capabilities"]["browserVersion"])

    def close(self) -> None:
        self._ask("DELETE", "")
        self._http.close()

    def _ask(self, method: str, path: str, **body: object) -> Any:
        sent = body if method == "POST" else None
        answer = self._http.request(method, self._url + path, json=sent, timeout=120)
        value = answer.json()["value"]
        if not answer.ok:
            raise DriverError(f"{value['error']}: {value['message'].splitlines()[0]}")
        return value

    def open(self, url: str) -> None:
        self._ask("POST", "/url", url=url)

    def address(self) -> str:
        """The address that the window shows."""
        return str(self._ask("GET", "/url"))

    def run(self, script: str, *words: object) -> Any:
        """What the body of an async JavaScript function returns in the page."""
        wrapped = f"return (async (...words) => {{ {script} }})(...arguments)"
        return self._ask("POST", "/execute/sync", script=wrapped, args=words)

    def click(self, css: str) -> None:
        """Click on the first that ``css`` finds, as soon as it is there and nothing covers it."""

        def once() -> bool:
            found = self._ask("POST", "/element", using="css selector", value=css)
            self._ask("POST", f"/element/{found[ELEMENT]}/click")
            return True

        eventually(once, f"a click on {css}")

    def texts(self, css: str) -> list[str]:
        """The text, as it is rendered, of all that ``css`` finds."""
        script = "return [...document.querySelectorAll(words[0])].map(found => found.innerText)"
        return [str(text) for text in self.run(script, css)]

    def reads(self, css: str, text: str, patience: float = 60) -> str:
        """Wait until one that ``css`` finds shows ``text``; returns all that it shows."""

        def once() -> str:
            return next((found for found in self.texts(css) if text in found), "")

        try:
            return eventually(once, f"{text!r} in {css}", patience)
        except AssertionError as error:
            raise AssertionError(f"{error}; there is {self.texts(css)}") from None

    def type(self, text: str) -> None:
        """Type where the cursor is."""
        self._keys([(kind, key) for key in text for kind in ("keyDown", "keyUp")])

    def press(self, *keys: str) -> None:
        """Press keys together."""
        down = [("keyDown", key) for key in keys]
        self._keys([*down, *(("keyUp", key) for key in reversed(keys))])

    def _keys(self, events: list[tuple[str, str]]) -> None:
        actions = [{"type": kind, "value": key} for kind, key in events]
        self._ask("POST", "/actions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    def looks(self, width: int, height: int, *, dark: bool = False) -> None:
        """Show pages as a screen of that size does, or as a phone below 500 pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self._devtools("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", features=[scheme])

    def _devtools(self, command: str, **values: object) -> None:
        self._ask("POST", "/goog/cdp/execute", cmd=command, params=values)

    def console(self) -> list[str]:
        """What pages have put on the console since the last call, errors of loading included."""
        return [str(row["message"]) for row in self._ask("POST", "/se/log", type="browser")]

    def move_to(self, x: int, y: int, *, click: bool = False) -> None:
        """Move the mouse to a point of the window, and click there or not."""
        steps: list[dict[str, object]] = [{"type": "pointerMove", "duration": 0, "x": x, "y": y}]
        steps += [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp") if click]
        mouse = {"type": "pointer", "id": "mouse", "actions": steps}
        self._ask("POST", "/actions", actions=[mouse])

    def screenshot(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(self._ask("GET", "/screenshot"))


def variety(png: bytes) -> int:
    """How many different bytes a PNG's image data has: one colour all over has a handful."""
    at, data = 8, b""
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += 12 + length
    return len(set(zlib.decompress(data)))
