"""Logins of registries: those of ``docker login``, and the tokens that they are traded for."""

from __future__ import annotations

import base64
import json
from urllib.parse import urlencode

import requests
from requests.auth import AuthBase
from requests.utils import parse_dict_header

from imagegen.net.http import Web
from imagegen.net.http_errors import Kind


class Login(AuthBase):
    """Signs what is sent to one registry, and only there, once the registry has asked for it.

    What it asks for is read as the distribution project's "Token Authentication Specification" has
    it, and its OAuth2 variant where only an identity token is known.
    """

    def __init__(self, host: str, base: str, location: str, kind: Kind, *, ca: str = "") -> None:
        """``host`` as in ``docker login``; ``base`` is the start of the URLs to sign."""
        self._host, self._base, self._location, self._ca = host, base, location, ca
        self._kind = kind
        self._header = ""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header and (request.url or "").startswith(f"{self._base}/"):
            request.headers["Authorization"] = self._header
        return request

    def renew(self, refused: requests.Response) -> bool:
        """Get what a 401 asks for; False where there is nothing to be had.

        Raises:
            ImagegenError: of that kind: the login is refused, or cannot be read.
        """
        scheme, _, rest = refused.headers.get("WWW-Authenticate", "").partition(" ")
        known = self._known()
        asked: dict[str, str] = parse_dict_header(rest)  # type: ignore[no-untyped-call]
        before, self._header = self._header, ""
        if scheme.lower() == "basic" and known.get("username"):
            self._header = _basic(known)
        elif scheme.lower() == "bearer" and asked.get("realm"):
            self._header = f"Bearer {self._token(asked, known)}"
        return self._header not in ("", before)

    def _known(self) -> dict[str, str]:
        import docker.auth  # half of docker-py comes with it: only where a registry asks
        import docker.errors

        try:
            found = docker.auth.load_config().resolve_authconfig(self._host) or {}
        except docker.errors.DockerException as error:
            raise self._kind.error(
                f"the login for {self._host} cannot be read from docker's configuration",
                hint=f"docker login {self._host}",
            ) from error
        # A helper's answer has capitals where the file's has none.
        return {key.lower(): value for key, value in found.items() if isinstance(value, str)}

    def _token(self, asked: dict[str, str], known: dict[str, str]) -> str:
        realm = asked["realm"]
        if not realm.startswith(("https://", f"{self._base}/")):
            raise self._kind.error(f"{self._location} wants the login sent without TLS")
        wanted: dict[str, str] = {key: asked[key] for key in ("service", "scope") if key in asked}
        web = Web(self._location, self._kind, ca=self._ca, auth=_Fixed(_basic(known)))
        if identity := known.get("identitytoken"):
            wanted |= {"grant_type": "refresh_token", "client_id": "imagegen"}
            body = urlencode(wanted | {"refresh_token": identity}).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = web.ask("POST", realm, headers=headers, body=lambda: body)
        else:
            answer = web.ask("GET", f"{realm}{'&' if '?' in realm else '?'}{urlencode(wanted)}")
        with answer:
            try:
                row = json.loads(web.small(answer))
                return str(row.get("token") or row["access_token"])
            except (ValueError, KeyError, AttributeError) as error:
                raise self._kind.error(
                    f"{self._location}: its login service gave no token"
                ) from error


class _Fixed(AuthBase):
    """One header or none. With no auth at all, requests would ask netrc."""

    def __init__(self, header: str) -> None:
        self._header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header:
            request.headers["Authorization"] = self._header
        return request


def _basic(known: dict[str, str]) -> str:
    if not known.get("username"):
        return ""
    pair = f"{known['username']}:{known.get('password', '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"
