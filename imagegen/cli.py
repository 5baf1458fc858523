"""The command line: options in, one flow call, one report out. Nothing heavy is imported here."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from imagegen.flow import Options

app = typer.Typer(
    name="imagegen",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Images for fine-tuning language models on rented GPUs: nvcc and flash-attn baked in, "
    "tested before they are pushed, for RunPod and vast.ai alike.",
    epilog="Exit codes: 2 usage, 3 facts or matrix, 4 nothing selected, 5 engine, 6 build, "
    "7 checks failed, 8 registry, 10 stale files, 130 interrupted.",
)
template = typer.Typer(no_args_is_help=True, help="Print the template of a tested, pushed image.")
app.add_typer(template, name="template")


class Output(StrEnum):
    """How results are printed."""

    text = "text"
    json = "json"


class ListOutput(StrEnum):
    """How targets are printed; ``github`` is a job matrix for GitHub Actions."""

    text = "text"
    json = "json"
    github = "github"


class Base(StrEnum):
    """Where base images come from."""

    pull = "pull"
    bootstrap = "bootstrap"


Select = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SELECT]...", help="Globs over target ids; without any, every target."),
]
MatrixFile = Annotated[
    Path,
    typer.Option("--matrix", metavar="FILE", help="What to build.", envvar="IMAGEGEN_MATRIX"),
]
Fmt = Annotated[Output, typer.Option("--format", help="How to print the result.")]
Builder = Annotated[
    str,
    typer.Option(metavar="NAME", help="A buildx builder instead of the engine's own BuildKit."),
]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going", help="Build the rest when a target fails, then fail.")
]
BaseFrom = Annotated[
    Base,
    typer.Option(
        "--base",
        help="bootstrap makes the base from this machine's own packages, for a network without a "
        "registry; it works for slim images of CUDA 13 on this machine's distribution.",
        envvar="IMAGEGEN_BASE",
    ),
]
FreshBase = Annotated[
    bool, typer.Option("--fresh-base", help="Bootstrap the base anew, with today's packages.")
]
Ca = Annotated[
    str,
    typer.Option(
        "--ca",
        metavar="FILE",
        help="CA bundle for the build's downloads, as a secret: it is in no layer.",
        envvar=["IMAGEGEN_CA", "SSL_CERT_FILE"],
    ),
]
PypiIndex = Annotated[
    str,
    typer.Option(metavar="URL", help="A PyPI index of your own.", envvar="IMAGEGEN_PYPI_INDEX"),
]
TorchIndex = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="A PyTorch index of your own; {backend} in it becomes cu128 and the like.",
        envvar="IMAGEGEN_TORCH_INDEX",
    ),
]
AptMirror = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="Root of a distribution mirror: takes the place of the archive's host.",
        envvar="IMAGEGEN_APT_MIRROR",
    ),
]
Registry = Annotated[
    str,
    typer.Option(
        metavar="HOST",
        help="A registry that mirrors docker.io, for base images.",
        envvar="IMAGEGEN_REGISTRY",
    ),
]
Gpu = Annotated[bool, typer.Option("--gpu", help="Run the checks that need a GPU, too.")]
Again = Annotated[bool, typer.Option("--again", help="Repeat checks that these bytes passed.")]
Repository = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Where to push, e.g. ghcr.io/me/finetune; matrix.toml has the default.",
        envvar="IMAGEGEN_REPOSITORY",
    ),
]
MATRIX = Path("dockerfiles/matrix.toml")


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
        bool, typer.Option("--excluded", help="What is left out, and why.")
    ] = False,
    matrix: MatrixFile = MATRIX,
    fmt: Annotated[ListOutput, typer.Option("--format", help="How to print.")] = ListOutput.text,
) -> None:
    """List the targets of this workspace.

    imagegen list '*cuda13.0*' 'debian*'
    """
    from imagegen import flow, report

    it = flow.setup(matrix)
    if excluded:
        report.left_out(it.resolution, fmt.value)
    else:
        report.targets(it.resolution.select(select or ()), it.resolution, fmt.value)


@app.command()
def render(
    select: Select = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 10 when a file differs.")
    ] = False,
    matrix: MatrixFile = MATRIX,
    fmt: Fmt = Output.text,
) -> None:
    """Write the Dockerfiles of the selected targets beside the matrix."""
    from imagegen import flow, report

    found = flow.render_files(flow.setup(matrix), select or (), check=check)
    report.rendered(found, fmt.value, check=check)


@app.command()
def lock(
    select: Select = None,
    ca: Ca = "",
    pypi_index: PypiIndex = "",
    matrix: MatrixFile = MATRIX,
    fmt: Fmt = Output.text,
) -> None:
    """Pin every Python package of the selected targets by hash. Asks the package index."""
    from imagegen import bake, flow, report

    network = bake.Network(ca=ca, pypi_index=pypi_index)
    made = flow.lock_files(flow.setup(matrix), select or (), network, report.Progress())
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
    it, say = flow.setup(matrix), report.Progress()
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
        flow.setup(matrix), Docker.connect(), select or (), options, report.Progress()
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
    fmt: Fmt = Output.text,
) -> None:
    """Build, test and push the selected targets. Nothing untested can be pushed."""
    from imagegen import flow, report
    from imagegen.engine import Docker

    options = _options(
        base, fresh_base, ca, pypi_index, torch_index, apt_mirror, registry, builder,
        repository=repository, gpu=gpu, again=again,
    )  # fmt: skip
    done = flow.push(flow.setup(matrix), Docker.connect(), select or (), options, report.Progress())
    report.pushed(done, fmt.value)


@template.command("runpod")
def template_runpod(
    select: Select = None,
    base: BaseFrom = Base.pull,
    repository: Repository = "",
    matrix: MatrixFile = MATRIX,
) -> None:
    """RunPod templates (REST v2) of the selected targets, as JSON, with the pushed digest."""
    _template("runpod", select, base, repository, matrix)


@template.command("vast")
def template_vast(
    select: Select = None,
    base: BaseFrom = Base.pull,
    repository: Repository = "",
    matrix: MatrixFile = MATRIX,
) -> None:
    """vast.ai templates of the selected targets, as JSON, with the pushed digest."""
    _template("vast", select, base, repository, matrix)


def _template(
    platform: str, select: list[str] | None, base: Base, repository: str, matrix: Path
) -> None:
    from imagegen import flow, pods, report
    from imagegen.engine import Docker

    it = flow.setup(matrix)
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
    fmt: Fmt = Output.text,
) -> None:
    """From a bare machine to a tested GPU image in a registry of its own: the whole way.

    Installs Docker where there is none, builds this distribution's demo target, checks it, pushes
    it to a registry on this machine, and prints its RunPod and vast.ai templates. A second run
    finds everything done.
    """
    from imagegen import demo as whole_way
    from imagegen import flow, pods, report

    options = _options(Base.bootstrap, fresh_base, ca, pypi_index, "", apt_mirror, registry, "")
    it = flow.setup(matrix)
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
