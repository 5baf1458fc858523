"""Stand-ins for package hosts: small HTTP(S) servers that count what they are asked."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests

Answer = bytes | int | None
"""A body; a status without one; or None: half an answer, then the connection is gone."""


@dataclass
class Server:
    url: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def served(
    host: str, answer: Callable[[str], Answer], tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    """Serve ``answer(path)`` on a free port of every address; ``host`` is how clients call it."""
    server: Server

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.asked.append(self.path)
            body = answer(self.path)
            if isinstance(body, bytes):
                self.send_response(200)
                kind = "text/html" if body.startswith(b"<") else "application/octet-stream"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)
            elif body is None:
                self.send_response(200)
                self.send_header("Content-Length", "1000000")
                self.end_headers()
                self.wfile.write(b"half")
                self.close_connection = True
            else:
                self.send_response(body)
                self.send_header("Content-Length", "0")
                self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *words: object) -> None:
            pass

    http = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    http.daemon_threads = True
    if tls:
        http.socket = tls.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
    scheme = "https" if tls else "http"
    server = Server(f"{scheme}://{host}:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def index(wheels: Path) -> Callable[[str], Answer]:
    """A simple repository of the files in ``wheels``, below /simple/."""
    files = {path.name: path.read_bytes() for path in wheels.iterdir()}

    def project(name: str) -> bytes:
        rows = [
            f'<a href="/files/{file}#sha256={hashlib.sha256(body).hexdigest()}">{file}</a>'
            for file, body in files.items()
            if file.split("-")[0].replace("_", "-").lower() == name
        ]
        return f"<!DOCTYPE html><html><body>{''.join(rows)}</body></html>".encode()

    def answer(path: str) -> Answer:
        parts = path.strip("/").split("/")
        if parts[0] == "simple" and len(parts) == 2:
            return project(parts[1])
        return files.get(parts[-1].replace("%2B", "+"), 404) if parts[0] == "files" else 404

    return answer


def mirror(upstream: Mapping[str, str]) -> Callable[[str], Answer]:
    """A distribution mirror: ``upstream`` maps the first part of a path to an archive's URL."""
    session = requests.Session()

    def answer(path: str) -> Answer:
        first, _, rest = path.strip("/").partition("/")
        if first not in upstream:
            return 404
        found = session.get(f"{upstream[first].rstrip('/')}/{rest}", timeout=60)
        return found.content if found.ok else found.status_code

    return answer
