"""RunPod, as the rest of imagegen sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagegen.checks.contract import Suite
    from imagegen.compat.facts.tables import Facts
    from imagegen.model.pushed import Pushed
    from imagegen.platforms.api import Api
    from imagegen.platforms.runpod.apply import Templates
    from imagegen.platforms.spec import Spec, Wish

name = "runpod"
title = "RunPod"
address = "https://api.runpod.io"
address_variable = "RUNPOD_API_URL"
key_variable = "RUNPOD_API_KEY"
hints: Mapping[int, str] = {
    401: "RUNPOD_API_KEY is not a key that it knows: the console's settings have a new one",
    403: "the key may not write templates: give it that permission, or take another key",
    404: "it was deleted meanwhile, or is another account's: run the command again",
    422: "the platform's schema has changed, or a field is wrong: it names which",
}
options: tuple[str, ...] = ("registry",)
about = ""


def contract() -> Suite:
    """The clauses R1 to R20."""
    from imagegen.platforms.runpod.contract import SUITE

    return SUITE


def template(pushed: Pushed, facts: Facts, wish: Wish) -> dict[str, object]:
    """The body of ``POST /v2/templates``."""
    from imagegen.platforms.runpod.template import body

    return body(pushed, facts, wish)


def spec(pushed: Pushed, facts: Facts, wish: Wish) -> Spec:
    """All of a template: what REST takes, and what only GraphQL does."""
    from imagegen.platforms.runpod.template import spec

    return spec(pushed, facts, wish)


def account(api: Api) -> Templates:
    """The templates of an account."""
    from imagegen.platforms.runpod.apply import Templates

    return Templates(api)
