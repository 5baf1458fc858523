"""The command line: options in, one flow call, one report out. Nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagegen.options import (
    MATRIX,
    Again,
    AllowUnknown,
    AptMirror,
    Base,
    BaseFrom,
    Builder,
    Ca,
    Card,
    Driver,
    Fmt,
    FreshBase,
    Gpu,
    KeepGoing,
    ListOutput,
    MatrixFile,
    Output,
    OwnFacts,
    PypiIndex,
    Registry,
    Repository,
    Select,
    TorchIndex,
)

if TYPE_CHECKING:
    from imagegen.flow import Options, Setup

app = typer.Typer(
    name="imagegen",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Images for fine-tuning language models on rented GPUs: nvcc and flash-attn baked in, "
    "tested before they are pushed, for RunPod and vast.ai alike.",
    epilog="Exit codes: 2 usage, 3 facts or matrix, 4 nothing selected or impossible, 5 engine, "
    "6 build, 7 checks failed, 8 registry, 10 stale files, 130 interrupted.",
)
template = typer.Typer(no_args_is_help=True, help="Print the template of a tested, pushed image.")
app.add_typer(template, name="template")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show every command that is run.")
    ] = False,
) -> None:
    if version:
        from imagegen import __version__

        print(f"imagegen {__version__}")
        raise typer.Exit
    if verbose:
        import logging

        logging.basicConfig(level=logging.INFO, format="%(message)s")


@app.command("list")
def list_(
    select: Select = None,
    excluded: Annotated[
        bool, typer.Option("--excluded", help="What is left out, and every reason.")
    ] = False,
    gpu: Card = "",
    driver: Driver = "",
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Annotated[ListOutput, typer.Option("--format", help="How to print.")] = ListOutput.text,
) -> None:
    """List the targets of this workspace; with --gpu or --driver those that work there.

    imagegen list '*cuda13.0*' 'debian*' --gpu "RTX 4090" --driver 570
    """
    from imagegen import choose, report

    it = _setup(matrix, facts, allow_unknown)
    if excluded:
        report.left_out(choose.left_out(it, select or ()), fmt.value)
    else:
        report.targets(choose.listed(it, select or (), gpu, driver), fmt.value)


@app.command()
def why(
    ubuntu: Annotated[str, typer.Option(metavar="VERSION", help="20.04 to 26.04.")] = "",
    debian: Annotated[str, typer.Option(metavar="VERSION", help="12 or 13.")] = "",
    cuda: Annotated[
        str, typer.Option(metavar="VERSION", help="The toolkit that brings nvcc: 12.8 or 12.8.1.")
    ] = "",
    torch: Annotated[str, typer.Option(metavar="VERSION", help="2.9 or 2.9.1.")] = "",
    torch_index: Annotated[
        str, typer.Option(metavar="cuNNN", help="The CUDA that torch is built for, e.g. cu126.")
    ] = "",
    python: Annotated[
        str, typer.Option(metavar="VERSION", help="3.12, or 3.13t for the free-threaded build.")
    ] = "",
    flash_attn: Annotated[
        str, typer.Option(metavar="VERSION", help="A release of flash-attn 2, or none.")
    ] = "",
    flash_attn_from: Annotated[
        str, typer.Option(metavar="ORIGIN", help="official, third-party or source.")
    ] = "",
    arch: Annotated[str, typer.Option(metavar="NAME", help="x86_64 or aarch64.")] = "",
    gpu: Card = "",
    driver: Driver = "",
    memory: Annotated[
        str, typer.Option(metavar="GB", help="Memory of the machine that compiles flash-attn.")
    ] = "",
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """Say whether a combination works, every reason why not, and what is near.

    An option left out means any value. Exit code 4 when nothing can work, 0 otherwise: the verdict
    is ok, warn (works, with something to know), unverified (no fact says) or impossible.

    imagegen why --ubuntu 24.04 --cuda 13.0 --torch 2.8 --python 3.12
    """
    from imagegen import choose, report
    from imagegen.errors import ImpossibleCombination, UsageError
    from imagegen.why import Question

    if ubuntu and debian:
        raise UsageError("--ubuntu and --debian: an image stands on one of them")
    question = Question(
        os=f"ubuntu{ubuntu}" if ubuntu else f"debian{debian}" if debian else "",
        cuda=cuda, torch=torch, index=torch_index, python=python, flash_attn=flash_attn,
        origin=flash_attn_from, host=arch, gpu=gpu, driver=driver, memory=memory,
    )  # fmt: skip
    found, pieces = choose.answer(question, facts, allow_unknown=allow_unknown)
    report.why(found, pieces, fmt.value)
    if found.found.verdict == "impossible":
        raise typer.Exit(ImpossibleCombination.exit_code)


@app.command()
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
    """Name the best target for a machine, and why it beat the next one.

    imagegen pick --gpu "RTX 4090" --driver 570
    """
    from imagegen import choose, report

    it = _setup(matrix, facts, allow_unknown)
    picked = choose.best(
        it, select or (), gpu, driver, python=python, torch=torch, here=from_nvidia_smi
    )
    report.picked(picked, fmt.value)


@app.command()
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
    from imagegen import flow, report

    found = flow.render_files(_setup(matrix, facts, allow_unknown), select or (), check=check)
    report.rendered(found, fmt.value, check=check)


@app.command()
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
    from imagegen import bake, flow, report

    it = _setup(matrix, facts, allow_unknown)
    if check:
        report.locks(flow.check_locks(it, select or ()), fmt.value)
        return
    network = bake.Network(ca=ca, pypi_index=pypi_index)
    made = flow.lock_files(it, select or (), network, report.Progress())
    report.paths(made, fmt.value)


@app.command()
def build(
    select: Select = None,
    print_: Annotated[
        bool, typer.Option("--print", help="Print the bake definition and build nothing.")
    ] = False,
    builder: Builder = "",
    keep_going: KeepGoing = False,
    base: BaseFrom = Base.pull,
    fresh_base: FreshBase = False,
    ca: Ca = "",
    pypi_index: PypiIndex = "",
    torch_index: TorchIndex = "",
    apt_mirror: AptMirror = "",
    registry: Registry = "",
    repository: Repository = "",
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """Build the selected targets into the engine's store.

    imagegen build 'ubuntu24.04-cuda13.0-*-slim' --keep-going
    """
    from imagegen import flow, report

    options = _options(
        base, fresh_base, ca, pypi_index, torch_index, apt_mirror, registry, builder,
        keep_going=keep_going, repository=repository,
    )  # fmt: skip
    it, say = _setup(matrix, facts, allow_unknown), report.Progress()
    if print_:
        chosen = flow.images(it, None, select or (), options, say)
        report.show(flow.document(it, chosen, options))
        return
    from imagegen.engine import Docker

    report.built(flow.build(it, Docker.connect(), select or (), options, say), fmt.value)


@app.command()
def test(
    select: Select = None,
    gpu: Gpu = False,
    again: Again = False,
    builder: Builder = "",
    keep_going: KeepGoing = False,
    base: BaseFrom = Base.pull,
    fresh_base: FreshBase = False,
    ca: Ca = "",
    pypi_index: PypiIndex = "",
    torch_index: TorchIndex = "",
    apt_mirror: AptMirror = "",
    registry: Registry = "",
    repository: Repository = "",
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """Build the selected targets and run their checks: nvcc, torch, flash-attn, SSH, Jupyter."""
    from imagegen import flow, report
    from imagegen.engine import Docker

    options = _options(
        base, fresh_base, ca, pypi_index, torch_index, apt_mirror, registry, builder,
        keep_going=keep_going, repository=repository, gpu=gpu, again=again,
    )  # fmt: skip
    found = flow.test(
        _setup(matrix, facts, allow_unknown),
        Docker.connect(),
        select or (),
        options,
        report.Progress(),
    )
    report.tested(found, fmt.value)
    flow.passed(found)


@app.command()
def push(
    select: Select = None,
    gpu: Gpu = False,
    again: Again = False,
    builder: Builder = "",
    base: BaseFrom = Base.pull,
    fresh_base: FreshBase = False,
    ca: Ca = "",
    pypi_index: PypiIndex = "",
    torch_index: TorchIndex = "",
    apt_mirror: AptMirror = "",
    registry: Registry = "",
    repository: Repository = "",
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """Build, test and push the selected targets. Nothing untested can be pushed."""
    from imagegen import flow, report
    from imagegen.engine import Docker

    options = _options(
        base, fresh_base, ca, pypi_index, torch_index, apt_mirror, registry, builder,
        repository=repository, gpu=gpu, again=again,
    )  # fmt: skip
    done = flow.push(
        _setup(matrix, facts, allow_unknown),
        Docker.connect(),
        select or (),
        options,
        report.Progress(),
    )
    report.pushed(done, fmt.value)


@template.command("runpod")
def template_runpod(
    select: Select = None,
    base: BaseFrom = Base.pull,
    repository: Repository = "",
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
) -> None:
    """RunPod templates (REST v2) of the selected targets, as JSON, with the pushed digest."""
    _template("runpod", select, base, repository, _setup(matrix, facts, allow_unknown))


@template.command("vast")
def template_vast(
    select: Select = None,
    base: BaseFrom = Base.pull,
    repository: Repository = "",
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
) -> None:
    """vast.ai templates of the selected targets, as JSON, with the pushed digest."""
    _template("vast", select, base, repository, _setup(matrix, facts, allow_unknown))


def _setup(matrix: Path, facts: Path | None, allow_unknown: bool) -> Setup:
    from imagegen import flow

    return flow.setup(matrix, facts, allow_unknown=allow_unknown)


def _template(
    platform: str, select: list[str] | None, base: Base, repository: str, it: Setup
) -> None:
    from imagegen import flow, pods, report
    from imagegen.engine import Docker

    options = flow.Options(base=base.value, repository=repository)
    done = flow.already_pushed(it, Docker.connect(), select or (), options, report.Progress())
    report.show([pods.template(platform, one, it.facts) for one in done])


@app.command()
def doctor(
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Install and start what is missing; prints how to undo it."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --fix: print the commands, run none.")
    ] = False,
    fmt: Fmt = Output.text,
) -> None:
    """Say what this machine lacks for building images, and install it if asked to."""
    from imagegen import doctor as physician
    from imagegen import report
    from imagegen.errors import EngineError

    if fix:
        report.fixed(physician.fix(report.Progress(), dry_run=dry_run), fmt.value)
        return
    found = physician.examine()
    report.findings(found, fmt.value)
    raise typer.Exit(0 if all(finding.ok for finding in found) else EngineError.exit_code)


@app.command()
def demo(
    fresh_base: FreshBase = False,
    ca: Ca = "",
    pypi_index: PypiIndex = "",
    apt_mirror: AptMirror = "",
    registry: Registry = "",
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """From a bare machine to a tested GPU image in a registry of its own: the whole way.

    Installs Docker where there is none, builds this distribution's demo target, checks it, pushes
    it to a registry on this machine, and prints its RunPod and vast.ai templates. A second run
    finds everything done.
    """
    from imagegen import demo as whole_way
    from imagegen import pods, report

    options = _options(Base.bootstrap, fresh_base, ca, pypi_index, "", apt_mirror, registry, "")
    it = _setup(matrix, facts, allow_unknown)
    made = whole_way.demo(it, options, report.Progress())
    templates = {name: pods.template(name, made.pushed, it.facts) for name in pods.PLATFORMS}
    report.demo(made, templates, fmt.value)


def _options(
    base: Base,
    fresh_base: bool,
    ca: str,
    pypi_index: str,
    torch_index: str,
    apt_mirror: str,
    registry: str,
    builder: str,
    *,
    keep_going: bool = False,
    repository: str = "",
    gpu: bool = False,
    again: bool = False,
) -> Options:
    from imagegen import bake, flow

    network = bake.Network(
        ca=ca,
        pypi_index=pypi_index,
        torch_index=torch_index,
        apt_mirror=apt_mirror,
        registry=registry,
    )
    return flow.Options(
        network=network,
        base=base.value,
        fresh_base=fresh_base,
        builder=builder,
        keep_going=keep_going,
        gpu=gpu,
        again=again,
        repository=repository,
    )
