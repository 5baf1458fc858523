"""Commands that make images, try them and publish them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from imagegen.cli.options import (
    BuildOptions,
    CheckOptions,
    Fmt,
    KeepGoing,
    Level,
    NetworkOptions,
    ProjectOptions,
    Select,
    TestFmt,
    build_options,
    grouped,
)
from imagegen.platforms import PLATFORMS


@grouped
def build(
    *,
    select: Select = None,
    print_: Annotated[
        bool, typer.Option("--print", help="Print the bake definition and build nothing.")
    ] = False,
    keep_going: KeepGoing = False,
    making: BuildOptions,
    network: NetworkOptions,
    project: ProjectOptions,
    fmt: Fmt = "text",
) -> None:
    """Build the selected targets into the engine's store.

    imagegen build 'ubuntu24.04-cuda13.0-*-slim' --keep-going
    """
    from imagegen.commands import build as build_
    from imagegen.engine.docker import Docker
    from imagegen.output import console
    from imagegen.output.images import built

    options = build_options(making, network=network, keep_going=keep_going)
    loaded = project.load()
    if print_:
        console.show(build_.definition(loaded, select or (), options))
    else:
        built(build_.build(loaded, Docker.connect, select or (), options), fmt)


@dataclass(frozen=True, kw_only=True)
class TestOptions(CheckOptions):
    """How images are tried: which others, at which levels, and where the outcome is written."""

    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="REF",
            help="Check this image, whoever built it, instead of targets; --level "
            f"{' and '.join(PLATFORMS)} unless told otherwise. Repeatable.",
        ),
    ] = None
    level: Annotated[
        list[Level] | None,
        typer.Option(
            "--level",
            help="smoke: nvcc, torch, flash-attn, packages. gpu: their kernels, on all GPUs of "
            f"this machine. {', '.join(PLATFORMS)}: the platforms' contracts, from outside. "
            "Repeatable; without it all that need no GPU.",
        ),
    ] = None
    report: Annotated[
        list[str] | None,
        typer.Option(
            "--report",
            metavar="FORMAT=FILE",
            help="Also write it so: junit=report.xml, json=report.json, "
            'github="$GITHUB_STEP_SUMMARY" (added at the end). Repeatable.',
        ),
    ] = None


@grouped
def test(
    *,
    select: Select = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List the checks and what each guards against.")
    ] = False,
    trial: TestOptions,
    keep_going: KeepGoing = False,
    making: BuildOptions,
    network: NetworkOptions,
    project: ProjectOptions,
    fmt: TestFmt = "text",
) -> None:
    """Build the selected targets and try them: what is inside, and as a pod's user from outside.

    imagegen test --image runpod/pytorch:1.0.3-cu1281-torch291-ubuntu2404 --level runpod
    """
    from imagegen.commands.test import listed, passed, tested
    from imagegen.engine.docker import Docker
    from imagegen.output import checks

    if list_:
        checks.catalogue(listed(), {*(trial.level or ())}, fmt)
        return
    files = checks.files(trial.report or ())
    options = build_options(
        making,
        network=network,
        keep_going=keep_going,
        asked=trial.asked(trial.level or ()),
        again=trial.again,
    )
    found = tested(project.load, Docker.connect, select or (), trial.image or (), options)
    checks.show(found, fmt, files)
    passed(found)


@grouped
def push(
    *,
    select: Select = None,
    move_back: Annotated[
        bool,
        typer.Option(
            "--move-back",
            help="Let a tag go to an older version, or off an image that imagegen has not made.",
        ),
    ] = False,
    checks: CheckOptions,
    making: BuildOptions,
    network: NetworkOptions,
    project: ProjectOptions,
    fmt: Fmt = "text",
) -> None:
    """Build, test and publish the selected targets. Nothing untested can be pushed.

    imagegen push 'ubuntu24.04-*-slim' --repository ghcr.io/me/finetune

    A target that is published already, with the same files, locks and base and a report that
    passed, is left alone. One that fails keeps no other from being published. Logins are those of
    docker login.
    """
    from imagegen.commands import push as push_
    from imagegen.engine.docker import Docker
    from imagegen.output.images import published

    options = build_options(
        making, network=network, move_back=move_back, asked=checks.asked(), again=checks.again
    )
    done = push_.push(project.load(), Docker.connect, select or (), options)
    published(done, fmt)
    push_.delivered(done)
