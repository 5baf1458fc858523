"""What was made of this machine: the demo, and what doctor found and did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from imagegen.output.console import Format, show, table
from imagegen.output.images import largest, pushed_row, sizes_of

if TYPE_CHECKING:
    from imagegen.commands.demo import Demo
    from imagegen.doctor.model import Finding, Fixed


def demo(made: Demo, fmt: Format) -> None:
    """The demo's summary: templates, seconds for each step, sizes, largest layers."""
    one = made.pushed
    if fmt == "json":
        steps = [{"step": n, "seconds": round(s, 1), "why": w} for n, s, w in made.steps]
        show({"steps": steps, "undo": made.undo, "templates": made.templates, **pushed_row(one)})
        return
    for platform, template in made.templates.items():
        print(f"\n{platform} template:")
        show(template)
    print()
    total = ("total", f"{sum(seconds for _, seconds, _ in made.steps):.1f}", "")
    rows = [(name, f"{seconds:.1f}", why) for name, seconds, why in made.steps]
    print(table(("STEP", "SECONDS", ""), [*rows, total]))
    print(f"\n{sizes_of(one)}; the largest layers:")
    print(table(("SIZE", "MADE BY"), largest(one.layers)))
    id_ = one.target.id
    print(f"\ntested and pushed: {one.pinned}")
    print("Only this machine can pull it. For a pod, push it to a registry that the pod can reach:")
    print(f"  imagegen push {id_} --base bootstrap --repository ghcr.io/YOU/finetune")
    print(f"try it: docker run --rm -it {made.ref} bash")
    if made.undo:
        print("\nto undo all of it:\n" + "\n".join(f"  {line}" for line in made.undo))


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
