"""What differs between vast.ai's templates and what they should be, and how it is made so."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from imagegen.platforms.api import Api
from imagegen.platforms.apply import Done, Row, noted, today
from imagegen.platforms.ledger import Entry, Ledger
from imagegen.platforms.spec import Spec
from imagegen.platforms.vast.client import Vast, Verdict, digest

log = logging.getLogger(__name__)


def link(hash_id: str) -> str:
    """Where a template is rented with, by vast.ai's hash; nothing of none.

    A guess, since vast.ai does not document it: many public READMEs of templates link so (seen in
    2026-11).
    """
    return f"https://cloud.vast.ai/?template_id={hash_id}" if hash_id else ""


class Templates:
    """The account's own templates, and those that the ledger knows."""

    def __init__(self, api: Api) -> None:
        self._vast = Vast(api)
        self._rows: Mapping[str, Row] = {}
        self._verdicts: dict[str, Verdict] = {}

    def login(self, wanted: str) -> str:
        """A template holds none."""
        return wanted

    def look(self, wanted: Sequence[Spec], ledger: Ledger) -> None:
        """One search, and one more for ids that only the ledger knows."""
        known = [entry.id for spec in wanted for entry in ledger.of("vast", spec.name)]
        self._rows = self._vast.templates(known)

    def seen(self, spec: Spec, ledger: Ledger) -> Done:
        """By the ledger's ids, or by the mark in its description."""
        verdict = self._vast.verdict(spec, self._rows, ledger)
        self._verdicts[spec.name] = verdict
        id_, hash_id = verdict.there or ("", "")
        change, notes = verdict.change, verdict.notes
        return Done(spec=spec, change=change, id=id_, link=link(hash_id), notes=notes)

    def made(self, seen: Done, ledger: Ledger) -> Done:
        """New content is a new template: an edit would end the link of the one that is there."""
        spec, verdict = seen.spec, self._verdicts[seen.spec.name]
        id_, hash_id = verdict.there or self._vast.create(spec)
        known = next((e for e in ledger.of("vast", spec.name) if e.id == id_), None)
        new = noted(spec, id_, link(hash_id), hash_id)
        ledger.supersede(replace(new, date=known.date if known else new.date), today())
        for row in verdict.forgotten:
            ledger.put(_forgotten(spec, row))
        log.info(f"{spec.name}: {seen.change.action}, {id_}")
        return replace(seen, id=id_, link=link(hash_id))

    def delete(self, superseded: Entry) -> str:
        """By its number, unless it is gone already."""
        return self._vast.delete(superseded) if superseded.id in self._rows else ""


def _forgotten(spec: Spec, row: Row) -> Entry:
    """What can be known of an older one that only the platform remembers."""
    hash_id = str(row["hash_id"])
    old = noted(spec, str(row["id"]), link(hash_id), hash_id, content="")
    image = f"{row.get('image')}:{row.get('tag')}@{digest(row)}"
    return replace(old, image=image, compressed=0, unpacked=0, superseded=today())
