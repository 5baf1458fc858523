"""Commands about templates: RunPod's, vast.ai's, and the table of what is published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagegen.cli.options import (
    MATRIX,
    AllowUnknown,
    Base,
    BaseFrom,
    Ca,
    Compression,
    Fmt,
    LedgerFile,
    MatrixFile,
    Output,
    OwnFacts,
    Packing,
    Repository,
    Select,
    Wheels,
    setup,
)

if TYPE_CHECKING:
    from imagegen.build import options as options_
    from imagegen.matrix import project
    from imagegen.platforms.apply import Options

template = typer.Typer(
    no_args_is_help=True,
    help="Templates of tested, pushed images: print them, compare them with what is live, apply "
    "them.",
)

Apply = Annotated[
    bool,
    typer.Option(
        "--apply",
        help="Create what is not there and change what differs; a second run does nothing.",
    ),
]
Plan = Annotated[
    bool, typer.Option("--plan", help="Compare with what is live, and change nothing.")
]
Prune = Annotated[
    bool,
    typer.Option(
        "--prune-old",
        help="Also delete the templates that an earlier run superseded, which ends their links.",
    ),
]
Public = Annotated[bool, typer.Option("--public", help="For everybody, not only your account.")]
Prefix = Annotated[
    str, typer.Option("--name-prefix", metavar="TEXT", help="Goes before the target's id.")
]
RegistryAuth = Annotated[
    str,
    typer.Option(
        "--registry-auth",
        metavar="NAME",
        help="Name or id of the registry login, in your account there, that pulls the image.",
    ),
]
Into = Annotated[
    Path | None,
    typer.Option("--into", metavar="FILE", help="Write it between the markers of this README."),
]
Check = Annotated[bool, typer.Option("--check", help="With --into: only fail if it differs.")]


@template.command("runpod")
def runpod(
    select: Select = None,
    apply: Apply = False,
    plan: Plan = False,
    public: Public = False,
    name_prefix: Prefix = "",
    registry_auth: RegistryAuth = "",
    ledger: LedgerFile = None,
    base: BaseFrom = Base.pull,
    repository: Repository = None,
    wheels: Wheels = "",
    compression: Packing = Compression.zstd,
    ca: Ca = "",
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """RunPod's templates of the selected targets.

    Prints what would be sent, as JSON. --plan and --apply need RUNPOD_API_KEY in the environment.
    """
    from imagegen.platforms.apply import Options

    options = Options(
        apply=apply, plan=plan, public=public, prefix=name_prefix, registry=registry_auth, ca=ca
    )
    how = _published(base, repository, wheels, compression, ca)
    it = setup(matrix, facts, allow_unknown)
    _template("runpod", select, options, how, it, _ledger(ledger, matrix), fmt)


@template.command("vast")
def vast(
    select: Select = None,
    apply: Apply = False,
    plan: Plan = False,
    prune_old: Prune = False,
    public: Public = False,
    name_prefix: Prefix = "",
    ledger: LedgerFile = None,
    base: BaseFrom = Base.pull,
    repository: Repository = None,
    wheels: Wheels = "",
    compression: Packing = Compression.zstd,
    ca: Ca = "",
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """vast.ai's templates of the selected targets.

    Prints what would be sent, as JSON. --plan and --apply need VAST_API_KEY in the environment. A
    template is never edited there, which would end its link: new content is a new template. It
    holds no registry login: the image must be public, or the login be given on the instance.
    """
    from imagegen.platforms.apply import Options

    options = Options(
        apply=apply, plan=plan, prune=prune_old, public=public, prefix=name_prefix, ca=ca
    )
    how = _published(base, repository, wheels, compression, ca)
    it = setup(matrix, facts, allow_unknown)
    _template("vast", select, options, how, it, _ledger(ledger, matrix), fmt)


@template.command("table")
def table(
    into: Into = None,
    check: Check = False,
    ledger: LedgerFile = None,
    matrix: MatrixFile = MATRIX,
) -> None:
    """The published images with their deploy links, as a Markdown table."""
    from imagegen.errors import UsageError
    from imagegen.output import templates as report
    from imagegen.platforms import table as published

    file = _ledger(ledger, matrix)
    if into:
        report.into(into, differed=published.into(file, into, check=check))
    elif check:
        raise UsageError("--check compares with a file: --into names it", hint="--into README.md")
    else:
        report.table(published.table(file))


def _ledger(given: Path | None, matrix: Path) -> Path:
    return given or matrix.with_name("templates.json")


def _published(
    base: Base, repository: list[str] | None, wheels: str, compression: Compression, ca: str
) -> options_.Options:
    """What tells one image of a target from another, and where it is asked for."""
    from imagegen.build import options as options_
    from imagegen.net import settings

    return options_.Options(
        network=settings.Network(ca=ca),
        base=base.value,
        repositories=tuple(dict.fromkeys(repository or ())),
        wheels=wheels,
        compression=compression.value,
    )


def _template(
    platform: str,
    select: list[str] | None,
    options: Options,
    how: options_.Options,
    it: project.Project,
    ledger: Path,
    fmt: Output,
) -> None:
    from imagegen.commands import templates
    from imagegen.commands.published import published
    from imagegen.output import console
    from imagegen.output.templates import outcome

    pushed = published(it, select or (), how)
    if options.live:
        found = templates.run(platform, pushed, it.facts, options, ledger)
        outcome(found, fmt.value)
        templates.complete(found)
    else:
        rows = templates.specs(platform, pushed, it.facts, options)
        console.show([row.shown for row in rows])
