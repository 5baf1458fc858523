"""Commands that ask: what works, what fits, what there is. They change nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from imagegen.cli.options import (
    MATRIX,
    CaOptions,
    FactsOptions,
    Fmt,
    ListFmt,
    MachineOptions,
    ProjectOptions,
    Select,
    StoreOptions,
    grouped,
)


@grouped
def list_(
    *,
    select: Select = None,
    excluded: Annotated[
        bool, typer.Option("--excluded", help="List what is left out instead, with every reason.")
    ] = False,
    machine: MachineOptions,
    project: ProjectOptions,
    fmt: ListFmt = "text",
) -> None:
    """List the targets of this project; with --gpu or --driver, those that work on that machine.

    imagegen list '*cuda13.0*' 'debian*' --gpu "RTX 4090" --driver 580
    """
    from imagegen.commands import targets
    from imagegen.errors import UsageError
    from imagegen.output import targets as output

    if excluded and (machine != MachineOptions() or fmt == "github"):
        raise UsageError(
            "--excluded is about every machine, as text or JSON: leave --gpu, --driver out"
        )
    if excluded:
        output.left_out(targets.left_out(project.load(), select or ()), fmt)
    else:
        rows = targets.listed(project.load(), select or (), machine.gpu, machine.driver)
        output.targets(rows, fmt)


@dataclass(frozen=True, kw_only=True)
class CombinationOptions:
    """A combination, as it is typed: what is left out may be anything."""

    ubuntu: Annotated[
        str, typer.Option(metavar="VERSION", help="A release, e.g. 24.04 or noble.")
    ] = ""
    debian: Annotated[
        str, typer.Option(metavar="VERSION", help="A release, e.g. 12 or bookworm.")
    ] = ""
    cuda: Annotated[
        str, typer.Option(metavar="VERSION", help="The toolkit that brings nvcc: 12.8 or 12.8.1.")
    ] = ""
    torch: Annotated[str, typer.Option(metavar="VERSION", help="2.9 or 2.9.1.")] = ""
    index: Annotated[
        str,
        typer.Option(
            "--torch-index",
            metavar="cuNNN",
            help="The CUDA that torch is built for, e.g. cu126.",
        ),
    ] = ""
    python: Annotated[
        str, typer.Option(metavar="VERSION", help="3.12, or 3.13t for the free-threaded build.")
    ] = ""
    flash_attn: Annotated[
        str, typer.Option(metavar="VERSION", help="A release of flash-attn 2, 3 or 4; or none.")
    ] = ""
    origin: Annotated[
        str,
        typer.Option(
            "--flash-attn-from", metavar="ORIGIN", help="official, third-party or source."
        ),
    ] = ""
    host: Annotated[str, typer.Option("--arch", metavar="NAME", help="x86_64 or aarch64.")] = ""
    memory: Annotated[
        str, typer.Option(metavar="GB", help="Memory of the machine that compiles flash-attn.")
    ] = ""


@grouped
def why(
    *,
    combination: CombinationOptions,
    machine: MachineOptions,
    store: StoreOptions,
    network: CaOptions,
    facts: FactsOptions,
    fmt: Fmt = "text",
) -> None:
    """Tell whether a combination works, why not, and what works instead.

    An option left out means any value. The verdict is ok, warn (it works, with a warning),
    unverified (no fact says so), or impossible; then the exit code is 4. A value that no fact
    knows gives exit code 3, with the nearest one that is known.

    imagegen why --ubuntu 24.04 --cuda 13.0 --torch 2.8 --python 3.12
    """
    from imagegen.commands.targets import places
    from imagegen.compat.facts.files import load
    from imagegen.compat.query import written
    from imagegen.compat.why import asked
    from imagegen.errors import ImpossibleCombination
    from imagegen.output import targets as output

    question = written(load(facts.facts), **asdict(combination), **asdict(machine))
    answer, pieces = asked(question, facts.facts, allow_unknown=facts.allow_unknown)
    found = places(answer, MATRIX.parent / "locks", store.wheels, ca=network.ca)
    output.why(answer, pieces, found, fmt)
    if answer.found.verdict == "impossible":
        raise typer.Exit(ImpossibleCombination.exit_code)


@grouped
def pick(
    *,
    select: Select = None,
    machine: MachineOptions,
    python: Annotated[str, typer.Option(metavar="VERSION", help="Only this Python.")] = "",
    torch: Annotated[str, typer.Option(metavar="VERSION", help="Only this torch.")] = "",
    from_nvidia_smi: Annotated[
        bool, typer.Option("--from-nvidia-smi", help="Read cards and driver of this machine.")
    ] = False,
    project: ProjectOptions,
    fmt: Fmt = "text",
) -> None:
    """Name the best target for a machine, and why it is better than the next one.

    imagegen pick --gpu "RTX 4090" --driver 580
    """
    from imagegen.commands import targets
    from imagegen.output import targets as output

    picked = targets.best(
        project.load(),
        select or (),
        machine.gpu,
        machine.driver,
        python=python,
        torch=torch,
        here=from_nvidia_smi,
    )
    output.picked(picked, fmt)
