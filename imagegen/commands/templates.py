"""The commands about templates: what would be sent, how that differs from what is live, and making
it so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from imagegen import pods
from imagegen.errors import PlatformError, UsageError
from imagegen.facts import Facts
from imagegen.model import Pushed
from imagegen.pods import Spec, Wish
from imagegen.pods.api import RUNPOD, VAST, Api
from imagegen.pods.change import Change
from imagegen.pods.ledger import Entry, Ledger, locked
from imagegen.pods.live_runpod import Row, RunPod
from imagegen.pods.live_vast import Vast, Verdict, digest
from imagegen.proc import Say

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


def specs(
    platform: str, pushed: Sequence[Pushed], facts: Facts, options: Options
) -> tuple[Spec, ...]:
    """The templates as they would be sent. No platform is asked: a login is taken to be an id."""
    wish = Wish(prefix=options.prefix, public=options.public, registry=options.registry)
    return tuple(pods.spec(platform, one, facts, wish) for one in pushed)


def run(
    platform: str,
    pushed: Sequence[Pushed],
    facts: Facts,
    options: Options,
    file: Path,
    say: Say,
    api: Api | None = None,
) -> Outcome:
    """Compare with what is live, and unless it is only planned make it so.

    Each template on its own: one that fails keeps no other from it, and is in ``failed``. ``file``
    is the ledger. ``api`` is the platform with the environment's key, if not given.

    Raises:
        PlatformError: the platform does not say what is live.
        UsageError: there is no key, or the ledger cannot be used.
    """
    with closing(api or Api.of(RUNPOD if platform == "runpod" else VAST, say, options.ca)) as asked:
        if platform == "runpod":
            runpod = RunPod(asked, say)
            if options.registry:
                options = replace(options, registry=runpod.registry(options.registry))
            wanted = specs(platform, pushed, facts, options)
            if options.plan:
                return _planned_runpod(runpod, wanted, Ledger(file), say)
            with locked(file, say) as ledger:
                return _applied_runpod(runpod, wanted, ledger, say)
        wanted = specs(platform, pushed, facts, options)
        if options.plan:
            return _planned_vast(Vast(asked, say), wanted, Ledger(file), options)
        with locked(file, say) as ledger:
            return _applied_vast(Vast(asked, say), wanted, ledger, options, say)


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


@contextmanager
def _alone(name: str, failed: dict[str, PlatformError], say: Say) -> Iterator[None]:
    """One template's work: what fails is noted; who interrupts it is told what that leaves."""
    try:
        yield
    except PlatformError as error:
        say(f"{name}: {error}")
        failed[name] = error
    except BaseException:
        say(f"{name}: stopped on the way; the next run finds what is there of it, and goes on")
        raise


# --- RunPod ---------------------------------------------------------------------------------------


def _seen_runpod(
    runpod: RunPod, spec: Spec, rows: Sequence[Row], graph: Mapping[str, Row], ledger: Ledger
) -> Done:
    """What is to be done with one template."""
    entry = ledger.current("runpod", spec.name)
    place = runpod.locate(spec, rows, entry.id if entry else "")
    id_ = str(place.row["id"]) if place.row else ""
    # Nobody can read port labels: they are as wanted if the ledger says that all of it was sent.
    labels = entry is None or (entry.id, entry.content) != (id_, spec.content)
    found = runpod.change(spec, place.row, graph.get(id_), labels=labels)
    notes = (place.note,) if place.note else ()
    return Done(spec=spec, change=found, id=id_, link=_link("runpod", id_), notes=notes)


def _planned_runpod(runpod: RunPod, wanted: Sequence[Spec], ledger: Ledger, say: Say) -> Outcome:
    rows, graph = runpod.templates(), runpod.graph()
    done: list[Done] = []
    failed: dict[str, PlatformError] = {}
    for spec in wanted:
        with _alone(spec.name, failed, say):
            done.append(_seen_runpod(runpod, spec, rows, graph, ledger))
    return Outcome(platform="runpod", planned=True, done=tuple(done), failed=failed)


def _applied_runpod(runpod: RunPod, wanted: Sequence[Spec], ledger: Ledger, say: Say) -> Outcome:
    rows, graph = runpod.templates(), runpod.graph()
    done: list[Done] = []
    failed: dict[str, PlatformError] = {}
    for spec in wanted:
        with _alone(spec.name, failed, say):
            seen = _seen_runpod(runpod, spec, rows, graph, ledger)
            done.append(_made_runpod(runpod, seen, ledger, say))
    return Outcome(platform="runpod", planned=False, done=tuple(done), failed=failed)


def _made_runpod(runpod: RunPod, seen: Done, ledger: Ledger, say: Say) -> Done:
    spec, id_ = seen.spec, seen.id
    before = ledger.current("runpod", spec.name)
    if seen.change.action == "create":
        id_ = runpod.create(spec)
        ledger.only(_entry(spec, id_, content=""))
        _completed(runpod, spec, id_, ledger, say)
    elif seen.change.action != "keep":
        runpod.converge(spec, id_, labels=True)
    made = before.date if before and before.id == id_ else _today()
    ledger.only(replace(_entry(spec, id_), date=made))
    say(f"{spec.name}: {seen.change.action}, {id_}")
    return replace(seen, id=id_, link=_link("runpod", id_))


def _completed(runpod: RunPod, spec: Spec, id_: str, ledger: Ledger, say: Say) -> None:
    """The second half of a template that was made a moment ago; should it fail, neither is left.

    Raises:
        PlatformError: it failed; the message says whether the first half could be removed.
    """
    try:
        runpod.converge(spec, id_, labels=True)
    except BaseException as error:
        told = f"the half-made template {id_} may still be there: the next run completes it"
        try:
            told = _undone(runpod, id_, ledger)
        finally:  # also when it is interrupted once more
            if not isinstance(error, PlatformError):
                say(f"{spec.name}: {told}")
        if isinstance(error, PlatformError):
            raise PlatformError(f"{error}; {told}", hint=error.hint) from None
        raise


def _undone(runpod: RunPod, id_: str, ledger: Ledger) -> str:
    try:
        runpod.delete(id_)
    except PlatformError as error:
        return (
            f"the half-made template {id_} could not be removed ({error}): the next run "
            "completes it"
        )
    ledger.drop("runpod", id_)
    return f"the half-made template {id_} was removed again"


# --- vast.ai --------------------------------------------------------------------------------------


def _seen_vast(spec: Spec, verdict: Verdict) -> Done:
    id_, hash_id = verdict.there or ("", "")
    link = _link("vast", hash_id)
    return Done(spec=spec, change=verdict.change, id=id_, link=link, notes=verdict.notes)


def _planned_vast(vast: Vast, wanted: Sequence[Spec], ledger: Ledger, options: Options) -> Outcome:
    rows = vast.templates(_ids(ledger, wanted))
    done = tuple(_seen_vast(spec, vast.verdict(spec, rows, ledger)) for spec in wanted)
    kept = {one.id for one in done}
    old = [entry for spec in wanted for entry in _old(ledger, spec.name) if entry.id not in kept]
    pruned = tuple(Pruned(entry=entry) for entry in old) if options.prune else ()
    return Outcome(platform="vast", planned=True, done=done, pruned=pruned)


def _applied_vast(
    vast: Vast, wanted: Sequence[Spec], ledger: Ledger, options: Options, say: Say
) -> Outcome:
    rows = vast.templates(_ids(ledger, wanted))
    done: list[Done] = []
    pruned: list[Pruned] = []
    failed: dict[str, PlatformError] = {}
    for spec in wanted:
        # Not the one that is superseded now: people had no day yet to leave its link.
        olds = _old(ledger, spec.name) if options.prune else ()
        with _alone(spec.name, failed, say):
            one = _made_vast(vast, spec, rows, ledger, say)
            done.append(one)
            for old in (entry for entry in olds if entry.id != one.id):
                kept = vast.delete(old) if old.id in rows else ""
                pruned.append(Pruned(entry=old, kept=kept))
                if not kept:
                    ledger.drop("vast", old.id)
    made, gone = tuple(done), tuple(pruned)
    return Outcome(platform="vast", planned=False, done=made, pruned=gone, failed=failed)


def _made_vast(vast: Vast, spec: Spec, rows: Mapping[str, Row], ledger: Ledger, say: Say) -> Done:
    verdict = vast.verdict(spec, rows, ledger)
    id_, hash_id = verdict.there or vast.create(spec)
    known = next((e for e in ledger.of("vast", spec.name) if e.id == id_), None)
    entry = replace(_entry(spec, id_, hash_id), date=known.date if known else _today())
    ledger.supersede(entry, _today())
    for row in verdict.forgotten:
        ledger.put(_forgotten(spec, row))
    say(f"{spec.name}: {verdict.change.action}, {id_}")
    return replace(_seen_vast(spec, verdict), id=id_, link=entry.link)


def _forgotten(spec: Spec, row: Row) -> Entry:
    """What can be known of an older one that only the platform remembers."""
    old = _entry(spec, str(row["id"]), str(row["hash_id"]), content="")
    image = f"{row.get('image')}:{row.get('tag')}@{digest(row)}"
    return replace(old, image=image, compressed=0, unpacked=0, superseded=_today())


def _ids(ledger: Ledger, wanted: Sequence[Spec]) -> list[str]:
    return [entry.id for spec in wanted for entry in ledger.of("vast", spec.name)]


def _old(ledger: Ledger, name: str) -> tuple[Entry, ...]:
    return tuple(entry for entry in ledger.of("vast", name) if entry.superseded)


# --- the ledger, the links, the table -------------------------------------------------------------


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
