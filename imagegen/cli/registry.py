"""Commands about what is in a registry."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from imagegen.cli.options import (
    CaOptions,
    Fmt,
    LedgerFile,
    ProjectOptions,
    Repositories,
    grouped,
)


@grouped
def inspect(
    *,
    ref: Annotated[str, typer.Argument(metavar="REF", help="host/name:tag or host/name@sha256:…")],
    show: Annotated[
        Literal["report", "sbom", "provenance"] | None,
        typer.Option(help="Print this document that is attached to the image, as it is."),
    ] = None,
    network: CaOptions,
    fmt: Fmt = "text",
) -> None:
    """What is in a published image: its labels, and the report, SBOM and provenance beside it.

    imagegen inspect ghcr.io/me/finetune:latest --show sbom

    Nothing is pulled, and no engine is needed.
    """
    from imagegen.output.registry import documents, inspected
    from imagegen.publish import inspect as inspect_

    found = inspect_.inspect(ref, ca=network.ca)
    if show:
        documents(found.bodies(show))
    else:
        inspected(found, fmt)


@grouped
def prune(
    *,
    registry: Annotated[
        bool, typer.Option("--registry", help="In registries.")
    ] = False,  # it says where, so that a later kind of pruning needs no new command
    apply: Annotated[
        bool, typer.Option("--apply", help="Delete it; without, only say what could go.")
    ] = False,
    older: Annotated[
        float, typer.Option("--older-than", metavar="DAYS", min=0, help="What is newer stays.")
    ] = 30.0,
    ledger: LedgerFile = None,
    repositories: Repositories = None,
    network: CaOptions,
    project: ProjectOptions,
    fmt: Fmt = "text",
) -> None:
    """Say which images of a repository could be deleted, and delete them with --apply.

    imagegen prune --registry --repository ghcr.io/me/finetune --older-than 90

    An image stays that a tag other than its own points to, that a template names, that somebody
    signed, or that is new. Deleting needs a registry that allows it.
    """
    from imagegen.commands import prune as prune_
    from imagegen.errors import UsageError
    from imagegen.output.registry import prunable

    if not registry:
        raise UsageError("say where: --registry", hint="docker image prune is for the engine")
    done = prune_.prune(
        project.load(),
        repositories or (),
        ca=network.ca,
        older=older,
        ledger=ledger,
        apply=apply,
    )
    prunable(done, fmt, applied=apply)
    prune_.deleted(done)
