"""vast.ai, as the rest of imagegen sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagegen.checks.contract import Suite
    from imagegen.compat.facts.tables import Facts
    from imagegen.model.pushed import Pushed
    from imagegen.platforms.api import Api
    from imagegen.platforms.spec import Spec, Wish
    from imagegen.platforms.vast.apply import Templates

name = "vast"
title = "vast.ai"
address = "https://console.vast.ai"
address_variable = "VAST_API_URL"
key_variable = "VAST_API_KEY"
hints: Mapping[int, str] = {
    401: "VAST_API_KEY is not a key that it knows, or the account has two-factor login and "
    "wants `vastai tfa login` first",
    403: "the key lacks a permission: templates need user_read and user_write",
}
options: tuple[str, ...] = ("prune",)
about = """A template is never edited there, which would end its link: new content is a new \
template. It holds no registry login: the image must be public, or the login be given on the \
instance."""


def contract() -> Suite:
    """The clauses V1 to V19."""
    from imagegen.platforms.vast.contract import SUITE

    return SUITE


def template(pushed: Pushed, _facts: Facts, wish: Wish) -> dict[str, object]:
    """The body of ``POST /api/v0/template/``, without the README."""
    from imagegen.platforms.vast.template import body

    return body(pushed, wish)


def spec(pushed: Pushed, facts: Facts, wish: Wish) -> Spec:
    """All of a template, which goes in one request."""
    from imagegen.platforms.vast.template import spec

    return spec(pushed, facts, wish)


def account(api: Api) -> Templates:
    """The templates of an account."""
    from imagegen.platforms.vast.apply import Templates

    return Templates(api)
