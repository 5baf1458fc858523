"""The only printer: what the commands found and made, as text, as JSON, for GitHub."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from imagegen.model import Built, Check, Layer, Pushed, Report

if TYPE_CHECKING:
    from imagegen.choose import Listed
    from imagegen.demo import Demo
    from imagegen.doctor import Finding, Fixed
    from imagegen.flow import Rendered
    from imagegen.pick import Picked
    from imagegen.pieces import Piece
    from imagegen.resolve import LeftOut
    from imagegen.rules import Reason
    from imagegen.solve import Combination
    from imagegen.why import Answer, Near

Format = Literal["text", "json"]


class Progress:
    """What a person watching sees: lines on standard error, each with the seconds so far."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, line: str) -> None:
        print(f"[{time.monotonic() - self._start:6.1f} s] {line}", file=sys.stderr, flush=True)


def show(value: object) -> None:
    """Print a JSON value."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as they need to be."""
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def size(count: float) -> str:
    """Bytes for people: ``2.85 GB``, ``3.9 MB``, decimal units as registries use."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.{2 if unit == 'GB' else 1}f} {unit}"
    return f"{count:.0f} B"


# --- list, render ---------------------------------------------------------------------------------


def targets(rows: Sequence[Listed], fmt: str) -> None:
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
                ",".join(map(str, row.target.flash_attn.archs)),
                f"not {', '.join(row.unlocked)}" if row.unlocked else "all",
                ", ".join(dict.fromkeys(reason.code for reason in row.reasons)),
                row.target.tag,
                ", ".join(row.aliases),
            )
            for row in rows
        )
        head = ("TARGET", "CUDA", "TORCH", "SM", "LOCKED", "TO KNOW", "TAG", "ALIASES")
        print(table(head, words))


def _target(row: Listed) -> dict[str, object]:
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


# --- why, pick ------------------------------------------------------------------------------------


def why(found: Answer, where: Mapping[str, Piece], fmt: Format) -> None:
    """A verdict, every reason for it, where the pieces come from, and what is near."""
    from imagegen.question import option

    if fmt == "json":
        show(
            {
                "verdict": found.found.verdict,
                "combination": _spelled(found.found.combination),
                "reasons": list(map(_reason, found.found.reasons)),
                "pieces": where,
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
                f"{k} {_word(v)}" for k, v in piece.items() if k not in ("from", "url")
            )
            print(_folded(f"{name}: {piece['from']}{f' ({rest})' if rest else ''}", "  "))
    if found.near:
        print("nearest that works:")
    for near in found.near:
        words = [
            f"{option(axis, new)} instead of {option(axis, old).partition(' ')[2]}"
            for axis, (old, new) in near.changed.items()
        ]
        known = ", ".join(reason.code for reason in near.found.reasons)
        print(_folded(f"{', '.join(words)}{f' (to know: {known})' if known else ''}", "  "))


def _near(near: Near) -> dict[str, object]:
    return {
        "verdict": near.found.verdict,
        "changed": {axis: {"from": old, "to": new} for axis, (old, new) in near.changed.items()},
        "command": near.command,
        "combination": _spelled(near.found.combination),
        "reasons": list(map(_reason, near.found.reasons)),
    }


def _spelled(it: Combination) -> dict[str, str | None]:
    return {axis: None if word == "none" else word for axis, word in it.spelled.items()}


def _combination(it: Combination) -> str:
    words = it.spelled
    flash_attn = f"flash-attn {words['flash_attn']} ({words['origin']})"
    found = [
        words["os"],
        f"CUDA {words['cuda']} ({words['kind']})",
        f"torch {words['torch']} ({words['index']})",
        f"Python {words['python']}",
        flash_attn if it.flash_attn else "no flash-attn",
        words["host"],
        words["gpu"] if it.gpu else "",
        f"driver {words['driver']}" if it.driver else "",
        f"{it.memory} GB to compile in" if it.memory is not None else "",
    ]
    return ", ".join(filter(None, found))


def picked(found: Picked, fmt: Format) -> None:
    """The best target for a machine, and why it is better than the next."""
    from imagegen.rules import driver_text

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
    if kernels.archs:
        dims, types = _word(list(kernels.head_dims)), _word(list(kernels.dtypes))
        held = f"flash-attn holds kernels for head dimensions {dims} in {types} only"
        print(_folded(f"to know: {held}, on architectures {_word(list(kernels.archs))}", "  "))
    floor = driver_text(best.candidate.cuda.driver_floor)
    print(f"  needs driver {floor} or newer")
    for reason in best.found.reasons:
        print(_folded(f"to know ({reason.code}): {reason.text}", "  "))
    if second:
        print(_folded(f"before {second.candidate.id}, because {found.because}", "  "))
    print(f"  {found.fitting} target{'s work' if found.fitting != 1 else ' works'} there")


def locks(found: Sequence[Path], fmt: Format) -> None:
    """Locks that were found good."""
    if fmt == "json":
        show(list(map(str, found)))
    else:
        print(f"{len(found)} locks: whole, hashed, and made for this matrix")


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


def rendered(found: Rendered, fmt: Format, *, check: bool) -> None:
    """What was written, or that nothing differs."""
    if fmt == "json":
        files = [str(path) for path in found.files]
        show({"targets": found.targets, "written": files, "strays": list(map(str, found.strays))})
        return
    for path in found.files:
        print(f"wrote {path}")
    for path in found.strays:
        print(f"{path} has no target in the matrix: remove it")
    verb = "match the matrix" if check or not found.files else f"{len(found.files)} files written"
    print(f"{found.targets} targets: {verb}")


def paths(made: Sequence[Path], fmt: Format) -> None:
    """Files or folders that were written."""
    if fmt == "json":
        show(list(map(str, made)))
    else:
        print("\n".join(f"wrote {path}" for path in made) or "nothing to do")


# --- build, test, push ----------------------------------------------------------------------------


def built(images: Sequence[Built], fmt: Format) -> None:
    """Images in the engine's store."""
    if fmt == "json":
        show([_built(one) for one in images])
        return
    for one in images:
        how = one.cached or f"built in {one.seconds:.0f} s"
        print(f"{one.image.target.id}: {how}")
        print(f"  {one.image.ref}\n  {one.digest}, {size(one.unpacked)} unpacked")


def tested(reports: Sequence[Report], fmt: Format) -> None:
    """Checks by image."""
    if fmt == "json":
        show([_tested(one) for one in reports])
        return
    for one in reports:
        print(f"{one.built.image.target.id}: {_verdict(one)}")
        print(table(("", "CHECK", "SECONDS", "DETAIL"), map(_check_row, one.checks)))


def pushed(images: Sequence[Pushed], fmt: Format) -> None:
    """Images in a registry."""
    if fmt == "json":
        show([_pushed(one) for one in images])
        return
    for one in images:
        print(f"{one.tested.report.built.image.target.id}: {one.digest}")
        for ref in one.refs:
            print(f"  docker pull {ref}")
        print(f"  {_sizes(one)}")


def demo(made: Demo, templates: Mapping[str, object], fmt: Format) -> None:
    """The demo's summary: templates, seconds for each step, sizes, largest layers."""
    one = made.pushed
    if fmt == "json":
        steps = [{"step": n, "seconds": round(s, 1), "why": w} for n, s, w in made.steps]
        show({"steps": steps, "undo": made.undo, "templates": templates, **_pushed(one)})
        return
    for platform, template in templates.items():
        print(f"\n{platform} template:")
        show(template)
    print()
    total = ("total", f"{sum(seconds for _, seconds, _ in made.steps):.1f}", "")
    rows = [(name, f"{seconds:.1f}", why) for name, seconds, why in made.steps]
    print(table(("STEP", "SECONDS", ""), [*rows, total]))
    print(f"\n{_sizes(one)}; the largest layers:")
    print(table(("SIZE", "MADE BY"), map(_layer_row, _largest(one.layers))))
    id_ = one.tested.report.built.image.target.id
    print(f"\ntested and pushed: {one.pinned}")
    print("Only this machine can pull that. For pods, push the same image where they reach it:")
    print(f"  imagegen push {id_} --base bootstrap --repository ghcr.io/YOU/finetune")
    print(f"try it: docker run --rm -it {one.tested.report.built.image.ref} bash")
    if made.undo:
        print("\nto undo all of it:\n" + "\n".join(f"  {line}" for line in made.undo))


def _built(one: Built) -> dict[str, object]:
    return {
        "id": one.image.target.id,
        "ref": one.image.ref,
        "digest": one.digest,
        "key": one.image.key,
        "unpacked_bytes": one.unpacked,
        "seconds": round(one.seconds, 1),
        "cached": one.cached,
    }


def _tested(one: Report) -> dict[str, object]:
    rows = [
        {
            "name": check.name,
            "status": check.status,
            "detail": check.detail,
            "seconds": check.seconds,
            "guards": check.guards,
        }
        for check in one.checks
    ]
    return {**_built(one.built), "passed": one.passed, "tested": one.cached, "checks": rows}


def _pushed(one: Pushed) -> dict[str, object]:
    layers = [
        {"digest": row.digest, "bytes": row.compressed, "created_by": row.created_by}
        for row in one.layers
    ]
    return {
        **_tested(one.tested.report),
        "repository": one.repository,
        "digest": one.digest,
        "refs": list(one.refs),
        "pinned": one.pinned,
        "moved": list(one.moved),
        "sent": one.sent,
        "compressed_bytes": one.compressed,
        "layers": layers,
    }


def _verdict(one: Report) -> str:
    counts = {s: sum(c.status == s for c in one.checks) for s in ("pass", "fail", "skip")}
    words = f"{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped"
    return f"{words}{', ' + one.cached if one.cached else ''}"


def _check_row(check: Check) -> tuple[str, str, str, str]:
    return check.status, check.name, f"{check.seconds:.1f}", check.detail.replace("\n", " ")[:150]


def _sizes(one: Pushed) -> str:
    unpacked = size(one.tested.report.built.unpacked)
    return f"{size(one.compressed)} to pull in {len(one.layers)} layers, {unpacked} unpacked"


def _largest(layers: Sequence[Layer]) -> list[Layer]:
    return sorted(layers, key=lambda layer: layer.compressed, reverse=True)[:5]


def _layer_row(layer: Layer) -> tuple[str, str]:
    command = " ".join(layer.created_by.split())
    command = command.partition(" # buildkit")[0].replace("/build/with-network ", "")
    return size(layer.compressed), command.rpartition(" -c ")[2][:90] or command[:90]


# --- doctor ---------------------------------------------------------------------------------------


def findings(found: Sequence[Finding], fmt: Format) -> None:
    """What doctor saw."""
    if fmt == "json":
        show([{"name": f.name, "ok": f.ok, "detail": f.detail, "fix": f.fix} for f in found])
        return
    rows = (("ok" if f.ok else "MISSING", f.name, f.detail, f.fix) for f in found)
    print(table(("", "WHAT", "FOUND", "FIX"), rows))


def fixed(done: Fixed, fmt: Format) -> None:
    """What doctor did, and how to undo it."""
    if fmt == "json":
        show({"did": list(done.did), "undo": list(done.undo)})
        return
    print("\n".join(done.did) or "nothing to do")
    if done.undo:
        print("to undo:\n" + "\n".join(f"  {line}" for line in done.undo))
