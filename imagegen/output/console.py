"""The only printer: what the commands found and made, as text, as JSON, for GitHub."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from imagegen.model import Built, Layer, Pushed

if TYPE_CHECKING:
    from imagegen.demo import Demo
    from imagegen.doctor import Finding, Fixed
    from imagegen.files import Rendered
    from imagegen.publish import Publication

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


def known(count: float | None) -> str:
    """The same, of bytes that nobody may know."""
    return "?" if count is None else size(count)


# --- render, lock ---------------------------------------------------------------------------------


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


def built(images: Sequence[Built | Pushed], fmt: Format) -> None:
    """Images in the engine's store, or in a registry where nothing was to be built."""
    if fmt == "json":
        show([built_row(one) if isinstance(one, Built) else _pushed(one) for one in images])
        return
    for one in images:
        if isinstance(one, Built):
            how = one.cached or f"built in {one.seconds:.0f} s"
            print(f"{one.image.target.id}: {how}")
            print(f"  {one.image.ref}\n  {one.digest}, {size(one.unpacked)} unpacked")
        else:
            print(f"{one.target.id}: {one.cached}\n  docker pull {one.pinned}")


def published(done: Publication, fmt: Format) -> None:
    """Images in registries, and what is not there."""
    if fmt == "json":
        failed = [{"name": name, "error": str(why)} for name, why in done.failed.items()]
        show({"pushed": [_pushed(one) for one in done.pushed], "failed": failed})
        return
    for one in done.pushed:
        print(f"{one.target.id}: {one.cached or one.digest}")
        for ref in (*one.refs, *one.aliases):
            print(f"  docker pull {ref}")
        for why in one.kept:
            print(f"  {why}")
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
    id_ = one.target.id
    print(f"\ntested and pushed: {one.pinned}")
    print("Only this machine can pull that. For pods, push the same image where they reach it:")
    print(f"  imagegen push {id_} --base bootstrap --repository ghcr.io/YOU/finetune")
    print(f"try it: docker run --rm -it {made.ref} bash")
    if made.undo:
        print("\nto undo all of it:\n" + "\n".join(f"  {line}" for line in made.undo))


def built_row(one: Built) -> dict[str, object]:
    """A built image as JSON values."""
    return {
        "id": one.image.target.id,
        "ref": one.image.ref,
        "digest": one.digest,
        "key": one.image.key,
        "unpacked_bytes": one.unpacked,
        "seconds": round(one.seconds, 1),
        "cached": one.cached,
    }


def _pushed(one: Pushed) -> dict[str, object]:
    from imagegen.report import outcomes

    layers = [
        {"digest": row.digest, "bytes": row.compressed, "created_by": row.created_by}
        for row in one.layers
    ]
    return {
        "id": one.target.id,
        "key": one.key,
        "repository": one.repository,
        "digest": one.digest,
        "passed": one.record.allows(one.digest),
        "refs": list(one.refs),
        "aliases": list(one.aliases),
        "pinned": one.pinned,
        "moved": list(one.moved),
        "kept": list(one.kept),
        "sent": one.sent,
        "seconds": round(one.seconds, 1),
        "cached": one.cached,
        "revision": one.revision,
        "compressed_bytes": one.compressed,
        "unpacked_bytes": one.unpacked,
        "layers": layers,
        "checks": list(map(outcomes.check_row, one.record.checks)),
    }


def _sizes(one: Pushed) -> str:
    unpacked = size(one.unpacked)
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
