"""The commands about templates: what would be sent, how that differs from what is live, and making
it so.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from imagegen import pods
from imagegen.errors import PlatformError, StaleFiles, UsageError
from imagegen.facts import Facts
from imagegen.model import Pushed
from imagegen.pods import Spec, Wish
from imagegen.pods.api import RUNPOD, VAST, Api
from imagegen.pods.change import Change
from imagegen.pods.ledger import Entry, Ledger, locked
from imagegen.pods.live_runpod import Row, RunPod
from imagegen.pods.live_vast import Vast, Verdict
from imagegen.proc import Say

BEGIN, END = "<!-- published -->", "<!-- /published -->"
NONE = "No image is published yet."

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
    """Of one platform; ``planned`` says that nothing was changed."""

    platform: str
    planned: bool
    done: tuple[Done, ...]
    pruned: tuple[Pruned, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How to go about it; ``registry`` is a login's name or id, as the user typed it."""

    apply: bool = False
    plan: bool = False
    prune: bool = False
    prefix: str = ""
    public: bool = False
    registry: str = ""

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

    ``file`` is the ledger. ``api`` is the platform with the environment's key, if not given.

    Raises:
        PlatformError: the platform refused or did not answer; the ledger has what was done.
        UsageError: there is no key, or the ledger cannot be used.
    """
    with closing(api or Api.of(RUNPOD if platform == "runpod" else VAST, say)) as asked:
        if platform == "runpod":
            runpod = RunPod(asked, say)
            if options.registry:
                options = replace(options, registry=runpod.registry(options.registry))
            wanted = specs(platform, pushed, facts, options)
            if options.plan:
                return _planned_runpod(runpod, wanted, Ledger(file))
            with locked(file, say) as ledger:
                return _applied_runpod(runpod, wanted, ledger, say)
        wanted = specs(platform, pushed, facts, options)
        if options.plan:
            return _planned_vast(Vast(asked, say), wanted, Ledger(file), options)
        with locked(file, say) as ledger:
            return _applied_vast(Vast(asked, say), wanted, ledger, options, say)


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


def _planned_runpod(runpod: RunPod, wanted: Sequence[Spec], ledger: Ledger) -> Outcome:
    rows, graph = runpod.templates(), runpod.graph()
    done = tuple(_seen_runpod(runpod, spec, rows, graph, ledger) for spec in wanted)
    return Outcome(platform="runpod", planned=True, done=done)


def _applied_runpod(runpod: RunPod, wanted: Sequence[Spec], ledger: Ledger, say: Say) -> Outcome:
    rows, graph = runpod.templates(), runpod.graph()
    seen = [_seen_runpod(runpod, spec, rows, graph, ledger) for spec in wanted]  # faults first
    done = []
    for one in seen:
        spec, id_ = one.spec, one.id
        before = ledger.current("runpod", spec.name)
        if one.change.action == "create":
            id_ = runpod.create(spec)
            ledger.put(_entry(spec, id_, content=""))
            _completed(runpod, spec, id_, ledger)
        elif one.change.action != "keep":
            runpod.converge(spec, id_, labels=True)
        if before and before.id != id_:
            ledger.drop(before)
        made = before.date if before and before.id == id_ else _today()
        ledger.put(replace(_entry(spec, id_), date=made))
        say(f"{spec.name}: {one.change.action}, {id_}")
        done.append(replace(one, id=id_, link=_link("runpod", id_)))
    return Outcome(platform="runpod", planned=False, done=tuple(done))


def _completed(runpod: RunPod, spec: Spec, id_: str, ledger: Ledger) -> None:
    """The second half of a template that was made a moment ago; should it fail, neither is left.

    Raises:
        PlatformError: it failed; the message says whether the first half could be removed.
    """
    try:
        runpod.converge(spec, id_, labels=True)
    except BaseException as error:
        told = _undone(runpod, spec, id_, ledger)
        if isinstance(error, PlatformError):
            raise PlatformError(f"{error}; {told}", hint=error.hint) from None
        raise


def _undone(runpod: RunPod, spec: Spec, id_: str, ledger: Ledger) -> str:
    try:
        runpod.delete(id_)
    except PlatformError as error:
        return (
            f"the half-made template {id_} could not be removed ({error}): the next run "
            "completes it"
        )
    if entry := ledger.current("runpod", spec.name):
        ledger.drop(entry)
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
    done, pruned = [], []
    for spec in wanted:
        verdict = vast.verdict(spec, rows, ledger)
        # Not the one that is superseded now: people had no day yet to leave its link.
        olds = _old(ledger, spec.name) if options.prune else ()
        id_, hash_id = verdict.there or vast.create(spec)
        known = next((e for e in ledger.of("vast", spec.name) if e.id == id_), None)
        entry = replace(_entry(spec, id_, hash_id), date=known.date if known else _today())
        ledger.supersede(entry, _today())
        say(f"{spec.name}: {verdict.change.action}, {id_}")
        done.append(replace(_seen_vast(spec, verdict), id=id_, link=entry.link))
        for old in (one for one in olds if one.id != id_):
            kept = vast.delete(old) if old.id in rows else ""
            pruned.append(Pruned(entry=old, kept=kept))
            if not kept:
                ledger.drop(old)
    return Outcome(platform="vast", planned=False, done=tuple(done), pruned=tuple(pruned))


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


def table(file: Path) -> str:
    """The published images as a Markdown table, made from the ledger alone.

    A template that is half-made is not shown, and of vast.ai's only the one in use.
    """
    rows: dict[tuple[str, str, str], dict[str, Entry]] = {}
    for entry in Ledger(file).entries:
        if entry.content and not entry.superseded:
            rows.setdefault((entry.target, entry.name, entry.image), {})[entry.platform] = entry
    if not rows:
        return NONE
    lines = ["| target | image | to pull | unpacked | RunPod | vast.ai |", f"|{'---|' * 6}"]
    for (target, _, image), found in sorted(rows.items()):
        one = next(iter(found.values()))
        links = [f"[deploy]({found[p].link})" if p in found else "" for p in pods.PLATFORMS]
        sizes = [f"{count / pods.GB:.1f} GB" for count in (one.compressed, one.unpacked)]
        lines.append(f"| {' | '.join([target, f'`{image}`', *sizes, *links])} |")
    return "\n".join(lines)


def into(file: Path, readme: Path, *, check: bool) -> bool:
    """Put the table between the markers of a README, or only compare; returns whether it differed.

    Raises:
        UsageError: the README is not there or has not both markers once.
        StaleFiles: with ``check``, when it differs.
    """
    try:
        text = readme.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{readme}: {error.strerror}") from error
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in head + tail:
        raise UsageError(f"{readme} has not {BEGIN} and {END} once each")
    new = f"{head}{BEGIN}\n{table(file)}\n{END}{tail}"
    if new == text:
        return False
    if check:
        lines = difflib.unified_diff(text.splitlines(), new.splitlines(), lineterm="", n=0)
        diff = "\n".join(f"  {line}" for line in list(lines)[2:])
        raise StaleFiles(
            f"{readme} does not show what {file} says:\n{diff}",
            hint=f"imagegen template table --into {readme}",
        )
    readme.write_text(new, encoding="utf-8")
    return True
