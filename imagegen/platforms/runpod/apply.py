"""What differs between RunPod's templates and what they should be, and how it is made so."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from imagegen.errors import PlatformError
from imagegen.platforms.api import Api
from imagegen.platforms.apply import Done, Row, noted, today
from imagegen.platforms.ledger import Entry, Ledger
from imagegen.platforms.runpod.client import RunPod
from imagegen.platforms.spec import Spec

log = logging.getLogger(__name__)


def link(id_: str) -> str:
    """Where a template is deployed from; nothing of none.

    A guess, since RunPod does not document it: many public READMEs of templates link so (seen in
    2026-11).
    """
    return f"https://console.runpod.io/deploy?template={id_}" if id_ else ""


class Templates:
    """The account's own templates, by their names."""

    def __init__(self, api: Api) -> None:
        self._runpod = RunPod(api)
        self._rows: Sequence[Row] = ()
        self._graph: Mapping[str, Row] = {}

    def login(self, wanted: str) -> str:
        """Of those that the account has; nothing where none is asked for."""
        return self._runpod.registry(wanted) if wanted else ""

    def look(self, _wanted: Sequence[Spec], _ledger: Ledger) -> None:
        """Both lists, whatever the number of templates."""
        self._rows, self._graph = self._runpod.templates(), self._runpod.graph()

    def seen(self, spec: Spec, ledger: Ledger) -> Done:
        """By its name, or by the id that the ledger has for it."""
        known = ledger.current("runpod", spec.name)
        place = self._runpod.locate(spec, self._rows, known.id if known else "")
        id_ = str(place.row["id"]) if place.row else ""
        # Nobody can read port labels: they are as wanted if the ledger says that all was sent.
        labels = known is None or (known.id, known.content) != (id_, spec.content)
        found = self._runpod.change(spec, place.row, self._graph.get(id_), labels=labels)
        notes = (place.note,) if place.note else ()
        return Done(spec=spec, change=found, id=id_, link=link(id_), notes=notes)

    def made(self, seen: Done, ledger: Ledger) -> Done:
        """A template keeps its id, and so its link, whatever changes."""
        spec, id_ = seen.spec, seen.id
        before = ledger.current("runpod", spec.name)
        if seen.change.action == "create":
            id_ = self._runpod.create(spec)
            ledger.only(noted(spec, id_, link(id_), content=""))
            self._complete(spec, id_, ledger)
        elif seen.change.action != "keep":
            self._runpod.converge(spec, id_, labels=True)
        made = before.date if before and before.id == id_ else today()
        ledger.only(replace(noted(spec, id_, link(id_)), date=made))
        log.info(f"{spec.name}: {seen.change.action}, {id_}")
        return replace(seen, id=id_, link=link(id_))

    def delete(self, superseded: Entry) -> str:
        """By its id; one that is gone is fine."""
        self._runpod.delete(superseded.id)
        return ""

    def _complete(self, spec: Spec, id_: str, ledger: Ledger) -> None:
        """The second half of a template that was made a moment ago; should it fail, neither is
        left.

        Raises:
            PlatformError: it failed; the message says whether the first half could be removed.
        """
        try:
            self._runpod.converge(spec, id_, labels=True)
        except BaseException as error:
            told = f"the half-made template {id_} may still be there: the next run completes it"
            try:
                told = self._undo(id_, ledger)
            finally:  # also when it is interrupted once more
                if not isinstance(error, PlatformError):
                    log.info(f"{spec.name}: {told}")
            if isinstance(error, PlatformError):
                raise PlatformError(f"{error}; {told}", hint=error.hint) from None
            raise

    def _undo(self, id_: str, ledger: Ledger) -> str:
        """Remove the first half; returns what became of it."""
        try:
            self._runpod.delete(id_)
        except PlatformError as error:
            return (
                f"the half-made template {id_} could not be removed ({error}): the next run "
                "completes it"
            )
        ledger.drop("runpod", id_)
        return f"the half-made template {id_} was removed again"
