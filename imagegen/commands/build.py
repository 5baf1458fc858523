"""`imagegen build`: images in the engine's store, but for those that are published already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from imagegen.build import images
from imagegen.build.options import Options
from imagegen.commands import published
from imagegen.commands.published import Connect
from imagegen.errors import BuildError
from imagegen.matrix.project import Project
from imagegen.model.image import Built
from imagegen.model.pushed import Pushed


def build(
    project: Project, connect: Connect, select: Sequence[str], options: Options
) -> tuple[Built | Pushed, ...]:
    """Build the selected targets, but for those that are published under their key.

    Raises:
        BuildError: what failed; with ``keep_going``, after everything else was built.
    """
    chosen = images.plan(project, select, options)
    pushed = published.reusable(project, chosen, options)
    missing = [image for image in chosen if image.target.id not in pushed]
    if not missing:
        return tuple(pushed.values())
    engine = connect()
    made, failed = images.build(engine, images.on_bases(project, missing, options), options)
    complete(failed, len(missing))
    return (*pushed.values(), *made)


def complete(failed: Mapping[str, BuildError], count: int) -> None:
    """All of the ``count`` images were built.

    Raises:
        BuildError: naming all that failed.
    """
    if failed:
        words = "\n\n".join(f"{name}: {error}" for name, error in failed.items())
        raise BuildError(f"{len(failed)} of {count} failed\n{words}")


def definition(project: Project, select: Sequence[str], options: Options) -> dict[str, object]:
    """The bake definition of the selected targets: nothing is made and nobody is asked."""
    return images.document(images.plan(project, select, options), options)
