"""Commands about flash-attn wheels apart from images."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagegen.cli.options import (
    MATRIX,
    AllowUnknown,
    AptMirror,
    Archs,
    Base,
    BaseFrom,
    Builder,
    Ca,
    Dtypes,
    Features,
    Fmt,
    Given,
    HeadDims,
    Here,
    Jobs,
    ListOutput,
    MatrixFile,
    Output,
    OwnFacts,
    Preset,
    PypiIndex,
    Registry,
    Release,
    Sdist,
    Select,
    TorchIndex,
    Wheels,
    Where,
    Work,
    settings,
    setup,
)

if TYPE_CHECKING:
    from imagegen.build.options import Options
    from imagegen.matrix.project import Project


class Level(StrEnum):
    """How far a wheel is checked."""

    contents = "contents"
    kernels = "kernels"
    load = "load"


wheel = typer.Typer(
    no_args_is_help=True,
    help="flash-attn wheels: build once, keep in a store, and let images take them from there.",
)
Shard = Annotated[
    str,
    typer.Option(metavar="K/N", help="Compile the K-th of N parts only, and keep its objects."),
]
To = Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where the files go.")]
Force = Annotated[
    bool,
    typer.Option("--force", help="Also what the store has: compile all of it anew, replace it."),
]
Interpreter = Annotated[
    str, typer.Option("--python", metavar="PATH", help="The interpreter that has torch.")
]


@wheel.command("list")
def list_(
    select: Select = None,
    held: Annotated[
        bool, typer.Option("--held", help="What the store holds, whatever the targets want.")
    ] = False,
    wheels: Wheels = "",
    ca: Ca = "",
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """Name the wheel of each target, and every place that it could come from.

    imagegen wheel list 'debian12-*' --wheels ./wheels
    """
    from imagegen.commands import wheels as wheels_
    from imagegen.output import wheels as report

    options = settings(Base.pull, False, ca, "", "", "", "", "", wheels=wheels)
    if held:
        report.pushed(wheels_.held(options), fmt.value)
        return
    it = setup(matrix, facts, allow_unknown)
    report.listed(wheels_.listed(it, select or (), options), fmt.value)


@wheel.command("plan")
def plan(
    select: Select = None,
    shards: Annotated[int, typer.Option("--shards", min=1, help="How many parts.")] = 4,
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Annotated[ListOutput, typer.Option("--format", help="How to print.")] = ListOutput.text,
) -> None:
    """Cut the kernel files of each target into parts of about the same cost, one for a CI job.

    Build each with `wheel build TARGET --shard K/N --to FOLDER`, bring the folders together, and
    link them with `wheel join`. --format github is a matrix for a workflow.
    """
    from imagegen.commands.wheels import cut
    from imagegen.output import wheels as report

    found = cut(setup(matrix, facts, allow_unknown), select or (), shards)
    report.shards(found, fmt.value)


HERE_ONLY = {
    *("version", "sdist", "archs", "preset", "head_dims", "dtypes", "features", "python", "work"),
    "given",
}
TARGETS_ONLY = {
    *("select", "force", "builder", "base", "pypi_index", "torch_index", "apt_mirror", "registry"),
    *("matrix", "allow_unknown"),
}


def _of_the_mode(ctx: typer.Context, *, here: bool) -> None:
    """Refuse options that would do nothing, rather than build something else than was asked for."""
    from imagegen.errors import UsageError

    sources = {n: ctx.get_parameter_source(n) for n in (TARGETS_ONLY if here else HERE_ONLY)}
    given = {name for name, where in sources.items() if where and where.name == "COMMANDLINE"}
    if given:
        words = ", ".join(sorted(f"--{name.replace('_', '-')}" for name in given))
        words = words.replace("--given", "--from").replace("--select", "SELECT")
        mode = "with --here" if here else "without --here: a target's kernels are the matrix's"
        raise UsageError(f"{words}: not {mode}")


@wheel.command("build")
def build(
    ctx: typer.Context,
    select: Select = None,
    here: Here = False,
    shard: Shard = "",
    to: Where = None,
    given: Given = None,
    force: Force = False,
    wheels: Wheels = "",
    jobs: Jobs = 0,
    version: Release = "",
    sdist: Sdist = None,
    archs: Archs = "",
    preset: Preset = "full",
    head_dims: HeadDims = "",
    dtypes: Dtypes = "",
    features: Features = None,
    python: Interpreter = "python3",
    work: Work = Path("build"),
    builder: Builder = "",
    base: BaseFrom = Base.pull,
    ca: Ca = "",
    pypi_index: PypiIndex = "",
    torch_index: TorchIndex = "",
    apt_mirror: AptMirror = "",
    registry: Registry = "",
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """Build the wheels of the selected targets into the store, compiling each kernel once.

    imagegen wheel build 'ubuntu24.04-*' --wheels ./wheels

    imagegen wheel build --here --preset llama --to ./wheels
    """
    _of_the_mode(ctx, here=here)
    options = settings(
        base, False, ca, pypi_index, torch_index, apt_mirror, registry, builder, wheels=wheels,
        jobs=jobs,
    )  # fmt: skip
    to = to or Path("shards" if shard else "wheels")
    if here:
        kernels = (version, archs, preset, head_dims, dtypes, features)
        _build_here(
            kernels, facts, sdist, python, work, to, shard, given, options, _named(ctx), fmt
        )
    else:
        _build(setup(matrix, facts, allow_unknown), select or (), options, shard, to, force, fmt)


def _named(ctx: typer.Context) -> bool:
    """Whether a store is named on the command line: a variable of the environment is no wish."""
    source = ctx.get_parameter_source("wheels")
    return source is not None and source.name == "COMMANDLINE"


def _build_here(
    kernels: tuple[str, str, str, str, str, str | None],
    own: Path | None,
    sdist: Path | None,
    python: str,
    work: Path,
    to: Path,
    shard: str,
    given: Path | None,
    options: Options,
    keep: bool,
    fmt: Output,
) -> None:
    """With this machine's torch and nvcc; ``keep`` puts the wheel into the store, too."""
    from imagegen.commands import wheels as wheels_
    from imagegen.compat.facts import files
    from imagegen.output import wheels as report
    from imagegen.wheels import compile

    found = compile.build_here(
        compile.Asked(*kernels), files.load(own), sdist=sdist, python=python, work=work, to=to, jobs=options.jobs, shard=shard, given=given,
    )  # fmt: skip
    if keep and "wheel" in found:
        wheels_.push([to / str(found["wheel"])], options, force=False)
    report.here(found, to, fmt.value)


def _build(
    project: Project,
    select: Sequence[str],
    options: Options,
    shard: str,
    to: Path,
    force: bool,
    fmt: Output,
) -> None:
    """In BuildKit, for targets."""
    from imagegen.commands import wheels as wheels_
    from imagegen.engine.docker import Docker
    from imagegen.output import wheels as report

    engine = Docker.connect()
    if shard:
        objects = wheels_.build_shard(project, engine, select, options, shard, to)
        report.files(objects, fmt.value)
    else:
        report.made(wheels_.build(project, engine, select, options, force=force), fmt.value)


@wheel.command("join")
def join(
    select: Select = None,
    given: Annotated[
        Path,
        typer.Option("--from", metavar="FOLDER", help="What the shards left, brought together."),
    ] = Path("shards"),
    force: Force = False,
    wheels: Wheels = "",
    builder: Builder = "",
    base: BaseFrom = Base.pull,
    ca: Ca = "",
    pypi_index: PypiIndex = "",
    torch_index: TorchIndex = "",
    apt_mirror: AptMirror = "",
    registry: Registry = "",
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """Link what the shards of a target compiled into its wheel; a missing kernel is an error.

    imagegen wheel join TARGET --from ./shards --wheels ./wheels
    """
    from imagegen.commands import wheels as wheels_
    from imagegen.engine.docker import Docker
    from imagegen.output import wheels as report

    options = settings(
        base, False, ca, pypi_index, torch_index, apt_mirror, registry, builder, wheels=wheels
    )
    it, engine = setup(matrix, facts, allow_unknown), Docker.connect()
    report.made(
        wheels_.build(it, engine, select or (), options, given=given, force=force),
        fmt.value,
    )


@wheel.command("fetch")
def fetch(
    select: Select = None,
    to: To = Path("wheels"),
    published: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="ORIGIN",
            help="official or third-party: fetch the published wheel instead, and record its hash "
            "beside the locks, so that builds may take it.",
        ),
    ] = "",
    wheels: Wheels = "",
    ca: Ca = "",
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """Have the wheels of the selected targets in a folder, checked by hash.

    imagegen wheel fetch 'debian12-*' --wheels oci://ghcr.io/me/wheels --to ./wheels
    """
    from imagegen.commands import wheels as wheels_
    from imagegen.output import wheels as report

    it = setup(matrix, facts, allow_unknown)
    options = settings(Base.pull, False, ca, "", "", "", "", "", wheels=wheels)
    if published:
        found = wheels_.fetch_published(it, select or (), published, options, to)
    else:
        found = wheels_.fetch(it, select or (), options, to)
    report.files(found, fmt.value)


@wheel.command("push")
def push(
    files: Annotated[list[Path], typer.Argument(metavar="WHEEL...", help="Wheel files.")],
    wheels: Wheels = "",
    force: Force = False,
    ca: Ca = "",
    fmt: Fmt = Output.text,
) -> None:
    """Put wheels into a store, each looked through first: its hashes, its name, its metadata.

    What its kernels are, `wheel verify` says.

    imagegen wheel push ./wheels/*.whl --wheels oci://ghcr.io/me/wheels
    """
    from imagegen.commands import wheels as wheels_
    from imagegen.output import wheels as report

    options = settings(Base.pull, False, ca, "", "", "", "", "", wheels=wheels)
    report.pushed(wheels_.push(files, options, force=force), fmt.value)


@wheel.command("verify")
def verify(
    files: Annotated[list[Path], typer.Argument(metavar="WHEEL...", help="Wheel files.")],
    python: Interpreter = "python3",
    level: Annotated[
        Level,
        typer.Option("--level", help="contents: the file; kernels: by cuobjdump; load: by torch."),
    ] = Level.load,
    image: Annotated[
        str, typer.Option(metavar="IMAGE", help="In a container of this image, by its Python.")
    ] = "",
    sha256: Annotated[
        str, typer.Option("--sha256", metavar="HASH", help="The hash that the file must have.")
    ] = "",
    fmt: Fmt = Output.text,
) -> None:
    """Check that wheels are what their names promise; needs no GPU.

    Their hash, against --sha256 or the description that a store keeps beside them; the hashes of
    the files in them, tags and metadata; every promised kernel and feature for every promised
    architecture, and no other; torch minor, CUDA and C++ ABI, and that they load.

    imagegen wheel verify ./wheels/*.whl --image imagegen/built:TAG
    """
    from imagegen.output import wheels as report
    from imagegen.wheels.verify import no_faults, verify_all

    found, faults = verify_all(files, python=python, level=level.value, image=image, sha256=sha256)
    report.verified(found, faults, fmt.value)
    no_faults(faults)
