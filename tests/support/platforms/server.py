"""What both stand-ins have in common: HTTP, keys, and faults on demand.

A fault is what happens to one request instead of an answer, or to its answer: before the request is
carried out or after. ``block`` holds a request until the test lets it go, so that its client can be
killed there.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

KEY = "rpa_TheKeyThatNobodyMayEverSee/123+="
READER = "a-key-that-may-only-read"

Kind = Literal["answer", "drop", "cut", "garbage", "slow", "block"]


@dataclass
class Answer:
    """A status with a JSON value, or with plain text."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "application/json"

    def encoded(self) -> bytes:
        if self.body is None:
            return b""
        plain = isinstance(self.body, str) and "json" not in self.kind
        return self.body.encode() if plain else json.dumps(self.body).encode()


@dataclass
class Fault:
    """What befalls the requests whose ``METHOD /path`` or GraphQL operation is ``of``.

    ``skip`` of them are left alone first, then ``times`` are met. With ``after`` the request is
    carried out all the same, and only its answer is lost.
    """

    of: str
    kind: Kind = "answer"
    answer: Answer = field(default_factory=lambda: Answer(500, {"message": "x"}))
    after: bool = False
    skip: int = 0
    times: int = 1
    reached: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def meets(self, names: set[str]) -> bool:
        if self.of not in names or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: Any

    @property
    def names(self) -> set[str]:
        """What a fault may call it."""
        found = {f"{self.method} {self.path}", self.method}
        if self.path == "/graphql" and isinstance(self.body, dict):
            found |= {w for w in ("saveTemplate", "myself") if w in str(self.body.get("query"))}
        return found


class Platform(ABC):
    """Subclasses answer; ``log`` is every request that came, faults included."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.log: list[Asked] = []
        self.lock = threading.Lock()
        self.url = ""

    @abstractmethod
    def answer(self, asked: Asked) -> Answer:
        """What the platform says; the lock is held."""

    def fault(self, of: str, kind: Kind = "answer", **changes: Any) -> Fault:
        self.faults.append(Fault(of=of, kind=kind, **changes))
        return self.faults[-1]

    def writes(self) -> list[str]:
        """The requests that change something, in order."""
        return [
            "saveTemplate" if "saveTemplate" in one.names else f"{one.method} {one.path}"
            for one in self.log
            if one.method != "GET" and "myself" not in one.names
        ]

    def met(self, asked: Asked) -> Fault | None:
        with self.lock:
            return next((one for one in self.faults if one.meets(asked.names)), None)


@contextmanager
def served(platform: Platform, tls: ssl.SSLContext | None = None) -> Iterator[Platform]:
    """Serve it on a free port of the loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(size)
            try:
                body = json.loads(raw) if raw else None
            except ValueError:
                body = raw
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            asked = Asked(self.command, parts.path, query, self.headers, body)
            with platform.lock:
                platform.log.append(asked)
            fault = platform.met(asked)
            if fault is None:
                self.send(self.carried_out(asked))
            else:
                self.befall(fault, asked)

        do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = handle_any

        def carried_out(self, asked: Asked) -> Answer:
            with platform.lock:
                return platform.answer(asked)

        def befall(self, fault: Fault, asked: Asked) -> None:
            done = self.carried_out(asked) if fault.after else None
            if fault.kind == "block":
                fault.reached.set()
                fault.go.wait(60)
                self.close_connection = True
            elif fault.kind == "answer":
                self.send(fault.answer)
            elif fault.kind == "garbage":
                self.send(Answer(200, "<html>Bad gateway</html>", kind="text/html"))
            elif fault.kind == "slow":
                self.drip(done or self.carried_out(asked))
            else:
                if fault.kind == "cut":
                    whole = (done or Answer(200, {"templates": ["x" * 500]})).encoded()
                    self.head(200, {"Content-Length": str(len(whole))})
                    self.wfile.write(whole[: len(whole) // 2])
                self.close_connection = True

        def drip(self, answer: Answer) -> None:
            body = answer.encoded()
            self.head(answer.status, {"Content-Length": str(len(body))})
            for at in range(len(body)):
                self.wfile.write(body[at : at + 1])
                time.sleep(0.02)

        def send(self, answer: Answer) -> None:
            body = answer.encoded()
            length = {"Content-Length": str(len(body)), "Content-Type": answer.kind}
            self.head(answer.status, answer.headers | length)
            self.wfile.write(body)

        def head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # clients are killed here on purpose

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    platform.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield platform
    finally:
        for fault in platform.faults:
            fault.go.set()
        server.shutdown()
        server.server_close()
        thread.join()
