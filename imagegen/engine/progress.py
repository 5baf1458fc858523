"""How far a push or a pull is."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import docker.errors

log = logging.getLogger(__name__)


def follow(events: Iterator[Mapping[str, Any]]) -> None:
    """Log how much of a push is done, every few seconds; docker-py returns normally on failure.

    Raises:
        docker.errors.APIError: the engine reported an error in the stream.
    """
    sent: dict[str, int] = {}
    total: dict[str, int] = {}
    last = time.monotonic()
    for event in events:
        if words := event.get("error"):
            raise docker.errors.APIError(words, explanation=words)
        detail, layer = event.get("progressDetail") or {}, str(event.get("id", ""))
        if detail.get("total"):
            sent[layer], total[layer] = detail.get("current", 0), detail["total"]
        if time.monotonic() - last > 3 and total:
            last = time.monotonic()
            log.info(
                f"pushed {sum(sent.values()) / 1e6:,.0f} of {sum(total.values()) / 1e6:,.0f} MB"
            )
