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
    Fmt,
    MatrixFile,
    Output,
    OwnFacts,
    Repository,
    Select,
    Wheels,
    setup,
)

if TYPE_CHECKING:
    from imagegen.flow import Setup
    from imagegen.templating import Options

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
LedgerFile = Annotated[
    Path | None,
    typer.Option(
        "--ledger",
        metavar="FILE",
        help="What was made where; templates.json beside the matrix, if not given.",
        envvar="IMAGEGEN_LEDGER",
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
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """RunPod's templates of the selected targets.

    Prints what would be sent, as JSON. --plan and --apply need RUNPOD_API_KEY in the environment.
    """
    from imagegen.templating import Options

    options = Options(
        apply=apply, plan=plan, public=public, prefix=name_prefix, registry=registry_auth
    )
    it = setup(matrix, facts, allow_unknown)
    _template("runpod", select, options, base, repository, wheels, it, _ledger(ledger, matrix), fmt)


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
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """vast.ai's templates of the selected targets.

    Prints what would be sent, as JSON. --plan and --apply need VAST_API_KEY in the environment. A
    template is never edited there, which would end its link: new content is a new template.
    """
    from imagegen.templating import Options

    options = Options(apply=apply, plan=plan, prune=prune_old, public=public, prefix=name_prefix)
    it = setup(matrix, facts, allow_unknown)
    _template("vast", select, options, base, repository, wheels, it, _ledger(ledger, matrix), fmt)


@template.command("table")
def table(
    into: Into = None,
    check: Check = False,
    ledger: LedgerFile = None,
    matrix: MatrixFile = MATRIX,
) -> None:
    """The published images with their deploy links, as a Markdown table."""
    from imagegen import templating
    from imagegen.report import templates as report

    file = _ledger(ledger, matrix)
    if into is None:
        report.table(templating.table(file))
    else:
        report.into(into, differed=templating.into(file, into, check=check))


def _ledger(given: Path | None, matrix: Path) -> Path:
    return given or matrix.with_name("templates.json")


def _template(
    platform: str,
    select: list[str] | None,
    options: Options,
    base: Base,
    repository: list[str] | None,
    wheels: str,
    it: Setup,
    ledger: Path,
    fmt: Output,
) -> None:
    from imagegen import delivery, flow, report, templating
    from imagegen.report import templates

    repositories = tuple(repository or ())
    how = flow.Options(base=base.value, repositories=repositories, wheels=wheels)
    say = report.Progress()
    pushed = delivery.published(it, select or (), how, say)
    if options.live:
        found = templating.run(platform, pushed, it.facts, options, ledger, say)
        templates.outcome(found, fmt.value)
    else:
        rows = templating.specs(platform, pushed, it.facts, options)
        report.show([row.shown for row in rows])
