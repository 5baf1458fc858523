"""A pod's Jupyter as a browser uses it: the token once, then cookies, and a kernel's websocket."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import requests
import websocket

from imagegen.checks.pod import JUPYTER, Failed, Pod, need, same


class Browser:
    """A browser that opens a pod's Jupyter and stays logged in.

    ``origin`` is the address that its user sees, a proxy's for example, which may pass it on as
    the ``host`` too. A request that carries the token is let past the check of its origin; one
    with the cookie, as all of a browser's after the first, is not.

    Raises:
        Failed: Jupyter does not let it in.
    """

    def __init__(
        self, pod: Pod, token: str, *, origin: str = "", host: str = "", port: int = JUPYTER
    ) -> None:
        self.pod, self.port, self.session = pod, port, requests.Session()
        self.session.trust_env = False  # a proxy of this machine is not between us
        self.headers = {"Host": host} if host else {}
        page = f"/lab?token={token}"
        found = pod.get(page, port=port, session=self.session, **self.headers)
        same("GET /lab with the token", 200, found)
        need("_xsrf" in self.session.cookies, "GET /lab: expected a cookie _xsrf, found none")
        if origin:
            self.headers["Origin"] = origin

    def get(self, path: str) -> int:
        """The status of a GET with the cookies alone."""
        return self.pod.get(path, port=self.port, session=self.session, **self.headers)

    def execute(self, code: str, timeout: float = 60) -> str:
        """What ``code`` prints in a kernel of its own; ``timeout`` is in seconds.

        Raises:
            Failed: no kernel, no websocket, an exception of the code, or no end of it in time.
        """
        with self._kernel() as kernel:
            path = f"/api/kernels/{kernel}/channels"
            address = self.pod.url(path, self.port).replace("http", "ws", 1)
            end = time.monotonic() + timeout
            try:
                channel = websocket.create_connection(
                    address,
                    timeout=timeout,
                    cookie="; ".join(f"{c.name}={c.value}" for c in self.session.cookies),
                    origin=self.headers.get("Origin") or self.pod.url("", self.port),
                    host=self.headers.get("Host"),
                )
            except (websocket.WebSocketException, OSError) as error:
                said = f"websocket of a kernel: expected an upgrade, found {error}"
                raise Failed(said) from None
            try:
                return _executed(channel, code, end)
            finally:
                channel.close()

    @contextmanager
    def _kernel(self) -> Iterator[str]:
        headers = {**self.headers, "X-XSRFToken": str(self.session.cookies["_xsrf"])}
        url = self.pod.url("/api/kernels", self.port)
        made = self.session.post(url, json={}, headers=headers, timeout=30)
        same("POST /api/kernels with the cookies", 201, made.status_code)
        kernel = str(made.json()["id"])
        try:
            yield kernel
        finally:
            self.session.delete(f"{url}/{kernel}", headers=headers, timeout=30)


def _executed(channel: websocket.WebSocket, code: str, end: float) -> str:
    """Send ``code`` and gather what its kernel says until it is idle again."""
    request = _request(code)
    channel.send(json.dumps(request))
    printed, replied, idle = "", False, False
    while not (replied and idle):
        message = _received(channel, end)
        if message.get("parent_header", {}).get("msg_id") != request["header"]["msg_id"]:
            continue
        kind, content = message["header"]["msg_type"], message["content"]
        if kind == "stream":
            printed += content["text"]
        elif kind == "status":
            idle = content["execution_state"] == "idle"
        elif kind == "execute_reply":
            replied = True
            last = content.get("evalue", "")
            need(content["status"] == "ok", f"code in a kernel: expected its end, found {last!r}")
    return printed


def _received(channel: websocket.WebSocket, end: float) -> Mapping[str, Any]:
    left = end - time.monotonic()
    need(left > 0, "a kernel: expected the end of what it was asked, found none in time")
    channel.settimeout(left)
    try:
        found: Mapping[str, Any] = json.loads(channel.recv())
    except (websocket.WebSocketException, OSError, ValueError) as error:
        said = f"a kernel's websocket: expected a message, found {error!r}"
        raise Failed(said) from None
    return found


def _request(code: str) -> dict[str, Any]:
    """A message of Jupyter's protocol, version 5.3."""
    header = {
        "msg_id": secrets.token_hex(16),
        "msg_type": "execute_request",
        "username": "",
        "session": secrets.token_hex(16),
        "date": "",
        "version": "5.3",
    }
    content = {
        "code": code,
        "silent": False,
        "store_history": False,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": True,
    }
    return {
        "channel": "shell",
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": content,
    }
