"""Files that were rendered, written or checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.output.console import Format, show

if TYPE_CHECKING:
    from imagegen.commands.files import Rendered


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


def locks(found: Sequence[Path], fmt: Format) -> None:
    """Locks without a fault."""
    if fmt == "json":
        show(list(map(str, found)))
    else:
        print(f"{len(found)} locks: complete, hashed, and made for this matrix")
