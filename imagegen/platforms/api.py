"""HTTP with a platform: its key in one place and in no message, patience where it is safe, and
every refusal in words.

The stores' HTTP repeats whatever it asks, since the same bytes may be put twice. A template may
not: who asks says whether a request may be repeated, and what a refusal says is read.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.auth import AuthBase

from imagegen import __version__
from imagegen.errors import PlatformError, UsageError
from imagegen.net.http import bundle, is_here
from imagegen.net.http_errors import reason, retry_after, status

log = logging.getLogger(__name__)

LARGEST = 32 << 20
"""Bytes that an answer may have: all templates of an account with their READMEs."""

SHOWN = 600
"""Characters of a server's own words that a message quotes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Platform:
    """Where a platform is and what it means by refusing; ``variable`` holds the address's own."""

    name: str
    address: str
    variable: str
    key_variable: str
    hints: Mapping[int, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """Seconds: to connect, without a byte, for a whole answer, and before each further try.

    ``stale`` are the pauses between two looks at something that was just written: RunPod's readers
    may be behind its writers, for which runpodctl looks ten times within 2.5 s.
    """

    connect: float = 10.0
    silence: float = 30.0
    answer: float = 90.0
    pauses: tuple[float, ...] = (1.0, 3.0, 6.0)
    longest: float = 60.0
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


class Refused(PlatformError):
    """The platform said no; ``status`` is HTTP's."""

    def __init__(self, message: str, *, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Api:
    """One platform for one key."""

    def __init__(
        self,
        platform: Platform,
        address: str,
        key: Key,
        patience: Patience | None = None,
        ca: str = "",
    ) -> None:
        """``address`` is the platform's own, or that of a stand-in; ``say`` hears of waiting.

        Raises:
            UsageError: the address would send the key over an open line, or is none; or the CA
                bundle is not there.
        """
        self.platform, self.patience = platform, patience or Patience()
        self._address, self._key = _address(platform, address), key
        self._session = requests.Session()
        # Cloudflare in front of RunPod refuses the agents of common libraries with error 1010.
        self._session.headers["User-Agent"] = f"imagegen/{__version__}"
        self._session.headers["Accept-Encoding"] = "identity"
        self._session.trust_env = not is_here(urlsplit(self._address).hostname or "")
        self._verify = bundle(ca)

    @classmethod
    def of(cls, platform: Platform, ca: str = "") -> Api:
        """With the key, and maybe the address, that the environment holds."""
        key = Key(os.environ.get(platform.key_variable, ""), platform.key_variable)
        address = os.environ.get(platform.variable) or platform.address
        return cls(platform, address, key, ca=ca)

    def close(self) -> None:
        """Leave the connections."""
        self._session.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str] | None = None,
        again: bool,
    ) -> object:
        """The JSON of the answer, None where it has no body.

        ``again`` says that the request may be repeated though it may have been carried out. A 429
        was not, and is always waited for.

        Raises:
            Unanswered: no whole answer, for a request that is not to be repeated.
            Refused: the platform says no. PlatformError: it cannot be used.
        """
        tries = 0
        while True:
            tries += 1
            what = f"{method} {path}"
            try:
                response, data = self._once(method, path, body, query)
            except (requests.exceptions.RequestException, _Broken) as error:
                why = str(error) if isinstance(error, _Broken) else reason(error)
                wanted, harmless = 0.0, again
                if isinstance(error, requests.exceptions.SSLError):
                    raise self._error(what, why) from None  # it will not be another certificate
            else:
                code = response.status_code
                log.info("%s %s: %s", self.platform.name, what, status(response))
                if code < 300:
                    return self._json(what, data, again=again)
                why = f"{status(response)}{self._quoted(data)}"
                wanted, harmless = retry_after(response), again or code == 429
                if code != 429 and code < 500:
                    raise self._refused(what, code, why)
            self._pause(what, why, tries, wanted, harmless=harmless)

    def _once(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        query: Mapping[str, str] | None,
    ) -> tuple[requests.Response, str]:
        patience = self.patience
        until = time.monotonic() + patience.answer
        with self._session.request(
            method,
            f"{self._address}{path}",
            json=body,
            params=query,
            auth=self._key,
            verify=self._verify,
            stream=True,
            timeout=(patience.connect, patience.silence),
            allow_redirects=False,  # requests would make a GET of a redirected POST
        ) as response:
            return response, self._read(response, until).decode("utf-8", errors="replace")

    def _read(self, response: requests.Response, until: float) -> bytes:
        parts = bytearray()
        try:
            while piece := response.raw.read1(1 << 16):
                parts += piece
                if time.monotonic() > until:
                    raise _Broken(f"the answer took more than {self.patience.answer:.0f} s")
                if len(parts) > LARGEST:
                    raise _Broken(f"the answer has more than {LARGEST:,} bytes")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Broken(reason(error)) from None
        promised = response.headers.get("Content-Length", "")
        if promised.isdecimal() and len(parts) < int(promised):
            raise _Broken(f"the answer was cut off after {len(parts)} of {promised} bytes")
        return bytes(parts)

    def told(self, data: object) -> str:
        """What an answer says in words, without the key."""
        return self._quoted(json.dumps(data, ensure_ascii=False)).removeprefix(": ")

    def _quoted(self, data: str) -> str:
        """The same of an answer's text, as the end of a message; empty if it has no words."""
        # Also after decoding, which may put the key together, and before it is cut in two.
        text = self._key.hidden(_told(self._key.hidden(data)))
        return f": {text[:SHOWN]}" if text else ""

    def _json(self, what: str, data: str, *, again: bool) -> object:
        if not data.strip():
            return None
        try:
            value: object = json.loads(data)
        except ValueError:
            kind = PlatformError if again else Unanswered
            raise kind(
                f"{self.platform.name}: {what}: the answer is no JSON{self._quoted(data)}",
                hint="is there a proxy in between that answers by itself?",
            ) from None
        return value

    def _pause(self, what: str, why: str, tries: int, wanted: float, *, harmless: bool) -> None:
        """Wait for the next try, or say that there is none."""
        if not harmless:
            raise Unanswered(f"{self.platform.name}: {what}: {why}")
        if tries > len(self.patience.pauses) or wanted > self.patience.longest:
            asks = f"; it asks to come back in {wanted:.0f} s" if wanted else ""
            raise self._error(what, f"{why}{asks}")
        pause = max(wanted, self.patience.pauses[tries - 1])
        log.info(f"{self.platform.name}: {what}: {why}; again in {pause:.0f} s")
        time.sleep(pause)

    def _error(self, what: str, why: str) -> PlatformError:
        return PlatformError(
            f"{self.platform.name}: {what}: {why}",
            hint="nothing is lost: run the command again when it answers",
        )

    def _refused(self, what: str, code: int, why: str) -> Refused:
        hint = self.platform.hints.get(code, "")
        return Refused(f"{self.platform.name}: {what}: {why}", hint=hint, status=code)


class _Broken(Exception):
    """An answer that did not come whole; why, in words."""


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
            f"{platform.variable} is not the address of an API",
            hint=f"such as {platform.address}, without a login, ? and #",
        )
    if parts.scheme == "http" and not is_here(parts.hostname or ""):
        raise UsageError(f"{platform.variable} needs https: it gets the key")
    return address.strip().rstrip("/")
