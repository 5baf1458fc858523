"""HTTP for stores, registries and platforms: patience with what passes, an end to what does not,
and no word of a login.
"""

from __future__ import annotations

import io
import ipaddress
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.auth import AuthBase

from imagegen.errors import ImagegenError, UsageError
from imagegen.net.http_errors import reason, retry_after, status

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
TOLD = 200
"""Characters of a server's own words that are repeated."""

SLOW = (60_000, 60.0)
"""A download that brings fewer bytes than this in as many seconds is given up."""

PROGRESS = 1_000_000
"""Bytes that a broken download must have brought for its tries to be counted from one again."""

CHUNK = 1 << 20
SMALL = 4 << 20
"""Bytes that a description may have; the OCI specification sets it as a manifest's limit."""

FEW = 10
"""Requests left of a server's limit, from which on they are told."""

TELL = 3.0
"""Seconds between two lines about a transfer."""

Auth = tuple[str, str] | AuthBase | None
"""User and password; or what signs a request; or nothing, and netrc is asked."""


Body = Callable[[], bytes | io.FileIO]
"""Makes what is sent, anew for each try."""


class Broken(Exception):
    """An answer broke off; why, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What sort of server it is: what messages call it, what its failures are, what to do then.

    ``bad_request`` is for status 400, where that can pass, and ``refused`` for 401 and 403.
    """

    name: str
    error: type[ImagegenError]
    login: str
    read_only: str
    bad_request: type[ImagegenError] | None = None
    refused: type[ImagegenError] | None = None


class Web:
    """One server; ``location`` is how messages call it."""

    def __init__(
        self,
        location: str,
        kind: Kind,
        *,
        ca: str = "",
        auth: Auth = None,
        renew: Callable[[requests.Response], bool] = lambda _: False,
    ) -> None:
        """``renew`` gets a 401 and says whether ``auth`` knows better now; ``say`` hears what is
        waited for, and when a limit of requests is near.

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

    def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        ok: frozenset[int] = frozenset({200}),
    ) -> requests.Response:
        """An answer with a status in ``ok``, its body not yet read: to be used with ``with``.

        Raises:
            ImagegenError: of the server's kind: three tries brought none, or another status.
        """
        response = self._tried(method, url, headers or {}, body)
        if response.status_code == 401 and self._renew(response):
            response.close()
            response = self._tried(method, url, headers or {}, body)
        if response.status_code in ok:
            return response
        with response:
            raise self._refused(response, method)

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
        *,
        headers: Mapping[str, str] | None = None,
        ok: frozenset[int] = frozenset({200}),
    ) -> tuple[requests.Response, bytes]:
        """An answer and its body, which must not be long; asked for again if it breaks off.

        Raises:
            ImagegenError: of the server's kind: it does not answer properly, or with more.
        """
        tries = 0
        while True:
            tries += 1
            try:
                with self.ask("GET", url, headers=headers, ok=ok) as response:
                    return response, self._small(response)
            except Broken as error:
                self._pause_or_give_up(tries, str(error))

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
                self._pause_or_give_up(tries, f"{broke} after {reached:,} of {size:,} bytes")
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

    def _tried(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None
    ) -> requests.Response:
        tries = 0
        while True:
            tries += 1
            wanted = 0.0
            try:
                response = self._once(method, url, headers, body)
            except requests.exceptions.RequestException as error:
                why = reason(error)
                if isinstance(error, requests.exceptions.SSLError):
                    tries = len(PAUSES) + 1  # it will not be another certificate
            else:
                self._tell_limit(response)
                if response.status_code not in TRANSIENT:
                    return response
                response.close()
                why, wanted = status(response), retry_after(response)
            self._pause_or_give_up(tries, why, wanted)

    def _once(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None
    ) -> requests.Response:
        data = body() if body else None
        try:
            return self._session.request(
                method,
                url,
                headers=dict(headers),
                data=data,
                auth=self._auth,
                verify=self._verify,
                stream=True,
                timeout=(SILENCE, ANSWER) if body else (CONNECT, SILENCE),
                # requests makes a GET of a PUT that is redirected, and takes its answer for success
                allow_redirects=body is None,
            )
        finally:
            if isinstance(data, io.IOBase):
                data.close()

    def _pause_or_give_up(self, tries: int, why: str, wanted: float = 0.0) -> None:
        if tries > len(PAUSES) or wanted > LONGEST_PAUSE:
            asks = f"; it asks to come back in {wanted:.0f} s" if wanted else ""
            raise self.kind.error(
                f"{self._name} cannot be used: {why}{asks}",
                hint="is it up, and is the address right?",
            )
        pause = max(wanted, PAUSES[tries - 1])
        log.info(f"{self.location}: {why}; again in {pause:.0f} s")
        time.sleep(pause)

    def _tell_limit(self, response: requests.Response) -> None:
        """Say that few requests are left: Docker Hub's ``ratelimit-remaining: 7;w=21600``."""
        left = response.headers.get("RateLimit-Remaining", "").partition(";")[0]
        if left.isdecimal() and int(left) <= FEW and int(left) != self._left:
            self._left = int(left)
            log.info(f"{self.location}: {left} requests are left before it refuses more")

    def _refused(self, response: requests.Response, method: str) -> ImagegenError:
        code = response.status_code
        why = status(response) + self._told(response)
        if method == "PUT" and code in (403, 405, 501):
            return self.kind.error(f"{self._name} is read-only: {why}", hint=self.kind.read_only)
        if code in (401, 403):
            return (self.kind.refused or self.kind.error)(
                f"{self._name} refused the login: {why}", hint=self.kind.login
            )
        if code in range(300, 400):
            there = urlsplit(response.headers.get("Location", ""))
            return self.kind.error(
                f"{self._name} sends uploads on to "
                f"{there.hostname or ''}{there.path}: {status(response)}",
                hint="name it by the address that takes them",
            )
        kind = self.kind.bad_request if response.status_code == 400 else None
        return (kind or self.kind.error)(f"{self._name} answers {why}")

    def _told(self, response: requests.Response) -> str:
        """What a registry says of its refusal, in the form that the specification gives errors."""
        faults = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
        with suppress(Broken, ImagegenError, *faults):
            row = json.loads(self._small(response))["errors"][0]
            words = " ".join(str(row.get("message") or row["code"]).split())
            return f" ({''.join(c if c.isprintable() else '?' for c in words[:TOLD])})"
        return ""

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
        for data in self._arriving(response):
            body += data
            if len(body) > SMALL:
                raise self.kind.error(
                    f"{self.location} sends more than {SMALL:,} bytes as a description"
                )
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and "Transfer-Encoding" not in response.headers:
            whole = int(length)
            if len(body) < whole:
                raise Broken(f"it broke off after {len(body):,} of {whole:,} bytes")
        return body

    def _arriving(self, response: requests.Response) -> Iterator[bytes]:
        """The body of an answer, piece by piece as it comes.

        Raises:
            Broken: it broke off. (Not for a body that ends early without an error.)
            ImagegenError: of the server's kind: it comes too slowly.
        """
        since, got = time.monotonic(), 0
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
            if (seconds := time.monotonic() - since) > SLOW[1]:
                if got < SLOW[0]:
                    raise self.kind.error(
                        f"{self.location} is too slow: {got:,} bytes in {seconds:.0f} s"
                    )
                since, got = time.monotonic(), 0


class Upload(io.FileIO):
    """A file that says how much of it was read, as it is sent."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._size, self._told = path.stat().st_size, time.monotonic()

    def read(self, size: int | None = -1) -> bytes:
        if time.monotonic() - self._told > TELL:
            self._told = time.monotonic()
            log.info(f"sent {self.tell() / 1e6:,.0f} of {self._size / 1e6:,.0f} MB")
        return super().read(-1 if size is None else size) or b""


def bundle(ca: str) -> str | bool:
    """The CA bundle to trust: the one given, or that of the environment, or the built-in one.

    Raises:
        UsageError: it is not there.
    """
    # requests itself knows all of these but SSL_CERT_FILE, which Python and pip know.
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    found = ca or next((value for name in names if (value := os.environ.get(name))), "")
    if found and not Path(found).exists():
        raise UsageError(f"the CA bundle {found} is not there")
    return found or True


def restart(file: BufferedRandom) -> None:
    """Empty a file that is open for appending."""
    file.seek(0)  # or tell() goes on from where it was
    file.truncate()


def is_here(host: str) -> bool:
    """Whether a server is on this machine: those have no TLS."""
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host == "localhost"
