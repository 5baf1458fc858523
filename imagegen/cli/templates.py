"""Commands about templates: those of each platform, and the table of what is published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagegen.cli.options import (
    CaOptions,
    Fmt,
    LedgerFile,
    MatrixOptions,
    ProjectOptions,
    PublishedOptions,
    Select,
    build_options,
    grouped,
)
from imagegen.platforms import PLATFORMS, Platform

if TYPE_CHECKING:
    from imagegen.output.console import Format

template = typer.Typer(
    no_args_is_help=True,
    help="Templates of tested, pushed images: print them, compare them with what is live, apply "
    "them.",
)


@dataclass(frozen=True, kw_only=True)
class TemplateOptions:
    """What to do about the templates of a platform, and what they say."""

    apply: Annotated[
        bool,
        typer.Option(
            "--apply",
            help="Create what is not there and change what differs; a second run does nothing.",
        ),
    ] = False
    plan: Annotated[
        bool, typer.Option("--plan", help="Compare with what is live, and change nothing.")
    ] = False
    public: Annotated[
        bool, typer.Option("--public", help="For everybody, not only your account.")
    ] = False
    prefix: Annotated[
        str, typer.Option("--name-prefix", metavar="TEXT", help="Goes before the target's id.")
    ] = ""


OWN = {
    "registry": (
        Annotated[
            str,
            typer.Option(
                "--registry-auth",
                metavar="NAME",
                help="Name or id of the registry login, in your account there, that pulls the "
                "image.",
            ),
        ],
        "",
    ),
    "prune": (
        Annotated[
            bool,
            typer.Option(
                "--prune-old",
                help="Also delete the templates that an earlier run superseded, which ends their "
                "links.",
            ),
        ],
        False,
    ),
}
"""Options that not every platform has: type and default."""


def command(platform: Platform) -> Callable[..., None]:
    """The command about a platform's templates, with the options that it has."""
    own = [(name, OWN[name][0], field(default=OWN[name][1])) for name in platform.options]
    group = make_dataclass("Own", own, bases=(TemplateOptions,), frozen=True, kw_only=True)

    def templates(
        *,
        select: Select = None,
        how: TemplateOptions,
        ledger: LedgerFile = None,
        which: PublishedOptions,
        network: CaOptions,
        project: ProjectOptions,
        fmt: Fmt = "text",
    ) -> None:
        _templates(platform.name, select or (), how, ledger, which, network, project, fmt)

    templates.__annotations__["how"] = group
    templates.__doc__ = f"""{platform.title}'s templates of the selected targets.

    Prints what would be sent, as JSON. --plan and --apply need {platform.key_variable} in the
    environment. {platform.about}
    """
    return grouped(templates)


for one in PLATFORMS.values():
    template.command(one.name)(command(one))


@template.command("table")
@grouped
def table(
    *,
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="FILE", help="Write it between the markers of this README."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="With --into: only fail if it differs.")
    ] = False,
    ledger: LedgerFile = None,
    project: MatrixOptions,
) -> None:
    """The published images with their deploy links, as a Markdown table."""
    from imagegen.errors import UsageError
    from imagegen.output import templates as output
    from imagegen.platforms import table as published

    file = _ledger(ledger, project)
    if into:
        output.into(into, differed=published.into(file, into, check=check))
    elif check:
        raise UsageError("--check compares with a file: --into names it", hint="--into README.md")
    else:
        output.table(published.table(file))


def _ledger(named: Path | None, project: MatrixOptions) -> Path:
    return named or project.matrix.with_name("templates.json")


def _templates(
    platform: str,
    select: Sequence[str],
    how: TemplateOptions,
    ledger: Path | None,
    which: PublishedOptions,
    network: CaOptions,
    project: ProjectOptions,
    fmt: Format,
) -> None:
    """Print the templates of a platform, or compare or apply them."""
    from imagegen.commands import templates
    from imagegen.commands.published import published
    from imagegen.output import console
    from imagegen.output.templates import outcome
    from imagegen.platforms.apply import ApplyOptions

    options = ApplyOptions(**asdict(how), ca=network.ca)
    wanted = build_options(which, network=network)
    loaded = project.load()
    pushed = published(loaded, select, wanted)
    if options.live:
        file = _ledger(ledger, project)
        found = templates.run(platform, pushed, loaded.facts, options, file)
        outcome(found, fmt)
        templates.complete(found)
    else:
        rows = templates.specs(platform, pushed, loaded.facts, options)
        console.show([row.requests for row in rows])
