"""HTTP with a platform: its key in one place and in no message, no request sent twice that may not
be, and every refusal in words.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import requests
from requests.auth import AuthBase

from imagegen import __version__
from imagegen.errors import ImagegenError, PlatformError, UsageError
from imagegen.net import http
from imagegen.net.address import is_here
from imagegen.net.http import Broken, Request, Web
from imagegen.net.http_errors import Kind, status

if TYPE_CHECKING:
    from imagegen.platforms import Platform

log = logging.getLogger(__name__)

LARGEST = 32 << 20
"""Bytes that an answer may have: all templates of an account with their READMEs."""

SHOWN = 600
"""Characters of a server's own words that a message quotes."""

DONE = frozenset(range(200, 300))


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience(http.Patience):
    """Of a platform, in seconds.

    ``stale`` are the pauses between two looks at something that was just written: RunPod's readers
    may be behind its writers, for which runpodctl looks ten times within 2.5 s.
    """

    silence: float = 30.0
    sending: tuple[float, float] = (10.0, 30.0)
    answer: float | None = 90.0
    pauses: tuple[float, ...] = (1.0, 3.0, 6.0)
    stale: tuple[float, ...] = (0.25, 0.25, 0.5, 1.0, 2.0)


class Key(AuthBase):
    """A platform's key, which shows itself to nobody but the platform."""

    def __init__(self, text: str, variable: str) -> None:
        """``text`` is what the environment holds.

        Raises:
            UsageError: it is empty, or cannot be a header; without a word of it.
        """
        self._text = text.strip()
        if not self._text:
            raise UsageError(
                f"{variable} is not set",
                hint="without --apply and --plan no key is needed: what would be sent is printed",
            )
        if not re.fullmatch(r"[\x21-\x7e]+", self._text):
            raise UsageError(
                f"{variable} holds spaces, control characters or letters that no key has",
                hint="was more copied than the key?",
            )
        # Every sign may be escaped, and again in JSON that is quoted in JSON.
        signs = (
            rf"(?:\\{{0,8}}{re.escape(sign)}|(?i:\\{{1,8}}u00{ord(sign):02x}|%{ord(sign):02x}))"
            for sign in self._text
        )
        self._forms = re.compile("".join(signs))

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._text}"
        return request

    def __repr__(self) -> str:
        return "Key(…)"

    def hidden(self, text: str) -> str:
        """``text`` without the key: as it is, as any writer of JSON has it, as in an address."""
        return self._forms.sub("[key]", text)


class Unanswered(PlatformError):
    """Nobody knows whether it was done: look before another try."""


class PlatformRefused(PlatformError):
    """The platform said no; ``status`` is HTTP's."""

    def __init__(self, message: str, *, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Api(Web):
    """One platform for one key."""

    transient = frozenset({http.TOO_MANY, *range(500, 600)})
    largest = LARGEST
    redirects = False  # the key is for this address alone

    def __init__(
        self,
        platform: Platform,
        address: str,
        key: Key,
        patience: Patience | None = None,
        ca: str = "",
    ) -> None:
        """``address`` is the platform's own, or that of a stand-in.

        Raises:
            UsageError: the address would send the key over an open line, or is none; or the CA
                bundle is not there.
        """
        kind = Kind(name=platform.title, error=PlatformError, login="", read_only="")
        waits = patience or Patience()
        super().__init__(platform.title, kind, ca=ca, auth=key, patience=waits)
        self.stale = waits.stale
        self._platform, self._key = platform, key
        self._address = _address(platform, address)
        # Cloudflare in front of RunPod refuses the agents of common libraries with error 1010.
        self._session.headers["User-Agent"] = f"imagegen/{__version__}"
        self._session.trust_env = not is_here(urlsplit(self._address).hostname or "")

    @classmethod
    def of(cls, platform: Platform, ca: str = "") -> Api:
        """With the key, and maybe the address, that the environment holds."""
        key = Key(os.environ.get(platform.key_variable, ""), platform.key_variable)
        address = os.environ.get(platform.address_variable) or platform.address
        return cls(platform, address, key, ca=ca)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str] | None = None,
        replay: bool,
    ) -> object:
        """The JSON of the answer, None where it has no body.

        ``replay`` says that the request may be repeated though it may have been carried out. One
        that was answered with 429 was not, and is always repeated.

        Raises:
            Unanswered: no whole answer, for a request that is not to be repeated.
            PlatformRefused: the platform says no. PlatformError: it cannot be used.
        """
        url = f"{self._address}{path}{f'?{urlencode(query)}' if query else ''}"
        sent = b"" if body is None else json.dumps(body).encode()
        response, data = self.read(
            url,
            method,
            headers={"Content-Type": "application/json"} if sent else {},
            body=(lambda: sent) if sent else None,
            ok=DONE,
            replay=replay,
        )
        what = f"{self.location}: {method} {path}"
        log.debug("%s: %s", what, status(response))
        return self._json(what, data.decode("utf-8", errors="replace"), replay=replay)

    def told(self, data: object) -> str:
        """What an answer says in words, without the key."""
        return self._quoted(json.dumps(data, ensure_ascii=False)).removeprefix(": ")

    def _quoted(self, data: str) -> str:
        """The same of an answer's text, as the end of a message; empty if it has no words."""
        # Also after decoding, which may put the key together, and before it is cut in two.
        text = self._key.hidden(_told(self._key.hidden(data)))
        return f": {text[:SHOWN]}" if text else ""

    def _json(self, what: str, data: str, *, replay: bool) -> object:
        if not data.strip():
            return None
        try:
            value: object = json.loads(data)
        except ValueError:
            kind = PlatformError if replay else Unanswered
            raise kind(
                f"{what}: the answer is not JSON{self._quoted(data)}",
                hint="is there a proxy in between that answers by itself?",
            ) from None
        return value

    # --- the words of a platform's failures -------------------------------------------------------

    def _called(self, request: Request) -> str:
        path = request.url.removeprefix(self._address).partition("?")[0]
        return f"{self.location}: {request.method} {path}"

    def _words(self, response: requests.Response) -> str:
        try:
            data = self._small(response).decode("utf-8", errors="replace")
        except Broken:
            data = ""
        return f"{status(response)}{self._quoted(data)}"

    def _unusable(self, request: Request, why: str) -> ImagegenError:
        if not request.replay:
            return Unanswered(f"{self._called(request)}: {why}")
        return PlatformError(
            f"{self._called(request)}: {why}",
            hint="nothing is lost: run the command again when it answers",
        )

    def _refused(self, response: requests.Response, request: Request) -> ImagegenError:
        code = response.status_code
        return PlatformRefused(
            f"{self._called(request)}: {self._words(response)}",
            hint=self._platform.hints.get(code, ""),
            status=code,
        )

    def _too_long(self) -> Exception:
        return Broken(f"the answer has more than {self.largest:,} bytes")


def _told(data: str) -> str:
    """A server's own words for a message: one line, nothing that moves a terminal's cursor.

    RunPod answers ``application/problem+json`` (RFC 9457) with ``errors``, vast.ai ``error`` and
    ``msg`` or plain text, and GraphQL a list of ``errors``.
    """
    try:
        value = json.loads(data)
    except ValueError:
        value = re.sub(r"<[^>]*>", " ", data)  # a proxy's page
    words: list[str] = []
    if isinstance(value, Mapping):
        for name in ("title", "detail", "error", "msg", "message"):
            if isinstance(value.get(name), str) and value[name] not in words:
                words.append(value[name])
        errors = value.get("errors")
        words += map(_one, errors if isinstance(errors, list) else [])
    else:
        words.append(str(value))
    text = " ".join("; ".join(filter(None, words)).split())
    return "".join(sign for sign in text if sign.isprintable())


def _one(error: object) -> str:
    return str(error.get("message", error)) if isinstance(error, Mapping) else str(error)


def _address(platform: Platform, address: str) -> str:
    try:
        parts = urlsplit(address.strip())
        fit = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        fit = fit and not (parts.query or parts.fragment or parts.username or parts.password)
    except ValueError:
        fit = False
    if not fit:
        raise UsageError(
            f"{platform.address_variable} is not the address of an API",
            hint=f"such as {platform.address}, without a login, ? and #",
        )
    if parts.scheme == "http" and not is_here(parts.hostname or ""):
        raise UsageError(f"{platform.address_variable} needs https: it gets the key")
    return address.strip().rstrip("/")
