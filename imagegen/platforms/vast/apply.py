"""TODO."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from imagegen.errors import PlatformError
from imagegen.platforms.apply import (
    Done,
    Options,
    Outcome,
    Pruned,
    Row,
    _alone,
    _entry,
    _link,
    _today,
)
from imagegen.platforms.ledger import Entry, Ledger
from imagegen.platforms.spec import Spec
from imagegen.platforms.vast.client import Vast, Verdict, digest

log = logging.getLogger(__name__)


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


def _applied_vast(vast: Vast, wanted: Sequence[Spec], ledger: Ledger, options: Options) -> Outcome:
    rows = vast.templates(_ids(ledger, wanted))
    done: list[Done] = []
    pruned: list[Pruned] = []
    failed: dict[str, PlatformError] = {}
    for spec in wanted:
        # Not the one that is superseded now: people had no day yet to leave its link.
        olds = _old(ledger, spec.name) if options.prune else ()
        with _alone(spec.name, failed):
            one = _made_vast(vast, spec, rows, ledger)
            done.append(one)
            for old in (entry for entry in olds if entry.id != one.id):
                kept = vast.delete(old) if old.id in rows else ""
                pruned.append(Pruned(entry=old, kept=kept))
                if not kept:
                    ledger.drop("vast", old.id)
    made, gone = tuple(done), tuple(pruned)
    return Outcome(platform="vast", planned=False, done=made, pruned=gone, failed=failed)


def _made_vast(vast: Vast, spec: Spec, rows: Mapping[str, Row], ledger: Ledger) -> Done:
    verdict = vast.verdict(spec, rows, ledger)
    id_, hash_id = verdict.there or vast.create(spec)
    known = next((e for e in ledger.of("vast", spec.name) if e.id == id_), None)
    entry = replace(_entry(spec, id_, hash_id), date=known.date if known else _today())
    ledger.supersede(entry, _today())
    for row in verdict.forgotten:
        ledger.put(_forgotten(spec, row))
    log.info(f"{spec.name}: {verdict.change.action}, {id_}")
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
