"""What messages call a store of wheels on a server, and what its failures are."""

from __future__ import annotations

from imagegen.errors import WheelError
from imagegen.web import Kind


class BadRequest(WheelError):
    """The server calls what was sent wrong."""


STORE = Kind(
    name="the wheel store",
    error=WheelError,
    login="netrc or user:password@ in its address; for a registry, docker login",
    read_only="put wheels where it gets its files from, or give a login that may write",
    bad_request=BadRequest,
)
