"""What was done with templates, or would be."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.output.console import show

if TYPE_CHECKING:
    from imagegen.output.console import Format
    from imagegen.platforms.apply import Done, Outcome, Pruned

WORDS = {
    "create": ("created", "would be created"),
    "complete": ("completed: an interrupted run had made half of it", "would be completed"),
    "update": ("updated", "would be updated"),
    "replace": ("replaced by a new template; the old one and its link stay", "would be replaced"),
    "restore": ("as it was before: that template is used again", "would be as it was before"),
    "adopt": ("found as asked for, and noted in the ledger", "is as asked for; not in the ledger"),
    "keep": ("nothing to change", "nothing to change"),
}


def outcome(found: Outcome, fmt: Format) -> None:
    """Template by template what changed, and where it is deployed from."""
    if fmt == "json":
        show(
            {
                "platform": found.platform,
                "planned": found.planned,
                "templates": [_row(one) for one in found.done],
                "pruned": [_pruned(one) for one in found.pruned],
                "failed": [{"name": name, "error": str(why)} for name, why in found.failed.items()],
            }
        )
        return
    for one in found.done:
        print(f"{one.spec.name}: {WORDS[one.change.action][found.planned]}")
        for note in one.notes:
            print(f"  note: {note}")
        for edit in one.change.edits:
            print(f"  {edit.field}: {edit.old} -> {edit.new}")
        if one.link:
            print(f"  {one.link}")
    for old in found.pruned:
        if old.kept:
            print(f"{old.entry.name}: {old.entry.id} stays: {old.kept}")
        else:
            verb = "would be deleted" if found.planned else "deleted"
            print(f"{old.entry.name}: {old.entry.id} {verb}; this link ends: {old.entry.link}")


def _row(one: Done) -> dict[str, object]:
    return {
        "target": one.spec.target,
        "name": one.spec.name,
        "action": one.change.action,
        "edits": [asdict(edit) for edit in one.change.edits],
        "id": one.id,
        "link": one.link,
        "image": one.spec.image,
        "notes": list(one.notes),
    }


def _pruned(one: Pruned) -> dict[str, object]:
    return {"name": one.entry.name, "id": one.entry.id, "link": one.entry.link, "kept": one.kept}


def table(text: str) -> None:
    """The published images."""
    print(text)


def into(readme: Path, *, differed: bool) -> None:
    """Whether the README was written."""
    print(f"wrote {readme}" if differed else f"{readme} shows the published images as they are")
