"""What a template should be against what is live: pure, and what a person reads of it."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Action = Literal["create", "complete", "update", "replace", "restore", "adopt", "keep"]
"""complete: of a template that an interrupted run left without its README; replace: a new one is
made and the old one stays; restore: an older one of ours is what is asked for again; adopt: it is
there as asked for, and only the ledger does not know it."""

UNORDERED = frozenset({"ports", "allowedCudaVersions"})


@dataclass(frozen=True, slots=True)
class Edit:
    """One field that differs, as it is shown: of environment variables the names alone."""

    field: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What to do with one template."""

    action: Action
    edits: tuple[Edit, ...] = ()


def change(want: Mapping[str, object], have: Mapping[str, object] | None) -> Change:
    """Compare the fields that ``want`` sets; whatever else the live template has stays."""
    if have is None:
        return Change(action="create")
    edits = tuple(edit for field in want for edit in _edits(field, want[field], have.get(field)))
    if edits and not have.get("readme") and {edit.field for edit in edits} == {"readme"}:
        return Change(action="complete", edits=edits)
    return Change(action="update" if edits else "keep", edits=edits)


def differing(want: Mapping[str, object], have: Mapping[str, object]) -> dict[str, object]:
    """The fields of ``want`` that are not so in ``have``, as they are to be sent.

    Environment variables are sent with those that are there: whether a PATCH replaces all of them
    or adds to them is not documented, and this is right either way.
    """
    found = {
        name: value for name, value in want.items() if any(_edits(name, value, have.get(name)))
    }
    if isinstance(env := found.get("env"), Mapping):
        held = have.get("env")
        found["env"] = {**(held if isinstance(held, Mapping) else {}), **env}
    return found


def _edits(field: str, want: object, have: object) -> Iterator[Edit]:
    if field == "env" and isinstance(want, Mapping):
        held = have if isinstance(have, Mapping) else {}
        for name, value in want.items():
            if held.get(name) != value:
                yield Edit(f"env {name}", "another value" if name in held else "not set", "set")
    elif not _same(field, want, have):
        yield Edit(field, _shown(field, have), _shown(field, want))


def _same(field: str, want: object, have: object) -> bool:
    if isinstance(want, Mapping):
        return isinstance(have, Mapping) and all(
            _same(name, value, have.get(name)) for name, value in want.items()
        )
    if field in UNORDERED and isinstance(want, list) and isinstance(have, list):
        return sorted(map(str, want)) == sorted(map(str, have))
    if field == "readme":  # a server may end its lines otherwise
        return str(want or "").split() == str(have or "").split()
    if isinstance(want, bool) or isinstance(have, bool):
        return want is have
    return want == have


def _shown(field: str, value: object) -> str:
    """One line; a README by its length and the beginning of a sha256 over its words."""
    if value is None or value == "":
        return "(none)"
    if field in ("readme", "onstart"):
        text = str(value)
        mark = hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:8]
        return f"{len(text):,} characters ({mark})"
    if field.endswith(("_pass", "_user")):
        return "(hidden)"
    if field == "env":
        return _names(str(value))
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return " ".join(text.split())[:300]


def _names(flags: str) -> str:
    """Docker's flags, as vast.ai has them in one string, without values: ``-e TOKEN -p 80:80``."""
    try:
        words = shlex.split(flags)
    except ValueError:
        return "(not readable)"
    ports = [after for word, after in pairwise(words) if word == "-p"]
    shown = {f"-p {port}" for port in ports}
    variables = [after for word, after in pairwise(words) if word == "-e"]
    shown |= {f"-e {variable.partition('=')[0]}" for variable in variables}
    # Whatever else is there may hold anything.
    others = len(words) - 2 * len(ports) - 2 * len(variables)
    return " ".join([*sorted(shown), *([f"and {others} words more"] if others else [])])
