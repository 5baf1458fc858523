"""TODO."""

from __future__ import annotations

from collections.abc import Sequence

from imagegen.build import images
from imagegen.build.options import Options
from imagegen.commands.published import Connect, _left, _published
from imagegen.matrix.project import Project
from imagegen.model.image import Built
from imagegen.model.pushed import Pushed


def build(
    project: Project,
    connect: Connect,
    select: Sequence[str],
    options: Options,
) -> tuple[Built | Pushed, ...]:
    """Build the selected targets, but for those that are published under their key.

    Raises:
        BuildError: what failed; with ``keep_going``, after everything else was built.
    """
    there = _published(project, select, options)
    if not (missing := _left(project, select, there)):
        return tuple(there.values())
    made = images.build(project, connect(), missing, options)
    return (*there.values(), *made)
