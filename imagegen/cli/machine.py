"""Commands around the images: the machine, the demo."""

from __future__ import annotations

from typing import Annotated

import typer

from imagegen.cli.options import (
    Fmt,
    FreshBase,
    MirrorOptions,
    ProjectOptions,
    build_options,
    grouped,
)


@grouped
def doctor(
    *,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Install and start what is missing; prints how to undo it."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --fix: print the commands, run none.")
    ] = False,
    fmt: Fmt = "text",
) -> None:
    """Say what this machine lacks for building images, and install it if asked to."""
    from imagegen.doctor import fix as fix_
    from imagegen.doctor import probe
    from imagegen.errors import EngineError
    from imagegen.output import machine

    if fix:
        machine.fixed(fix_.fix(dry_run=dry_run), fmt)
        return
    found = probe.examine()
    machine.findings(found, fmt)
    raise typer.Exit(0 if all(finding.ok for finding in found) else EngineError.exit_code)


@grouped
def demo(
    *,
    fresh_base: FreshBase = False,
    network: MirrorOptions,
    project: ProjectOptions,
    fmt: Fmt = "text",
) -> None:
    """From a bare machine to a tested GPU image in a registry of its own: the whole way.

    Installs Docker where there is none, builds this distribution's demo target, checks it, pushes
    it to a registry on this machine, and prints its template for each platform. A second run
    finds everything done.
    """
    from imagegen.commands import demo as whole_way
    from imagegen.output import machine

    options = build_options(network=network, base="bootstrap", fresh_base=fresh_base)
    machine.demo(whole_way.demo(project.load(), options), fmt)
