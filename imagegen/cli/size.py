"""The command that measures: what images take, and what they share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imagegen.cli.options import (
    Fmt,
    ImageOptions,
    ProjectOptions,
    Select,
    build_options,
    grouped,
)


@grouped
def size(
    *,
    select: Select = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="REF",
            help="This image, whoever built it, beside the selected targets; pulled unless it is "
            "here. Repeatable.",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write a page to look at: a treemap of each image, what they share.",
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(metavar="N", min=1, help="Rows of each table of the text.")
    ] = 5,
    which: ImageOptions,
    project: ProjectOptions,
    fmt: Fmt = "text",
) -> None:
    """Say what images take, what in them takes it, and what they share.

    Without SELECT and --image: every target that is built here. A selected target that is not
    built here is named, and the exit code is 5. The first look at an image reads all of it.

    imagegen size 'debian12-*' --image runpod/pytorch:1.0.3-cu1281-torch291 --html size.html
    """
    from imagegen.commands.size import complete, measure
    from imagegen.engine.docker import Docker
    from imagegen.output.size import show, writable

    page = writable(html)
    options = build_options(which)
    found = measure(project.load, Docker.connect, select or (), image or (), options)
    show(found, fmt, top, page)
    complete(found)
