"""What an answer, or the lack of one, says in words."""

from __future__ import annotations

import email.utils
import json
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from imagegen.errors import ImagegenError

TOLD = 200
"""Characters of a server's own words that are repeated."""


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


def status(response: requests.Response) -> str:
    """An answer's status in words."""
    return f"HTTP {response.status_code} {response.reason or ''}".strip()


def retry_after(response: requests.Response) -> float:
    """Seconds until the server wants to be asked again (RFC 9110, 10.2.3); 0 if it does not say.

    A date is one of the server's own clock, which may be another than ours.
    """
    text = response.headers.get("Retry-After", "")
    if text.isdecimal():
        return float(text)
    now = _seconds(response.headers.get("Date", ""))
    return max(0.0, (_seconds(text) or 0.0) - (time.time() if now is None else now))


def _seconds(date: str) -> float | None:
    with suppress(ValueError):
        return email.utils.parsedate_to_datetime(date).timestamp()
    return None


def refused(
    kind: Kind, name: str, response: requests.Response, method: str, words: str
) -> ImagegenError:
    """What a refusal means; ``words`` are the server's own."""
    code, why = response.status_code, status(response) + words
    if method == "PUT" and code in (403, 405, 501):
        return kind.error(f"{name} is read-only: {why}", hint=kind.read_only)
    if code in (401, 403):
        return (kind.refused or kind.error)(f"{name} refused the login: {why}", hint=kind.login)
    if code in range(300, 400):
        there = urlsplit(response.headers.get("Location", ""))
        return kind.error(
            f"{name} sends uploads on to {there.hostname or ''}{there.path}: {status(response)}",
            hint="name it by the address that takes them",
        )
    return (kind.bad_request if code == 400 and kind.bad_request else kind.error)(
        f"{name} answers {why}"
    )


def registry_words(body: bytes) -> str:
    """What a registry says of its refusal, in the form that the specification gives errors; empty
    for what has another.
    """
    with suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        row = json.loads(body)["errors"][0]
        words = " ".join(str(row.get("message") or row["code"]).split())
        return f" ({''.join(c if c.isprintable() else '?' for c in words[:TOLD])})"
    return ""


def reason(error: BaseException) -> str:
    """Why there is no answer, in words. Not the error's own: those hold URLs, and so logins."""
    errors = list(_behind(error))

    def any_is(*kinds: type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in errors)

    systems = (one for one in errors if isinstance(one, OSError))
    words = next(
        (
            one.strerror
            for one in systems
            if one.strerror and not isinstance(one, requests.exceptions.RequestException)
        ),
        "",
    )
    if any_is(urllib3.exceptions.ProxyError):
        return f"the proxy does not let it through{f' ({words})' if words else ''}"
    for one in errors:
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {one.verify_message}"
    if words:
        return words
    if any_is(urllib3.exceptions.ConnectTimeoutError):
        return "no connection in time"
    if any_is(urllib3.exceptions.ReadTimeoutError, TimeoutError):
        return "no byte in time"
    if any_is(urllib3.exceptions.ProtocolError):
        return "the connection was cut"
    return type(error).__name__


def _behind(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it was made from; requests and urllib3 hide them in ``args``."""
    seen: list[BaseException] = [error]
    for one in seen:
        yield one
        within = (*one.args, getattr(one, "reason", None), one.__cause__, one.__context__)
        seen += [e for e in within if isinstance(e, BaseException) and e not in seen]
