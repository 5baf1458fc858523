"""The commands about templates: what would be sent, how that differs from what is live, and making
it so.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from imagegen.compat.facts.tables import Facts
from imagegen.errors import PlatformError
from imagegen.model.pushed import Pushed
from imagegen.platforms import PLATFORMS, apply
from imagegen.platforms.api import Api
from imagegen.platforms.apply import ApplyOptions, Outcome
from imagegen.platforms.ledger import Ledger, locked
from imagegen.platforms.spec import Spec, Wish


def specs(
    platform: str, pushed: Sequence[Pushed], facts: Facts, options: ApplyOptions
) -> tuple[Spec, ...]:
    """The templates as they would be sent. No platform is asked: a login is taken to be an id."""
    wish = Wish(prefix=options.prefix, public=options.public, registry=options.registry)
    return tuple(PLATFORMS[platform].spec(one, facts, wish) for one in pushed)


def run(
    platform: str,
    pushed: Sequence[Pushed],
    facts: Facts,
    options: ApplyOptions,
    file: Path,
    api: Api | None = None,
) -> Outcome:
    """Compare with what is live, and with ``apply`` make it so.

    Each template on its own: one that fails keeps no other from it, and is in ``failed``. ``file``
    is the ledger. ``api`` is the platform with the environment's key, if not given.

    Raises:
        PlatformError: the platform does not say what is live.
        UsageError: there is no key, or the ledger cannot be used.
    """
    one = PLATFORMS[platform]
    with closing(api or Api.of(one, options.ca)) as opened:
        account = one.account(opened)
        options = replace(options, registry=account.login(options.registry))
        wanted = specs(platform, pushed, facts, options)
        if not options.apply:
            return apply.run(platform, account, wanted, Ledger(file), options)
        with locked(file) as ledger:
            return apply.run(platform, account, wanted, ledger, options)


def complete(found: Outcome) -> None:
    """Every template is as it should be, or was compared.

    Raises:
        PlatformError: the message names all that failed.
    """
    if not found.failed:
        return
    total = len(found.failed) + len(found.done)
    done = "compared" if found.planned else "as they should be"
    count = f"{len(found.failed)} of {total} templates failed; the others are {done}\n" * (
        total > 1
    )
    words = "\n".join(f"{name}: {error}" for name, error in found.failed.items())
    raise PlatformError(f"{count}{words}", hint=next(iter(found.failed.values())).hint)
