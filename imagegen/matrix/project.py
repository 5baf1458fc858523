"""A project: what its matrix says, resolved. Every command about targets starts from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imagegen.compat import sources
from imagegen.compat.facts import files
from imagegen.compat.facts.tables import Facts
from imagegen.compat.sources import PINS, Pinned
from imagegen.errors import FactsError
from imagegen.matrix import aliases, config, resolve
from imagegen.matrix.config import Matrix
from imagegen.matrix.resolve import Resolution
from imagegen.util.files import replaced


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """``folder`` holds matrix.toml, rendered files and locks; ``aliases`` are moving tags, each
    with the id of the target that it points to.

    ``facts`` are those that come with imagegen and the user's own, and a row for each unknown
    version of the matrix that was allowed.
    """

    folder: Path
    facts: Facts
    matrix: Matrix
    resolution: Resolution
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def locks(self) -> Path:
        """Where the locks are."""
        return self.folder / "locks"

    @property
    def pins(self) -> Mapping[str, Pinned]:
        """The published wheels of flash-attn whose hash was recorded, by name.

        Raises:
            FactsError: the file of them cannot be read.
        """
        return sources.pins(self.locks)

    def record(self, pins: Iterable[Pinned]) -> None:
        """Write the file of the published wheels."""
        rows = {pin.name: {"url": pin.url, "sha256": pin.sha256} for pin in pins}
        self.locks.mkdir(parents=True, exist_ok=True)
        with replaced(self.locks / PINS) as new:
            new.write_text(json.dumps(dict(sorted(rows.items())), indent=2) + "\n")


def load(file: Path, own_facts: Path | None = None, *, allow_unknown: bool = False) -> Project:
    """The project whose matrix is ``file``, with a user's own facts if there are any.

    Raises:
        FactsError: with every fault: what the tables contradict, what the matrix names and nobody
            knows, what can never be a target, what an alias cannot point to.
    """
    matrix, facts = config.load(file, files.load(own_facts), allow_unknown=allow_unknown)
    resolution = resolve.resolve(facts, matrix, allow_unknown=allow_unknown)
    moving, faults = aliases.computed(matrix.alias, resolution.targets)
    if faults := [*resolve.faults(matrix, resolution), *faults]:
        raise FactsError("\n".join(f"{file}: {fault}" for fault in faults))
    return Project(
        folder=file.parent, facts=facts, matrix=matrix, resolution=resolution, aliases=moving
    )
