"""What ``list``, ``why`` and ``pick`` found: targets, what is left out, verdicts, the best one."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from imagegen.model.target import FlashAttn, FlashAttnPackage
from imagegen.output.console import Format, show, table

if TYPE_CHECKING:
    from imagegen.commands.targets import ListedTarget
    from imagegen.compat.pieces import Piece
    from imagegen.compat.rules.reason import Reason
    from imagegen.compat.solver import Combination
    from imagegen.compat.sources import Step
    from imagegen.compat.why import Answer, Near
    from imagegen.matrix.pick import Picked
    from imagegen.matrix.resolve import LeftOut


def targets(rows: Sequence[ListedTarget], fmt: str) -> None:
    """The selected targets; ``github`` is a matrix for a workflow."""
    if fmt == "github":
        print(json.dumps({"include": [{"id": r.target.id, "tag": r.target.tag} for r in rows]}))
    elif fmt == "json":
        show([_target(row) for row in rows])
    else:
        words = (
            (
                row.target.id,
                str(row.target.cuda),
                str(row.target.torch),
                _flash_attn(row.target.flash_attn),
                ", ".join(row.unlocked) or "none",
                ", ".join(dict.fromkeys(reason.code for reason in row.reasons)),
                row.target.tag,
                ", ".join(row.aliases),
            )
            for row in rows
        )
        head = ("TARGET", "CUDA", "TORCH", "FLASH-ATTN", "UNLOCKED", "NOTES", "TAG", "ALIASES")
        print(table(head, words))


def _flash_attn(flash_attn: FlashAttn | FlashAttnPackage | None) -> str:
    """The architectures that flash-attn 2 is compiled for, as in ``sm80,90``, or the package."""
    if isinstance(flash_attn, FlashAttnPackage):
        return flash_attn.package
    return f"sm{','.join(map(str, flash_attn.archs))}" if flash_attn else "none"


def _target(row: ListedTarget) -> dict[str, object]:
    return {
        **row.target.promise,
        "tag": row.target.tag,
        "aliases": list(row.aliases),
        "unlocked": list(row.unlocked),
        "reasons": list(map(_reason, row.reasons)),
    }


def left_out(rows: Sequence[LeftOut], fmt: str) -> None:
    """What the matrix crosses and does not build, and every reason."""
    if fmt == "text":
        words = (
            (row.id if i == 0 else "", reason.code, reason.text, reason.source)
            for row in rows
            for i, reason in enumerate(row.reasons)
        )
        print(table(("LEFT OUT", "RULE", "WHY", "SOURCE"), words))
    else:
        show(
            [
                {
                    "id": row.id,
                    "reason": row.reason,
                    "source": row.source,
                    "reasons": list(map(_reason, row.reasons)),
                }
                for row in rows
            ]
        )


def why(found: Answer, where: Mapping[str, Piece], places: Sequence[Step], fmt: Format) -> None:
    """A verdict, every reason for it, where the pieces come from, and what is near.

    ``places`` are those that flash-attn 2 could come from, in the order of a build.
    """
    from imagegen.compat.query import option

    if fmt == "json":
        show(
            {
                "verdict": found.found.verdict,
                "combination": _spelled(found.found.combination),
                "reasons": list(map(_reason, found.found.reasons)),
                "pieces": where,
                "flash_attn_places": [asdict(step) for step in places],
                "nearest": list(map(_near, found.near)),
            }
        )
        return
    print(_folded(f"{found.found.verdict}: {_combination(found.found.combination)}", ""))
    for reason in found.found.reasons:
        print(f"  {reason.severity}, at {reason.stage} ({reason.code})")
        print(_folded(reason.text, "    "))
        print(_folded(f"source: {reason.source}", "    "))
    if found.found.verdict != "impossible":
        print("where the pieces come from:")
        for name, piece in where.items():
            rest = ", ".join(
                f"{k} {_word(v)}" for k, v in piece.items() if k not in ("from", "url", "index")
            )
            print(_folded(f"{name}: {piece['from']}{f' ({rest})' if rest else ''}", "  "))
        if places:
            print("where a build takes flash-attn from:")
        for step in places:
            print(_folded(f"{'=>' if step.taken else ' -'} {step}", "  "))
    if found.near:
        print("nearest combinations that work:")
    for near in found.near:
        words = [
            f"{option(axis, new)} instead of {option(axis, old).partition(' ')[2]}"
            for axis, (old, new) in near.changed.items()
        ]
        known = ", ".join(reason.code for reason in near.found.reasons)
        print(_folded(f"{', '.join(words)}{f' (notes: {known})' if known else ''}", "  "))


def _near(near: Near) -> dict[str, object]:
    return {
        "verdict": near.found.verdict,
        "changed": {axis: {"from": old, "to": new} for axis, (old, new) in near.changed.items()},
        "command": near.command,
        "combination": _spelled(near.found.combination),
        "reasons": list(map(_reason, near.found.reasons)),
    }


def _spelled(combination: Combination) -> dict[str, str | None]:
    return {axis: None if word == "none" else word for axis, word in combination.spelled.items()}


def _combination(combination: Combination) -> str:
    words = combination.spelled
    flash_attn = f"flash-attn {words['flash_attn']} ({words['origin']})"
    found = [
        words["os"],
        f"CUDA {words['cuda']} ({words['kind']})",
        f"torch {words['torch']} ({words['index']})",
        f"Python {words['python']}",
        flash_attn if combination.flash_attn else "no flash-attn",
        words["host"],
        words["gpu"] if combination.gpu else "",
        f"driver {words['driver']}" if combination.driver else "",
        f"{combination.memory} GB to compile in" if combination.memory is not None else "",
    ]
    return ", ".join(filter(None, found))


def picked(found: Picked, fmt: Format) -> None:
    """The best target for a machine, and why it is better than the next."""
    from imagegen.model.target import driver_text

    best, second = found.best, found.next
    if fmt == "json":
        show(
            {
                "id": best.candidate.id,
                "tag": best.candidate.target().tag,
                "verdict": best.found.verdict,
                "reasons": list(map(_reason, best.found.reasons)),
                "driver_floor": driver_text(best.candidate.cuda.driver_floor),
                "flash_attn": best.candidate.target().promise["flash_attn"],
                "next": second.candidate.id if second else None,
                "because": found.because,
                "fitting": found.fitting,
            }
        )
        return
    print(best.candidate.id)
    kernels = best.candidate.selection
    if kernels is None:
        print("  note: it has no flash-attn")
    if kernels and kernels.archs:
        dims, types = _word(list(kernels.head_dims)), _word(list(kernels.dtypes))
        note = f"note: flash-attn has only the kernels for head dimensions {dims} in {types}"
        print(_folded(f"{note}, for architectures {_word(list(kernels.archs))}", "  "))
    floor = driver_text(best.candidate.cuda.driver_floor)
    print(f"  needs driver {floor} or newer")
    for reason in best.found.reasons:
        print(_folded(f"note ({reason.code}): {reason.text}", "  "))
    if second:
        if found.against:
            because = f"it avoids a warning: {found.against.text}"
        else:
            what, colon, detail = found.because.partition(": ")
            because = f"{what} ({detail})" if colon else what
        print(_folded(f"chosen over {second.candidate.id} because {because}", "  "))
    print(f"  {found.fitting} target{'s work' if found.fitting != 1 else ' works'} on this machine")


def _reason(reason: Reason) -> dict[str, str]:
    return {
        "code": reason.code,
        "severity": reason.severity,
        "stage": reason.stage,
        "text": reason.text,
        "source": reason.source,
    }


def _word(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _folded(text: str, indent: str) -> str:
    return textwrap.fill(
        text, 100, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
