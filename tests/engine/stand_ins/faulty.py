"""A reverse proxy before a real registry that fails by rule: late, half, by a status, or by lying.

It serves and asks on this machine's loopback only.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import io
import json
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

CHUNK = 16_384
HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "expect", "te", "upgrade"})
"""Headers of one connection, not of the message (RFC 9110, 7.6.1)."""

TOKEN = "/v2/token"
"""Where tokens are given: below the registry's API, as a login is sent nowhere else without TLS."""

HANDSHAKE = b"\x16"
"""The first byte of TLS. Docker asks so first; this answer, Go's own, has it try without."""
NO_TLS = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n"

PATIENCE = 60.0
"""Seconds without a byte after which a connection is given up."""


@dataclass(frozen=True)
class Asked:
    """One request; ``digest`` is the blob's or manifest's that it names, or empty."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def digest(self) -> str:
        parts = urlsplit(self.path)
        named = parse_qs(parts.query).get("digest", [parts.path.rpartition("/")[2]])[0]
        return named if named.startswith("sha256:") else ""


@dataclass(kw_only=True)
class Rule:
    """Which requests it is about, and what happens to them; several rules may meet one request."""

    method: str = ""
    """A pattern of the whole method; empty: any."""
    path: str = ""
    """A pattern somewhere in path and query; empty: any."""
    nth: int = 1
    """The first of the requests that match which is hit, counted from 1."""
    times: int | None = None
    """How many are hit from then on; None: all."""
    chance: float = 1.0
    """Of each of these; the proxy's seed decides."""

    delay: float = 0.0
    """Seconds before anything is done."""
    bandwidth: int = 0
    """Bytes per second, in each direction; 0: as fast as they come."""
    cut_request: int | None = None
    """Bytes of the body that reach the registry before both connections are gone."""
    cut_response: int | None = None
    """Bytes of the body that reach the client before its connection is gone."""
    status: int = 0
    """Answered in place of the registry."""
    retry_after: float | None = None
    """Seconds, in that answer's Retry-After."""
    as_date: bool = False
    """Retry-After is a date, by the proxy's clock."""
    swallow: bool = False
    """Say 201 and keep nothing."""
    before: Callable[[Asked], object] | None = None
    """Called before the request is passed on."""
    after: Callable[[Asked], object] | None = None
    """Called once the registry answered 2xx, before the client hears of it."""

    seen: int = field(default=0, init=False)
    hits: int = field(default=0, init=False)

    def meets(self, asked: Asked, dice: random.Random) -> bool:
        """Whether this request is hit; counts it. Not for two threads at once."""
        if self.method and not re.fullmatch(self.method, asked.method):
            return False
        if not re.search(self.path, asked.path):
            return False
        self.seen += 1
        over = self.times is not None and self.hits >= self.times
        if self.seen < self.nth or over or dice.random() >= self.chance:
            return False
        self.hits += 1
        return True


class Tokens:
    """A token service whose tokens live for some requests, whatever it says of their seconds."""

    def __init__(self, user: str, password: str, lives: int) -> None:
        self._basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._lives = lives
        self._left: dict[str, int] = {}
        self._lock = threading.Lock()
        self.given = self.expired = 0

    def give(self, authorization: str) -> str | None:
        """A new token for the right login."""
        if authorization != self._basic:
            return None
        token = secrets.token_hex(16)
        with self._lock:
            self._left[token] = self._lives
            self.given += 1
        return token

    def takes(self, authorization: str) -> bool:
        """Whether a request may pass; one that may costs its token a life."""
        token = authorization.removeprefix("Bearer ")
        with self._lock:
            left = self._left.get(token)
            if left is None:
                return False
            self._left[token] = max(left - 1, 0)
            self.expired += left == 0
            return left > 0


class Proxy:
    """What the handlers share; ``host`` is how clients call it, ``asked`` what they said."""

    def __init__(self, upstream: str, seed: int, tokens: Tokens | None) -> None:
        self.upstream, self.tokens = upstream, tokens
        self.clock = 0.0
        """Seconds that the registry's clock is ahead of ours."""
        self.rules: list[Rule] = []
        self.asked: list[tuple[str, str, int]] = []
        """Method, path and status of each request; 0 where the connection was cut."""
        self.host = ""
        self.dice, self._lock = random.Random(seed), threading.Lock()

    def met(self, asked: Asked) -> list[Rule]:
        """The rules that hit this request."""
        with self._lock:
            return [rule for rule in self.rules if rule.meets(asked, self.dice)]

    def date(self, after: float = 0.0) -> str:
        """The registry's time in ``after`` seconds, as HTTP writes it."""
        return email.utils.formatdate(time.time() + self.clock + after, usegmt=True)


@contextmanager
def faulty(upstream: str, *, seed: int = 0, tokens: Tokens | None = None) -> Iterator[Proxy]:
    """A proxy before the registry at ``upstream`` (host:port); rules may be added at any time."""
    proxy = Proxy(upstream, seed, tokens)
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"proxy": proxy}))
    http.daemon_threads = True
    proxy.host = f"127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Cut(Exception):
    """This connection ends here."""


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        with contextlib.suppress(OSError):  # the client went away
            if self.rfile.peek(1)[:1] == HANDSHAKE:  # type: ignore[attr-defined]
                self.wfile.write(NO_TLS)
            else:
                super().handle_one_request()
                return
        self.close_connection = True

    def _handle(self) -> None:
        asked = Asked(self.command, self.path, dict(self.headers.items()))
        self._body = _Body(self.rfile, self.headers)
        self.answered = 0
        try:
            if not self._guarded(asked):
                self._ruled(asked, self.proxy.met(asked))
        except (_Cut, OSError, HTTPException):
            self.close_connection = True
            self.answered = 0
        finally:
            self.proxy.asked.append((self.command, self.path, self.answered))

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _handle

    def log_message(self, *words: object) -> None:
        pass

    # --- answers of our own -----------------------------------------------------------------------

    def _guarded(self, asked: Asked) -> bool:
        """Answer for the token service, and refuse whoever has no token."""
        tokens, said = self.proxy.tokens, self.headers.get("Authorization", "")
        if tokens is None:
            return False
        if urlsplit(asked.path).path == TOKEN:
            # 405 for POST: clients then ask by GET, with the login as Basic
            token = tokens.give(said) if asked.method == "GET" else None
            now = datetime.fromtimestamp(time.time() + self.proxy.clock, UTC).isoformat()
            row = {"token": token, "access_token": token, "expires_in": 300, "issued_at": now}
            status = 405 if asked.method != "GET" else 200 if token else 401
            self._answer(status, {}, json.dumps(row).encode() if token else b"")
            return True
        if tokens.takes(said):
            return False
        realm = f'Bearer realm="http://{self.proxy.host}{TOKEN}",service="registry"'
        known = ',error="invalid_token"' if said else ""
        self._answer(401, {"WWW-Authenticate": realm + known}, _error("UNAUTHORIZED"))
        return True

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        for _ in self._body:  # a client that still sends would not read the answer
            pass
        self._head(status, {**headers, "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.answered = status
        self.send_response_only(status)
        for name, value in {"Date": self.proxy.date(), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    # --- the registry's answers -------------------------------------------------------------------

    def _ruled(self, asked: Asked, rules: list[Rule]) -> None:
        for rule in rules:
            time.sleep(rule.delay)
        for rule in rules:
            if rule.before:
                rule.before(asked)
        for rule in rules:
            if rule.status:
                return self._answer(rule.status, self._later(rule), _error("FAULT"))
            if rule.swallow:
                return self._swallow(asked)
        return self._pass_on(asked, rules)

    def _later(self, rule: Rule) -> dict[str, str]:
        if rule.retry_after is None:
            return {}
        date = self.proxy.date(rule.retry_after)
        return {"Retry-After": date if rule.as_date else f"{rule.retry_after:g}"}

    def _swallow(self, asked: Asked) -> None:
        sha = hashlib.sha256()
        for data in self._body:
            sha.update(data)
        digest = asked.digest or f"sha256:{sha.hexdigest()}"
        place = asked.path.partition("/uploads/")[0].partition("/manifests/")[0]
        where = f"http://{self.proxy.host}{place}/{digest}"
        self._answer(201, {"Docker-Content-Digest": digest, "Location": where})

    def _pass_on(self, asked: Asked, rules: list[Rule]) -> None:
        speed = min((rule.bandwidth for rule in rules if rule.bandwidth), default=0)
        with contextlib.closing(HTTPConnection(self.proxy.upstream, timeout=PATIENCE)) as server:
            self._send(server, asked, speed, _least(rule.cut_request for rule in rules))
            answer = server.getresponse()
            if 200 <= answer.status < 300:
                for rule in rules:
                    if rule.after:
                        rule.after(asked)
            self._hand_back(answer, speed, _least(rule.cut_response for rule in rules))

    def _send(self, server: HTTPConnection, asked: Asked, speed: int, cut: int | None) -> None:
        server.putrequest(asked.method, asked.path, skip_host=True, skip_accept_encoding=True)
        for name, value in asked.headers.items():
            if name.lower() not in HOP:  # Host stays: the registry's Location leads back here
                server.putheader(name, value)
        chunked = self._body.chunked
        if chunked:
            server.putheader("Transfer-Encoding", "chunked")
        server.endheaders()
        if cut == 0:
            raise _Cut
        sent = 0
        for data in self._body:
            part = data if cut is None else data[: cut - sent]
            sent += len(part)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it answered already
                server.send(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
            if sent == cut:
                raise _Cut
            time.sleep(len(data) / speed if speed else 0)
        if chunked:
            server.send(b"0\r\n\r\n")

    def _hand_back(self, answer: HTTPResponse, speed: int, cut: int | None) -> None:
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in HOP}
        kept["Date"] = self.proxy.date()
        empty = self.command == "HEAD" or answer.status in {204, 304}
        chunked = not empty and answer.length is None
        if chunked:
            kept["Transfer-Encoding"] = "chunked"
        self._head(answer.status, kept)
        sent = 0
        while cut is None or sent < cut:
            data = answer.read(CHUNK if cut is None else min(CHUNK, cut - sent))
            if not data:
                break
            sent += len(data)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            time.sleep(len(data) / speed if speed else 0)
        if sent == cut:
            raise _Cut
        if chunked:
            self.wfile.write(b"0\r\n\r\n")


class _Body:
    """The bytes of a request's body, however they are framed; none is read twice."""

    def __init__(self, file: io.BufferedIOBase, headers: Message[str, str]) -> None:
        self._file = file
        self.chunked = headers.get("Transfer-Encoding", "").lower() == "chunked"
        self._left = int(headers.get("Content-Length") or 0)
        self._over = False

    def __iter__(self) -> Iterator[bytes]:
        while not self._over:
            if self.chunked and not self._left:
                self._left = int(self._line().partition(b";")[0], 16)
            if not self._left:
                self._over = True
                while self.chunked and self._line().strip():  # trailers, and the empty line
                    pass
                return
            data = self._file.read1(min(CHUNK, self._left))
            if not data:
                raise _Cut
            self._left -= len(data)
            if self.chunked and not self._left:
                self._line()
            yield data

    def _line(self) -> bytes:
        return self._file.readline(CHUNK)


def _least(numbers: Iterator[int | None]) -> int | None:
    return min((number for number in numbers if number is not None), default=None)


def _error(code: str) -> bytes:
    """An error in the words of the distribution specification."""
    return json.dumps({"errors": [{"code": code, "message": "as told"}]}).encode()
