"""Commands about the files of a project: Dockerfiles and locks."""

from __future__ import annotations

from typing import Annotated

import typer

from imagegen.cli.options import Fmt, IndexOptions, ProjectOptions, Select, grouped


@grouped
def render(
    *,
    select: Select = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 10 when a file differs.")
    ] = False,
    project: ProjectOptions,
    fmt: Fmt = "text",
) -> None:
    """Write the Dockerfiles of the selected targets beside the matrix."""
    from imagegen.commands.files import render_files
    from imagegen.output.files import rendered

    rendered(render_files(project.load(), select or (), check=check), fmt, check=check)


@grouped
def lock(
    *,
    select: Select = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Ask nothing, write nothing; exit 10 when a lock is stale."),
    ] = False,
    network: IndexOptions,
    project: ProjectOptions,
    fmt: Fmt = "text",
) -> None:
    """Pin every Python package of the selected targets by hash. Asks the package index.

    Base images and flash-attn's source are pinned by the facts. What this network cannot reach
    stays visibly unlocked: see the column of `imagegen list`.
    """
    from imagegen.commands.files import check_locks, lock_files
    from imagegen.output.files import locks, paths

    if check:
        locks(check_locks(project.load(), select or ()), fmt)
    else:
        paths(lock_files(project.load(), select or (), network.settings()), fmt)
