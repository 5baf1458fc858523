"""Moving tags: computed from the matrix, each pointing to exactly one target."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence

from imagegen.matrix.config import Alias
from imagegen.model.target import Target, minor

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def computed(
    rows: Iterable[Alias], targets: Sequence[Target]
) -> tuple[Mapping[str, str], list[str]]:
    """The aliases (name -> target id), and a fault for each that points to nothing or to two
    targets, is no tag, or is the name of something else.
    """
    found: dict[str, str] = {}
    faults: list[str] = []
    taken = {target.tag for target in targets}
    for i, row in enumerate(rows):
        place = f"alias.{i}: {row.name}"
        chosen = [target for target in targets if fnmatch.fnmatchcase(target.id, row.select)]
        if not chosen:
            faults.append(f"{place} points to nothing: no target matches {row.select!r}")
        groups: dict[str, list[Target]] = {}
        for target in chosen:
            try:
                groups.setdefault(_name(row.name, target), []).append(target)
            except KeyError as error:
                faults.append(f"{place}: no such placeholder: {error}")
                break
        for name, mine in groups.items():
            newest = max(map(_age, mine))
            left = [target for target in mine if not row.newest or _age(target) == newest]
            if len(left) > 1:
                ids = " and ".join(target.id for target in left[:2])
                faults.append(f"{place} points to {len(left)} targets: {name} is {ids}")
            elif not TAG.fullmatch(name):
                faults.append(f"{place}: {name!r} is not a tag")
            elif name in found or name in taken:
                faults.append(f"{place}: {name} is taken")
            else:
                found[name] = left[0].id
    return found, faults


def _name(template: str, target: Target) -> str:
    """The template with its placeholders filled in; only these, and nothing of ``str.format``."""
    values = {
        "os": target.os.name,
        "cuda": minor(target.cuda),
        "torch": minor(target.torch),
        "python": minor(target.python),
        "profile": target.profile,
    }
    name = re.sub(r"\{(\w+)\}", lambda match: values[match[1]], template)
    if found := re.search(r"\{[^{}]*\}?|\}", name):
        raise KeyError(found[0])
    return name


def _age(target: Target) -> tuple[object, object, object]:
    return target.torch, target.cuda, target.os
