"""TODO."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from imagegen.errors import PlatformError, UsageError
from imagegen.platforms.diff import Change
from imagegen.platforms.ledger import Entry
from imagegen.platforms.spec import Spec

log = logging.getLogger(__name__)


Row = Mapping[str, object]


LINKS = {
    "runpod": "https://console.runpod.io/deploy?template={}",
    "vast": "https://cloud.vast.ai/?template_id={}",
}
"""Where a template is deployed from. A guess, since neither platform documents it: many public
READMEs of templates link so, with RunPod's id and vast.ai's hash (seen in 2026-11)."""


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
class Options:
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


def _entry(spec: Spec, id_: str, hash_id: str = "", content: str | None = None) -> Entry:
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
        link=_link(spec.platform, hash_id or id_),
        date=_today(),
    )


def _link(platform: str, word: str) -> str:
    return LINKS[platform].format(word) if word else ""


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
