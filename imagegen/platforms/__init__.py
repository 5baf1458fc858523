"""The platforms on which images run as pods: each is a folder here, and a line in ``PLATFORMS``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from imagegen.platforms.runpod import platform as on_runpod
from imagegen.platforms.vast import platform as on_vast

if TYPE_CHECKING:
    from imagegen.checks.contract import Suite
    from imagegen.compat.facts.tables import Facts
    from imagegen.model.pushed import Pushed
    from imagegen.model.report import Level
    from imagegen.platforms.api import Api
    from imagegen.platforms.apply import Account
    from imagegen.platforms.spec import Spec, Wish


class Platform(Protocol):
    """What a platform's folder offers; its module ``platform`` will do, which imports nothing heavy
    before it is asked for it.

    ``name`` is the word of commands and of the ledger, and the level of the contract's checks;
    ``title`` how the platform writes itself. The API is at ``address``, unless the environment has
    another one in ``address_variable``; ``key_variable`` holds the key, and ``hints`` say what to
    do about an HTTP status. ``options`` are those of apply.ApplyOptions that not every platform
    has, and ``about`` is what the command's help says of this one.
    """

    name: str
    title: str
    address: str
    address_variable: str
    key_variable: str
    hints: Mapping[int, str]
    options: tuple[str, ...]
    about: str

    def contract(self) -> Suite:
        """What an image has to do there, tried from outside."""

    def template(self, pushed: Pushed, facts: Facts, wish: Wish, /) -> dict[str, object]:
        """A template's body, without its README."""

    def spec(self, pushed: Pushed, facts: Facts, wish: Wish, /) -> Spec:
        """All of a template."""

    def account(self, api: Api, /) -> Account:
        """The templates of the account whose key it is."""


PLATFORMS: Mapping[str, Platform] = {one.name: one for one in (on_runpod, on_vast)}


def needed() -> tuple[Level, ...]:
    """What an image has to pass to be pushed: what is inside, and every platform's contract."""
    return ("smoke", *PLATFORMS)
