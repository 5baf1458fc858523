"""What an answer, or the lack of one, says in words."""

from __future__ import annotations

import email.utils
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress

import requests
import urllib3.exceptions


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
