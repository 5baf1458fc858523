"""Commands that ask: what works, what fits, what there is. They change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from imagegen.cli.options import (
    MATRIX,
    AllowUnknown,
    Ca,
    Card,
    Driver,
    Fmt,
    ListOutput,
    MatrixFile,
    Output,
    OwnFacts,
    Select,
    Wheels,
    setup,
)

if TYPE_CHECKING:
    from imagegen.compat.solver import Combination
    from imagegen.compat.sources import Step


def list_(
    select: Select = None,
    excluded: Annotated[
        bool, typer.Option("--excluded", help="List what is left out instead, with every reason.")
    ] = False,
    gpu: Card = "",
    driver: Driver = "",
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Annotated[ListOutput, typer.Option("--format", help="How to print.")] = ListOutput.text,
) -> None:
    """List the targets of this project; with --gpu or --driver, those that work on that machine.

    imagegen list '*cuda13.0*' 'debian*' --gpu "RTX 4090" --driver 580
    """
    from imagegen.commands import targets
    from imagegen.errors import UsageError
    from imagegen.output import targets as output

    if excluded and (gpu or driver or fmt == ListOutput.github):
        raise UsageError(
            "--excluded is about every machine, as text or JSON: leave --gpu, --driver out"
        )
    it = setup(matrix, facts, allow_unknown)
    if excluded:
        output.left_out(targets.left_out(it, select or ()), fmt.value)
    else:
        output.targets(targets.listed(it, select or (), gpu, driver), fmt.value)


Toolkit = Annotated[
    str, typer.Option(metavar="VERSION", help="The toolkit that brings nvcc: 12.8 or 12.8.1.")
]
TorchBuild = Annotated[
    str, typer.Option(metavar="cuNNN", help="The CUDA that torch is built for, e.g. cu126.")
]
Interpreter = Annotated[
    str, typer.Option(metavar="VERSION", help="3.12, or 3.13t for the free-threaded build.")
]
FlashAttn = Annotated[
    str, typer.Option(metavar="VERSION", help="A release of flash-attn 2, 3 or 4; or none.")
]
From = Annotated[str, typer.Option(metavar="ORIGIN", help="official, third-party or source.")]


def why(
    ubuntu: Annotated[str, typer.Option(metavar="VERSION", help="20.04 to 26.04.")] = "",
    debian: Annotated[str, typer.Option(metavar="VERSION", help="12 or 13.")] = "",
    cuda: Toolkit = "",
    torch: Annotated[str, typer.Option(metavar="VERSION", help="2.9 or 2.9.1.")] = "",
    torch_index: TorchBuild = "",
    python: Interpreter = "",
    flash_attn: FlashAttn = "",
    flash_attn_from: From = "",
    arch: Annotated[str, typer.Option(metavar="NAME", help="x86_64 or aarch64.")] = "",
    gpu: Card = "",
    driver: Driver = "",
    memory: Annotated[
        str, typer.Option(metavar="GB", help="Memory of the machine that compiles flash-attn.")
    ] = "",
    wheels: Wheels = "",
    ca: Ca = "",
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """Tell whether a combination works, why not, and what works instead.

    An option left out means any value. The verdict is ok, warn (it works, with a warning),
    unverified (no fact says so), or impossible; then the exit code is 4. A value that no fact
    knows gives exit code 3, with the nearest one that is known.

    imagegen why --ubuntu 24.04 --cuda 13.0 --torch 2.8 --python 3.12
    """
    from imagegen.compat.query import written
    from imagegen.compat.why import asked
    from imagegen.errors import ImpossibleCombination
    from imagegen.output import targets as output

    question = written(
        ubuntu=ubuntu, debian=debian, cuda=cuda, torch=torch, index=torch_index, python=python,
        flash_attn=flash_attn, origin=flash_attn_from, host=arch, gpu=gpu, driver=driver,
        memory=memory,
    )  # fmt: skip
    found, pieces = asked(question, facts, allow_unknown=allow_unknown)
    places = _places(found.found.combination, question.origin, wheels, ca)
    output.why(found, pieces, places, fmt.value)
    if found.found.verdict == "impossible":
        raise typer.Exit(ImpossibleCombination.exit_code)


def _places(combination: Combination, origin: str, wheels: str, ca: str) -> tuple[Step, ...]:
    """Every place that flash-attn 2 with all its kernels could come from, or the one asked for; the
    store is asked.
    """
    from imagegen.compat import sources

    kernels, held, place = sources.every_kernel(combination), None, ""
    if kernels is None:
        return ()
    if wheels:
        from imagegen.wheels.store import open_store

        store = open_store(wheels, ca=ca)
        held, place = bool(store.find(sources.own_name(combination, kernels))), store.location
    pins = sources.pins(MATRIX.parent / "locks")
    policy = sources.Policy(third_party=origin == "third-party")
    steps = sources.sourced(combination, kernels, policy, pins, place, stored=held).steps
    return tuple(step for step in steps if origin in ("", step.place))


def pick(
    select: Select = None,
    gpu: Card = "",
    driver: Driver = "",
    python: Annotated[str, typer.Option(metavar="VERSION", help="Only this Python.")] = "",
    torch: Annotated[str, typer.Option(metavar="VERSION", help="Only this torch.")] = "",
    from_nvidia_smi: Annotated[
        bool, typer.Option("--from-nvidia-smi", help="Read cards and driver of this machine.")
    ] = False,
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """Name the best target for a machine, and why it is better than the next one.

    imagegen pick --gpu "RTX 4090" --driver 580
    """
    from imagegen.commands import targets
    from imagegen.output import targets as output

    it = setup(matrix, facts, allow_unknown)
    picked = targets.best(
        it, select or (), gpu, driver, python=python, torch=torch, here=from_nvidia_smi
    )
    output.picked(picked, fmt.value)
