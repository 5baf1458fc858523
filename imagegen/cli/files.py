"""TODO."""

from __future__ import annotations

from typing import Annotated

import typer

from imagegen.cli.options import (
    MATRIX,
    AllowUnknown,
    Ca,
    Fmt,
    MatrixFile,
    Output,
    OwnFacts,
    PypiIndex,
    Select,
    setup,
)


def render(
    select: Select = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 10 when a file differs.")
    ] = False,
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """Write the Dockerfiles of the selected targets beside the matrix."""
    from imagegen.commands.files import render_files
    from imagegen.output.files import rendered

    found = render_files(setup(matrix, facts, allow_unknown), select or (), check=check)
    rendered(found, fmt.value, check=check)


def lock(
    select: Select = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Ask nothing, write nothing; exit 10 when a lock is stale."),
    ] = False,
    ca: Ca = "",
    pypi_index: PypiIndex = "",
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """Pin every Python package of the selected targets by hash. Asks the package index.

    Base images and flash-attn's source are pinned by the facts. What this network cannot reach
    stays visibly unlocked: see the column of `imagegen list`.
    """
    from imagegen.commands.files import check_locks, lock_files
    from imagegen.net.settings import Network
    from imagegen.output.files import locks, paths

    it = setup(matrix, facts, allow_unknown)
    if check:
        locks(check_locks(it, select or ()), fmt.value)
        return
    network = Network(ca=ca, pypi_index=pypi_index)
    made = lock_files(it, select or (), network)
    paths(made, fmt.value)
