"""Templates as they are on a platform, compared with what they should be, and made so: the one way
for all platforms, each template by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from imagegen.errors import PlatformError, UsageError
from imagegen.platforms.diff import Change
from imagegen.platforms.ledger import Entry, Ledger
from imagegen.platforms.spec import Spec

log = logging.getLogger(__name__)

Row = Mapping[str, object]
"""A template, in the platform's words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What was done with one template, or would be; ``link`` is empty where there is none yet."""

    spec: Spec
    change: Change
    id: str = ""
    link: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """A superseded template; ``kept`` says why it is still there."""

    entry: Entry
    kept: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Of one platform; ``planned`` says that nothing was changed, ``failed`` why, by name."""

    platform: str
    planned: bool
    done: tuple[Done, ...]
    pruned: tuple[Pruned, ...] = ()
    failed: Mapping[str, PlatformError] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ApplyOptions:
    """How to go about it; ``registry`` is a login's name or id, as the user typed it.

    ``ca`` is a CA bundle to trust, empty for the environment's.
    """

    apply: bool = False
    plan: bool = False
    prune: bool = False
    prefix: str = ""
    public: bool = False
    registry: str = ""
    ca: str = ""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UsageError: apply and plan, prune with neither, or a prefix that a platform would trim.
        """
        if self.apply and self.plan:
            raise UsageError("--plan changes nothing and --apply does: which of them?")
        if not self.prefix.isprintable() or self.prefix != self.prefix.lstrip():
            raise UsageError("--name-prefix begins with a space or has signs that cannot be shown")
        if self.prune and not (self.apply or self.plan):
            raise UsageError("--prune-old needs --plan, to see what it would delete, or --apply")

    @property
    def live(self) -> bool:
        """Whether the platform is asked at all."""
        return self.apply or self.plan


class Account(Protocol):
    """The templates of an account on a platform. Every method may raise a PlatformError."""

    def login(self, wanted: str, /) -> str:
        """The id of a registry's login, of which ``wanted`` is name or id."""

    def look(self, wanted: Sequence[Spec], ledger: Ledger, /) -> None:
        """Read what is live, for the calls that follow."""

    def seen(self, spec: Spec, ledger: Ledger, /) -> Done:
        """What is to be done with one template."""

    def made(self, seen: Done, ledger: Ledger, /) -> Done:
        """Do it; the ledger knows of each step."""

    def delete(self, superseded: Entry, /) -> str:
        """Delete a superseded template; returns why it is still there, or nothing."""


def run(
    platform: str, account: Account, wanted: Sequence[Spec], ledger: Ledger, options: ApplyOptions
) -> Outcome:
    """Compare the templates with what is live, and with ``apply`` make them so.

    One that fails keeps no other from it, and is in ``failed``.

    Raises:
        PlatformError: the platform does not say what is live.
    """
    account.look(wanted, ledger)
    done: list[Done] = []
    pruned: list[Pruned] = []
    failed: dict[str, PlatformError] = {}
    for spec in wanted:
        # Not the one that is superseded now: people had no day yet to leave its link.
        old = _superseded(platform, spec, ledger) if options.prune else ()
        with _alone(spec.name, failed):
            seen = account.seen(spec, ledger)
            done.append(account.made(seen, ledger) if options.apply else seen)
            for entry in old:
                if entry.id == done[-1].id:  # it is used again
                    continue
                kept = account.delete(entry) if options.apply else ""
                pruned.append(Pruned(entry=entry, kept=kept))
                if options.apply and not kept:
                    ledger.drop(platform, entry.id)
    return Outcome(
        platform=platform,
        planned=not options.apply,
        done=tuple(done),
        pruned=tuple(pruned),
        failed=failed,
    )


def _superseded(platform: str, spec: Spec, ledger: Ledger) -> tuple[Entry, ...]:
    return tuple(entry for entry in ledger.of(platform, spec.name) if entry.superseded)


@contextmanager
def _alone(name: str, failed: dict[str, PlatformError]) -> Iterator[None]:
    """One template's work: what fails is noted; who interrupts it is told what that leaves."""
    try:
        yield
    except PlatformError as error:
        log.info(f"{name}: {error}")
        failed[name] = error
    except BaseException:
        log.info(f"{name}: stopped on the way; the next run finds what is there of it, and goes on")
        raise


def noted(spec: Spec, id_: str, link: str, hash_id: str = "", content: str | None = None) -> Entry:
    """What the ledger is to know of a template, as of today; ``content`` if not the spec's."""
    return Entry(
        platform=spec.platform,
        target=spec.target,
        name=spec.name,
        id=id_,
        hash_id=hash_id,
        content=spec.content if content is None else content,
        image=spec.image,
        compressed=spec.compressed,
        unpacked=spec.unpacked,
        link=link,
        date=today(),
    )


def today() -> str:
    """The day, in UTC, as the ledger has it."""
    return datetime.now(UTC).date().isoformat()
