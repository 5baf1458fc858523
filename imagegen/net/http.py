"""HTTP for stores, registries and platforms: patience with what passes, an end to what does not,
and no word of a login.
"""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BufferedRandom
from types import MappingProxyType
from typing import Any, NamedTuple

import requests
import urllib3.exceptions
from requests.auth import AuthBase

from imagegen.errors import ImagegenError
from imagegen.net.http_errors import Kind, reason, refused, registry_words, retry_after, status
from imagegen.net.settings import bundle
from imagegen.net.transfer import TELL, restart

log = logging.getLogger(__name__)

CONNECT = 10.0
"""Seconds that a connection may take."""

SILENCE = 30.0
"""Seconds without a byte after which a server is given up; while sending, without taking one."""

ANSWER = 300.0
"""Seconds that a server may take to answer an upload: registries hash and copy it first."""

PAUSES = (1.0, 4.0)
"""Seconds before the second and the third try, the last one."""

LONGEST_PAUSE = 60.0
"""The most seconds that a server's Retry-After is waited for."""

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504, *range(520, 528)})  # 52x: Cloudflare's
SLOW = (60_000, 60.0)
"""A download that brings fewer bytes than this in as many seconds is given up."""

PROGRESS = 1_000_000
"""Bytes that a broken download must have brought for its tries to be counted from one again."""

CHUNK = 1 << 20
SMALL = 4 << 20
"""Bytes that a description may have; the OCI specification sets it as a manifest's limit."""

FEW = 10
"""Requests left of a server's limit, from which on they are told."""


Auth = tuple[str, str] | AuthBase | None
"""User and password; or what signs a request; or nothing, and netrc is asked."""


Body = Callable[[], bytes | io.FileIO]
"""Makes what is sent, again for each try."""


OK = frozenset({200})
TOO_MANY = 429


class Broken(Exception):
    """An answer broke off; why, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long a server is waited for, in seconds. What is not given is as the constants say then.

    ``sending`` takes the place of ``connect`` and ``silence`` where a body is sent; ``answer`` is
    for a whole small answer, None where only its speed counts; ``pauses`` come before each further
    try, and ``longest`` is the most that the server's Retry-After is waited for.
    """

    connect: float = CONNECT
    silence: float = field(default_factory=lambda: SILENCE)
    sending: tuple[float, float] = field(default_factory=lambda: (SILENCE, ANSWER))
    answer: float | None = None
    pauses: tuple[float, ...] = field(default_factory=lambda: PAUSES)
    longest: float = LONGEST_PAUSE


class Request(NamedTuple):
    """What is asked; ``replay`` says that it may be sent again though it may have been done."""

    method: str
    url: str
    headers: Mapping[str, str] = MappingProxyType({})
    body: Body | None = None
    replay: bool = True


class Web:
    """One server; ``location`` is how messages call it. Subclasses may word failures otherwise."""

    transient = TRANSIENT
    """The statuses that may pass."""

    largest = SMALL
    """Bytes that a small answer may have."""

    redirects = True
    """Whether an answer that names another address is followed, where nothing is sent."""

    def __init__(
        self,
        location: str,
        kind: Kind,
        *,
        ca: str = "",
        auth: Auth = None,
        renew: Callable[[requests.Response], bool] = lambda _: False,
        patience: Patience | None = None,
    ) -> None:
        """``renew`` gets a 401 and says whether ``auth`` knows better now.

        Raises:
            UsageError: the CA bundle is not there.
        """
        self.location, self.kind = location, kind
        self._name = f"{kind.name} {location}"
        self._auth, self._renew = auth, renew
        self._left = FEW + 1
        self._session = requests.Session()
        self._session.headers["Accept-Encoding"] = "identity"  # bytes are counted as they come
        self._verify = bundle(ca)
        self._patience = patience

    @property
    def patience(self) -> Patience:
        """How long this server is waited for."""
        return self._patience or Patience()

    def close(self) -> None:
        """Leave the connections."""
        self._session.close()

    def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        ok: frozenset[int] = OK,
        replay: bool = True,
    ) -> requests.Response:
        """An answer with a status in ``ok``, its body not yet read: to be used with ``with``.

        ``replay`` says that the request may be sent again though it may have been carried out. One
        that was answered with 429 was not, and is always sent again.

        Raises:
            ImagegenError: of the server's kind: several tries brought none, or another status.
        """
        request = Request(method, url, headers or {}, body, replay)
        response = self._tried(request)
        if response.status_code == 401 and self._renew(response):
            response.close()
            response = self._tried(request)
        if response.status_code in ok:
            return response
        with response:
            raise self._refused(response, request)

    def text(self, url: str, headers: Mapping[str, str] | None = None) -> bytes | None:
        """A small document, or None where the server says that it is not there.

        Raises:
            ImagegenError: the server does not answer properly.
        """
        response, body = self.read(url, headers=headers, ok=frozenset({200, 404}))
        return None if response.status_code == 404 else body

    def read(
        self,
        url: str,
        method: str = "GET",
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        ok: frozenset[int] = OK,
        replay: bool = True,
    ) -> tuple[requests.Response, bytes]:
        """An answer and its body, which must not be long; asked for again if it breaks off.

        Raises:
            ImagegenError: of the server's kind: it does not answer properly, or with more.
        """
        how: Any = {"headers": headers, "body": body, "ok": ok, "replay": replay}
        request = Request(method, url, replay=replay)
        tries = 0
        while True:
            tries += 1
            try:
                with self.ask(method, url, **how) as response:
                    return response, self._small(response)
            except Broken as error:
                self._pause_or_give_up(request, tries, str(error))

    def download(self, url: str, part: BufferedRandom, size: int) -> bool:
        """Bring ``part`` to ``size`` bytes; False where the server says that nothing is there.

        A download that breaks off goes on where it was, or from the start if the server knows no
        ranges.

        Raises:
            ImagegenError: it broke off three times without progress, was too slow, or brings too
                much.
        """
        best = tries = 0
        while (have := part.seek(0, os.SEEK_END)) < size:
            headers = {"Range": f"bytes={have}-"} if have else {}
            ok = frozenset({200, 206, 404, 416})
            with self.ask("GET", url, headers=headers, ok=ok) as response:
                if response.status_code == 404:
                    return False
                span = response.headers.get("Content-Range", "")
                rest = response.status_code == 206 and span.startswith(f"bytes {have}-")
                if not rest:
                    restart(part)
                broke = "it sends another part than was asked for"
                if rest or response.status_code == 200:
                    broke = self._pour(response, part, size)
            reached = part.seek(0, os.SEEK_END)
            tries = 1 if reached >= best + PROGRESS else tries + 1
            best = max(best, reached)
            if reached < size:
                why = f"{broke} after {reached:,} of {size:,} bytes"
                self._pause_or_give_up(Request("GET", url), tries, why)
        return True

    def _pour(self, response: requests.Response, part: BufferedRandom, size: int) -> str:
        """Write what comes until it ends; returns why it did."""
        told = time.monotonic()
        try:
            for data in self._arriving(response):
                part.write(data)
                if part.tell() > size:
                    raise self.kind.error(
                        f"{self.location} sends more than the {size:,} bytes that it promised"
                    )
                if time.monotonic() - told > TELL:
                    told = time.monotonic()
                    log.info(f"fetched {part.tell() / 1e6:,.0f} of {size / 1e6:,.0f} MB")
        except Broken as error:
            return str(error)
        return "the connection was cut"

    def _tried(self, request: Request) -> requests.Response:
        tries = 0
        while True:
            tries += 1
            wanted = 0.0
            try:
                response = self._once(request)
            except requests.exceptions.RequestException as error:
                why = reason(error)
                if isinstance(error, requests.exceptions.SSLError):
                    # It will not be another certificate, and nothing was sent.
                    raise self._unusable(request._replace(replay=True), why) from None
            else:
                self._tell_limit(response)
                if response.status_code not in self.transient:
                    return response
                with response:
                    why, wanted = self._words(response), retry_after(response)
                if response.status_code == TOO_MANY:
                    request = request._replace(replay=True)
            self._pause_or_give_up(request, tries, why, wanted)

    def _once(self, request: Request) -> requests.Response:
        body, patience = request.body, self.patience
        data = body() if body else None
        try:
            return self._session.request(
                request.method,
                request.url,
                headers=dict(request.headers),
                data=data,
                auth=self._auth,
                verify=self._verify,
                stream=True,
                timeout=patience.sending if body else (patience.connect, patience.silence),
                # requests makes a GET of a PUT that is redirected, and takes its answer for success
                allow_redirects=self.redirects and body is None,
            )
        finally:
            if isinstance(data, io.IOBase):
                data.close()

    def _pause_or_give_up(
        self, request: Request, tries: int, why: str, wanted: float = 0.0
    ) -> None:
        patience = self.patience
        if not request.replay:
            raise self._unusable(request, why)
        if tries > len(patience.pauses) or wanted > patience.longest:
            asks = f"; it asks to come back in {wanted:.0f} s" if wanted else ""
            raise self._unusable(request, f"{why}{asks}")
        pause = max(wanted, patience.pauses[tries - 1])
        log.info(f"{self._called(request)}: {why}; again in {pause:.0f} s")
        time.sleep(pause)

    # --- what a subclass may word otherwise -------------------------------------------------------

    def _called(self, _request: Request) -> str:
        """How a request is called while it is waited for."""
        return self.location

    def _words(self, response: requests.Response) -> str:
        """What an answer says that may pass."""
        return status(response)

    def _unusable(self, _request: Request, why: str) -> ImagegenError:
        """There is no answer. Where it may not be repeated, nobody knows whether it was done."""
        return self.kind.error(
            f"{self._name} cannot be used: {why}", hint="is it up, and is the address right?"
        )

    def _refused(self, response: requests.Response, request: Request) -> ImagegenError:
        """The answer is a no."""
        words = ""
        with suppress(Broken, ImagegenError):
            words = registry_words(self._small(response))
        return refused(self.kind, self._name, response, request.method, words)

    def _too_long(self) -> Exception:
        """A small answer is not small."""
        return self.kind.error(f"{self.location} sends more than {SMALL:,} bytes as a description")

    def _tell_limit(self, response: requests.Response) -> None:
        """Say that few requests are left: Docker Hub's ``ratelimit-remaining: 7;w=21600``."""
        left = response.headers.get("RateLimit-Remaining", "").partition(";")[0]
        if left.isdecimal() and int(left) <= FEW and int(left) != self._left:
            self._left = int(left)
            log.info(f"{self.location}: {left} requests are left before it refuses more")

    def small(self, response: requests.Response) -> bytes:
        """The body of an answer that must not be long.

        Raises:
            ImagegenError: of the server's kind: it is long, or broke off.
        """
        try:
            return self._small(response)
        except Broken as error:
            raise self.kind.error(f"{self.location}: {error}") from error

    def _small(self, response: requests.Response) -> bytes:
        body = b""
        for data in self._arriving(response, self.patience.answer):
            body += data
            if len(body) > self.largest:
                raise self._too_long()
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and "Transfer-Encoding" not in response.headers:
            whole = int(length)
            if len(body) < whole:
                raise Broken(f"it broke off after {len(body):,} of {whole:,} bytes")
        return body

    def _arriving(self, response: requests.Response, most: float | None = None) -> Iterator[bytes]:
        """The body of an answer, piece by piece as it comes, within ``most`` seconds.

        Raises:
            Broken: it broke off, or took longer. (Not for a body that ends early without an error.)
            ImagegenError: of the server's kind: it comes too slowly, where there is no ``most``.
        """
        begun = since = time.monotonic()
        got = 0
        while True:
            try:
                # One read of the socket at most, so that a slow server is seen to be slow.
                data = response.raw.read1(CHUNK, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise Broken(reason(error)) from error
            if not data:
                return
            yield data
            got += len(data)
            now = time.monotonic()
            if most is not None:
                if now - begun > most:
                    raise Broken(f"the answer took more than {most:.0f} s")
            elif (seconds := now - since) > SLOW[1]:
                if got < SLOW[0]:
                    raise self.kind.error(
                        f"{self.location} is too slow: {got:,} bytes in {seconds:.0f} s"
                    )
                since, got = now, 0
