"""TODO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imagegen.compat.facts import load, tables
from imagegen.errors import FactsError
from imagegen.matrix import config, resolve
from imagegen.matrix.aliases import computed


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What every command starts from."""

    facts: tables.Facts
    workspace: config.Workspace
    resolution: resolve.Resolution
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Moving tag -> the id that it points to."""


def setup(file: Path, own: Path | None = None, *, allow_unknown: bool = False) -> Setup:
    """Load the facts, a user's own among them, and the matrix, and resolve them.

    Raises:
        FactsError: with every fault: what the tables contradict, what the matrix names and nobody
            knows, what can never be a target, what an alias cannot point to.
    """
    workspace = config.load(file, load.load(own), allow_unknown=allow_unknown)
    resolution = resolve.resolve(workspace.facts, workspace.matrix, allow_unknown=allow_unknown)
    moving, faults = computed(workspace.matrix.alias, resolution.targets)
    faults = [*resolve.faults(workspace.matrix, resolution), *faults]
    if faults:
        raise FactsError("\n".join(f"{file}: {fault}" for fault in faults))
    return Setup(facts=workspace.facts, workspace=workspace, resolution=resolution, aliases=moving)
