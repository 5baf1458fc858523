"""TODO."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from imagegen.errors import PlatformError
from imagegen.platforms.apply import Done, Outcome, Row, _alone, _entry, _link, _today
from imagegen.platforms.ledger import Ledger
from imagegen.platforms.runpod.client import RunPod
from imagegen.platforms.spec import Spec

log = logging.getLogger(__name__)


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
    done: list[Done] = []
    failed: dict[str, PlatformError] = {}
    for spec in wanted:
        with _alone(spec.name, failed):
            done.append(_seen_runpod(runpod, spec, rows, graph, ledger))
    return Outcome(platform="runpod", planned=True, done=tuple(done), failed=failed)


def _applied_runpod(runpod: RunPod, wanted: Sequence[Spec], ledger: Ledger) -> Outcome:
    rows, graph = runpod.templates(), runpod.graph()
    done: list[Done] = []
    failed: dict[str, PlatformError] = {}
    for spec in wanted:
        with _alone(spec.name, failed):
            seen = _seen_runpod(runpod, spec, rows, graph, ledger)
            done.append(_made_runpod(runpod, seen, ledger))
    return Outcome(platform="runpod", planned=False, done=tuple(done), failed=failed)


def _made_runpod(runpod: RunPod, seen: Done, ledger: Ledger) -> Done:
    spec, id_ = seen.spec, seen.id
    before = ledger.current("runpod", spec.name)
    if seen.change.action == "create":
        id_ = runpod.create(spec)
        ledger.only(_entry(spec, id_, content=""))
        _completed(runpod, spec, id_, ledger)
    elif seen.change.action != "keep":
        runpod.converge(spec, id_, labels=True)
    made = before.date if before and before.id == id_ else _today()
    ledger.only(replace(_entry(spec, id_), date=made))
    log.info(f"{spec.name}: {seen.change.action}, {id_}")
    return replace(seen, id=id_, link=_link("runpod", id_))


def _completed(runpod: RunPod, spec: Spec, id_: str, ledger: Ledger) -> None:
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
                log.info(f"{spec.name}: {told}")
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
