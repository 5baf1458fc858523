"""Templates on vast.ai: only ever new ones, since an edit there breaks the links that people share.

A template's ``hash_id`` is a hash of its content and is what links and instances call it by; a PUT
changes it. So new content is a new template, the old one stays as it is, and the ledger knows both.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from imagegen.errors import PlatformError
from imagegen.platforms.api import Api, PlatformRefused, Unanswered
from imagegen.platforms.apply import Row
from imagegen.platforms.diff import Change, change
from imagegen.platforms.ledger import Entry, Ledger
from imagegen.platforms.spec import Spec

log = logging.getLogger(__name__)


PATH = "/api/v0/template/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What to do with one template; ``there`` is the live one that is as wanted, by (id, hash).

    ``forgotten`` are older ones of ours that the ledger does not know.
    """

    change: Change
    there: tuple[str, str] | None = None
    notes: tuple[str, ...] = ()
    forgotten: tuple[Row, ...] = ()


class Vast:
    """The account's own templates."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._me: int | None = None

    def templates(self, known: Iterable[str] = ()) -> dict[str, Row]:
        """The account's own by id, and those with an id in ``known``, whoever made them.

        A search finds everybody's public ones, too, hence the filter. The own id is that of
        ``users/current``, as vast-ai/base-image's template manager learns it (2026-08). Content
        that somebody else posted before is not made again, but that template is shared: its
        ``hash_id`` knows no creator, so the ledger may hold one that is not the account's.

        Raises:
            PlatformError: the answer is not one.
        """
        if self._me is None:
            user = self._api.call("GET", "/api/v0/users/current/", replay=True)
            found = user.get("id") if isinstance(user, Mapping) else None
            if type(found) is not int:
                raise self._odd("GET /api/v0/users/current/", user)
            self._me = found
        rows = self._search({"creator_id": {"eq": self._me}})
        # The filter's word for it is the platform's: what it does not filter is none of ours.
        own = {i: row for i, row in rows.items() if row.get("creator_id", self._me) == self._me}
        if others := sorted(int(id_) for id_ in known if id_.isdecimal() and id_ not in own):
            own |= self._search({"id": {"in": others}})
        return own

    def _search(self, filters: Mapping[str, object]) -> dict[str, Row]:
        """Templates by id. That there is no limit to their number is a guess; where there are none,
        the answer is ``success: false`` and "No templates found" (vast-ai/docs, OpenAPI).
        """
        query = {"select_filters": json.dumps(filters), "select_cols": '["*"]'}
        data = self._api.call("GET", PATH, query=query, replay=True)
        rows = data.get("templates") if isinstance(data, Mapping) else None
        if rows is None and isinstance(data, Mapping) and "No templates found" in str(data):
            return {}
        if not isinstance(rows, list) or not all(
            isinstance(row, Mapping) and {"id", "hash_id", "name"} <= row.keys() for row in rows
        ):
            raise self._odd(f"GET {PATH}", data)
        return {str(row["id"]): row for row in rows}

    def verdict(self, spec: Spec, rows: Mapping[str, Row], ledger: Ledger) -> Verdict:
        """Compare with what is live: by the ledger's ids, and else by the mark in ``desc``."""
        found, there = _compared(spec, rows, ledger)
        forgotten = _forgotten(spec, rows, ledger)
        notes = _noticed(ledger.current("vast", spec.name), rows) + tuple(
            f"{row['id']} is an older one of ours that the ledger does not know: noted there as "
            "superseded"
            for row in forgotten
        )
        return Verdict(change=found, there=there, notes=notes, forgotten=forgotten)

    def create(self, spec: Spec) -> tuple[str, str]:
        """Make it; returns id and hash.

        Posted content that is there already makes nothing new: the answer is ``success: false``,
        "Existing Template Found" (vast-ai/docs, OpenAPI). A POST whose answer was lost may have
        made it, and should the platform not know it again, two would be there: it is looked for.

        Raises:
            PlatformError: it was refused, or there is no answer.
        """
        for last in (False, False, True):
            try:
                return self._made(self._api.call("POST", PATH, body=spec.body, replay=False))
            except Unanswered as error:
                log.info(f"{spec.name}: {error}; looking whether it was made all the same")
                for id_, row in sorted(self.templates().items()):
                    if (row["name"], row.get("desc")) == (spec.name, spec.body["desc"]):
                        return id_, str(row["hash_id"])
                if last:
                    raise
        raise AssertionError

    def delete(self, entry: Entry) -> str:
        """Delete a template by its number; returns why it is still there, or nothing.

        Raises:
            PlatformError: the platform cannot be used, or the template is not the account's.
        """
        try:
            self._api.call("DELETE", PATH, body={"template_id": int(entry.id)}, replay=True)
        except PlatformRefused as error:
            if error.status not in (400, 401, 404):
                raise
            # Others use it, somebody else made it, or it went with an answer that was lost.
            return str(error) if entry.id in self.templates([entry.id]) else ""
        return ""

    def _made(self, data: object) -> tuple[str, str]:
        found = data.get("template") if isinstance(data, Mapping) else None
        known = "Existing Template Found"
        if isinstance(data, Mapping) and not data.get("success") and known not in str(data):
            raise PlatformError(f"vast.ai: POST {PATH}: {self._api.told(data)}")
        if not isinstance(found, Mapping) or not found.get("id") or not found.get("hash_id"):
            raise Unanswered(f"vast.ai: POST {PATH}: no id in {self._api.told(data)}")
        return str(found["id"]), str(found["hash_id"])

    def _odd(self, what: str, data: object) -> PlatformError:
        told = self._api.told(data)[:200]
        return PlatformError(
            f"vast.ai: {what}: the answer is not what its schema says: {told}",
            hint="has its API changed?",
        )


def _compared(
    spec: Spec, rows: Mapping[str, Row], ledger: Ledger
) -> tuple[Change, tuple[str, str] | None]:
    """What is to be done, and the live template that is as wanted."""
    known = ledger.of("vast", spec.name)
    for entry in sorted(known, key=lambda e: bool(e.superseded)):
        row = rows.get(entry.id)
        if row and entry.content == spec.content and row["hash_id"] == entry.hash_id:
            there = (entry.id, entry.hash_id)
            return Change(action="restore" if entry.superseded else "keep"), there
    # One of ours whose content was known, and that is another now, was edited by hand since.
    edited = {entry.id for entry in known if entry.content}
    for id_, row in sorted(rows.items()):
        if (row["name"], row.get("desc")) == (spec.name, spec.body["desc"]) and id_ not in edited:
            return Change(action="adopt"), (id_, str(row["hash_id"]))
    current = ledger.current("vast", spec.name)
    have = rows.get(current.id) if current else None
    if have is None:
        return Change(action="create"), None
    # Of the fields that the search shows; what it calls them is as a template is written.
    shown = {name: value for name, value in spec.body.items() if name in have}
    return Change(action="replace", edits=change(shown, have).edits), None


def digest(row: Row) -> str:
    """The image's digest that ``desc`` shows, where it has our mark; else nothing."""
    found = re.search(r", (sha256:[0-9a-f]{64}) \([0-9a-f]{12}\)$", str(row.get("desc")))
    return found[1] if found else ""


def _forgotten(spec: Spec, rows: Mapping[str, Row], ledger: Ledger) -> tuple[Row, ...]:
    """The account's own of that name, with our mark of another content, that no entry knows."""
    known = {entry.id for entry in ledger.entries if entry.platform == "vast"}
    return tuple(
        row
        for id_, row in sorted(rows.items())
        if id_ not in known
        and row["name"] == spec.name
        and row.get("desc") != spec.body["desc"]
        and digest(row)
    )


def _noticed(current: Entry | None, rows: Mapping[str, Row]) -> tuple[str, ...]:
    """What somebody did to the template that the ledger has as the one in use."""
    if current is None:
        return ()
    row = rows.get(current.id)
    if row is None:
        return (f"{current.id} was deleted by hand: {current.link} leads nowhere",)
    notes = []
    if row["name"] != current.name:
        notes.append(f"{current.id} was renamed to {row['name']} by hand, and found by its id")
    if row["hash_id"] != current.hash_id:
        notes.append(f"{current.id} was edited by hand, which ended its link {current.link}")
    return tuple(notes)
